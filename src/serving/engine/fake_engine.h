// An engine for tests: models are C++ functions, loads and runs can be made to fail or to wait.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>

#include "serving/engine/engine.h"

namespace takt::serving {

// Inputs and outputs in the order of the signature.
using FakeFunction =
    std::function<absl::StatusOr<std::vector<Tensor>>(std::span<const Tensor> inputs)>;

struct FakeModel {
  std::vector<std::pair<SignatureDef, FakeFunction>> signatures;
};

class FakeSession final : public Session {
 public:
  explicit FakeSession(FakeModel model) : model_(std::move(model)) {
    for (auto& [def, function] : model_.signatures) {
      defs_.push_back(def);
      serialized_.emplace_back(def.name, "");
    }
  }
  const std::vector<SignatureDef>& signatures() const override { return defs_; }
  const std::vector<std::pair<std::string, std::string>>& serialized_signatures() const override {
    return serialized_;
  }
  // A plan belongs to the signature whose tensor names it is asked with, or to several of the same
  // inputs, with the outputs of one after those of the other.
  absl::StatusOr<std::unique_ptr<Plan>> Prepare(std::vector<std::string> feeds,
                                                std::vector<std::string> fetches) override {
    auto plan = std::make_unique<FakePlan>();
    std::span<const std::string> rest = fetches;
    while (!rest.empty()) {
      const auto before = rest.size();
      for (auto& [def, function] : model_.signatures) {
        std::vector<std::string> in;
        std::vector<std::string> out;
        for (const TensorInfo& info : def.inputs) in.push_back(info.tensor_name);
        for (const TensorInfo& info : def.outputs) out.push_back(info.tensor_name);
        if (in != feeds || out.size() > rest.size() || out.empty()) continue;
        if (!std::equal(out.begin(), out.end(), rest.begin())) continue;
        plan->functions.push_back(function);
        rest = rest.subspan(out.size());
        break;
      }
      if (rest.size() == before) {
        return absl::InvalidArgumentError("no signature has these tensors");
      }
    }
    return plan;
  }
  absl::StatusOr<std::vector<Tensor>> Run(const Plan& plan, std::span<const Tensor> inputs,
                                          const RunOptions& options) override {
    ++runs_;
    if (options.deadline.has_value() && *options.deadline <= std::chrono::steady_clock::now()) {
      return absl::DeadlineExceededError("the deadline passed before the run");
    }
    std::vector<Tensor> outputs;
    for (const FakeFunction& function : static_cast<const FakePlan&>(plan).functions) {
      TAKT_ASSIGN_OR_RETURN(std::vector<Tensor> own, function(inputs));
      outputs.insert(outputs.end(), own.begin(), own.end());
    }
    return outputs;
  }
  int runs() const { return runs_; }

 private:
  struct FakePlan final : Plan {
    std::vector<FakeFunction> functions;
  };
  FakeModel model_;
  std::vector<SignatureDef> defs_;
  std::vector<std::pair<std::string, std::string>> serialized_;
  std::atomic<int> runs_{0};
};

// Serves the models that were put at directories; any other directory is NOT_FOUND.
class FakeEngine final : public Engine {
 public:
  std::string version() const override { return "fake"; }
  void Put(const std::string& directory, FakeModel model) {
    std::lock_guard lock(mutex_);
    models_[directory] = std::move(model);
  }
  // Called at the start of every load, on its thread; its error is the load's.
  void OnLoad(std::function<absl::Status(const LoadOptions&)> hook) {
    std::lock_guard lock(mutex_);
    on_load_ = std::move(hook);
  }
  absl::StatusOr<std::unique_ptr<Session>> Load(const LoadOptions& options) override {
    std::unique_lock lock(mutex_);
    auto hook = on_load_;
    lock.unlock();
    if (hook) TAKT_RETURN_IF_ERROR(hook(options));
    lock.lock();
    auto found = models_.find(options.directory);
    if (found == models_.end()) {
      return absl::NotFoundError(StrCat("load of ", options.directory, ": no such model"));
    }
    return std::make_unique<FakeSession>(found->second);
  }

 private:
  std::mutex mutex_;
  std::map<std::string, FakeModel> models_;
  std::function<absl::Status(const LoadOptions&)> on_load_;
};

}  // namespace takt::serving
