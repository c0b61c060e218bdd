#include "serving/api/tensor_wire.h"

#include <algorithm>
#include <bit>
#include <complex>
#include <cstring>

#include "base/proto_wire.h"
#include "serving/engine/model_wire.h"

namespace takt::serving {
namespace {

// Fields of tensorflow.TensorProto, by tensorflow/core/framework/tensor.proto.
enum TensorField {
  kDtype = 1,
  kShape = 2,
  kContent = 4,
  kFloatVal = 5,
  kDoubleVal = 6,
  kIntVal = 7,
  kStringVal = 8,
  kScomplexVal = 9,
  kInt64Val = 10,
  kBoolVal = 11,
  kDcomplexVal = 12,
  kHalfVal = 13,
  kUint32Val = 16,
  kUint64Val = 17,
};

// Values of at least so many bytes are worth to be used in place.
constexpr std::size_t kLargeBytes = 32 << 10;
constexpr std::size_t kAlignment = 64;

// Where values of a type are; 0 for a type that has none outside of a graph.
int ValueField(DataType dtype) {
  switch (dtype) {
    case DataType::kFloat:
      return kFloatVal;
    case DataType::kDouble:
      return kDoubleVal;
    case DataType::kInt32:
    case DataType::kInt16:
    case DataType::kInt8:
    case DataType::kUint8:
    case DataType::kUint16:
    case DataType::kQint8:
    case DataType::kQuint8:
    case DataType::kQint16:
    case DataType::kQuint16:
    case DataType::kQint32:
      return kIntVal;
    case DataType::kString:
      return kStringVal;
    case DataType::kComplex64:
      return kScomplexVal;
    case DataType::kInt64:
      return kInt64Val;
    case DataType::kBool:
      return kBoolVal;
    case DataType::kComplex128:
      return kDcomplexVal;
    case DataType::kHalf:
    case DataType::kBfloat16:
      return kHalfVal;
    case DataType::kUint32:
      return kUint32Val;
    case DataType::kUint64:
      return kUint64Val;
    case DataType::kInvalid:
    case DataType::kResource:
    case DataType::kVariant:
      break;
  }
  return 0;
}

// Bytes of one value on the wire, 0 for varints and strings.
std::size_t FixedValueBytes(int field) {
  switch (field) {
    case kFloatVal:
    case kScomplexVal:
      return 4;
    case kDoubleVal:
    case kDcomplexVal:
      return 8;
    default:
      return 0;
  }
}

// A run of numbers of fixed size ends with one, or the message is none: what fills a tensor counts
// on whole numbers.
bool HoldsWholeValues(int field, const ProtoReader& values) {
  const std::size_t bytes = FixedValueBytes(field);
  return bytes == 0 || values.Bytes().size() % bytes == 0;
}

// Calls `take(number)` for each value of a varint field until it returns false.
template <typename F>
bool ForEachVarint(const WireTensor& tensor, int field, F take) {
  ProtoReader r(tensor.proto);
  while (r.Next()) {
    if (static_cast<int>(r.field()) != field) continue;
    if (r.type() == WireType::kVarint) {
      if (!take(r.Varint())) return true;
    } else if (r.type() == WireType::kBytes) {
      const char* at = r.Bytes().data();
      const char* const end = at + r.Bytes().size();
      while (at != end) {
        std::uint64_t value;
        if (!ReadVarint(at, end, value)) return false;
        if (!take(value)) return true;
      }
    }
  }
  return r.ok();
}

// Numbers that come as varints: as many as there are, then the last one again.
template <typename T>
void FillVarints(const WireTensor& tensor, int field, void* out) {
  T* const values = static_cast<T*>(out);
  std::int64_t n = 0;
  ForEachVarint(tensor, field, [&](std::uint64_t value) {
    if (n == tensor.elements) return false;
    values[n++] = static_cast<T>(value);
    return true;
  });
  std::fill(values + n, values + tensor.elements, n == 0 ? T() : values[n - 1]);
}

// Numbers that come as they are in memory.
template <typename T>
void FillFixed(const WireTensor& tensor, int field, std::size_t wire_bytes, void* out) {
  char* const begin = static_cast<char*>(out);
  const std::size_t room = static_cast<std::size_t>(tensor.elements) * sizeof(T);
  std::size_t used = 0;
  ProtoReader r(tensor.proto);
  while (used < room && r.Next()) {
    if (static_cast<int>(r.field()) != field) continue;
    if (r.type() == WireType::kBytes) {
      const std::size_t n = std::min(r.Bytes().size(), room - used);
      std::memcpy(begin + used, r.Bytes().data(), n);
      used += n;
    } else if (wire_bytes == 4 && r.type() == WireType::kFixed32) {
      const float value = r.Float();
      std::memcpy(begin + used, &value, 4);
      used += 4;
    } else if (wire_bytes == 8 && r.type() == WireType::kFixed64) {
      const double value = r.Double();
      std::memcpy(begin + used, &value, 8);
      used += 8;
    }
  }
  const auto n = static_cast<std::int64_t>(used / sizeof(T));
  T* const values = static_cast<T*>(out);
  std::fill(values + n, values + tensor.elements, n == 0 ? T() : values[n - 1]);
}

// tensor_content of strings: the lengths as varints, then the bytes.
bool ReadStringContent(std::string_view content, std::int64_t count, std::string* out) {
  const char* at = content.data();
  const char* const end = at + content.size();
  std::vector<std::uint64_t> sizes;
  std::uint64_t total = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint64_t size;
    if (!ReadVarint(at, end, size) || size > content.size()) return false;
    total += size;
    if (total > content.size()) return false;
    if (out != nullptr) sizes.push_back(size);
  }
  if (total != static_cast<std::uint64_t>(end - at)) return false;
  if (out == nullptr) return true;
  for (std::int64_t i = 0; i < count; ++i) {
    out[i].assign(at, sizes[i]);
    at += sizes[i];
  }
  return true;
}

template <typename T>
void AppendVarints(int field, const T* values, std::int64_t count, std::string& out) {
  // Signed numbers are extended to 64 bits, as protobuf writes int32.
  auto wide = [](T value) {
    if constexpr (std::is_signed_v<T>) {
      return static_cast<std::uint64_t>(static_cast<std::int64_t>(value));
    } else {
      return static_cast<std::uint64_t>(value);
    }
  };
  std::size_t bytes = 0;
  for (std::int64_t i = 0; i < count; ++i) bytes += VarintBytes(wide(values[i]));
  AppendVarint(static_cast<std::uint64_t>(field) << 3 | 2, out);
  AppendVarint(bytes, out);
  for (std::int64_t i = 0; i < count; ++i) AppendVarint(wide(values[i]), out);
}

void AppendValues(const Tensor& tensor, std::int64_t first, std::int64_t count, std::string& out) {
  const int field = ValueField(tensor.dtype());
  const std::size_t size = DataTypeSize(tensor.dtype());
  const char* data = static_cast<const char*>(tensor.data()) + first * size;
  switch (field) {
    case kFloatVal:
    case kDoubleVal:
    case kScomplexVal:
    case kDcomplexVal:
      return AppendBytesField(field, {data, static_cast<std::size_t>(count) * size}, out);
    case kInt64Val:
      return AppendVarints(field, reinterpret_cast<const std::int64_t*>(data), count, out);
    case kUint32Val:
      return AppendVarints(field, reinterpret_cast<const std::uint32_t*>(data), count, out);
    case kUint64Val:
      return AppendVarints(field, reinterpret_cast<const std::uint64_t*>(data), count, out);
    case kBoolVal:
      // Whatever byte stands for true: one.
      AppendVarint(static_cast<std::uint64_t>(field) << 3 | 2, out);
      AppendVarint(static_cast<std::uint64_t>(count), out);
      for (std::int64_t i = 0; i < count; ++i) out.push_back(data[i] == 0 ? '\0' : '\1');
      return;
    case kHalfVal:
    case kIntVal:
      break;
    default:
      return;
  }
  switch (tensor.dtype()) {
    case DataType::kInt32:
    case DataType::kQint32:
      return AppendVarints(field, reinterpret_cast<const std::int32_t*>(data), count, out);
    case DataType::kInt16:
    case DataType::kQint16:
      return AppendVarints(field, reinterpret_cast<const std::int16_t*>(data), count, out);
    case DataType::kInt8:
    case DataType::kQint8:
      return AppendVarints(field, reinterpret_cast<const std::int8_t*>(data), count, out);
    case DataType::kUint16:
    case DataType::kQuint16:
    case DataType::kHalf:
    case DataType::kBfloat16:
      return AppendVarints(field, reinterpret_cast<const std::uint16_t*>(data), count, out);
    default:
      return AppendVarints(field, reinterpret_cast<const std::uint8_t*>(data), count, out);
  }
}

}  // namespace

