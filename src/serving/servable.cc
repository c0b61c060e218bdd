#include "serving/servable.h"

#include <algorithm>
#include <future>

#include "net/event_loop.h"
#include "serving/batching/batch_queue.h"

namespace takt::serving {
namespace {

int Find(const std::vector<TensorInfo>& infos, std::string_view alias) {
  auto found = std::lower_bound(
      infos.begin(), infos.end(), alias,
      [](const TensorInfo& info, std::string_view name) { return info.alias < name; });
  if (found == infos.end() || found->alias != alias) return -1;
  return static_cast<int>(found - infos.begin());
}

}  // namespace

Signature::Signature() = default;
Signature::~Signature() = default;
int Signature::FindInput(std::string_view alias) const { return Find(def_.inputs, alias); }
int Signature::FindOutput(std::string_view alias) const { return Find(def_.outputs, alias); }

absl::StatusOr<std::shared_ptr<Servable>> Servable::Create(std::unique_ptr<Session> session,
                                                           Options options, WorkerPool* workers) {
  if (options.batching.has_value()) TAKT_RETURN_IF_ERROR(Validate(*options.batching));
  std::shared_ptr<Servable> servable(new Servable);
  servable->options_ = std::move(options);
  servable->session_ = std::move(session);
  servable->workers_ = workers;
  for (const SignatureDef& def : servable->session_->signatures()) {
    auto signature = std::make_unique<Signature>();
    signature->def_ = def;
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
                                                     const RunOptions& options) const {
  if (signature.plan_ == nullptr) return signature.plan_status_;
  const auto begin = std::chrono::steady_clock::now();
  auto outputs = session_->Run(*signature.plan_, inputs, options);
  signature.cost_.Record(std::chrono::steady_clock::now() - begin);
  return outputs;
}

void Servable::Run(RunRequest request, RunDone done) {
  const Signature& signature = *request.signature;
  if (workers_ != nullptr && net::EventLoop::Current() != nullptr && signature.cost_.IsLong()) {
    workers_->Run(
        [self = shared_from_this(), request = std::move(request), done = std::move(done)] {
          done(self->RunNow(*request.signature, request.inputs, {request.deadline}));
        });
    return;
  }
  done(RunNow(signature, request.inputs, {request.deadline}));
}

absl::StatusOr<std::vector<Tensor>> Servable::RunAndWait(RunRequest request) {
  std::promise<absl::StatusOr<std::vector<Tensor>>> promise;
  auto future = promise.get_future();
  Run(std::move(request), [&promise](absl::StatusOr<std::vector<Tensor>> outputs) {
    promise.set_value(std::move(outputs));
  });
  return future.get();
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
