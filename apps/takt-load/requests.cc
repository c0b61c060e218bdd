#include "requests.h"

#include <google/protobuf/util/json_util.h>

#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/strings/escaping.h"

#include "base/fs.h"
#include "base/proto_wire.h"
#include "base/tfrecord.h"
#include "load/load.h"
#include "tensorflow_serving/apis/get_model_metadata.pb.h"
#include "tensorflow_serving/apis/predict.pb.h"

namespace takt {
namespace {

using tensorflow::TensorProto;

absl::Status FillRandom(std::int64_t count, TensorProto& tensor) {
  std::mt19937_64 random(1);
  auto number = [&] { return static_cast<double>(random() % 1000) / 1000; };
  for (std::int64_t i = 0; i < count; ++i) {
    switch (tensor.dtype()) {
      case tensorflow::DT_FLOAT:
        tensor.add_float_val(static_cast<float>(number()));
        break;
      case tensorflow::DT_DOUBLE:
        tensor.add_double_val(number());
        break;
      case tensorflow::DT_INT64:
        tensor.add_int64_val(static_cast<std::int64_t>(random() % 100));
        break;
      case tensorflow::DT_INT32:
      case tensorflow::DT_INT16:
      case tensorflow::DT_INT8:
      case tensorflow::DT_UINT8:
      case tensorflow::DT_UINT16:
        tensor.add_int_val(static_cast<int>(random() % 100));
        break;
      case tensorflow::DT_BOOL:
        tensor.add_bool_val(random() % 2 == 0);
        break;
      case tensorflow::DT_STRING:
        tensor.add_string_val(StrCat("text ", random() % 1000));
        break;
      default:
        return absl::UnimplementedError(
            StrCat("no random values of ", tensorflow::DataType_Name(tensor.dtype())));
    }
  }
  return absl::OkStatus();
}

std::string HttpRequest(std::string_view method, const std::string& target, const std::string& path,
                        std::string_view body) {
  return StrCat(method, " ", path, " HTTP/1.1\r\nHost: ", target,
                "\r\nContent-Type: application/json\r\nContent-Length: ", body.size(), "\r\n\r\n",
                body);
}
std::string PredictPath(const std::string& model, const std::string& version) {
  return StrCat("/v1/models/", model, version, ":predict");
}

// The body of one GET.
absl::StatusOr<std::string> Get(const std::string& target, const std::string& path) {
  const std::string request = HttpRequest("GET", target, path, "");
  load::LoadOptions options;
  options.target = target;
  options.protocol = load::LoadProtocol::kHttp;
  options.max_calls = 1;
  options.answer_timeout = std::chrono::seconds(5);
  options.message = [&](std::uint64_t) { return std::string_view(request); };
  TAKT_ASSIGN_OR_RETURN(load::LoadResult answer, load::RunLoad(options));
  if (answer.ok != 1) return absl::UnavailableError(StrCat(path, ": ", answer.first_error));
  return std::move(answer.last_answer);
}

// Values of a tensor as JSON texts, in order.
template <typename T>
std::string NumberText(T value) {
  char text[40];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return {text, end};
}
std::string BytesText(const std::string& bytes) {
  for (const char c : bytes) {
    if (c < ' ' || c > '~' || c == '"' || c == '\\') {
      std::string base64;
      absl::Base64Escape(bytes, &base64);
      return StrCat("{\"b64\": \"", base64, "\"}");
    }
  }
  return StrCat("\"", bytes, "\"");
}
// `values`: the field that holds them one by one; the last one stands for those that are missing.
template <typename T, typename Values>
void AppendValues(const TensorProto& tensor, const Values& values, std::int64_t count,
                  std::vector<std::string>* out) {
  const std::string& content = tensor.tensor_content();
  for (std::int64_t i = 0; i < count; ++i) {
    T value{};
    if (static_cast<std::size_t>(i + 1) * sizeof(T) <= content.size()) {
      std::memcpy(&value, content.data() + static_cast<std::size_t>(i) * sizeof(T), sizeof(T));
    } else if (!values.empty()) {
      value = static_cast<T>(
          values.Get(static_cast<int>(std::min<std::int64_t>(i, values.size() - 1))));
    }
    out->push_back(NumberText(value));
  }
}

absl::StatusOr<std::vector<std::string>> ValuesOf(const TensorProto& tensor, std::int64_t count) {
  std::vector<std::string> out;
  switch (tensor.dtype()) {
    case tensorflow::DT_FLOAT:
      AppendValues<float>(tensor, tensor.float_val(), count, &out);
      break;
    case tensorflow::DT_DOUBLE:
      AppendValues<double>(tensor, tensor.double_val(), count, &out);
      break;
    case tensorflow::DT_INT64:
      AppendValues<std::int64_t>(tensor, tensor.int64_val(), count, &out);
      break;
    case tensorflow::DT_INT32:
      AppendValues<std::int32_t>(tensor, tensor.int_val(), count, &out);
      break;
    case tensorflow::DT_INT16:
      AppendValues<std::int16_t>(tensor, tensor.int_val(), count, &out);
      break;
    case tensorflow::DT_INT8:
      AppendValues<std::int8_t>(tensor, tensor.int_val(), count, &out);
      break;
    case tensorflow::DT_UINT8:
      AppendValues<std::uint8_t>(tensor, tensor.int_val(), count, &out);
      break;
    case tensorflow::DT_BOOL:
      AppendValues<std::uint8_t>(tensor, tensor.bool_val(), count, &out);
      for (std::string& value : out) value = value == "0" ? "false" : "true";
      break;
    case tensorflow::DT_STRING:
      for (std::int64_t i = 0; i < count && tensor.string_val_size() > 0; ++i) {
        out.push_back(BytesText(tensor.string_val(
            static_cast<int>(std::min<std::int64_t>(i, tensor.string_val_size() - 1)))));
      }
      break;
    default:
      return absl::UnimplementedError(
          StrCat("no JSON form of ", tensorflow::DataType_Name(tensor.dtype())));
  }
  return out;
}

void AppendNested(const TensorProto& tensor, int dim, const std::vector<std::string>& values,
                  std::size_t* next, std::string* out) {
  if (dim == tensor.tensor_shape().dim_size()) {
    if (*next < values.size()) out->append(values[(*next)++]);
    return;
  }
  out->push_back('[');
  for (std::int64_t i = 0; i < tensor.tensor_shape().dim(dim).size(); ++i) {
    if (i > 0) out->append(", ");
    AppendNested(tensor, dim + 1, values, next, out);
  }
  out->push_back(']');
}

absl::StatusOr<std::string> TensorJson(const TensorProto& tensor) {
  std::int64_t count = 1;
  for (const auto& dim : tensor.tensor_shape().dim()) {
    if (dim.size() < 0 || (dim.size() > 0 && count > kMaxJsonValues / dim.size())) {
      return absl::InvalidArgumentError(
          StrCat("a tensor of more than ", kMaxJsonValues, " values as JSON"));
    }
    count *= dim.size();
  }
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::string> values, ValuesOf(tensor, count));
  std::string out;
  std::size_t next = 0;
  AppendNested(tensor, 0, values, &next, &out);
  return out;
}

absl::StatusOr<tensorflow::serving::SignatureDefMap> SignaturesOf(const Server& server,
                                                                  const std::string& model) {
  tensorflow::serving::SignatureDefMap map;
  if (server.rest) {
    TAKT_ASSIGN_OR_RETURN(const std::string body,
                          Get(server.target, StrCat("/v1/models/", model, "/metadata")));
    const nlohmann::json json = nlohmann::json::parse(body, nullptr, false);
    const auto at = nlohmann::json::json_pointer("/metadata/signature_def");
    google::protobuf::util::JsonParseOptions options;
    options.ignore_unknown_fields = true;
    if (json.is_discarded() || !json.contains(at) ||
        !google::protobuf::util::JsonStringToMessage(json[at].dump(), &map, options).ok()) {
      return absl::InternalError(StrCat("the metadata of model \"", model, "\" are none"));
    }
    return map;
  }
  tensorflow::serving::GetModelMetadataRequest ask;
  ask.mutable_model_spec()->set_name(model);
  ask.add_metadata_field("signature_def");
  const std::string bytes = ask.SerializeAsString();
  load::LoadOptions options;
  options.target = server.target;
  options.method = "/tensorflow.serving.PredictionService/GetModelMetadata";
  options.max_calls = 1;
  options.message = [&](std::uint64_t) { return std::string_view(bytes); };
  TAKT_ASSIGN_OR_RETURN(const load::LoadResult answer, load::RunLoad(options));
  tensorflow::serving::GetModelMetadataResponse metadata;
  if (answer.ok != 1 || !metadata.ParseFromString(answer.last_answer) ||
      !metadata.metadata().contains("signature_def") ||
      !metadata.metadata().at("signature_def").UnpackTo(&map)) {
    return absl::NotFoundError(
        StrCat("the signatures of model \"", model, "\": ", answer.first_error));
  }
  return map;
}

}  // namespace

