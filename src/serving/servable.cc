#include "serving/servable.h"

#include <algorithm>
#include <cstring>

#include "net/event_loop.h"
#include "serving/api/tensor_wire.h"

namespace takt::serving {
namespace {

int Find(const std::vector<TensorInfo>& infos, std::string_view alias) {
  auto found = std::lower_bound(
      infos.begin(), infos.end(), alias,
      [](const TensorInfo& info, std::string_view name) { return info.alias < name; });
  if (found == infos.end() || found->alias != alias) return -1;
  return static_cast<int>(found - infos.begin());
}

std::string AnswerSpec(const std::string& name, std::int64_t version,
                       const std::string& signature) {
  std::string number;  // google.protobuf.Int64Value
  if (version != 0) {
    number.push_back(1 << 3);
    AppendVarint(static_cast<std::uint64_t>(version), number);
  }
  std::string spec;
  AppendBytesField(1, name, spec);
  AppendBytesField(2, number, spec);
  AppendBytesField(3, signature, spec);
  std::string field;
  AppendBytesField(2, spec, field);
  return field;
}

}  // namespace

Signature::Signature() = default;
Signature::~Signature() = default;
int Signature::FindInput(std::string_view alias) const { return Find(def_.inputs, alias); }
int Signature::FindOutput(std::string_view alias) const { return Find(def_.outputs, alias); }

absl::Status CheckPredictMethod(const Signature& signature) {
  constexpr std::string_view kMethods[] = {
      "tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress"};
  const std::string& method = signature.def().method_name;
  if (std::find(std::begin(kMethods), std::end(kMethods), method) != std::end(kMethods)) {
    return absl::OkStatus();
  }
  return absl::InternalError(StrCat("Expected prediction signature method_name to be one of {",
                                    kMethods[0], ", ", kMethods[1], ", ", kMethods[2],
                                    "}. Was: ", method));
}

absl::StatusOr<std::shared_ptr<Servable>> Servable::Create(std::unique_ptr<Session> session,
                                                           Options options, WorkerPool* workers) {
  if (options.batching.has_value()) TAKT_RETURN_IF_ERROR(Validate(*options.batching));
  // Freeing a model takes long: an event loop that lets go of the last reference leaves it to a
  // worker.
  std::shared_ptr<Servable> servable(new Servable, [workers](Servable* unused) {
    if (workers != nullptr && net::EventLoop::Current() != nullptr) {
      workers->Run([unused] { delete unused; });
    } else {
      delete unused;
    }
  });
  servable->options_ = std::move(options);
  servable->session_ = std::move(session);
  for (const SignatureDef& def : servable->session_->signatures()) {
    auto signature = std::make_unique<Signature>();
    signature->def_ = def;
    signature->has_defaults_ =
        std::any_of(def.inputs.begin(), def.inputs.end(),
                    [](const TensorInfo& input) { return !input.default_value.empty(); });
    std::vector<std::string> feeds;
    std::vector<std::string> fetches;
    for (const TensorInfo& info : def.inputs) feeds.push_back(info.tensor_name);
    for (const TensorInfo& info : def.outputs) fetches.push_back(info.tensor_name);
    // A signature that cannot be run (an initialiser that is listed beside the others) does not
    // make the model one that cannot be served: its requests get the reason.
    auto plan = servable->session_->Prepare(std::move(feeds), std::move(fetches));
    if (plan.ok()) {
      signature->plan_ = *std::move(plan);
    } else {
      signature->plan_status_ = plan.status();
    }
    signature->answer_spec_ =
        AnswerSpec(servable->options_.name, servable->options_.version, def.name);
    const auto& batching = servable->options_.batching;
    if (signature->plan_ != nullptr) {
      signature->queue_ =
          MakeBatchQueue(batching.has_value() ? &*batching : nullptr, *signature, workers);
    }
    servable->signatures_.push_back(std::move(signature));
  }
  return servable;
}

Servable::~Servable() = default;

const Signature* Servable::FindSignature(std::string_view name) const {
  if (name.empty()) name = kDefaultSignatureName;
  for (const auto& signature : signatures_) {
    if (signature->name() == name) return signature.get();
  }
  return nullptr;
}

absl::StatusOr<std::vector<Tensor>> Servable::RunNow(const Signature& signature,
                                                     std::span<const Tensor> inputs,
                                                     const RunOptions& options,
                                                     std::int64_t rows) const {
  if (signature.plan_ == nullptr) return signature.plan_status_;
  const auto begin = std::chrono::steady_clock::now();
  auto outputs = session_->Run(*signature.plan_, inputs, options);
  if (outputs.ok()) {
    signature.cost_.Record(rows, std::chrono::steady_clock::now() - begin);
    signature.runs_.fetch_add(1, std::memory_order_relaxed);
    signature.run_rows_.fetch_add(static_cast<std::uint64_t>(rows), std::memory_order_relaxed);
  }
  return outputs;
}

absl::StatusOr<std::vector<Tensor>> Servable::RunPlan(const Session::Plan& plan,
                                                      std::span<const Tensor> inputs,
                                                      const RunOptions& options) const {
  return session_->Run(plan, inputs, options);
}

absl::Status Servable::Join(const Signature& signature, const BatchSource& source,
                            BatchEntry& entry) {
  if (signature.queue_ == nullptr) return signature.plan_status_;
  return signature.queue_->Join(*this, source, entry);
}

void Servable::RunOnZeros() const {
  constexpr std::size_t kMaxInputBytes = 64 << 20;
  constexpr int kRuns = 3;  // the first one builds; the others show what a run takes
  for (const auto& signature : signatures_) {
    std::vector<Tensor> inputs;
    for (const TensorInfo& info : signature->inputs()) {
      Dims dims = info.unknown_rank ? Dims{1} : info.dims;
      for (std::int64_t& dim : dims) dim = dim < 0 ? 1 : dim;
      const std::int64_t count = ElementCount(dims).value_or(0);
      const std::size_t size = std::max<std::size_t>(DataTypeSize(info.dtype), sizeof(void*));
      if (static_cast<std::size_t>(count) > kMaxInputBytes / size) break;
      absl::StatusOr<Tensor> input = Tensor::Allocate(info.dtype, std::move(dims));
      if (!input.ok()) break;
      if (input->bytes() > 0) std::memset(input->mutable_data(), 0, input->bytes());
      inputs.push_back(*std::move(input));
    }
    if (inputs.size() != signature->inputs().size()) continue;
    for (int i = 0; i < kRuns; ++i) {
      if (!RunNow(*signature, inputs, {}, 1).ok()) break;
    }
  }
}

void Servable::Run(RunRequest request, RunDone done) {
  BatchEntry entry;
  entry.done = std::move(done);
  Join(request, entry);
}

void Servable::RunTogether(const std::vector<const Signature*>& signatures, RunRequest request,
                           RunDone done) {
  std::shared_ptr<const Session::Plan> plan;
  {
    const std::lock_guard lock(joint_mutex_);
    if (const auto it = joint_plans_.find(signatures); it != joint_plans_.end()) plan = it->second;
  }
  if (plan == nullptr) {
    std::vector<std::string> feeds;
    std::vector<std::string> fetches;
    for (const TensorInfo& info : request.signature->inputs()) feeds.push_back(info.tensor_name);
    for (const Signature* signature : signatures) {
      for (const TensorInfo& info : signature->outputs()) fetches.push_back(info.tensor_name);
    }
    auto prepared = session_->Prepare(std::move(feeds), std::move(fetches));
    if (!prepared.ok()) return done(prepared.status());
    plan = *std::move(prepared);
    const std::lock_guard lock(joint_mutex_);
    if (joint_plans_.size() < kMaxJointPlans) joint_plans_.emplace(signatures, plan);
  }
  BatchEntry entry;
  entry.plan = plan.get();
  entry.done = [plan, done = std::move(done)](absl::StatusOr<std::vector<Tensor>> outputs) {
    done(std::move(outputs));
  };
  Join(request, entry);
}

void Servable::Join(const RunRequest& request, BatchEntry& entry) {
  const std::shared_ptr<Servable> keep = shared_from_this();  // `done` may be all that keeps it
  entry.client = &DoneClient::Instance();
  entry.servable = this;
  entry.signature = request.signature;
  entry.deadline = request.deadline;
  entry.queue = request.queue;
  entry.begin = std::chrono::steady_clock::now();
  const absl::Status joined = Join(*request.signature, TensorSource(request.inputs), entry);
  if (!joined.ok()) entry.done(joined);
}

absl::StatusOr<std::shared_ptr<Servable>> ServableSnapshot::Find(
    std::string_view model, std::optional<std::int64_t> version, std::string_view label) const {
  if (model.empty()) return absl::InvalidArgumentError("ModelSpec has no name specified.");
  const auto found = models.find(model);
  if (!label.empty()) {
    const ModelEntry* entry = found == models.end() ? nullptr : &found->second;
    const auto labelled =
        entry == nullptr ? decltype(entry->labels.find(label)){} : entry->labels.find(label);
    if (entry == nullptr || labelled == entry->labels.end()) {
      return absl::InvalidArgumentError(StrCat("Unrecognized servable version label: ", label));
    }
    version = labelled->second;
  }
  if (version.has_value()) {
    if (found != models.end()) {
      const auto chosen = found->second.versions.find(*version);
      if (chosen != found->second.versions.end()) return chosen->second;
    }
    return absl::NotFoundError(
        StrCat("Servable not found for request: Specific(", model, ", ", *version, ")"));
  }
  if (found == models.end() || found->second.versions.empty()) {
    return absl::NotFoundError(StrCat("Servable not found for request: Latest(", model, ")"));
  }
  return found->second.versions.rbegin()->second;
}

}  // namespace takt::serving
