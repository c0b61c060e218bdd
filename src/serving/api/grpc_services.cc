#include "serving/api/grpc_services.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>

#include "base/proto_wire.h"
#include "serving/api/health.pb.h"
#include "serving/log.h"
#include "tensorflow_serving/apis/classification.pb.h"
#include "tensorflow_serving/apis/inference.pb.h"
#include "tensorflow_serving/apis/model_management.pb.h"
#include "tensorflow_serving/apis/model_service.pb.h"
#include "tensorflow_serving/apis/prediction_service.pb.h"
#include "tensorflow_serving/apis/regression.pb.h"

namespace takt::serving {
namespace {

namespace tfs = tensorflow::serving;
using net::GrpcCallPtr;
using SteadyClock = std::chrono::steady_clock;

// A call that waits for its result somewhere; std::function wants copyable captures.
using SharedCall = std::shared_ptr<GrpcCallPtr>;

template <typename Message>
bool ParseBody(GrpcCallPtr& call, Message* message) {
  const std::string_view body = call->body();
  if (message->ParseFromArray(body.data(), static_cast<int>(body.size()))) return true;
  call.Finish(absl::InvalidArgumentError(
      StrCat(call->method(), ": the request is not a ", message->GetTypeName())));
  return false;
}

template <typename Message>
void Answer(GrpcCallPtr& call, const absl::StatusOr<Message>& answer) {
  if (answer.ok()) answer->AppendToString(&call->response());
  call.Finish(answer.status());
}

// What Classify and Regress share. `Run` starts the inference, `Log` puts request and response into
// a log.
template <typename Request, typename Response, typename Result, typename Run, typename Log>
void HandleExamples(ServingContext& context, GrpcCallPtr call, std::string_view api, const Run& run,
                    const Log& log) {
  const auto begin = SteadyClock::now();
  auto request = std::make_shared<Request>();
  if (!ParseBody(call, request.get())) return;
  const auto queue = std::make_shared<std::chrono::nanoseconds>(0);
  const auto record = [&context, begin, api, request, queue](const Servable* servable,
                                                             const absl::Status& status) {
    RequestSample sample;
    sample.model = request->model_spec().name();
    sample.version = servable == nullptr ? 0 : servable->version();
    sample.signature = request->model_spec().signature_name();
    sample.api = api;
    sample.entrypoint = "GRPC";
    sample.code = status.code();
    sample.latency = SteadyClock::now() - begin;
    sample.queue = *queue;
    context.metrics.Record(sample);
  };
  if (!request->has_model_spec()) {
    return call.Finish(absl::InvalidArgumentError("Missing ModelSpec"));
  }
  absl::StatusOr<std::shared_ptr<Servable>> found =
      FindServable(*context.directory.Get(), request->model_spec());
  if (!found.ok()) {
    record(nullptr, found.status());
    return call.Finish(found.status());
  }
  const std::shared_ptr<Servable> servable = *found;
  const InferenceTerms terms{call->deadline(), queue};
  auto shared = std::make_shared<GrpcCallPtr>(std::move(call));
  run(servable, request->model_spec().signature_name(), request->input(), context.inference, terms,
      [&context, shared, servable, request, record, log](absl::StatusOr<Result> result) {
        record(servable.get(), result.status());
        if (!result.ok()) return shared->Finish(result.status());
        Response response;
        *response.mutable_model_spec() =
            EchoSpec(*servable, request->model_spec().signature_name());
        *response.mutable_result() = *std::move(result);
        response.AppendToString(&(*shared)->response());
        if (context.request_log.Wants(servable->name())) {
          tfs::PredictionLog entry;
          log(&entry, *request, response);
          context.request_log.Add(servable->name(), servable->version(), std::move(entry));
        }
        shared->Finish(absl::OkStatus());
      });
}

void HandleMultiInference(ServingContext& context, GrpcCallPtr call) {
  const auto begin = SteadyClock::now();
  auto request = std::make_shared<tfs::MultiInferenceRequest>();
  if (!ParseBody(call, request.get())) return;
  tfs::ModelSpec spec;
  if (request->tasks_size() > 0) spec = request->tasks(0).model_spec();
  const auto record = [&context, begin, spec](const Servable* servable,
                                              const absl::Status& status) {
    RequestSample sample;
    sample.model = spec.name();
    sample.version = servable == nullptr ? 0 : servable->version();
    sample.signature = spec.signature_name();
    sample.api = "multi-inference";
    sample.entrypoint = "GRPC";
    sample.code = status.code();
    sample.latency = SteadyClock::now() - begin;
    context.metrics.Record(sample);
  };
  absl::StatusOr<std::shared_ptr<Servable>> found = FindServable(*context.directory.Get(), spec);
  if (!found.ok()) {
    record(nullptr, found.status());
    return call.Finish(found.status());
  }
  const std::shared_ptr<Servable> servable = *found;
  const Deadline deadline = call->deadline();
  auto shared = std::make_shared<GrpcCallPtr>(std::move(call));
  RunMultiInference(servable, *request, context.inference, deadline,
                    [&context, shared, servable, request,
                     record](absl::StatusOr<tfs::MultiInferenceResponse> response) {
                      record(servable.get(), response.status());
                      if (response.ok() && context.request_log.Wants(servable->name())) {
                        tfs::PredictionLog entry;
                        *entry.mutable_multi_inference_log()->mutable_request() = *request;
                        *entry.mutable_multi_inference_log()->mutable_response() = *response;
                        context.request_log.Add(servable->name(), servable->version(),
                                                std::move(entry));
                      }
                      Answer(*shared, response);
                    });
}

void HandleReload(ServingContext& context, GrpcCallPtr call) {
  auto request = std::make_shared<tfs::ReloadConfigRequest>();
  if (!ParseBody(call, request.get())) return;
  auto shared = std::make_shared<GrpcCallPtr>(std::move(call));
  context.background.Run([&context, shared, request] {
    absl::Status status;
    if (request->config().config_case() != tfs::ModelServerConfig::kModelConfigList) {
      status = absl::InvalidArgumentError(
          "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
          "ModelConfigList is currently supported");
    } else {
      status = context.reload(request->config());
    }
    tfs::ReloadConfigResponse response;
    response.mutable_status()->set_error_code(static_cast<tensorflow::error::Code>(status.code()));
    response.mutable_status()->set_error_message(std::string(ToStd(status.message())));
    response.AppendToString(&(*shared)->response());
    shared->Finish(status);
  });
}

// ---- health ----

namespace health = grpc::health::v1;

health::HealthCheckResponse::ServingStatus HealthOf(ServingContext& context,
                                                    const std::string& service) {
  static const std::set<std::string> kServices = {"", "tensorflow.serving.PredictionService",
                                                  "tensorflow.serving.ModelService",
                                                  "inference.GRPCInferenceService"};
  if (kServices.contains(service)) {
    return context.Ready() ? health::HealthCheckResponse::SERVING
                           : health::HealthCheckResponse::NOT_SERVING;
  }
  for (const ModelConfig& model : context.manager.Models()) {
    if (model.name != service) continue;
    return context.Ready(service) ? health::HealthCheckResponse::SERVING
                                  : health::HealthCheckResponse::NOT_SERVING;
  }
  return health::HealthCheckResponse::SERVICE_UNKNOWN;
}

void HandleCheck(ServingContext& context, GrpcCallPtr call) {
  health::HealthCheckRequest request;
  if (!ParseBody(call, &request)) return;
  health::HealthCheckResponse response;
  response.set_status(HealthOf(context, request.service()));
  if (response.status() == health::HealthCheckResponse::SERVICE_UNKNOWN) {
    return call.Finish(
        absl::NotFoundError(StrCat("no service or model of the name \"", request.service(), "\"")));
  }
  Answer(call, absl::StatusOr<health::HealthCheckResponse>(std::move(response)));
}

// Sends the status now and whenever it changes.
class WatchStream final : public net::GrpcStream {
 public:
  explicit WatchStream(ServingContext& context) : context_(context) {}
  ~WatchStream() override { StopTimer(); }

