#include "serving/api/rest_api.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <charconv>

#include "absl/strings/match.h"
#include "base/gzip.h"
#include "serving/api/json.h"
#include "serving/api/rest_codec.h"
#include "serving/api/rest_exchange.h"
#include "serving/api/tensor_proto.h"
#include "serving/api/v2_api.h"

namespace takt::serving {
namespace {

namespace tfs = tensorflow::serving;
using SteadyClock = std::chrono::steady_clock;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// %41 -> A; what is no escape stays.
std::string UrlDecoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexValue(text[i + 1]) >= 0 &&
        HexValue(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(HexValue(text[i + 1]) * 16 + HexValue(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// Takes `prefix` off the front of `text`, whatever the case of its letters.
bool TakePrefix(std::string_view prefix, std::string_view* text) {
  if (!absl::StartsWithIgnoreCase(ToAbsl(*text), ToAbsl(prefix))) return false;
  text->remove_prefix(prefix.size());
  return true;
}

// The longest front of `text` without '/' or ':'.
std::string_view TakeSegment(std::string_view* text) {
  const std::string_view segment = text->substr(0, text->find_first_of("/:"));
  text->remove_prefix(segment.size());
  return segment;
}

bool IsDigits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// "/versions/N" or "/labels/L" at the front, if one of them is there and well-formed.
void TakeVersion(std::string_view* rest, RestRoute* route) {
  std::string_view after = *rest;
  if (TakePrefix("/versions/", &after)) {
    const std::string_view digits = TakeSegment(&after);
    if (!IsDigits(digits)) return;
    route->version = std::string(digits);
    *rest = after;
  } else if (TakePrefix("/labels/", &after)) {
    const std::string_view label = TakeSegment(&after);
    if (label.empty()) return;
    route->label = std::string(label);
    *rest = after;
  }
}

absl::StatusOr<tfs::ModelSpec> SpecOf(const RestRoute& route) {
  tfs::ModelSpec spec;
  spec.set_name(UrlDecoded(route.model));
  if (!route.version.empty()) {
    std::int64_t version = 0;
    const char* end = route.version.data() + route.version.size();
    if (std::from_chars(route.version.data(), end, version).ec != std::errc()) {
      return absl::InvalidArgumentError(
          StrCat("Failed to convert version: ", route.version, " to numeric."));
    }
    spec.mutable_version()->set_value(version);
  } else if (!route.label.empty()) {
    spec.set_version_label(UrlDecoded(route.label));
  }
  return spec;
}

absl::StatusOr<std::string> MessageJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    return absl::InternalError(
        StrCat("Failed to convert proto to json. Error: ", status.ToString()));
  }
  return json;
}

bool AcceptsGzip(const net::HttpRequest& request) {
  return request.Header("accept-encoding").find("gzip") != std::string_view::npos;
}

void LogExamples(ServingContext& context, const Servable& servable, std::string_view signature,
                 const tfs::Input& input, const tfs::ClassificationResult& result) {
  tfs::PredictionLog log;
  tfs::ClassifyLog* out = log.mutable_classify_log();
  *out->mutable_request()->mutable_model_spec() = EchoSpec(servable, signature);
  *out->mutable_request()->mutable_input() = input;
  *out->mutable_response()->mutable_model_spec() = out->request().model_spec();
  *out->mutable_response()->mutable_result() = result;
  context.request_log.Add(servable.name(), servable.version(), std::move(log));
}

void LogExamples(ServingContext& context, const Servable& servable, std::string_view signature,
                 const tfs::Input& input, const tfs::RegressionResult& result) {
  tfs::PredictionLog log;
  tfs::RegressLog* out = log.mutable_regress_log();
  *out->mutable_request()->mutable_model_spec() = EchoSpec(servable, signature);
  *out->mutable_request()->mutable_input() = input;
  *out->mutable_response()->mutable_model_spec() = out->request().model_spec();
  *out->mutable_response()->mutable_result() = result;
  context.request_log.Add(servable.name(), servable.version(), std::move(log));
}

void RunPredict(const ExchangePtr& exchange, const std::shared_ptr<Servable>& servable,
                const Signature* signature, RestInputs inputs) {
  RunRequest run;
  run.signature = signature;
  run.inputs = std::move(inputs.tensors);
  run.deadline = exchange->deadline();
  run.queue = Exchange::QueueOf(exchange);
  std::vector<Tensor> logged;
  if (exchange->context.request_log.Wants(servable->name())) logged = run.inputs;
  servable->Run(std::move(run),
                [exchange, servable, signature, format = inputs.format,
                 logged = std::move(logged)](const absl::StatusOr<std::vector<Tensor>>& outputs) {
                  if (!outputs.ok()) return exchange->Finish(outputs.status());
                  exchange->Finish(RestPredictAnswer(signature->outputs(), *outputs, format));
                  if (!logged.empty())
                    LogPredict(exchange->context, *servable, *signature, logged, *outputs);
                });
}

void Predict(const ExchangePtr& exchange, const tfs::ModelSpec& spec, std::string_view body) {
  const absl::StatusOr<JsonDocument> document = JsonDocument::Parse(body);
  if (!document.ok()) return exchange->Finish(document.status());
  const absl::StatusOr<std::string> name = RestSignatureName(*document);
  if (!name.ok()) return exchange->Finish(name.status());
  exchange->signature = *name;
  const absl::StatusOr<std::shared_ptr<Servable>> servable =
      FindServable(*exchange->context.directory.Get(), spec);
  if (!servable.ok()) return exchange->Finish(servable.status());
  exchange->version = (*servable)->version();
  const Signature* signature = (*servable)->FindSignature(*name);
  if (signature == nullptr) {
    return exchange->Finish(absl::InvalidArgumentError(
        StrCat("Serving signature name: \"", name->empty() ? kDefaultSignatureName : *name,
               "\" not found in signature def")));
  }
  absl::StatusOr<RestInputs> inputs = RestPredictInputs(*document, signature->inputs(), *name);
  if (!inputs.ok()) return exchange->Finish(inputs.status());
  if (exchange->context.inference.check_method_name) {
    const absl::Status checked = CheckPredictMethod(*signature);
    if (!checked.ok()) return exchange->Finish(checked);
  }
  RunPredict(exchange, *servable, signature, *std::move(inputs));
}

template <typename Result, typename Run, typename Write>
void Examples(const ExchangePtr& exchange, const tfs::ModelSpec& spec, std::string_view body,
              const Run& run, const Write& write) {
  const absl::StatusOr<JsonDocument> document = JsonDocument::Parse(body);
  if (!document.ok()) return exchange->Finish(document.status());
  const absl::StatusOr<std::string> name = RestSignatureName(*document);
  if (!name.ok()) return exchange->Finish(name.status());
  exchange->signature = *name;
  const absl::StatusOr<tfs::Input> input = RestExamples(*document);
  if (!input.ok()) return exchange->Finish(input.status());
  absl::StatusOr<std::shared_ptr<Servable>> found =
      FindServable(*exchange->context.directory.Get(), spec);
  if (!found.ok()) return exchange->Finish(found.status());
  const std::shared_ptr<Servable>& servable = *found;
  exchange->version = servable->version();
  std::shared_ptr<const tfs::Input> logged;
  if (exchange->context.request_log.Wants(servable->name())) {
    logged = std::make_shared<const tfs::Input>(*input);
  }
  run(servable, *name, *input, exchange->context.inference,
      InferenceTerms{exchange->deadline(), Exchange::QueueOf(exchange)},
      [exchange, write, servable, logged](absl::StatusOr<Result> result) {
        if (!result.ok()) return exchange->Finish(result.status());
        exchange->Finish(write(*result));
        if (logged == nullptr) return;
        LogExamples(exchange->context, *servable, exchange->signature, *logged, *result);
      });
}

absl::StatusOr<std::string> StatusJson(ServingContext& context, const tfs::ModelSpec& spec) {
  TAKT_ASSIGN_OR_RETURN(const tfs::GetModelStatusResponse response, GetModelStatus(context, spec));
  return MessageJson(response);
}

absl::StatusOr<std::string> MetadataJson(ServingContext& context, const tfs::ModelSpec& spec) {
  TAKT_ASSIGN_OR_RETURN(const std::shared_ptr<Servable> servable,
                        FindServable(*context.directory.Get(), spec));
  TAKT_ASSIGN_OR_RETURN(const tfs::SignatureDefMap map, SignatureDefs(*servable));
  tfs::ModelSpec resolved;
  resolved.set_name(servable->name());
  resolved.mutable_version()->set_value(servable->version());
  TAKT_ASSIGN_OR_RETURN(const std::string spec_json, MessageJson(resolved));
  TAKT_ASSIGN_OR_RETURN(const std::string map_json, MessageJson(map));
  return StrCat("{\n\"model_spec\":", spec_json, ",\n\"metadata\": {\"signature_def\": ", map_json,
                "}\n}\n");
}

}  // namespace

RestRoute RouteRest(std::string_view method, std::string_view target) {
  RestRoute route;
  std::string_view rest = target;
  if (!TakePrefix("/v1/models", &rest)) return route;
  if (method == "POST") {
    if (rest.empty() || rest.front() != '/') return route;
    rest.remove_prefix(1);
    const std::string_view model = TakeSegment(&rest);
    TakeVersion(&rest, &route);
    if (model.empty() || rest.empty() || rest.front() != ':') return route;
    rest.remove_prefix(1);
    // The verb alone keeps its case, as in the original.
    if (rest == "predict") route.kind = RestRoute::Kind::kPredict;
    if (rest == "classify") route.kind = RestRoute::Kind::kClassify;
    if (rest == "regress") route.kind = RestRoute::Kind::kRegress;
    route.model = std::string(model);
    return route;
  }
  if (method != "GET") return route;
  if (rest.size() > 1 && rest.front() == '/' && rest[1] != '/' && rest[1] != ':') {
    rest.remove_prefix(1);
    route.model = std::string(TakeSegment(&rest));
  }
  TakeVersion(&rest, &route);
  if (rest.empty()) {
    route.kind = RestRoute::Kind::kStatus;
  } else if (absl::EqualsIgnoreCase(ToAbsl(rest), "/metadata")) {
    route.kind = rest == "/metadata" ? RestRoute::Kind::kMetadata : RestRoute::Kind::kStatus;
  }
  return route;
}

RestApi::RestApi(RestOptions options, ServingContext& context)
    : options_(std::move(options)), context_(context) {}

void RestApi::Handle(net::HttpRequest request, std::shared_ptr<net::HttpResponder> responder) {
  auto exchange = std::make_shared<Exchange>(context_, options_, std::move(responder));
  exchange->gzip = AcceptsGzip(request);
  exchange->cors = options_.cors && !request.Header("origin").empty();
  if (options_.cors && request.method == "OPTIONS") {
    net::HttpResponse response;
    response.headers = {{"Access-Control-Allow-Origin", "*"},
                        {"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
                        {"Access-Control-Allow-Headers", "Content-Type, Content-Encoding"}};
    return exchange->responder->Send(std::move(response));
  }
  if (options_.prometheus && request.path == options_.prometheus_path) {
    return exchange->SendBody(200, context_.metrics.Expose(), "text/plain");
  }
  std::string_view target = request.target;
  if (target == "/v2" || target.starts_with("/v2/")) {
    return HandleV2(exchange, std::move(request));
  }
  if (!TakePrefix("/v1/", &target)) {
    return exchange->SendBody(404, JsonError(StrCat("Not found: ", request.path)));
  }

  const RestRoute route = RouteRest(request.method, request.target);
  if (route.kind == RestRoute::Kind::kMalformed) {
    return exchange->Finish(absl::InvalidArgumentError(
        StrCat("Malformed request: ", request.method, " ", request.target)));
  }
  const absl::StatusOr<tfs::ModelSpec> spec = SpecOf(route);
  if (!spec.ok()) return exchange->Finish(spec.status());
  std::string body = std::move(request.body);
  if (request.Header("content-encoding") == "gzip") {
    absl::StatusOr<std::string> inflated = Gunzip(body, kMaxInflatedBodyBytes);
    if (!inflated.ok()) return exchange->Finish(inflated.status());
    body = *std::move(inflated);
  }
  exchange->model = spec->name();
  switch (route.kind) {
    case RestRoute::Kind::kPredict:
      exchange->api = "predict";
      return Predict(exchange, *spec, body);
    case RestRoute::Kind::kClassify:
      exchange->api = "classify";
      return Examples<tfs::ClassificationResult>(exchange, *spec, body, RunClassify,
                                                 RestClassifyAnswer);
    case RestRoute::Kind::kRegress:
      exchange->api = "regress";
      return Examples<tfs::RegressionResult>(exchange, *spec, body, RunRegress, RestRegressAnswer);
    case RestRoute::Kind::kStatus:
      if (route.model.empty()) {
        return exchange->Finish(absl::InvalidArgumentError("Missing model name in request."));
      }
      return exchange->Finish(StatusJson(context_, *spec));
    case RestRoute::Kind::kMetadata:
      if (route.model.empty()) {
        return exchange->Finish(absl::InvalidArgumentError("Missing model name in request."));
      }
      return exchange->Finish(MetadataJson(context_, *spec));
    case RestRoute::Kind::kMalformed:
      return;
  }
}

}  // namespace takt::serving
