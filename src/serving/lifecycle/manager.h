// Keeps the configured models served: watches their storage, loads new versions beside the old
// ones, moves requests over, unloads what nothing uses any more.
//
// It decides nothing itself: PlanVersions (version_policy.h) says what to do, this carries it out.
// Each model is on its own; one that cannot be listed or loaded does not hold up another.
// Threads: one that keeps time, two that look at storage, `load_threads` that load and free, at low
// priority once something serves, so that requests keep the processor. Requests never wait for any
// of them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "serving/lifecycle/model_storage.h"
#include "serving/lifecycle/version_policy.h"
#include "serving/servable.h"

namespace takt::serving {

struct RequestLogConfig {
  std::string filename_prefix;  // "" = no log
  double sampling_rate = 0;     // 0..1
  bool operator==(const RequestLogConfig&) const = default;
};

struct ModelConfig {
  std::string name;
  std::string base_path;
  std::string platform = "tensorflow";
  VersionPolicy policy;
  std::map<std::string, std::int64_t, std::less<>> labels;
  RequestLogConfig request_log;
  bool operator==(const ModelConfig&) const = default;
};

// Reads a version into memory and warms it up; called on a load thread.
using LoadServable = std::function<absl::StatusOr<std::shared_ptr<Servable>>(
    const ModelConfig& model, std::int64_t version, const std::string& directory)>;

struct VersionStatus {
  std::int64_t version = 0;
  VersionState state = VersionState::kStart;
  absl::Status status;  // why it failed, or what it waits for
};

struct ManagerOptions {
  std::chrono::milliseconds poll{1000};  // 0 = look once, then only for what was not whole yet
  bool poll_disabled = false;            // never look again
  int load_threads = 2;
  int max_load_retries = 5;
  std::chrono::milliseconds retry_interval{60000};
  bool labels_for_unavailable_versions = false;
  int load_nice = 10;  // of the load threads, once a first version serves
};

inline constexpr std::size_t kMaxEndedVersions = 16;  // per model, kept for status

class ModelManager {
 public:
  // All three must outlive the manager.
  ModelManager(ManagerOptions options, ModelStorage& storage, LoadServable load,
               ServableDirectory& directory);
  ~ModelManager();  // Stop

  // Makes `models` the whole list: what is not in it is unloaded, what is new is loaded. Waits
  // until each model has tried what it wants to load, at most `timeout`, and not on once some model
  // can answer and no load has ended for `stalled`. Then moves labels.
  // INVALID_ARGUMENT for a name twice; nothing has changed then.
  // UNKNOWN "Some models did not become available: {a, b}"; the configuration stands nevertheless,
  // and they are loaded when they can be.
  // FAILED_PRECONDITION when a label names a version that is neither available nor still loading;
  // labels are unchanged.
  absl::Status SetModels(const std::vector<ModelConfig>& models, std::chrono::milliseconds timeout,
                         std::optional<std::chrono::milliseconds> stalled = std::nullopt);
  std::vector<ModelConfig> Models() const;

  // Highest first. NOT_FOUND "Could not find any versions of model X".
  absl::StatusOr<std::vector<VersionStatus>> Status(const std::string& model) const;
  // The configured models that have no version to answer with, each with why. Empty = ready.
  std::map<std::string, std::string> NotReady() const;

  // Ends all threads; versions stay published. A load under way is waited for.
  void Stop();

 private:
  struct Version;
  struct Model;
  class Pool;

  void KeepTime();
  void Scan(const std::string& name, std::uint64_t generation);
  void Load(const std::string& name, std::uint64_t generation, std::int64_t version,
            const ModelConfig& config, const std::string& path);
  void Act(Model& model);  // plans and starts what the plan says; mutex_ held
  void Publish();          // mutex_ held
  void FinishUnloads();    // mutex_ held
  bool Settled(const Model& model) const;
  static bool Serves(const Model& model);
  absl::Status ApplyLabels(const std::vector<ModelConfig>& models);  // mutex_ held
  Model* Find(const std::string& name, std::uint64_t generation);

  const ManagerOptions options_;
  ModelStorage& storage_;
  const LoadServable load_;
  ServableDirectory& directory_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::chrono::steady_clock::time_point last_load_end_;
  std::uint64_t next_generation_ = 1;
  std::map<std::string, std::unique_ptr<Model>> models_;
  std::vector<std::unique_ptr<Model>> removed_;  // still unloading
  std::mutex set_mutex_;                         // one SetModels at a time

  std::unique_ptr<Pool> scan_pool_;
  std::unique_ptr<Pool> load_pool_;
  std::thread clock_thread_;
};

}  // namespace takt::serving
