// Where instances run. One small interface that embedded, docker, swarm and fake implement, with a
// conformance suite that all of them pass. A runtime sees services, never templates, and knows
// nothing of revisions' history, releases or the console.
//
// The unit of deployment is a service: the runtime keeps `replicas` instances of it running
// according to its restart policy, and remembers that across a kill -9 of the daemon.
// Thread-safety: every function may be called from any thread; none blocks longer than a few
// milliseconds except where it says so.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"

namespace takt::runtime {

struct PortMapping {
  std::string host_ip;          // empty = 0.0.0.0
  std::uint16_t published = 0;  // 0 = any free one, told in InstanceStatus::endpoints
  std::uint16_t target = 0;
  std::string protocol = "tcp";
  bool operator==(const PortMapping&) const = default;
};

struct MountSpec {
  std::string volume;     // name of the volume, for messages; empty for a plain bind
  std::string host_path;  // absolute directory on this machine; empty for a tmpfs
  std::string target;     // absolute path in the instance
  bool read_only = false;
  std::uint64_t tmpfs_bytes = 0;  // with empty host_path; 0 = no limit of its own
  bool operator==(const MountSpec&) const = default;
};

enum class RestartPolicy { kNo, kAlways, kOnFailure, kUnlessStopped };

struct HealthProbe {
  enum class Kind { kNone, kCommand, kShell, kHttp, kTcp };
  Kind kind = Kind::kNone;
  std::vector<std::string> command;  // kCommand: argv; kShell: one element for /bin/sh -c
  std::string url;                   // kHttp: http://host:port/path; kTcp: host:port
  std::chrono::milliseconds interval{30000}, timeout{30000}, start_period{0};
  int retries = 3;
  bool operator==(const HealthProbe&) const = default;
};

// Everything needed to run one service. Value type.
struct ServiceSpec {
  std::string app;  // app name; with `service` the identity of the service
  std::string service;
  int revision = 0;                                             // of the app, for people
  std::string image;                                            // as in the template
  std::string image_digest;                                     // as resolved; empty = resolve now
  std::optional<std::vector<std::string>> entrypoint, command;  // nullopt = the image's
  std::map<std::string, std::string> environment;
  std::map<std::string, std::string> labels;
  std::vector<PortMapping> ports;
  std::vector<MountSpec> mounts;
  std::map<std::string, std::string> files;  // path in the instance -> content (configs, secrets)
  RestartPolicy restart = RestartPolicy::kNo;
  int restart_max_attempts = 0;  // 0 = without limit
  HealthProbe health;
  int replicas = 1;
  double cpus = 0;                 // cores, 0 = no limit
  std::uint64_t memory_bytes = 0;  // 0 = no limit
  std::uint64_t shm_bytes = 0;
  int gpus = 0;
  std::string working_dir, user, hostname;
  std::string stop_signal = "SIGTERM";
  std::chrono::milliseconds stop_grace{10000};
  bool init = false, read_only = false;
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> ulimits;
  std::vector<std::string> extra_hosts;
  std::map<std::string, std::string>
      links;  // further names -> service of the app, seen by this one
  bool operator==(const ServiceSpec&) const = default;
};

// State of an instance.
//   kStarting -> kRunning -> kStopping -> kExited
//   kStarting -> kExited (could not be started), kRunning -> kExited
//   kExited -> kBackingOff -> kStarting (a new instance replaces it, per restart policy)
enum class InstanceState { kStarting, kRunning, kStopping, kExited, kBackingOff };
enum class Health { kNone, kStarting, kHealthy, kUnhealthy };

struct Endpoint {
  std::string host;  // where a client on this machine connects, "127.0.0.1"
  std::uint16_t port = 0;
  std::uint16_t target = 0;
  std::string protocol = "tcp";
};

struct InstanceStatus {
  std::string id;  // unique for ever, one path segment
  std::string app, service;
  int revision = 0;
  int replica = 0;  // 0-based
  int restarts =
      0;  // how often its restart policy has replaced this replica since Deploy changed it
  std::string node;
  InstanceState state = InstanceState::kStarting;
  Health health = Health::kNone;
  std::string reason;  // why it is not running (or not healthy), for people; empty when all is well
  std::optional<int> exit_code;  // of an ended one, where it exited
  std::optional<int> signal;     // of an ended one, where a signal ended it
  bool oom_killed = false;
  std::int64_t pid = 0;
  std::chrono::system_clock::time_point created, started, finished;  // epoch = not yet
  std::vector<Endpoint> endpoints;
  double cpu_seconds = 0;          // used so far
  std::uint64_t memory_bytes = 0;  // resident now
};

struct ServiceStatus {
  std::string app, service;
  int revision = 0;
  int desired_replicas = 0;
  bool stopped = false;  // Stop was called; its instances are kept as they ended
  // Oldest first: live ones and, of those that ended, the newest kMaxEndedInstances of each service
  // and the last one of each replica.
  std::vector<InstanceStatus> instances;
};

inline constexpr std::size_t kMaxEndedInstances = 10;
inline constexpr int kMaxReplicas = 100;  // of one service

struct LogLine {
  std::chrono::system_clock::time_point time;
  std::string instance;
  bool is_stderr = false;
  std::string text;          // without the newline; valid UTF-8
  std::uint64_t cursor = 0;  // position after this line, for the next ReadLog of this instance
  bool goes_on = false;      // too long for one: the next one goes on with it
  // Before this line so much had been said that nobody read before the log's limit removed it.
  std::uint64_t lost_bytes = 0;
};

// What a runtime can do. A template that needs a feature that is not in `features` is refused
// before anything starts; the words are AppSpec::features'.
struct Capabilities {
  std::string name;  // "embedded"
  std::set<std::string> features;
  bool pulls_images = false;
  bool many_nodes = false;
  bool private_mounts = false;  // false: container paths are translated, not mounted
  // What works less well here than it might, a sentence each: "no memory cgroup: RLIMIT_AS ...".
  std::vector<std::string> warnings;
};

struct ImageInfo {
  std::string name;    // as asked
  std::string digest;  // what exactly will run
  std::string role;    // "training", "serving", "client" or "" where nobody said
  // Where one image holds programs of several roles: a program as commands name it, in lower case
  // -> its role.
  std::map<std::string, std::string> program_roles;
};
// What a service does that runs this command (entrypoint and command in one) of the image.
std::string RoleOf(const ImageInfo& image, const std::vector<std::string>& command);

// A name, or a glob, that ResolveImage knows without asking anybody else.
struct KnownImage {
  std::string name;
  std::string role;         // as in ImageInfo
  std::string description;  // what runs on this machine under that name
  std::string reason;       // why it cannot run now; empty when it can
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual Capabilities capabilities() const = 0;

