#include "serving/api/rest_codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"
#include "serving/api/half.h"
#include "serving/api/tensor_proto.h"
#include "tensorflow/core/example/example.pb.h"

namespace takt::serving {
namespace {

absl::Status TypeError(const JsonValue& value, DataType dtype) {
  return absl::InvalidArgumentError(StrCat("JSON Value: ", JsonText(value),
                                           " Type: ", JsonTypeName(value),
                                           " is not of expected type: ", DataTypeName(dtype)));
}

template <typename... Args>
absl::Status FormatError(const JsonValue& value, const Args&... args) {
  return absl::InvalidArgumentError(StrCat("JSON Value: ", JsonText(value), " ", args...));
}

absl::Status LossyError(const JsonValue& value, std::string_view target) {
  return absl::InvalidArgumentError(StrCat("Cannot convert JSON value: ", JsonText(value), " to ",
                                           target, " without loss of precision."));
}

// "[2,3]"
std::string ShapeOf(const Dims& dims) { return StrCat("[", absl::StrJoin(dims, ","), "]"); }

template <typename Float>
bool IsLossless(const JsonValue& value) {
  if (value.IsDouble()) {
    return !std::isfinite(value.real) || (value.real <= std::numeric_limits<Float>::max() &&
                                          value.real >= std::numeric_limits<Float>::lowest());
  }
  constexpr std::int64_t kLargest = (std::int64_t{1} << std::numeric_limits<Float>::digits) - 1;
  if (value.IsUint64()) return value.AsUint64() <= static_cast<std::uint64_t>(kLargest);
  return value.integer >= -kLargest;
}

const JsonValue* Base64Of(const JsonValue& value) {
  if (!value.IsObject() || value.count != 1) return nullptr;
  const JsonValue* text = value.Member("b64");
  return text != nullptr && text->IsString() ? text : nullptr;
}

absl::Status DecodeBase64(const JsonValue& value, std::string* out) {
  const JsonValue* text = Base64Of(value);
  if (text == nullptr) {
    return absl::InvalidArgumentError(
        StrCat("JSON Value: ", JsonText(value), " not formatted correctly for base64 data"));
  }
  if (!absl::Base64Unescape(ToAbsl(text->AsString()), out)) {
    return absl::InvalidArgumentError("Unable to base64 decode");
  }
  return absl::OkStatus();
}

// The shape that the first element of each level shows; a scalar has none.
Dims ShapeFromFirst(const JsonValue& value) {
  Dims dims;
  const JsonValue* level = &value;
  while (level->IsArray()) {
    dims.push_back(level->count);
    if (level->count == 0 || level->IsPacked()) break;
    level = &level->values[0];
  }
  return dims;
}

// Writes values one after another into a tensor, or, with no tensor, only checks them.
class Filler {
 public:
  Filler(DataType dtype, Tensor* tensor) : dtype_(dtype) {
    if (tensor == nullptr) return;
    if (dtype == DataType::kString) {
      strings_ = tensor->mutable_strings().data();
    } else {
      numbers_ = static_cast<char*>(tensor->mutable_data());
    }
  }

  // `count` grows by the values taken.
  absl::Status Fill(const JsonValue& value, std::size_t level, const Dims& dims,
                    std::int64_t* count) {
    if (!value.IsArray()) {
      if (level != dims.size()) {
        return absl::InvalidArgumentError(
            StrCat("JSON Value: ", JsonText(value), " found at incorrect level: ", level + 1,
                   " in the JSON DOM. Expected at level: ", dims.size()));
      }
      TAKT_RETURN_IF_ERROR(Add(value));
      ++*count;
      return absl::OkStatus();
    }
    if (level >= dims.size()) {
      return absl::InvalidArgumentError(
          StrCat("Encountered list at unexpected level: ", level, " expected < ", dims.size()));
    }
    if (value.count != dims[level]) {
      return absl::InvalidArgumentError(StrCat("Encountered list at unexpected size: ", value.count,
                                               " at level: ", level,
                                               " expected size: ", dims[level]));
    }
    if (value.IsPacked() && level + 1 == dims.size() && PutAll(value)) {
      *count += value.count;
      return absl::OkStatus();
    }
    for (std::uint32_t i = 0; i < value.count; ++i) {
      TAKT_RETURN_IF_ERROR(Fill(value.Element(i), level + 1, dims, count));
    }
    return absl::OkStatus();
  }