  void OnStart(GrpcCallPtr call) override {
    call_ = std::move(call);
    loop_ = call_->loop();
  }
  void OnMessage(std::string_view message) override {
    health::HealthCheckRequest request;
    if (!request.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      return call_.Finish(absl::InvalidArgumentError("not a HealthCheckRequest"));
    }
    service_ = request.service();
    Look();
  }
  void OnHalfClose() override {}
  void OnCancel() override {
    StopTimer();
    call_ = GrpcCallPtr();
  }

 private:
  static constexpr std::chrono::milliseconds kInterval{200};

  void StopTimer() {
    if (timer_ != 0) loop_->Cancel(timer_);
    timer_ = 0;
  }
  void Look() {
    timer_ = 0;
    if (!call_) return;
    const auto status = HealthOf(context_, service_);
    if (status != last_) {
      last_ = status;
      health::HealthCheckResponse response;
      response.set_status(status);
      call_->Write(response.SerializeAsString());
    }
    timer_ = loop_->After(kInterval, [this] { Look(); });
  }

  ServingContext& context_;
  GrpcCallPtr call_;
  net::EventLoop* loop_ = nullptr;
  net::EventLoop::TimerId timer_ = 0;
  std::string service_;
  int last_ = -1;
};

// ---- reflection ----

// The services, for reflection: name and the file that defines it.
constexpr std::string_view kReflectionServices[] = {
    "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService",
    "grpc.health.v1.Health", "inference.GRPCInferenceService"};

// Field numbers of grpc.reflection.v1 (and v1alpha, which are the same):
// github.com/grpc/grpc/blob/master/src/proto/grpc/reflection/v1/reflection.proto
void AppendField(std::uint32_t field, std::string_view bytes, std::string* out) {
  out->push_back(static_cast<char>(field << 3 | 2));
  std::size_t size = bytes.size();
  while (size >= 0x80) {
    out->push_back(static_cast<char>(size | 0x80));
    size >>= 7;
  }
  out->push_back(static_cast<char>(size));
  out->append(bytes);
}

std::string ReflectionError(absl::StatusCode code, std::string_view message) {
  std::string error;
  error.push_back(1 << 3);
  error.push_back(static_cast<char>(code));
  AppendField(2, message, &error);
  return error;
}

// A file with everything that it imports, dependencies last, as one FileDescriptorResponse.
std::string FileResponse(const google::protobuf::FileDescriptor* root) {
  std::vector<const google::protobuf::FileDescriptor*> files = {root};
  std::set<std::string> seen = {root->name()};
  for (std::size_t i = 0; i < files.size(); ++i) {
    for (int d = 0; d < files[i]->dependency_count(); ++d) {
      if (seen.insert(files[i]->dependency(d)->name()).second) {
        files.push_back(files[i]->dependency(d));
      }
    }
  }
  std::string out;
  for (const auto* file : files) {
    google::protobuf::FileDescriptorProto proto;
    file->CopyTo(&proto);
    AppendField(1, proto.SerializeAsString(), &out);
  }
  return out;
}

// The definitions of services have no class that anything uses; naming their tables keeps the
// linker from leaving them out.
[[gnu::used]] const void* const kLinkedServices[] = {
    &descriptor_table_tensorflow_5fserving_2fapis_2fprediction_5fservice_2eproto,
    &descriptor_table_tensorflow_5fserving_2fapis_2fmodel_5fservice_2eproto};

std::string ReflectionAnswer(std::string_view request) {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  std::string answer;
  AppendField(2, request, &answer);
  for (ProtoReader reader(request); reader.Next();) {
    const std::string name(reader.Bytes());
    const google::protobuf::FileDescriptor* file = nullptr;
    switch (reader.field()) {
      case 3:
        file = pool->FindFileByName(name);
        break;
      case 4:
        file = pool->FindFileContainingSymbol(name);
        break;
      case 7: {
        std::string list;
        for (const std::string_view service : kReflectionServices) {
          std::string entry;
          AppendField(1, service, &entry);
          AppendField(1, entry, &list);
        }
        AppendField(6, list, &answer);
        return answer;
      }
      case 5:
      case 6:
        AppendField(7,
                    ReflectionError(absl::StatusCode::kNotFound, "no message here has extensions"),
                    &answer);
        return answer;
      default:
        continue;
    }
    if (file == nullptr) {
      AppendField(7, ReflectionError(absl::StatusCode::kNotFound, StrCat(name, " is not known")),
                  &answer);
    } else {
      AppendField(4, FileResponse(file), &answer);
    }
    return answer;
  }
  AppendField(7, ReflectionError(absl::StatusCode::kInvalidArgument, "nothing was asked"), &answer);
  return answer;
}

class ReflectionStream final : public net::GrpcStream {
 public:
  void OnStart(GrpcCallPtr call) override { call_ = std::move(call); }
  void OnMessage(std::string_view message) override { call_->Write(ReflectionAnswer(message)); }
  void OnHalfClose() override { call_.Finish(absl::OkStatus()); }
  void OnCancel() override { call_ = GrpcCallPtr(); }

