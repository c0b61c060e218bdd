#include "runtime/supervisor.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "base/ids.h"
#include "base/text.h"

namespace takt::runtime {
namespace {

using std::chrono::milliseconds;

bool IsLive(InstanceState state) {
  return state == InstanceState::kStarting || state == InstanceState::kRunning ||
         state == InstanceState::kStopping;
}

bool Overlap(const PortMapping& a, const PortMapping& b) {
  const auto any = [](const std::string& ip) { return ip.empty() || ip == "0.0.0.0"; };
  return a.published != 0 && a.published == b.published && a.protocol == b.protocol &&
         (any(a.host_ip) || any(b.host_ip) || a.host_ip == b.host_ip);
}

std::string Seconds(milliseconds t) {
  return t.count() % 1000 == 0 ? StrCat(t.count() / 1000, " s")
                               : StrCat(t.count() / 1000, ".", t.count() % 1000 / 100, " s");
}

std::string ReasonOf(const EndOfInstance& end, const ServiceSpec& spec) {
  if (!end.failure.empty()) return end.failure;
  if (end.oom_killed) {
    return spec.memory_bytes == 0
               ? "killed: the machine ran out of memory"
               : StrCat("killed: out of memory, its limit is ", FormatBytes(spec.memory_bytes));
  }
  if (end.signal) {
    const char* name = sigabbrev_np(*end.signal);
    return name ? StrCat("ended by SIG", name) : StrCat("ended by signal ", *end.signal);
  }
  if (end.exit_code.value_or(0) == 0) return "finished with exit code 0";
  return StrCat("failed with exit code ", *end.exit_code);
}

// The instance is what its replica is to be now.
bool IsCurrent(const ServiceRecord& service, const InstanceRecord& i) {
  return !service.stopped && !service.removed &&
         static_cast<std::size_t>(i.replica) < service.generations.size() &&
         i.generation == service.generations[i.replica];
}

bool Succeeded(const InstanceStatus& status) { return status.exit_code == 0; }

}  // namespace

std::string RoleOf(const ImageInfo& image, const std::vector<std::string>& command) {
  if (!command.empty()) {
    const auto it = image.program_roles.find(absl::AsciiStrToLower(command.front()));
    if (it != image.program_roles.end()) return it->second;
  }
  return image.role;
}

milliseconds BackOff(int restarts_in_a_row) {
  milliseconds wait{100};
  for (int i = 1; i < restarts_in_a_row && wait < kMaxBackOff; ++i) wait *= 2;
  return std::min(wait, kMaxBackOff);
}

bool SameForInstances(const ServiceSpec& a, const ServiceSpec& b) {
  ServiceSpec c = b;
  c.revision = a.revision;
  c.labels = a.labels;
  c.replicas = a.replicas;
  c.restart = a.restart;
  c.restart_max_attempts = a.restart_max_attempts;
  return a == c;
}

Supervisor::Service* Supervisor::FindService(const std::string& app,
                                             const std::string& service) const {
  for (const auto& s : services_) {
    if (s->spec->app == app && s->spec->service == service) return s.get();
  }
  return nullptr;
}

Supervisor::Instance* Supervisor::FindInstance(const std::string& id) const {
  for (const auto& s : services_) {
    for (Instance& i : s->instances) {
      if (i.record.id == id) return &i;
    }
  }
  return nullptr;
}

// An instance that runs or will has the port, or one that is still to be started wants it.
bool Supervisor::HoldsPort(const Service& service, const PortMapping& port) {
  const auto has = [&](const ServiceSpec& spec) {
    return std::any_of(spec.ports.begin(), spec.ports.end(),
                       [&](const PortMapping& p) { return Overlap(p, port); });
  };
  bool started = false;
  for (const Instance& i : service.instances) {
    const InstanceState state = i.status.state;
    if ((IsLive(state) || state == InstanceState::kBackingOff) && has(*i.spec)) return true;
    started |= IsCurrent(service.record, i.record);
  }
  return !started && !service.record.stopped && !service.record.removed && has(*service.spec);
}

absl::Status Supervisor::CheckPorts(const ServiceSpec& spec,
                                    std::vector<PortMapping>& new_ports) const {
  for (const PortMapping& port : spec.ports) {
    bool held_by_us = false;
    for (const auto& other : services_) {
      if (!HoldsPort(*other, port)) continue;
      const std::string& app = other->spec->app;
      const std::string& service = other->spec->service;
      if (app == spec.app && service == spec.service) {
        held_by_us = true;
      } else if (app == spec.app) {
        return absl::AlreadyExistsError(
            StrCat("port ", port.published, " is taken by service ", service, " of the same app"));
      } else {
        return absl::AlreadyExistsError(StrCat("port ", port.published, " is taken by app ", app));
      }
    }
    if (!held_by_us) new_ports.push_back(port);
  }
  return absl::OkStatus();
}

absl::StatusOr<ServiceSpec> Supervisor::Checked(const ServiceSpec& spec) {
  for (const std::string& name : {spec.app, spec.service}) {
    if (!IsValidName(name)) {
      return absl::InvalidArgumentError(
          StrCat("\"", name.substr(0, 80), "\" is no name: expected 1 to 63 letters, digits, ",
                 "\"_\", \".\" or \"-\", the first a letter or a digit"));
    }
  }
  if (spec.replicas < 0 || spec.replicas > kMaxReplicas) {
    return absl::InvalidArgumentError(StrCat("service ", spec.service, ": expected 0 to ",
                                             kMaxReplicas, " replicas, got ", spec.replicas));
  }
  ServiceSpec checked = spec;
  TAKT_ASSIGN_OR_RETURN(const ImageInfo image, launcher_.ResolveImage(spec.image));
  if (checked.image_digest.empty()) checked.image_digest = image.digest;
  std::vector<PortMapping> new_ports;
  {
    std::lock_guard lock(mutex_);
    TAKT_RETURN_IF_ERROR(CheckPorts(checked, new_ports));
  }
  TAKT_RETURN_IF_ERROR(launcher_.Check(checked, new_ports));
  return checked;
}

absl::Status Supervisor::Check(const ServiceSpec& spec) { return Checked(spec).status(); }

absl::Status Supervisor::Deploy(const ServiceSpec& spec) {
  std::unique_lock change(change_mutex_);
  TAKT_ASSIGN_OR_RETURN(ServiceSpec checked, Checked(spec));
  ServiceRecord record;
  {
    std::lock_guard lock(mutex_);
    if (const Service* service = FindService(spec.app, spec.service)) {
      const ServiceRecord& old = service->record;
      if (old.spec == checked && !old.stopped && !old.removed) return absl::OkStatus();
      record.last_generation = old.last_generation;
      if (!old.stopped && !old.removed && SameForInstances(old.spec, checked)) {
        record.generations = old.generations;
      }
    }
  }
  record.generations.resize(checked.replicas, record.last_generation + 1);
  ++record.last_generation;
  record.spec = std::move(checked);
  TAKT_RETURN_IF_ERROR(launcher_.Save(record));
  {
    std::lock_guard lock(mutex_);
    Service* service = FindService(spec.app, spec.service);
    if (!service) {
      services_.push_back(std::make_unique<Service>());
      service = services_.back().get();
    }
    service->spec = std::make_shared<const ServiceSpec>(record.spec);
    service->record = std::move(record);
  }
  change.unlock();  // the listener may call back
  launcher_.Wake();
  Notify();
  return absl::OkStatus();
}

absl::Status Supervisor::Stop(const std::string& app, const std::string& service_name) {
  std::unique_lock change(change_mutex_);
  ServiceRecord record;
  {
    std::lock_guard lock(mutex_);
    const Service* service = FindService(app, service_name);
    if (!service || service->record.removed) {
      return absl::NotFoundError(StrCat("app ", app, " has no service ", service_name));
    }
    if (service->record.stopped) return absl::OkStatus();
    record = service->record;
  }
  record.stopped = true;
  TAKT_RETURN_IF_ERROR(launcher_.Save(record));
  {
    std::lock_guard lock(mutex_);
    if (Service* service = FindService(app, service_name)) service->record.stopped = true;
  }
  change.unlock();  // the listener may call back
  launcher_.Wake();
  Notify();
  return absl::OkStatus();
}

absl::Status Supervisor::Remove(const std::string& app, const std::string& service_name) {
  std::unique_lock change(change_mutex_);
  ServiceRecord record;
  {
    std::lock_guard lock(mutex_);
    const Service* service = FindService(app, service_name);
    if (!service || service->record.removed) return absl::OkStatus();
    record = service->record;
  }
  record.removed = true;
  TAKT_RETURN_IF_ERROR(launcher_.Save(record));
  {
    std::lock_guard lock(mutex_);
    if (Service* service = FindService(app, service_name)) service->record.removed = true;
  }
  change.unlock();  // the listener may call back
  launcher_.Wake();
  Notify();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ServiceStatus>> Supervisor::Observe() {
  std::vector<ServiceStatus> result;
  {
    std::lock_guard lock(mutex_);
    result.reserve(services_.size());
    for (const auto& s : services_) {
      ServiceStatus status;
      status.app = s->spec->app;
      status.service = s->spec->service;
      status.revision = s->spec->revision;
      status.desired_replicas = s->spec->replicas;
      status.stopped = s->record.stopped || s->record.removed;
      for (const Instance& i : s->instances) status.instances.push_back(i.status);
      result.push_back(std::move(status));
    }
  }
  for (ServiceStatus& s : result) {
    for (InstanceStatus& i : s.instances) {
      if (IsLive(i.state)) launcher_.Measure(i);
    }
  }
  return result;
}

absl::StatusOr<std::vector<LogLine>> Supervisor::ReadLog(const std::string& instance,
                                                         std::uint64_t cursor,
                                                         std::size_t max_lines) {
  {
    std::lock_guard lock(mutex_);
    if (!FindInstance(instance)) {
      return absl::NotFoundError(StrCat("there is no instance ", instance));
    }
  }
  return launcher_.ReadLog(instance, cursor, max_lines);
}

absl::StatusOr<std::uint64_t> Supervisor::TailCursor(const std::string& instance,
                                                     std::size_t lines) {
  {
    std::lock_guard lock(mutex_);
    if (!FindInstance(instance)) {
      return absl::NotFoundError(StrCat("there is no instance ", instance));
    }
  }
  return launcher_.TailCursor(instance, lines);
}

void Supervisor::SetListener(std::function<void()> listener) {
  std::lock_guard lock(mutex_);
  listener_ = std::move(listener);
}

void Supervisor::SetLogListener(std::function<void(const std::string&)> listener) {
  std::lock_guard lock(mutex_);
  log_listener_ = std::move(listener);
}

void Supervisor::Notify() {
  std::function<void()> listener;
  {
    std::lock_guard lock(mutex_);
    listener = listener_;
  }
  if (listener) listener();
}

void Supervisor::Restore(std::vector<RestoredService> services) {
  std::lock_guard lock(mutex_);
  for (RestoredService& restored : services) {
    auto service = std::make_unique<Service>();
    service->record = std::move(restored.record);
    service->spec = std::make_shared<const ServiceSpec>(service->record.spec);
    std::set<int> seen;
    for (auto it = restored.instances.rbegin(); it != restored.instances.rend(); ++it) {
      Instance i;
      i.record = it->record;
      i.spec = service->spec;
      i.status.id = i.record.id;
      i.status.app = i.record.app;
      i.status.service = i.record.service;
      i.status.revision = i.record.revision;
      i.status.replica = i.record.replica;
      i.status.restarts = i.record.restarts;
      i.status.created = i.record.created;
      i.status.node = "local";
      i.status.pid = it->pid;
      i.status.started = it->started;
      i.status.endpoints = it->endpoints;
      i.status.state = InstanceState::kRunning;
      i.started = clock_.Steady();
      if (i.spec->health.kind != HealthProbe::Kind::kNone) i.status.health = Health::kStarting;
      const bool newest = seen.insert(i.record.replica).second;
      if (it->end) {
        i.status.state = InstanceState::kExited;
        i.status.health = Health::kNone;
        i.status.exit_code = it->end->exit_code;
        i.status.signal = it->end->signal;
        i.status.oom_killed = it->end->oom_killed;
        i.status.finished = it->end->finished;
        i.status.cpu_seconds = it->end->cpu_seconds;
        i.status.reason = ReasonOf(*it->end, *i.spec);
        if (newest) ApplyPolicy(*service, i);
      }
      service->instances.push_front(std::move(i));
    }
    services_.push_back(std::move(service));
  }
}

// An ended instance that its service's policy wants replaced backs off.
void Supervisor::ApplyPolicy(const Service& service, Instance& instance) {
  const ServiceRecord& record = service.record;
  const ServiceSpec& spec = *service.spec;
  if (!IsCurrent(record, instance.record)) return;
  const bool wanted = spec.restart == RestartPolicy::kAlways ||
                      spec.restart == RestartPolicy::kUnlessStopped ||
                      (spec.restart == RestartPolicy::kOnFailure && !Succeeded(instance.status));
  if (!wanted) return;
  if (spec.restart_max_attempts > 0 && instance.record.restarts >= spec.restart_max_attempts) {
    instance.status.reason += StrCat("; gave up after ", instance.record.restarts, " restarts");
    return;
  }
  const auto now = clock_.Steady();
  const bool stable = instance.status.started.time_since_epoch().count() != 0 &&
                      now - instance.started >= kStableAfter;
  instance.failures_in_a_row = stable ? 1 : instance.failures_in_a_row + 1;
  const milliseconds wait = BackOff(instance.failures_in_a_row);
  instance.restart_at = now + wait;
  instance.status.state = InstanceState::kBackingOff;
  instance.status.reason += StrCat("; restarts in ", Seconds(wait));
}

void Supervisor::Reconcile(Service& service, Work& work) {
  const ServiceRecord& record = service.record;
  const bool wanted = !record.stopped && !record.removed;
  const auto current = [&](const Instance& i) { return IsCurrent(record, i.record); };
  for (Instance& i : service.instances) {
    if (current(i)) continue;
    if (i.status.state == InstanceState::kBackingOff) {
      i.status.state = InstanceState::kExited;
      work.changed = true;
    } else if (i.status.state == InstanceState::kStarting ||
               i.status.state == InstanceState::kRunning) {
      i.status.state = InstanceState::kStopping;
      i.status.health = Health::kNone;
      i.status.reason = record.removed   ? "is being removed"
                        : record.stopped ? "was asked to stop"
                        : i.record.replica >= service.spec->replicas
                            ? "is one replica too many"
                            : StrCat("makes way for revision ", service.spec->revision);
      work.stop.push_back(i.record.id);
      work.changed = true;
    }
  }
  for (int replica = 0; wanted && replica < service.spec->replicas; ++replica) {
    const auto last = std::find_if(service.instances.rbegin(), service.instances.rend(),
                                   [&](const Instance& i) { return i.record.replica == replica; });
    int restarts = 0, failures = 0;
    if (last != service.instances.rend()) {
      if (IsLive(last->status.state)) continue;
      if (current(*last)) {
        if (last->status.state != InstanceState::kBackingOff) continue;
        if (clock_.Steady() < last->restart_at) continue;
        last->status.state = InstanceState::kExited;
        last->status.reason = last->status.reason.substr(0, last->status.reason.find("; restarts"));
        restarts = last->record.restarts + 1;
        failures = last->failures_in_a_row;
      }
    }
    Instance i;
    i.record.app = service.spec->app;
    i.record.service = service.spec->service;
    i.record.id = StrCat(i.record.app, ".", i.record.service, ".", replica + 1, ".", RandomId(8));
    i.record.revision = service.spec->revision;
    i.record.replica = replica;
    i.record.restarts = restarts;
    i.record.generation = record.generations[replica];
    i.record.created = clock_.Now();
    i.failures_in_a_row = failures;
    i.spec = service.spec;
    i.status.id = i.record.id;
    i.status.app = i.record.app;
    i.status.service = i.record.service;
    i.status.revision = i.record.revision;
    i.status.replica = replica;
    i.status.restarts = restarts;
    i.status.node = "local";
    i.status.created = i.record.created;
    i.status.reason = "is starting";
    if (service.spec->health.kind != HealthProbe::Kind::kNone) i.status.health = Health::kStarting;
    work.start.emplace_back(service.spec, i.record);
    work.changed = true;
    service.instances.push_back(std::move(i));
  }
  // The newest kMaxEndedInstances that ended stay, and the last one of each replica: it tells that
  // the replica has run and is not to be started again.
  std::size_t ended = 0;
  std::map<int, int> of_replica;
  for (auto it = service.instances.end(); it != service.instances.begin();) {
    --it;
    if (IsLive(it->status.state)) {
      ++of_replica[it->record.replica];
      continue;
    }
    ++ended;
    const bool last = ++of_replica[it->record.replica] == 1 && current(*it);
    if (record.removed || (ended > kMaxEndedInstances && !last)) {
      work.discard.push_back(it->record);
      work.changed = true;
      it = service.instances.erase(it);
    }
  }
  if (record.removed && service.instances.empty()) {
    work.forget.emplace_back(service.spec->app, service.spec->service);
  }
}

std::optional<std::chrono::steady_clock::time_point> Supervisor::Tick() {
  std::optional<std::chrono::steady_clock::time_point> next;
  Work work;
  {
    std::lock_guard lock(mutex_);
    for (const auto& s : services_) Reconcile(*s, work);
    for (const auto& s : services_) {
      for (const Instance& i : s->instances) {
        if (i.status.state == InstanceState::kBackingOff && (!next || i.restart_at < *next)) {
          next = i.restart_at;
        }
      }
    }
  }
  for (const InstanceRecord& record : work.discard) launcher_.Discard(record);
  for (const std::string& id : work.stop) launcher_.Stop(id);
  for (const auto& [spec, record] : work.start) launcher_.Start(*spec, record);
  for (const auto& [app, service] : work.forget) {
    std::lock_guard change(change_mutex_);
    {
      std::lock_guard lock(mutex_);
      const Service* found = FindService(app, service);
      // A Deploy may have come between.
      if (!found || !found->record.removed) continue;
      std::erase_if(services_, [&](const auto& s) { return s.get() == found; });
    }
    launcher_.Forget(app, service);
    work.changed = true;
  }
  if (work.changed) Notify();
  return next;
}

void Supervisor::Started(const std::string& id, std::int64_t pid,
                         std::chrono::system_clock::time_point started,
                         std::vector<Endpoint> endpoints) {
  {
    std::lock_guard lock(mutex_);
    Instance* i = FindInstance(id);
    if (!i || !IsLive(i->status.state)) return;
    i->status.pid = pid;
    i->status.started = started;
    i->status.endpoints = std::move(endpoints);
    i->started = clock_.Steady();
    if (i->status.state == InstanceState::kStarting) {
      i->status.state = InstanceState::kRunning;
      i->status.reason =
          i->status.health == Health::kStarting ? "waits for its first health check" : "";
    }
  }
  Notify();
}

void Supervisor::Ended(const std::string& id, const EndOfInstance& end) {
  {
    std::lock_guard lock(mutex_);
    Instance* i = FindInstance(id);
    if (!i || !IsLive(i->status.state)) return;
    InstanceStatus& status = i->status;
    status.state = InstanceState::kExited;
    status.health = Health::kNone;
    status.pid = 0;
    status.memory_bytes = 0;
    status.exit_code = end.exit_code;
    status.signal = end.signal;
    status.oom_killed = end.oom_killed;
    status.finished = end.finished;
    status.cpu_seconds = end.cpu_seconds;
    status.reason = ReasonOf(end, *i->spec);
    if (const Service* service = FindService(status.app, status.service)) {
      ApplyPolicy(*service, *i);
    }
  }
  launcher_.Wake();
  Notify();
}

void Supervisor::SetHealth(const std::string& id, Health health, const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    Instance* i = FindInstance(id);
    if (!i || i->status.state != InstanceState::kRunning) return;
    if (i->status.health == health && i->status.reason == why) return;
    i->status.health = health;
    i->status.reason = why;
  }
  Notify();
}

void Supervisor::LogGrew(const std::string& id) {
  std::function<void(const std::string&)> listener;
  {
    std::lock_guard lock(mutex_);
    listener = log_listener_;
  }
  if (listener) listener(id);
}

std::shared_ptr<const ServiceSpec> Supervisor::SpecOf(const std::string& id) const {
  std::lock_guard lock(mutex_);
  const Instance* i = FindInstance(id);
  return i && IsLive(i->status.state) ? i->spec : nullptr;
}

}  // namespace takt::runtime
