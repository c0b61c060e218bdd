#include "serving/api/v2_codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "serving/api/half.h"
#include "serving/api/tensor_proto.h"

namespace takt::serving {
namespace {

constexpr std::pair<DataType, std::string_view> kTypes[] = {
    {DataType::kBool, "BOOL"},     {DataType::kUint8, "UINT8"},   {DataType::kUint16, "UINT16"},
    {DataType::kUint32, "UINT32"}, {DataType::kUint64, "UINT64"}, {DataType::kInt8, "INT8"},
    {DataType::kInt16, "INT16"},   {DataType::kInt32, "INT32"},   {DataType::kInt64, "INT64"},
    {DataType::kHalf, "FP16"},     {DataType::kBfloat16, "BF16"}, {DataType::kFloat, "FP32"},
    {DataType::kDouble, "FP64"},   {DataType::kString, "BYTES"}};

absl::Status Bad(std::string_view input, std::string_view what) {
  return absl::InvalidArgumentError(StrCat("input \"", input, "\": ", what));
}

// An empty tensor of the type and shape that a request names, with room for its values.
// `available`: the least number of bytes or values that the request must hold for it, checked
// before memory is taken.
absl::StatusOr<Tensor> EmptyTensor(std::string_view name, std::string_view datatype, Dims dims) {
  const DataType dtype = DataTypeFromV2(datatype);
  if (dtype == DataType::kInvalid) return Bad(name, StrCat("unknown datatype \"", datatype, "\""));
  if (!ElementCount(dims).has_value()) {
    return Bad(name, StrCat("shape ", ShapeText(dims), " is not valid"));
  }
  return Tensor::Allocate(dtype, std::move(dims));
}

absl::Status CheckDeclared(std::string_view name, std::string_view datatype, const Dims& dims,
                           std::size_t got, bool binary) {
  const DataType dtype = DataTypeFromV2(datatype);
  if (dtype == DataType::kInvalid) return Bad(name, StrCat("unknown datatype \"", datatype, "\""));
  const std::optional<std::int64_t> count = ElementCount(dims);
  if (!count.has_value()) return Bad(name, StrCat("shape ", ShapeText(dims), " is not valid"));
  const auto elements = static_cast<std::size_t>(*count);
  if (!binary) {
    if (elements == got) return absl::OkStatus();
    return Bad(name, StrCat("shape ", ShapeText(dims), " has ", elements, " values, got ", got));
  }
  if (dtype == DataType::kString) {
    // Each needs at least its length.
    if (elements <= got / 4) return absl::OkStatus();
    return Bad(name, StrCat("shape ", ShapeText(dims), " has ", elements, " values, more than ",
                            got, " bytes hold"));
  }
  if (elements <= std::numeric_limits<std::size_t>::max() / 16 &&
      elements * DataTypeSize(dtype) == got) {
    return absl::OkStatus();
  }
  return Bad(name, StrCat("shape ", ShapeText(dims), " of ", datatype, " has ", elements,
                          " values of ", DataTypeSize(dtype), " bytes, got ", got, " bytes"));
}

absl::StatusOr<Tensor> FromBinary(std::string_view name, std::string_view datatype,
                                  const Dims& dims, std::string_view bytes) {
  TAKT_RETURN_IF_ERROR(CheckDeclared(name, datatype, dims, bytes.size(), true));
  TAKT_ASSIGN_OR_RETURN(Tensor tensor, EmptyTensor(name, datatype, dims));
  if (tensor.dtype() != DataType::kString) {
    std::memcpy(tensor.mutable_data(), bytes.data(), bytes.size());
    return tensor;
  }
  for (std::string& value : tensor.mutable_strings()) {
    std::uint32_t size = 0;
    if (bytes.size() < sizeof(size)) return Bad(name, "its bytes end in a length");
    std::memcpy(&size, bytes.data(), sizeof(size));
    bytes.remove_prefix(sizeof(size));
    if (bytes.size() < size) return Bad(name, "its bytes end in a value");
    value.assign(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
  if (!bytes.empty()) return Bad(name, StrCat(bytes.size(), " bytes are left over"));
  return tensor;
}

template <typename T>
bool PutInteger(const JsonValue& value, void* out) {
  T typed{};
  if (value.IsInt64()) {
    if (!std::in_range<T>(value.integer)) return false;
    typed = static_cast<T>(value.integer);
  } else if (value.IsUint64()) {
    if (!std::in_range<T>(value.AsUint64())) return false;
    typed = static_cast<T>(value.AsUint64());
  } else {
    return false;
  }
  std::memcpy(out, &typed, sizeof(typed));
  return true;
}

bool PutValue(const JsonValue& value, DataType dtype, void* out) {
  const auto put = [out](auto typed) {
    std::memcpy(out, &typed, sizeof(typed));
    return true;
  };
  switch (dtype) {
    case DataType::kBool:
      return value.IsBool() && put(value.type == JsonValue::Type::kTrue);
    case DataType::kUint8:
      return PutInteger<std::uint8_t>(value, out);
    case DataType::kUint16:
      return PutInteger<std::uint16_t>(value, out);
    case DataType::kUint32:
      return PutInteger<std::uint32_t>(value, out);
    case DataType::kUint64:
      return PutInteger<std::uint64_t>(value, out);
    case DataType::kInt8:
      return PutInteger<std::int8_t>(value, out);
    case DataType::kInt16:
      return PutInteger<std::int16_t>(value, out);
    case DataType::kInt32:
      return PutInteger<std::int32_t>(value, out);
    case DataType::kInt64:
      return PutInteger<std::int64_t>(value, out);
    case DataType::kHalf:
      return value.IsNumber() && put(HalfFromFloat(static_cast<float>(value.AsDouble())));
    case DataType::kBfloat16:
      return value.IsNumber() && put(Bfloat16FromFloat(static_cast<float>(value.AsDouble())));
    case DataType::kFloat:
      return value.IsNumber() && put(static_cast<float>(value.AsDouble()));
    case DataType::kDouble:
      return value.IsNumber() && put(value.AsDouble());
    default:
      return false;
  }
}

// The leaves of nested or flat data, in order.
void Leaves(const JsonValue& value, std::vector<JsonValue>* out) {
  if (!value.IsArray()) {
    out->push_back(value);
    return;
  }
  for (std::uint32_t i = 0; i < value.count; ++i) Leaves(value.Element(i), out);
}

absl::StatusOr<Tensor> FromJson(std::string_view name, std::string_view datatype, const Dims& dims,
                                const JsonValue& data) {
  std::vector<JsonValue> leaves;
  Leaves(data, &leaves);
  TAKT_RETURN_IF_ERROR(CheckDeclared(name, datatype, dims, leaves.size(), false));
  TAKT_ASSIGN_OR_RETURN(Tensor tensor, EmptyTensor(name, datatype, dims));
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    bool fits = false;
    if (tensor.dtype() == DataType::kString) {
      fits = leaves[i].IsString();
      if (fits) tensor.mutable_strings()[i] = std::string(leaves[i].AsString());
    } else {
      fits = PutValue(leaves[i], tensor.dtype(),
                      static_cast<char*>(tensor.mutable_data()) + i * DataTypeSize(tensor.dtype()));
    }
    if (!fits) {
      return Bad(name, StrCat("value ", i, ": expected ", datatype, ", got ", JsonText(leaves[i])));
    }
  }
  return tensor;
}

template <typename T, typename Values>
absl::StatusOr<Tensor> FromValues(std::string_view name, std::string_view datatype,
                                  const Dims& dims, const Values& values) {
  TAKT_RETURN_IF_ERROR(
      CheckDeclared(name, datatype, dims, static_cast<std::size_t>(values.size()), false));
  TAKT_ASSIGN_OR_RETURN(Tensor tensor, EmptyTensor(name, datatype, dims));
  auto* out = static_cast<T*>(tensor.mutable_data());
  for (int i = 0; i < values.size(); ++i) {
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      if (!std::in_range<T>(values[i])) {
        return Bad(name, StrCat("value ", i, ": ", values[i], " is no ", datatype));
      }
    }
    out[i] = static_cast<T>(values[i]);
  }
  return tensor;
}

absl::StatusOr<Tensor> FromContents(const inference::ModelInferRequest::InferInputTensor& input,
                                    const Dims& dims) {
  const std::string& name = input.name();
  const std::string& type = input.datatype();
  const inference::InferTensorContents& in = input.contents();
  switch (DataTypeFromV2(type)) {
    case DataType::kBool:
      return FromValues<bool>(name, type, dims, in.bool_contents());
    case DataType::kUint8:
      return FromValues<std::uint8_t>(name, type, dims, in.uint_contents());
    case DataType::kUint16:
      return FromValues<std::uint16_t>(name, type, dims, in.uint_contents());
    case DataType::kUint32:
      return FromValues<std::uint32_t>(name, type, dims, in.uint_contents());
    case DataType::kUint64:
      return FromValues<std::uint64_t>(name, type, dims, in.uint64_contents());
    case DataType::kInt8:
      return FromValues<std::int8_t>(name, type, dims, in.int_contents());
    case DataType::kInt16:
      return FromValues<std::int16_t>(name, type, dims, in.int_contents());
    case DataType::kInt32:
      return FromValues<std::int32_t>(name, type, dims, in.int_contents());
    case DataType::kInt64:
      return FromValues<std::int64_t>(name, type, dims, in.int64_contents());
    case DataType::kFloat:
      return FromValues<float>(name, type, dims, in.fp32_contents());
    case DataType::kDouble:
      return FromValues<double>(name, type, dims, in.fp64_contents());
    case DataType::kString: {
      TAKT_RETURN_IF_ERROR(CheckDeclared(
          name, type, dims, static_cast<std::size_t>(in.bytes_contents_size()), false));
      return Tensor::FromStrings(dims, {in.bytes_contents().begin(), in.bytes_contents().end()});
    }
    case DataType::kHalf:
    case DataType::kBfloat16:
      return Bad(name, StrCat(type, " comes in raw_input_contents only"));
    default:
      return Bad(name, StrCat("unknown datatype \"", type, "\""));
  }
}

std::string ToBinary(const Tensor& tensor) {
  if (tensor.dtype() != DataType::kString) {
    return std::string(static_cast<const char*>(tensor.data()), tensor.bytes());
  }
  std::string out;
  for (const std::string& value : tensor.strings()) {
    const auto size = static_cast<std::uint32_t>(value.size());
    out.append(reinterpret_cast<const char*>(&size), sizeof(size));
    out.append(value);
  }
  return out;
}

void AppendJsonData(const Tensor& tensor, std::string* out) {
  const auto n = static_cast<std::size_t>(tensor.elements());
  const auto list = [&](const auto& append) {
    for (std::size_t i = 0; i < n; ++i) {
      if (i > 0) out->push_back(',');
      append(i);
    }
  };
  const auto integers = [&]<typename T>(T) {
    list([&](std::size_t i) { absl::StrAppend(out, +tensor.as<T>()[i]); });
  };
  out->push_back('[');
  switch (tensor.dtype()) {
    case DataType::kBool:
      list([&](std::size_t i) {
        out->append(tensor.as<std::uint8_t>()[i] != 0 ? "true" : "false");
      });
      break;
    case DataType::kUint8:
      integers(std::uint8_t{});
      break;
    case DataType::kUint16:
      integers(std::uint16_t{});
      break;
    case DataType::kUint32:
      integers(std::uint32_t{});
      break;
    case DataType::kUint64:
      integers(std::uint64_t{});
      break;
    case DataType::kInt8:
      integers(std::int8_t{});
      break;
    case DataType::kInt16:
      integers(std::int16_t{});
      break;
    case DataType::kInt32:
      integers(std::int32_t{});
      break;
    case DataType::kInt64:
      integers(std::int64_t{});
      break;
    case DataType::kHalf:
      list(
          [&](std::size_t i) { AppendJsonFloat(HalfToFloat(tensor.as<std::uint16_t>()[i]), out); });
      break;
    case DataType::kBfloat16:
      list([&](std::size_t i) {
        AppendJsonFloat(Bfloat16ToFloat(tensor.as<std::uint16_t>()[i]), out);
      });
      break;
    case DataType::kFloat:
      list([&](std::size_t i) { AppendJsonFloat(tensor.as<float>()[i], out); });
      break;
    case DataType::kDouble:
      list([&](std::size_t i) { AppendJsonDouble(tensor.as<double>()[i], out); });
      break;
    default:
      list([&](std::size_t i) { AppendJsonString(tensor.strings()[i], out); });
  }
  out->push_back(']');
}

absl::StatusOr<std::string_view> TypeOfOutput(const TensorInfo& info, const Tensor& tensor) {
  const std::string_view type = V2DataType(tensor.dtype());
  if (type.empty()) {
    return absl::UnimplementedError(StrCat("output \"", info.alias, "\": the protocol has no type ",
                                           DataTypeName(tensor.dtype())));
  }
  return type;
}

absl::StatusOr<std::string> StringMember(const JsonValue& object, std::string_view name,
                                         std::string_view where, bool required) {
  const JsonValue* value = object.Member(name);
  if (value == nullptr && !required) return std::string();
  if (value == nullptr || !value->IsString()) {
    return absl::InvalidArgumentError(StrCat(where, ": \"", name, "\" must be a string"));
  }
  return std::string(value->AsString());
}

const JsonValue* Parameter(const JsonValue& object, std::string_view name) {
  const JsonValue* parameters = object.Member("parameters");
  if (parameters == nullptr || !parameters->IsObject()) return nullptr;
  return parameters->Member(name);
}

bool IsTrue(const JsonValue* value) {
  return value != nullptr && value->type == JsonValue::Type::kTrue;
}

absl::StatusOr<V2Input> InputFromJson(const JsonValue& in, std::string_view* binary) {
  if (!in.IsObject()) return absl::InvalidArgumentError("inputs: each must be an object");
  V2Input input;
  TAKT_ASSIGN_OR_RETURN(input.name, StringMember(in, "name", "inputs", true));
  TAKT_ASSIGN_OR_RETURN(const std::string datatype,
                        StringMember(in, "datatype", StrCat("input \"", input.name, "\""), true));
  const JsonValue* shape = in.Member("shape");
  if (shape == nullptr || !shape->IsArray()) return Bad(input.name, "\"shape\" must be a list");
  Dims dims;
  for (std::uint32_t i = 0; i < shape->count; ++i) {
    const JsonValue dim = shape->Element(i);
    if (!dim.IsInt64()) return Bad(input.name, "\"shape\" must hold whole numbers");
    dims.push_back(dim.integer);
  }
  if (const JsonValue* size = Parameter(in, "binary_data_size"); size != nullptr) {
    if (!size->IsUint64() || size->AsUint64() > binary->size()) {
      return Bad(input.name, StrCat("binary_data_size ", JsonText(*size), " is more than the ",
                                    binary->size(), " bytes that are left"));
    }
    TAKT_ASSIGN_OR_RETURN(
        input.tensor, FromBinary(input.name, datatype, dims, binary->substr(0, size->AsUint64())));
    binary->remove_prefix(size->AsUint64());
    return input;
  }
  const JsonValue* data = in.Member("data");
  if (data == nullptr || !data->IsArray()) {
    return Bad(input.name, "expected \"data\" as a list, or binary_data_size");
  }
  TAKT_ASSIGN_OR_RETURN(input.tensor, FromJson(input.name, datatype, dims, *data));
  return input;
}

}  // namespace

std::string_view V2DataType(DataType dtype) {
  for (const auto& [type, name] : kTypes) {
    if (type == dtype) return name;
  }
  return "";
}

DataType DataTypeFromV2(std::string_view name) {
  for (const auto& [type, known] : kTypes) {
    if (known == name) return type;
  }
  return DataType::kInvalid;
}

absl::StatusOr<V2Request> V2RequestFromHttp(std::string_view body,
                                            std::optional<std::size_t> json_bytes) {
  if (json_bytes.has_value() && *json_bytes > body.size()) {
    return absl::InvalidArgumentError(StrCat("Inference-Header-Content-Length is ", *json_bytes,
                                             ", the body has ", body.size(), " bytes"));
  }
  std::string_view binary = body.substr(json_bytes.value_or(body.size()));
  TAKT_ASSIGN_OR_RETURN(const JsonDocument document,
                        JsonDocument::Parse(body.substr(0, json_bytes.value_or(body.size()))));
  const JsonValue& root = document.root();
  if (!root.IsObject()) return absl::InvalidArgumentError("the request must be a JSON object");
  V2Request request;
  TAKT_ASSIGN_OR_RETURN(request.id, StringMember(root, "id", "request", false));
  if (const JsonValue* name = Parameter(root, "signature_name"); name != nullptr) {
    if (!name->IsString()) {
      return absl::InvalidArgumentError("parameter signature_name must be a string");
    }
    request.signature = std::string(name->AsString());
  }
  request.binary_by_default = IsTrue(Parameter(root, "binary_data_output"));
  const JsonValue* inputs = root.Member("inputs");
  if (inputs == nullptr || !inputs->IsArray()) {
    return absl::InvalidArgumentError("the request needs \"inputs\" as a list");
  }
  for (std::uint32_t i = 0; i < inputs->count; ++i) {
    TAKT_ASSIGN_OR_RETURN(V2Input input, InputFromJson(inputs->Element(i), &binary));
    request.inputs.push_back(std::move(input));
  }
  if (!binary.empty()) {
    return absl::InvalidArgumentError(
        StrCat(binary.size(), " binary bytes belong to no input: see binary_data_size"));
  }
  if (const JsonValue* outputs = root.Member("outputs"); outputs != nullptr) {
    if (!outputs->IsArray()) return absl::InvalidArgumentError("\"outputs\" must be a list");
    for (std::uint32_t i = 0; i < outputs->count; ++i) {
      const JsonValue out = outputs->Element(i);
      if (!out.IsObject()) return absl::InvalidArgumentError("outputs: each must be an object");
      V2Output output;
      TAKT_ASSIGN_OR_RETURN(output.name, StringMember(out, "name", "outputs", true));
      const JsonValue* binary_data = Parameter(out, "binary_data");
      output.binary = binary_data == nullptr ? request.binary_by_default : IsTrue(binary_data);
      request.outputs.push_back(std::move(output));
    }
  }
  return request;
}

absl::StatusOr<V2Request> V2RequestFromProto(const inference::ModelInferRequest& in) {
  V2Request request;
  request.id = in.id();
  if (const auto it = in.parameters().find("signature_name"); it != in.parameters().end()) {
    request.signature = it->second.string_param();
  }
  const bool raw = in.raw_input_contents_size() > 0;
  if (raw && in.raw_input_contents_size() != in.inputs_size()) {
    return absl::InvalidArgumentError(StrCat("raw_input_contents: expected ", in.inputs_size(),
                                             ", one for each input, got ",
                                             in.raw_input_contents_size()));
  }
  for (int i = 0; i < in.inputs_size(); ++i) {
    const auto& input = in.inputs(i);
    const Dims dims(input.shape().begin(), input.shape().end());
    absl::StatusOr<Tensor> tensor =
        raw ? FromBinary(input.name(), input.datatype(), dims, in.raw_input_contents(i))
            : FromContents(input, dims);
    if (!tensor.ok()) return tensor.status();
    request.inputs.push_back({input.name(), *std::move(tensor)});
  }
  for (const auto& output : in.outputs()) request.outputs.push_back({output.name(), true});
  return request;
}

absl::StatusOr<std::vector<Tensor>> V2Inputs(const Signature& signature, const V2Request& request) {
  std::vector<Tensor> inputs(signature.inputs().size());
  for (const V2Input& input : request.inputs) {
    const int at = signature.FindInput(input.name);
    if (at < 0) {
      return Bad(input.name, StrCat("signature \"", signature.name(), "\" has no such input"));
    }
    Tensor& slot = inputs[static_cast<std::size_t>(at)];
    if (slot.dtype() != DataType::kInvalid) return Bad(input.name, "given twice");
    const DataType expected = signature.inputs()[static_cast<std::size_t>(at)].dtype;
    if (input.tensor.dtype() != expected) {
      return Bad(input.name, StrCat("expected datatype ", V2DataType(expected), ", got ",
                                    V2DataType(input.tensor.dtype())));
    }
    slot = input.tensor;
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].dtype() != DataType::kInvalid) continue;
    const TensorInfo& info = signature.inputs()[i];
    if (info.default_value.empty()) {
      return Bad(info.alias, StrCat("missing; signature \"", signature.name(), "\" needs it"));
    }
    TAKT_ASSIGN_OR_RETURN(inputs[i], TensorFromBytes(info.default_value));
  }
  return inputs;
}