bool ReadWireTensor(std::string_view bytes, WireTensor& tensor) {
  tensor.proto = bytes;
  tensor.dims.clear();
  tensor.content = tensor.values = {};
  tensor.value_fields = 0;
  tensor.unknown_rank = false;
  // The usual order is dtype, shape, values; a type that comes later is looked for again.
  ProtoReader r(bytes);
  int field = 0;
  bool late_type = false;
  while (r.Next()) {
    switch (r.field()) {
      // A field of another wire type is one that nobody knows.
      case kDtype:
        if (r.type() != WireType::kVarint) break;
        tensor.dtype = static_cast<DataType>(static_cast<int>(r.Int64()));
        late_type |= field != 0;  // a second one: it counts
        field = ValueField(tensor.dtype);
        break;
      case kShape:
        if (!ReadShape(r.Bytes(), tensor.dims, tensor.unknown_rank)) return false;
        break;
      case kContent:
        if (r.type() == WireType::kBytes) tensor.content = r.Bytes();
        break;
      default:
        if (field == 0) late_type = true;
        if (static_cast<int>(r.field()) != field) break;
        if (field == kStringVal && r.type() != WireType::kBytes) break;
        if (!HoldsWholeValues(field, r)) return false;
        ++tensor.value_fields;
        tensor.values = r.Bytes();
        break;
    }
  }
  if (!r.ok()) return false;
  if (late_type && field != 0) {
    tensor.value_fields = 0;
    tensor.values = {};
    for (ProtoReader again(bytes); again.Next();) {
      if (static_cast<int>(again.field()) != field) continue;
      if (field == kStringVal && again.type() != WireType::kBytes) continue;
      if (!HoldsWholeValues(field, again)) return false;
      ++tensor.value_fields;
      tensor.values = again.Bytes();
    }
  }
  if (tensor.value_fields != 1) tensor.values = {};
  if (tensor.unknown_rank) tensor.dims.assign(1, -1);  // no shape of a value
  return true;
}

