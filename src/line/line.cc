#include "line/line.h"

#include <sys/stat.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_join.h"
#include "base/fs.h"
#include "base/ids.h"
#include "line/build.h"
#include "line/diff.h"
#include "line/plan.h"
#include "line/serving_hint.h"
#include "line/store.h"

namespace takt::line {

const char* AppStateName(AppState state) {
  switch (state) {
    case AppState::kPending:
      return "pending";
    case AppState::kStarting:
      return "starting";
    case AppState::kRunning:
      return "running";
    case AppState::kCompleted:
      return "completed";
    case AppState::kDegraded:
      return "degraded";
    case AppState::kFailed:
      return "failed";
    case AppState::kStopping:
      return "stopping";
    case AppState::kStopped:
      return "stopped";
    case AppState::kRemoving:
      return "removing";
  }
  return "";
}

const char* ServiceActionName(ServiceAction action) {
  switch (action) {
    case ServiceAction::kStart:
      return "start";
    case ServiceAction::kRestart:
      return "restart";
    case ServiceAction::kUpdate:
      return "update";
    case ServiceAction::kUnchanged:
      return "unchanged";
    case ServiceAction::kRemove:
      return "remove";
  }
  return "";
}

namespace {

using std::chrono::steady_clock;
using ServiceKey = std::pair<std::string, std::string>;  // app, service
using Snapshot = std::map<std::string, std::map<std::string, runtime::ServiceStatus>>;

constexpr std::chrono::seconds kIdleInterval{30};      // a look around when nothing is waited for
constexpr std::chrono::seconds kRepeatInterval{5};     // before the same action is taken again
constexpr std::chrono::seconds kMaxRetryInterval{30};  // between attempts that the runtime refuses
constexpr std::chrono::seconds kHintInterval{5};  // between looks for versions that are missing
constexpr std::chrono::minutes kBackupInterval{5};
constexpr int kMaxRounds = 100;  // of one step; more means that plan and runtime do not agree

// What the runtime's threads may touch, also while the line goes away.
struct Waker {
  std::mutex mutex;
  std::condition_variable condition;
  bool awake = false, ending = false;

  void Wake() {
    {
      std::lock_guard lock(mutex);
      awake = true;
    }
    condition.notify_one();
  }
};

struct AppEntry {
  std::string created_at, updated_at;
  Revision revision;
  DesiredApp desired;
  templates::AppSpec spec;
  std::map<std::string, std::string> roles;
  std::map<std::string, Handed> handed;
  std::string broken;  // why its revision cannot be understood any more; empty = it can

  // Of this daemon's life only.
  struct Refusal {
    std::string reason;
    int attempts = 0;
    steady_clock::time_point retry_at;
  };
  struct Issued {
    Action action;
    steady_clock::time_point at;
  };
  std::map<std::string, Refusal> refusals;     // service -> of its last Deploy
  std::map<std::string, Issued> issued;        // service -> the last action taken
  std::map<std::string, std::string> waiting;  // service -> the plan's word
  std::map<std::string, std::string> remarks;  // service -> SetRemark's
  std::map<std::string, std::string> hints;    // service -> why it serves nothing
  std::string signature;                       // of what listeners were last told
};

// The same without what says nothing.
Configuration Normal(Configuration configuration) {
  std::erase_if(configuration.volume_options,
                [](const auto& entry) { return entry.second == VolumeOption{}; });
  return configuration;
}

class LineImpl final : public Line {
 public:
  LineImpl(const LineOptions& options, runtime::Runtime& runtime, storage::VolumeStore& volumes,
           const Clock& clock)
      : options_(options), runtime_(runtime), volumes_(volumes), clock_(clock) {}

  absl::Status Start() {
    if (options_.lock == nullptr) {
      TAKT_ASSIGN_OR_RETURN(own_lock_, DataLock::Take(options_.data_dir));
    }
    TAKT_ASSIGN_OR_RETURN(store_, Store::Open(options_.data_dir, options_.max_database_bytes));
    TAKT_ASSIGN_OR_RETURN(seen_, store_->Seen());
    TAKT_ASSIGN_OR_RETURN(std::vector<Store::AppRow> rows, store_->Apps());
    for (Store::AppRow& row : rows) {
      AppEntry entry;
      entry.created_at = std::move(row.created_at);
      entry.updated_at = std::move(row.updated_at);
      entry.handed = std::move(row.handed);
      Adopt(entry, Reinterpret(row.name, row.revision, entry.handed), row.name, row.revision);
      entry.desired.stopped = row.stopped;
      entry.desired.removing = row.removing;
      apps_[row.name] = std::move(entry);
    }
    backup_due_ = !apps_.empty() && BackupIsOld();
    runtime_.SetListener([waker = waker_] { waker->Wake(); });
    if (options_.own_thread) thread_ = std::thread([this] { Loop(); });
    return absl::OkStatus();
  }

  ~LineImpl() override {
    runtime_.SetListener(nullptr);
    {
      std::lock_guard lock(waker_->mutex);
      waker_->ending = true;
    }
    waker_->condition.notify_one();
    if (thread_.joinable()) thread_.join();
  }

  // ---- changes ----

  absl::StatusOr<App> Create(const std::string& name, const Configuration& configuration,
                             const ApplyOptions& options) override {
    std::lock_guard change(change_mutex_);
    TAKT_RETURN_IF_ERROR(CheckNew(name));
    Configuration normal = Normal(configuration);
    Built built = Examine(name, normal, nullptr, {});
    TAKT_RETURN_IF_ERROR(built.status);
    TAKT_ASSIGN_OR_RETURN(std::vector<std::string> created, CreateVolumes(built, options));
    Revision revision;
    revision.number = 1;
    Fill(revision, std::move(normal), built, options);
    std::unique_lock lock(mutex_);
    absl::Status written = store_->AddApp(
        name, revision,
        MakeEvent(name, "created", StrCat("created by ", revision.author, Because(options.why))));
    if (!written.ok()) {
      lock.unlock();
      RemoveVolumes(created);
      return Annotate(written, StrCat("app \"", name, "\""));
    }
    AppEntry& entry = apps_[name];
    entry.created_at = entry.updated_at = revision.created_at;
    Adopt(entry, std::move(built), name, revision);
    return Changed(name, entry);
  }