 private:
  // The numbers of a packed array, when all of them fit for sure; false: they are to be taken one
  // by one.
  bool PutAll(const JsonValue& value) {
    using Packing = JsonValue::Packing;
    switch (dtype_) {
      case DataType::kFloat:
        return PutAllWithin<float>(value, LargestFloat<float>(value.packing == Packing::kReal));
      case DataType::kDouble:
        return PutAllWithin<double>(value, LargestFloat<double>(value.packing == Packing::kReal));
      case DataType::kInt32:
        return PutAllWhole<std::int32_t>(value);
      case DataType::kInt16:
        return PutAllWhole<std::int16_t>(value);
      case DataType::kInt8:
        return PutAllWhole<std::int8_t>(value);
      case DataType::kInt64:
        return PutAllWhole<std::int64_t>(value);
      default:
        return false;
    }
  }
  template <typename T>
  bool PutAllWhole(const JsonValue& value) {
    constexpr auto kMost = static_cast<double>(std::numeric_limits<T>::max());
    return value.packing == JsonValue::Packing::kWhole && PutAllWithin<T>(value, kMost);
  }
  template <typename T>
  bool PutAllWithin(const JsonValue& value, double most) {
    if (numbers_ == nullptr) return false;
    bool beyond = false;
    char* out = numbers_;
    for (std::uint32_t i = 0; i < value.count; ++i) {
      const double real = value.reals[i];
      const bool too_large = std::abs(real) > most;
      beyond |= too_large;
      const T number = static_cast<T>(too_large ? 0 : real);
      std::memcpy(out, &number, sizeof number);
      out += sizeof number;
    }
    if (beyond) return false;
    numbers_ = out;
    return true;
  }
  // What any number of a list may be and surely lose nothing that the checks of IsLossless forbid.
  template <typename Float>
  static double LargestFloat(bool all_real) {
    constexpr double kWhole =
        static_cast<double>((std::int64_t{1} << std::numeric_limits<Float>::digits) - 1);
    return all_real ? static_cast<double>(std::numeric_limits<Float>::max()) : kWhole;
  }

  template <typename T>
  void Put(T value) {
    if (numbers_ == nullptr) return;
    std::memcpy(numbers_, &value, sizeof(value));
    numbers_ += sizeof(value);
  }

  template <typename T>
  absl::Status PutInteger(const JsonValue& value) {
    if (!value.IsInt64() || value.integer < std::numeric_limits<T>::lowest() ||
        value.integer > static_cast<std::int64_t>(std::numeric_limits<T>::max())) {
      return TypeError(value, dtype_);
    }
    Put(static_cast<T>(value.integer));
    return absl::OkStatus();
  }

  absl::Status Add(const JsonValue& value) {
    if (value.IsObject()) {
      if (dtype_ != DataType::kString) return TypeError(value, dtype_);
      std::string bytes;
      TAKT_RETURN_IF_ERROR(DecodeBase64(value, &bytes));
      if (strings_ != nullptr) *strings_++ = std::move(bytes);
      return absl::OkStatus();
    }
    switch (dtype_) {
      case DataType::kFloat:
        if (!value.IsNumber()) return TypeError(value, dtype_);
        if (!IsLossless<float>(value)) return LossyError(value, "float");
        Put(static_cast<float>(value.AsDouble()));
        return absl::OkStatus();
      case DataType::kDouble:
        if (!value.IsNumber()) return TypeError(value, dtype_);
        if (!IsLossless<double>(value)) return LossyError(value, "double");
        Put(value.AsDouble());
        return absl::OkStatus();
      case DataType::kInt32:
        return PutInteger<std::int32_t>(value);
      case DataType::kInt16:
        return PutInteger<std::int16_t>(value);
      case DataType::kInt8:
        return PutInteger<std::int8_t>(value);
      case DataType::kUint8:
        return PutInteger<std::uint8_t>(value);
      case DataType::kInt64:
        return PutInteger<std::int64_t>(value);
      case DataType::kUint32:
        return PutInteger<std::uint32_t>(value);
      case DataType::kUint64:
        if (!value.IsUint64()) return TypeError(value, dtype_);
        Put(value.AsUint64());
        return absl::OkStatus();
      case DataType::kBool:
        if (!value.IsBool()) return TypeError(value, dtype_);
        Put(value.type == JsonValue::Type::kTrue);
        return absl::OkStatus();
      case DataType::kString:
        if (!value.IsString()) return TypeError(value, dtype_);
        if (strings_ != nullptr) *strings_++ = std::string(value.AsString());
        return absl::OkStatus();
      default:
        return absl::UnimplementedError(StrCat("Conversion of JSON Value: ", JsonText(value),
                                               " to type: ", DataTypeName(dtype_)));
    }
  }

