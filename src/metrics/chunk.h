// Samples and roll-ups of one series, packed. Pure functions; any thread.
//
// Format: one byte kind (3 samples, 4 windows; bit 7 set: the rest is compressed by zstd), the
// number n, then columns of whole numbers, times in milliseconds first. A column is a byte (bit 7:
// differences follow; bits 0 to 6: bits of each number, or 127 for varints), the first number
// (zigzag varint, with differences only), the least (zigzag varint), a unit (varint), and each
// number as (v - least) / unit. Whatever is smaller is written: bits, or varints and zstd.
// Values are whole numbers of 10^-e below 2^53, where e (0 to 9) stands before them; that is used
// only where every value comes back bit for bit. Windows are last; min, as what it is above the
// window's last or (bit 7 of e, then a first one) above the last of the window before; max above
// last; sum above (min + max) * count / 2, exact where floating point may have lost its end; count.
// What is no such number is kind 1 or 2, as all was once: times as differences of differences, and
// columns that are decimal (a byte e, then zigzag varints of differences) or raw (byte 255, then
// each double XORed with the one before, the bytes regrouped by significance).
#pragma once

#include <cstdint>
#include <span>
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
void AddSamples(std::span<const Sample> samples, std::int64_t span_ms,
                std::vector<Window>& windows);
void AddWindow(const Window& window, std::int64_t span_ms, std::vector<Window>& windows);

}  // namespace takt::metrics
