// A chunk: up to kMaxChunkEntries entries of one stream, compressed, with a filter that tells
// which chunks cannot hold a text. What the log store keeps as one row.
//
// Format (all numbers little-endian varints, zigzag where they may be negative):
//   meta    zstd of: count, then for each entry: time minus the entry's before (first: minus 0),
//           level | stderr << 3, text size
//   text    zstd of the texts, one after another
//   filter  2^k bits, k >= 9: bit Hash(trigram) mod 2^k is set for each trigram of the lower-case
//           text. Made at kFilterBits and folded in half while under an eighth of the bits are set:
//           about 8 bits for each distinct trigram, one false hit in eight for each trigram asked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "logs/entry.h"

namespace takt::logs {

inline constexpr std::size_t kMaxChunkEntries = 4096;
inline constexpr std::size_t kMaxChunkBytes = 256 << 10;  // of text
inline constexpr std::size_t kFilterBits = std::size_t{1} << 19;

// Entries in columns: what a chunk holds, decoded, and what one is made of.
struct Columns {
  std::vector<std::int64_t> times_us;
  std::vector<std::uint8_t> flags;  // level | stderr << 3
  std::vector<std::uint32_t> ends;  // of each text in `text`
  std::string text;
  std::size_t size() const { return times_us.size(); }
  std::string_view Text(std::size_t i) const {
    const std::size_t begin = i == 0 ? 0 : ends[i - 1];
    return std::string_view(text).substr(begin, ends[i] - begin);
  }
  Level LevelOf(std::size_t i) const { return static_cast<Level>(flags[i] & 7); }
  bool IsStderr(std::size_t i) const { return (flags[i] & 8) != 0; }
  void Append(const Entry& entry);
  void Clear();
};

// The filter of a chunk's text.
std::string BuildFilter(std::string_view text);

// The bits that a needle (lower case) needs. Empty when it is shorter than three bytes: every chunk
// may hold it.
std::vector<std::uint32_t> NeedleHashes(std::string_view lower_needle);
// False only when the chunk's text cannot hold the needle in any letter case.
bool MayContain(std::string_view filter, const std::vector<std::uint32_t>& hashes);

std::string EncodeMeta(const Columns& columns);
std::string EncodeText(const Columns& columns);
// DATA_LOSS when the bytes are not what Encode made. Fills everything but the text.
absl::Status DecodeMeta(std::string_view meta, Columns& columns);
absl::Status DecodeText(std::string_view text, Columns& columns);

// ASCII letters only, in place; UTF-8 stays valid.
void LowerAscii(std::string& text);

}  // namespace takt::logs
