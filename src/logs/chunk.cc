#include "logs/chunk.h"

#include <zstd.h>

#include <bit>
#include <cstring>

#include "base/varint.h"

namespace takt::logs {
namespace {

constexpr int kZstdLevel = 3;
constexpr std::size_t kMinFilterBits = 512;

std::uint8_t Lower(char c) {
  const auto u = static_cast<std::uint8_t>(c);
  return static_cast<std::uint8_t>(u >= 'A' && u <= 'Z' ? u | 0x20 : u);
}

std::uint32_t TrigramHash(std::uint32_t trigram) {  // trigram: 24 bits
  return (trigram * 0x9e3779b1u) >> (32 - std::countr_zero(kFilterBits));
}

std::string Compress(std::string_view bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  const std::size_t size =
      ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), kZstdLevel);
  out.resize(ZSTD_isError(size) != 0 ? 0 : size);
  return out;
}

absl::Status Decompress(std::string_view bytes, std::size_t max_size, std::string& out) {
  const auto size = ZSTD_getFrameContentSize(bytes.data(), bytes.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size > max_size) {
    return absl::DataLossError("log chunk: not a zstd frame of a known size");
  }
  out.resize(size);
  const std::size_t got = ZSTD_decompress(out.data(), out.size(), bytes.data(), bytes.size());
  if (got != size) return absl::DataLossError("log chunk: damaged");
  return absl::OkStatus();
}

}  // namespace

void Columns::Append(const Entry& entry) {
  times_us.push_back(entry.time_us);
  flags.push_back(
      static_cast<std::uint8_t>(static_cast<int>(entry.level) | (entry.is_stderr ? 8 : 0)));
  text += entry.text;
  ends.push_back(static_cast<std::uint32_t>(text.size()));
}

void Columns::Clear() {
  times_us.clear();
  flags.clear();
  ends.clear();
  text.clear();
}

std::string BuildFilter(std::string_view text) {
  std::vector<std::uint64_t> words(kFilterBits / 64);
  if (text.size() >= 3) {
    std::uint32_t trigram = static_cast<std::uint32_t>(Lower(text[0])) << 8 | Lower(text[1]);
    for (std::size_t i = 2; i < text.size(); ++i) {
      trigram = (trigram << 8 | Lower(text[i])) & 0xffffff;
      const std::uint32_t bit = TrigramHash(trigram);
      words[bit / 64] |= std::uint64_t{1} << (bit % 64);
    }
  }
  while (words.size() * 64 > kMinFilterBits) {
    const std::size_t half = words.size() / 2;
    std::size_t set = 0;
    for (std::size_t i = 0; i < half; ++i) {
      set += static_cast<std::size_t>(std::popcount(words[i] | words[i + half]));
    }
    if (set > half * 8) break;
    for (std::size_t i = 0; i < half; ++i) words[i] |= words[i + half];
    words.resize(half);
  }
  return {reinterpret_cast<const char*>(words.data()), words.size() * 8};
}

std::vector<std::uint32_t> NeedleHashes(std::string_view lower_needle) {
  std::vector<std::uint32_t> hashes;
  for (std::size_t i = 2; i < lower_needle.size(); ++i) {
    hashes.push_back(TrigramHash(static_cast<std::uint32_t>(Lower(lower_needle[i - 2])) << 16 |
                                 static_cast<std::uint32_t>(Lower(lower_needle[i - 1])) << 8 |
                                 Lower(lower_needle[i])));
  }
  return hashes;
}

bool MayContain(std::string_view filter, const std::vector<std::uint32_t>& hashes) {
  const std::size_t bits = filter.size() * 8;
  if (bits == 0) return true;
  for (const std::uint32_t hash : hashes) {
    const std::size_t bit = hash & (bits - 1);
    if ((static_cast<std::uint8_t>(filter[bit / 8]) >> (bit % 8) & 1) == 0) return false;
  }
  return true;
}

std::string EncodeMeta(const Columns& columns) {
  std::string raw;
  raw.reserve(columns.size() * 6);
  AppendVarint(columns.size(), raw);
  std::int64_t last = 0;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::int64_t delta = columns.times_us[i] - last;
    last = columns.times_us[i];
    AppendVarint(Zigzag(delta), raw);
    raw.push_back(static_cast<char>(columns.flags[i]));
    AppendVarint(columns.Text(i).size(), raw);
  }
  return Compress(raw);
}

std::string EncodeText(const Columns& columns) { return Compress(columns.text); }

absl::Status DecodeMeta(std::string_view meta, Columns& columns) {
  columns.Clear();
  std::string raw;
  TAKT_RETURN_IF_ERROR(Decompress(meta, kMaxChunkEntries * 24 + 16, raw));
  const char* at = raw.data();
  const char* const end = at + raw.size();
  const auto bad = [] { return absl::DataLossError("log chunk: damaged columns"); };
  std::uint64_t count = 0;
  if (!ReadVarint(at, end, count) || count > kMaxChunkEntries) return bad();
  columns.times_us.reserve(count);
  columns.flags.reserve(count);
  columns.ends.reserve(count);
  std::int64_t time = 0;
  std::uint64_t total = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t delta = 0, size = 0;
    if (!ReadVarint(at, end, delta) || at == end) return bad();
    const auto flags = static_cast<std::uint8_t>(*at++);
    if ((flags & 7) >= kLevels || !ReadVarint(at, end, size)) return bad();
    time += Unzigzag(delta);
    total += size;
    if (total > UINT32_MAX) return bad();
    columns.times_us.push_back(time);
    columns.flags.push_back(flags);
    columns.ends.push_back(static_cast<std::uint32_t>(total));
  }
  return absl::OkStatus();
}

absl::Status DecodeText(std::string_view text, Columns& columns) {
  const std::size_t size = columns.ends.empty() ? 0 : columns.ends.back();
  TAKT_RETURN_IF_ERROR(Decompress(text, size, columns.text));
  if (columns.text.size() != size) return absl::DataLossError("log chunk: damaged text");
  return absl::OkStatus();
}

void LowerAscii(std::string& text) {
  for (char& c : text) c = static_cast<char>(Lower(c));
}

}  // namespace takt::logs
