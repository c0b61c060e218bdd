#include "serving/config/files.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <set>

#include "serving/config/serving_files.pb.h"

namespace takt::serving {
namespace {

namespace tfs = tensorflow::serving;

// Collects the first error, with its place.
class FirstError final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text_.empty()) text_ = StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Where a text file opens an Any, its type is ours of the same name: the original's is in no
// package.
class AnyFinder final : public google::protobuf::TextFormat::Finder {
 public:
  const google::protobuf::Descriptor* FindAnyType(const google::protobuf::Message& message,
                                                  const std::string& prefix,
                                                  const std::string& name) const override {
    const auto* own = files::SavedModelBundleSourceAdapterConfig::descriptor();
    if (name == StrCat("tensorflow.serving.", own->name())) return own;
    return Finder::FindAnyType(message, prefix, name);
  }
};

template <typename Message>
absl::StatusOr<Message> ParseText(std::string_view text, std::string_view name) {
  Message message;
  FirstError error;
  const AnyFinder finder;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  parser.SetFinder(&finder);
  if (!parser.ParseFromString(std::string(text), &message)) {
    return absl::InvalidArgumentError(
        StrCat("Error parsing text-format ", name, ": ", error.text()));
  }
  return message;
}

absl::StatusOr<VersionPolicy> PolicyOf(const tfs::ModelConfig& model) {
  VersionPolicy policy;
  const auto& config = model.model_version_policy();
  switch (config.policy_choice_case()) {
    case tfs::FileSystemStoragePathSourceConfig::ServableVersionPolicy::kLatest:
      policy.num_versions = config.latest().num_versions() == 0
                                ? 1
                                : static_cast<int>(config.latest().num_versions());
      break;
    case tfs::FileSystemStoragePathSourceConfig::ServableVersionPolicy::kAll:
      policy.kind = VersionPolicy::Kind::kAll;
      break;
    case tfs::FileSystemStoragePathSourceConfig::ServableVersionPolicy::kSpecific:
      policy.kind = VersionPolicy::Kind::kSpecific;
      policy.specific.assign(config.specific().versions().begin(),
                             config.specific().versions().end());
      if (policy.specific.empty()) {
        return absl::InvalidArgumentError(
            StrCat("model ", model.name(), ": model_version_policy specific names no version"));
      }
      break;
    case tfs::FileSystemStoragePathSourceConfig::ServableVersionPolicy::POLICY_CHOICE_NOT_SET:
      break;
  }
  return policy;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // old files still say model_type
absl::Status CheckPlatform(const tfs::ModelConfig& model) {
  if (model.model_type() != tfs::MODEL_TYPE_UNSPECIFIED) {
    if (!model.model_platform().empty()) {
      return absl::InvalidArgumentError(
          "Illegal setting both model_type(deprecated) and model_platform.");
    }
    if (model.model_type() == tfs::TENSORFLOW) return absl::OkStatus();
  } else if (model.model_platform().empty()) {
    return absl::InvalidArgumentError(
        "Illegal setting neither model_type(deprecated) nor model_platform.");
  } else if (model.model_platform() == "tensorflow") {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      StrCat("PlatformConfigMap has no entry for platform ", model.model_platform()));
}
#pragma GCC diagnostic pop

absl::StatusOr<BatchingOptions> BatchingFrom(const files::BatchingParameters& parameters) {
  BatchingOptions options;
  if (parameters.has_max_batch_size()) {
    options.max_batch_size = parameters.max_batch_size().value();
  }
  if (parameters.has_batch_timeout_micros()) {
    options.batch_timeout = std::chrono::microseconds(parameters.batch_timeout_micros().value());
  }
  if (parameters.has_max_enqueued_batches()) {
    options.max_enqueued_batches = parameters.max_enqueued_batches().value();
  }
  if (parameters.has_num_batch_threads()) {
    options.num_batch_threads = static_cast<int>(parameters.num_batch_threads().value());
  }
  options.thread_pool_name = parameters.thread_pool_name().value();
  options.allowed_batch_sizes.assign(parameters.allowed_batch_sizes().begin(),
                                     parameters.allowed_batch_sizes().end());
  options.pad_variable_length_inputs = parameters.pad_variable_length_inputs();
  options.enable_large_batch_splitting = parameters.enable_large_batch_splitting().value();
  options.max_execution_batch_size = parameters.max_execution_batch_size().value();
  TAKT_RETURN_IF_ERROR(Validate(options));
  return options;
}

}  // namespace

absl::StatusOr<tfs::ModelServerConfig> ParseModelServerConfig(std::string_view text) {
  return ParseText<tfs::ModelServerConfig>(text, "tensorflow.serving.ModelServerConfig");
}

absl::StatusOr<std::vector<ModelConfig>> ModelsFromConfig(const tfs::ModelServerConfig& config) {
  std::vector<ModelConfig> models;
  if (config.config_case() == tfs::ModelServerConfig::kCustomModelConfig) {
    return absl::InvalidArgumentError(
        "custom_model_config is not supported; expected model_config_list");
  }
  if (config.model_config_list().config_size() > kMaxModels) {
    return absl::InvalidArgumentError(StrCat("model_config_list: at most ", kMaxModels,
                                             " models, got ",
                                             config.model_config_list().config_size()));
  }
  std::set<std::string> names;
  for (const tfs::ModelConfig& model : config.model_config_list().config()) {
    if (!names.insert(model.name()).second) {
      return absl::InvalidArgumentError(
          StrCat("Illegal to list model ", model.name(), " multiple times in config list"));
    }
  }
  for (const tfs::ModelConfig& model : config.model_config_list().config()) {
    ModelConfig out;
    out.name = model.name();
    if (out.name.empty()) {
      return absl::InvalidArgumentError("model_config_list: a model has no name");
    }
    out.base_path = model.base_path();
    if (out.base_path.empty() ||
        (out.base_path.front() != '/' && out.base_path.find("://") == std::string::npos)) {
      return absl::InvalidArgumentError(
          StrCat("Expected model ", model.name(),
                 " to have an absolute path or URI; got base_path()=", model.base_path()));
    }
    TAKT_RETURN_IF_ERROR(CheckPlatform(model));
    TAKT_ASSIGN_OR_RETURN(out.policy, PolicyOf(model));
    for (const auto& [label, version] : model.version_labels()) {
      if (label.empty()) {
        return absl::InvalidArgumentError(
            StrCat("model ", model.name(), ": a version label is empty"));
      }
      out.labels[label] = version;
    }
    out.request_log.filename_prefix =
        model.logging_config().log_collector_config().filename_prefix();
    out.request_log.sampling_rate = model.logging_config().sampling_config().sampling_rate();
    if (!(out.request_log.sampling_rate >= 0 && out.request_log.sampling_rate <= 1)) {
      return absl::InvalidArgumentError(StrCat("model ", model.name(),
                                               ": sampling_rate must be in [0, 1], got ",
                                               out.request_log.sampling_rate));
    }
    models.push_back(std::move(out));
  }
  return models;
}

absl::StatusOr<BatchingOptions> ParseBatchingParameters(std::string_view text) {
  TAKT_ASSIGN_OR_RETURN(
      const files::BatchingParameters parameters,
      ParseText<files::BatchingParameters>(text, "tensorflow.serving.BatchingParameters"));
  return BatchingFrom(parameters);
}

absl::StatusOr<PlatformOptions> ParsePlatformConfig(std::string_view text) {
  TAKT_ASSIGN_OR_RETURN(
      const files::PlatformConfigMap map,
      ParseText<files::PlatformConfigMap>(text, "tensorflow.serving.PlatformConfigMap"));
  const auto platform = map.platform_configs().find("tensorflow");
  if (platform == map.platform_configs().end()) {
    return absl::FailedPreconditionError("PlatformConfigMap has no entry for platform tensorflow");
  }
  PlatformOptions options;
  for (const auto& [name, config] : map.platform_configs()) {
    if (name != "tensorflow") options.no_meaning.push_back(StrCat("platform \"", name, "\""));
  }
  files::SavedModelBundleSourceAdapterConfig adapter;
  const google::protobuf::Any& any = platform->second.source_adapter_config();
  if (any.type_url().ends_with("/tensorflow.serving.SavedModelBundleSourceAdapterConfig")) {
    if (!adapter.ParseFromString(any.value())) {
      return absl::InvalidArgumentError("PlatformConfigMap: source_adapter_config does not parse");
    }
  } else {
    return absl::InvalidArgumentError(
        StrCat("PlatformConfigMap: source_adapter_config: expected a "
               "tensorflow.serving.SavedModelBundleSourceAdapterConfig, got \"",
               any.type_url(), "\""));
  }
  const files::SessionBundleConfig& bundle = adapter.legacy_config();
  if (bundle.has_batching_parameters()) {
    TAKT_ASSIGN_OR_RETURN(options.batching, BatchingFrom(bundle.batching_parameters()));
  }
  options.session_config = bundle.session_config().SerializeAsString();
  options.tags.assign(bundle.saved_model_tags().begin(), bundle.saved_model_tags().end());
  options.warmup = bundle.enable_model_warmup();
  options.warmup_iterations = bundle.model_warmup_options().num_request_iterations().value();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  bundle.GetReflection()->ListFields(bundle, &fields);
  for (const auto* field : fields) {
    if (field->number() >= files::SessionBundleConfig::kSessionTargetFieldNumber) {
      options.no_meaning.push_back(field->name());
    }
  }
  return options;
}

absl::StatusOr<MonitoringOptions> ParseMonitoringConfig(std::string_view text) {
  TAKT_ASSIGN_OR_RETURN(
      const files::MonitoringConfig config,
      ParseText<files::MonitoringConfig>(text, "tensorflow.serving.MonitoringConfig"));
  MonitoringOptions options;
  options.prometheus = config.prometheus_config().enable();
  if (!config.prometheus_config().path().empty()) options.path = config.prometheus_config().path();
  if (options.path.front() != '/') {
    return absl::InvalidArgumentError(
        StrCat("prometheus_config: path must begin with \"/\", got \"", options.path, "\""));
  }
  return options;
}

absl::StatusOr<net::TlsOptions> ParseSslConfig(std::string_view text) {
  TAKT_ASSIGN_OR_RETURN(const files::SSLConfig config,
                        ParseText<files::SSLConfig>(text, "tensorflow.serving.SSLConfig"));
  if (config.server_key().empty() || config.server_cert().empty()) {
    return absl::InvalidArgumentError("SSLConfig: server_key and server_cert must both be given");
  }
  if (config.client_verify() && config.custom_ca().empty()) {
    return absl::InvalidArgumentError("SSLConfig: client_verify needs custom_ca");
  }
  net::TlsOptions options;
  options.key_pem = config.server_key();
  options.cert_pem = config.server_cert();
  options.ca_pem = config.custom_ca();
  options.verify_client = config.client_verify();
  return options;
}

}  // namespace takt::serving
