// Starts programs. Not a supervisor: whoever starts one waits for it.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/status.h"

namespace takt {

// -1: /dev/null. The child gets duplicates; the caller's stay the caller's.
struct SpawnFiles {
  int in = -1;
  int out = -1;
  int error = -1;
};

enum class SpawnSession { kSame, kOwn };

// `words`: the program's path (no search in PATH), then its arguments. It starts with this
// process's environment, with no signal blocked and each as by default, and with no file of this
// process's but those (all others are opened with O_CLOEXEC). The error names the program.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& words, const SpawnFiles& files = {},
                            SpawnSession session = SpawnSession::kSame);

}  // namespace takt