  DataType dtype_;
  char* numbers_ = nullptr;
  std::string* strings_ = nullptr;
};

bool CanAllocate(DataType dtype) { return dtype == DataType::kString || DataTypeSize(dtype) > 0; }

// A tensor of `dims` filled from `value`. Memory is taken only for what the document can fill: the
// first element of each level may promise any product.
absl::StatusOr<Tensor> DenseTensor(const JsonValue& value, DataType dtype, std::size_t nodes) {
  const Dims dims = ShapeFromFirst(value);
  std::int64_t count = 0;
  const std::optional<std::int64_t> elements = ElementCount(dims);
  if (!elements.has_value() || static_cast<std::size_t>(*elements) > nodes || !CanAllocate(dtype)) {
    TAKT_RETURN_IF_ERROR(Filler(dtype, nullptr).Fill(value, 0, dims, &count));
    return absl::InvalidArgumentError(
        StrCat("cannot make a tensor of ", DataTypeName(dtype), ShapeOf(dims)));
  }
  TAKT_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(dtype, dims));
  TAKT_RETURN_IF_ERROR(Filler(dtype, &tensor).Fill(value, 0, dims, &count));
  return tensor;
}

// One named input while rows are added to it.
class RowTensor {
 public:
  RowTensor(const TensorInfo& info, std::uint32_t rows, std::size_t nodes)
      : info_(info), rows_(rows), nodes_(nodes) {}

  absl::Status Add(const JsonValue& item) {
    const Dims dims = ShapeFromFirst(item);
    std::int64_t count = 0;
    if (!filler_.has_value()) {
      Dims all = dims;
      all.insert(all.begin(), rows_);
      const std::optional<std::int64_t> elements = ElementCount(all);
      if (!elements.has_value() || static_cast<std::size_t>(*elements) > nodes_ ||
          !CanAllocate(info_.dtype)) {
        // Cannot be filled by this document: some row says why, this one or a later one.
        filler_.emplace(info_.dtype, nullptr);
      } else {
        TAKT_ASSIGN_OR_RETURN(tensor_, Tensor::Allocate(info_.dtype, all));
        filler_.emplace(info_.dtype, &tensor_);
      }
      dims_ = dims;
      TAKT_RETURN_IF_ERROR(filler_->Fill(item, 0, dims, &count));
      size_ = count;
      return absl::OkStatus();
    }
    if (dims != dims_) {
      TAKT_RETURN_IF_ERROR(Filler(info_.dtype, nullptr).Fill(item, 0, dims, &count));
      if (count != size_) {
        return absl::InvalidArgumentError(
            StrCat("Expecting tensor size: ", size_, " but got: ", count));
      }
      return absl::InvalidArgumentError(
          StrCat("Expecting shape ", ShapeOf(dims_), " but got: ", ShapeOf(dims)));
    }
    return filler_->Fill(item, 0, dims, &count);
  }

  absl::StatusOr<Tensor> Take() {
    if (tensor_.dtype() == DataType::kInvalid) {
      return absl::InvalidArgumentError(
          StrCat("cannot make a tensor of ", DataTypeName(info_.dtype), ShapeOf(dims_)));
    }
    return std::move(tensor_);
  }

