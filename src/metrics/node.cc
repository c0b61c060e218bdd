#include "metrics/node.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"

namespace takt::metrics {
namespace {

constexpr std::size_t kMaxProcBytes = 4 << 20;
constexpr double kSectorBytes = 512;  // the unit of /proc/diskstats, whatever the disk's own

std::vector<std::string> Words(std::string_view line) {
  return absl::StrSplit(ToAbsl(line), absl::ByAnyChar(" \t"), absl::SkipEmpty());
}

double Number(const std::vector<std::string>& words, std::size_t i) {
  double value = 0;
  return i < words.size() && absl::SimpleAtod(words[i], &value) ? value : 0;
}

template <typename Visit>
void ForLines(std::string_view text, Visit visit) {
  for (const absl::string_view line : absl::StrSplit(ToAbsl(text), '\n', absl::SkipEmpty())) {
    visit(ToStd(line));
  }
}

// Partitions and what maps other disks would count twice.
bool IsWholeDisk(std::string_view device) {
  if (device.starts_with("loop") || device.starts_with("ram") || device.starts_with("dm-") ||
      device.starts_with("zram")) {
    return false;
  }
  const char last = device.back();
  if (device.starts_with("nvme") || device.starts_with("mmcblk")) {
    return device.find('p', 4) == std::string_view::npos;
  }
  return last < '0' || last > '9';
}

}  // namespace

void ParseStat(std::string_view text, double ticks_per_second, std::vector<Figure>& out) {
  static constexpr const char* kModes[] = {"user",   "nice", "system",  "idle",
                                           "iowait", "irq",  "softirq", "steal"};
  int cores = 0;
  ForLines(text, [&](std::string_view line) {
    if (!line.starts_with("cpu")) return;
    const auto words = Words(line);
    if (words[0] != "cpu") {
      ++cores;
      return;
    }
    for (std::size_t i = 0; i < std::size(kModes) && i + 1 < words.size(); ++i) {
      out.push_back({"takt_node_cpu_seconds_total",
                     {{"mode", kModes[i]}},
                     Type::kCounter,
                     Number(words, i + 1) / ticks_per_second});
    }
  });
  if (cores > 0) out.push_back({"takt_node_cores", {}, Type::kGauge, static_cast<double>(cores)});
}

void ParseMeminfo(std::string_view text, std::vector<Figure>& out) {
  static constexpr std::pair<std::string_view, const char*> kKinds[] = {
      {"MemTotal:", "total"},     {"MemFree:", "free"},    {"MemAvailable:", "available"},
      {"Cached:", "cached"},      {"Buffers:", "buffers"}, {"SwapTotal:", "swap_total"},
      {"SwapFree:", "swap_free"}, {"Dirty:", "dirty"},
  };
  ForLines(text, [&](std::string_view line) {
    const auto words = Words(line);
    for (const auto& [key, kind] : kKinds) {
      if (!words.empty() && words[0] == key) {
        out.push_back(
            {"takt_node_memory_bytes", {{"kind", kind}}, Type::kGauge, Number(words, 1) * 1024});
      }
    }
  });
}

void ParseNetDev(std::string_view text, std::vector<Figure>& out) {
  ForLines(text, [&](std::string_view line) {
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) return;
    const auto name = Words(line.substr(0, colon));
    const auto words = Words(line.substr(colon + 1));
    if (name.empty() || name[0] == "lo" || words.size() < 12) return;
    const Labels labels = {{"device", name[0]}};
    out.push_back(
        {"takt_node_network_receive_bytes_total", labels, Type::kCounter, Number(words, 0)});
    out.push_back(
        {"takt_node_network_receive_errors_total", labels, Type::kCounter, Number(words, 2)});
    out.push_back(
        {"takt_node_network_transmit_bytes_total", labels, Type::kCounter, Number(words, 8)});
    out.push_back(
        {"takt_node_network_transmit_errors_total", labels, Type::kCounter, Number(words, 10)});
  });
}

void ParseDiskstats(std::string_view text, std::vector<Figure>& out) {
  ForLines(text, [&](std::string_view line) {
    const auto words = Words(line);
    if (words.size() < 14 || !IsWholeDisk(words[2])) return;
    const Labels labels = {{"device", words[2]}};
    out.push_back({"takt_node_disk_read_bytes_total", labels, Type::kCounter,
                   Number(words, 5) * kSectorBytes});
    out.push_back({"takt_node_disk_written_bytes_total", labels, Type::kCounter,
                   Number(words, 9) * kSectorBytes});
    out.push_back(
        {"takt_node_disk_io_seconds_total", labels, Type::kCounter, Number(words, 12) / 1000});
  });
}

void ParsePressure(std::string_view resource, std::string_view text, std::vector<Figure>& out) {
  ForLines(text, [&](std::string_view line) {
    const auto total = line.find("total=");
    double micros = 0;
    if (!line.starts_with("some") || total == std::string_view::npos ||
        !absl::SimpleAtod(ToAbsl(line.substr(total + 6)), &micros)) {
      return;
    }
    out.push_back({"takt_node_pressure_waiting_seconds_total",
                   {{"resource", std::string(resource)}},
                   Type::kCounter,
                   micros / 1e6});
  });
}

void ParseLoadavg(std::string_view text, std::vector<Figure>& out) {
  const auto words = Words(text);
  if (words.size() < 3) return;
  out.push_back({"takt_node_load1", {}, Type::kGauge, Number(words, 0)});
  out.push_back({"takt_node_load5", {}, Type::kGauge, Number(words, 1)});
  out.push_back({"takt_node_load15", {}, Type::kGauge, Number(words, 2)});
}

void ParseFileNr(std::string_view text, std::vector<Figure>& out) {
  const auto words = Words(text);
  if (words.empty()) return;
  out.push_back({"takt_node_open_files", {}, Type::kGauge, Number(words, 0)});
}

std::vector<Figure> ReadNode(const std::vector<std::string>& directories) {
  std::vector<Figure> out;
  const auto with = [](const char* path, auto parse) {
    const auto text = ReadFile(path, kMaxProcBytes);
    if (text.ok()) parse(*text);
  };
  with("/proc/stat", [&](const std::string& text) {
    ParseStat(text, static_cast<double>(sysconf(_SC_CLK_TCK)), out);
  });
  with("/proc/meminfo", [&](const std::string& text) { ParseMeminfo(text, out); });
  with("/proc/net/dev", [&](const std::string& text) { ParseNetDev(text, out); });
  with("/proc/diskstats", [&](const std::string& text) { ParseDiskstats(text, out); });
  with("/proc/loadavg", [&](const std::string& text) { ParseLoadavg(text, out); });
  with("/proc/sys/fs/file-nr", [&](const std::string& text) { ParseFileNr(text, out); });
  for (const char* resource : {"cpu", "io", "memory"}) {
    with(StrCat("/proc/pressure/", resource).c_str(),
         [&](const std::string& text) { ParsePressure(resource, text, out); });
  }
  std::set<unsigned long> seen;
  for (const std::string& directory : directories) {
    struct statvfs fs;
    if (statvfs(directory.c_str(), &fs) != 0 || !seen.insert(fs.f_fsid).second) continue;
    const Labels labels = {{"directory", directory}};
    const auto unit = static_cast<double>(fs.f_frsize);
    out.push_back({"takt_node_filesystem_size_bytes", labels, Type::kGauge,
                   static_cast<double>(fs.f_blocks) * unit});
    out.push_back({"takt_node_filesystem_free_bytes", labels, Type::kGauge,
                   static_cast<double>(fs.f_bavail) * unit});
  }
  return out;
}

}  // namespace takt::metrics
