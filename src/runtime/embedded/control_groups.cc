#include "runtime/embedded/control_groups.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"
#include "base/ids.h"

namespace takt::runtime {
namespace {

constexpr std::size_t kMaxGroupFileBytes = 1 << 20;

bool Write(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = errno;
  close(fd);
  errno = error;
  return written;
}

std::string Read(const std::string& path) {
  return ReadFile(path, kMaxGroupFileBytes).value_or("");
}

// The number behind `key ` at the start of a line.
std::uint64_t Keyed(const std::string& text, const std::string& key) {
  for (const auto& line : absl::StrSplit(text, '\n')) {
    const std::string l(line);
    std::uint64_t value = 0;
    if (l.rfind(key + " ", 0) == 0 && absl::SimpleAtoi(l.substr(key.size() + 1), &value)) {
      return value;
    }
  }
  return 0;
}

// `mount`/takt when groups can be made there; "" otherwise.
std::string Usable(const std::string& mount) {
  if (mount.empty()) return "";
  const std::string base = JoinPath(mount, "takt");
  if (mkdir(base.c_str(), 0755) != 0 && errno != EEXIST) return "";
  const std::string probe = JoinPath(base, StrCat("probe-", RandomId(8)));
  if (mkdir(probe.c_str(), 0755) != 0) return "";
  const bool writable = access(JoinPath(probe, "cgroup.procs").c_str(), W_OK) == 0;
  rmdir(probe.c_str());
  return writable ? base : "";
}

}  // namespace

ControlGroupMounts ParseControlGroupMounts(const std::string& mounts) {
  ControlGroupMounts result;
  for (const auto& line : absl::StrSplit(mounts, '\n')) {
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    if (fields.size() < 4) continue;
    if (fields[2] == "cgroup2") result.unified = fields[1];
    if (fields[2] != "cgroup") continue;
    const std::vector<std::string> options = absl::StrSplit(fields[3], ',');
    const auto has = [&](const char* name) {
      return std::find(options.begin(), options.end(), name) != options.end();
    };
    if (has("memory")) result.memory = fields[1];
    if (has("cpu")) result.cpu = fields[1];
    if (has("cpuacct")) result.cpuacct = fields[1];
  }
  return result;
}

ControlGroups ControlGroups::Detect() {
  ControlGroups groups;
  const ControlGroupMounts mounts = ParseControlGroupMounts(Read("/proc/self/mounts"));
  groups.memory_ = Usable(mounts.memory);
  groups.cpu_ = Usable(mounts.cpu);
  groups.cpuacct_ = Usable(mounts.cpuacct);
  if (!mounts.memory.empty() || mounts.unified.empty()) return groups;
  const std::string base = Usable(mounts.unified);
  if (base.empty()) return groups;
  for (const std::string& directory : {mounts.unified, base}) {
    if (!Write(JoinPath(directory, "cgroup.subtree_control"), "+cpu +memory")) return groups;
  }
  groups.unified_ = true;
  groups.memory_ = groups.cpu_ = groups.cpuacct_ = base;
  return groups;
}

std::vector<std::string> ControlGroups::Directories(const std::string& id) const {
  std::vector<std::string> directories;
  for (const std::string& base : {memory_, cpu_, cpuacct_}) {
    if (base.empty()) continue;
    std::string directory = JoinPath(base, id);
    if (std::find(directories.begin(), directories.end(), directory) == directories.end()) {
      directories.push_back(std::move(directory));
    }
  }
  return directories;
}

absl::StatusOr<ControlGroups::Group> ControlGroups::Make(const std::string& id, double cpus,
                                                         std::uint64_t memory_bytes) const {
  Group group;
  group.directories = Directories(id);
  for (const std::string& directory : group.directories) {
    if (mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
      absl::Status status = ErrnoStatus(errno, StrCat("control group ", directory));
      Remove(id);
      return status;
    }
  }
  const auto limit = [&](const std::string& base, const char* file, const std::string& value) {
    const std::string path = JoinPath(JoinPath(base, id), file);
    if (Write(path, value)) return absl::OkStatus();
    absl::Status status = ErrnoStatus(errno, StrCat("writing ", value, " to ", path));
    Remove(id);
    return status;
  };
  constexpr int kPeriodUs = 100'000;
  const std::string quota = std::to_string(std::max<long>(1000, std::lround(cpus * kPeriodUs)));
  if (memory() && memory_bytes > 0) {
    TAKT_RETURN_IF_ERROR(limit(memory_, unified_ ? "memory.max" : "memory.limit_in_bytes",
                               std::to_string(memory_bytes)));
    // Where swap is accounted, the limit holds for both together.
    const std::string directory = JoinPath(memory_, id);
    Write(JoinPath(directory, unified_ ? "memory.swap.max" : "memory.memsw.limit_in_bytes"),
          unified_ ? "0" : std::to_string(memory_bytes));
  }
  if (cpu() && cpus > 0) {
    TAKT_RETURN_IF_ERROR(unified_ ? limit(cpu_, "cpu.max", StrCat(quota, " ", kPeriodUs))
                                  : limit(cpu_, "cpu.cfs_quota_us", quota));
  }
  if (memory()) {
    group.oom_file =
        JoinPath(JoinPath(memory_, id), unified_ ? "memory.events" : "memory.oom_control");
  }
  return group;
}

bool ControlGroups::Remove(const std::string& id) const {
  bool all = true;
  for (const std::string& directory : Directories(id)) {
    if (rmdir(directory.c_str()) == 0 || errno != EBUSY) continue;
    for (const auto& line : absl::StrSplit(Read(JoinPath(directory, "cgroup.procs")), '\n')) {
      int pid = 0;
      if (absl::SimpleAtoi(line, &pid) && pid > 1) kill(pid, SIGKILL);
    }
    all &= rmdir(directory.c_str()) == 0;
  }
  return all;
}

std::optional<ControlGroups::Usage> ControlGroups::Measure(const std::string& id) const {
  if (!accounting() || !memory()) return std::nullopt;
  Usage usage;
  if (unified_) {
    const std::string directory = JoinPath(memory_, id);
    usage.cpu_seconds = Keyed(Read(JoinPath(directory, "cpu.stat")), "usage_usec") / 1e6;
    const std::string stat = Read(JoinPath(directory, "memory.stat"));
    usage.memory_bytes = Keyed(stat, "anon") + Keyed(stat, "file_mapped");
    return usage;
  }
  std::uint64_t nanoseconds = 0;
  const std::string text = Read(JoinPath(JoinPath(cpuacct_, id), "cpuacct.usage"));
  if (!absl::SimpleAtoi(text, &nanoseconds)) return std::nullopt;
  usage.cpu_seconds = static_cast<double>(nanoseconds) / 1e9;
  const std::string stat = Read(JoinPath(JoinPath(memory_, id), "memory.stat"));
  usage.memory_bytes = Keyed(stat, "total_rss") + Keyed(stat, "total_mapped_file");
  return usage;
}

}  // namespace takt::runtime
