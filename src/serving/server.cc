#include "serving/server.h"

#include <google/protobuf/text_format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "absl/strings/str_split.h"
#include "base/fs.h"
#include "net/event_loop.h"
#include "net/grpc_server.h"
#include "net/http_server.h"
#include "serving/api/context.h"
#include "serving/api/grpc_services.h"
#include "serving/api/predict.h"
#include "serving/api/rest_api.h"
#include "serving/api/v2_api.h"
#include "serving/config/files.h"
#include "serving/lifecycle/loader.h"
#include "serving/lifecycle/manager.h"
#include "serving/lifecycle/s3_storage.h"
#include "serving/lifecycle/trial_load.h"
#include "serving/log.h"
#include "serving/metrics.h"
#include "serving/request_log.h"
#include "tensorflow/core/protobuf/config.pb.h"

namespace takt::serving {
namespace {

namespace tfs = tensorflow::serving;

// How long a start or a reload waits for models to try their loads.
constexpr std::chrono::minutes kFirstLoadTimeout{30};
// A start does not wait on where some model can answer and no load has ended for so long.
constexpr std::chrono::minutes kStalledStart{1};

int Cores() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

// What Predict reports, on to metrics and request log.
class Observer final : public PredictObserver {
 public:
  Observer(Metrics& metrics, RequestLog& log) : metrics_(metrics), log_(log) {}
  void OnPredict(const PredictRecord& record) override {
    RequestSample sample;
    sample.model = record.model;
    sample.version = record.version;
    sample.signature = record.signature;
    sample.api = "predict";
    sample.entrypoint = "GRPC";
    sample.code = record.code;
    sample.latency = record.latency;
    sample.queue = record.queue;
    metrics_.Record(sample);
  }
  bool WantsLog(std::string_view model) override { return log_.Wants(model); }
  void OnRequestLog(std::string_view model, std::int64_t version, std::string_view request,
                    std::string_view response) override {
    log_.AddPredict(model, version, std::string(request), std::string(response));
  }