absl::Status CheckWireTensor(WireTensor& tensor) {
  const absl::Status bad = absl::InvalidArgumentError("");
  const int field = ValueField(tensor.dtype);
  if (field == 0 || tensor.dims.size() > kMaxTensorRank) return bad;
  const std::optional<std::int64_t> count = ElementCount(tensor.dims);
  if (!count.has_value()) return bad;
  tensor.elements = *count;
  if (*count == 0) return absl::OkStatus();
  const bool strings = tensor.dtype == DataType::kString;
  const std::size_t size = strings ? sizeof(std::string) : DataTypeSize(tensor.dtype);
  std::size_t bytes;
  if (__builtin_mul_overflow(static_cast<std::size_t>(*count), size, &bytes)) return bad;

  if (!tensor.content.empty()) {
    const bool fits = strings ? static_cast<std::size_t>(*count) <= tensor.content.size() &&
                                    ReadStringContent(tensor.content, *count, nullptr)
                              : tensor.content.size() == bytes;
    return fits ? absl::OkStatus() : bad;
  }
  const std::size_t wire_bytes = FixedValueBytes(field);
  if (wire_bytes > 0 && tensor.values.size() >= bytes) return absl::OkStatus();
  if (wire_bytes == 0 && !strings &&
      !ForEachVarint(tensor, field, [](std::uint64_t) { return true; })) {
    return bad;
  }
  // The values need at least a byte each on the wire, or they repeat.
  if (bytes > kMaxRepeatedTensorBytes && static_cast<std::size_t>(*count) > tensor.proto.size()) {
    return absl::ResourceExhaustedError(
        StrCat("a tensor of shape ", ShapeText(tensor.dims), " takes ", bytes,
               " bytes, but the request holds only ", tensor.proto.size(), "; values repeat up to ",
               kMaxRepeatedTensorBytes, " bytes"));
  }
  return absl::OkStatus();
}

