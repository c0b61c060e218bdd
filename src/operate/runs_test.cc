// Runs as they are seen of a line on a fake clock: what begins one, what ends it, what it made.
#include "operate/runs.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/fs.h"
#include "line/test_world.h"

namespace takt::operate {
namespace {

using runtime::Behaviour;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kTemplate = R"(
trainer:
  image: 'trainer'
  command: train --rate ${RATE:-0.1} --steps ${STEPS} ${TARGET}
  restart: '${RESTART:-no}'
  volumes: ['models:/mnt/models']
  labels:
    takt.learning: /mnt/models/events
)";

class RunsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    runs_ = Runs::Open(Path()).value();
    ASSERT_TRUE(world_.volumes->Create("models", "local", {}).ok());
  }
  std::string Path() const { return JoinPath(world_.dir.path(), "runs.db"); }
  std::string Models(const std::string& below = "") {
    return JoinPath(world_.volumes->Resolve("models", "").value(), below);
  }

  line::Configuration Configuration(const std::string& steps, const std::string& restart = "no",
                                    const std::string& target = "/mnt/models/digits") {
    return {.template_text = kTemplate,
            .values = {{"STEPS", steps}, {"RESTART", restart}, {"TARGET", target}}};
  }
  void Create(const line::Configuration& configuration, const std::string& name = "mnist") {
    const auto app = world_.line->Create(name, configuration, {.author = "ann", .why = "first"});
    ASSERT_TRUE(app.ok()) << app.status();
    Look(name);
  }
  // Time passes, and the observer looks.
  void Look(const std::string& name = "mnist", milliseconds by = seconds(2)) {
    world_.Advance(by);
    const auto app = world_.line->Get(name);
    ASSERT_TRUE(app.ok()) << app.status();
    const absl::Status status = runs_->Observe(*app, *world_.volumes, world_.clock.Now());
    ASSERT_TRUE(status.ok()) << status;
  }
  void Export(const std::string& directory, seconds after_start_of_clock) {
    ASSERT_TRUE(MakeDirs(directory).ok());
    const std::string path = JoinPath(directory, "saved_model.pb");
    ASSERT_TRUE(WriteFileAtomic(path, "graph").ok());
    const auto when = FakeClock().Now() + after_start_of_clock;
    const timespec time{std::chrono::duration_cast<seconds>(when.time_since_epoch()).count(), 0};
    const timespec times[2] = {time, time};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  std::vector<operate::Run> List() { return runs_->List("mnist", 100).value(); }
  // "1 completed, 2 running", oldest first.
  std::string Summary(const std::string& app = "mnist") {
    std::string text;
    std::vector<operate::Run> runs = runs_->List(app, 100).value();
    for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
      text += StrCat(text.empty() ? "" : ", ", run->number, " ", RunStateName(run->state));
    }
    return text;
  }

  line::TestWorld world_;
  std::unique_ptr<Runs> runs_;
};

TEST_F(RunsTest, AnExecutionFromStartToExitIsARun) {
  world_.fake.Script("mnist", "trainer", Behaviour{.ends_after = seconds(30)});
  Create(Configuration("100"));
  ASSERT_EQ(Summary(), "1 running");
  operate::Run run = List()[0];
  EXPECT_EQ(run.app, "mnist");
  EXPECT_EQ(run.service, "trainer");
  EXPECT_EQ(run.revision, 1);
  EXPECT_EQ(run.values.at("STEPS"), "100");
  EXPECT_EQ(run.values.at("RATE"), "0.1");  // the template's default
  EXPECT_EQ(run.why, "first");
  EXPECT_EQ(run.author, "ann");
  EXPECT_FALSE(run.ended);
  EXPECT_EQ(run.window().to, std::numeric_limits<double>::infinity());

  Look("mnist", seconds(60));
  ASSERT_EQ(Summary(), "1 completed");
  run = List()[0];
  EXPECT_EQ(run.exit_code, 0);
  EXPECT_DOUBLE_EQ(*run.ended - run.started, 30);
  EXPECT_DOUBLE_EQ(run.window().from, run.started);
  EXPECT_DOUBLE_EQ(run.window().to, *run.ended);
}