  absl::StatusOr<Preview> PreviewCreate(const std::string& name,
                                        const Configuration& configuration) override {
    std::lock_guard change(change_mutex_);
    TAKT_RETURN_IF_ERROR(CheckNew(name));
    Configuration normal = Normal(configuration);
    Built built = Examine(name, normal, nullptr, {});
    return MakePreview(std::move(built), {}, {}, normal);
  }

  absl::StatusOr<App> Configure(const std::string& name, const Configuration& configuration,
                                const ApplyOptions& options) override {
    return Change(name, configuration, options, nullptr);
  }

  absl::StatusOr<Preview> PreviewConfigure(const std::string& name,
                                           const Configuration& configuration) override {
    std::lock_guard change(change_mutex_);
    TAKT_ASSIGN_OR_RETURN(AppEntry * entry, FindChangeable(name));
    Configuration normal = Normal(configuration);
    Built built = Examine(name, normal, entry, PinsOf(*entry));
    return MakePreview(std::move(built), entry->desired.services, entry->revision.configuration,
                       normal);
  }

  absl::StatusOr<App> Rollback(const std::string& name, int number,
                               const ApplyOptions& options) override {
    Revision target;
    {
      std::lock_guard lock(mutex_);
      if (!apps_.contains(name)) return NoSuchApp(name);
      TAKT_ASSIGN_OR_RETURN(target, store_->GetRevision(name, number));
    }
    ApplyOptions with_reason = options;
    if (with_reason.why.empty()) with_reason.why = StrCat("rollback to revision ", number);
    return Change(name, target.configuration, with_reason, &target);
  }

  absl::Status Scale(const std::string& name, const std::string& service_name, int instances,
                     const std::string& why) override {
    std::lock_guard change(change_mutex_);
    TAKT_ASSIGN_OR_RETURN(AppEntry * entry, FindChangeable(name));
    std::lock_guard lock(mutex_);
    const auto desired =
        std::find_if(entry->desired.services.begin(), entry->desired.services.end(),
                     [&](const DesiredService& each) { return each.spec.service == service_name; });
    const auto spec =
        std::find_if(entry->spec.services.begin(), entry->spec.services.end(),
                     [&](const templates::ServiceSpec& each) { return each.name == service_name; });
    if (desired == entry->desired.services.end() || spec == entry->spec.services.end()) {
      return absl::NotFoundError(StrCat("app \"", name, "\" has no service ", service_name));
    }
    if (!spec->scaling || entry->desired.stopped) {
      return absl::FailedPreconditionError(
          StrCat("app \"", name, "\" service ", service_name,
                 entry->desired.stopped ? " is stopped" : " has no auto scaling labels"));
    }
    if (instances < spec->scaling->min_instances || instances > spec->scaling->max_instances) {
      return absl::InvalidArgumentError(StrCat(
          "app \"", name, "\" service ", service_name, ": expected ", spec->scaling->min_instances,
          " to ", spec->scaling->max_instances, " instances, got ", instances));
    }
    if (instances == spec->replicas) return absl::OkStatus();
    TAKT_RETURN_IF_ERROR(
        store_->AddEvent(MakeEvent(name, "scaled",
                                   StrCat("service ", service_name, " scaled from ", spec->replicas,
                                          " to ", instances, " instances", Because(why)))));
    spec->replicas = instances;
    *desired = Translate(name, entry->spec, *spec, desired->spec.image_digest);
    Changed(name, *entry);
    return absl::OkStatus();
  }

  absl::StatusOr<App> Stop(const std::string& name) override {
    std::lock_guard change(change_mutex_);
    TAKT_ASSIGN_OR_RETURN(AppEntry * entry, FindChangeable(name));
    std::lock_guard lock(mutex_);
    if (entry->desired.stopped) return View(name, *entry);
    Event event = MakeEvent(name, "stopping", "asked to stop");
    TAKT_RETURN_IF_ERROR(store_->SetStopped(name, true, {}, event));
    entry->desired.stopped = true;
    entry->updated_at = event.time;
    return Changed(name, *entry);
  }

  absl::StatusOr<App> Start(const std::string& name) override {
    std::lock_guard change(change_mutex_);
    TAKT_ASSIGN_OR_RETURN(AppEntry * entry, FindChangeable(name));
    Refresh(/*max_age=*/std::chrono::milliseconds(0));
    std::lock_guard lock(mutex_);
    if (!entry->broken.empty()) return absl::FailedPreconditionError(entry->broken);
    TAKT_RETURN_IF_ERROR(Annotate(CheckPorts(entry->desired.services, ServicesOfOthers(name)),
                                  StrCat("app \"", name, "\"")));
    std::vector<std::string> rerun;
    if (!entry->desired.stopped) {
      for (const DesiredService& service : entry->desired.services) {
        if (HasEnded(*entry, service)) rerun.push_back(service.spec.service);
      }
      if (rerun.empty()) return View(name, *entry);
    }
    Event event = MakeEvent(
        name, "starting",
        rerun.empty() ? "asked to start" : "asked to run again: " + absl::StrJoin(rerun, ", "));
    TAKT_RETURN_IF_ERROR(store_->SetStopped(name, false, rerun, event));
    entry->desired.stopped = false;
    entry->updated_at = event.time;
    for (const std::string& service : rerun) entry->handed[service].phase = Phase::kStopFirst;
    return Changed(name, *entry);
  }

  absl::StatusOr<Removal> PreviewRemove(const std::string& name) override {
    std::lock_guard lock(mutex_);
    auto it = apps_.find(name);
    if (it == apps_.end()) return NoSuchApp(name);
    Removal removal;
    for (const std::string& volume : VolumesOf(it->second)) {
      removal.volumes_kept.push_back(volume);
      std::vector<std::string> users;
      for (const auto& [other, entry] : apps_) {
        if (other != name && VolumesOf(entry).contains(volume)) users.push_back(other);
      }
      if (users.empty()) continue;
      removal.shared_with.push_back(
          StrCat(volume, users.size() == 1 ? ": app " : ": apps ", absl::StrJoin(users, ", ")));
    }
    return removal;
  }

