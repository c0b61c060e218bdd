#include "serving/engine/tensor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace takt::serving {
namespace {

constexpr std::size_t kAlignment = 64;

struct DataTypeRow {
  const char* name;
  std::size_t size;
};
// By number.
constexpr DataTypeRow kDataTypes[] = {
    {"INVALID", 0},  {"float", 4},   {"double", 8}, {"int32", 4},       {"uint8", 1},
    {"int16", 2},    {"int8", 1},    {"string", 0}, {"complex64", 8},   {"int64", 8},
    {"bool", 1},     {"qint8", 1},   {"quint8", 1}, {"qint32", 4},      {"bfloat16", 2},
    {"qint16", 2},   {"quint16", 2}, {"uint16", 2}, {"complex128", 16}, {"half", 2},
    {"resource", 0}, {"variant", 0}, {"uint32", 4}, {"uint64", 8}};

}  // namespace

std::string DataTypeName(DataType dtype) {
  const auto number = static_cast<int>(dtype);
  if (number < 0 || number >= static_cast<int>(std::size(kDataTypes))) {
    return StrCat("unknown dtype enum (", number, ")");
  }
  return kDataTypes[number].name;
}

std::size_t DataTypeSize(DataType dtype) {
  const auto number = static_cast<int>(dtype);
  if (number < 0 || number >= static_cast<int>(std::size(kDataTypes))) return 0;
  return kDataTypes[number].size;
}

std::optional<std::int64_t> ElementCount(std::span<const std::int64_t> dims) {
  std::int64_t count = 1;
  bool zero = false;
  for (std::int64_t dim : dims) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) {
      zero = true;
    } else if (__builtin_mul_overflow(count, dim, &count)) {
      return std::nullopt;
    }
  }
  return zero ? 0 : count;
}

std::string ShapeText(std::span<const std::int64_t> dims) {
  std::string text = "[";
  for (std::size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) text += ',';
    text += dims[i] < 0 ? "?" : std::to_string(dims[i]);
  }
  return text + "]";
}

absl::StatusOr<Tensor> Tensor::Allocate(DataType dtype, Dims dims) {
  const std::optional<std::int64_t> count = ElementCount(dims);
  const std::size_t size = DataTypeSize(dtype);
  if (!count.has_value() || (size == 0 && dtype != DataType::kString)) {
    return absl::InternalError(
        StrCat("no tensor of ", DataTypeName(dtype), " ", ShapeText(dims), " can be"));
  }
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.dims_ = std::move(dims);
  tensor.elements_ = *count;
  if (dtype == DataType::kString) {
    // Each empty string takes memory already: as many as a request's size can justify is the
    // caller's to check.
    tensor.strings_ = std::make_shared<std::vector<std::string>>(*count);
    return tensor;
  }
  std::size_t bytes;
  if (__builtin_mul_overflow(static_cast<std::size_t>(*count), size, &bytes) ||
      bytes > std::numeric_limits<std::size_t>::max() / 2) {
    return absl::ResourceExhaustedError(
        StrCat("no memory for ", DataTypeName(dtype), " ", ShapeText(tensor.dims_)));
  }
  tensor.bytes_ = bytes;
  const std::size_t room = (std::max<std::size_t>(bytes, 1) + kAlignment - 1) & ~(kAlignment - 1);
  void* data = std::aligned_alloc(kAlignment, room);
  if (data == nullptr) {
    return absl::ResourceExhaustedError(StrCat("no memory for ", DataTypeName(dtype), " ",
                                               ShapeText(tensor.dims_), ", ", bytes, " bytes"));
  }
  tensor.data_ = data;
  tensor.owner_ = std::shared_ptr<void>(data, std::free);
  return tensor;
}

Tensor Tensor::Wrap(DataType dtype, Dims dims, std::shared_ptr<const void> owner, const void* data,
                    std::size_t bytes) {
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.elements_ = ElementCount(dims).value_or(0);
  tensor.dims_ = std::move(dims);
  tensor.bytes_ = bytes;
  tensor.data_ = data;
  tensor.owner_ = std::move(owner);
  return tensor;
}

Tensor Tensor::FromStrings(Dims dims, std::vector<std::string> values) {
  Tensor tensor;
  tensor.dtype_ = DataType::kString;
  tensor.dims_ = std::move(dims);
  tensor.elements_ = static_cast<std::int64_t>(values.size());
  tensor.strings_ = std::make_shared<std::vector<std::string>>(std::move(values));
  return tensor;
}

Tensor Tensor::Slice(std::int64_t begin, std::int64_t count) const {
  Tensor slice = *this;
  const std::int64_t row_elements = dims_[0] == 0 ? 0 : elements_ / dims_[0];
  slice.dims_[0] = count;
  slice.elements_ = count * row_elements;
  if (dtype_ == DataType::kString) {
    auto first = strings_->begin() + begin * row_elements;
    slice.strings_ = std::make_shared<std::vector<std::string>>(first, first + slice.elements_);
    return slice;
  }
  const std::size_t row_bytes = dims_[0] == 0 ? 0 : bytes_ / static_cast<std::size_t>(dims_[0]);
  slice.data_ = static_cast<const char*>(data_) + begin * row_bytes;
  slice.bytes_ = static_cast<std::size_t>(count) * row_bytes;
  return slice;
}

absl::StatusOr<Tensor> Tensor::Concat(std::span<const Tensor> pieces) {
  if (pieces.empty()) return absl::InvalidArgumentError("no tensors to put together");
  const Tensor& first = pieces[0];
  Dims dims = first.dims();
  std::int64_t rows = 0;
  for (const Tensor& piece : pieces) {
    const bool alike = piece.rank() > 0 && piece.dtype() == first.dtype() &&
                       std::equal(piece.dims().begin() + 1, piece.dims().end(),
                                  first.dims().begin() + 1, first.dims().end());
    if (!alike) {
      return absl::InvalidArgumentError(
          StrCat("tensors of ", DataTypeName(first.dtype()), " ", ShapeText(first.dims()), " and ",
                 DataTypeName(piece.dtype()), " ", ShapeText(piece.dims()),
                 " do not go together by rows"));
    }
    rows += piece.dims()[0];
  }
  dims[0] = rows;
  TAKT_ASSIGN_OR_RETURN(Tensor whole, Allocate(first.dtype(), std::move(dims)));
  std::size_t at = 0;
  for (const Tensor& piece : pieces) {
    if (first.dtype() == DataType::kString) {
      std::copy(piece.strings().begin(), piece.strings().end(),
                whole.mutable_strings().begin() + static_cast<std::ptrdiff_t>(at));
      at += piece.strings().size();
    } else if (piece.bytes() > 0) {
      std::memcpy(static_cast<char*>(whole.mutable_data()) + at, piece.data(), piece.bytes());
      at += piece.bytes();
    }
  }
  return whole;
}

}  // namespace takt::serving