TEST_F(RunsTest, RunningAgainIsANewRunAndSoIsAnotherConfiguration) {
  world_.fake.Script("mnist", "trainer", Behaviour{.ends_after = seconds(5)});
  Create(Configuration("100"));
  Look("mnist", seconds(10));
  ASSERT_TRUE(world_.line->Start("mnist").ok());
  Look("mnist", seconds(10));
  EXPECT_EQ(Summary(), "1 completed, 2 completed");
  EXPECT_EQ(List()[0].why, "run again");

  ASSERT_TRUE(world_.line->Configure("mnist", Configuration("1000"), {.why = "more"}).ok());
  Look("mnist", seconds(10));
  EXPECT_EQ(Summary(), "1 completed, 2 completed, 3 completed");
  EXPECT_EQ(List()[0].revision, 2);
  EXPECT_EQ(List()[0].values.at("STEPS"), "1000");
  EXPECT_EQ(List()[0].why, "more");
  Look("mnist", seconds(100));
  EXPECT_EQ(List().size(), 3u) << "nothing new was started";
}

TEST_F(RunsTest, AnAutomaticRestartGoesOnWithTheRun) {
  world_.fake.Script("mnist", "trainer", Behaviour{.ends_after = seconds(5), .exit_code = 9});
  Create(Configuration("100", "on-failure:2"));
  for (int i = 0; i < 60; ++i) Look();
  ASSERT_EQ(Summary(), "1 failed");
  EXPECT_EQ(List()[0].restarts, 2);
  EXPECT_EQ(List()[0].exit_code, 9);
  EXPECT_GT(*List()[0].ended - List()[0].started, 15);
  EXPECT_THAT(List()[0].reason, HasSubstr("9"));
}

TEST_F(RunsTest, RestartsThatNobodySawStillBelongToTheRun) {
  world_.fake.Script("mnist", "trainer", Behaviour{.ends_after = seconds(5), .exit_code = 9});
  Create(Configuration("100", "on-failure:5"));
  Look("mnist", seconds(600));
  EXPECT_EQ(Summary(), "1 failed");
  EXPECT_EQ(List()[0].restarts, 5);
}

TEST_F(RunsTest, StoppingChangingAndRemovingStopARun) {
  Create(Configuration("100"));
  ASSERT_TRUE(world_.line->Stop("mnist").ok());
  Look();
  EXPECT_EQ(Summary(), "1 stopped");
  ASSERT_TRUE(world_.line->Start("mnist").ok());
  Look();
  EXPECT_EQ(Summary(), "1 stopped, 2 running");
  ASSERT_TRUE(world_.line->Configure("mnist", Configuration("200"), {}).ok());
  Look();
  EXPECT_EQ(Summary(), "1 stopped, 2 stopped, 3 running");
  ASSERT_TRUE(world_.line->Remove("mnist").ok());
  world_.Advance(seconds(5));
  ASSERT_TRUE(runs_->Removed("mnist", world_.clock.Now()).ok());
  EXPECT_EQ(Summary(), "1 stopped, 2 stopped, 3 stopped");
  EXPECT_EQ(List()[0].reason, "the app was removed");

  Create(Configuration("100"));  // made anew: the numbers go on
  EXPECT_EQ(Summary(), "1 stopped, 2 stopped, 3 stopped, 4 running");
}

