#include "line/plan.h"

#include <gtest/gtest.h>

#include <functional>
#include <tuple>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace takt::line {
namespace {

using runtime::Health;
using runtime::InstanceState;
using std::chrono::seconds;
using std::chrono::system_clock;
using templates::DependencyCondition;

// A world of at most three services: db, web (which waits for db as `condition` says), job.
struct World {
  DesiredApp app;
  std::map<std::string, Handed> handed;
  std::map<std::string, runtime::ServiceStatus> statuses;
  std::map<std::string, std::string> unready, held;

  World() { app.name = "a", app.revision = 3; }

  DesiredService& Want(const std::string& name, int version = 1) {
    DesiredService service;
    service.spec.app = "a";
    service.spec.service = name;
    service.identity = name + std::to_string(version);
    app.services.push_back(service);
    return app.services.back();
  }
  // As the runtime has it, with one instance.
  runtime::InstanceStatus& Has(const std::string& name, int version, int revision,
                               InstanceState state) {
    handed[name] = {.identity = name + std::to_string(version),
                    .settings = "",
                    .replicas = 1,
                    .revision = revision,
                    .phase = Phase::kDeployed,
                    .before = {},
                    .tried = {{name + std::to_string(version), revision}}};
    return Instance(name, name + ".1", revision, state);
  }
  runtime::InstanceStatus& Instance(const std::string& name, const std::string& id, int revision,
                                    InstanceState state) {
    runtime::InstanceStatus instance;
    instance.id = id;
    instance.revision = revision;
    instance.state = state;
    instance.created = system_clock::time_point(seconds(100 + statuses[name].instances.size()));
    instance.started = instance.created;
    instance.finished = instance.created + seconds(3);
    statuses[name].instances.push_back(instance);
    return statuses[name].instances.back();
  }
  Plan Make() const {
    ObservedApp observed;
    for (const auto& [name, status] : statuses) observed.services[name] = &status;
    observed.unready = unready;
    observed.held = held;
    return MakePlan(app, handed, observed);
  }
  // "deploy web@3, stop db" and what is waited for: "| web: waiting for db to start".
  std::string Text() const {
    Plan plan = Make();
    std::vector<std::string> parts;
    for (const Action& action : plan.actions) {
      const char* kKinds[] = {"deploy ", "stop ", "remove ", "forget ", "forget app"};
      std::string text = kKinds[static_cast<int>(action.kind)] + action.service;
      if (action.kind == Action::Kind::kDeploy) text += "@" + std::to_string(action.revision);
      parts.push_back(text);
    }
    for (const auto& [service, reason] : plan.waiting) {
      parts.push_back(StrCat("| ", service, ": ", reason));
    }
    return absl::StrJoin(parts, ", ");
  }
  State StateOf(std::size_t index, const std::string& waiting = "") const {
    const DesiredService& service = app.services[index];
    auto h = handed.find(service.spec.service);
    auto s = statuses.find(service.spec.service);
    return ServiceState(app, service, h == handed.end() ? nullptr : &h->second,
                        s == statuses.end() ? nullptr : &s->second, waiting);
  }
};

struct PlanCase {
  const char* what;
  std::function<void(World&)> set;
  std::string plan;
};

const PlanCase kPlans[] = {
    {"a new app starts", [](World& w) { w.Want("db"); }, "deploy db@3"},
    {"what runs as wanted is left alone",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 2, InstanceState::kRunning);
     },
     ""},
    {"what completed is left alone",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 2, InstanceState::kExited).exit_code = 0;
     },
     ""},
    {"what failed is left to the runtime's policy",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 2, InstanceState::kExited).exit_code = 1;
     },
     ""},
    {"a changed service is replaced under the app's revision",
     [](World& w) {
       w.Want("db", 2);
       w.Has("db", 1, 2, InstanceState::kRunning);
     },
     "deploy db@3"},
    {"only the changed one is",
     [](World& w) {
       w.Want("db", 2);
       w.Want("job");
       w.Has("db", 1, 2, InstanceState::kRunning);
       w.Has("job", 1, 1, InstanceState::kRunning);
     },
     "deploy db@3"},
    {"changed settings keep the revision of the instances",
     [](World& w) {
       w.Want("db").settings = "replicas 2";
       w.Has("db", 1, 2, InstanceState::kRunning);
     },
     "deploy db@2"},
    {"what the runtime lost is deployed again",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 2, InstanceState::kRunning);
       w.statuses.clear();
     },
     "deploy db@2"},
    {"a hand-over that a death cut short is repeated",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 3, InstanceState::kStarting);
       w.handed["db"].phase = Phase::kDeploying;
     },
     "deploy db@3"},
    {"what was tried without an answer goes back under its revision",
     [](World& w) {
       w.Want("db");
       w.Has("db", 2, 3, InstanceState::kRunning);
       w.handed["db"].phase = Phase::kDeploying;
       w.handed["db"].tried["db1"] = 1;
     },
     "deploy db@1"},
    {"a service that the app has no more is removed, then forgotten",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 1, InstanceState::kRunning);
       w.Has("old", 1, 1, InstanceState::kRunning);
       w.handed["gone"];
     },
     "forget gone, remove old"},
    {"a stopped app is stopped",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 1, InstanceState::kRunning);
       w.app.stopped = true;
     },
     "stop db"},
    {"once",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 1, InstanceState::kStopping);
       w.statuses["db"].stopped = true;
       w.app.stopped = true;
     },
     ""},
    {"a stopped app that never ran has nothing to do",
     [](World& w) {
       w.Want("db");
       w.app.stopped = true;
     },
     ""},
    {"a started one is deployed again",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 1, InstanceState::kExited);
       w.statuses["db"].stopped = true;
     },
     "deploy db@1"},
    {"to run again, what ended is stopped first",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 1, InstanceState::kExited).exit_code = 0;
       w.handed["db"].phase = Phase::kStopFirst;
     },
     "stop db"},
    {"then deployed",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 1, InstanceState::kExited).exit_code = 0;
       w.handed["db"].phase = Phase::kStopFirst;
       w.statuses["db"].stopped = true;
     },
     "deploy db@1"},
    {"but not while its last run is still ending",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 1, InstanceState::kStopping);
       w.handed["db"].phase = Phase::kStopFirst;
       w.statuses["db"].stopped = true;
     },
     "| db: waiting for its last run to end"},
    {"removing takes everything away",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 1, InstanceState::kRunning);
       w.app.removing = true;
     },
     "remove db"},
    {"forgets what is gone",
     [](World& w) {
       w.Want("db");
       w.Has("db", 1, 1, InstanceState::kRunning);
       w.statuses.clear();
       w.app.removing = true;
     },
     "forget db"},
    {"and at last the app",
     [](World& w) {
       w.Want("db");
       w.app.removing = true;
     },
     "forget app"},
    {"a volume that is not there is waited for",
     [](World& w) {
       w.Want("db").sources = {{templates::Mount::Kind::kVolume, "mnist_model", ""}};
       w.unready["mnist_model"] = "/data/nas is not mounted";
     },
     "| db: waiting for volume mnist_model: /data/nas is not mounted"},
    {"so is a directory",
     [](World& w) {
       w.Want("db").sources = {{templates::Mount::Kind::kBind, "/x", ""}};
       w.unready["/x"] = "no such file or directory";
     },
     "| db: waiting for /x: no such file or directory"},
    {"but what runs already goes on",
     [](World& w) {
       w.Want("db").sources = {{templates::Mount::Kind::kVolume, "m", ""}};
       w.Has("db", 1, 1, InstanceState::kRunning);
       w.unready["m"] = "/data/nas is not mounted";
     },
     ""},
    {"what the runtime refused a moment ago is held",
     [](World& w) {
       w.Want("db");
       w.held["db"] = "port 9000 is taken by app serving";
     },
     "| db: port 9000 is taken by app serving"},
    {"of three that want each other's ports one stops",
     [](World& w) {
       for (const auto& [name, has, wants] : {std::tuple{"a", 1, 2}, {"b", 2, 3}, {"c", 3, 1}}) {
         w.Want(name, 2).spec.ports = {{"", static_cast<std::uint16_t>(wants), 80, "tcp"}};
         w.Has(name, 1, 2, InstanceState::kRunning).endpoints = {
             {"127.0.0.1", static_cast<std::uint16_t>(has), 80, "tcp"}};
         w.held[name] = "taken";
       }
     },
     "stop a, | a: taken, | b: taken, | c: taken"},
    {"one that waits for a port alone stops nobody",
     [](World& w) {
       w.Want("a", 2).spec.ports = {{"", 2, 80, "tcp"}};
       w.Want("b");
       w.Has("b", 1, 2, InstanceState::kRunning).endpoints = {{"127.0.0.1", 2, 80, "tcp"}};
       w.held["a"] = "taken";
     },
     "| a: taken"},
};

