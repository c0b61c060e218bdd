#include "requests.h"

#include <google/protobuf/util/json_util.h>

#include <random>

#include "base/fs.h"
#include "base/proto_wire.h"
#include "base/tfrecord.h"
#include "load/grpc_load.h"
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

absl::StatusOr<Requests> RandomRequest(const std::string& target, const std::string& model,
                                       const std::string& signature, std::int64_t rows) {
  tensorflow::serving::GetModelMetadataRequest ask;
  ask.mutable_model_spec()->set_name(model);
  ask.add_metadata_field("signature_def");
  const std::string bytes = ask.SerializeAsString();
  load::GrpcLoadOptions options;
  options.target = target;
  options.method = "/tensorflow.serving.PredictionService/GetModelMetadata";
  options.max_calls = 1;
  options.message = [&](std::uint64_t) { return std::string_view(bytes); };
  TAKT_ASSIGN_OR_RETURN(const load::LoadResult answer, load::RunGrpcLoad(options));
  tensorflow::serving::GetModelMetadataResponse metadata;
  tensorflow::serving::SignatureDefMap map;
  if (answer.ok != 1 || answer.last_answer.size() < 5 ||
      !metadata.ParseFromString(answer.last_answer.substr(5)) ||
      !metadata.metadata().contains("signature_def") ||
      !metadata.metadata().at("signature_def").UnpackTo(&map)) {
    return absl::NotFoundError(
        StrCat("the signatures of model \"", model, "\": ", answer.first_error));
  }
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