  absl::Status Remove(const std::string& name) override {
    std::lock_guard change(change_mutex_);
    std::lock_guard lock(mutex_);
    auto it = apps_.find(name);
    if (it == apps_.end()) return NoSuchApp(name);
    if (it->second.desired.removing) return absl::OkStatus();
    TAKT_RETURN_IF_ERROR(
        store_->SetRemoving(name, MakeEvent(name, "removing", "asked to remove; volumes stay")));
    it->second.desired.removing = true;
    it->second.issued.clear();
    waker_->Wake();
    return absl::OkStatus();
  }

  // ---- views ----

  absl::StatusOr<App> Get(const std::string& name) override {
    Refresh(options_.observe_interval);
    std::lock_guard lock(mutex_);
    auto it = apps_.find(name);
    if (it == apps_.end()) return NoSuchApp(name);
    return View(name, it->second);
  }

  std::vector<App> List() override {
    Refresh(options_.observe_interval);
    std::lock_guard lock(mutex_);
    std::vector<App> apps;
    apps.reserve(apps_.size());
    for (const auto& [name, entry] : apps_) apps.push_back(View(name, entry));
    return apps;
  }

  absl::StatusOr<std::vector<Revision>> Revisions(const std::string& name) override {
    std::lock_guard lock(mutex_);
    if (!apps_.contains(name)) return NoSuchApp(name);
    return store_->Revisions(name);
  }

  std::vector<Event> Events(const std::string& app, std::int64_t after_id,
                            std::size_t limit) override {
    std::lock_guard lock(mutex_);
    auto events = store_->Events(app, after_id, limit);
    return events.ok() ? *std::move(events) : std::vector<Event>();
  }

  absl::Status AddEvent(const std::string& app, const std::string& kind, const std::string& message,
                        const std::string& level) override {
    std::lock_guard lock(mutex_);
    if (!app.empty() && !apps_.contains(app)) return NoSuchApp(app);
    TAKT_RETURN_IF_ERROR(store_->AddEvent(MakeEvent(app, kind, message, level)));
    platform_event_ = true;  // the loop tells the listeners
    waker_->Wake();
    return absl::OkStatus();
  }

  std::vector<std::string> UsersOfVolume(const std::string& volume) override {
    std::lock_guard lock(mutex_);
    std::vector<std::string> users;
    for (const auto& [name, entry] : apps_) {
      if (VolumesOf(entry).contains(volume)) users.push_back(name);
    }
    return users;
  }

  void SetRemark(const std::string& app, const std::string& service,
                 const std::string& remark) override {
    {
      std::lock_guard lock(mutex_);
      auto it = apps_.find(app);
      if (it == apps_.end()) return;
      if (remark.empty()) {
        it->second.remarks.erase(service);
      } else {
        it->second.remarks[service] = remark;
      }
    }
    waker_->Wake();
  }

  void AddListener(std::function<void(const std::string& app)> listener) override {
    std::lock_guard lock(mutex_);
    listeners_.push_back(std::move(listener));
  }

  // ---- the loop ----

  void Step() override {
    for (int round = 0; round < kMaxRounds && Round(); ++round) {
    }
    LookForVersions();
    BackUp();
    Notify();
  }

 private:
  struct Work {
    std::string app;
    Action action;
  };

  void Loop() {
    while (true) {
      Step();
      std::chrono::milliseconds wait = NextLook();
      std::unique_lock lock(waker_->mutex);
      waker_->condition.wait_for(lock, wait, [&] { return waker_->awake || waker_->ending; });
      if (waker_->ending) return;
      waker_->awake = false;
    }
  }

  std::chrono::milliseconds NextLook() {
    std::lock_guard lock(mutex_);
    std::chrono::milliseconds wait = kIdleInterval;
    for (const auto& [name, entry] : apps_) {
      if (!entry.waiting.empty() || !entry.refusals.empty() || entry.desired.removing) {
        wait = std::min(wait, options_.observe_interval);
      }
      if (!entry.hints.empty()) wait = std::min<std::chrono::milliseconds>(wait, kHintInterval);
    }
    return wait;
  }

  // Observe, decide, act once. True when something was done, so that another round may find more.
  bool Round() {
    Refresh(std::chrono::milliseconds(0));
    std::vector<Work> work;
    {
      std::lock_guard lock(mutex_);
      NoteInstances();
      for (auto& [name, entry] : apps_) {
        for (Action& action : PlanApp(name, entry)) work.push_back({name, std::move(action)});
      }
    }
    for (const Work& item : work) Execute(item.app, item.action);
    return !work.empty();
  }

  std::vector<Action> PlanApp(const std::string& name, AppEntry& entry) {
    if (!entry.broken.empty() && !entry.desired.removing) return {};
    const steady_clock::time_point now = clock_.Steady();
    ObservedApp observed;
    if (auto it = snapshot_.find(name); it != snapshot_.end()) {
      for (const auto& [service, status] : it->second) observed.services[service] = &status;
    }
    for (const DesiredService& service : entry.desired.services) {
      if (entry.desired.stopped || entry.desired.removing) break;
      const std::string& key = service.spec.service;
      auto known = entry.handed.find(key);
      auto status = observed.services.find(key);
      if (!NeedsDeploy(service, known == entry.handed.end() ? nullptr : &known->second,
                       status == observed.services.end() ? nullptr : status->second)) {
        entry.refusals.erase(key);
        continue;
      }
      FindUnready(name, service, observed.unready);
      auto refusal = entry.refusals.find(key);
      if (refusal != entry.refusals.end() && now < refusal->second.retry_at) {
        observed.held[key] = refusal->second.reason;
      }
    }
    Plan plan = MakePlan(entry.desired, entry.handed, observed);
    for (const auto& [service, reason] : plan.waiting) {
      auto old = entry.waiting.find(service);
      if (old != entry.waiting.end() && old->second == reason) continue;
      bool refused = entry.refusals.contains(service);
      Note(store_->AddEvent(
          MakeEvent(name, "waiting", StrCat(service, ": ", reason), refused ? "warning" : "info")));
    }
    entry.waiting = std::move(plan.waiting);
    // What was done a moment ago and has not shown yet is not done again at once.
    std::erase_if(plan.actions, [&](const Action& action) {
      auto last = entry.issued.find(action.service);
      return last != entry.issued.end() && last->second.action == action &&
             now < last->second.at + kRepeatInterval;
    });
    return std::move(plan.actions);
  }

