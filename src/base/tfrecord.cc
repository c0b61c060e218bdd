#include "base/tfrecord.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace takt {
namespace {

constexpr std::array<std::uint32_t, 256> MakeTable() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}
constexpr auto kTable = MakeTable();

std::uint32_t UpdatePortable(std::uint32_t crc, std::string_view data) {
  for (const char c : data) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint8_t>(c)) & 0xff];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t UpdateHardware(std::uint32_t crc,
                                                               std::string_view data) {
  std::uint64_t wide = crc;
  while (data.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, data.data(), 8);
    wide = _mm_crc32_u64(wide, word);
    data.remove_prefix(8);
  }
  auto narrow = static_cast<std::uint32_t>(wide);
  for (const char c : data) narrow = _mm_crc32_u8(narrow, static_cast<std::uint8_t>(c));
  return narrow;
}
#endif

// No file is larger (off_t): sums of positions and lengths below do not overflow.
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{1} << 62;

std::uint32_t Masked(std::string_view data) {
  const std::uint32_t crc = Crc32c(data);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <typename T>
T Load(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

}  // namespace

std::uint32_t Crc32c(std::string_view data) {
#if defined(__x86_64__)
  static const bool hardware = __builtin_cpu_supports("sse4.2") != 0;
  if (hardware) return ~UpdateHardware(~0u, data);
#endif
  return ~UpdatePortable(~0u, data);
}

TfRecordResult ReadTfRecord(std::string_view bytes, std::uint64_t max_record_bytes) {
  TfRecordResult result;
  if (bytes.size() < kTfRecordHeaderBytes) return result;
  const auto length = Load<std::uint64_t>(bytes.data());
  if (Load<std::uint32_t>(bytes.data() + 8) != Masked(bytes.substr(0, 8))) {
    result.state = TfRecordState::kCorrupt;
    return result;
  }
  if (length > kMaxFileBytes) {
    result.state = TfRecordState::kCorrupt;
    return result;
  }
  result.size = length + kTfRecordHeaderBytes + kTfRecordFooterBytes;
  if (length > max_record_bytes) {
    result.state = TfRecordState::kTooLarge;
    return result;
  }
  if (bytes.size() < result.size) return result;
  result.data = bytes.substr(kTfRecordHeaderBytes, length);
  result.state = Load<std::uint32_t>(result.data.data() + length) == Masked(result.data)
                     ? TfRecordState::kRecord
                     : TfRecordState::kCorrupt;
  return result;
}

void AppendTfRecord(std::string_view data, std::string& out) {
  const auto append = [&out](auto value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  const auto start = out.size();
  append(static_cast<std::uint64_t>(data.size()));
  append(Masked(std::string_view(out).substr(start, 8)));
  out.append(data);
  append(Masked(data));
}

}  // namespace takt