absl::StatusOr<Requests> RequestFromFile(const std::string& path) {
  TAKT_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path, kMaxRequestFileBytes));
  if (!path.ends_with(".json")) return Requests{std::move(bytes)};
  tensorflow::serving::PredictRequest request;
  const auto parsed = google::protobuf::util::JsonStringToMessage(bytes, &request);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        StrCat(path, ": not a PredictRequest as JSON: ", parsed.ToString()));
  }
  return Requests{request.SerializeAsString()};
}

absl::StatusOr<Requests> RequestsFromLog(const std::string& path) {
  TAKT_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path, kMaxRequestFileBytes));
  Requests requests;
  for (std::string_view rest = bytes; !rest.empty();) {
    const TfRecordResult record = ReadTfRecord(rest, kMaxRequestFileBytes);
    if (record.state != TfRecordState::kRecord) {
      return absl::InvalidArgumentError(
          StrCat(path, ": no whole TFRecord at byte ", bytes.size() - rest.size()));
    }
    rest.remove_prefix(record.size);
    // PredictionLog.predict_log (6), PredictLog.request (1).
    for (ProtoReader log(record.data); log.Next();) {
      if (log.field() != 6) continue;
      for (ProtoReader predict(log.Bytes()); predict.Next();) {
        if (predict.field() == 1) requests.emplace_back(predict.Bytes());
      }
    }
  }
  if (requests.empty()) {
    return absl::InvalidArgumentError(StrCat(path, ": holds no Predict requests"));
  }
  return requests;
}

