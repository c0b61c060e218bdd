#include "metrics/process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"
#include "base/str.h"

namespace takt::metrics {
namespace {

constexpr std::size_t kMaxProcBytes = 64 << 10;

// Fields of /proc/PID/stat (proc(5)), counted from 1; the second, the name, may hold blanks.
constexpr std::size_t kUtime = 14, kStime = 15, kThreads = 20, kStartTime = 22, kVsize = 23,
                      kRss = 24;

}  // namespace

std::vector<Figure> ReadProcess() {
  std::vector<Figure> figures;
  const auto add = [&](const char* name, Type type, double value) {
    figures.push_back({name, {}, type, value});
  };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto stat = ReadFile("/proc/self/stat", kMaxProcBytes);
  if (stat.ok()) {
    const auto name_end = stat->rfind(") ");
    const std::vector<std::string> fields = absl::StrSplit(
        name_end == std::string::npos ? std::string() : stat->substr(name_end + 2), ' ');
    const auto field = [&](std::size_t number) {
      double value = 0;
      if (number - 3 >= fields.size() || !absl::SimpleAtod(fields[number - 3], &value)) return 0.0;
      return value;
    };
    if (fields.size() > kRss - 3) {
      add("process_cpu_seconds_total", Type::kCounter, (field(kUtime) + field(kStime)) / ticks);
      add("process_resident_memory_bytes", Type::kGauge,
          field(kRss) * static_cast<double>(sysconf(_SC_PAGESIZE)));
      add("process_virtual_memory_bytes", Type::kGauge, field(kVsize));
      add("process_threads", Type::kGauge, field(kThreads));
      const auto machine = ReadFile("/proc/stat", 16 * kMaxProcBytes);
      if (machine.ok()) {
        for (const absl::string_view line : absl::StrSplit(*machine, '\n')) {
          double boot = 0;
          if (line.substr(0, 6) == "btime " && absl::SimpleAtod(line.substr(6), &boot)) {
            add("process_start_time_seconds", Type::kGauge, boot + field(kStartTime) / ticks);
          }
        }
      }
    }
  }
  const auto open = ListDir("/proc/self/fd");
  if (open.ok()) add("process_open_fds", Type::kGauge, static_cast<double>(open->size()) - 1);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    add("process_max_fds", Type::kGauge, static_cast<double>(limit.rlim_cur));
  }
  return figures;
}

}  // namespace takt::metrics