absl::StatusOr<std::vector<std::size_t>> V2Outputs(const Signature& signature,
                                                   const V2Request& request) {
  std::vector<std::size_t> wanted;
  for (const V2Output& output : request.outputs) {
    const int at = signature.FindOutput(output.name);
    if (at < 0) {
      return absl::InvalidArgumentError(StrCat("output \"", output.name, "\": signature \"",
                                               signature.name(), "\" has no such output"));
    }
    wanted.push_back(static_cast<std::size_t>(at));
  }
  if (request.outputs.empty()) {
    for (std::size_t i = 0; i < signature.outputs().size(); ++i) wanted.push_back(i);
  }
  return wanted;
}

absl::StatusOr<V2HttpAnswer> V2AnswerForHttp(const Servable& servable, const Signature& signature,
                                             const V2Request& request,
                                             const std::vector<std::size_t>& wanted,
                                             const std::vector<Tensor>& tensors) {
  V2HttpAnswer answer;
  std::string& json = answer.body;
  std::string binary;
  json = "{\"model_name\":";
  AppendJsonString(servable.name(), &json);
  absl::StrAppend(&json, ",\"model_version\":\"", servable.version(), "\"");
  if (!request.id.empty()) {
    json.append(",\"id\":");
    AppendJsonString(request.id, &json);
  }
  json.append(",\"outputs\":[");
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const TensorInfo& info = signature.outputs()[wanted[i]];
    const Tensor& tensor = tensors[wanted[i]];
    TAKT_ASSIGN_OR_RETURN(const std::string_view type, TypeOfOutput(info, tensor));
    json.append(i > 0 ? ",{\"name\":" : "{\"name\":");
    AppendJsonString(info.alias, &json);
    absl::StrAppend(&json, ",\"datatype\":\"", ToAbsl(type), "\",\"shape\":[");
    for (int d = 0; d < tensor.rank(); ++d) {
      absl::StrAppend(&json, d > 0 ? "," : "", tensor.dims()[static_cast<std::size_t>(d)]);
    }
    json.push_back(']');
    const bool as_binary =
        request.outputs.empty() ? request.binary_by_default : request.outputs[i].binary;
    if (as_binary) {
      const std::string bytes = ToBinary(tensor);
      absl::StrAppend(&json, ",\"parameters\":{\"binary_data_size\":", bytes.size(), "}}");
      binary.append(bytes);
    } else {
      json.append(",\"data\":");
      AppendJsonData(tensor, &json);
      json.push_back('}');
    }
  }
  json.append("]}");
  answer.json_bytes = json.size();
  json.append(binary);
  return answer;
}

absl::StatusOr<inference::ModelInferResponse> V2AnswerForProto(
    const Servable& servable, const Signature& signature, const V2Request& request,
    const std::vector<std::size_t>& wanted, const std::vector<Tensor>& tensors) {
  inference::ModelInferResponse response;
  response.set_model_name(servable.name());
  response.set_model_version(StrCat(servable.version()));
  response.set_id(request.id);
  for (const std::size_t at : wanted) {
    const TensorInfo& info = signature.outputs()[at];
    TAKT_ASSIGN_OR_RETURN(const std::string_view type, TypeOfOutput(info, tensors[at]));
    auto* output = response.add_outputs();
    output->set_name(info.alias);
    output->set_datatype(std::string(type));
    for (const std::int64_t dim : tensors[at].dims()) output->add_shape(dim);
    response.add_raw_output_contents(ToBinary(tensors[at]));
  }
  return response;
}

}  // namespace takt::serving