 private:
  Metrics& metrics_;
  RequestLog& log_;
};

absl::StatusOr<std::string> ReadConfig(const std::string& path) {
  return ReadFile(path, kMaxConfigBytes);
}

absl::StatusOr<EngineOptions> EngineOptionsOf(const Flags& flags,
                                              const std::optional<PlatformOptions>& platform) {
  EngineOptions options;
  const auto pick = [&](std::int64_t own) {
    return static_cast<int>(own != 0 ? own : flags.tensorflow_session_parallelism);
  };
  options.intra_op_parallelism = pick(flags.tensorflow_intra_op_parallelism);
  options.inter_op_parallelism = pick(flags.tensorflow_inter_op_parallelism);
  tensorflow::ConfigProto config;
  if (platform.has_value()) {
    config.ParseFromString(platform->session_config);
  } else if (!flags.tensorflow_session_config_file.empty()) {
    TAKT_ASSIGN_OR_RETURN(const std::string text, ReadConfig(flags.tensorflow_session_config_file));
    if (!google::protobuf::TextFormat::ParseFromString(text, &config)) {
      return absl::InvalidArgumentError(StrCat("Error parsing text-format tensorflow.ConfigProto: ",
                                               flags.tensorflow_session_config_file));
    }
  }
  if (flags.per_process_gpu_memory_fraction > 0) {
    config.mutable_gpu_options()->set_per_process_gpu_memory_fraction(
        flags.per_process_gpu_memory_fraction);
  }
  if (flags.xla_cpu_compilation_enabled || flags.xla_gpu_compilation_enabled) {
    config.mutable_graph_options()->mutable_optimizer_options()->set_global_jit_level(
        tensorflow::OptimizerOptions::ON_1);
  }
  if (flags.mixed_precision == "bfloat16") {
    config.mutable_graph_options()
        ->mutable_rewrite_options()
        ->set_auto_mixed_precision_onednn_bfloat16(tensorflow::RewriterConfig::ON);
  } else if (!flags.mixed_precision.empty()) {
    return absl::InvalidArgumentError(
        StrCat("--mixed_precision: expected \"bfloat16\", got \"", flags.mixed_precision, "\""));
  }
  options.session_config = config.SerializeAsString();
  return options;
}

absl::StatusOr<LoaderOptions> LoaderOptionsOf(const Flags& flags,
                                              const std::optional<PlatformOptions>& platform) {
  LoaderOptions options;
  options.tags.clear();
  for (const absl::string_view tag :
       absl::StrSplit(flags.saved_model_tags, ',', absl::SkipWhitespace())) {
    options.tags.emplace_back(tag);
  }
  options.warmup = flags.enable_model_warmup;
  options.warmup_iterations = static_cast<int>(flags.num_request_iterations_for_warmup);
  if (platform.has_value()) {
    if (!platform->tags.empty()) options.tags = platform->tags;
    options.warmup = platform->warmup;
    options.warmup_iterations = platform->warmup_iterations;
    options.batching = platform->batching;
    if (options.batching.has_value()) return options;
  } else if (!flags.enable_batching && !flags.batching_parameters_file.empty()) {
    return absl::InvalidArgumentError(
        "--batching_parameters_file is set without setting --enable_batching to true.");
  }
  if (!platform.has_value() && !flags.enable_batching &&
      flags.enable_per_model_batching_parameters) {
    return absl::InvalidArgumentError(
        "--enable_per_model_batching_parameters is set without setting --enable_batching to true.");
  }
  if (!platform.has_value() && flags.enable_batching) {
    if (flags.batching != "off") {
      return absl::InvalidArgumentError(StrCat("--enable_batching and --batching=", flags.batching,
                                               " are two ways to batch: give one of them"));
    }
    BatchingOptions batching;
    if (!flags.batching_parameters_file.empty()) {
      TAKT_ASSIGN_OR_RETURN(const std::string text, ReadConfig(flags.batching_parameters_file));
      TAKT_ASSIGN_OR_RETURN(batching, ParseBatchingParameters(text));
    }
    options.batching = batching;
    options.per_model_batching = flags.enable_per_model_batching_parameters;
  } else if (flags.batching == "auto" || flags.batching == "always") {
    BatchingOptions batching;
    batching.automatic = true;
    batching.needs_proof = flags.batching == "auto";
    batching.latency_target = std::chrono::microseconds(flags.batching_latency_target_micros);
    options.batching = batching;
  } else if (flags.batching != "off") {
    return absl::InvalidArgumentError(StrCat(
        "--batching: expected \"auto\", \"always\" or \"off\", got \"", flags.batching, "\""));
  }
  return options;
}

absl::StatusOr<std::optional<PlatformOptions>> PlatformOf(const Flags& flags) {
  if (flags.platform_config_file.empty()) return std::nullopt;
  TAKT_ASSIGN_OR_RETURN(const std::string text, ReadConfig(flags.platform_config_file));
  TAKT_ASSIGN_OR_RETURN(PlatformOptions platform, ParsePlatformConfig(text));
  return platform;
}

// `due` says for each load whether it is tried in a process of its own before.
LoadServable OnTrialFirst(LoadServable load, std::function<bool()> due) {
  return [load = std::move(load), due = std::move(due)](
             const ModelConfig& model, std::int64_t version,
             const std::string& directory) -> absl::StatusOr<std::shared_ptr<Servable>> {
    if (due()) TAKT_RETURN_IF_ERROR(LoadOnTrial(directory));
    return load(model, version, directory);
  };
}

absl::StatusOr<tfs::ModelServerConfig> ConfigOf(const Flags& flags) {
  if (!flags.model_config_file.empty()) {
    TAKT_ASSIGN_OR_RETURN(const std::string text, ReadConfig(flags.model_config_file));
    return ParseModelServerConfig(text);
  }
  if (flags.model_base_path.empty()) {
    return absl::InvalidArgumentError(
        "Both server_options.model_base_path and server_options.model_config_file are empty!");
  }
  std::string path = flags.model_base_path;
  if (path.front() != '/' && path.find("://") == std::string::npos) {
    char* here = get_current_dir_name();
    path = JoinPath(here == nullptr ? "/" : here, path);
    free(here);
  }
  tfs::ModelServerConfig config;
  tfs::ModelConfig* model = config.mutable_model_config_list()->add_config();
  model->set_name(flags.model_name);
  model->set_base_path(path);
  model->set_model_platform("tensorflow");
  return config;
}

absl::Status ApplyChannelArguments(const Flags& flags, net::GrpcServerOptions* options) {
  TAKT_ASSIGN_OR_RETURN(const auto arguments, ParseChannelArguments(flags.grpc_channel_arguments));
  for (const auto& [key, value] : arguments) {
    std::int64_t number = 0;
    const bool is_number = absl::SimpleAtoi(value, &number);
    if (key == "grpc.max_concurrent_streams" && is_number && number > 0) {
      options->max_concurrent_streams = static_cast<std::uint32_t>(number);
    } else if (key == "grpc.max_connection_idle_ms" && is_number && number > 0) {
      options->idle_timeout = std::chrono::milliseconds(number);
    } else if (key == "grpc.max_receive_message_length" && is_number && number > 0) {
      options->max_message_bytes = static_cast<std::size_t>(number);
    } else {
      Log(LogLevel::kInfo, StrCat("--grpc_channel_arguments: ", key, " has no meaning here"));
    }
  }
  return absl::OkStatus();
}

class Server final : public ModelServer {
 public:
  explicit Server(const Flags& flags) : flags_(flags) {}

