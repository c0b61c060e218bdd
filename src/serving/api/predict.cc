#include "serving/api/predict.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/proto_wire.h"
#include "serving/api/tensor_wire.h"

namespace takt::serving {
namespace {

using Clock = std::chrono::steady_clock;

// Fields of tensorflow.serving.PredictRequest, PredictResponse and ModelSpec.
constexpr int kRequestSpec = 1;
constexpr int kRequestInputs = 2;
constexpr int kRequestFilter = 3;
constexpr int kResponseOutputs = 1;
constexpr int kResponseSpec = 2;

struct ModelSpec {
  std::string_view name;
  std::optional<std::int64_t> version;
  std::string_view label;
  std::string_view signature;
};

bool ReadModelSpec(std::string_view bytes, ModelSpec& spec) {
  ProtoReader r(bytes);
  while (r.Next()) {
    switch (r.field()) {
      case 1:
        spec.name = r.Bytes();
        break;
      case 2: {  // google.protobuf.Int64Value
        spec.version = 0;
        spec.label = {};
        ProtoReader value(r.Bytes());
        while (value.Next()) {
          if (value.field() == 1) spec.version = value.Int64();
        }
        if (!value.ok()) return false;
        break;
      }
      case 3:
        spec.signature = r.Bytes();
        break;
      case 4:
        spec.label = r.Bytes();
        spec.version.reset();
        break;
      default:
        break;
    }
  }
  return r.ok();
}

struct Entry {
  std::string_view alias;
  std::string_view tensor;
};

bool ReadEntry(std::string_view bytes, Entry& entry) {
  ProtoReader r(bytes);
  while (r.Next()) {
    if (r.field() == 1) entry.alias = r.Bytes();
    if (r.field() == 2) entry.tensor = r.Bytes();
  }
  return r.ok();
}

std::string SetText(const std::set<std::string_view>& names) {
  std::string text = "{";
  for (std::string_view name : names) {
    if (text.size() > 1) text += ',';
    text += name;
  }
  return text + "}";
}

std::set<std::string_view> AliasesOf(const std::vector<TensorInfo>& infos) {
  std::set<std::string_view> names;
  for (const TensorInfo& info : infos) names.insert(info.alias);
  return names;
}

absl::Status WrongInputs(const Signature& signature, const std::vector<Entry>& entries) {
  const std::set<std::string_view> wanted = AliasesOf(signature.inputs());
  std::set<std::string_view> got;
  for (const Entry& entry : entries) got.insert(entry.alias);
  std::set<std::string_view> extra;
  std::set<std::string_view> missing;
  std::set_difference(got.begin(), got.end(), wanted.begin(), wanted.end(),
                      std::inserter(extra, extra.end()));
  std::set_difference(wanted.begin(), wanted.end(), got.begin(), got.end(),
                      std::inserter(missing, missing.end()));
  return absl::InvalidArgumentError(StrCat("input size does not match signature: ", got.size(),
                                           "!=", wanted.size(), " len(", SetText(got), ") != len(",
                                           SetText(wanted), "). Sent extra: ", SetText(extra),
                                           ". Missing but required: ", SetText(missing), "."));
}

// What requests with the same model_spec bytes have in common, found once and kept for as long as
// no other version is published.
struct Route {
  std::string spec_bytes;
  std::uint64_t generation = 0;
  // Alive while the snapshot of the turn is held, whose generation this is.
  Servable* servable = nullptr;
  const Signature* signature = nullptr;
  std::string answer_spec;  // PredictResponse.model_spec, with its tag
};

// What a loop keeps between requests.
class LoopState final : public net::EventLoop::TurnEnd {
 public:
  LoopState(net::EventLoop* loop, const ServableDirectory& directory)
      : loop_(loop), directory_(directory) {}

  // The snapshot that this turn's requests see.
  const ServableSnapshot& Snapshot() {
    if (snapshot_ == nullptr) {
      generation_ = directory_.generation();
      snapshot_ = directory_.Get();
      loop_->AtTurnEnd(this, net::EventLoop::Phase::kWork);
    }
    return *snapshot_;
  }
  std::uint64_t generation() const { return generation_; }
  void OnTurnEnd() override { snapshot_.reset(); }

  Route route;
  std::vector<Entry> entries;
  std::vector<std::string_view> filter;
  std::vector<WireTensor> wire;

 private:
  net::EventLoop* const loop_;
  const ServableDirectory& directory_;
  std::shared_ptr<const ServableSnapshot> snapshot_;
  std::uint64_t generation_ = 0;
};

class PredictService {
 public:
  PredictService(const ServableDirectory& directory, PredictOptions options,
                 PredictObserver* observer, const std::vector<net::EventLoop*>& loops)
      : options_(options), observer_(observer) {
    for (net::EventLoop* loop : loops) {
      loops_.emplace_back(loop, std::make_unique<LoopState>(loop, directory));
    }
  }