  // Volumes and directories that the service needs and cannot have now.
  void FindUnready(const std::string& app, const DesiredService& service,
                   std::map<std::string, std::string>& unready) {
    for (const MountSource& source : service.sources) {
      if (source.source.empty() || unready.contains(source.source)) continue;
      if (source.kind == templates::Mount::Kind::kVolume) {
        absl::Status ready = volumes_.Ready(source.source);
        if (!ready.ok()) unready[source.source] = std::string(ready.message());
      } else if (source.kind == templates::Mount::Kind::kBind && !Exists(source.source) &&
                 !source.source.starts_with(ProjectDir(app) + "/")) {
        unready[source.source] = "no such file or directory";
      }
    }
  }

  void Execute(const std::string& name, const Action& action) {
    switch (action.kind) {
      case Action::Kind::kDeploy:
        return Deploy(name, action);
      case Action::Kind::kStop:
        Issue(name, action);
        return NoteFailure(name, action, runtime_.Stop(name, action.service));
      case Action::Kind::kRemove:
        Issue(name, action);
        return NoteFailure(name, action, runtime_.Remove(name, action.service));
      case Action::Kind::kForgetService: {
        std::lock_guard lock(mutex_);
        auto it = apps_.find(name);
        if (it == apps_.end()) return;
        it->second.issued[action.service] = {action, clock_.Steady()};
        if (!Note(store_->DeleteHanded(name, action.service))) return;
        it->second.handed.erase(action.service);
        return;
      }
      case Action::Kind::kForgetApp: {
        RemoveAll(ProjectDir(name)).IgnoreError();  // what stays behind is overwritten or harmless
        std::lock_guard lock(mutex_);
        auto it = apps_.find(name);
        if (it == apps_.end()) return;
        it->second.issued[action.service] = {action, clock_.Steady()};
        if (!Note(store_->DeleteApp(name, MakeEvent(name, "removed", "removed")))) return;
        apps_.erase(it);
        removed_.insert(name);
        backup_due_ = true;
        return;
      }
    }
  }

  void Issue(const std::string& name, const Action& action) {
    std::lock_guard lock(mutex_);
    auto it = apps_.find(name);
    if (it != apps_.end()) it->second.issued[action.service] = {action, clock_.Steady()};
  }

  void NoteFailure(const std::string& name, const Action& action, const absl::Status& status) {
    if (status.ok() || absl::IsNotFound(status)) return;
    std::lock_guard lock(mutex_);
    Note(store_->AddEvent(
        MakeEvent(name, "failed",
                  StrCat(action.service, ": could not be ",
                         action.kind == Action::Kind::kStop ? "stopped" : "removed", ": ",
                         std::string(status.message())),
                  "error")));
  }

  // Written down, done, written down: a daemon that dies in between does the second half again,
  // which changes nothing where it was done.
  void Deploy(const std::string& name, const Action& action) {
    DesiredService service;
    Handed handed;
    {
      std::lock_guard lock(mutex_);
      auto it = apps_.find(name);
      if (it == apps_.end() || it->second.desired.removing || it->second.desired.stopped) return;
      AppEntry& entry = it->second;
      const DesiredService* found = FindService(entry, action.service);
      if (found == nullptr) return;
      service = *found;
      entry.issued[action.service] = {action, clock_.Steady()};
      if (auto known = entry.handed.find(action.service); known != entry.handed.end()) {
        handed = known->second;
      }
      const bool was_deploying = handed.phase == Phase::kDeploying && handed.revision != 0 &&
                                 handed.identity == service.identity;
      handed.identity = service.identity;
      handed.settings = service.settings;
      handed.replicas = service.spec.replicas;
      handed.revision = action.revision;
      handed.tried[service.identity] = action.revision;
      handed.phase = Phase::kDeploying;
      const runtime::ServiceStatus* status = StatusOf(name, action.service);
      if (status == nullptr) {
        handed.before.clear();
      } else if (status->stopped && !was_deploying) {
        handed.before.clear();
        for (const auto& instance : status->instances) handed.before.insert(instance.id);
      }
      entry.handed[action.service] = handed;
      absl::Status written = store_->PutHanded(name, action.service, handed);
      if (!written.ok()) return Refused(entry, action.service, written);
    }
    service.spec.revision = action.revision;
    absl::Status status = FindHostPaths(name, service);
    if (status.ok()) status = runtime_.Deploy(service.spec);
    std::lock_guard lock(mutex_);
    auto it = apps_.find(name);
    if (it == apps_.end()) return;
    AppEntry& entry = it->second;
    if (!status.ok()) return Refused(entry, action.service, status);
    entry.refusals.erase(action.service);
    if (entry.handed[action.service] != handed) return;  // somebody wants it otherwise by now
    handed.phase = Phase::kDeployed;
    handed.tried = {{handed.identity, handed.revision}};
    if (Note(store_->PutHanded(name, action.service, handed)))
      entry.handed[action.service] = handed;
  }

  void Refused(AppEntry& entry, const std::string& service, const absl::Status& status) {
    AppEntry::Refusal& refusal = entry.refusals[service];
    refusal.reason = std::string(status.message());
    auto wait = options_.observe_interval * (1 << std::min(refusal.attempts, 5));
    refusal.retry_at =
        clock_.Steady() + std::min<std::chrono::milliseconds>(wait, kMaxRetryInterval);
    ++refusal.attempts;
    entry.issued.erase(service);
  }

