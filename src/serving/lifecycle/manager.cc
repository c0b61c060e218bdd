#include "serving/lifecycle/manager.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <set>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "serving/log.h"

namespace takt::serving {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

constexpr int kScanThreads = 2;
constexpr std::chrono::milliseconds kDefaultSettle{1000};
// How often an unloading version is looked at for its last request.
constexpr std::chrono::milliseconds kUnloadCheck{5};

std::string Seconds(std::chrono::steady_clock::duration d) {
  return absl::StrFormat("%.2f s", std::chrono::duration<double>(d).count());
}

}  // namespace

// Threads that run tasks in order of arrival.
class ModelManager::Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
  }
  ~Pool() { Stop(); }
  // Waits for the tasks under way; those that are queued are dropped.
  void Stop() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }
  // For the tasks that begin from now on. Linux keeps niceness per thread.
  void SetNice(int nice) { nice_ = nice; }
  void Post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      if (stop_) return;
      queue_.push_back(std::move(task));
    }
    wake_.notify_one();
  }

 private:
  void Loop() {
    int nice = 0;
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (stop_) return;
      const std::function<void()> task = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      if (nice != nice_.load()) {
        nice = nice_.load();
        // That the system refuses is no reason not to load.
        setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), nice);
      }
      task();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stop_ = false;
  std::atomic<int> nice_{0};
  std::vector<std::thread> threads_;
};

struct ModelManager::Version {
  std::string path;
  VersionState state = VersionState::kStart;
  bool present = true;
  // Of its files.
  bool complete = false;
  absl::Status incomplete;  // why not
  std::string fingerprint;
  SteadyTime unchanged_since;
  // Of loading.
  bool failed = false;
  absl::Status error;
  std::string failed_fingerprint;
  int attempts = 0;
  SteadyTime next_try;
  std::shared_ptr<Servable> servable;
  bool being_freed = false;
  std::uint64_t ended_at = 0;  // order of ending
};

struct ModelManager::Model {
  ModelConfig config;
  std::uint64_t generation = 0;
  bool removed = false;
  bool scanned = false;    // looked at once, whatever the outcome
  bool scanning = false;   // a scan is queued or under way
  bool unsettled = false;  // something is not whole yet: look again soon
  SteadyTime next_scan;
  absl::Status storage;
  std::map<std::int64_t, Version> versions;
  // What served before the base path changed; stays until this one serves.
  std::unique_ptr<Model> predecessor;
};

ModelManager::ModelManager(ManagerOptions options, ModelStorage& storage, LoadServable load,
                           ServableDirectory& directory)
    : options_(options),
      storage_(storage),
      load_(std::move(load)),
      directory_(directory),
      scan_pool_(std::make_unique<Pool>(kScanThreads)),
      load_pool_(std::make_unique<Pool>(std::max(1, options.load_threads))) {
  clock_thread_ = std::thread([this] { KeepTime(); });
}

ModelManager::~ModelManager() { Stop(); }

void ModelManager::Stop() {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    stop_ = true;
  }
  changed_.notify_all();
  clock_thread_.join();
  scan_pool_->Stop();
  load_pool_->Stop();
}

ModelManager::Model* ModelManager::Find(const std::string& name, std::uint64_t generation) {
  if (const auto it = models_.find(name); it != models_.end()) {
    for (Model* model = it->second.get(); model != nullptr; model = model->predecessor.get()) {
      if (model->generation == generation) return model;
    }
  }
  for (const auto& model : removed_) {
    if (model->generation == generation) return model.get();
  }
  return nullptr;
}