  void Handle(net::GrpcCallPtr call) {
    LoopState& state = StateOf(call->loop());
    const Clock::time_point begin = Clock::now();
    absl::Status status = Begin(state, call, begin);
    if (!status.ok()) End(state.route, std::move(call), status, begin);
  }

 private:
  LoopState& StateOf(net::EventLoop* loop) {
    for (auto& [owner, state] : loops_) {
      if (owner == loop) return *state;
    }
    std::abort();  // a call of a server with other loops
  }

  absl::Status Begin(LoopState& state, net::GrpcCallPtr& call, Clock::time_point begin);
  absl::Status FindRoute(LoopState& state, std::string_view spec_bytes, bool has_spec);
  void Answer(net::GrpcCall& call, const Signature& signature, std::string_view answer_spec,
              const std::vector<int>& chosen, const std::vector<Tensor>& outputs,
              std::int64_t first_row, std::int64_t rows) const;
  void End(const Route& route, net::GrpcCallPtr call, const absl::Status& status,
           Clock::time_point begin) {
    if (observer_ != nullptr) {
      PredictRecord record;
      if (route.servable != nullptr) {
        record.model = route.servable->name();
        record.version = route.servable->version();
        record.signature = route.signature->name();
      }
      record.code = status.code();
      record.latency = Clock::now() - begin;
      record.request_bytes = call->body().size();
      observer_->OnPredict(record);
    }
    call.Finish(status);
  }