void FillFromWire(const WireTensor& tensor, void* out) {
  const std::size_t bytes = static_cast<std::size_t>(tensor.elements) * DataTypeSize(tensor.dtype);
  if (bytes == 0) return;
  if (!tensor.content.empty()) {
    std::memcpy(out, tensor.content.data(), bytes);
    return;
  }
  const int field = ValueField(tensor.dtype);
  if (FixedValueBytes(field) > 0 && tensor.values.size() >= bytes) {
    std::memcpy(out, tensor.values.data(), bytes);
    return;
  }
  switch (tensor.dtype) {
    case DataType::kFloat:
      return FillFixed<float>(tensor, field, 4, out);
    case DataType::kDouble:
      return FillFixed<double>(tensor, field, 8, out);
    case DataType::kComplex64:
      return FillFixed<std::complex<float>>(tensor, field, 4, out);
    case DataType::kComplex128:
      return FillFixed<std::complex<double>>(tensor, field, 8, out);
    case DataType::kInt64:
      return FillVarints<std::int64_t>(tensor, field, out);
    case DataType::kUint64:
      return FillVarints<std::uint64_t>(tensor, field, out);
    case DataType::kInt32:
    case DataType::kQint32:
    case DataType::kUint32:
      return FillVarints<std::uint32_t>(tensor, field, out);
    case DataType::kBool:
      return FillVarints<bool>(tensor, field, out);  // any number but zero is true
    case DataType::kHalf:
    case DataType::kBfloat16:
    case DataType::kInt16:
    case DataType::kUint16:
    case DataType::kQint16:
    case DataType::kQuint16:
      return FillVarints<std::uint16_t>(tensor, field, out);
    default:
      return FillVarints<std::uint8_t>(tensor, field, out);
  }
}

void FillStringsFromWire(const WireTensor& wire, std::string* out) {
  if (wire.elements == 0) return;
  if (!wire.content.empty()) {
    ReadStringContent(wire.content, wire.elements, out);
    return;
  }
  std::int64_t n = 0;
  for (ProtoReader r(wire.proto); n < wire.elements && r.Next();) {
    if (r.field() == kStringVal && r.type() == WireType::kBytes) out[n++] = r.Bytes();
  }
  for (std::int64_t i = n; n > 0 && i < wire.elements; ++i) out[i] = out[n - 1];
}

absl::StatusOr<Tensor> TensorFromWire(const WireTensor& wire,
                                      const std::shared_ptr<const void>& owner) {
  if (wire.dtype == DataType::kString) {
    TAKT_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(wire.dtype, wire.dims));
    FillStringsFromWire(wire, tensor.mutable_strings().data());
    return tensor;
  }
  const std::size_t bytes = static_cast<std::size_t>(wire.elements) * DataTypeSize(wire.dtype);
  if (owner != nullptr && bytes >= kLargeBytes) {
    const std::string_view raw = !wire.content.empty()                         ? wire.content
                                 : FixedValueBytes(ValueField(wire.dtype)) > 0 ? wire.values
                                                                               : std::string_view();
    if (raw.size() >= bytes && reinterpret_cast<std::uintptr_t>(raw.data()) % kAlignment == 0) {
      return Tensor::Wrap(wire.dtype, wire.dims, owner, raw.data(), bytes);
    }
  }
  TAKT_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(wire.dtype, wire.dims));
  FillFromWire(wire, tensor.mutable_data());
  return tensor;
}

void AppendBytesField(int field, std::string_view bytes, std::string& out) {
  AppendVarint(static_cast<std::uint64_t>(field) << 3 | 2, out);
  AppendVarint(bytes.size(), out);
  out.append(bytes);
}

