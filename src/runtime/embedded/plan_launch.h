// From a service's specification and its image to what a shim is to do. Pure but for what it looks
// up on this machine's disk.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "runtime/embedded/images.h"
#include "runtime/embedded/sandbox.h"
#include "runtime/runtime.h"
#include "runtime/shim/launch.h"

namespace takt::runtime {

struct Machine {
  std::string prefix;          // where Takt is installed: bin/, lib/, share/ below it
  bool private_mounts = true;  // bubblewrap works
  bool root = true;            // effective uid 0
  bool memory_groups = true;   // control groups limit memory
  std::string shim;
  std::map<std::string, std::string> environment;  // the daemon's own
  std::vector<std::string> gpu_devices;            // "/dev/nvidia0", ...
  int gpus = 0;
};

// Services of an app, reachable by name, and the addresses of those that have their own; none = at
// 127.0.0.1.
using Siblings = std::map<std::string, std::vector<std::string>>;

struct LaunchPlan {
  shim::Launch launch;
  // To be written into the instance's directory first: name -> content.
  std::map<std::string, std::string> files;
  std::vector<std::string> directories;       // likewise, in the instance's directory
  std::vector<std::string> host_directories;  // working directories to make in volumes
};

// `directory`: the instance's.
// INVALID_ARGUMENT, FAILED_PRECONDITION or UNIMPLEMENTED for what cannot be run.
absl::StatusOr<LaunchPlan> PlanLaunch(const ServiceSpec& spec, const Image& image,
                                      const Machine& machine, const std::string& directory,
                                      const std::string& instance, int replica,
                                      const Siblings& siblings);
// Content of an instance's /etc/hosts.
std::string HostsFile(const ServiceSpec& spec, const Siblings& siblings);

// 15 for "SIGTERM", "TERM", "sigterm", "15"; 0 for what is no signal.
int SignalNumber(const std::string& name);
// Uid, gid, groups for "1000", "1000:100", "www-data", by the passwd and group files of `root`.
absl::StatusOr<std::vector<std::uint32_t>> LookUpUser(const std::string& user,
                                                      const std::string& root);

inline constexpr const char* kBubblewrap = "/usr/bin/bwrap";

}  // namespace takt::runtime