  ~Server() override {
    StopPolling();
    http_.reset();
    grpc_.reset();
    // Answers that are still under way use the rest: the loops end first.
    background_.reset();
    scrapes_.reset();
    if (workers_ != nullptr) workers_->Stop();
    loops_.reset();
    if (manager_ != nullptr) manager_->Stop();
    directory_.Publish(std::make_shared<ServableSnapshot>());
    manager_.reset();
  }

  absl::Status Init(std::unique_ptr<Engine> engine) {
    TAKT_ASSIGN_OR_RETURN(const std::optional<PlatformOptions> platform, PlatformOf(flags_));
    if (platform.has_value()) {
      for (const std::string& what : platform->no_meaning) {
        Log(LogLevel::kInfo, StrCat("--platform_config_file: ", what, " has no meaning here"));
      }
    }
    TAKT_ASSIGN_OR_RETURN(const LoaderOptions loader_options, LoaderOptionsOf(flags_, platform));
    TAKT_ASSIGN_OR_RETURN(const tfs::ModelServerConfig config, ConfigOf(flags_));
    TAKT_ASSIGN_OR_RETURN(const std::vector<ModelConfig> models, ModelsFromConfig(config));
    std::optional<net::TlsOptions> tls;
    if (!flags_.ssl_config_file.empty()) {
      TAKT_ASSIGN_OR_RETURN(const std::string text, ReadConfig(flags_.ssl_config_file));
      TAKT_ASSIGN_OR_RETURN(tls, ParseSslConfig(text));
    }
    RestOptions rest;
    rest.timeout = std::chrono::milliseconds(flags_.rest_api_timeout_in_ms);
    rest.cors = flags_.rest_api_enable_cors_support;
    MonitoringOptions monitoring;
    if (!flags_.monitoring_config_file.empty()) {
      TAKT_ASSIGN_OR_RETURN(const std::string text, ReadConfig(flags_.monitoring_config_file));
      TAKT_ASSIGN_OR_RETURN(monitoring, ParseMonitoringConfig(text));
    } else if (std::getenv("TAKT_INSTANCE") != nullptr) {
      // Takt runs it and looks for figures on the ports that it has.
      monitoring.prometheus = true;
    }
    rest.prometheus = monitoring.prometheus;
    rest.prometheus_path = monitoring.path;

    // A process on trial would have another engine than one that was given.
    const std::string trial_loads = engine == nullptr ? flags_.trial_loads : "off";
    engine_ = std::move(engine);
    if (engine_ == nullptr) {
      TAKT_ASSIGN_OR_RETURN(const EngineOptions engine_options, EngineOptionsOf(flags_, platform));
      TAKT_ASSIGN_OR_RETURN(engine_, MakeTensorflowEngine(engine_options));
    }
    workers_ = std::make_unique<WorkerPool>(Cores());
    background_ = std::make_unique<WorkerPool>(1);

    ManagerOptions options;
    options.poll =
        std::chrono::seconds(std::max<std::int64_t>(0, flags_.file_system_poll_wait_seconds));
    options.poll_disabled = flags_.file_system_poll_wait_seconds < 0;
    if (flags_.num_load_threads > 0) {
      options.load_threads = static_cast<int>(std::min<std::int64_t>(flags_.num_load_threads, 64));
    }
    options.max_load_retries = static_cast<int>(flags_.max_num_load_retries);
    options.retry_interval = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::microseconds(flags_.load_retry_interval_micros));
    options.labels_for_unavailable_versions = flags_.allow_version_labels_for_unavailable_models;
    LoadServable load = MakeLoader(*engine_, *workers_, metrics_, loader_options);
    if (trial_loads == "all") {
      load = OnTrialFirst(std::move(load), [] { return true; });
    } else if (trial_loads == "new") {
      load = OnTrialFirst(std::move(load), [this] { return started_.load() && Serves(); });
    } else if (trial_loads != "off") {
      return absl::InvalidArgumentError(
          StrCat("--trial_loads: expected \"off\", \"new\" or \"all\", got \"", trial_loads, "\""));
    }
    manager_ = std::make_unique<ModelManager>(options, storage_, std::move(load), directory_);
    context_ = std::make_unique<ServingContext>(
        ServingContext{directory_, *manager_, metrics_, request_log_,
                       InferenceOptions{flags_.enable_signature_method_name_check},
                       [this](const tfs::ModelServerConfig& next) { return Reload(next); },
                       [this](const std::vector<ModelConfig>& models) { return SetModels(models); },
                       *background_, engine_->version(), draining_});
    AddGauges();

