// The launch file, read: see protocol.h.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/shim/protocol.h"

namespace takt::runtime::shim {

struct Launch {
  std::vector<std::string> arguments, environment, sandbox, control_groups;
  std::string directory, oom_file;
  bool has_user = false;
  std::vector<std::uint32_t> user;  // uid, gid, groups
  struct Resource {
    int which;
    std::uint64_t soft, hard;
  };
  std::vector<Resource> resources;
  std::uint64_t max_log_bytes = kMaxLogBytes;
  int stop_signal = 15;
  std::int64_t grace_ms = 10'000;
  struct Forward {
    std::string listen_ip;
    int published, target;
  };
  std::vector<Forward> forwards;
  // Ports of the program: moved to an address of its own; left where they are, but shared with
  // other instances' addresses. Any of them: its bind and connect calls pass the shim.
  bool move_all_ports = false;
  std::vector<int> moved_ports, shared_ports;
  bool remaps() const { return move_all_ports || !moved_ports.empty() || !shared_ports.empty(); }
};

// From the open file `fd`. False with `error` set when it cannot be read.
bool ReadLaunch(int fd, Launch& launch, std::string& error);
// Writer's side.
void AppendRecord(std::string& out, Tag tag, const std::string& value);

}  // namespace takt::runtime::shim