TEST_F(RunsTest, SurvivesARestartOfTheDaemonInTheMiddleOfARun) {
  world_.fake.Script("mnist", "trainer", Behaviour{.ends_after = seconds(30)});
  Create(Configuration("100"));
  ASSERT_TRUE(runs_->Annotate("mnist", 1, "the good one", {{"b", "a", "b"}}).ok());
  runs_ = nullptr;
  ASSERT_TRUE(world_.Open().ok());
  runs_ = Runs::Open(Path()).value();
  Look();
  EXPECT_EQ(Summary(), "1 running");
  runs_ = nullptr;
  ASSERT_TRUE(world_.Open().ok());
  world_.Advance(seconds(60));  // it ends while nobody looks
  runs_ = Runs::Open(Path()).value();
  Look();
  EXPECT_EQ(Summary(), "1 completed");
  EXPECT_DOUBLE_EQ(*List()[0].ended - List()[0].started, 30);
  EXPECT_EQ(List()[0].note, "the good one");
  EXPECT_THAT(List()[0].tags, ElementsAre("a", "b"));
}

TEST_F(RunsTest, AVersionBelongsToTheRunThatExportedIt) {
  Export(Models("digits/1"), seconds(-100));  // was there before
  world_.fake.Script("mnist", "trainer", Behaviour{.ends_after = seconds(30)});
  Create(Configuration("100"));
  Look();
  EXPECT_THAT(List()[0].versions, IsEmpty());
  Export(Models("digits/2"), seconds(20));
  ASSERT_TRUE(MakeDirs(Models("digits/notes")).ok());
  Look("mnist", seconds(60));
  ASSERT_EQ(Summary(), "1 completed");
  operate::Run run = List()[0];
  ASSERT_TRUE(run.model);
  EXPECT_EQ(run.model->name, "digits");
  EXPECT_EQ(run.model->volume, "models");
  EXPECT_EQ(run.model->path, "digits");
  ASSERT_EQ(run.versions.size(), 1u);
  EXPECT_EQ(run.versions[0].number, 2);
  EXPECT_TRUE(run.versions[0].complete);

  // The next one overwrites version 1.
  ASSERT_TRUE(world_.line->Start("mnist").ok());
  Look();
  Export(Models("digits/1"), seconds(75));
  Look("mnist", seconds(60));
  ASSERT_EQ(Summary(), "1 completed, 2 completed");
  ASSERT_EQ(List()[0].versions.size(), 1u);
  EXPECT_EQ(List()[0].versions[0].number, 1);
  EXPECT_EQ(runs_->MakersOf(Models("digits")).value().size(), 2u);
}

TEST_F(RunsTest, TheLabelNamesTheModel) {
  line::Configuration configuration = Configuration("100");
  configuration.template_text += "    takt.model: numbers=/mnt/models/exported\n";
  Create(configuration);
  const operate::Run run = List()[0];
  ASSERT_TRUE(run.model);
  EXPECT_EQ(run.model->name, "numbers");
  EXPECT_EQ(run.model->path, "exported");
}

TEST_F(RunsTest, ATargetThatLiesOnNoVolumeIsNoModel) {
  Create(Configuration("100", "no", "/tmp/model"));
  EXPECT_FALSE(List()[0].model);
}

TEST_F(RunsTest, TheServingServiceLoadsWhatItsCommandOrItsEnvironmentSays) {
  struct Case {
    std::vector<std::string> command;
    std::map<std::string, std::string> environment;
    std::string subdirectory;
    std::string want;  // below the volume; "-" = none
  };
  const std::vector<Case> cases = {
      {{"--model_base_path=/mnt/a"}, {}, "", "a"},
      {{"--port=1", "--model_base_path", "/mnt"}, {}, "", ""},
      {{"sh", "-c", "serve --model_base_path=/mnt/a --x"}, {}, "", "a"},
      {{}, {{"MODEL_BASE_PATH", "/mnt"}, {"MODEL_NAME", "m"}}, "", "m"},
      {{"--model_base_path=/mnt/a"}, {}, "sub", "sub/a"},
      {{}, {}, "", "-"},
      {{"--model_base_path=/mntx/a"}, {}, "", "-"},
  };
  for (const Case& c : cases) {
    templates::ServiceSpec spec;
    spec.command = c.command;
    spec.environment = c.environment;
    templates::Mount mount;
    mount.source = "models";
    mount.target = "/mnt/";
    mount.subdirectory = c.subdirectory;
    spec.mounts.push_back(mount);
    const std::vector<Loaded> loaded = LoadedBy(spec, *world_.volumes);
    ASSERT_EQ(loaded.size(), c.want == "-" ? 0u : 1u) << ::testing::PrintToString(c.command);
    if (loaded.empty()) continue;
    EXPECT_EQ(loaded[0].model.path, c.want) << ::testing::PrintToString(c.command);
    EXPECT_EQ(loaded[0].model.directory, CleanPath(Models(c.want)));
    EXPECT_THAT(loaded[0].versions, IsEmpty());
  }
}

