#include "line/plan.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <optional>
#include <tuple>

#include "base/str.h"

namespace takt::line {
namespace {

using runtime::Health;
using runtime::InstanceState;
using runtime::InstanceStatus;
using runtime::ServiceStatus;
using templates::DependencyCondition;

template <typename Map>
auto FindOrNull(const Map& map, const std::string& key) -> const typename Map::mapped_type* {
  auto it = map.find(key);
  return it == map.end() ? nullptr : &it->second;
}

const ServiceStatus* Status(const ObservedApp& observed, const std::string& service) {
  auto it = observed.services.find(service);
  return it == observed.services.end() ? nullptr : it->second;
}

bool IsLive(const InstanceStatus& instance) {
  return instance.state == InstanceState::kStarting || instance.state == InstanceState::kRunning ||
         instance.state == InstanceState::kStopping;
}

bool Completed(const InstanceStatus& instance) {
  return instance.state == InstanceState::kExited && instance.exit_code == 0;
}

bool AnyLive(const ServiceStatus& status) {
  return std::any_of(status.instances.begin(), status.instances.end(), IsLive);
}

// Why the condition on `dependency` does not hold yet; nullopt when it does.
std::optional<std::string> Unmet(const DesiredService& dependency, DependencyCondition condition,
                                 const Handed* handed, const ServiceStatus* status) {
  const std::string& name = dependency.spec.service;
  std::string wait = StrCat("waiting for ", name, " to ",
                            condition == DependencyCondition::kStarted   ? "start"
                            : condition == DependencyCondition::kHealthy ? "be healthy"
                                                                         : "complete");
  if (NeedsDeploy(dependency, handed, status)) return wait;
  if (condition == DependencyCondition::kHealthy &&
      dependency.spec.health.kind == runtime::HealthProbe::Kind::kNone) {
    return StrCat(wait, ": it has no health check");
  }
  std::vector<const InstanceStatus*> instances = CurrentInstances(status, handed);
  if (static_cast<int>(instances.size()) < dependency.spec.replicas) return wait;
  for (const InstanceStatus* instance : instances) {
    bool met = false;
    switch (condition) {
      case DependencyCondition::kStarted:
        met = instance->state == InstanceState::kRunning || Completed(*instance);
        break;
      case DependencyCondition::kHealthy:
        met = instance->state == InstanceState::kRunning && instance->health == Health::kHealthy;
        break;
      case DependencyCondition::kCompletedSuccessfully:
        met = Completed(*instance);
        break;
    }
    if (met) continue;
    if (instance->state == InstanceState::kExited) {
      return StrCat(wait, ": it ", EndText(*instance));
    }
    if (instance->state == InstanceState::kBackingOff || instance->health == Health::kUnhealthy) {
      return instance->reason.empty() ? wait : StrCat(wait, ": ", instance->reason);
    }
    return wait;
  }
  return std::nullopt;
}

std::string WaitsFor(const DesiredApp& desired, const DesiredService& service,
                     const std::map<std::string, Handed>& handed, const ObservedApp& observed) {
  for (const auto& [name, condition] : service.depends_on) {
    for (const DesiredService& other : desired.services) {
      if (other.spec.service != name) continue;
      std::optional<std::string> unmet =
          Unmet(other, condition, FindOrNull(handed, name), Status(observed, name));
      if (unmet) return *unmet;
    }
  }
  for (const MountSource& source : service.sources) {
    const std::string* why = FindOrNull(observed.unready, source.source);
    if (why == nullptr) continue;
    return source.kind == templates::Mount::Kind::kVolume
               ? StrCat("waiting for volume ", source.source, ": ", *why)
               : StrCat("waiting for ", source.source, ": ", *why);
  }
  const std::string* held = FindOrNull(observed.held, service.spec.service);
  return held == nullptr ? "" : *held;
}

// Who has a port that `service` wants and the runtime therefore refuses it.
std::vector<std::string> InTheWay(const DesiredService& service, const ObservedApp& observed) {
  std::vector<std::string> owners;
  if (!observed.held.contains(service.spec.service)) return owners;
  for (const auto& [owner, status] : observed.services) {
    if (owner == service.spec.service) continue;
    const bool owns = std::any_of(
        status->instances.begin(), status->instances.end(), [&](const InstanceStatus& instance) {
          if (!IsLive(instance) && instance.state != InstanceState::kBackingOff) return false;
          for (const runtime::Endpoint& endpoint : instance.endpoints) {
            for (const runtime::PortMapping& port : service.spec.ports) {
              if (port.published == endpoint.port && port.protocol == endpoint.protocol) {
                return true;
              }
            }
          }
          return false;
        });
    if (owns) owners.push_back(owner);
  }
  return owners;
}

// Services that are refused because each has a port that the next one wants, round in a circle
// (two that swap their ports): one has to stop, the first by name, or all would wait for ever.
std::set<std::string> StopToFreePorts(const DesiredApp& desired, const ObservedApp& observed) {
  std::map<std::string, std::vector<std::string>> owners;
  for (const DesiredService& service : desired.services) {
    owners[service.spec.service] = InTheWay(service, observed);
  }
  std::set<std::string> stops;
  for (const auto& [name, first] : owners) {
    std::set<std::string> reached;
    std::vector<std::string> open = first;
    while (!open.empty()) {
      const std::string next = open.back();
      open.pop_back();
      if (!reached.insert(next).second || !owners.contains(next)) continue;
      open.insert(open.end(), owners[next].begin(), owners[next].end());
    }
    const bool broken = std::any_of(reached.begin(), reached.end(),
                                    [&](const std::string& s) { return stops.contains(s); });
    if (reached.contains(name) && !broken) stops.insert(name);
  }
  return stops;
}

std::string Seconds(std::chrono::system_clock::duration duration) {
  double seconds = std::max(0.0, std::chrono::duration<double>(duration).count());
  if (seconds < 10) return StrCat(std::round(seconds * 10) / 10, " s");
  if (seconds < 120) return StrCat(std::llround(seconds), " s");
  if (seconds < 7200) return StrCat(std::llround(seconds / 60), " min");
  return StrCat(std::llround(seconds / 3600), " h");
}

}  // namespace

bool NeedsDeploy(const DesiredService& service, const Handed* handed, const ServiceStatus* status) {
  return handed == nullptr || handed->phase != Phase::kDeployed ||
         handed->identity != service.identity || handed->settings != service.settings ||
         status == nullptr || status->stopped;
}

std::vector<const InstanceStatus*> CurrentInstances(const ServiceStatus* status,
                                                    const Handed* handed) {
  if (status == nullptr || handed == nullptr) return {};
  auto age = [](const InstanceStatus& i) { return std::tuple(i.created, i.restarts, IsLive(i)); };
  std::map<int, const InstanceStatus*> newest;
  for (const InstanceStatus& instance : status->instances) {
    if (instance.revision != handed->revision || handed->before.contains(instance.id)) continue;
    if (instance.replica >= handed->replicas) continue;  // a surplus one on its way out
    const InstanceStatus*& slot = newest[instance.replica];
    if (slot == nullptr || age(*slot) <= age(instance)) slot = &instance;
  }
  std::vector<const InstanceStatus*> instances;
  instances.reserve(newest.size());
  for (const auto& [replica, instance] : newest) instances.push_back(instance);
  return instances;
}

Plan MakePlan(const DesiredApp& desired, const std::map<std::string, Handed>& handed,
              const ObservedApp& observed) {
  Plan plan;
  std::set<std::string> wanted;
  if (!desired.removing) {
    for (const DesiredService& service : desired.services) wanted.insert(service.spec.service);
  }
  std::set<std::string> surplus;
  for (const auto& [name, status] : observed.services) {
    if (!wanted.contains(name)) surplus.insert(name);
  }
  for (const auto& [name, known] : handed) {
    if (!wanted.contains(name)) surplus.insert(name);
  }
  for (const std::string& name : surplus) {
    bool there = Status(observed, name) != nullptr;
    plan.actions.push_back({there ? Action::Kind::kRemove : Action::Kind::kForgetService, name, 0});
  }
  if (desired.removing) {
    if (surplus.empty()) plan.actions.push_back({Action::Kind::kForgetApp, "", 0});
    return plan;
  }

  const std::set<std::string> stops = StopToFreePorts(desired, observed);
  for (const DesiredService& service : desired.services) {
    const std::string& name = service.spec.service;
    const Handed* known = FindOrNull(handed, name);
    const ServiceStatus* status = Status(observed, name);
    if (desired.stopped) {
      if (status != nullptr && !status->stopped) {
        plan.actions.push_back({Action::Kind::kStop, name, 0});
      }
      continue;
    }
    if (!NeedsDeploy(service, known, status)) continue;
    std::string waits = WaitsFor(desired, service, handed, observed);
    if (!waits.empty()) {
      if (stops.contains(name) && !status->stopped)
        plan.actions.push_back({Action::Kind::kStop, name, 0});
      plan.waiting[name] = std::move(waits);
      continue;
    }
    if (known != nullptr && known->phase == Phase::kStopFirst && status != nullptr) {
      if (!status->stopped) {
        plan.actions.push_back({Action::Kind::kStop, name, 0});
        continue;
      }
      if (AnyLive(*status)) {
        plan.waiting[name] = "waiting for its last run to end";
        continue;
      }
    }
    const int* tried = known == nullptr ? nullptr : FindOrNull(known->tried, service.identity);
    plan.actions.push_back(
        {Action::Kind::kDeploy, name, tried == nullptr ? desired.revision : *tried});
  }
  return plan;
}

std::string EndText(const InstanceStatus& instance) {
  std::string text, rest;
  if (!instance.reason.empty()) {
    // "failed with exit code 1; restarts in 8 s": the time goes before the semicolon.
    std::size_t end = std::min(instance.reason.find(';'), instance.reason.size());
    text = instance.reason.substr(0, end);
    rest = instance.reason.substr(end);
  } else if (instance.oom_killed) {
    text = "ran out of memory";
  } else if (instance.signal) {
    const char* name = ::sigabbrev_np(*instance.signal);
    text = StrCat("was ended by signal ", *instance.signal,
                  name == nullptr ? "" : StrCat(" (SIG", name, ")"));
  } else if (instance.exit_code) {
    text = StrCat("exited with code ", *instance.exit_code);
  } else {
    return "could not be started";
  }
  if (!instance.exit_code && !instance.signal) return text + rest;
  if (instance.started.time_since_epoch().count() != 0 && instance.finished >= instance.started) {
    text += StrCat(" after ", Seconds(instance.finished - instance.started));
  }
  return text + rest;
}

State ServiceState(const DesiredApp& app, const DesiredService& service, const Handed* handed,
                   const ServiceStatus* status, const std::string& waiting) {
  if (app.removing) return {AppState::kRemoving, "being removed"};
  if (app.stopped) {
    if (status != nullptr && (!status->stopped || AnyLive(*status))) {
      return {AppState::kStopping, "stopping: its instances have not ended yet"};
    }
    return {AppState::kStopped, "stopped on request"};
  }
  if (!waiting.empty()) return {AppState::kPending, waiting};
  if (NeedsDeploy(service, handed, status)) {
    return {AppState::kPending, "about to be handed to the runtime"};
  }
  std::vector<const InstanceStatus*> instances = CurrentInstances(status, handed);
  const int wanted = service.spec.replicas;
  if (wanted == 0) return {AppState::kStopped, "no instance is wanted (replicas: 0)"};
  int running = 0, completed = 0, failed = 0, backing_off = 0, unhealthy = 0;
  std::string ended, troubled, starting;
  for (const InstanceStatus* instance : instances) {
    switch (instance->state) {
      case InstanceState::kRunning:
        if (instance->health == Health::kUnhealthy) {
          ++unhealthy;
          troubled =
              instance->reason.empty() ? "unhealthy: its health check fails" : instance->reason;
        } else if (instance->health == Health::kStarting) {
          starting = "started; its health check has not passed yet";
        } else {
          ++running;
        }
        break;
      case InstanceState::kStarting:
        if (!instance->reason.empty()) starting = instance->reason;
        break;
      case InstanceState::kStopping:
        break;
      case InstanceState::kBackingOff:
        ++backing_off;
        troubled = EndText(*instance);
        break;
      case InstanceState::kExited: {
        runtime::RestartPolicy policy = service.spec.restart;
        bool forever = policy == runtime::RestartPolicy::kAlways ||
                       policy == runtime::RestartPolicy::kUnlessStopped;
        bool gave_up = service.spec.restart_max_attempts > 0 &&
                       instance->restarts >= service.spec.restart_max_attempts;
        if (Completed(*instance) && !forever) {
          ++completed;
          if (ended.empty()) ended = EndText(*instance);
        } else if (policy == runtime::RestartPolicy::kNo || gave_up) {
          ++failed;
          ended = EndText(*instance);
        } else {
          ++backing_off;
          troubled = EndText(*instance);
        }
        break;
      }
    }
  }
  auto count = [&](int n, const std::string& text) {
    return wanted == 1 ? text : StrCat(n, " of ", wanted, " instances: ", text);
  };
  if (running == wanted) return {AppState::kRunning, ""};
  if (completed == wanted) return {AppState::kCompleted, ended};
  if (failed > 0) {
    bool all_ended = failed + completed == wanted;
    return {all_ended ? AppState::kFailed : AppState::kDegraded, count(failed, ended)};
  }
  if (backing_off + unhealthy > 0) {
    return {AppState::kDegraded, count(backing_off + unhealthy, troubled)};
  }
  if (completed > 0 && running + completed == wanted) {
    return {AppState::kRunning, StrCat(completed, " of ", wanted, " instances have completed")};
  }
  if (starting.empty()) starting = "starting";
  return {AppState::kStarting,
          wanted == 1 ? starting : StrCat(running, " of ", wanted, " instances run: ", starting)};
}

State CombineStates(const DesiredApp& app,
                    const std::vector<std::pair<std::string, State>>& services) {
  if (app.removing) return {AppState::kRemoving, "being removed"};
  std::map<AppState, int> count;
  for (const auto& [name, state] : services) ++count[state.state];
  const int total = static_cast<int>(services.size());
  auto reason_of = [&](std::initializer_list<AppState> states) {
    std::string reason;
    for (const auto& [name, state] : services) {
      if (std::find(states.begin(), states.end(), state.state) == states.end()) continue;
      if (state.reason.empty()) continue;
      if (!reason.empty()) reason += "; ";
      reason += total == 1 ? state.reason : StrCat(name, ": ", state.reason);
    }
    return reason;
  };
  if (app.stopped) {
    AppState state = count[AppState::kStopping] > 0 ? AppState::kStopping : AppState::kStopped;
    return {state, state == AppState::kStopping ? "stopping: some instances have not ended yet"
                                                : "stopped on request"};
  }
  if (count[AppState::kFailed] > 0) {
    bool rest_ended = count[AppState::kFailed] + count[AppState::kCompleted] +
                          count[AppState::kStopped] + count[AppState::kPending] ==
                      total;
    return {rest_ended ? AppState::kFailed : AppState::kDegraded,
            reason_of({AppState::kFailed, AppState::kDegraded})};
  }
  if (count[AppState::kDegraded] > 0)
    return {AppState::kDegraded, reason_of({AppState::kDegraded})};
  if (count[AppState::kPending] > 0) return {AppState::kPending, reason_of({AppState::kPending})};
  if (count[AppState::kStarting] > 0)
    return {AppState::kStarting, reason_of({AppState::kStarting})};
  if (count[AppState::kRunning] > 0) return {AppState::kRunning, reason_of({AppState::kRunning})};
  if (count[AppState::kCompleted] > 0) {
    return {AppState::kCompleted, reason_of({AppState::kCompleted})};
  }
  return {AppState::kStopped, reason_of({AppState::kStopped})};
}

}  // namespace takt::line
