// Samples and roll-ups of one series, packed. Pure functions; any thread.
//
// Format: one byte kind, then (kind bit 7 set: zstd of) the columns one after another. Times in
// milliseconds as zigzag varints of the difference of differences. A column of values is either
// decimal (a byte e in 0..9, then zigzag varints of the differences of v * 10^e, all whole numbers
// below 2^53) or raw (byte 255, then each double XORed with the one before, the bytes regrouped by
// significance). Decimal is exact: it is used only where every value comes back bit for bit.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace takt::metrics {

struct Sample {
  std::int64_t time_ms = 0;
  double value = 0;
  bool operator==(const Sample&) const = default;
};

// What the samples of one span were: exact, so that windows of windows are exact too.
struct Window {
  std::int64_t time_ms = 0;  // where the span begins
  double min = 0, max = 0, sum = 0;
  double last = 0;         // the newest sample of the span
  std::int64_t count = 0;  // of samples, at least 1
  bool operator==(const Window&) const = default;
};

inline constexpr std::size_t kMaxChunkSamples = 1024;  // of a chunk, samples or windows

std::string EncodeSamples(const std::vector<Sample>& samples);
std::string EncodeWindows(const std::vector<Window>& windows);
// Append to `out`. DATA_LOSS when the bytes are not what Encode made.
absl::Status DecodeSamples(std::string_view bytes, std::vector<Sample>& out);
absl::Status DecodeWindows(std::string_view bytes, std::vector<Window>& out);

// Adds a sample or a later window to the last of `windows` when it falls into the same span of
// `span_ms`, else begins a new one. Times must not fall.
void AddSample(const Sample& sample, std::int64_t span_ms, std::vector<Window>& windows);
void AddWindow(const Window& window, std::int64_t span_ms, std::vector<Window>& windows);

}  // namespace takt::metrics