TEST(MakePlan, Table) {
  for (const PlanCase& c : kPlans) {
    World w;
    c.set(w);
    EXPECT_EQ(w.Text(), c.plan) << c.what;
  }
}

struct DependencyCase {
  const char* what;
  DependencyCondition condition;
  std::function<void(World&)> set;  // db, which is handed over as wanted
  std::string plan;
};

const DependencyCase kDependencies[] = {
    {"not there yet", DependencyCondition::kStarted, [](World& w) { w.statuses.clear(); },
     "deploy db@2, | web: waiting for db to start"},
    {"starting", DependencyCondition::kStarted,
     [](World& w) { w.statuses["db"].instances[0].state = InstanceState::kStarting; },
     "| web: waiting for db to start"},
    {"started", DependencyCondition::kStarted, [](World&) {}, "deploy web@3"},
    {"started and already done", DependencyCondition::kStarted,
     [](World& w) {
       w.statuses["db"].instances[0].state = InstanceState::kExited;
       w.statuses["db"].instances[0].exit_code = 0;
     },
     "deploy web@3"},
    {"started and failed", DependencyCondition::kStarted,
     [](World& w) {
       w.statuses["db"].instances[0].state = InstanceState::kExited;
       w.statuses["db"].instances[0].exit_code = 1;
     },
     "| web: waiting for db to start: it exited with code 1 after 3 s"},
    {"not healthy yet", DependencyCondition::kHealthy,
     [](World& w) { w.statuses["db"].instances[0].health = Health::kStarting; },
     "| web: waiting for db to be healthy"},
    {"unhealthy", DependencyCondition::kHealthy,
     [](World& w) {
       w.statuses["db"].instances[0].health = Health::kUnhealthy;
       w.statuses["db"].instances[0].reason = "GET /health answers 500";
     },
     "| web: waiting for db to be healthy: GET /health answers 500"},
    {"healthy", DependencyCondition::kHealthy,
     [](World& w) { w.statuses["db"].instances[0].health = Health::kHealthy; }, "deploy web@3"},
    {"without a health check", DependencyCondition::kHealthy,
     [](World& w) { w.app.services[0].spec.health.kind = runtime::HealthProbe::Kind::kNone; },
     "| web: waiting for db to be healthy: it has no health check"},
    {"running, not complete", DependencyCondition::kCompletedSuccessfully, [](World&) {},
     "| web: waiting for db to complete"},
    {"complete", DependencyCondition::kCompletedSuccessfully,
     [](World& w) {
       w.statuses["db"].instances[0].state = InstanceState::kExited;
       w.statuses["db"].instances[0].exit_code = 0;
     },
     "deploy web@3"},
    {"complete in a former run only", DependencyCondition::kCompletedSuccessfully,
     [](World& w) {
       w.statuses["db"].instances[0].state = InstanceState::kExited;
       w.statuses["db"].instances[0].exit_code = 0;
       w.handed["db"].before = {"db.1"};
     },
     "| web: waiting for db to complete"},
    {"complete in a former revision only", DependencyCondition::kCompletedSuccessfully,
     [](World& w) {
       w.statuses["db"].instances[0].state = InstanceState::kExited;
       w.statuses["db"].instances[0].exit_code = 0;
       w.handed["db"].revision = 3;
     },
     "| web: waiting for db to complete"},
    {"about to be replaced", DependencyCondition::kStarted,
     [](World& w) { w.app.services[0].identity = "db2"; },
     "deploy db@3, | web: waiting for db to start"},
    {"one of two replicas", DependencyCondition::kStarted,
     [](World& w) {
       w.app.services[0].spec.replicas = 2;
       w.handed["db"].replicas = 2;
     },
     "| web: waiting for db to start"},
    {"both of two replicas", DependencyCondition::kStarted,
     [](World& w) {
       w.app.services[0].spec.replicas = 2;
       w.handed["db"].replicas = 2;
       w.Instance("db", "db.2", 2, InstanceState::kRunning).replica = 1;
     },
     "deploy web@3"},
};

