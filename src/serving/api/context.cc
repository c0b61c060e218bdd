#include "serving/api/context.h"

#include "serving/api/tensor_proto.h"

namespace takt::serving {
namespace {
namespace tfs = tensorflow::serving;
}  // namespace

bool ServingContext::Ready(const std::string& model) const {
  return !draining.load() && directory.Get()->models.contains(model);
}

void LogPredict(ServingContext& context, const Servable& servable, const Signature& signature,
                const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs) {
  tfs::PredictionLog log;
  auto* request = log.mutable_predict_log()->mutable_request();
  auto* response = log.mutable_predict_log()->mutable_response();
  *request->mutable_model_spec() = EchoSpec(servable, signature.name());
  *response->mutable_model_spec() = request->model_spec();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    (*request->mutable_inputs())[signature.inputs()[i].alias] = TensorToProto(inputs[i]);
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    (*response->mutable_outputs())[signature.outputs()[i].alias] = TensorToProto(outputs[i]);
  }
  context.request_log.Add(servable.name(), servable.version(), std::move(log));
}

absl::StatusOr<tfs::GetModelStatusResponse> GetModelStatus(const ServingContext& context,
                                                           const tfs::ModelSpec& spec) {
  const absl::StatusOr<std::vector<VersionStatus>> versions = context.manager.Status(spec.name());
  if (!versions.ok() && !spec.has_version()) return versions.status();
  tfs::GetModelStatusResponse response;
  for (const VersionStatus& version : versions.ok() ? *versions : std::vector<VersionStatus>()) {
    if (spec.has_version() && spec.version().value() != version.version) continue;
    tfs::ModelVersionStatus* out = response.add_model_version_status();
    out->set_version(version.version);
    out->set_state(static_cast<tfs::ModelVersionStatus::State>(version.state));
    out->mutable_status()->set_error_code(
        static_cast<tensorflow::error::Code>(version.status.code()));
    out->mutable_status()->set_error_message(std::string(ToStd(version.status.message())));
  }
  if (response.model_version_status_size() == 0) {
    return absl::NotFoundError(
        StrCat("Could not find version ", spec.version().value(), " of model ", spec.name()));
  }
  return response;
}

absl::StatusOr<tfs::SignatureDefMap> SignatureDefs(const Servable& servable) {
  tfs::SignatureDefMap map;
  for (const auto& [name, bytes] : servable.session().serialized_signatures()) {
    if (!(*map.mutable_signature_def())[name].ParseFromString(bytes)) {
      return absl::InternalError(StrCat("signature \"", name, "\" does not parse"));
    }
  }
  return map;
}

absl::StatusOr<tfs::GetModelMetadataResponse> GetModelMetadata(
    const ServingContext& context, const tfs::GetModelMetadataRequest& request) {
  if (!request.has_model_spec()) return absl::InvalidArgumentError("Missing ModelSpec");
  if (request.metadata_field_size() == 0) {
    return absl::InvalidArgumentError(
        "GetModelMetadataRequest must specify at least one metadata_field");
  }
  for (const std::string& field : request.metadata_field()) {
    if (field != "signature_def") {
      return absl::InvalidArgumentError(StrCat("Metadata field ", field, " is not supported"));
    }
  }
  TAKT_ASSIGN_OR_RETURN(const std::shared_ptr<Servable> servable,
                        FindServable(*context.directory.Get(), request.model_spec()));
  TAKT_ASSIGN_OR_RETURN(const tfs::SignatureDefMap map, SignatureDefs(*servable));
  tfs::GetModelMetadataResponse response;
  response.mutable_model_spec()->set_name(servable->name());
  response.mutable_model_spec()->mutable_version()->set_value(servable->version());
  (*response.mutable_metadata())["signature_def"].PackFrom(map);
  return response;
}

}  // namespace takt::serving