void ModelManager::KeepTime() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    const SteadyTime now = std::chrono::steady_clock::now();
    SteadyTime next = now + std::chrono::hours(1);
    for (auto& [name, model] : models_) {
      if (model->scanning) continue;
      if (model->next_scan <= now) {
        model->scanning = true;
        scan_pool_->Post(
            [this, name = name, generation = model->generation] { Scan(name, generation); });
      } else {
        next = std::min(next, model->next_scan);
      }
    }
    FinishUnloads();
    bool unloading = false;
    const auto look = [&](const Model& model) {
      for (const auto& [number, version] : model.versions) {
        if (version.state == VersionState::kUnloading && !version.being_freed) unloading = true;
      }
    };
    for (const auto& [name, model] : models_) {
      for (Model* m = model.get(); m != nullptr; m = m->predecessor.get()) look(*m);
    }
    for (const auto& model : removed_) look(*model);
    if (unloading) next = std::min(next, now + kUnloadCheck);
    changed_.wait_until(lock, next);
  }
}

void ModelManager::Scan(const std::string& name, std::uint64_t generation) {
  struct Seen {
    VersionState state;
    std::string fingerprint;
    bool complete;
    SteadyTime unchanged_since;
    bool waiting;  // failed, and its files are as they were when it failed
  };
  std::string base_path;
  VersionPolicy policy;
  std::map<std::int64_t, Seen> known;
  {
    const std::lock_guard lock(mutex_);
    Model* model = Find(name, generation);
    if (model == nullptr || model->removed || stop_) return;
    base_path = model->config.base_path;
    policy = model->config.policy;
    for (const auto& [number, version] : model->versions) {
      known[number] = {version.state, version.fingerprint, version.complete,
                       version.unchanged_since, version.failed};
    }
  }

  // Everything slow happens here, without the lock.
  const absl::StatusOr<std::map<std::int64_t, std::string>> listing =
      storage_.ListVersions(base_path);
  struct Found {
    std::string path;
    absl::StatusOr<VersionFingerprint> fingerprint = absl::UnknownError("");
    absl::Status complete;
    SteadyTime unchanged_since;
    bool settled = false;
  };
  std::map<std::int64_t, Found> inspected;
  const std::chrono::milliseconds settle =
      options_.poll.count() > 0 ? options_.poll : kDefaultSettle;
  bool unsettled = false;
  if (listing.ok()) {
    // Only as many are looked into, from the top, as the policy can pick: a base path may hold
    // thousands of old versions.
    std::vector<std::int64_t> numbers;
    for (const auto& [number, path] : *listing) numbers.push_back(number);
    VersionPolicy without_limit = policy;
    if (policy.kind == VersionPolicy::Kind::kLatest) without_limit.kind = VersionPolicy::Kind::kAll;
    std::size_t enough = policy.kind == VersionPolicy::Kind::kLatest
                             ? static_cast<std::size_t>(policy.num_versions)
                             : numbers.size();
    for (const std::int64_t number : PickVersions(without_limit, numbers)) {
      if (enough == 0) break;
      const auto it = known.find(number);
      const Seen* seen = it == known.end() ? nullptr : &it->second;
      if (seen != nullptr &&
          (seen->state == VersionState::kLoading || seen->state == VersionState::kAvailable)) {
        --enough;
        continue;
      }
      if (seen != nullptr && seen->state == VersionState::kUnloading) continue;
      Found found;
      found.path = listing->at(number);
      found.fingerprint = storage_.Fingerprint(found.path);
      const SteadyTime now = std::chrono::steady_clock::now();
      found.unchanged_since = now;
      if (!found.fingerprint.ok()) {
        found.complete = found.fingerprint.status();
        unsettled = true;
      } else {
        const bool same = seen != nullptr && seen->fingerprint == found.fingerprint->text;
        if (same) found.unchanged_since = seen->unchanged_since;
        // At rest for one poll: watched so long, or old enough when first seen.
        const auto age = std::chrono::system_clock::now() - found.fingerprint->newest_change;
        found.settled = now - found.unchanged_since >= settle || (seen == nullptr && age >= settle);
        if (same && seen->complete && found.settled) {
          found.complete = absl::OkStatus();
        } else {
          found.complete = storage_.CheckComplete(found.path);
        }
        if (found.complete.ok() && !found.settled) {
          found.complete =
              absl::FailedPreconditionError(StrCat(found.path, ": its files are still changing"));
          unsettled = true;
        }
        if (found.complete.ok() && (seen == nullptr || !seen->waiting)) --enough;
      }
      inspected.emplace(number, std::move(found));
    }
  }

  const std::lock_guard lock(mutex_);
  Model* model = Find(name, generation);
  if (model == nullptr) return;
  model->scanning = false;
  model->unsettled = unsettled;
  const SteadyTime now = std::chrono::steady_clock::now();
  if (options_.poll_disabled || options_.poll.count() == 0) {
    model->next_scan = unsettled && !options_.poll_disabled ? now + settle / 4
                                                            : now + std::chrono::hours(24 * 365);
  } else {
    model->next_scan = now + (unsettled ? options_.poll / 4 : options_.poll);
  }
  if (model->removed) return;

  absl::Status storage = listing.status();
  if (listing.ok() && listing->empty()) {
    storage = absl::NotFoundError(StrCat(base_path, ": no version in it"));
  }
  if (storage.code() != model->storage.code() || !model->scanned) {
    std::vector<std::int64_t> serving;
    for (const auto& [number, version] : model->versions) {
      if (version.state == VersionState::kAvailable) serving.push_back(number);
    }
    if (!storage.ok()) {
      Log(LogLevel::kWarning, StrCat("model \"", name, "\": ", ToStd(storage.message()),
                                     serving.empty() ? "; waiting for it"
                                                     : StrCat("; keeps serving version ",
                                                              absl::StrJoin(serving, ", "))));
    } else if (model->scanned) {
      Log(LogLevel::kInfo, StrCat("model \"", name, "\": ", base_path, " is there again"));
    }
  }
  model->storage = storage;
  model->scanned = true;

  if (storage.ok()) {
    for (auto it = model->versions.begin(); it != model->versions.end();) {
      it->second.present = listing->contains(it->first);
      const bool idle = it->second.state == VersionState::kStart ||
                        (it->second.state == VersionState::kEnd && it->second.failed);
      if (idle && !it->second.present) {
        it = model->versions.erase(it);
      } else {
        ++it;
      }
    }
    for (auto& [number, found] : inspected) {
      Version& version = model->versions[number];
      if (version.state == VersionState::kLoading || version.state == VersionState::kAvailable) {
        continue;
      }
      version.path = found.path;
      version.present = true;
      version.complete = found.complete.ok();
      version.unchanged_since = found.unchanged_since;
      if (found.fingerprint.ok()) version.fingerprint = found.fingerprint->text;
      if (!found.complete.ok() && version.incomplete.message() != found.complete.message()) {
        Log(LogLevel::kInfo, StrCat("model \"", name, "\": version ", number,
                                    " is not complete: ", ToStd(found.complete.message())));
      }
      version.incomplete = found.complete;
      // Changed files make every failure worth another try.
      if (version.failed && version.complete && version.fingerprint != version.failed_fingerprint) {
        version.attempts = 0;
        version.next_try = now;
      }
    }
  }
  Act(*model);
  changed_.notify_all();
}