void AppendTensorProto(const Tensor& tensor, std::int64_t begin, std::int64_t rows, bool as_content,
                       std::string& out) {
  out.push_back(kDtype << 3);
  AppendVarint(static_cast<std::uint64_t>(tensor.dtype()), out);

  const bool all = begin < 0;
  auto dim_at = [&](std::size_t i) { return i == 0 && !all ? rows : tensor.dims()[i]; };
  std::size_t shape_bytes = 0;
  for (std::size_t i = 0; i < tensor.dims().size(); ++i) {
    shape_bytes += dim_at(i) == 0 ? 2 : 3 + VarintBytes(static_cast<std::uint64_t>(dim_at(i)));
  }
  out.push_back(kShape << 3 | 2);
  AppendVarint(shape_bytes, out);
  for (std::size_t i = 0; i < tensor.dims().size(); ++i) {
    const auto dim = static_cast<std::uint64_t>(dim_at(i));
    out.push_back(2 << 3 | 2);  // TensorShapeProto.dim
    if (dim == 0) {
      out.push_back(0);
      continue;
    }
    out.push_back(static_cast<char>(1 + VarintBytes(dim)));
    out.push_back(1 << 3);  // Dim.size
    AppendVarint(dim, out);
  }

  std::int64_t first = 0;
  std::int64_t count = tensor.elements();
  if (!all) {
    const std::int64_t row = tensor.dims()[0] == 0 ? 0 : tensor.elements() / tensor.dims()[0];
    first = begin * row;
    count = rows * row;
  }
  if (count == 0) return;
  if (tensor.dtype() == DataType::kString) {
    const std::vector<std::string>& values = tensor.strings();
    if (!as_content) {
      for (std::int64_t i = 0; i < count; ++i) {
        AppendBytesField(kStringVal, values[first + i], out);
      }
      return;
    }
    std::string content;
    for (std::int64_t i = 0; i < count; ++i) AppendVarint(values[first + i].size(), content);
    for (std::int64_t i = 0; i < count; ++i) content.append(values[first + i]);
    return AppendBytesField(kContent, content, out);
  }
  if (as_content) {
    const std::size_t size = DataTypeSize(tensor.dtype());
    return AppendBytesField(kContent,
                            {static_cast<const char*>(tensor.data()) + first * size,
                             static_cast<std::size_t>(count) * size},
                            out);
  }
  AppendValues(tensor, first, count, out);
}

void AppendTensorField(int field, const Tensor& tensor, std::int64_t begin, std::int64_t rows,
                       bool as_content, std::string& out) {
  AppendVarint(static_cast<std::uint64_t>(field) << 3 | 2, out);
  const std::size_t at = out.size();
  out.push_back(0);
  AppendTensorProto(tensor, begin, rows, as_content, out);
  FixLength(at, out);
}

void FixLength(std::size_t at, std::string& out) {
  const std::size_t size = out.size() - at - 1;
  if (size < 0x80) {
    out[at] = static_cast<char>(size);
    return;
  }
  std::string length;
  AppendVarint(size, length);
  out.replace(at, 1, length);
}

std::size_t LargeValuesOffset(std::string_view prefix) {
  // Descends through PredictRequest.inputs (2), map entry value (2), into the TensorProto's content
  // or values, along fields that are longer than the prefix; gives up at anything else.
  const char* at = prefix.data();
  const char* const end = at + prefix.size();
  int level = 0;
  while (at != end) {
    std::uint64_t tag;
    if (!ReadVarint(at, end, tag)) return 0;
    std::uint64_t value;
    switch (tag & 7) {
      case 0:
        if (!ReadVarint(at, end, value)) return 0;
        continue;
      case 1:
      case 5: {
        const std::ptrdiff_t size = (tag & 7) == 1 ? 8 : 4;
        if (end - at < size) return 0;
        at += size;
        continue;
      }
      case 2:
        break;
      default:
        return 0;
    }
    if (!ReadVarint(at, end, value)) return 0;
    if (value <= static_cast<std::uint64_t>(end - at)) {
      at += value;
      continue;
    }
    const std::uint64_t field = tag >> 3;
    if (level < 2) {
      if (field != 2) return 0;
      ++level;
      continue;
    }
    const bool values = field == kContent || field == kFloatVal || field == kDoubleVal;
    return values ? static_cast<std::size_t>(at - prefix.data()) : 0;
  }
  return 0;
}

}  // namespace takt::serving