TEST_F(RunsTest, TheServingServiceLoadsWhatItsModelConfigSays) {
  const std::string config = R"(model_config_list <
    # config < base_path: "/mnt/none" >
    config < name: "a" base_path: "/mnt/a" model_version_policy < > >
    config: { name: 'b' base_path: '/mnt/b'
              model_version_policy { specific { versions: 3 versions: 5 } } }
    config { base_path: "/mnt/c" model_version_policy { specific { versions: [7, 8] } } }
    config { base_path: "/elsewhere" }
  >)";
  templates::ServiceSpec spec;
  spec.command = std::vector<std::string>{"--model_config_file=/models.config"};
  templates::Mount mount;
  mount.source = "models";
  mount.target = "/mnt";
  spec.mounts.push_back(mount);
  const auto summary = [&] {
    std::string text;
    for (const Loaded& each : LoadedBy(spec, *world_.volumes)) {
      text += each.model.path + ":";
      for (const std::int64_t version : each.versions) text += StrCat(" ", version);
      text += ";";
    }
    return text;
  };
  EXPECT_EQ(summary(), "") << "the file is not known";
  spec.files["/models.config"] = config;
  EXPECT_EQ(summary(), "a:;b: 3 5;c: 7 8;");
  ASSERT_TRUE(WriteFileAtomic(Models("m.config"), config).ok());
  spec.command = std::vector<std::string>{"--model_config_file", "/mnt/m.config"};
  EXPECT_EQ(summary(), "a:;b: 3 5;c: 7 8;");
  spec.files["/models.config"] = spec.files["/cut"] = config.substr(0, 70);
  spec.command = std::vector<std::string>{"--model_config_file=/cut"};
  EXPECT_EQ(summary(), "");
}

TEST_F(RunsTest, AFindingIsNewOnceUntilItClears) {
  Create(Configuration("100"));
  using Kind = learning::Finding::Kind;
  const learning::Finding flat{Kind::kFlat, false, "flat"}, nan{Kind::kNotFinite, true, "NaN"};
  const auto fresh = [&](const std::vector<learning::Finding>& findings) {
    std::string text;
    const auto found = runs_->SetFindings("mnist", 1, findings).value();
    for (const learning::Finding& f : found) text += f.message + ";";
    return text;
  };
  EXPECT_EQ(fresh({flat}), "flat;");
  EXPECT_EQ(fresh({flat, nan}), "NaN;");
  EXPECT_EQ(fresh({flat, nan}), "");
  EXPECT_EQ(List()[0].findings.size(), 2u);
  EXPECT_EQ(fresh({}), "");
  EXPECT_EQ(fresh({flat}), "flat;");
  EXPECT_TRUE(absl::IsNotFound(runs_->SetFindings("mnist", 2, {flat}).status()));
  ASSERT_TRUE(world_.line->Stop("mnist").ok());
  Look();
  EXPECT_THAT(List()[0].findings, IsEmpty());
}

