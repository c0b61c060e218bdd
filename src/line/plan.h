// Deciding, apart from doing: what is to be done next for an app, and what its state is called.
// Pure functions of snapshots; the loop in line.cc carries plans out.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "line/spec.h"

namespace takt::line {

// How far the handing over of a service to the runtime has come. Each step is written down before
// it is taken, so that a daemon that died in between goes on with it.
//   (none) -> kDeploying -> kDeployed -> kDeploying (a new revision)
//   kDeployed -> kStopFirst -> kDeploying (to run again what has ended)
enum class Phase { kStopFirst, kDeploying, kDeployed };

// What the runtime was last given of a service.
struct Handed {
  std::string identity, settings;  // DesiredService's
  int replicas = 1;
  int revision = 0;  // the one that instances of it carry
  Phase phase = Phase::kDeploying;
  std::set<std::string> before;  // instances of former runs: not of this hand-over
  // Identity -> revision of all that the runtime may have by now: what it confirmed last, and what
  // was handed over since without an answer. An identity goes back to the runtime under the same
  // revision, because its instances, which then go on, carry that.
  std::map<std::string, int> tried;
  bool operator==(const Handed&) const = default;
};

struct DesiredApp {
  std::string name;
  int revision = 0;
  bool stopped = false, removing = false;
  std::vector<DesiredService> services;
};

// What is the case around one app. Pointers are borrowed for the call.
struct ObservedApp {
  std::map<std::string, const runtime::ServiceStatus*> services;  // as the runtime has them
  std::map<std::string, std::string> unready;  // volume or bind path -> why it cannot be used
  std::map<std::string, std::string> held;     // service -> why it is not tried now
};

struct Action {
  enum class Kind {
    kDeploy,
    kStop,
    kRemove,         // from the runtime
    kForgetService,  // it is gone from the runtime: drop what is known of it
    kForgetApp,      // all its services are gone
  };
  Kind kind = Kind::kDeploy;
  std::string service;
  int revision = 0;  // kDeploy: the one that its instances carry
  bool operator==(const Action&) const = default;
};

struct Plan {
  std::vector<Action> actions;
  std::map<std::string, std::string> waiting;  // service -> "waiting for db to be healthy"
};

// At most one action for a service. Idempotent: with nothing to do, the plan is empty.
Plan MakePlan(const DesiredApp& desired, const std::map<std::string, Handed>& handed,
              const ObservedApp& observed);

// True when the service has to be given to the runtime (again).
bool NeedsDeploy(const DesiredService& service, const Handed* handed,
                 const runtime::ServiceStatus* status);

// The newest instance of each replica that belongs to the present hand-over.
std::vector<const runtime::InstanceStatus*> CurrentInstances(const runtime::ServiceStatus* status,
                                                             const Handed* handed);

// "exited with code 1 after 3 s".
std::string EndText(const runtime::InstanceStatus& instance);

struct State {
  AppState state = AppState::kPending;
  std::string reason;
};

// `waiting` is the plan's word on the service, or empty.
State ServiceState(const DesiredApp& app, const DesiredService& service, const Handed* handed,
                   const runtime::ServiceStatus* status, const std::string& waiting);

// The state of an app from those of its services, by name.
State CombineStates(const DesiredApp& app,
                    const std::vector<std::pair<std::string, State>>& services);

}  // namespace takt::line