 private:
  const TensorInfo& info_;
  std::uint32_t rows_;
  std::size_t nodes_;
  std::optional<Filler> filler_;
  Tensor tensor_;
  Dims dims_;
  std::int64_t size_ = 0;
};

// Which input a list without names is for: the only one, or the only one that has no default.
std::optional<std::size_t> UnnamedInput(const std::vector<TensorInfo>& inputs) {
  if (inputs.size() == 1) return 0;
  const auto required = [](const TensorInfo& input) { return input.default_value.empty(); };
  if (std::count_if(inputs.begin(), inputs.end(), required) != 1) return std::nullopt;
  return static_cast<std::size_t>(std::find_if(inputs.begin(), inputs.end(), required) -
                                  inputs.begin());
}

// The inputs that a request has left out, and that have a default, take it.
absl::Status FillDefaults(const std::vector<TensorInfo>& inputs, std::vector<Tensor>* tensors) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if ((*tensors)[i].dtype() != DataType::kInvalid || inputs[i].default_value.empty()) continue;
    TAKT_ASSIGN_OR_RETURN((*tensors)[i], TensorFromBytes(inputs[i].default_value));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Tensor>> FromRows(const JsonValue& rows,
                                             const std::vector<TensorInfo>& inputs,
                                             std::size_t nodes) {
  const JsonValue first = rows.Element(0);
  const std::optional<std::size_t> unnamed = UnnamedInput(inputs);
  const auto needs_names = [] {
    return absl::InvalidArgumentError(
        "instances is a plain list, but expecting list of objects as multiple input tensors "
        "required as per tensorinfo_map");
  };
  if (!first.IsObject() && !unnamed.has_value()) return needs_names();
  const auto is_object = [](const JsonValue& v) { return v.IsObject() && Base64Of(v) == nullptr; };
  const bool objects = is_object(first);
  std::vector<RowTensor> tensors;
  tensors.reserve(inputs.size());
  for (const TensorInfo& input : inputs) tensors.emplace_back(input, rows.count, nodes);
  std::set<std::string_view> named;  // by the first row, and so by all
  for (std::uint32_t row = 0; row < rows.count; ++row) {
    const JsonValue item = rows.Element(row);
    if (is_object(item) != objects) {
      return absl::InvalidArgumentError(
          objects ? StrCat("Expecting object but got list at item ", row, " of input list")
                  : StrCat("Expecting value/list but got object at item ", row, " of input list"));
    }
    if (!objects) {
      const absl::Status added = tensors[unnamed.value_or(0)].Add(item);
      if (!added.ok()) {
        return absl::InvalidArgumentError(StrCat(
            "Failed to process element: ", row, " of 'instances' list. Error: ", added.ToString()));
      }
      continue;
    }
    std::set<std::string_view> seen;
    for (std::uint32_t m = 0; m < item.count; ++m) {
      const std::string_view name = item.MemberName(m);
      const auto it = std::find_if(inputs.begin(), inputs.end(),
                                   [&](const TensorInfo& i) { return i.alias == name; });
      absl::Status added;
      if (it == inputs.end()) {
        added =
            absl::InvalidArgumentError(StrCat("JSON object: does not have named input: ", name));
      } else if (!seen.insert(name).second) {
        added = absl::InvalidArgumentError(StrCat("JSON object: has input ", name, " twice"));
      } else {
        added = tensors[static_cast<std::size_t>(it - inputs.begin())].Add(item.MemberValue(m));
      }
      if (!added.ok()) {
        return absl::InvalidArgumentError(
            StrCat("Failed to process element: ", row, " key: ", name,
                   " of 'instances' list. Error: ", added.ToString()));
      }
    }
    const bool complete =
        row > 0 ? seen == named
                : std::all_of(inputs.begin(), inputs.end(), [&](const TensorInfo& input) {
                    return seen.contains(input.alias) || !input.default_value.empty();
                  });
    if (row == 0) named = seen;
    if (!complete) {
      std::vector<std::string> names;
      names.reserve(inputs.size());
      for (const TensorInfo& input : inputs) names.push_back(input.alias);
      return absl::InvalidArgumentError(StrCat(
          "Failed to process element: ", row, " of 'instances' list. JSON object: ", JsonText(item),
          " keys must be equal to: ", absl::StrJoin(names, ",")));
    }
  }
  if (!objects && !unnamed.has_value()) return needs_names();
  std::vector<Tensor> out(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (objects ? named.contains(inputs[i].alias) : i == unnamed) {
      TAKT_ASSIGN_OR_RETURN(out[i], tensors[i].Take());
    }
  }
  TAKT_RETURN_IF_ERROR(FillDefaults(inputs, &out));
  return out;
}

absl::StatusOr<std::vector<Tensor>> FromColumns(const JsonValue& value,
                                                const std::vector<TensorInfo>& inputs,
                                                std::size_t nodes) {
  std::vector<Tensor> out(inputs.size());
  if (!value.IsObject() || Base64Of(value) != nullptr) {
    const std::optional<std::size_t> unnamed = UnnamedInput(inputs);
    if (!unnamed.has_value()) {
      return absl::InvalidArgumentError(
          "inputs is a plain value/list, but expecting an object as multiple input tensors "
          "required as per tensorinfo_map");
    }
    TAKT_ASSIGN_OR_RETURN(out[*unnamed], DenseTensor(value, inputs[*unnamed].dtype, nodes));
    TAKT_RETURN_IF_ERROR(FillDefaults(inputs, &out));
    return out;
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const JsonValue* item = value.Member(inputs[i].alias);
    if (item != nullptr) {
      TAKT_ASSIGN_OR_RETURN(out[i], DenseTensor(*item, inputs[i].dtype, nodes));
    } else if (inputs[i].default_value.empty()) {
      return absl::InvalidArgumentError(
          StrCat("Missing named input: ", inputs[i].alias, " in 'inputs' object."));
    }
  }
  TAKT_RETURN_IF_ERROR(FillDefaults(inputs, &out));
  return out;
}

// Writes values of one tensor in order.
class Writer {
 public:
  Writer(const Tensor& tensor, std::string_view alias)
      : tensor_(tensor), as_base64_(alias.ends_with("_bytes")) {}