void ModelManager::Act(Model& model) {
  if (stop_) return;
  const SteadyTime now = std::chrono::steady_clock::now();
  std::map<std::int64_t, VersionView> views;
  for (const auto& [number, version] : model.versions) {
    VersionView view;
    view.state = version.state;
    view.complete = version.complete;
    view.failed = version.failed;
    view.due =
        version.failed && version.attempts <= options_.max_load_retries && version.next_try <= now;
    view.present = version.present;
    views[number] = view;
  }
  const VersionPlan plan = PlanVersions(model.config.policy, views, model.removed);
  for (const std::int64_t number : plan.load) {
    Version& version = model.versions.at(number);
    version.state = VersionState::kLoading;
    version.error = absl::OkStatus();
    Log(LogLevel::kInfo, StrCat("model \"", model.config.name, "\": loading version ", number,
                                " from ", version.path));
    load_pool_->Post([this, name = model.config.name, generation = model.generation, number,
                      config = model.config,
                      path = version.path] { Load(name, generation, number, config, path); });
  }
  for (const std::int64_t number : plan.unload) {
    Version& version = model.versions.at(number);
    version.state = VersionState::kUnloading;
    Log(LogLevel::kInfo, StrCat("model \"", model.config.name, "\": unloading version ", number));
  }
  if (!plan.unload.empty()) {
    Publish();
    changed_.notify_all();
  }
}

