// This machine's ports, processes and devices, looked up.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "runtime/embedded/control_groups.h"
#include "runtime/embedded/plan_launch.h"
#include "runtime/runtime.h"

namespace takt::runtime {

// ALREADY_EXISTS when a process listens there: "port 9000 is taken by another process (nginx, pid
// 17)"; PERMISSION_DENIED where only root may listen.
absl::Status CheckPortFree(const PortMapping& port);

// Where clients on this machine connect. `forwarded`: target -> the port that a shim listens on.
std::vector<Endpoint> EndpointsOf(const ServiceSpec& spec,
                                  const std::map<std::uint16_t, std::uint16_t>& forwarded);

// Process `pid` and all below it, from /proc.
ControlGroups::Usage MeasureProcessTree(std::int64_t pid);

// Root or not, GPUs, the environment. The rest is the caller's to find out.
Machine DescribeMachine();

}  // namespace takt::runtime