  absl::Status Supported() const {
    switch (tensor_.dtype()) {
      case DataType::kFloat:
      case DataType::kDouble:
      case DataType::kInt32:
      case DataType::kUint8:
      case DataType::kInt16:
      case DataType::kInt8:
      case DataType::kString:
      case DataType::kInt64:
      case DataType::kBool:
      case DataType::kBfloat16:
      case DataType::kUint16:
      case DataType::kHalf:
      case DataType::kUint32:
      case DataType::kUint64:
        return absl::OkStatus();
      default:
        return absl::InvalidArgumentError(
            StrCat("Failed to write JSON value for tensor type: ", DataTypeName(tensor_.dtype())));
    }
  }

  // The values from dimension `dim` on. `multi_line`: arrays one value a line, `indent` deep.
  void Write(std::size_t dim, bool multi_line, std::size_t indent, std::string* out) {
    const Dims& dims = tensor_.dims();
    if (dim >= dims.size()) {
      WriteOne(indent, out);
      return;
    }
    out->push_back('[');
    for (std::int64_t i = 0; i < dims[dim]; ++i) {
      if (i > 0) out->push_back(',');
      if (multi_line) {
        out->push_back('\n');
        out->append(indent + 4, ' ');
      } else if (i > 0) {
        out->push_back(' ');
      }
      Write(dim + 1, multi_line, indent + 4, out);
    }
    if (multi_line && dims[dim] > 0) {
      out->push_back('\n');
      out->append(indent, ' ');
    }
    out->push_back(']');
  }

 private:
  template <typename T>
  T At() const {
    return tensor_.as<T>()[at_];
  }