 private:
  GrpcCallPtr call_;
};

}  // namespace

void RegisterGrpcServices(net::GrpcServer& server, ServingContext& context,
                          GrpcServicesOptions options) {
  server.Handle("/tensorflow.serving.PredictionService/Classify", [&context](GrpcCallPtr call) {
    HandleExamples<tfs::ClassificationRequest, tfs::ClassificationResponse,
                   tfs::ClassificationResult>(
        context, std::move(call), "classify", RunClassify,
        [](tfs::PredictionLog* log, const auto& request, const auto& response) {
          *log->mutable_classify_log()->mutable_request() = request;
          *log->mutable_classify_log()->mutable_response() = response;
        });
  });
  server.Handle("/tensorflow.serving.PredictionService/Regress", [&context](GrpcCallPtr call) {
    HandleExamples<tfs::RegressionRequest, tfs::RegressionResponse, tfs::RegressionResult>(
        context, std::move(call), "regress", RunRegress,
        [](tfs::PredictionLog* log, const auto& request, const auto& response) {
          *log->mutable_regress_log()->mutable_request() = request;
          *log->mutable_regress_log()->mutable_response() = response;
        });
  });
  server.Handle("/tensorflow.serving.PredictionService/MultiInference",
                [&context](GrpcCallPtr call) { HandleMultiInference(context, std::move(call)); });
  server.Handle("/tensorflow.serving.PredictionService/GetModelMetadata",
                [&context](GrpcCallPtr call) {
                  tfs::GetModelMetadataRequest request;
                  if (!ParseBody(call, &request)) return;
                  Answer(call, GetModelMetadata(context, request));
                });
  server.Handle("/tensorflow.serving.ModelService/GetModelStatus", [&context](GrpcCallPtr call) {
    tfs::GetModelStatusRequest request;
    if (!ParseBody(call, &request)) return;
    if (!request.has_model_spec()) {
      return call.Finish(absl::InvalidArgumentError("Missing ModelSpec"));
    }
    Answer(call, GetModelStatus(context, request.model_spec()));
  });
  server.Handle("/tensorflow.serving.ModelService/HandleReloadConfigRequest",
                [&context](GrpcCallPtr call) { HandleReload(context, std::move(call)); });
  if (options.health) {
    server.Handle("/grpc.health.v1.Health/Check",
                  [&context](GrpcCallPtr call) { HandleCheck(context, std::move(call)); });
    server.HandleStream("/grpc.health.v1.Health/Watch",
                        [&context] { return std::make_unique<WatchStream>(context); });
  }
  for (const char* version : {"v1", "v1alpha"}) {
    server.HandleStream(
        StrCat("/grpc.reflection.", version, ".ServerReflection/ServerReflectionInfo"),
        [] { return std::make_unique<ReflectionStream>(); });
  }
}

}  // namespace takt::serving
