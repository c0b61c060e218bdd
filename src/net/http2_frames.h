// The numbers of HTTP/2's frames (RFC 9113, sections 4.1, 6 and 6.5.2). Of the session's inside.
#pragma once

#include <cstddef>
#include <cstdint>

namespace takt::net::http2 {

inline constexpr std::size_t kFrameHeaderBytes = 9;
inline constexpr std::int64_t kLargestWindow = 0x7fffffff;

enum Type : std::uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kReset = 3,
  kSettings = 4,
  kPushPromise = 5,
  kPing = 6,
  kGoaway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};
inline constexpr std::uint8_t kFlagEndStream = 1;
inline constexpr std::uint8_t kFlagAck = 1;
inline constexpr std::uint8_t kFlagEndHeaders = 4;
inline constexpr std::uint8_t kFlagPadded = 8;
inline constexpr std::uint8_t kFlagPriority = 0x20;

enum Setting : std::uint16_t {
  kHeaderTableSize = 1,
  kEnablePush = 2,
  kMaxConcurrentStreams = 3,
  kInitialWindowSize = 4,
  kMaxFrameSize = 5,
  kMaxHeaderListSize = 6,
  kNoRfc7540Priorities = 9,
};

}  // namespace takt::net::http2
