// The line: apps with numbered revisions, desired state against observed, the one loop that acts.
// It is not a runtime (it starts no process itself) and not the public API (it knows no JSON
// bodies). Threads: one loop thread of its own carries plans out; every public function may be
// called from any thread and returns quickly.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "runtime/runtime.h"
#include "storage/volumes.h"
#include "template/template.h"

namespace takt::line {

// What a person may set about a volume for one app, in the form's "volume options".
struct VolumeOption {
  std::string subdirectory;  // relative; "" = the volume's root
  bool operator==(const VolumeOption&) const = default;
};

// What a user asks an app to be. The content of a revision.
struct Configuration {
  std::string template_text;
  std::string template_name = "template";  // file name, for messages
  std::map<std::string, std::string> values;
  std::map<std::string, VolumeOption> volume_options;  // by volume name
  bool operator==(const Configuration&) const = default;
};

struct Revision {
  int number = 0;  // from 1
  Configuration configuration;
  std::map<std::string, std::string> image_digests;  // service -> resolved
  std::string created_at;                            // RFC 3339
  std::string author;                                // who
  std::string why;                                   // "", or "rollback to revision 3"
  int rollback_of = 0;                               // 0 = none
};

enum class AppState {
  kPending,  // something is waited for; reason says what
  kStarting,
  kRunning,    // every service as desired, healthy where there is a check
  kCompleted,  // every service ended with exit code 0 and will not restart
  kDegraded,   // some instances not as desired
  kFailed,     // ended with an error and will not restart
  kStopping,
  kStopped,
  kRemoving,
};
const char* AppStateName(AppState state);  // "pending", ...

struct ServiceView {
  templates::ServiceSpec spec;  // as the current revision means it
  std::string role;             // "training", "serving", "client", "": labels, then catalogue
  AppState state = AppState::kPending;
  std::string reason;
  std::vector<runtime::InstanceStatus> instances;
};

struct App {
  std::string name;
  Revision revision;  // the current one
  AppState state = AppState::kPending;
  std::string reason;  // for every state that is not running, in words
  bool stopped = false;
  std::string created_at, updated_at;
  std::vector<ServiceView> services;
};

// One difference between two configurations, for people.
struct Change {
  enum class Kind { kAdded, kRemoved, kChanged };
  Kind kind = Kind::kChanged;
  std::string path;  // "values.VERSION", "services.web.command[2]", "volumes.m.subdirectory"
  std::string before, after;
};
enum class ServiceAction {
  kStart,
  kRestart,
  kUpdate,  // only replicas, labels or restart policy: what runs goes on
  kUnchanged,
  kRemove,
};
const char* ServiceActionName(ServiceAction action);  // "start", ...
struct ServicePlan {
  std::string service;
  ServiceAction action = ServiceAction::kUnchanged;
  std::vector<Change> changes;  // why it restarts
};
// A volume option that would make an app work which as it is finds nothing.
struct Suggestion {
  std::string service;
  std::string volume;
  VolumeOption option;
  std::string message;  // "no version under /mnist_model; found 1 under ...: did you mean that?"
};
// What would happen; computed, nothing done.
struct Preview {
  std::vector<Change> changes;               // of values, template, volume options
  std::vector<ServicePlan> services;         // all of them, the unchanged too
  std::vector<std::string> missing_volumes;  // named by the template, not on the platform
  std::vector<templates::Parameter> parameters;
  std::vector<templates::Issue> issues;  // errors and warnings
  std::string template_diff;             // unified diff, empty when equal
  std::vector<Suggestion> suggestions;
  bool anything_changes() const {
    if (!changes.empty()) return true;
    for (const ServicePlan& plan : services) {
      if (plan.action != ServiceAction::kUnchanged) return true;
    }
    return false;
  }
};

struct Removal {
  std::vector<std::string> volumes_kept;  // shared, named
  std::vector<std::string> shared_with;   // "mnist_model: apps serving, client"
};

struct Event {
  std::int64_t id = 0;  // rising
  std::string time;     // RFC 3339
  std::string app;      // "" = the platform
  std::string kind;     // "created", "configured", "started", "exited", "failed", "stopped", ...
  std::string message;
  std::string level = "info";  // "info", "warning", "error"
};

struct ApplyOptions {
  bool create_volumes = false;  // create the missing named ones, local
  std::string author = "local";
  std::string why;
};

// Holds a data directory for one daemon until it goes out of scope. Take it before anything else
// touches the directory.
class DataLock {
 public:
  // FAILED_PRECONDITION when another process (or another lock of this one) holds it: says which.
  static absl::StatusOr<std::unique_ptr<DataLock>> Take(const std::string& data_dir);
  ~DataLock();
  DataLock(const DataLock&) = delete;
  DataLock& operator=(const DataLock&) = delete;

