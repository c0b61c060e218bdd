// Log lines of an app: pages of its instances' logs merged by time, and a follower for streams.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "api/json_writer.h"
#include "line/line.h"
#include "runtime/runtime.h"

namespace takt::api {

inline constexpr std::size_t kMaxLogLines = 10'000;         // of one answer
inline constexpr std::size_t kMaxLogAnswerBytes = 8 << 20;  // of one answer; the cursor goes on

// Which instances; empty = all.
struct LogSelection {
  std::string service, instance;
};

// Position in the logs of several instances: the runtime's cursor of each, by instance.
using LogCursor = std::map<std::string, std::uint64_t>;
std::string FormatLogCursor(const LogCursor& cursor);
absl::StatusOr<LogCursor> ParseLogCursor(std::string_view text);  // INVALID_ARGUMENT

struct LogEntry {
  std::string service;
  runtime::LogLine line;
  // By which lines are merged: the latest time so far of its instance, whose own order stands even
  // where the clock jumped back.
  std::chrono::system_clock::time_point order;
};
void Write(JsonWriter& w, const LogEntry& entry);

struct LogPage {
  std::vector<LogEntry> entries;  // by time
  bool more = false;              // the limits kept some back
};

// As GET /apps/{name}/logs answers: {lines, cursor}.
void WriteLogPage(const LogPage& page, const LogCursor& cursor, std::string* out);

// Instance -> service, of those that are selected. NOT_FOUND for a service that the app has not,
// with a suggestion, or an instance.
absl::StatusOr<std::map<std::string, std::string>> SelectInstances(const line::App& app,
                                                                   const LogSelection& selection);

// At most `lines` lines, of about `bytes` together, after `cursor`, which moves behind what is
// returned. An instance that the cursor has not begins at its start; one that is gone is left out.
LogPage ReadLogs(runtime::Runtime& runtime, const std::map<std::string, std::string>& instances,
                 std::size_t lines, std::size_t bytes, LogCursor* cursor);
// The last `lines` lines; `cursor` becomes the end.
LogPage TailLogs(runtime::Runtime& runtime, const std::map<std::string, std::string>& instances,
                 std::size_t lines, LogCursor* cursor);

}  // namespace takt::api
