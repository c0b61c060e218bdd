// Loads on trial: a version is loaded and warmed up in a process of its own first, so that a graph
// that makes TensorFlow abort, or whose warm-up never ends, takes down that process and no other.
// Costs a load's time and memory once more, at the lowest priority.
#pragma once

#include <chrono>
#include <string>

#include "base/status.h"

namespace takt::serving {

inline constexpr std::chrono::minutes kMaxTrialLoad{30};       // beyond: DEADLINE_EXCEEDED
inline constexpr std::size_t kMaxTrialOutputBytes = 16 << 10;  // of its output, the last ones count

// Starts this program with its own command line and --trial_load_of=`directory`, and waits. OK when
// it came to its end, even with an error: the server's own load then has it, too. INTERNAL when a
// signal ended it, with the last line that it wrote. Any thread.
absl::Status LoadOnTrial(const std::string& directory,
                         std::chrono::milliseconds limit = kMaxTrialLoad);

// What the process on trial does before it loads: it dies with its server, is first to go when
// memory is short, and stands back for everybody.
void BecomeTrial();

}  // namespace takt::serving