  void WriteOne(std::size_t indent, std::string* out) {
    switch (tensor_.dtype()) {
      case DataType::kFloat:
        AppendJsonFloat(At<float>(), out);
        break;
      case DataType::kDouble:
        AppendJsonDouble(At<double>(), out);
        break;
      case DataType::kHalf:
        AppendJsonFloat(HalfToFloat(At<std::uint16_t>()), out);
        break;
      case DataType::kBfloat16:
        AppendJsonFloat(Bfloat16ToFloat(At<std::uint16_t>()), out);
        break;
      case DataType::kInt32:
        absl::StrAppend(out, At<std::int32_t>());
        break;
      case DataType::kInt16:
        absl::StrAppend(out, At<std::int16_t>());
        break;
      case DataType::kInt8:
        absl::StrAppend(out, static_cast<int>(At<std::int8_t>()));
        break;
      case DataType::kUint8:
        absl::StrAppend(out, static_cast<int>(At<std::uint8_t>()));
        break;
      case DataType::kUint16:
        absl::StrAppend(out, At<std::uint16_t>());
        break;
      case DataType::kInt64:
        absl::StrAppend(out, At<std::int64_t>());
        break;
      case DataType::kUint32:
        absl::StrAppend(out, At<std::uint32_t>());
        break;
      case DataType::kUint64:
        absl::StrAppend(out, At<std::uint64_t>());
        break;
      case DataType::kBool:
        out->append(At<bool>() ? "true" : "false");
        break;
      default: {
        const std::string& bytes = tensor_.strings()[at_];
        if (!as_base64_) {
          AppendJsonString(bytes, out);
          break;
        }
        std::string base64;
        absl::Base64Escape(bytes, &base64);
        const std::string inner(indent + 4, ' ');
        absl::StrAppend(out, "{\n", inner, "\"b64\": \"", base64, "\"\n", inner.substr(4), "}");
      }
    }
    ++at_;
  }

  const Tensor& tensor_;
  bool as_base64_;
  std::size_t at_ = 0;
};

absl::StatusOr<std::string> RowAnswer(const std::vector<TensorInfo>& outputs,
                                      const std::vector<Tensor>& tensors) {
  std::int64_t batch = -1;
  std::vector<Writer> writers;
  std::size_t values = 0;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const Tensor& tensor = tensors[i];
    if (tensor.rank() == 0) {
      return absl::InvalidArgumentError(
          StrCat("Tensor name: ", outputs[i].alias, " has no shape information "));
    }
    if (batch >= 0 && tensor.dims()[0] != batch) {
      return absl::InvalidArgumentError(StrCat("Tensor name: ", outputs[i].alias,
                                               " has inconsistent batch size: ", tensor.dims()[0],
                                               " expecting: ", batch));
    }
    batch = tensor.dims()[0];
    values += static_cast<std::size_t>(tensor.elements());
    TAKT_RETURN_IF_ERROR(writers.emplace_back(tensor, outputs[i].alias).Supported());
  }
  const bool named = outputs.size() > 1;
  std::string out = "{\n    \"predictions\": [";
  out.reserve(64 + values * 14);
  for (std::int64_t row = 0; row < batch; ++row) {
    if (row > 0) out.push_back(',');
    if (!named) {
      if (row > 0) out.push_back(' ');
      writers.front().Write(1, false, 8, &out);
      continue;
    }
    out.append("\n        {");
    for (std::size_t i = 0; i < writers.size(); ++i) {
      out.append(i > 0 ? ",\n            " : "\n            ");
      AppendJsonString(outputs[i].alias, &out);
      out.append(": ");
      writers[i].Write(1, false, 12, &out);
    }
    out.append("\n        }");
  }
  if (batch > 0) out.append("\n    ");
  out.append("]\n}");
  return out;
}

absl::StatusOr<std::string> ColumnAnswer(const std::vector<TensorInfo>& outputs,
                                         const std::vector<Tensor>& tensors) {
  const bool named = outputs.size() > 1;
  std::string out = "{\n    \"outputs\": ";
  if (named) out.push_back('{');
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    Writer writer(tensors[i], outputs[i].alias);
    TAKT_RETURN_IF_ERROR(writer.Supported());
    if (named) {
      out.append(i > 0 ? ",\n        " : "\n        ");
      AppendJsonString(outputs[i].alias, &out);
      out.append(": ");
    }
    writer.Write(0, true, named ? 8 : 4, &out);
  }
  if (named) out.append("\n    }");
  out.append("\n}");
  return out;
}

