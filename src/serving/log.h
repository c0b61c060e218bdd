// One line an event, on stderr: "2026-11-24T20:25:36.123Z INFO  model "mnist": version 2 loaded".
#pragma once

#include <string_view>

namespace takt::serving {

enum class LogLevel { kInfo, kWarning, kError };

// Writes the whole line with one system call, so that threads do not mix theirs. Line breaks in the
// message become spaces. Any thread.
void Log(LogLevel level, std::string_view message);

}  // namespace takt::serving