    absl::Status loaded = SetModels(models, kStalledStart);
    // A model that is not there yet is no reason not to serve the others, nor to die: it is loaded
    // when it comes. A label that cannot be set is a mistake in the configuration.
    if (!loaded.ok() && loaded.code() != absl::StatusCode::kUnknown) return loaded;
    if (!loaded.ok()) Log(LogLevel::kWarning, ToStd(loaded.message()));

    const int loops =
        flags_.event_loop_threads > 0 ? static_cast<int>(flags_.event_loop_threads) : Cores();
    TAKT_ASSIGN_OR_RETURN(loops_, net::EventLoopPool::Start(loops));
    net::GrpcServerOptions grpc_options;
    grpc_options.host = flags_.host;
    grpc_options.port = static_cast<int>(flags_.port);
    grpc_options.unix_socket_path = flags_.grpc_socket_path;
    grpc_options.tls = tls;
    TAKT_RETURN_IF_ERROR(ApplyChannelArguments(flags_, &grpc_options));
    grpc_ = net::GrpcServer::Create(std::move(grpc_options), loops_->loops());
    PredictOptions predict;
    predict.outputs_as_tensor_content = flags_.enable_serialization_as_tensor_content;
    predict.check_method_name = flags_.enable_signature_method_name_check;
    RegisterPredict(*grpc_, directory_, predict, &observer_);
    GrpcServicesOptions services;
    services.health = flags_.enable_grpc_healthcheck_service;
    RegisterGrpcServices(*grpc_, *context_, services);
    RegisterV2(*grpc_, *context_);
    if (monitoring.prometheus) {
      scrapes_ = std::make_unique<WorkerPool>(1);
      grpc_->HandleGet(
          monitoring.path, "text/plain; version=0.0.4",
          [this](net::GrpcServer::PlainAnswer answer) {
            scrapes_->Run([this, answer = std::move(answer)] { answer(metrics_.Expose()); });
          });
    }
    TAKT_RETURN_IF_ERROR(grpc_->Start());
    Log(LogLevel::kInfo,
        StrCat("Running gRPC ModelServer at ", flags_.host, ":", grpc_->port(), " ..."));

    if (flags_.rest_api_port != 0) {
      rest_ = std::make_unique<RestApi>(rest, *context_);
      net::HttpServerOptions http_options;
      http_options.host = flags_.host;
      http_options.port =
          static_cast<std::uint16_t>(std::max<std::int64_t>(0, flags_.rest_api_port));
      http_options.threads = flags_.rest_api_num_threads > 0
                                 ? static_cast<int>(std::min<std::int64_t>(
                                       flags_.rest_api_num_threads, std::int64_t{4} * Cores()))
                                 : Cores();
      http_options.max_body_bytes = kMaxRestBodyBytes;
      http_options.tls = tls;
      TAKT_ASSIGN_OR_RETURN(
          http_, net::HttpServer::Start(http_options,
                                        [this](net::HttpRequest request,
                                               std::shared_ptr<net::HttpResponder> responder) {
                                          rest_->Handle(std::move(request), std::move(responder));
                                        }));
      Log(LogLevel::kInfo,
          StrCat("Exporting HTTP/REST API at:", flags_.host, ":", http_->port(), " ..."));
    }
    started_ = true;
    if (!flags_.model_config_file.empty() && flags_.model_config_file_poll_wait_seconds > 0) {
      polling_ = std::thread([this] { PollConfig(); });
    }
    return absl::OkStatus();
  }

