// Pieces of messages that readers of models and of requests share. Source of the field numbers:
// tensorflow/core/framework/tensor_shape.proto, protobuf.dev/programming-guides/encoding (maps).
#pragma once

#include <cstdint>
#include <string_view>

#include "base/proto_wire.h"

namespace takt::serving {

// An entry of a map whose keys and values are strings or messages. Views into what was read.
struct MapEntry {
  std::string_view key;
  std::string_view value;
};

// False: it does not parse.
inline bool ReadMapEntry(std::string_view bytes, MapEntry& entry) {
  ProtoReader r(bytes);
  while (r.Next()) {
    if (r.type() != WireType::kBytes) continue;  // a field that nobody knows
    if (r.field() == 1) entry.key = r.Bytes();
    if (r.field() == 2) entry.value = r.Bytes();
  }
  return r.ok();
}

// Appends the sizes of a TensorShapeProto to `dims` (Dims or Dimensions), -1 = not known.
// `unknown_rank` is set as it says, and else stays. False: it does not parse.
template <typename Sizes>
bool ReadShape(std::string_view bytes, Sizes& dims, bool& unknown_rank) {
  ProtoReader r(bytes);
  while (r.Next()) {
    if (r.field() == 3 && r.type() == WireType::kVarint) unknown_rank = r.Varint() != 0;
    if (r.field() != 2 || r.type() != WireType::kBytes) continue;
    std::int64_t size = 0;
    ProtoReader dim(r.Bytes());
    while (dim.Next()) {
      if (dim.field() == 1 && dim.type() == WireType::kVarint) size = dim.Int64();
    }
    if (!dim.ok()) return false;
    dims.push_back(size);
  }
  return r.ok();
}

}  // namespace takt::serving
