// Limits and accounting by control groups, v1 or v2, whichever is writable here. One group per
// instance (and, in v1, per controller), named after it. Thread-safe after Detect.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace takt::runtime {

struct ControlGroupMounts {
  std::string memory, cpu, cpuacct;  // v1: directories of this process's groups' hierarchies
  std::string unified;               // v2, where it has controllers
};
// From /proc/self/mounts. Pure.
ControlGroupMounts ParseControlGroupMounts(const std::string& mounts);

class ControlGroups {
 public:
  // Finds out what is writable by trying.
  static ControlGroups Detect();

  bool memory() const { return unified_ ? true : !memory_.empty(); }
  bool cpu() const { return unified_ ? true : !cpu_.empty(); }
  bool accounting() const { return unified_ ? true : !cpuacct_.empty(); }

  struct Group {
    std::vector<std::string> directories;
    std::string oom_file;  // "" where memory is not grouped
  };
  // Makes an instance's groups, with limits; 0 = none.
  absl::StatusOr<Group> Make(const std::string& id, double cpus, std::uint64_t memory_bytes) const;
  // Ends what still runs in them and removes them. False while something is still ending: to be
  // called again soon. True where there are none.
  bool Remove(const std::string& id) const;

  struct Usage {
    double cpu_seconds = 0;
    std::uint64_t memory_bytes = 0;
  };
  std::optional<Usage> Measure(const std::string& id) const;

 private:
  std::vector<std::string> Directories(const std::string& id) const;

  std::string memory_, cpu_, cpuacct_;  // "" or the directory above the instances'
  bool unified_ = false;                // then all three are the same
};

}  // namespace takt::runtime