void ModelManager::Load(const std::string& name, std::uint64_t generation, std::int64_t number,
                        const ModelConfig& config, const std::string& path) {
  {
    const std::lock_guard lock(mutex_);
    Model* model = Find(name, generation);
    if (model == nullptr || stop_) return;
    if (model->removed) {
      model->versions.at(number).state = VersionState::kEnd;
      changed_.notify_all();
      return;
    }
  }
  const SteadyTime begin = std::chrono::steady_clock::now();
  absl::StatusOr<std::string> directory = storage_.Localize(path);
  absl::StatusOr<std::shared_ptr<Servable>> servable =
      directory.ok() ? load_(config, number, *directory) : directory.status();
  const std::string took = Seconds(std::chrono::steady_clock::now() - begin);

  const std::lock_guard lock(mutex_);
  Model* model = Find(name, generation);
  if (model == nullptr) return;
  Version& version = model->versions.at(number);
  if (servable.ok()) {
    // The engine makes the threads that it computes on during its first load, and they inherit its
    // priority; from then on requests may be waiting, and loads stand back.
    load_pool_->SetNice(options_.load_nice);
    version.state = VersionState::kAvailable;
    version.failed = false;
    version.attempts = 0;
    version.servable = *std::move(servable);
    Publish();
    Log(LogLevel::kInfo, StrCat("model \"", name, "\": version ", number, " loaded in ", took));
    if (model->predecessor != nullptr && !model->predecessor->removed) {
      model->predecessor->removed = true;
      Act(*model->predecessor);
    }
  } else {
    version.state = VersionState::kEnd;
    version.failed = true;
    version.error = servable.status();
    version.failed_fingerprint = version.fingerprint;
    version.next_try = std::chrono::steady_clock::now() + options_.retry_interval;
    ++version.attempts;
    model->next_scan = std::min(model->next_scan, version.next_try);
    const bool again = version.attempts <= options_.max_load_retries;
    Log(LogLevel::kError,
        StrCat("model \"", name, "\": version ", number,
               " failed to load: ", servable.status().ToString(), "; next try ",
               again ? StrCat("in ", Seconds(options_.retry_interval), " or ") : std::string(),
               "when its files change"));
  }
  // That a version fails again is no progress.
  if (version.attempts <= 1) last_load_end_ = std::chrono::steady_clock::now();
  Act(*model);
  changed_.notify_all();
}

void ModelManager::Publish() {
  auto next = std::make_shared<ServableSnapshot>();
  for (const auto& [name, model] : models_) {
    ModelEntry entry;
    for (const Model* from = model.get(); from != nullptr && entry.versions.empty();
         from = from->predecessor.get()) {
      for (const auto& [number, version] : from->versions) {
        if (version.state == VersionState::kAvailable) entry.versions[number] = version.servable;
      }
    }
    entry.labels = model->config.labels;
    if (!entry.versions.empty()) next->models.emplace(name, std::move(entry));
  }
  directory_.Publish(std::move(next));
}