absl::StatusOr<Requests> RandomRequest(const Server& server, const std::string& model,
                                       const std::string& signature, std::int64_t rows) {
  TAKT_ASSIGN_OR_RETURN(const tensorflow::serving::SignatureDefMap map,
                        SignaturesOf(server, model));
  const auto found = map.signature_def().find(signature);
  if (found == map.signature_def().end()) {
    return absl::NotFoundError(
        StrCat("model \"", model, "\" has no signature \"", signature, "\""));
  }
  tensorflow::serving::PredictRequest request;
  request.mutable_model_spec()->set_name(model);
  request.mutable_model_spec()->set_signature_name(signature);
  for (const auto& [alias, info] : found->second.inputs()) {
    TensorProto& tensor = (*request.mutable_inputs())[alias];
    tensor.set_dtype(info.dtype());
    std::int64_t count = 1;
    for (int i = 0; i < info.tensor_shape().dim_size(); ++i) {
      std::int64_t size = info.tensor_shape().dim(i).size();
      if (size < 0) size = i == 0 ? rows : 1;
      tensor.mutable_tensor_shape()->add_dim()->set_size(size);
      count *= size;
    }
    if (info.tensor_shape().unknown_rank()) {
      tensor.mutable_tensor_shape()->add_dim()->set_size(rows);
      count = rows;
    }
    TAKT_RETURN_IF_ERROR(FillRandom(count, tensor));
  }
  return Requests{request.SerializeAsString()};
}