  std::uint16_t grpc_port() const override { return grpc_->port(); }
  std::uint16_t rest_port() const override { return http_ == nullptr ? 0 : http_->port(); }

  void Drain() override {
    draining_ = true;
    StopPolling();
    const std::chrono::milliseconds limit(flags_.drain_timeout_ms);
    std::thread http([this, limit] {
      if (http_ != nullptr) http_->Stop(static_cast<int>(limit.count()));
    });
    const std::uint64_t cut = grpc_->Drain(limit);
    http.join();
    if (cut > 0) {
      Log(LogLevel::kWarning,
          StrCat("drained; ", cut, " calls were cut off after ", limit.count(), " ms"));
    } else {
      Log(LogLevel::kInfo, "drained; no request was cut off");
    }
  }

 private:
  absl::Status Reload(const tfs::ModelServerConfig& config) {
    TAKT_ASSIGN_OR_RETURN(const std::vector<ModelConfig> models, ModelsFromConfig(config));
    return SetModels(models);
  }

  absl::Status SetModels(const std::vector<ModelConfig>& models,
                         std::optional<std::chrono::milliseconds> stalled = std::nullopt) {
    absl::Status status = manager_->SetModels(models, kFirstLoadTimeout, stalled);
    request_log_.Configure(manager_->Models());
    return status;
  }

  bool Serves() const {
    const auto snapshot = directory_.Get();
    return std::any_of(snapshot->models.begin(), snapshot->models.end(),
                       [](const auto& model) { return !model.second.versions.empty(); });
  }

  void PollConfig() {
    const auto interval = std::chrono::seconds(flags_.model_config_file_poll_wait_seconds);
    std::string last;
    if (absl::StatusOr<std::string> text = ReadConfig(flags_.model_config_file); text.ok()) {
      last = *std::move(text);
    }
    std::string complained;
    std::unique_lock lock(poll_mutex_);
    while (!poll_wake_.wait_for(lock, interval, [this] { return stop_polling_; })) {
      lock.unlock();
      const absl::StatusOr<std::string> text = ReadConfig(flags_.model_config_file);
      absl::Status status = text.status();
      if (text.ok() && *text != last) {
        const absl::StatusOr<tfs::ModelServerConfig> config = ParseModelServerConfig(*text);
        status = config.ok() ? Reload(*config) : config.status();
        // A file that was refused is tried again when it changes, or at the next look where what
        // it names may have come meanwhile.
        if (status.ok()) {
          last = *text;
          Log(LogLevel::kInfo, StrCat(flags_.model_config_file, ": changed and applied"));
        }
      }
      const std::string complaint = status.ok() ? "" : status.ToString();
      if (!complaint.empty() && complaint != complained) {
        Log(LogLevel::kError, StrCat(flags_.model_config_file, ": ", complaint));
      }
      complained = complaint;
      lock.lock();
    }
  }

  void StopPolling() {
    {
      const std::lock_guard lock(poll_mutex_);
      stop_polling_ = true;
    }
    poll_wake_.notify_all();
    if (polling_.joinable()) polling_.join();
  }