absl::Status KindError(std::string_view name, const tensorflow::Feature& feature) {
  std::string_view kind = "UNKNOWN";
  if (feature.kind_case() == tensorflow::Feature::kBytesList) kind = "bytes";
  if (feature.kind_case() == tensorflow::Feature::kFloatList) kind = "float";
  if (feature.kind_case() == tensorflow::Feature::kInt64List) kind = "int64";
  return absl::InvalidArgumentError(
      StrCat("Unexpected element type in feature: ", name, " expecting type: ", kind));
}

absl::Status AddToFeature(const JsonValue& value, std::string_view name,
                          tensorflow::Feature* feature) {
  const auto other_kind = [&](tensorflow::Feature::KindCase kind) {
    return feature->kind_case() != tensorflow::Feature::KIND_NOT_SET &&
           feature->kind_case() != kind;
  };
  switch (value.type) {
    case JsonValue::Type::kFalse:
    case JsonValue::Type::kTrue:
      if (other_kind(tensorflow::Feature::kInt64List)) return KindError(name, *feature);
      feature->mutable_int64_list()->add_value(value.type == JsonValue::Type::kTrue ? 1 : 0);
      return absl::OkStatus();
    case JsonValue::Type::kString:
      if (other_kind(tensorflow::Feature::kBytesList)) return KindError(name, *feature);
      feature->mutable_bytes_list()->add_value(value.text, value.text_bytes);
      return absl::OkStatus();
    case JsonValue::Type::kObject:
      if (Base64Of(value) == nullptr) break;
      if (other_kind(tensorflow::Feature::kBytesList)) return KindError(name, *feature);
      return DecodeBase64(value, feature->mutable_bytes_list()->add_value());
    case JsonValue::Type::kNumber:
      if (value.IsDouble()) {
        if (other_kind(tensorflow::Feature::kFloatList)) return KindError(name, *feature);
        if (!IsLossless<float>(value)) return LossyError(value, "float");
        feature->mutable_float_list()->add_value(static_cast<float>(value.real));
        return absl::OkStatus();
      }
      if (other_kind(tensorflow::Feature::kInt64List)) return KindError(name, *feature);
      if (!value.IsInt64()) {
        return absl::InvalidArgumentError(
            StrCat("Feature: ", name, " has uint64 element. Only int64 is supported."));
      }
      feature->mutable_int64_list()->add_value(value.integer);
      return absl::OkStatus();
    case JsonValue::Type::kNull:
    case JsonValue::Type::kArray:
      break;
  }
  return absl::InvalidArgumentError(
      StrCat("Feature: ", name, " has element with unexpected JSON type: ", JsonTypeName(value)));
}

absl::Status FillExample(const JsonValue& value, tensorflow::Example* example) {
  if (!value.IsObject()) {
    return absl::InvalidArgumentError(
        StrCat("Example must be JSON object but got JSON ", JsonTypeName(value)));
  }
  for (std::uint32_t m = 0; m < value.count; ++m) {
    const std::string_view name = value.MemberName(m);
    const JsonValue& content = value.MemberValue(m);
    tensorflow::Feature feature;
    if (content.IsArray()) {
      for (std::uint32_t i = 0; i < content.count; ++i) {
        TAKT_RETURN_IF_ERROR(AddToFeature(content.Element(i), name, &feature));
      }
    } else {
      TAKT_RETURN_IF_ERROR(AddToFeature(content, name, &feature));
    }
    (*example->mutable_features()->mutable_feature())[std::string(name)] = std::move(feature);
  }
  return absl::OkStatus();
}

absl::Status CheckObject(const JsonDocument& body) {
  if (body.root().IsObject()) return absl::OkStatus();
  return FormatError(body.root(), "Is not object");
}

}  // namespace

absl::StatusOr<std::string> RestSignatureName(const JsonDocument& body) {
  TAKT_RETURN_IF_ERROR(CheckObject(body));
  const JsonValue* name = body.root().Member("signature_name");
  if (name == nullptr) return std::string();
  if (!name->IsString()) {
    return absl::InvalidArgumentError(
        StrCat("JSON Value: ", JsonText(body.root()),
               " not formatted correctly. 'signature_name' key must be a string value."));
  }
  return std::string(name->AsString());
}