TEST_F(RunsTest, RefusesNotesAndTagsBeyondTheLimits) {
  Create(Configuration("100"));
  EXPECT_TRUE(absl::IsResourceExhausted(
      runs_->Annotate("mnist", 1, std::string(kMaxRunNoteBytes + 1, 'x'), std::nullopt).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(
      runs_->Annotate("mnist", 1, std::nullopt, std::vector<std::string>(kMaxRunTags + 1, "x"))
          .status()));
  EXPECT_TRUE(absl::IsResourceExhausted(
      runs_->Annotate("mnist", 1, std::nullopt, {{std::string(kMaxRunTagBytes + 1, 'x')}})
          .status()));
  EXPECT_TRUE(absl::IsInvalidArgument(runs_->Annotate("mnist", 1, std::nullopt, {{""}}).status()));
  EXPECT_TRUE(absl::IsNotFound(runs_->Annotate("mnist", 7, "x", std::nullopt).status()));
  EXPECT_EQ(List()[0].note, "");
  EXPECT_THAT(List()[0].tags, IsEmpty());
}

// Without a line: one instance after another, as fast as a test can make them.
line::App Ended(const std::string& name, int i) {
  line::App app;
  app.name = name;
  app.revision.number = 1;
  line::ServiceView& service = app.services.emplace_back();
  service.spec.name = "trainer";
  service.role = "training";
  runtime::InstanceStatus& instance = service.instances.emplace_back();
  instance.id = StrCat(name, "-", i);
  instance.revision = 1;
  instance.state = runtime::InstanceState::kExited;
  instance.exit_code = 0;
  instance.created = instance.started = instance.finished = FakeClock().Now() + seconds(i);
  return app;
}

TEST_F(RunsTest, TheOldestRunsOfAnAppGoBeyondTheLimit) {
  for (std::size_t i = 1; i <= kMaxRunsPerApp + 1; ++i) {
    ASSERT_TRUE(
        runs_->Observe(Ended("mnist", static_cast<int>(i)), *world_.volumes, world_.clock.Now())
            .ok());
  }
  const auto runs = runs_->List("mnist", 2 * kMaxRunsPerApp).value();
  ASSERT_EQ(runs.size(), kMaxRunsPerApp);
  EXPECT_EQ(runs.front().number, static_cast<int>(kMaxRunsPerApp) + 1);
  EXPECT_EQ(runs.back().number, 2);
}

TEST_F(RunsTest, TheOldestRunsOfAllGoBeyondTheLimitAndTheirNumbersDoNotComeBack) {
  runs_ = Runs::Open(JoinPath(world_.dir.path(), "small.db"), 3).value();
  const auto see = [&](const std::string& app, int i) {
    ASSERT_TRUE(runs_->Observe(Ended(app, i), *world_.volumes, world_.clock.Now()).ok());
  };
  see("a", 1);
  for (int i = 1; i <= 3; ++i) see("b", i);
  EXPECT_EQ(Summary("a"), "");
  EXPECT_EQ(Summary("b"), "1 completed, 2 completed, 3 completed");
  see("a", 2);
  EXPECT_EQ(Summary("a"), "2 completed");
}

TEST_F(RunsTest, AFileOfTheFirstVersionIsTakenOver) {
  const std::string path = JoinPath(world_.dir.path(), "first.db");
  runs_ = Runs::Open(path).value();
  Create(Configuration("100"));
  ASSERT_EQ(Summary(), "1 running");
  runs_.reset();
  {
    auto db = Sqlite::Open(path, {}).value();
    ASSERT_TRUE(db->Script("ALTER TABLE run DROP COLUMN gpus; PRAGMA user_version=1").ok());
  }
  runs_ = Runs::Open(path).value();
  EXPECT_EQ(Summary(), "1 running");
  EXPECT_EQ(List()[0].gpus, 0);
}

TEST_F(RunsTest, AFileOfANewerVersionIsRefused) {
  const std::string path = JoinPath(world_.dir.path(), "newer.db");
  {
    auto db = Sqlite::Open(path, {}).value();
    ASSERT_TRUE(db->Script("PRAGMA user_version=99").ok());
  }
  EXPECT_TRUE(absl::IsFailedPrecondition(Runs::Open(path).status()));
}

}  // namespace
}  // namespace takt::operate
