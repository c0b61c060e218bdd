// The line under random use and random mishaps, on a fake clock and a fake runtime: people deploy,
// configure, roll back, stop, start and remove; instances crash, volumes go and come back, the
// runtime refuses, and the daemon is ended or killed at the very moment of a call. What must hold
// is checked after every step, and after everything has calmed down.
//
// TAKT_SEED=N repeats one run; TAKT_RUNS=N sets how many there are.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>

#include "absl/strings/str_join.h"
#include "line/test_world.h"

namespace takt::line {
namespace {

using runtime::InstanceState;
using std::chrono::milliseconds;

constexpr const char* kTemplates[] = {
    // A server.
    R"(services:
  web: {image: web, command: [run, "${V:-0}"], restart: always}
)",
    // A job on a volume that comes and goes.
    R"(services:
  job: {image: job, command: [run, "${V:-0}"], volumes: ["nas:/data"]}
)",
    // Three in a row.
    R"(services:
  front:
    image: front
    command: [run, "${V:-0}"]
    depends_on: {back: {condition: service_healthy}}
  back:
    image: back
    command: [run, fixed]
    healthcheck: {test: "true", interval: 1s}
    restart: on-failure
    depends_on: {setup: {condition: service_completed_successfully}}
  setup: {image: setup, command: [run, "${W:-0}"]}
)",
    // Replicas.
    R"(services:
  many: {image: many, command: [run, "${V:-0}"], deploy: {replicas: 3}}
)",
};

// What an app was acknowledged to be.
struct Model {
  std::vector<Configuration> revisions;  // [n - 1] is revision n
  bool stopped = false, removing = false;
};

class Simulation {
 public:
  explicit Simulation(std::uint32_t seed) : random_(seed) {}