  void AddGauges() {
    metrics_.AddGauge({"takt_serving_version_state", "gauge",
                       "State of each version: 10 start, 20 loading, 30 available, 40 unloading, "
                       "50 end.",
                       [this] {
                         std::vector<std::pair<std::string, double>> out;
                         for (const ModelConfig& model : manager_->Models()) {
                           const auto versions = manager_->Status(model.name);
                           if (!versions.ok()) continue;
                           for (const VersionStatus& v : *versions) {
                             out.emplace_back(
                                 StrCat("model=\"", model.name, "\",version=\"", v.version, "\""),
                                 static_cast<double>(v.state));
                           }
                         }
                         return out;
                       }});
    AddSignatureFigure("takt_serving_runs_total",
                       "Runs of each signature that is loaded, warm-up included.", "counter",
                       &Signature::runs);
    AddSignatureFigure("takt_serving_run_rows_total",
                       "Rows of these runs, padding included: by the runs, the mean batch size.",
                       "counter", &Signature::run_rows);
    AddSignatureFigure(
        "takt_serving_rows_proven_apart",
        "1 where the graph shows that rows of the signature do not depend on each other.", "gauge",
        &Signature::rows_proven_apart);
    metrics_.AddGauge(
        {"takt_serving_ready", "gauge", "1 when every model can answer.", [this] {
           return std::vector<std::pair<std::string, double>>{{"", context_->Ready() ? 1.0 : 0.0}};
         }});
    metrics_.AddGauge({"takt_serving_grpc_connections", "gauge", "Open gRPC connections.", [this] {
                         std::vector<std::pair<std::string, double>> out;
                         if (grpc_ != nullptr) {
                           out.emplace_back("", static_cast<double>(grpc_->stats().connections));
                         }
                         return out;
                       }});
    metrics_.AddGauge({"takt_serving_request_log_records_total", "counter",
                       "Sampled requests, by what became of them.", [this] {
                         return std::vector<std::pair<std::string, double>>{
                             {"outcome=\"written\"", static_cast<double>(request_log_.written())},
                             {"outcome=\"dropped\"", static_cast<double>(request_log_.dropped())}};
                       }});
  }

  void AddSignatureFigure(const char* name, const char* help, const char* type,
                          std::uint64_t (Signature::*count)() const) {
    metrics_.AddGauge({name, type, help, [this, count] {
                         std::vector<std::pair<std::string, double>> out;
                         for (const auto& [model, entry] : directory_.Get()->models) {
                           for (const auto& [version, servable] : entry.versions) {
                             for (const auto& signature : servable->signatures()) {
                               out.emplace_back(StrCat("model=\"", model, "\",version=\"", version,
                                                       "\",signature=\"", signature->name(), "\""),
                                                static_cast<double>((*signature.*count)()));
                             }
                           }
                         }
                         return out;
                       }});
  }

  const Flags flags_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> started_{false};  // the first loads are over, the ports are open
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<WorkerPool> workers_;
  Metrics metrics_;
  RequestLog request_log_;
  Observer observer_{metrics_, request_log_};
  FileModelStorage files_;
  S3ModelStorage s3_{S3OptionsFromEnvironment([](const char* name) { return std::getenv(name); })};
  StorageByScheme storage_{"s3://", s3_, files_};
  ServableDirectory directory_;
  std::unique_ptr<ModelManager> manager_;
  std::unique_ptr<ServingContext> context_;
  std::unique_ptr<RestApi> rest_;
  std::unique_ptr<net::EventLoopPool> loops_;
  std::unique_ptr<WorkerPool> background_;
  std::unique_ptr<WorkerPool> scrapes_;  // null: metrics are not on
  std::unique_ptr<net::GrpcServer> grpc_;
  std::unique_ptr<net::HttpServer> http_;

  std::mutex poll_mutex_;
  std::condition_variable poll_wake_;
  bool stop_polling_ = false;
  std::thread polling_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ModelServer>> ModelServer::Start(const Flags& flags,
                                                                std::unique_ptr<Engine> engine) {
  auto server = std::make_unique<Server>(flags);
  TAKT_RETURN_IF_ERROR(server->Init(std::move(engine)));
  return server;
}

absl::Status TryLoad(const Flags& flags) {
  BecomeTrial();
  TAKT_ASSIGN_OR_RETURN(const std::optional<PlatformOptions> platform, PlatformOf(flags));
  TAKT_ASSIGN_OR_RETURN(const LoaderOptions loader_options, LoaderOptionsOf(flags, platform));
  TAKT_ASSIGN_OR_RETURN(const EngineOptions engine_options, EngineOptionsOf(flags, platform));
  TAKT_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, MakeTensorflowEngine(engine_options));
  WorkerPool workers(1);
  Metrics metrics;
  ModelConfig model;
  model.name = flags.model_name;
  return MakeLoader(*engine, workers, metrics, loader_options)(model, 0, flags.trial_load_of)
      .status();
}

}  // namespace takt::serving