TEST(MakePlan, WaitsForDependencies) {
  for (const DependencyCase& c : kDependencies) {
    World w;
    w.Want("db").spec.health.kind = runtime::HealthProbe::Kind::kTcp;
    w.Want("web").depends_on = {{"db", c.condition}};
    w.Has("db", 1, 2, InstanceState::kRunning);
    c.set(w);
    EXPECT_EQ(w.Text(), c.plan) << c.what;
  }
}

TEST(MakePlan, IsIdempotentOnceCarriedOut) {
  World w;
  w.Want("db");
  ASSERT_EQ(w.Text(), "deploy db@3");
  w.Has("db", 1, 3, InstanceState::kStarting);
  EXPECT_EQ(w.Text(), "");
}

struct StateCase {
  const char* what;
  std::function<void(World&)> set;
  std::string state;  // "state: reason"
};

void Set(World& w, InstanceState state, std::optional<int> code, std::string reason = "") {
  runtime::InstanceStatus& instance = w.statuses["db"].instances[0];
  instance.state = state;
  instance.exit_code = code;
  instance.reason = std::move(reason);
}

const StateCase kStates[] = {
    {"runs", [](World&) {}, "running: "},
    {"starts", [](World& w) { Set(w, InstanceState::kStarting, {}, "is starting"); },
     "starting: is starting"},
    {"not handed over", [](World& w) { w.handed.clear(); },
     "pending: about to be handed to the runtime"},
    {"handed over, nothing seen yet", [](World& w) { w.statuses["db"].instances.clear(); },
     "starting: starting"},
    {"first check", [](World& w) { w.statuses["db"].instances[0].health = Health::kStarting; },
     "starting: started; its health check has not passed yet"},
    {"unhealthy",
     [](World& w) {
       w.statuses["db"].instances[0].health = Health::kUnhealthy;
       w.statuses["db"].instances[0].reason = "GET / answers 500";
     },
     "degraded: GET / answers 500"},
    {"completed", [](World& w) { Set(w, InstanceState::kExited, 0); },
     "completed: exited with code 0 after 3 s"},
    {"failed", [](World& w) { Set(w, InstanceState::kExited, 1); },
     "failed: exited with code 1 after 3 s"},
    {"the runtime's own words", [](World& w) { Set(w, InstanceState::kExited, 1, "failed oddly"); },
     "failed: failed oddly after 3 s"},
    {"backs off",
     [](World& w) {
       Set(w, InstanceState::kBackingOff, 1, "failed with exit code 1; restarts in 8 s");
     },
     "degraded: failed with exit code 1 after 3 s; restarts in 8 s"},
    {"a signal",
     [](World& w) {
       Set(w, InstanceState::kExited, {});
       w.statuses["db"].instances[0].signal = 9;
     },
     "failed: was ended by signal 9 (SIGKILL) after 3 s"},
    {"out of memory",
     [](World& w) {
       Set(w, InstanceState::kExited, {});
       w.statuses["db"].instances[0].signal = 9;
       w.statuses["db"].instances[0].oom_killed = true;
     },
     "failed: ran out of memory after 3 s"},
    {"cannot start",
     [](World& w) {
       Set(w, InstanceState::kExited, {}, "no such program: /bin/serv");
       w.statuses["db"].instances[0].started = {};
     },
     "failed: no such program: /bin/serv"},
    {"gave up",
     [](World& w) {
       w.app.services[0].spec.restart = runtime::RestartPolicy::kOnFailure;
       w.app.services[0].spec.restart_max_attempts = 2;
       Set(w, InstanceState::kExited, 1, "failed with exit code 1; gave up after 2 restarts");
       w.statuses["db"].instances[0].restarts = 2;
     },
     "failed: failed with exit code 1 after 3 s; gave up after 2 restarts"},
    {"ended well but is to run always",
     [](World& w) {
       w.app.services[0].spec.restart = runtime::RestartPolicy::kAlways;
       Set(w, InstanceState::kBackingOff, 0, "finished with exit code 0; restarts in 1 s");
     },
     "degraded: finished with exit code 0 after 3 s; restarts in 1 s"},
    {"one of two",
     [](World& w) {
       w.app.services[0].spec.replicas = w.handed["db"].replicas = 2;
       w.Instance("db", "db.2", 2, InstanceState::kStarting).replica = 1;
     },
     "starting: 1 of 2 instances run: starting"},
    {"one of two fails",
     [](World& w) {
       w.app.services[0].spec.replicas = w.handed["db"].replicas = 2;
       auto& other = w.Instance("db", "db.2", 2, InstanceState::kExited);
       other.replica = 1;
       other.exit_code = 1;
     },
     "degraded: 1 of 2 instances: exited with code 1 after 3 s"},
    {"one of two has completed",
     [](World& w) {
       w.app.services[0].spec.replicas = w.handed["db"].replicas = 2;
       auto& other = w.Instance("db", "db.2", 2, InstanceState::kExited);
       other.replica = 1;
       other.exit_code = 0;
     },
     "running: 1 of 2 instances have completed"},
    {"the newest instance of a replica counts",
     [](World& w) {
       Set(w, InstanceState::kExited, 1);
       w.Instance("db", "db.2", 2, InstanceState::kRunning);
     },
     "running: "},
    {"no replicas", [](World& w) { w.app.services[0].spec.replicas = w.handed["db"].replicas = 0; },
     "stopped: no instance is wanted (replicas: 0)"},
    {"stopping", [](World& w) { w.app.stopped = true; },
     "stopping: stopping: its instances have not ended yet"},
    {"stopped",
     [](World& w) {
       w.app.stopped = w.statuses["db"].stopped = true;
       Set(w, InstanceState::kExited, {});
     },
     "stopped: stopped on request"},
    {"removing", [](World& w) { w.app.removing = true; }, "removing: being removed"},
};

