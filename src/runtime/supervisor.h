// What every runtime of our own does alike: keeps the instances that each service wants, by its
// restart policy, with back-off; keeps the records of those that ended. It decides and remembers;
// a Launcher does: starts processes (embedded) or plays a script (fake).
//
// The state of an instance only changes in Reconcile, Started and Ended. Threads: all functions may
// be called from any thread, Tick from one at a time; the launcher and the listener are called
// without the lock held.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "runtime/runtime.h"

namespace takt::runtime {

// What is known of an instance before it starts.
struct InstanceRecord {
  std::string id, app, service;
  int revision = 0, replica = 0, restarts = 0;
  std::uint64_t generation = 0;
  std::chrono::system_clock::time_point created;
};

// What is remembered of a service. Each replica has a generation, and an instance belongs to the
// one in which it started: so what has run and ended is told from what is still to be started. A
// Deploy that changes something, or starts what was stopped, gives all replicas a new one; one that
// only adds replicas gives one to these.
struct ServiceRecord {
  ServiceSpec spec;
  std::uint64_t last_generation = 0;
  std::vector<std::uint64_t> generations;  // by replica
  bool stopped = false;
  bool removed = false;  // to be forgotten when its last instance has ended
};

struct EndOfInstance {
  std::optional<int> exit_code, signal;
  bool oom_killed = false;
  std::string failure;  // why it could not be started, or was lost; empty when it ran and ended
  std::chrono::system_clock::time_point finished;
  double cpu_seconds = 0;
};

// An instance found at the start of the daemon: running (adopted) or ended.
struct RestoredInstance {
  InstanceRecord record;
  std::int64_t pid = 0;
  std::chrono::system_clock::time_point started;
  std::vector<Endpoint> endpoints;
  std::optional<EndOfInstance> end;
};

struct RestoredService {
  ServiceRecord record;
  std::vector<RestoredInstance> instances;  // oldest first
};

class Launcher {
 public:
  virtual ~Launcher() = default;
  virtual Capabilities capabilities() const = 0;
  virtual absl::StatusOr<ImageInfo> ResolveImage(const std::string& image) = 0;
  // What the supervisor cannot know: mounts, users, signals; for `new_ports` whether a process that
  // is none of ours has one.
  virtual absl::Status Check(const ServiceSpec& spec,
                             const std::vector<PortMapping>& new_ports) = 0;
  // Durable when it returns OK.
  virtual absl::Status Save(const ServiceRecord& record) = 0;
  virtual void Forget(const std::string& app, const std::string& service) = 0;
  // Outcome through Supervisor::Started and Ended.
  virtual void Start(const ServiceSpec& spec, const InstanceRecord& record) = 0;
  // Stop signal, grace period, SIGKILL.
  virtual void Stop(const std::string& instance) = 0;
  // Removes log and records of an ended instance.
  virtual void Discard(const InstanceRecord& record) = 0;
  // Asks for a Tick soon, from whichever thread does that.
  virtual void Wake() = 0;
  // Fills in cpu_seconds and memory_bytes of a live one.
  virtual void Measure(InstanceStatus& status) = 0;
  virtual absl::StatusOr<std::vector<LogLine>> ReadLog(const std::string& instance,
                                                       std::uint64_t cursor,
                                                       std::size_t max_lines) = 0;
  virtual absl::StatusOr<std::uint64_t> TailCursor(const std::string& instance,
                                                   std::size_t lines) = 0;
};

// Back-off before the n-th restart in a row (n from 1): 0.1 s, doubling, up to kMaxBackOff. An
// instance that ran for kStableAfter starts the row anew.
inline constexpr std::chrono::milliseconds kMaxBackOff{60'000};
inline constexpr std::chrono::milliseconds kStableAfter{10'000};
std::chrono::milliseconds BackOff(int restarts_in_a_row);

// True when instances of `a` may go on under `b`: nothing that a process sees differs.
bool SameForInstances(const ServiceSpec& a, const ServiceSpec& b);

class Supervisor final : public Runtime {
 public:
  // Both must outlive it.
  Supervisor(Launcher& launcher, const Clock& clock) : launcher_(launcher), clock_(clock) {}

  Capabilities capabilities() const override { return launcher_.capabilities(); }
  absl::StatusOr<ImageInfo> ResolveImage(const std::string& image) override {
    return launcher_.ResolveImage(image);
  }
  absl::Status Check(const ServiceSpec& spec) override;
  absl::Status Deploy(const ServiceSpec& spec) override;
  absl::Status Stop(const std::string& app, const std::string& service) override;
  absl::Status Remove(const std::string& app, const std::string& service) override;
  absl::StatusOr<std::vector<ServiceStatus>> Observe() override;
  absl::StatusOr<std::vector<LogLine>> ReadLog(const std::string& instance, std::uint64_t cursor,
                                               std::size_t max_lines) override;
  absl::StatusOr<std::uint64_t> TailCursor(const std::string& instance, std::size_t lines) override;
  void SetListener(std::function<void()> listener) override;
  void SetLogListener(std::function<void(const std::string& instance)> listener) override;

  // Before anything else, once.
  void Restore(std::vector<RestoredService> services);
  // Starts, stops and forgets what is due. Returns when to call again, at the latest.
  std::optional<std::chrono::steady_clock::time_point> Tick();

  // From the launcher. An unknown id is ignored.
  void Started(const std::string& id, std::int64_t pid,
               std::chrono::system_clock::time_point started, std::vector<Endpoint> endpoints);
  void Ended(const std::string& id, const EndOfInstance& end);
  void SetHealth(const std::string& id, Health health, const std::string& why);
  void LogGrew(const std::string& id);

  // The spec of a live instance's service, or null.
  std::shared_ptr<const ServiceSpec> SpecOf(const std::string& id) const;

 private:
  struct Instance {
    InstanceRecord record;
    InstanceStatus status;
    int failures_in_a_row = 0;  // restarts by the policy without a stable run between
    std::shared_ptr<const ServiceSpec> spec;
    std::chrono::steady_clock::time_point started, restart_at;
  };
  struct Service {
    ServiceRecord record;
    std::shared_ptr<const ServiceSpec> spec;
    std::list<Instance> instances;  // oldest first
  };
  // What Reconcile found to do, for the launcher.
  struct Work {
    std::vector<std::pair<std::shared_ptr<const ServiceSpec>, InstanceRecord>> start;
    std::vector<std::string> stop;
    std::vector<InstanceRecord> discard;
    std::vector<std::pair<std::string, std::string>> forget;
    bool changed = false;
  };

  using Services = std::vector<std::unique_ptr<Service>>;
  Service* FindService(const std::string& app, const std::string& service) const;
  Instance* FindInstance(const std::string& id) const;
  static bool HoldsPort(const Service& service, const PortMapping& port);
  absl::Status CheckPorts(const ServiceSpec& spec, std::vector<PortMapping>& new_ports) const;
  absl::StatusOr<ServiceSpec> Checked(const ServiceSpec& spec);
  void Reconcile(Service& service, Work& work);
  void ApplyPolicy(const Service& service, Instance& instance);
  void Notify();

  Launcher& launcher_;
  const Clock& clock_;
  std::mutex change_mutex_;  // one Deploy, Stop or Remove at a time, saving included
  mutable std::mutex mutex_;
  Services services_;
  std::function<void()> listener_;
  std::function<void(const std::string&)> log_listener_;
};

}  // namespace takt::runtime