  // The catalogue, in the order in which it is searched; empty where a runtime has none.
  virtual std::vector<KnownImage> Images() { return {}; }

  // NOT_FOUND with how to add it when there is no such image here.
  virtual absl::StatusOr<ImageInfo> ResolveImage(const std::string& image) = 0;

  // What Deploy(spec) would refuse now, without doing anything.
  virtual absl::Status Check(const ServiceSpec& spec) = 0;

  // Makes the service be as `spec` says: starts missing replicas, replaces instances whose spec
  // differs, removes surplus ones. Returns once that is durably recorded; work goes on behind it.
  // Idempotent: with an equal spec, nothing restarts, and neither where only revision, labels,
  // replicas or the restart policy differ. Clears a former Stop: starts the instances anew.
  // INVALID_ARGUMENT for names that are no path segment or a spec that makes no sense,
  // ALREADY_EXISTS when a published port is taken ("port 9000 is taken by app serving"),
  // NOT_FOUND for the image, UNIMPLEMENTED for what the runtime cannot do.
  virtual absl::Status Deploy(const ServiceSpec& spec) = 0;

  // Stops all instances (stop signal, grace, SIGKILL) and keeps their records and logs. Returns
  // at once. NOT_FOUND for an unknown service.
  virtual absl::Status Stop(const std::string& app, const std::string& service) = 0;

  // Stops and forgets the service with its logs. OK where there is none.
  virtual absl::Status Remove(const std::string& app, const std::string& service) = 0;

  // Snapshot of all services.
  virtual absl::StatusOr<std::vector<ServiceStatus>> Observe() = 0;

  // Up to `max_lines` lines of an instance's log after `cursor` (0 = from the start). Works for
  // ended instances. NOT_FOUND for an unknown instance.
  virtual absl::StatusOr<std::vector<LogLine>> ReadLog(const std::string& instance,
                                                       std::uint64_t cursor,
                                                       std::size_t max_lines) = 0;
  // The cursor before the last `lines` lines of it.
  virtual absl::StatusOr<std::uint64_t> TailCursor(const std::string& instance,
                                                   std::size_t lines) = 0;

  // Calls back, from any thread, whenever Observe would answer differently. One listener.
  virtual void SetListener(std::function<void()> listener) = 0;
  // Calls back, from any thread, with the instance whose log grew. One listener.
  virtual void SetLogListener(std::function<void(const std::string& instance)> listener) = 0;
};

}  // namespace takt::runtime
