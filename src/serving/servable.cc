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
  servable->workers_ = workers;
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
    if (batching.has_value() && signature->plan_ != nullptr) {
      signature->queue_ = MakeBatchQueue(*batching, *signature, workers);
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

absl::StatusOr<BatchQueue::Joined> Servable::Join(const Signature& signature,
                                                  const BatchSource& source, BatchEntry& entry) {
  if (signature.queue_ == nullptr) return BatchQueue::Joined::kRunAlone;
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

absl::Status Servable::RunOnWorker(std::function<void()> work) {
  if (wait_for_workers_.fetch_add(1, std::memory_order_relaxed) >= kMaxQueuedRequests) {
    wait_for_workers_.fetch_sub(1, std::memory_order_relaxed);
    return absl::UnavailableError(StrCat("model \"", options_.name, "\": ", kMaxQueuedRequests,
                                         " requests wait for a thread to run on"));
  }
  workers_->Run([self = shared_from_this(), work = std::move(work)] {
    self->wait_for_workers_.fetch_sub(1, std::memory_order_relaxed);
    work();
  });
  return absl::OkStatus();
}

bool Servable::BelongsOnWorker(const Signature& signature, std::int64_t rows) const {
  return workers_ != nullptr && signature.cost_.Estimate(rows) > RunCost::kLong;
}

void Servable::Run(RunRequest request, RunDone done) {
  const Signature& signature = *request.signature;
  if (signature.queue_ != nullptr) {
    BatchEntry entry;
    entry.client = &DoneClient::Instance();
    entry.done = std::move(done);
    entry.signature = &signature;
    entry.deadline = request.deadline;
    entry.queue = request.queue;
    entry.begin = std::chrono::steady_clock::now();
    auto joined = Join(signature, TensorSource(request.inputs), entry);
    if (joined.ok() && *joined == BatchQueue::Joined::kYes) return;
    done = std::move(entry.done);
    if (!joined.ok()) return done(joined.status());
  }
  const bool scalar = request.inputs.empty() || request.inputs[0].rank() == 0;
  const std::int64_t rows = scalar ? 1 : std::max<std::int64_t>(request.inputs[0].dims()[0], 1);
  // A run cannot be stopped; what it gives after the deadline is no answer any more.
  const auto run = [this, rows](const RunRequest& due) -> absl::StatusOr<std::vector<Tensor>> {
    auto outputs = RunNow(*due.signature, due.inputs, {due.deadline}, rows);
    if (outputs.ok() && due.deadline.has_value() &&
        *due.deadline <= std::chrono::steady_clock::now()) {
      return absl::DeadlineExceededError("the run took until after the deadline");
    }
    return outputs;
  };
  if (BelongsOnWorker(signature, rows)) {
    const auto shared_done = std::make_shared<RunDone>(std::move(done));
    const absl::Status queued = RunOnWorker(
        [run, request = std::move(request), shared_done] { (*shared_done)(run(request)); });
    if (!queued.ok()) (*shared_done)(queued);
    return;
  }
  done(run(request));
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
  const std::int64_t rows = request.inputs[0].rank() == 0 ? 1 : request.inputs[0].dims()[0];
  const bool elsewhere = std::any_of(signatures.begin(), signatures.end(), [&](auto* signature) {
    return BelongsOnWorker(*signature, rows);
  });
  auto run = [self = shared_from_this(), plan = std::move(plan), request = std::move(request),
              done = std::move(done)] {
    done(self->session_->Run(*plan, request.inputs, {request.deadline}));
  };
  if (elsewhere) return workers_->Run(std::move(run));
  run();
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