  const PredictOptions options_;
  PredictObserver* const observer_;
  std::vector<std::pair<net::EventLoop*, std::unique_ptr<LoopState>>> loops_;
};

absl::Status PredictService::FindRoute(LoopState& state, std::string_view spec_bytes,
                                       bool has_spec) {
  const ServableSnapshot& snapshot = state.Snapshot();
  Route& route = state.route;
  if (route.servable != nullptr && route.generation == state.generation() &&
      route.spec_bytes == spec_bytes) {
    return absl::OkStatus();
  }
  route.servable = nullptr;
  if (!has_spec) return absl::InvalidArgumentError("Missing ModelSpec");
  ModelSpec spec;
  if (!ReadModelSpec(spec_bytes, spec)) {
    return absl::InternalError("the request is not a PredictRequest");
  }
  TAKT_ASSIGN_OR_RETURN(std::shared_ptr<Servable> servable,
                        snapshot.Find(spec.name, spec.version, spec.label));
  const Signature* signature = servable->FindSignature(spec.signature);
  if (signature == nullptr) {
    return absl::FailedPreconditionError(
        StrCat("Serving signature key \"",
               spec.signature.empty() ? kDefaultSignatureName : spec.signature, "\" not found."));
  }
  std::string echo;
  AppendBytesField(1, servable->name(), echo);
  std::string version;
  if (servable->version() != 0) {
    version.push_back(1 << 3);
    AppendVarint(static_cast<std::uint64_t>(servable->version()), version);
  }
  AppendBytesField(2, version, echo);
  AppendBytesField(3, signature->name(), echo);
  route.answer_spec.clear();
  AppendBytesField(kResponseSpec, echo, route.answer_spec);
  route.spec_bytes = spec_bytes;
  route.generation = state.generation();
  route.signature = signature;
  route.servable = servable.get();
  return absl::OkStatus();
}

absl::Status PredictService::Begin(LoopState& state, net::GrpcCallPtr& call,
                                   Clock::time_point begin) {
  const absl::Status malformed = absl::InternalError("the request is not a PredictRequest");
  std::string_view spec_bytes;
  bool has_spec = false;
  state.entries.clear();
  state.filter.clear();
  ProtoReader r(call->body());
  while (r.Next()) {
    switch (r.field()) {
      case kRequestSpec:
        spec_bytes = r.Bytes();
        has_spec = true;
        break;
      case kRequestInputs: {
        Entry entry;
        if (!ReadEntry(r.Bytes(), entry)) return malformed;
        // A key that comes twice: the last one counts.
        auto same = std::find_if(state.entries.begin(), state.entries.end(),
                                 [&](const Entry& e) { return e.alias == entry.alias; });
        if (same != state.entries.end()) {
          *same = entry;
        } else {
          state.entries.push_back(entry);
        }
        break;
      }
      case kRequestFilter:
        state.filter.push_back(r.Bytes());
        break;
      default:
        break;
    }
  }
  if (!r.ok()) {
    state.route.servable = nullptr;
    return malformed;
  }
  TAKT_RETURN_IF_ERROR(FindRoute(state, spec_bytes, has_spec));
  const Signature& signature = *state.route.signature;

  if (state.entries.size() != signature.inputs().size()) {
    return WrongInputs(signature, state.entries);
  }
  state.wire.resize(signature.inputs().size());
  for (const Entry& entry : state.entries) {
    const int index = signature.FindInput(entry.alias);
    if (index < 0) {
      return absl::InvalidArgumentError(StrCat(
          "input tensor alias not found in signature: ", entry.alias,
          ". Inputs expected to be in the set ", SetText(AliasesOf(signature.inputs())), "."));
    }
    WireTensor& wire = state.wire[index];
    wire.dtype = DataType::kInvalid;
    if (!ReadWireTensor(entry.tensor, wire)) return malformed;
    if (wire.dtype == DataType::kResource) {
      return absl::InvalidArgumentError(
          "Invalid resource type hash code: 0(name:  type: ). Perhaps a resource tensor was being "
          "provided as a feed? That is not currently allowed. Please file an issue at "
          "https://github.com/tensorflow/tensorflow/issues/new, ideally with a short code snippet "
          "that leads to this error message.");
    }
    absl::Status status = CheckWireTensor(wire);
    if (!status.ok()) {
      if (!status.message().empty()) return status;
      return absl::InvalidArgumentError(StrCat("tensor parsing error: ", entry.alias));
    }
  }
  std::vector<int> chosen;
  for (std::string_view alias : state.filter) {
    const int index = signature.FindOutput(alias);
    if (index < 0) {
      return absl::InvalidArgumentError(StrCat(
          "output tensor alias not found in signature: ", alias,
          " Outputs expected to be in the set ", SetText(AliasesOf(signature.outputs())), "."));
    }
    if (std::find(chosen.begin(), chosen.end(), index) != chosen.end()) {
      return absl::InvalidArgumentError(StrCat("duplicate output tensor alias: ", alias));
    }
    chosen.push_back(index);
  }
  // The order of the answer's outputs is the aliases'.
  std::sort(chosen.begin(), chosen.end());

  RunRequest run;
  run.signature = &signature;
  run.deadline = call->deadline();
  std::shared_ptr<const void> owner;
  for (const WireTensor& wire : state.wire) {
    const bool in_place = wire.proto.size() >= net::kSharedBodyBytes && call->body_is_shared();
    if (in_place && owner == nullptr) owner = call->ShareBody().first;
    TAKT_ASSIGN_OR_RETURN(Tensor tensor, TensorFromWire(wire, in_place ? owner : nullptr));
    run.inputs.push_back(std::move(tensor));
  }
  Servable* const servable = state.route.servable;
  auto shared = std::make_shared<net::GrpcCallPtr>(std::move(call));
  servable->Run(std::move(run), [this, shared, route = state.route, chosen = std::move(chosen),
                                 begin](absl::StatusOr<std::vector<Tensor>> outputs) {
    if (outputs.ok()) {
      Answer(**shared, *route.signature, route.answer_spec, chosen, *outputs, -1, 0);
    }
    End(route, std::move(*shared), outputs.status(), begin);
  });
  return absl::OkStatus();
}

void PredictService::Answer(net::GrpcCall& call, const Signature& signature,
                            std::string_view answer_spec, const std::vector<int>& chosen,
                            const std::vector<Tensor>& outputs, std::int64_t first_row,
                            std::int64_t rows) const {
  std::string& out = call.response();
  auto append = [&](std::size_t index) {
    const std::string& alias = signature.outputs()[index].alias;
    out.push_back(kResponseOutputs << 3 | 2);
    const std::size_t at = out.size();
    out.push_back(0);
    AppendBytesField(1, alias, out);
    AppendTensorField(2, outputs[index], first_row, rows, options_.outputs_as_tensor_content, out);
    FixLength(at, out);
  };
  if (chosen.empty()) {
    for (std::size_t i = 0; i < outputs.size(); ++i) append(i);
  } else {
    for (int index : chosen) append(static_cast<std::size_t>(index));
  }
  out.append(answer_spec);
}

}  // namespace

void RegisterPredict(net::GrpcServer& server, const ServableDirectory& directory,
                     PredictOptions options, PredictObserver* observer) {
  constexpr const char* kMethod = "/tensorflow.serving.PredictionService/Predict";
  auto service = std::make_shared<PredictService>(directory, options, observer, server.loops());
  server.Handle(kMethod, [service](net::GrpcCallPtr call) { service->Handle(std::move(call)); });
  server.PlaceBodiesOf(kMethod, LargeValuesOffset);
}

}  // namespace takt::serving