absl::StatusOr<Requests> AsHttp(const std::string& target, const Requests& requests) {
  Requests out;
  for (const std::string& bytes : requests) {
    tensorflow::serving::PredictRequest request;
    if (!request.ParseFromString(bytes)) return absl::InvalidArgumentError("no PredictRequest");
    std::vector<std::pair<std::string, std::string>> inputs;
    bool rows = request.inputs().size() == 1;
    for (const auto& [alias, tensor] : request.inputs()) {
      TAKT_ASSIGN_OR_RETURN(std::string json, TensorJson(tensor));
      rows = rows && tensor.tensor_shape().dim_size() > 0;
      inputs.emplace_back(BytesText(alias), std::move(json));
    }
    std::string body = "{";
    if (!request.model_spec().signature_name().empty()) {
      absl::StrAppend(
          &body, "\"signature_name\": ", BytesText(request.model_spec().signature_name()), ", ");
    }
    if (rows) {
      absl::StrAppend(&body, "\"instances\": ", inputs[0].second, "}");
    } else {
      body.append("\"inputs\": {");
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        absl::StrAppend(&body, i > 0 ? ", " : "", inputs[i].first, ": ", inputs[i].second);
      }
      body.append("}}");
    }
    const auto& spec = request.model_spec();
    const std::string version = spec.has_version() ? StrCat("/versions/", spec.version().value())
                                : spec.version_label().empty()
                                    ? ""
                                    : StrCat("/labels/", spec.version_label());
    out.push_back(HttpRequest("POST", target, PredictPath(spec.name(), version), body));
  }
  return out;
}

absl::StatusOr<Requests> HttpRequestFromFile(const std::string& target, const std::string& model,
                                             const std::string& path) {
  TAKT_ASSIGN_OR_RETURN(const std::string body, ReadFile(path, kMaxRequestFileBytes));
  return Requests{HttpRequest("POST", target, PredictPath(model, ""), body)};
}

absl::StatusOr<bool> IsRestBody(const std::string& path) {
  if (!path.ends_with(".json")) return false;
  TAKT_ASSIGN_OR_RETURN(const std::string body, ReadFile(path, kMaxRequestFileBytes));
  const nlohmann::json json = nlohmann::json::parse(body, nullptr, false);
  return !json.is_object() || (!json.contains("model_spec") && !json.contains("modelSpec"));
}

std::optional<std::int64_t> AvailableVersion(const std::string& target, const std::string& model) {
  const auto body = Get(target, StrCat("/v1/models/", model));
  if (!body.ok()) return std::nullopt;
  const nlohmann::json json = nlohmann::json::parse(*body, nullptr, false);
  std::optional<std::int64_t> highest;
  if (!json.is_object() || !json.contains("model_version_status")) return std::nullopt;
  for (const auto& status : json["model_version_status"]) {
    if (!status.is_object() || status.value("state", "") != "AVAILABLE") continue;
    const std::string text = status.value("version", "");
    std::int64_t version = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), version).ec == std::errc()) {
      highest = std::max(highest.value_or(version), version);
    }
  }
  return highest;
}

std::string ModelOf(const std::string& predict_request) {
  tensorflow::serving::PredictRequest request;
  return request.ParseFromString(predict_request) ? request.model_spec().name() : "";
}

std::optional<std::int64_t> VersionOf(std::string_view predict_response) {
  std::optional<std::int64_t> version;
  for (ProtoReader response(predict_response); response.Next();) {
    if (response.field() != 2) continue;  // model_spec
    for (ProtoReader spec(response.Bytes()); spec.Next();) {
      if (spec.field() != 2) continue;  // version
      for (ProtoReader value(spec.Bytes()); value.Next();) {
        if (value.field() == 1) version = value.Int64();
      }
    }
  }
  return version;
}

}  // namespace takt
