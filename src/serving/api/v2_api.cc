#include "serving/api/v2_api.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/gzip.h"
#include "serving/api/json.h"
#include "serving/api/v2_codec.h"

namespace takt::serving {
namespace {

using net::GrpcCallPtr;

constexpr std::string_view kServerName = "takt-serving";
constexpr std::string_view kPlatform = "tensorflow_savedmodel";
constexpr const char* kExtensions[] = {"binary_tensor_data", "model_repository"};

// `version` "" = the latest.
absl::StatusOr<std::shared_ptr<Servable>> Find(const ServingContext& context,
                                               std::string_view model, std::string_view version) {
  std::optional<std::int64_t> number;
  if (!version.empty()) {
    std::int64_t parsed = 0;
    if (!absl::SimpleAtoi(ToAbsl(version), &parsed)) {
      return absl::InvalidArgumentError(StrCat("version \"", version, "\" is not a whole number"));
    }
    number = parsed;
  }
  return context.directory.Get()->Find(model, number, "");
}

bool ModelReady(const ServingContext& context, std::string_view model, std::string_view version) {
  return !context.draining.load() && Find(context, model, version).ok();
}

// One inference after its request was read: what HTTP and gRPC share. `done` gets the tensors of
// all outputs, or why there are none.
struct Inference {
  std::shared_ptr<Servable> servable;
  const Signature* signature = nullptr;
  V2Request request;
  std::vector<std::size_t> wanted;
  std::vector<Tensor> logged;  // the inputs of one that is sampled for the request log
};
using TensorsDone =
    std::function<void(std::shared_ptr<Inference>, absl::StatusOr<std::vector<Tensor>>)>;

absl::StatusOr<std::shared_ptr<Inference>> Prepare(const ServingContext& context,
                                                   std::string_view model, std::string_view version,
                                                   V2Request request) {
  auto inference = std::make_shared<Inference>();
  TAKT_ASSIGN_OR_RETURN(inference->servable, Find(context, model, version));
  inference->signature = inference->servable->FindSignature(request.signature);
  if (inference->signature == nullptr) {
    return absl::InvalidArgumentError(
        StrCat("Serving signature name: \"",
               request.signature.empty() ? kDefaultSignatureName : request.signature,
               "\" not found in signature def"));
  }
  inference->request = std::move(request);
  TAKT_ASSIGN_OR_RETURN(inference->wanted, V2Outputs(*inference->signature, inference->request));
  return inference;
}

void Run(ServingContext& context, std::shared_ptr<Inference> inference, InferenceTerms terms,
         TensorsDone done) {
  absl::StatusOr<std::vector<Tensor>> inputs = V2Inputs(*inference->signature, inference->request);
  if (!inputs.ok()) return done(inference, inputs.status());
  inference->request.inputs.clear();
  RunRequest run;
  run.signature = inference->signature;
  run.inputs = *std::move(inputs);
  run.deadline = terms.deadline;
  run.queue = std::move(terms.queue);
  Servable& servable = *inference->servable;
  if (context.request_log.Wants(servable.name())) inference->logged = run.inputs;
  servable.Run(std::move(run), [&context, inference = std::move(inference), done = std::move(done)](
                                   const absl::StatusOr<std::vector<Tensor>>& outputs) {
    done(inference, outputs);
    if (!outputs.ok() || inference->logged.empty()) return;
    LogPredict(context, *inference->servable, *inference->signature, inference->logged, *outputs);
  });
}

inference::ModelMetadataResponse MetadataOf(const ServingContext& context,
                                            const Servable& servable) {
  inference::ModelMetadataResponse out;
  out.set_name(servable.name());
  out.set_platform(std::string(kPlatform));
  const auto snapshot = context.directory.Get();
  if (const auto it = snapshot->models.find(servable.name()); it != snapshot->models.end()) {
    for (const auto& [version, unused] : it->second.versions) out.add_versions(StrCat(version));
  }
  const Signature* signature = servable.FindSignature("");
  // A model without the default signature is described by its first one.
  if (signature == nullptr && !servable.signatures().empty()) {
    signature = servable.signatures().front().get();
  }
  if (signature == nullptr) return out;
  const auto fill = [](const std::vector<TensorInfo>& infos, auto* list) {
    for (const TensorInfo& info : infos) {
      auto* tensor = list->Add();
      tensor->set_name(info.alias);
      tensor->set_datatype(std::string(V2DataType(info.dtype)));
      for (const std::int64_t dim : info.dims) tensor->add_shape(dim);
    }
  };
  fill(signature->inputs(), out.mutable_inputs());
  fill(signature->outputs(), out.mutable_outputs());
  return out;
}

// ---- HTTP ----

std::string TensorsJson(
    const google::protobuf::RepeatedPtrField<inference::ModelMetadataResponse::TensorMetadata>&
        tensors) {
  std::string out = "[";
  for (const auto& tensor : tensors) {
    out.append(out.size() > 1 ? ",{\"name\":" : "{\"name\":");
    AppendJsonString(tensor.name(), &out);
    absl::StrAppend(&out, ",\"datatype\":\"", tensor.datatype(), "\",\"shape\":[");
    for (int i = 0; i < tensor.shape_size(); ++i) {
      absl::StrAppend(&out, i > 0 ? "," : "", tensor.shape(i));
    }
    out.append("]}");
  }
  return out + "]";
}

std::string MetadataJson(const inference::ModelMetadataResponse& metadata) {
  std::string out = "{\"name\":";
  AppendJsonString(metadata.name(), &out);
  out.append(",\"versions\":[");
  for (int i = 0; i < metadata.versions_size(); ++i) {
    absl::StrAppend(&out, i > 0 ? ",\"" : "\"", metadata.versions(i), "\"");
  }
  absl::StrAppend(&out, "],\"platform\":\"", metadata.platform(),
                  "\",\"inputs\":", TensorsJson(metadata.inputs()),
                  ",\"outputs\":", TensorsJson(metadata.outputs()), "}");
  return out;
}

std::string ServerMetadataJson(const ServingContext& context) {
  std::string out = StrCat("{\"name\":\"", kServerName, "\",\"version\":\"tensorflow ",
                           context.engine_version, "\",\"extensions\":[");
  for (const char* extension : kExtensions) {
    absl::StrAppend(&out, out.back() == '[' ? "\"" : ",\"", extension, "\"");
  }
  return out + "]}";
}

// Which models are not ready, and why; so that whoever waits knows what for.
std::string ReadyJson(const ServingContext& context) {
  std::string out = StrCat("{\"ready\":", context.Ready() ? "true" : "false", ",\"not_ready\":{");
  for (const auto& [model, why] : context.manager.NotReady()) {
    if (out.back() != '{') out.push_back(',');
    AppendJsonString(model, &out);
    out.push_back(':');
    AppendJsonString(why, &out);
  }
  return out + "}}";
}

void Infer(const ExchangePtr& exchange, const net::HttpRequest& request, std::string_view model,
           std::string_view version) {
  exchange->api = "predict";
  exchange->model = std::string(model);
  std::optional<std::size_t> json_bytes;
  const std::string_view header = request.Header("inference-header-content-length");
  if (!header.empty()) {
    std::size_t parsed = 0;
    if (!absl::SimpleAtoi(ToAbsl(header), &parsed)) {
      return exchange->Finish(absl::InvalidArgumentError(
          StrCat("Inference-Header-Content-Length: expected a length, got \"", header, "\"")));
    }
    json_bytes = parsed;
  }
  std::string inflated;
  std::string_view body = request.body;
  if (request.Header("content-encoding") == "gzip") {
    absl::StatusOr<std::string> plain = Gunzip(body, kMaxInflatedBodyBytes);
    if (!plain.ok()) return exchange->Finish(plain.status());
    inflated = *std::move(plain);
    body = inflated;
  }
  absl::StatusOr<V2Request> parsed = V2RequestFromHttp(body, json_bytes);
  if (!parsed.ok()) return exchange->Finish(parsed.status());
  exchange->signature = parsed->signature;
  absl::StatusOr<std::shared_ptr<Inference>> inference =
      Prepare(exchange->context, model, version, *std::move(parsed));
  if (!inference.ok()) return exchange->Finish(inference.status());
  exchange->version = (*inference)->servable->version();
  Run(exchange->context, *inference,
      InferenceTerms{exchange->deadline(), Exchange::QueueOf(exchange)},
      [exchange](const std::shared_ptr<Inference>& done,
                 const absl::StatusOr<std::vector<Tensor>>& outputs) {
        if (!outputs.ok()) return exchange->Finish(outputs.status());
        absl::StatusOr<V2HttpAnswer> answer = V2AnswerForHttp(
            *done->servable, *done->signature, done->request, done->wanted, *outputs);
        if (!answer.ok()) return exchange->Finish(answer.status());
        if (answer->json_bytes == answer->body.size()) {
          return exchange->Finish(std::move(answer->body));
        }
        exchange->Count(absl::StatusCode::kOk);
        exchange->SendBody(200, std::move(answer->body), "application/octet-stream",
                           {{"Inference-Header-Content-Length", StrCat(answer->json_bytes)}});
      });
}

std::string_view StateName(VersionState state) {
  switch (state) {
    case VersionState::kAvailable:
      return "READY";
    case VersionState::kLoading:
      return "LOADING";
    case VersionState::kUnloading:
      return "UNLOADING";
    case VersionState::kStart:
    case VersionState::kEnd:
      break;
  }
  return "UNAVAILABLE";
}

std::string IndexJson(const ServingContext& context) {
  std::string out = "[";
  for (const ModelConfig& model : context.manager.Models()) {
    const auto versions = context.manager.Status(model.name);
    const auto add = [&](std::string_view version, std::string_view state,
                         std::string_view reason) {
      out.append(out.size() > 1 ? ",{\"name\":" : "{\"name\":");
      AppendJsonString(model.name, &out);
      absl::StrAppend(&out, ",\"version\":\"", ToAbsl(version), "\",\"state\":\"", ToAbsl(state),
                      "\",\"reason\":");
      AppendJsonString(reason, &out);
      out.push_back('}');
    };
    if (!versions.ok()) add("", "UNAVAILABLE", ToStd(versions.status().message()));
    if (!versions.ok()) continue;
    for (const VersionStatus& v : *versions) {
      add(StrCat(v.version), StateName(v.state), ToStd(v.status.message()));
    }
  }
  return out + "]";
}

// {"parameters": {"base_path": "/models/m"}}: needed for a model that is not configured yet.
absl::Status LoadModel(ServingContext& context, const std::string& name, std::string_view body) {
  std::string base_path;
  if (!body.empty()) {
    TAKT_ASSIGN_OR_RETURN(const JsonDocument document, JsonDocument::Parse(body));
    const JsonValue* parameters =
        document.root().IsObject() ? document.root().Member("parameters") : nullptr;
    const JsonValue* path =
        parameters != nullptr && parameters->IsObject() ? parameters->Member("base_path") : nullptr;
    if (path != nullptr && path->IsString()) base_path = std::string(path->AsString());
  }
  std::vector<ModelConfig> models = context.manager.Models();
  const auto it = std::find_if(models.begin(), models.end(),
                               [&](const ModelConfig& m) { return m.name == name; });
  if (it == models.end() && (base_path.empty() || base_path.front() != '/')) {
    return absl::InvalidArgumentError(
        StrCat("model \"", name,
               "\" is not configured: parameter base_path must say where its versions lie, as an "
               "absolute path"));
  }
  if (it == models.end()) {
    ModelConfig& added = models.emplace_back();
    added.name = name;
    added.base_path = base_path;
  } else if (!base_path.empty()) {
    it->base_path = base_path;
  }
  const absl::Status status = context.set_models(models);
  // Others that do not serve are not this call's failure.
  return context.Ready(name) && status.code() == absl::StatusCode::kUnknown ? absl::OkStatus()
                                                                            : status;
}

absl::Status UnloadModel(ServingContext& context, const std::string& name) {
  std::vector<ModelConfig> models = context.manager.Models();
  if (std::erase_if(models, [&](const ModelConfig& m) { return m.name == name; }) == 0) {
    return absl::NotFoundError(StrCat("model \"", name, "\" is not configured"));
  }
  const absl::Status status = context.set_models(models);
  return status.code() == absl::StatusCode::kUnknown ? absl::OkStatus() : status;
}

// ---- gRPC ----

template <typename Request, typename Respond>
net::GrpcHandler Unary(const Respond& respond) {
  return [respond](GrpcCallPtr call) {
    Request request;
    const std::string_view body = call->body();
    if (!request.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
      return call.Finish(absl::InvalidArgumentError(
          StrCat(call->method(), ": the request is not a ", request.GetTypeName())));
    }
    const auto response = respond(request);
    if (response.ok()) response->AppendToString(&call->response());
    call.Finish(response.status());
  };
}

void HandleModelInfer(ServingContext& context, GrpcCallPtr call) {
  const auto begin = std::chrono::steady_clock::now();
  inference::ModelInferRequest message;
  const std::string_view body = call->body();
  if (!message.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
    return call.Finish(absl::InvalidArgumentError("the request is not a ModelInferRequest"));
  }
  const auto queue = std::make_shared<std::chrono::nanoseconds>(0);
  const auto record = [&context, begin, queue](std::string_view model, std::int64_t version,
                                               std::string_view signature, absl::StatusCode code) {
    RequestSample sample;
    sample.model = model;
    sample.version = version;
    sample.signature = signature;
    sample.api = "predict";
    sample.entrypoint = "GRPC";
    sample.code = code;
    sample.latency = std::chrono::steady_clock::now() - begin;
    sample.queue = *queue;
    context.metrics.Record(sample);
  };
  absl::StatusOr<V2Request> request = V2RequestFromProto(message);
  absl::StatusOr<std::shared_ptr<Inference>> inference =
      request.ok()
          ? Prepare(context, message.model_name(), message.model_version(), *std::move(request))
          : request.status();
  if (!inference.ok()) {
    record(message.model_name(), 0, "", inference.status().code());
    return call.Finish(inference.status());
  }
  InferenceTerms terms{call->deadline(), queue};
  auto shared = std::make_shared<GrpcCallPtr>(std::move(call));
  Run(context, *inference, std::move(terms),
      [record, shared](const std::shared_ptr<Inference>& done,
                       const absl::StatusOr<std::vector<Tensor>>& outputs) {
        absl::StatusOr<inference::ModelInferResponse> response =
            outputs.ok() ? V2AnswerForProto(*done->servable, *done->signature, done->request,
                                            done->wanted, *outputs)
                         : outputs.status();
        record(done->servable->name(), done->servable->version(), done->signature->name(),
               response.status().code());
        if (response.ok()) response->AppendToString(&(*shared)->response());
        shared->Finish(response.status());
      });
}

}  // namespace

void HandleV2(const ExchangePtr& exchange, net::HttpRequest request) {
  ServingContext& context = exchange->context;
  std::vector<std::string> parts =
      absl::StrSplit(request.path.substr(1), '/');  // "v2", "models", "m", "infer"
  const bool get = request.method == "GET";
  const bool post = request.method == "POST";
  const auto is = [&](std::initializer_list<std::string_view> pattern) {
    return parts.size() == pattern.size() &&
           std::equal(parts.begin(), parts.end(), pattern.begin(),
                      [](const std::string& part, std::string_view p) {
                        return p == "*" ? !part.empty() : part == p;
                      });
  };
  const auto ready = [&](bool value) {
    exchange->SendBody(value ? 200 : 503, StrCat("{\"ready\":", value ? "true" : "false", "}"));
  };
  if (get && is({"v2"})) return exchange->SendBody(200, ServerMetadataJson(context));
  if (get && is({"v2", "health", "live"})) return exchange->SendBody(200, "{\"live\":true}");
  if (get && is({"v2", "health", "ready"})) {
    return exchange->SendBody(context.Ready() ? 200 : 503, ReadyJson(context));
  }
  if (post && is({"v2", "repository", "index"})) {
    return exchange->SendBody(200, IndexJson(context));
  }
  const bool load = is({"v2", "repository", "models", "*", "load"});
  if (post && (load || is({"v2", "repository", "models", "*", "unload"}))) {
    return context.background.Run(
        [exchange, &context, load, name = parts[3], body = std::move(request.body)] {
          const absl::Status status =
              load ? LoadModel(context, name, body) : UnloadModel(context, name);
          exchange->Finish(status.ok() ? absl::StatusOr<std::string>("{}") : status);
        });
  }
  // models/M[/versions/N][/ready|/infer]
  if (parts.size() >= 3 && parts[1] == "models") {
    const std::string model = parts[2];
    std::string version;
    std::size_t next = 3;
    if (parts.size() >= 5 && parts[3] == "versions") {
      version = parts[4];
      next = 5;
    }
    const std::string_view verb = next < parts.size() ? std::string_view(parts[next]) : "";
    const bool last = parts.size() <= next + 1;
    if (last && post && verb == "infer") return Infer(exchange, request, model, version);
    if (last && get && verb == "ready") return ready(ModelReady(context, model, version));
    if (last && get && verb.empty() && parts.size() == next) {
      const auto servable = Find(context, model, version);
      if (!servable.ok()) return exchange->Finish(servable.status());
      return exchange->Finish(MetadataJson(MetadataOf(context, **servable)));
    }
  }
  exchange->SendBody(404, JsonError(StrCat("Not found: ", request.method, " ", request.path)));
}

void RegisterV2(net::GrpcServer& server, ServingContext& context) {
  const auto path = [](std::string_view method) {
    return StrCat("/inference.GRPCInferenceService/", method);
  };
  namespace v2 = inference;
  server.Handle(path("ServerLive"), Unary<v2::ServerLiveRequest>([](const auto&) {
                  v2::ServerLiveResponse response;
                  response.set_live(true);
                  return absl::StatusOr<v2::ServerLiveResponse>(response);
                }));
  server.Handle(path("ServerReady"), Unary<v2::ServerReadyRequest>([&context](const auto&) {
                  v2::ServerReadyResponse response;
                  response.set_ready(context.Ready());
                  return absl::StatusOr<v2::ServerReadyResponse>(response);
                }));
  server.Handle(path("ModelReady"), Unary<v2::ModelReadyRequest>([&context](const auto& request) {
                  v2::ModelReadyResponse response;
                  response.set_ready(ModelReady(context, request.name(), request.version()));
                  return absl::StatusOr<v2::ModelReadyResponse>(response);
                }));
  server.Handle(path("ServerMetadata"), Unary<v2::ServerMetadataRequest>([&context](const auto&) {
                  v2::ServerMetadataResponse response;
                  response.set_name(std::string(kServerName));
                  response.set_version(StrCat("tensorflow ", context.engine_version));
                  for (const char* extension : kExtensions) response.add_extensions(extension);
                  return absl::StatusOr<v2::ServerMetadataResponse>(response);
                }));
  server.Handle(path("ModelMetadata"),
                Unary<v2::ModelMetadataRequest>(
                    [&context](const auto& request) -> absl::StatusOr<v2::ModelMetadataResponse> {
                      TAKT_ASSIGN_OR_RETURN(const std::shared_ptr<Servable> servable,
                                            Find(context, request.name(), request.version()));
                      return MetadataOf(context, *servable);
                    }));
  server.Handle(path("ModelInfer"),
                [&context](GrpcCallPtr call) { HandleModelInfer(context, std::move(call)); });
}

}  // namespace takt::serving