  absl::Status FindHostPaths(const std::string& app, DesiredService& service) {
    for (std::size_t i = 0; i < service.sources.size(); ++i) {
      const MountSource& source = service.sources[i];
      std::string& path = service.spec.mounts[i].host_path;
      switch (source.kind) {
        case templates::Mount::Kind::kTmpfs:
          break;
        case templates::Mount::Kind::kBind:
          path = source.source;
          if (!Exists(path)) TAKT_RETURN_IF_ERROR(MakeDirs(path));
          break;
        case templates::Mount::Kind::kVolume:
          if (!source.source.empty()) {
            TAKT_ASSIGN_OR_RETURN(path, volumes_.Resolve(source.source, source.subdirectory));
          } else {
            path = JoinPath(ProjectDir(app), StrCat(".anonymous/", service.spec.service, "/", i));
            TAKT_RETURN_IF_ERROR(MakeDirs(path));
          }
          break;
      }
    }
    return absl::OkStatus();
  }

  // ---- observation ----

  // Asks the runtime unless what is known is younger than `max_age`.
  void Refresh(std::chrono::milliseconds max_age) {
    std::uint64_t asked = 0;
    {
      std::lock_guard lock(mutex_);
      if (snapshot_number_ != 0 && max_age.count() != 0 &&
          clock_.Steady() - snapshot_time_ < max_age) {
        return;
      }
      asked = ++asked_;
    }
    absl::StatusOr<std::vector<runtime::ServiceStatus>> observed = runtime_.Observe();
    Snapshot snapshot;
    if (observed.ok()) {
      for (runtime::ServiceStatus& status : *observed) {
        auto& slot = snapshot[status.app][status.service];
        slot = std::move(status);
      }
    }
    std::lock_guard lock(mutex_);
    if (!observed.ok()) {
      std::string reason(observed.status().message());
      if (std::exchange(observe_error_, reason) != reason) {
        Note(store_->AddEvent(
            MakeEvent("", "runtime", "the runtime cannot be observed: " + reason, "error")));
      }
      return;
    }
    observe_error_.clear();
    if (asked < snapshot_number_) return;  // a younger answer came first
    snapshot_ = std::move(snapshot);
    snapshot_number_ = asked;
    snapshot_time_ = clock_.Steady();
  }

  const runtime::ServiceStatus* StatusOf(const std::string& app, const std::string& service) const {
    auto it = snapshot_.find(app);
    if (it == snapshot_.end()) return nullptr;
    auto status = it->second.find(service);
    return status == it->second.end() ? nullptr : &status->second;
  }

  // Makes an event of every change of an instance, once: what was told is in the database.
  void NoteInstances() {
    std::set<std::string> present;
    for (const auto& [app, services] : snapshot_) {
      for (const auto& [service, status] : services) {
        for (const runtime::InstanceStatus& instance : status.instances) {
          present.insert(instance.id);
          NoteInstance(app, service, status, instance);
        }
      }
    }
    for (auto it = seen_.begin(); it != seen_.end();) {
      if (present.contains(it->first)) {
        ++it;
      } else {
        Note(store_->DeleteSeen(it->first));
        it = seen_.erase(it);
      }
    }
  }

  void NoteInstance(const std::string& app, const std::string& service,
                    const runtime::ServiceStatus& status, const runtime::InstanceStatus& instance) {
    std::string& seen = seen_[instance.id];
    std::string now, kind, message, level = "info";
    const std::string name =
        status.desired_replicas > 1 ? StrCat(service, " ", instance.replica + 1) : service;
    switch (instance.state) {
      case runtime::InstanceState::kStarting:
        return;
      case runtime::InstanceState::kRunning:
        now = instance.health == runtime::Health::kUnhealthy ? "unhealthy"
              : instance.health == runtime::Health::kHealthy ? "healthy"
                                                             : "running";
        if (now == seen) return;
        if (now == "unhealthy") {
          kind = now;
          level = "warning";
          message = StrCat(name, ": ",
                           instance.reason.empty() ? "its health check fails" : instance.reason);
        } else if (seen == "unhealthy") {
          kind = "healthy";
          message = StrCat(name, " is healthy again");
        } else if (seen.empty()) {
          kind = instance.restarts > 0 ? "restarted" : "started";
          message = StrCat(name, " ", kind, " (revision ", instance.revision, ")");
        }
        break;
      case runtime::InstanceState::kStopping:
        now = "stopping";
        break;
      case runtime::InstanceState::kExited:
      case runtime::InstanceState::kBackingOff:
        now = "ended";
        if (now == seen) return;
        message = StrCat(name, ": ", EndText(instance));
        if (seen == "stopping" || status.stopped || MadeWay(app, service, instance)) {
          kind = "stopped";
        } else if (instance.exit_code == 0) {
          kind = instance.state == runtime::InstanceState::kExited ? "completed" : "exited";
        } else {
          kind = "failed";
          level = "error";
        }
        break;
    }
    if (now == seen) return;
    seen = now;
    Note(store_->PutSeen(instance.id, now, MakeEvent(app, kind, message, level)));
  }

  // An instance that ended because something else is wanted by now.
  bool MadeWay(const std::string& app, const std::string& service,
               const runtime::InstanceStatus& instance) const {
    auto entry = apps_.find(app);
    if (entry == apps_.end()) return true;
    auto handed = entry->second.handed.find(service);
    return handed == entry->second.handed.end() || handed->second.revision != instance.revision ||
           handed->second.before.contains(instance.id) ||
           instance.replica >= handed->second.replicas;
  }

  bool HasEnded(const AppEntry& entry, const DesiredService& service) const {
    auto handed = entry.handed.find(service.spec.service);
    if (handed == entry.handed.end() || handed->second.phase != Phase::kDeployed) return false;
    const runtime::ServiceStatus* status = StatusOf(entry.desired.name, service.spec.service);
    std::vector<const runtime::InstanceStatus*> instances =
        CurrentInstances(status, &handed->second);
    return !instances.empty() &&
           std::all_of(instances.begin(), instances.end(), [](const auto* instance) {
             return instance->state == runtime::InstanceState::kExited;
           });
  }

