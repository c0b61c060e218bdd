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
    std::string listen_ip, target_ip;
    int published, target;
  };
  std::vector<Forward> forwards;
};

// From the open file `fd`. False with `error` set when it cannot be read.
bool ReadLaunch(int fd, Launch& launch, std::string& error);
// Writer's side.
void AppendRecord(std::string& out, Tag tag, const std::string& value);

}  // namespace takt::runtime::shim