TEST(ServiceState, Table) {
  for (const StateCase& c : kStates) {
    World w;
    w.Want("db");
    w.Has("db", 1, 2, InstanceState::kRunning);
    c.set(w);
    State state = w.StateOf(0);
    EXPECT_EQ(std::string(AppStateName(state.state)) + ": " + state.reason, c.state) << c.what;
  }
  World w;
  w.Want("db");
  EXPECT_EQ(w.StateOf(0, "waiting for db to start").reason, "waiting for db to start");
}

TEST(CombineStates, Table) {
  using S = AppState;
  struct Case {
    std::vector<std::pair<std::string, State>> services;
    std::string state;
  };
  const Case kCases[] = {
      {{{"a", {S::kRunning, ""}}}, "running: "},
      {{{"a", {S::kRunning, ""}}, {"b", {S::kCompleted, "done"}}}, "running: "},
      {{{"a", {S::kRunning, "no version yet"}}}, "running: no version yet"},
      {{{"a", {S::kCompleted, "done"}}}, "completed: done"},
      {{{"a", {S::kCompleted, "x"}}, {"b", {S::kCompleted, "y"}}}, "completed: a: x; b: y"},
      {{{"a", {S::kRunning, ""}}, {"b", {S::kFailed, "x"}}}, "degraded: b: x"},
      {{{"a", {S::kFailed, "x"}}}, "failed: x"},
      {{{"a", {S::kFailed, "x"}}, {"b", {S::kPending, "waiting for a to complete"}}},
       "failed: a: x"},
      {{{"a", {S::kRunning, ""}}, {"b", {S::kPending, "p"}}}, "pending: b: p"},
      {{{"a", {S::kStarting, "s"}}, {"b", {S::kPending, "p"}}}, "pending: b: p"},
      {{{"a", {S::kStarting, "s"}}, {"b", {S::kRunning, ""}}}, "starting: a: s"},
      {{{"a", {S::kDegraded, "d"}}, {"b", {S::kRunning, ""}}}, "degraded: a: d"},
      {{{"a", {S::kStopped, "no instance is wanted"}}}, "stopped: no instance is wanted"},
  };
  for (const Case& c : kCases) {
    State state = CombineStates({}, c.services);
    EXPECT_EQ(std::string(AppStateName(state.state)) + ": " + state.reason, c.state);
  }
}

}  // namespace
}  // namespace takt::line