  void Run(int steps) {
    nas_ = JoinPath(world_.dir.path(), "nas");
    ASSERT_TRUE(MakeDirs(nas_).ok());
    ASSERT_TRUE(world_.volumes->Create("nas", "local", {{"device", nas_}}).ok());
    for (const char* app : kApps) {
      runtime::Behaviour setup;
      setup.ends_after = milliseconds(2000);
      world_.fake.Script(app, "setup", setup);
      runtime::Behaviour job;
      job.ends_after = milliseconds(7000);
      world_.fake.Script(app, "job", job);
    }
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
      Step();
      Check();
    }
    CalmDown();
    CheckCalm();
  }
  const std::string& story() const { return story_; }

 private:
  static constexpr const char* kApps[] = {"a", "b", "c", "d"};

  int Pick(int n) { return static_cast<int>(random_() % static_cast<std::uint32_t>(n)); }
  std::string PickApp() { return kApps[Pick(std::size(kApps))]; }
  void Tell(const std::string& what) { story_ += what + "\n"; }

  void Step() {
    MaybeDoom();
    switch (Pick(14)) {
      case 0:
      case 1:
        Deploy();
        break;
      case 2:
      case 3:
        Configure();
        break;
      case 4:
        Rollback();
        break;
      case 5:
        StopOrStart(true);
        break;
      case 6:
      case 7:
        StopOrStart(false);
        break;
      case 8:
        Remove();
        break;
      case 9:
        Crash();
        break;
      case 10:
        MoveVolume();
        break;
      case 11:
        Tell("refuse");
        world_.fake.FailNextDeploy(absl::AlreadyExistsError("port 1 is taken"));
        break;
      case 12:
        Tell("restart");
        ASSERT_TRUE(world_.Open().ok());
        break;
      case 13: {
        int seconds = 1 + Pick(20);
        Tell(StrCat("advance ", seconds));
        for (int i = 0; i < seconds && !world_.runtime.dead(); ++i) {
          world_.Advance(milliseconds(1000));
        }
        break;
      }
    }
    if (Pick(4) != 0) world_.line->Step();
    if (world_.runtime.dead()) {
      Tell("the daemon died");
      world_.runtime.SetFate(nullptr);
      ASSERT_TRUE(world_.Open().ok());
      world_.line->Step();
    }
  }

  // Lets one of the next calls to the runtime be the daemon's last.
  void MaybeDoom() {
    if (Pick(8) != 0) return;
    int calls = Pick(3);
    bool after = Pick(2) == 0;
    Tell(StrCat("doomed ", after ? "after" : "before", " call ", calls));
    world_.runtime.SetFate([calls, after]() mutable {
      if (calls-- > 0) return MortalRuntime::Fate::kLive;
      return after ? MortalRuntime::Fate::kDieAfter : MortalRuntime::Fate::kDieBefore;
    });
  }

  Configuration RandomConfiguration() {
    Configuration configuration;
    configuration.template_text = kTemplates[Pick(std::size(kTemplates))];
    configuration.values["V"] = std::to_string(Pick(3));
    if (Pick(2) == 0) configuration.values["W"] = std::to_string(Pick(2));
    return configuration;
  }

  void Deploy() {
    std::string app = PickApp();
    Configuration configuration = RandomConfiguration();
    absl::Status status = world_.line->Create(app, configuration, {}).status();
    Tell(StrCat("deploy ", app, " ", status.ToString()));
    EXPECT_EQ(status.ok(), !model_.contains(app)) << status;
    if (status.ok()) model_[app].revisions = {configuration};
  }

  void Configure() {
    std::string app = PickApp();
    auto it = model_.find(app);
    Configuration configuration = RandomConfiguration();
    if (it != model_.end() && Pick(3) != 0) {
      configuration.template_text = it->second.revisions.back().template_text;
    }
    auto result = world_.line->Configure(app, configuration, {});
    Tell(StrCat("configure ", app, " ", result.status().ToString()));
    bool possible = it != model_.end() && !it->second.removing;
    ASSERT_EQ(result.ok(), possible) << result.status();
    if (result.ok()) Acknowledge(it->second, configuration, *result);
  }

  void Rollback() {
    std::string app = PickApp();
    auto it = model_.find(app);
    if (it == model_.end() || it->second.removing) return;
    int target = 1 + Pick(static_cast<int>(it->second.revisions.size()));
    auto result = world_.line->Rollback(app, target, {});
    Tell(StrCat("rollback ", app, " to ", target, " ", result.status().ToString()));
    ASSERT_TRUE(result.ok()) << result.status();
    Configuration configuration = it->second.revisions[static_cast<std::size_t>(target - 1)];
    Acknowledge(it->second, configuration, *result);
  }

  static void Acknowledge(Model& model, const Configuration& configuration, const App& app) {
    bool equal = model.revisions.back() == configuration;
    if (!equal) model.revisions.push_back(configuration);
    EXPECT_EQ(app.revision.number, static_cast<int>(model.revisions.size()));
  }

  void StopOrStart(bool stop) {
    std::string app = PickApp();
    auto it = model_.find(app);
    absl::Status status = stop ? world_.line->Stop(app).status() : world_.line->Start(app).status();
    Tell(StrCat(stop ? "stop " : "start ", app, " ", status.ToString()));
    ASSERT_EQ(status.ok(), it != model_.end() && !it->second.removing) << status;
    if (status.ok()) it->second.stopped = stop;
  }

  void Remove() {
    if (Pick(2) == 0) return;
    std::string app = PickApp();
    absl::Status status = world_.line->Remove(app);
    Tell(StrCat("remove ", app, " ", status.ToString()));
    ASSERT_EQ(status.ok(), model_.contains(app)) << status;
    if (status.ok()) model_[app].removing = true;
  }

  void Crash() {
    auto services = *world_.fake.Observe();
    std::vector<std::string> live;
    for (const auto& service : services) {
      for (const auto& instance : service.instances) {
        if (instance.state == InstanceState::kRunning) live.push_back(instance.id);
      }
    }
    if (live.empty()) return;
    std::string id = live[static_cast<std::size_t>(Pick(static_cast<int>(live.size())))];
    int code = Pick(3);
    Tell(StrCat("exit ", id, " ", code));
    world_.fake.Exit(id, code);
  }

  void MoveVolume() {
    bool there = Exists(nas_);
    Tell(there ? "nas goes" : "nas comes");
    ASSERT_TRUE((there ? RemoveAll(nas_) : MakeDirs(nas_)).ok());
  }

  // What must hold at every moment.
  void Check() {
    for (auto it = model_.begin(); it != model_.end();) {
      auto app = world_.line->Get(it->first);
      if (it->second.removing && absl::IsNotFound(app.status())) {
        it = model_.erase(it);
        continue;
      }
      ASSERT_TRUE(app.ok()) << it->first << ": an acknowledged app is lost: " << app.status();
      const Model& model = it->second;
      EXPECT_EQ(app->revision.number, static_cast<int>(model.revisions.size())) << it->first;
      EXPECT_EQ(app->revision.configuration, model.revisions.back()) << it->first;
      EXPECT_EQ(app->stopped, model.stopped) << it->first;
      if (app->state != AppState::kRunning) {
        EXPECT_FALSE(app->reason.empty())
            << it->first << " is " << AppStateName(app->state) << " and says not why";
      }
      for (const ServiceView& service : app->services) {
        if (service.state != AppState::kRunning) {
          EXPECT_FALSE(service.reason.empty()) << service.spec.name;
        }
      }
      auto revisions = world_.line->Revisions(it->first);
      ASSERT_EQ(revisions->size(), model.revisions.size());
      for (const Revision& revision : *revisions) {
        EXPECT_EQ(revision.configuration,
                  model.revisions[static_cast<std::size_t>(revision.number - 1)]);
      }
      ++it;
    }
    EXPECT_EQ(world_.line->List().size(), model_.size());
    CheckInstances();
    std::int64_t last = 0;
    for (const Event& event : world_.line->Events("", 0, kMaxEvents)) {
      EXPECT_GT(event.id, last);
      last = event.id;
    }
  }

  // Never two of one replica.
  void CheckInstances() {
    const auto services = *world_.fake.Observe();
    for (const auto& service : services) {
      std::map<int, int> live;
      for (const auto& instance : service.instances) {
        if (instance.state == InstanceState::kStarting ||
            instance.state == InstanceState::kRunning) {
          EXPECT_EQ(++live[instance.replica], 1) << service.app << "." << service.service;
        }
      }
    }
  }

  void CalmDown() {
    Tell("calm down");
    world_.runtime.SetFate(nullptr);
    ASSERT_TRUE(MakeDirs(nas_).ok());
    world_.Advance(std::chrono::minutes(3));
    Check();
  }

  // In the end everything is as it was asked for, and only that.
  void CheckCalm() {
    std::set<std::string> wanted;
    for (const auto& [name, model] : model_) {
      EXPECT_FALSE(model.removing) << name << " is not gone";
      auto app = world_.line->Get(name);
      ASSERT_TRUE(app.ok());
      for (const ServiceView& service : app->services) {
        const std::string key = name + "." + service.spec.name;
        if (model.stopped) {
          EXPECT_EQ(service.state, AppState::kStopped) << key << ": " << service.reason;
          for (const auto& instance : service.instances) {
            EXPECT_EQ(instance.state, InstanceState::kExited) << key;
          }
          wanted.insert(key);
          continue;
        }
        // One may wait for another that failed for good: that is said, and nothing else waits.
        if (service.state == AppState::kPending) {
          EXPECT_EQ(service.reason.rfind("waiting for ", 0), 0u) << key << ": " << service.reason;
          EXPECT_EQ(service.reason.find("volume"), std::string::npos) << service.reason;
          wanted.insert(key);
          continue;
        }
        wanted.insert(key);
        const runtime::ServiceSpec* given = world_.runtime.Last(name, service.spec.name);
        ASSERT_NE(given, nullptr) << key;
        EXPECT_EQ(given->command, service.spec.command) << key;
        EXPECT_EQ(given->replicas, service.spec.replicas) << key;
        EXPECT_NE(service.state, AppState::kStarting) << key << ": " << service.reason;
      }
    }
    const auto services = *world_.fake.Observe();
    for (const auto& service : services) {
      EXPECT_TRUE(wanted.contains(service.app + "." + service.service))
          << service.app << "." << service.service << " was left behind";
    }
  }

  std::mt19937 random_;
  TestWorld world_;
  std::string nas_;
  std::map<std::string, Model> model_;
  std::string story_;
};

TEST(Simulation, NothingIsLostAndNothingIsDoneTwice) {
  const char* only = std::getenv("TAKT_SEED");
  const char* runs = std::getenv("TAKT_RUNS");
  std::uint32_t first = only != nullptr ? static_cast<std::uint32_t>(std::atoi(only))
                                        : static_cast<std::uint32_t>(std::random_device()());
  int count = only != nullptr ? 1 : runs != nullptr ? std::atoi(runs) : 10;
  constexpr int kSteps = 60;
  for (int i = 0; i < count; ++i) {
    std::uint32_t seed = first + static_cast<std::uint32_t>(i);
    SCOPED_TRACE(StrCat("TAKT_SEED=", seed));
    Simulation simulation(seed);
    simulation.Run(kSteps);
    if (HasFailure()) {
      ADD_FAILURE() << "TAKT_SEED=" << seed << " repeats it:\n" << simulation.story();
      return;
    }
  }
  std::printf("seeds %u to %u\n", first, first + static_cast<std::uint32_t>(count) - 1);
}

}  // namespace
}  // namespace takt::line