  // ---- building ----

  std::string ProjectDir(const std::string& app) const {
    return JoinPath(options_.data_dir, "apps/" + app);
  }

  absl::Status CheckNew(const std::string& name) {
    if (!IsValidName(name)) {
      return absl::InvalidArgumentError(
          StrCat("app \"", name.substr(0, 80),
                 "\": expected a name of 1 to 63 letters, digits, \"_\", \".\" and \"-\" that "
                 "begins with a letter or a digit"));
    }
    std::lock_guard lock(mutex_);
    auto it = apps_.find(name);
    if (it != apps_.end()) {
      return absl::AlreadyExistsError(
          StrCat("app \"", name, "\" ",
                 it->second.desired.removing ? "is still being removed" : "exists already"));
    }
    if (apps_.size() >= kMaxApps) {
      return absl::ResourceExhaustedError(
          StrCat("app \"", name, "\": there are ", kMaxApps, " apps, the most there may be"));
    }
    return absl::OkStatus();
  }

  // Entries stay where they are, and only the holder of change_mutex_ changes what is desired; but
  // the loop may remove one that is being removed.
  absl::StatusOr<AppEntry*> FindChangeable(const std::string& name) {
    std::lock_guard lock(mutex_);
    auto it = apps_.find(name);
    if (it == apps_.end()) return NoSuchApp(name);
    if (it->second.desired.removing) {
      return absl::FailedPreconditionError(StrCat("app \"", name, "\" is being removed"));
    }
    return &it->second;
  }

  static absl::Status NoSuchApp(const std::string& name) {
    return absl::NotFoundError(StrCat("there is no app \"", name.substr(0, 80), "\""));
  }

  static std::map<std::string, BuildInput::Pin> PinsOf(const AppEntry& entry) {
    std::map<std::string, BuildInput::Pin> pins;
    for (const DesiredService& service : entry.desired.services) {
      pins[service.spec.service] = {service.spec.image, service.spec.image_digest};
    }
    return pins;
  }

  std::vector<const DesiredService*> ServicesOfOthers(const std::string& name) const {
    std::vector<const DesiredService*> others;
    for (const auto& [other, entry] : apps_) {
      if (other == name || entry.desired.stopped) continue;
      for (const DesiredService& service : entry.desired.services) others.push_back(&service);
    }
    return others;
  }

  // Called with change_mutex_ held, so that nothing of `current` or of other apps changes.
  Built Examine(const std::string& name, const Configuration& configuration,
                const AppEntry* current, std::map<std::string, BuildInput::Pin> pins) {
    BuildInput input;
    input.app = name;
    input.configuration = &configuration;
    input.project_dir = ProjectDir(name);
    input.pins = std::move(pins);
    std::vector<DesiredService> others;
    {
      std::lock_guard lock(mutex_);
      for (const DesiredService* service : ServicesOfOthers(name)) {
        if (!service->spec.ports.empty()) others.push_back(*service);
      }
    }
    for (const DesiredService& service : others) input.others.push_back(&service);
    if (current != nullptr) {
      input.current = &current->desired.services;
      input.will_run = !current->desired.stopped;
      for (const DesiredService& service : current->desired.services) {
        input.scaled[service.spec.service] = service.spec.replicas;
      }
    }
    return Build(input, runtime_, volumes_);
  }

  Built Reinterpret(const std::string& name, const Revision& revision,
                    const std::map<std::string, Handed>& handed) {
    BuildInput input;
    input.app = name;
    input.configuration = &revision.configuration;
    input.project_dir = ProjectDir(name);
    for (const auto& [service, digest] : revision.image_digests) input.pins[service] = {"", digest};
    for (const auto& [service, last] : handed) input.scaled[service] = last.replicas;
    return Rebuild(input, runtime_);
  }

  static void Adopt(AppEntry& entry, Built built, const std::string& name,
                    const Revision& revision) {
    entry.broken = built.status.ok() ? ""
                                     : StrCat("revision ", revision.number,
                                              " cannot be understood by this version of takt: ",
                                              std::string(built.status.message()));
    entry.revision = revision;
    entry.spec = std::move(built.spec);
    entry.roles = std::move(built.roles);
    entry.desired.name = name;
    entry.desired.revision = revision.number;
    entry.desired.services = std::move(built.services);
    entry.refusals.clear();
    entry.hints.clear();
  }

  void Fill(Revision& revision, Configuration configuration, const Built& built,
            const ApplyOptions& options) const {
    revision.configuration = std::move(configuration);
    revision.image_digests = built.digests;
    revision.created_at = FormatRfc3339(clock_.Now());
    revision.author = options.author.empty() ? "local" : options.author;
    revision.why = options.why;
  }

  // Configure, and with `target` Rollback to it.
  absl::StatusOr<App> Change(const std::string& name, const Configuration& configuration,
                             const ApplyOptions& options, const Revision* target) {
    std::lock_guard change(change_mutex_);
    TAKT_ASSIGN_OR_RETURN(AppEntry * entry, FindChangeable(name));
    Configuration normal = Normal(configuration);
    const bool same = normal == entry->revision.configuration;
    if (same && (target == nullptr || target->image_digests == entry->revision.image_digests)) {
      std::lock_guard lock(mutex_);
      return View(name, *entry);
    }
    std::map<std::string, BuildInput::Pin> pins;
    if (target == nullptr) {
      pins = PinsOf(*entry);
    } else {
      for (const auto& [service, digest] : target->image_digests) pins[service] = {"", digest};
    }
    Built built = Examine(name, normal, entry, std::move(pins));
    TAKT_RETURN_IF_ERROR(built.status);
    TAKT_ASSIGN_OR_RETURN(std::vector<std::string> created, CreateVolumes(built, options));
    Revision revision;
    revision.number = entry->revision.number + 1;
    revision.rollback_of = target == nullptr ? 0 : target->number;
    Fill(revision, std::move(normal), built, options);
    std::unique_lock lock(mutex_);
    absl::Status written = store_->AddRevision(
        name, revision,
        MakeEvent(
            name, target == nullptr ? "configured" : "rolled_back",
            StrCat("revision ", revision.number, " by ", revision.author, Because(revision.why))));
    if (!written.ok()) {
      lock.unlock();
      RemoveVolumes(created);
      return Annotate(written, StrCat("app \"", name, "\""));
    }
    entry->updated_at = revision.created_at;
    Adopt(*entry, std::move(built), name, revision);
    return Changed(name, *entry);
  }

