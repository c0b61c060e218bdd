// One log entry, and what can be read off its text. Pure functions; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace takt::logs {

enum class Level : std::uint8_t { kUnknown, kTrace, kDebug, kInfo, kWarn, kError, kFatal };
inline constexpr int kLevels = 7;
const char* LevelName(Level level);                         // "unknown", "trace", ..., "fatal"
std::optional<Level> LevelFromName(std::string_view name);  // "warning", "W", "ERR", ... too

struct Entry {
  std::int64_t time_us = 0;  // since the epoch
  Level level = Level::kUnknown;
  bool is_stderr = false;
  std::string text;  // UTF-8, without the last newline; several lines where they belong together
  std::uint64_t position = 0;  // of its source after this entry; not kept, see LogStore::Append
};

// The level that a line says of itself within its first 160 bytes: a word (ERROR, warning:), the
// letter of glog and TensorFlow ("E1124 ...", "2026-11-24 20:00:00.123: W tensorflow/..."), a JSON
// member or key=value named level, lvl or severity. kError for the head of a Python traceback.
Level RecogniseLevel(std::string_view text);

// The time stamp at the start of a line, in microseconds since the epoch: RFC 3339, the same with a
// space, a comma or no zone (then local time of this machine), optionally in brackets. nullopt when
// there is none.
std::optional<std::int64_t> RecogniseTime(std::string_view text);

// Calls `visit(name, value)` for each field of a line, until it returns false: the members of a
// JSON object (nested ones as "a.b"), else key=value pairs, values quoted or not. Views live for
// the call.
void VisitFields(std::string_view text,
                 const std::function<bool(std::string_view name, std::string_view value)>& visit);

// True when `text` goes on what `before` began: an indented line, the frames and the last line of a
// traceback, "Caused by:". `before` is the whole entry so far.
bool Continues(std::string_view before, std::string_view text);

// What a terminal would show of a line with carriage returns: what stands after the last one that
// is followed by something. A progress bar becomes its last state.
std::string_view CollapseCarriageReturns(std::string_view text);

}  // namespace takt::logs
