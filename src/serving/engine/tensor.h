// Tensors as the model server holds them: type, shape and 64-byte aligned bytes, counted. No engine
// type is named here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "base/status.h"

namespace takt::serving {

// The numbers are those of tensorflow.DataType, so a value from the wire needs no table.
enum class DataType : int {
  kInvalid = 0,
  kFloat = 1,
  kDouble = 2,
  kInt32 = 3,
  kUint8 = 4,
  kInt16 = 5,
  kInt8 = 6,
  kString = 7,
  kComplex64 = 8,
  kInt64 = 9,
  kBool = 10,
  kQint8 = 11,
  kQuint8 = 12,
  kQint32 = 13,
  kBfloat16 = 14,
  kQint16 = 15,
  kQuint16 = 16,
  kUint16 = 17,
  kComplex128 = 18,
  kHalf = 19,
  kResource = 20,
  kVariant = 21,
  kUint32 = 22,
  kUint64 = 23,
};

// "float", "int64", "string", as TensorFlow's messages name them; "unknown dtype enum (99)".
std::string DataTypeName(DataType dtype);
// Bytes of an element; 0 for strings, resources, variants and unknown types.
std::size_t DataTypeSize(DataType dtype);

inline constexpr int kMaxTensorRank = 254;

using Dims = absl::InlinedVector<std::int64_t, 5>;
// The product of dims; nothing when one is negative or the product exceeds int64.
std::optional<std::int64_t> ElementCount(std::span<const std::int64_t> dims);
std::string ShapeText(std::span<const std::int64_t> dims);  // "[2,3]", -1 as "?"

// A view of a counted, aligned buffer (numbers) or of counted strings. Copies are cheap and share.
class Tensor {
 public:
  Tensor() = default;
  // Uninitialised numbers, or empty strings. `dims` must have a valid ElementCount; the dtype must
  // be a number or string. RESOURCE_EXHAUSTED when the memory is not there.
  static absl::StatusOr<Tensor> Allocate(DataType dtype, Dims dims);
  // Refers to bytes that `owner` keeps. `data` must be 64-byte aligned to be run without a copy.
  static Tensor Wrap(DataType dtype, Dims dims, std::shared_ptr<const void> owner, const void* data,
                     std::size_t bytes);
  static Tensor FromStrings(Dims dims, std::vector<std::string> values);

  DataType dtype() const { return dtype_; }
  const Dims& dims() const { return dims_; }
  int rank() const { return static_cast<int>(dims_.size()); }
  std::int64_t elements() const { return elements_; }
  std::size_t bytes() const { return bytes_; }  // 0 for strings
  const void* data() const { return data_; }
  void* mutable_data() { return const_cast<void*>(data_); }
  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data_);
  }
  const std::shared_ptr<const void>& owner() const { return owner_; }
  // Of a string tensor; row-major.
  const std::vector<std::string>& strings() const { return *strings_; }
  std::vector<std::string>& mutable_strings() { return *strings_; }

  // Rows [begin, begin + count) of dimension 0; numbers share the bytes, strings are copied.
  Tensor Slice(std::int64_t begin, std::int64_t count) const;
  // The rows of all of them, one after the other. INVALID_ARGUMENT when types or shapes of rows
  // differ, or there is none, or one is a scalar.
  static absl::StatusOr<Tensor> Concat(std::span<const Tensor> pieces);

 private:
  DataType dtype_ = DataType::kInvalid;
  Dims dims_;
  std::int64_t elements_ = 0;
  std::size_t bytes_ = 0;
  const void* data_ = nullptr;
  std::shared_ptr<const void> owner_;
  std::shared_ptr<std::vector<std::string>> strings_;
};

}  // namespace takt::serving
