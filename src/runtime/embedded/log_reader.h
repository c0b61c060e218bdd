// Reads an instance's log, while its shim may be writing it: see runtime/shim/protocol.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "runtime/runtime.h"

namespace takt::runtime {

// Lines after `cursor`; those that the log's limit has removed are passed over and counted. Empty
// where there is no log yet.
absl::StatusOr<std::vector<LogLine>> ReadLogLines(const std::string& directory,
                                                  const std::string& instance, std::uint64_t cursor,
                                                  std::size_t max_lines);
// The cursor before the last `lines`.
absl::StatusOr<std::uint64_t> LogTail(const std::string& directory, std::size_t lines);

// One answer of ReadLogLines is cut after this many bytes of text, never before its first line.
inline constexpr std::size_t kMaxLogAnswerBytes = 8 << 20;

}  // namespace takt::runtime
