#include "serving/api/predict.h"

#include <algorithm>
#include <deque>
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

struct ModelSpec {
  std::string_view name;
  std::optional<std::int64_t> version;
  std::string_view label;
  std::string_view signature;
};

bool ReadModelSpec(std::string_view bytes, ModelSpec& spec) {
  ProtoReader r(bytes);
  while (r.Next()) {
    if (r.type() != WireType::kBytes) continue;  // a field that nobody knows
    switch (r.field()) {
      case 1:
        spec.name = r.Bytes();
        break;
      case 2: {  // google.protobuf.Int64Value
        if (!spec.version.has_value()) spec.version = 0;
        spec.label = {};
        ProtoReader value(r.Bytes());
        while (value.Next()) {
          if (value.field() == 1 && value.type() == WireType::kVarint) spec.version = value.Int64();
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

// A message that comes in several pieces, which nobody writes and everybody must read, is what the
// pieces say one after the other. `joined` keeps it; `own` is this message's string there, null
// before its second piece.
std::string_view Join(std::string_view before, std::string_view piece,
                      std::deque<std::string>& joined, std::string*& own) {
  if (before.empty()) return piece;
  if (own == nullptr) own = &joined.emplace_back(before);
  return own->append(piece);
}

bool ReadEntry(std::string_view bytes, Entry& entry, std::deque<std::string>& joined) {
  std::string* own = nullptr;
  ProtoReader r(bytes);
  while (r.Next()) {
    if (r.type() != WireType::kBytes) continue;
    if (r.field() == 1) entry.alias = r.Bytes();
    if (r.field() == 2) entry.tensor = Join(entry.tensor, r.Bytes(), joined, own);
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

// The same without braces.
std::string ListText(const std::set<std::string_view>& names) {
  const std::string text = SetText(names);
  return text.substr(1, text.size() - 2);
}

std::set<std::string_view> AliasesOf(const std::vector<Entry>& entries) {
  std::set<std::string_view> names;
  for (const Entry& entry : entries) names.insert(entry.alias);
  return names;
}

absl::Status MissingInput(const Signature& signature, const TensorInfo& input,
                          const std::vector<Entry>& entries) {
  std::set<std::string_view> defaults;
  for (const TensorInfo& other : signature.inputs()) {
    if (!other.default_value.empty()) defaults.insert(other.alias);
  }
  return absl::InvalidArgumentError(
      StrCat("Signature input alias: ", input.alias, "(feed name: ", input.tensor_name,
             ") not found in request and no default value provided. Inputs expected to be in the "
             "request ",
             SetText(AliasesOf(entries)), ", or default input alias set: ", ListText(defaults)));
}

absl::Status UnknownInputs(const Signature& signature, const std::vector<Entry>& entries) {
  std::set<std::string_view> used = AliasesOf(entries);
  std::erase_if(used, [&](std::string_view alias) { return signature.FindInput(alias) < 0; });
  return absl::InvalidArgumentError(
      StrCat("Inputs contains invalid name. Used request inputs: ", ListText(used),
             ", request input: ", ListText(AliasesOf(entries))));
}

absl::Status WrongInputs(const Signature& signature, const std::vector<Entry>& entries) {
  const std::set<std::string_view> wanted = AliasesOf(signature.inputs());
  const std::set<std::string_view> got = AliasesOf(entries);
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
};

// For records of requests that found no servable.
std::string_view ModelAskedFor(std::string_view request) {
  ModelSpec spec;
  for (ProtoReader r(request); r.Next();) {
    if (r.field() == kRequestSpec && !ReadModelSpec(r.Bytes(), spec)) break;
  }
  return spec.name;
}

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
  std::deque<std::string> joined;

 private:
  net::EventLoop* const loop_;
  const ServableDirectory& directory_;
  std::shared_ptr<const ServableSnapshot> snapshot_;
  std::uint64_t generation_ = 0;
};

// A request's inputs where they lie on the wire.
class WireSource final : public BatchSource {
 public:
  WireSource(const std::vector<WireTensor>& wire, net::GrpcCall& call) : wire_(wire), call_(call) {}
  DataType dtype(std::size_t input) const override { return wire_[input].dtype; }
  std::span<const std::int64_t> dims(std::size_t input) const override { return wire_[input].dims; }
  void Fill(std::size_t input, void* out) const override { FillFromWire(wire_[input], out); }
  void FillStrings(std::size_t input, std::string* out) const override {
    FillStringsFromWire(wire_[input], out);
  }
  absl::StatusOr<Tensor> Keep(std::size_t input) const override {
    const WireTensor& wire = wire_[input];
    const std::string_view body = call_.body();
    // A default value lies elsewhere.
    const bool is_given =
        wire.proto.data() >= body.data() && wire.proto.data() < body.data() + body.size();
    return TensorFromWire(wire, KeepsInPlace() && is_given ? call_.ShareBody().first : nullptr);
  }
  bool KeepsInPlace() const override {
    return call_.request_bytes() >= net::kSharedBodyBytes && call_.body_is_shared();
  }

 private:
  const std::vector<WireTensor>& wire_;
  net::GrpcCall& call_;
};

class PredictService final : public BatchClient {
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
    // What came in one turn of the loop came when the turn began.
    const Clock::time_point begin = call->loop()->now();
    absl::Status status = Begin(state, call, begin);
    if (status.ok()) return;
    BatchEntry entry;
    entry.call = std::move(call);
    entry.begin = begin;
    entry.servable = state.route.servable;
    entry.signature = state.route.signature;
    End(entry, status, entry.servable == nullptr ? ModelAskedFor(entry.call->body()) : "");
  }

  void OnOutputs(BatchEntry& entry, std::vector<Tensor>& outputs) override;
  void OnError(BatchEntry& entry, const absl::Status& status) override;

 private:
  LoopState& StateOf(net::EventLoop* loop) {
    for (auto& [owner, state] : loops_) {
      if (owner == loop) return *state;
    }
    std::abort();  // a call of a server with other loops
  }

  // OK when the answer is on its way; else what to answer.
  absl::Status Begin(LoopState& state, net::GrpcCallPtr& call, Clock::time_point begin);
  absl::Status FindRoute(LoopState& state, std::string_view spec_bytes, bool has_spec);
  // `model`: what was asked for, where no servable was found.
  void End(BatchEntry& entry, const absl::Status& status, std::string_view model = "");

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
  if (options_.check_method_name) TAKT_RETURN_IF_ERROR(CheckPredictMethod(*signature));
  route.spec_bytes = spec_bytes;
  route.generation = state.generation();
  route.signature = signature;
  route.servable = servable.get();
  return absl::OkStatus();
}

absl::Status PredictService::Begin(LoopState& state, net::GrpcCallPtr& call,
                                   Clock::time_point begin) {
  absl::Status malformed = absl::InternalError("the request is not a PredictRequest");
  std::string_view spec_bytes;
  std::string* joined_spec = nullptr;
  bool has_spec = false;
  state.entries.clear();
  state.filter.clear();
  state.joined.clear();
  ProtoReader r(call->body());
  while (r.Next()) {
    if (r.type() != WireType::kBytes) continue;  // a field that nobody knows
    switch (r.field()) {
      case kRequestSpec:
        spec_bytes = Join(spec_bytes, r.Bytes(), state.joined, joined_spec);
        has_spec = true;
        break;
      case kRequestInputs: {
        Entry entry;
        if (!ReadEntry(r.Bytes(), entry, state.joined)) return malformed;
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

  if (state.entries.size() > signature.inputs().size() ||
      (state.entries.size() < signature.inputs().size() && !signature.has_defaults())) {
    return WrongInputs(signature, state.entries);
  }
  state.wire.resize(signature.inputs().size());
  std::size_t used = 0;
  for (std::size_t i = 0; i < signature.inputs().size(); ++i) {
    const TensorInfo& input = signature.inputs()[i];
    const auto given = std::find_if(state.entries.begin(), state.entries.end(),
                                    [&](const Entry& e) { return e.alias == input.alias; });
    const bool is_given = given != state.entries.end();
    if (!is_given && input.default_value.empty()) {
      return MissingInput(signature, input, state.entries);
    }
    used += is_given ? 1 : 0;
    WireTensor& wire = state.wire[i];
    wire.dtype = DataType::kInvalid;
    if (!ReadWireTensor(is_given ? given->tensor : input.default_value, wire)) return malformed;
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
      return absl::InvalidArgumentError(StrCat("tensor parsing error: ", input.alias));
    }
  }
  if (used != state.entries.size()) return UnknownInputs(signature, state.entries);
  BatchEntry entry;
  auto& chosen = entry.chosen;
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
    chosen.push_back(static_cast<std::uint16_t>(index));
  }
  // The order of the answer's outputs is the aliases'.
  std::sort(chosen.begin(), chosen.end());

  Servable& servable = *state.route.servable;
  entry.client = this;
  entry.servable = &servable;
  entry.signature = &signature;
  entry.deadline = call->deadline();
  if (observer_ != nullptr && observer_->WantsLog(servable.name())) {
    entry.logged_request = std::make_unique<std::string>(call->body());
  }
  entry.begin = begin;
  entry.call = std::move(call);
  net::GrpcCall& body = *entry.call;
  const absl::Status joined = servable.Join(signature, WireSource(state.wire, body), entry);
  if (!joined.ok()) OnError(entry, joined);
  return absl::OkStatus();
}

void PredictService::OnOutputs(BatchEntry& entry, std::vector<Tensor>& outputs) {
  std::string& out = entry.call->response();
  const std::size_t answer_at = out.size();  // room for the frame lies before
  auto append = [&](std::size_t index) {
    out.push_back(kResponseOutputs << 3 | 2);
    const std::size_t at = out.size();
    out.push_back(0);
    AppendBytesField(1, entry.signature->outputs()[index].alias, out);
    AppendTensorField(2, outputs[index], entry.first, entry.rows,
                      options_.outputs_as_tensor_content, out);
    FixLength(at, out);
  };
  if (entry.chosen.empty()) {
    for (std::size_t i = 0; i < outputs.size(); ++i) append(i);
  } else {
    for (std::uint16_t index : entry.chosen) append(index);
  }
  out.append(entry.signature->answer_spec());
  if (const std::size_t bytes = out.size() - answer_at; bytes > options_.max_answer_bytes) {
    out.resize(answer_at);
    return End(entry, absl::ResourceExhaustedError(
                          StrCat("the answer has ", bytes, " bytes, more than the ",
                                 options_.max_answer_bytes, " of a message")));
  }
  if (entry.logged_request != nullptr) {
    observer_->OnRequestLog(entry.servable->name(), entry.servable->version(),
                            *entry.logged_request, std::string_view(out).substr(answer_at));
  }
  End(entry, absl::OkStatus());
}

void PredictService::OnError(BatchEntry& entry, const absl::Status& status) { End(entry, status); }

void PredictService::End(BatchEntry& entry, const absl::Status& status, std::string_view model) {
  if (observer_ != nullptr) {
    PredictRecord record;
    record.model = model;
    if (entry.servable != nullptr) {
      record.model = entry.servable->name();
      record.version = entry.servable->version();
      record.signature = entry.signature->name();
    }
    record.code = status.code();
    record.latency = Clock::now() - entry.begin;
    if (entry.started > entry.begin) record.queue = entry.started - entry.begin;
    record.request_bytes = entry.call->request_bytes();
    observer_->OnPredict(record);
  }
  entry.call.Finish(status);
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
