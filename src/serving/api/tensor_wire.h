// tensorflow.TensorProto between the wire and tensors, with no message object between. Pure.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "serving/engine/tensor.h"

namespace takt::serving {

// A tensor whose values do not all come with the request (the last one repeats up to the shape) may
// have at most this many bytes: a short message must not take gigabytes. RESOURCE_EXHAUSTED beyond.
inline constexpr std::size_t kMaxRepeatedTensorBytes = 64 << 20;

// A TensorProto as it lies in the request. Views into the request's bytes.
struct WireTensor {
  DataType dtype = DataType::kInvalid;
  Dims dims;
  std::int64_t elements = 0;
  std::string_view content;  // tensor_content
  std::string_view proto;    // the whole message
  std::string_view values;   // the values' field, when there is one and it is packed
  int value_fields = 0;      // how often the field that `dtype` reads from occurs
  bool unknown_rank = false;
};

// False when `bytes` is not a TensorProto on the wire. Shapes and sizes are not looked at yet.
bool ReadWireTensor(std::string_view bytes, WireTensor& tensor);

// Whether a tensor can be made of it: INVALID_ARGUMENT with an empty message for a bad shape or a
// tensor_content of another length (the caller names the input), RESOURCE_EXHAUSTED for more than
// kMaxRepeatedTensorBytes. Sets `elements`.
absl::Status CheckWireTensor(WireTensor& tensor);
// Writes the numbers of a checked tensor: elements * DataTypeSize bytes. Not for strings.
void FillFromWire(const WireTensor& tensor, void* out);
// Writes the strings of a checked tensor: `elements` of them.
void FillStringsFromWire(const WireTensor& tensor, std::string* out);
// A tensor of its own, of a checked one. Large aligned bytes are used in place where `owner` keeps
// them (null: always copied).
absl::StatusOr<Tensor> TensorFromWire(const WireTensor& tensor,
                                      const std::shared_ptr<const void>& owner);

// Appends the fields of a TensorProto (without tag and length) for rows [begin, begin + rows) of
// `tensor`; all of it with begin = -1. Typed values, or tensor_content when `as_content`.
void AppendTensorProto(const Tensor& tensor, std::int64_t begin, std::int64_t rows, bool as_content,
                       std::string& out);
// The same with tag and length before, as field `field` of the message around.
void AppendTensorField(int field, const Tensor& tensor, std::int64_t begin, std::int64_t rows,
                       bool as_content, std::string& out);

// Where in a PredictRequest the first large run of values begins, 0 when the prefix does not tell:
// for laying the request so that these bytes can be used in place.
std::size_t LargeValuesOffset(std::string_view prefix);

inline void AppendVarint(std::uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
inline std::size_t VarintBytes(std::uint64_t value) {
  return (static_cast<std::size_t>(std::bit_width(value | 1)) + 6) / 7;
}
// A message of unknown length was appended behind one byte at `at`: makes that byte its length,
// moving the message when it takes more than one.
void FixLength(std::size_t at, std::string& out);
// Tag of a length-delimited field, length, bytes.
void AppendBytesField(int field, std::string_view bytes, std::string& out);

}  // namespace takt::serving
