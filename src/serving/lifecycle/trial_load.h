// Loads on trial: a version is loaded and warmed up in a process of its own first, so that a graph
// that makes TensorFlow abort, or whose warm-up never ends, takes down that process and no other.
// Costs a load's time and memory once more, and what TensorFlow itself takes: 0.3 s, 35 MB.
#pragma once

#include <chrono>
#include <string>

#include "base/status.h"

namespace takt::serving {

inline constexpr std::chrono::minutes kMaxTrialLoad{30};       // beyond: DEADLINE_EXCEEDED
inline constexpr std::size_t kMaxTrialOutputBytes = 16 << 10;  // of its output, the last ones count

// Starts this program with its own command line and --trial_load_of=`directory`, and waits. Its
// error where the load failed; INTERNAL when a signal ended it, with the last line that it wrote.
// OK, with a warning in the log, where no process can be started. Any thread.
absl::Status LoadOnTrial(const std::string& directory,
                         std::chrono::milliseconds limit = kMaxTrialLoad);

// What the process on trial does before it loads: it dies with its server, is first to go when
// memory is short, and stands back as the load threads do.
void BecomeTrial();
// How it tells the outcome: writes the error where LoadOnTrial reads it. Returns the exit status.
int EndTrial(const absl::Status& status);

}  // namespace takt::serving
