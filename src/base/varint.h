// Base-128 numbers, seven bits a byte, the least first, as in our packed formats and in protobuf's
// wire format (proto_wire.h). Pure; any thread.
#pragma once

#include <cstdint>
#include <string>

namespace takt {

inline void AppendVarint(std::uint64_t value, std::string& out) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

// Moves `at` behind the number; bits beyond its 64 are dropped. False where the bytes end inside
// it, or it is longer than ten.
inline bool ReadVarint(const char*& at, const char* end, std::uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && at != end; shift += 7) {
    const auto byte = static_cast<std::uint8_t>(*at++);
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// Signed numbers so that small ones of both signs are short: 0, -1, 1, -2 -> 0, 1, 2, 3.
inline std::uint64_t Zigzag(std::int64_t v) {
  return static_cast<std::uint64_t>(v) << 1 ^ static_cast<std::uint64_t>(v >> 63);
}
inline std::int64_t Unzigzag(std::uint64_t v) {
  return static_cast<std::int64_t>(v >> 1) ^ -static_cast<std::int64_t>(v & 1);
}

}  // namespace takt