 private:
  explicit DataLock(int fd) : fd_(fd) {}
  int fd_;
};

struct LineOptions {
  std::string data_dir;
  // How often the loop looks again while something is waited for; changes wake it at once, and
  // where nothing is waited for it sleeps.
  std::chrono::milliseconds observe_interval{1000};
  const DataLock* lock = nullptr;  // of data_dir, held by the caller; null: Open takes it itself
  bool own_thread = true;          // false: nothing happens but in Step (tests drive time)
  std::uint64_t max_database_bytes = 1ull << 30;  // beyond: RESOURCE_EXHAUSTED, as a full disk
};

inline constexpr std::size_t kMaxApps = 1000;
inline constexpr std::size_t kMaxRevisionsPerApp = 1000;  // beyond: the oldest goes
inline constexpr std::size_t kMaxEvents = 10'000;         // beyond: the oldest go
inline constexpr std::size_t kMaxValues = 1000;           // of one configuration
inline constexpr std::size_t kMaxValueBytes = 64 << 10;
inline constexpr int kMaxBackups = 3;  // takt.db.backup, .backup.1, .backup.2

class Line {
 public:
  // Opens <data_dir>/takt.db and goes on where the last daemon ended. FAILED_PRECONDITION when
  // another daemon has the directory or a newer version wrote it; DATA_LOSS when the database is
  // corrupt (the file is kept; says which backup can be restored and how). `runtime`, `volumes` and
  // `clock` must outlive the line.
  static absl::StatusOr<std::unique_ptr<Line>> Open(const LineOptions& options,
                                                    runtime::Runtime& runtime,
                                                    storage::VolumeStore& volumes,
                                                    const Clock& clock);
  virtual ~Line() = default;  // stops the loop; instances go on

  // INVALID_ARGUMENT with all issues; UNIMPLEMENTED for what the runtime cannot do, by name;
  // NOT_FOUND for an image; ALREADY_EXISTS for the name or a port; FAILED_PRECONDITION naming the
  // missing volumes when !create_volumes. No side effect where it fails.
  virtual absl::StatusOr<App> Create(const std::string& name, const Configuration& configuration,
                                     const ApplyOptions& options) = 0;
  virtual absl::StatusOr<Preview> PreviewCreate(const std::string& name,
                                                const Configuration& configuration) = 0;
  // A new revision; only services whose specification changed restart. An equal configuration
  // makes no revision and restarts nothing.
  virtual absl::StatusOr<App> Configure(const std::string& name, const Configuration& configuration,
                                        const ApplyOptions& options) = 0;
  virtual absl::StatusOr<Preview> PreviewConfigure(const std::string& name,
                                                   const Configuration& configuration) = 0;
  virtual absl::StatusOr<App> Rollback(const std::string& name, int revision,
                                       const ApplyOptions& options) = 0;
  // Another number of instances of a service that has auto scaling, with an event that says why:
  // "scaled from 1 to 2 instances: WHY". What runs goes on. It stays over new revisions and
  // restarts of the daemon, within the limits of the labels. NOT_FOUND, FAILED_PRECONDITION where
  // the service has no scaling or the app is stopped, INVALID_ARGUMENT outside the limits.
  virtual absl::Status Scale(const std::string& name, const std::string& service, int instances,
                             const std::string& why) = 0;
  virtual absl::StatusOr<App> Stop(const std::string& name) = 0;
  virtual absl::StatusOr<App> Start(const std::string& name) = 0;  // also re-runs what completed
  virtual absl::StatusOr<Removal> PreviewRemove(const std::string& name) = 0;
  virtual absl::Status Remove(const std::string& name) = 0;  // volumes stay

  virtual absl::StatusOr<App> Get(const std::string& name) = 0;
  virtual std::vector<App> List() = 0;  // by name
  virtual absl::StatusOr<std::vector<Revision>> Revisions(
      const std::string& name) = 0;  // newest first
  // Events after `after_id`, oldest first, at most `limit`; app "" = all.
  virtual std::vector<Event> Events(const std::string& app, std::int64_t after_id,
                                    std::size_t limit) = 0;
  // Adds what somebody else saw of an app ("" = the platform). NOT_FOUND for an unknown app.
  virtual absl::Status AddEvent(const std::string& app, const std::string& kind,
                                const std::string& message, const std::string& level) = 0;
  // Names of apps that use a volume.
  virtual std::vector<std::string> UsersOfVolume(const std::string& volume) = 0;
  // Adds a sentence to the state of a service that the line itself cannot know (the model
  // server's "no version under /mnist_model; found 1 under ..."). Empty clears it.
  virtual void SetRemark(const std::string& app, const std::string& service,
                         const std::string& remark) = 0;
  // Called from the loop's thread after anything about `app` changed ("" = events only).
  // Add them before anything else is called; they may call the line.
  virtual void AddListener(std::function<void(const std::string& app)> listener) = 0;
  // One round of the loop, on the caller's thread; only without a thread of its own.
  virtual void Step() = 0;
};

}  // namespace takt::line