absl::StatusOr<RestInputs> RestPredictInputs(const JsonDocument& body,
                                             const std::vector<TensorInfo>& inputs,
                                             std::string_view signature_name) {
  if (inputs.empty()) {
    return absl::InvalidArgumentError(StrCat("Failed to get input map for signature: ",
                                             signature_name.empty() ? "DEFAULT" : signature_name));
  }
  const JsonValue& root = body.root();
  const JsonValue* rows = root.Member("instances");
  const JsonValue* columns = root.Member("inputs");
  RestInputs out;
  if (rows != nullptr) {
    if (columns != nullptr) {
      return FormatError(root,
                         "Not formatted correctly expecting only one of 'inputs' or 'instances' "
                         "keys to exist ");
    }
    if (!rows->IsArray()) return FormatError(root, "Excepting 'instances' to be an list/array");
    if (rows->count == 0) return FormatError(root, "No values in 'instances' array");
    TAKT_ASSIGN_OR_RETURN(out.tensors, FromRows(*rows, inputs, body.nodes()));
    return out;
  }
  if (columns == nullptr) {
    return absl::InvalidArgumentError("Missing 'inputs' or 'instances' key");
  }
  out.format = RestFormat::kColumn;
  TAKT_ASSIGN_OR_RETURN(out.tensors, FromColumns(*columns, inputs, body.nodes()));
  return out;
}

absl::StatusOr<std::string> RestPredictAnswer(const std::vector<TensorInfo>& outputs,
                                              const std::vector<Tensor>& tensors,
                                              RestFormat format) {
  if (outputs.empty()) {
    return absl::InvalidArgumentError("Cannot convert empty tensor map to JSON");
  }
  return format == RestFormat::kRow ? RowAnswer(outputs, tensors) : ColumnAnswer(outputs, tensors);
}

absl::StatusOr<tensorflow::serving::Input> RestExamples(const JsonDocument& body) {
  TAKT_RETURN_IF_ERROR(CheckObject(body));
  const JsonValue& root = body.root();
  tensorflow::serving::Input input;
  const JsonValue* context = root.Member("context");
  if (context != nullptr) {
    TAKT_RETURN_IF_ERROR(
        FillExample(*context, input.mutable_example_list_with_context()->mutable_context()));
  }
  const JsonValue* examples = root.Member("examples");
  if (examples == nullptr) {
    return FormatError(root,
                       "When method is classify, key 'examples' is expected and was not found");
  }
  if (!examples->IsArray()) {
    return FormatError(root, "Expecting 'examples' value to be an list/array");
  }
  if (examples->count == 0) return FormatError(root, "'examples' value is an empty array");
  for (std::uint32_t i = 0; i < examples->count; ++i) {
    TAKT_RETURN_IF_ERROR(FillExample(examples->Element(i),
                                     context != nullptr
                                         ? input.mutable_example_list_with_context()->add_examples()
                                         : input.mutable_example_list()->add_examples()));
  }
  return input;
}

absl::StatusOr<std::string> RestClassifyAnswer(
    const tensorflow::serving::ClassificationResult& result) {
  if (result.classifications_size() == 0) {
    return absl::InvalidArgumentError("Cannot convert empty ClassificationResults to JSON");
  }
  std::string out = "{\n    \"results\": [";
  bool first = true;
  for (const auto& classifications : result.classifications()) {
    out.append(first ? "[" : ", [");
    first = false;
    bool first_class = true;
    for (const auto& one : classifications.classes()) {
      out.append(first_class ? "[" : ", [");
      first_class = false;
      AppendJsonString(one.label(), &out);
      out.append(", ");
      AppendJsonFloat(one.score(), &out);
      out.push_back(']');
    }
    out.push_back(']');
  }
  out.append("\n    ]\n}");
  return out;
}

absl::StatusOr<std::string> RestRegressAnswer(const tensorflow::serving::RegressionResult& result) {
  if (result.regressions_size() == 0) {
    return absl::InvalidArgumentError("Cannot convert empty RegressionResults to JSON");
  }
  std::string out = "{\n    \"results\": [";
  bool first = true;
  for (const auto& regression : result.regressions()) {
    if (!first) out.append(", ");
    first = false;
    AppendJsonFloat(regression.value(), &out);
  }
  out.append("]\n}");
  return out;
}

}  // namespace takt::serving
