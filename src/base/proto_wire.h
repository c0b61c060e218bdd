// Reads the protobuf wire format field by field, without generated classes and without a copy.
// Source: protobuf.dev/programming-guides/encoding. For messages that are read on a hot path, or
// of which two fields out of a hundred are wanted.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/varint.h"

namespace takt {

enum class WireType : std::uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
// Groups in groups: malformed beyond, as for protobuf's own parser.
inline constexpr int kMaxProtoGroupDepth = 100;

// One pass over the fields of a message:
//   for (ProtoReader r(bytes); r.Next();) switch (r.field()) { case 1: x = r.Varint(); ... }
// A field that is not asked for is skipped, and so is a group, as messages of proto3 have none.
// ok() is false after Next returned false on malformed input (truncated, an overlong varint, a
// group without its end, field number 0). What is malformed is what protobuf's own parser refuses:
// bits beyond a varint's 64, or a tag's 32, are no error. The views point into `bytes`.
class ProtoReader {
 public:
  explicit ProtoReader(std::string_view bytes)
      : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  bool Next() {
    while (at_ != end_ && ok_) {
      std::uint32_t tag;
      if (!ReadTag(tag)) return Fail();
      if ((tag & 7) != kGroup) return ReadField(tag) || Fail();
      if (!SkipGroup(tag, 1)) return Fail();
    }
    return false;
  }
  bool ok() const { return ok_; }
  // Where the next field starts.
  const char* position() const { return at_; }

  std::uint32_t field() const { return field_; }
  WireType type() const { return type_; }
  // The current field's value. With another wire type than the one asked for: 0 or "".
  std::uint64_t Varint() const { return type_ == WireType::kVarint ? number_ : 0; }
  std::int64_t Int64() const { return static_cast<std::int64_t>(Varint()); }
  std::string_view Bytes() const { return type_ == WireType::kBytes ? bytes_ : std::string_view(); }
  float Float() const {
    return type_ == WireType::kFixed32 ? std::bit_cast<float>(static_cast<std::uint32_t>(number_))
                                       : 0;
  }
  double Double() const { return type_ == WireType::kFixed64 ? std::bit_cast<double>(number_) : 0; }

 private:
  static constexpr std::uint32_t kGroup = 3;
  static constexpr std::uint32_t kEndOfGroup = 4;

  bool Fail() {
    ok_ = false;
    return false;
  }
  bool ReadTag(std::uint32_t& tag) {
    const char* const begin = at_;
    std::uint64_t value;
    if (!ReadVarint(at_, end_, value) || at_ - begin > 5) return false;
    tag = static_cast<std::uint32_t>(value);
    return tag >> 3 != 0;
  }
  bool ReadField(std::uint32_t tag) {
    field_ = tag >> 3;
    type_ = static_cast<WireType>(tag & 7);
    switch (type_) {
      case WireType::kVarint:
        return ReadVarint(at_, end_, number_);
      case WireType::kFixed64:
        return ReadFixed(8);
      case WireType::kFixed32:
        return ReadFixed(4);
      case WireType::kBytes: {
        std::uint64_t size;
        if (!ReadVarint(at_, end_, size) || size > static_cast<std::uint64_t>(end_ - at_))
          return false;
        bytes_ = {at_, static_cast<std::size_t>(size)};
        at_ += size;
        return true;
      }
    }
    return false;
  }
  bool SkipGroup(std::uint32_t start, int depth) {
    if (depth > kMaxProtoGroupDepth) return false;
    std::uint32_t tag;
    while (ReadTag(tag)) {
      if ((tag & 7) == kEndOfGroup) return tag >> 3 == start >> 3;
      if ((tag & 7) == kGroup ? !SkipGroup(tag, depth + 1) : !ReadField(tag)) return false;
    }
    return false;
  }
  bool ReadFixed(int size) {
    if (end_ - at_ < size) return false;
    number_ = 0;
    std::memcpy(&number_, at_, static_cast<std::size_t>(size));  // little-endian machine
    at_ += size;
    return true;
  }

  const char* at_;
  const char* end_;
  bool ok_ = true;
  std::uint32_t field_ = 0;
  WireType type_ = WireType::kVarint;
  std::uint64_t number_ = 0;
  std::string_view bytes_;
};
static_assert(std::endian::native == std::endian::little);

}  // namespace takt