  static std::string Because(const std::string& why) { return why.empty() ? "" : ": " + why; }

  absl::StatusOr<std::vector<std::string>> CreateVolumes(const Built& built,
                                                         const ApplyOptions& options) {
    if (!built.missing_volumes.empty() && !options.create_volumes) {
      std::vector<std::string> names;
      for (const NewVolume& volume : built.missing_volumes) names.push_back(volume.name);
      return absl::FailedPreconditionError(
          StrCat(names.size() == 1 ? "there is no volume " : "there are no volumes ",
                 absl::StrJoin(names, ", "), "; create ", names.size() == 1 ? "it" : "them",
                 " first, or deploy with the option to create missing volumes"));
    }
    std::vector<std::string> created;
    for (const auto* list : {&built.declared_volumes, &built.missing_volumes}) {
      for (const NewVolume& volume : *list) {
        absl::Status status = volumes_.Create(volume.name, volume.driver, volume.options).status();
        if (!status.ok()) {
          RemoveVolumes(created);
          return status;
        }
        created.push_back(volume.name);
      }
    }
    return created;
  }

  void RemoveVolumes(const std::vector<std::string>& names) {
    // They were made a moment ago for a call that fails: its own error is the one to tell.
    for (const std::string& name : names) volumes_.Remove(name).IgnoreError();
  }

  Preview MakePreview(Built built, const std::vector<DesiredService>& before,
                      const Configuration& old_configuration, const Configuration& configuration) {
    Preview preview;
    preview.changes = DiffConfigurations(old_configuration, configuration);
    if (!built.services.empty()) preview.services = PlanServices(before, built.services);
    for (const NewVolume& volume : built.missing_volumes) {
      preview.missing_volumes.push_back(volume.name);
    }
    for (const DesiredService& service : built.services) {
      std::optional<ServedDirectory> served = FindServedDirectory(service.spec, service.sources);
      if (!served) continue;
      std::optional<ServingHint> hint = HintFor(*served);
      if (!hint || hint->subdirectory.empty() || !served->is_mount) continue;
      Suggestion suggestion;
      suggestion.service = service.spec.service;
      suggestion.volume = served->volume;
      suggestion.option.subdirectory = JoinPath(served->subdirectory, hint->subdirectory);
      suggestion.message = hint->message;
      preview.suggestions.push_back(std::move(suggestion));
    }
    preview.parameters = std::move(built.parameters);
    preview.issues = std::move(built.issues);
    preview.template_diff = UnifiedDiff(
        old_configuration.template_text, configuration.template_text,
        old_configuration.template_text.empty() ? "/dev/null" : old_configuration.template_name,
        configuration.template_name);
    return preview;
  }

  // nullopt where there are versions, or where nothing can be said.
  std::optional<ServingHint> HintFor(const ServedDirectory& served) {
    auto volume = volumes_.Get(served.volume);
    if (!volume.ok() || !volumes_.Ready(served.volume).ok()) return std::nullopt;
    return FindServingHint(served.base_path,
                           ListTwoLevels(JoinPath(volume->host_path, served.subdirectory)));
  }

  // Tells of servers that have no version to load why.
  void LookForVersions() {
    struct Look {
      std::string app, service;
      ServedDirectory served;
      std::string hint;
    };
    std::vector<Look> looks;
    {
      std::lock_guard lock(mutex_);
      if (clock_.Steady() < next_hints_) return;
      next_hints_ = clock_.Steady() + kHintInterval;
      for (const auto& [name, entry] : apps_) {
        if (entry.desired.stopped || entry.desired.removing) continue;
        for (const DesiredService& service : entry.desired.services) {
          auto served = FindServedDirectory(service.spec, service.sources);
          if (served) looks.push_back({name, service.spec.service, *std::move(served), ""});
        }
      }
    }
    for (Look& look : looks) {
      std::optional<ServingHint> hint = HintFor(look.served);
      if (hint) look.hint = hint->message;
    }
    std::lock_guard lock(mutex_);
    for (Look& look : looks) {
      auto it = apps_.find(look.app);
      if (it == apps_.end()) continue;
      if (look.hint.empty()) {
        it->second.hints.erase(look.service);
      } else {
        it->second.hints[look.service] = std::move(look.hint);
      }
    }
  }

  // ---- telling ----

  static const DesiredService* FindService(const AppEntry& entry, const std::string& service) {
    for (const DesiredService& candidate : entry.desired.services) {
      if (candidate.spec.service == service) return &candidate;
    }
    return nullptr;
  }

  static std::set<std::string> VolumesOf(const AppEntry& entry) {
    std::set<std::string> volumes;
    for (const DesiredService& service : entry.desired.services) {
      for (const runtime::MountSpec& mount : service.spec.mounts) {
        if (!mount.volume.empty()) volumes.insert(mount.volume);
      }
    }
    return volumes;
  }

  State StateOf(const AppEntry& entry, const DesiredService& service) const {
    const std::string& name = service.spec.service;
    auto handed = entry.handed.find(name);
    auto waiting = entry.waiting.find(name);
    auto refusal = entry.refusals.find(name);
    std::string word;
    if (waiting != entry.waiting.end()) {
      word = waiting->second;
    } else if (refusal != entry.refusals.end()) {
      word = refusal->second.reason;
    }
    State state = ServiceState(entry.desired, service,
                               handed == entry.handed.end() ? nullptr : &handed->second,
                               StatusOf(entry.desired.name, name), word);
    for (const auto* notes : {&entry.remarks, &entry.hints}) {
      auto note = notes->find(name);
      if (note == notes->end() || state.state == AppState::kStopped) continue;
      state.reason += StrCat(state.reason.empty() ? "" : "; ", note->second);
    }
    return state;
  }