void ModelManager::FinishUnloads() {
  const auto look = [this](Model& model) {
    bool busy = false;
    for (auto& [number, version] : model.versions) {
      if (version.state == VersionState::kLoading || version.state == VersionState::kAvailable) {
        busy = true;
      }
      if (version.state != VersionState::kUnloading) continue;
      busy = true;
      // Nothing can take a new reference: it is in no snapshot that is published. So the last one
      // being ours means that the last request has ended.
      if (version.being_freed || version.servable.use_count() > 1) continue;
      version.being_freed = true;
      load_pool_->Post([this, name = model.config.name, generation = model.generation,
                        number = number, servable = std::move(version.servable)]() mutable {
        servable.reset();
        // The allocator keeps freed variables otherwise. Not on this thread: it holds the
        // allocator's locks meanwhile, and a request that waits for one must not wait for a low
        // priority.
        scan_pool_->Post([] { malloc_trim(0); });
        const std::lock_guard lock(mutex_);
        Model* owner = Find(name, generation);
        if (owner == nullptr) return;
        Version& freed = owner->versions.at(number);
        freed.state = VersionState::kEnd;
        freed.being_freed = false;
        freed.complete = false;
        freed.ended_at = next_generation_++;
        Log(LogLevel::kInfo, StrCat("model \"", name, "\": version ", number, " unloaded"));
        std::map<std::uint64_t, std::int64_t> ended;
        for (const auto& [n, v] : owner->versions) {
          if (v.state == VersionState::kEnd && !v.failed) ended[v.ended_at] = n;
        }
        while (ended.size() > kMaxEndedVersions) {
          owner->versions.erase(ended.begin()->second);
          ended.erase(ended.begin());
        }
        changed_.notify_all();
      });
    }
    return busy;
  };
  for (auto& [name, model] : models_) {
    look(*model);
    if (model->predecessor != nullptr && !look(*model->predecessor)) model->predecessor.reset();
  }
  std::erase_if(removed_, [&](const auto& model) { return !look(*model); });
}

bool ModelManager::Settled(const Model& model) const {
  if (!model.scanned || model.unsettled) return false;
  for (const auto& [number, version] : model.versions) {
    if (version.state == VersionState::kLoading) return false;
  }
  return true;
}

bool ModelManager::Serves(const Model& model) {
  return std::any_of(model.versions.begin(), model.versions.end(), [](const auto& entry) {
    return entry.second.state == VersionState::kAvailable;
  });
}

absl::Status ModelManager::SetModels(const std::vector<ModelConfig>& models,
                                     std::chrono::milliseconds timeout,
                                     std::optional<std::chrono::milliseconds> stalled) {
  const std::lock_guard one_at_a_time(set_mutex_);
  std::set<std::string> names;
  for (const ModelConfig& config : models) {
    if (!names.insert(config.name).second) {
      return absl::InvalidArgumentError(
          StrCat("Illegal to list model ", config.name, " multiple times in config list"));
    }
  }
  std::unique_lock lock(mutex_);
  for (auto it = models_.begin(); it != models_.end();) {
    if (names.contains(it->first)) {
      ++it;
      continue;
    }
    Log(LogLevel::kInfo, StrCat("model \"", it->first, "\": removed from the configuration"));
    std::unique_ptr<Model> gone = std::move(it->second);
    it = models_.erase(it);
    std::unique_ptr<Model> before = std::move(gone->predecessor);
    for (std::unique_ptr<Model>* model : {&gone, &before}) {
      if (*model == nullptr) continue;
      (*model)->removed = true;
      Model& kept = **model;
      removed_.push_back(std::move(*model));
      Act(kept);
    }
  }
  const SteadyTime now = std::chrono::steady_clock::now();
  for (const ModelConfig& config : models) {
    std::unique_ptr<Model>& slot = models_[config.name];
    ModelConfig without_labels = config;
    without_labels.labels.clear();
    if (slot == nullptr || slot->config.base_path != config.base_path) {
      auto fresh = std::make_unique<Model>();
      fresh->generation = next_generation_++;
      if (slot != nullptr) {
        without_labels.labels = slot->config.labels;
        // Of two changes in a row only the version that really serves is worth keeping.
        if (slot->predecessor != nullptr) {
          slot->predecessor->removed = true;
          Act(*slot->predecessor);
          removed_.push_back(std::move(slot->predecessor));
        }
        fresh->predecessor = std::move(slot);
      }
      slot = std::move(fresh);
    } else {
      without_labels.labels = slot->config.labels;
    }
    slot->config = without_labels;
    slot->scanned = false;
    slot->next_scan = now;
  }
  changed_.notify_all();

  last_load_end_ = now;
  const auto settled = [this](const auto& entry) { return Settled(*entry.second); };
  const auto serves = [](const auto& entry) { return Serves(*entry.second); };
  while (!stop_ && !std::all_of(models_.begin(), models_.end(), settled)) {
    SteadyTime end = now + timeout;
    if (stalled.has_value() && std::any_of(models_.begin(), models_.end(), serves)) {
      end = std::min(end, last_load_end_ + *stalled);
    }
    if (std::chrono::steady_clock::now() >= end) break;
    changed_.wait_until(lock, end);
  }
  TAKT_RETURN_IF_ERROR(ApplyLabels(models));
  std::vector<std::string> missing;
  for (const auto& [name, model] : models_) {
    if (!Serves(*model)) missing.push_back(name);
  }
  if (!missing.empty()) {
    return absl::UnknownError(
        StrCat("Some models did not become available: {", absl::StrJoin(missing, ", "), "}"));
  }
  return absl::OkStatus();
}