  std::pair<State, std::vector<State>> States(const AppEntry& entry) const {
    if (!entry.broken.empty() && !entry.desired.removing) {
      return {{AppState::kFailed, entry.broken}, {}};
    }
    std::vector<std::pair<std::string, State>> named;
    std::vector<State> states;
    for (const DesiredService& service : entry.desired.services) {
      states.push_back(StateOf(entry, service));
      named.emplace_back(service.spec.service, states.back());
    }
    return {CombineStates(entry.desired, named), std::move(states)};
  }

  App View(const std::string& name, const AppEntry& entry) const {
    App app;
    app.name = name;
    app.revision = entry.revision;
    app.stopped = entry.desired.stopped;
    app.created_at = entry.created_at;
    app.updated_at = entry.updated_at;
    auto [state, states] = States(entry);
    app.state = state.state;
    app.reason = std::move(state.reason);
    for (std::size_t i = 0; i < states.size(); ++i) {
      ServiceView view;
      view.spec = entry.spec.services[i];
      if (auto role = entry.roles.find(view.spec.name); role != entry.roles.end()) {
        view.role = role->second;
      }
      view.state = states[i].state;
      view.reason = std::move(states[i].reason);
      const runtime::ServiceStatus* status = StatusOf(name, view.spec.name);
      if (status != nullptr) view.instances = status->instances;
      app.services.push_back(std::move(view));
    }
    return app;
  }

  // After a change by a person: look at once, and forget what was tried in vain before.
  App Changed(const std::string& name, AppEntry& entry) {
    entry.issued.clear();
    entry.refusals.clear();
    next_hints_ = {};
    backup_due_ = true;
    waker_->Wake();
    return View(name, entry);
  }

  void Notify() {
    std::vector<std::string> changed;
    std::vector<std::function<void(const std::string&)>> listeners;
    {
      std::lock_guard lock(mutex_);
      for (auto& [name, entry] : apps_) {
        std::string signature = SignatureOf(name, entry);
        if (std::exchange(entry.signature, signature) != signature) changed.push_back(name);
      }
      changed.insert(changed.end(), removed_.begin(), removed_.end());
      removed_.clear();
      if (std::exchange(platform_event_, false)) changed.emplace_back();
      listeners = listeners_;
    }
    for (const std::string& name : changed) {
      for (const auto& listener : listeners) listener(name);
    }
  }

  std::string SignatureOf(const std::string& name, const AppEntry& entry) const {
    auto [state, states] = States(entry);
    std::string text = StrCat(entry.revision.number, " ", static_cast<int>(state.state), " ",
                              state.reason, entry.desired.stopped ? " stopped" : "");
    for (const State& service : states) {
      absl::StrAppend(&text, "\n", static_cast<int>(service.state), " ", service.reason);
    }
    auto it = snapshot_.find(name);
    if (it == snapshot_.end()) return text;
    for (const auto& [service, status] : it->second) {
      for (const runtime::InstanceStatus& instance : status.instances) {
        absl::StrAppend(&text, "\n", instance.id, " ", static_cast<int>(instance.state), " ",
                        static_cast<int>(instance.health), " ", instance.reason);
      }
    }
    return text;
  }

  Event MakeEvent(const std::string& app, const std::string& kind, const std::string& message,
                  const std::string& level = "info") const {
    return {0, FormatRfc3339(clock_.Now()), app, kind, message, level};
  }

  // The loop goes on when its notes cannot be written (a full disk); false says so.
  static bool Note(const absl::Status& status) { return status.ok(); }

  // ---- backups ----

  bool BackupIsOld() const {
    auto changed_at = [](const std::string& path) {
      struct stat info {};
      return ::stat(path.c_str(), &info) == 0 ? info.st_mtime : 0;
    };
    std::string path = JoinPath(options_.data_dir, "takt.db");
    return changed_at(path + ".backup") <= std::max(changed_at(path), changed_at(path + "-wal"));
  }

  void BackUp() {
    {
      std::lock_guard lock(mutex_);
      if (!backup_due_) return;
      const steady_clock::time_point now = clock_.Steady();
      if (last_backup_ && now < *last_backup_ + kBackupInterval) return;
      backup_due_ = false;
      last_backup_ = now;
    }
    absl::Status status = Store::Backup(options_.data_dir);
    if (status.ok()) return;
    std::lock_guard lock(mutex_);
    platform_event_ = true;
    Note(store_->AddEvent(
        MakeEvent("", "backup",
                  StrCat("the database could not be backed up: ", std::string(status.message())),
                  "warning")));
  }

  const LineOptions options_;
  runtime::Runtime& runtime_;
  storage::VolumeStore& volumes_;
  const Clock& clock_;
  std::unique_ptr<DataLock> own_lock_;
  const std::shared_ptr<Waker> waker_ = std::make_shared<Waker>();

  std::mutex change_mutex_;  // one change by a person at a time; taken before mutex_
  std::mutex mutex_;         // all below
  std::unique_ptr<Store> store_;
  std::map<std::string, AppEntry> apps_;
  Snapshot snapshot_;
  std::uint64_t asked_ = 0, snapshot_number_ = 0;
  steady_clock::time_point snapshot_time_;
  std::string observe_error_;
  std::map<std::string, std::string> seen_;  // instance -> the state that an event told
  std::set<std::string> removed_;            // apps that listeners have not heard of yet
  std::vector<std::function<void(const std::string&)>> listeners_;
  steady_clock::time_point next_hints_;
  bool backup_due_ = false, platform_event_ = false;
  std::optional<steady_clock::time_point> last_backup_;

  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Line>> Line::Open(const LineOptions& options,
                                                 runtime::Runtime& runtime,
                                                 storage::VolumeStore& volumes,
                                                 const Clock& clock) {
  auto line = std::make_unique<LineImpl>(options, runtime, volumes, clock);
  TAKT_RETURN_IF_ERROR(line->Start());
  return line;
}

}  // namespace takt::line