absl::Status ModelManager::ApplyLabels(const std::vector<ModelConfig>& models) {
  for (const ModelConfig& config : models) {
    const Model& model = *models_.at(config.name);
    for (const auto& [label, number] : config.labels) {
      const auto version = model.versions.find(number);
      const auto is = [&](VersionState state) {
        return version != model.versions.end() && version->second.state == state;
      };
      const auto before = model.config.labels.find(label);
      const bool moves = before != model.config.labels.end() && before->second != number;
      const bool may_wait = options_.labels_for_unavailable_versions || is(VersionState::kLoading);
      if (is(VersionState::kAvailable) || (may_wait && !moves)) continue;
      return absl::FailedPreconditionError(
          StrCat("Request to assign label to version ", number, " of model ", config.name,
                 ", which is not currently available for inference"));
    }
  }
  for (const ModelConfig& config : models) models_.at(config.name)->config.labels = config.labels;
  Publish();
  return absl::OkStatus();
}

std::vector<ModelConfig> ModelManager::Models() const {
  const std::lock_guard lock(mutex_);
  std::vector<ModelConfig> models;
  for (const auto& [name, model] : models_) models.push_back(model->config);
  return models;
}

absl::StatusOr<std::vector<VersionStatus>> ModelManager::Status(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  std::map<std::int64_t, VersionStatus> found;
  const auto add = [&](const Model& model) {
    for (const auto& [number, version] : model.versions) {
      VersionStatus status{number, version.state, version.error};
      if (version.state == VersionState::kStart) status.status = version.incomplete;
      found.emplace(number, std::move(status));
    }
  };
  if (const auto it = models_.find(name); it != models_.end()) {
    add(*it->second);
    if (it->second->predecessor != nullptr) add(*it->second->predecessor);
  }
  for (const auto& model : removed_) {
    if (model->config.name == name) add(*model);
  }
  if (found.empty()) {
    return absl::NotFoundError(StrCat("Could not find any versions of model ", name));
  }
  std::vector<VersionStatus> statuses;
  for (auto it = found.rbegin(); it != found.rend(); ++it) statuses.push_back(it->second);
  return statuses;
}

std::map<std::string, std::string> ModelManager::NotReady() const {
  const std::lock_guard lock(mutex_);
  std::map<std::string, std::string> not_ready;
  for (const auto& [name, model] : models_) {
    bool serves = false;
    std::string why = model->scanned ? std::string(ToStd(model->storage.message()))
                                     : "its storage has not been looked at yet";
    for (const Model* m = model.get(); m != nullptr; m = m->predecessor.get()) {
      for (const auto& [number, version] : m->versions) {
        if (version.state == VersionState::kAvailable) serves = true;
        if (version.failed) {
          why = StrCat("version ", number, ": ", ToStd(version.error.message()));
        } else if (version.state == VersionState::kLoading) {
          why = StrCat("version ", number, " is loading");
        } else if (version.state == VersionState::kStart) {
          why = std::string(ToStd(version.incomplete.message()));
        }
      }
    }
    if (!serves) not_ready[name] = why;
  }
  return not_ready;
}

}  // namespace takt::serving
