// The line as a daemon has it: with its own thread, on a real clock, opened on directories in any
// state, called from many threads at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/sqlite.h"
#include "line/test_world.h"

namespace takt::line {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

Configuration Of(const std::string& text) {
  Configuration configuration;
  configuration.template_text = text;
  return configuration;
}
const char* const kServer = "services:\n  web: {image: web, command: [run, \"${V:-1}\"]}\n";

TEST(OpenLine, ASecondDaemonIsRefused) {
  TestWorld world;
  LineOptions options;
  options.data_dir = world.data_dir();
  auto second = Line::Open(options, world.runtime, *world.volumes, world.clock);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use by another daemon"));
  EXPECT_TRUE(world.line->Create("a", Of(kServer), {}).ok()) << "the first is not disturbed";
}

TEST(OpenLine, ALockThatTheCallerHoldsIsEnough) {
  TestWorld world;
  world.line.reset();
  auto lock = DataLock::Take(world.data_dir());
  ASSERT_TRUE(lock.ok());
  LineOptions options;
  options.data_dir = world.data_dir();
  options.lock = lock->get();
  options.own_thread = false;
  EXPECT_TRUE(Line::Open(options, world.runtime, *world.volumes, world.clock).ok());
}

TEST(OpenLine, ACorruptDatabaseTouchesNothingElse) {
  TestWorld world;
  ASSERT_TRUE(world.line->Create("a", Of(kServer), {}).ok());
  world.line->Step();
  const std::string path = JoinPath(world.data_dir(), "takt.db");
  ASSERT_TRUE(Exists(path + ".backup")) << "the first change is backed up at once";
  world.line.reset();
  ASSERT_TRUE(WriteFileAtomic(path, std::string(10'000, 'x')).ok());
  absl::Status status = world.Open();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("(1 apps, last change 2026-01-01"));
  EXPECT_EQ(world.fake.Live("a", "web").size(), 1u) << "what runs goes on";
  ASSERT_TRUE(WriteFileAtomic(path, *ReadFile(path + ".backup", 1 << 30)).ok());
  ASSERT_TRUE(world.Open().ok());
  world.line->Step();
  EXPECT_EQ(world.line->Get("a")->state, AppState::kRunning);
  EXPECT_EQ(world.fake.started(), 1) << "and is taken over as it is";
}

TEST(OpenLine, AFullDiskRefusesAChangeWithoutATrace) {
  TestWorld world;
  world.line.reset();
  LineOptions options;
  options.data_dir = world.data_dir();
  options.own_thread = false;
  options.max_database_bytes = 128 << 10;
  auto line = Line::Open(options, world.runtime, *world.volumes, world.clock);
  ASSERT_TRUE(line.ok());
  std::string big =
      "services:\n  web: {image: web, volumes: [\"data:/data\"]}\nvolumes: {data: {}}\n";
  big += "# " + std::string(500'000, 'x') + "\n";
  absl::Status status = (*line)->Create("a", Of(big), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_TRUE((*line)->List().empty());
  EXPECT_TRUE(world.volumes->List().empty()) << "a volume made for it is gone again";
  EXPECT_TRUE((*line)->Create("a", Of(kServer), {}).ok()) << "a smaller one still goes";
  EXPECT_EQ((*line)->Configure("a", Of(big), {}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ((*line)->Get("a")->revision.number, 1);
}

TEST(OpenLine, ARevisionThatIsNotUnderstoodAnyMoreIsSaidAndNotTouched) {
  TestWorld world;
  ASSERT_TRUE(world.line->Create("a", Of(kServer), {}).ok());
  world.line->Step();
  world.line.reset();
  {
    auto db = Sqlite::Open(JoinPath(world.data_dir(), "takt.db"), {});
    ASSERT_TRUE((*db)->Script("UPDATE revisions SET template_text = 'services: ['").ok());
  }
  ASSERT_TRUE(world.Open().ok());
  world.line->Step();
  auto app = world.line->Get("a");
  EXPECT_EQ(app->state, AppState::kFailed);
  EXPECT_THAT(app->reason, HasSubstr("revision 1 cannot be understood"));
  EXPECT_EQ(world.fake.Live("a", "web").size(), 1u);
  EXPECT_EQ(world.line->Start("a").status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(world.line->Configure("a", Of(kServer), {}).ok());
  world.line->Step();
  EXPECT_EQ(world.line->Get("a")->state, AppState::kRunning);
  ASSERT_TRUE(world.line->Remove("a").ok());
  world.line->Step();
  EXPECT_TRUE(world.line->List().empty());
}

TEST(Limits, OfApps) {
  TestWorld world;
  ASSERT_TRUE(world.line->Create("first", Of(kServer), {}).ok());
  world.line.reset();
  {
    auto db = Sqlite::Open(JoinPath(world.data_dir(), "takt.db"), {});
    ASSERT_TRUE(
        (*db)
            ->Script(StrCat(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ",
                kMaxApps - 1,
                ") INSERT INTO apps SELECT 'x' || i, '', '', 1, 1, 0 FROM n; INSERT INTO "
                "revisions SELECT name, 1, '', '', '{}', '{}', '{}', '', '', '', 0 FROM apps "
                "WHERE name != 'first'"))
            .ok());
  }
  ASSERT_TRUE(world.Open().ok());
  ASSERT_EQ(world.line->List().size(), kMaxApps);
  absl::Status status = world.line->Create("one_more", Of(kServer), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(world.line->List().size(), kMaxApps);
}

TEST(Limits, OfValuesAndReplicas) {
  TestWorld world;
  Configuration many = Of(kServer), big = Of(kServer);
  for (std::size_t i = 0; i <= kMaxValues; ++i) many.values["V" + std::to_string(i)] = "";
  big.values["V"].assign(kMaxValueBytes + 1, 'x');
  Configuration wide = Of(StrCat(
      "services:\n  web: {image: web, deploy: {replicas: ", runtime::kMaxReplicas + 1, "}}\n"));
  for (const Configuration& configuration : {many, big, wide}) {
    EXPECT_EQ(world.line->Create("a", configuration, {}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(world.line->List().empty());
}

// A daemon's line: its thread, a real clock for waiting; the fake's clock stands still.
class Daemon {
 public:
  Daemon() {
    world_.line.reset();
    LineOptions options;
    options.data_dir = world_.data_dir();
    auto line = Line::Open(options, world_.runtime, *world_.volumes, real_);
    if (!line.ok()) std::abort();
    line_ = *std::move(line);
    line_->AddListener([this](const std::string& app) {
      std::lock_guard lock(mutex_);
      ++told_[app];
      changed_.notify_all();
    });
  }
  Line& line() { return *line_; }
  runtime::FakeRuntime& fake() { return world_.fake; }
  // Waits, woken by the line's listener, until `condition` holds.
  bool Eventually(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + seconds(20);
    while (!condition()) {
      std::unique_lock lock(mutex_);
      if (std::chrono::steady_clock::now() > deadline) return false;
      changed_.wait_for(lock, std::chrono::milliseconds(200));
    }
    return true;
  }
  bool Is(const std::string& app, AppState state) {
    return Eventually([&] {
      auto got = line_->Get(app);
      return got.ok() && got->state == state;
    });
  }
  int told(const std::string& app) {
    std::lock_guard lock(mutex_);
    return told_[app];
  }

 private:
  TestWorld world_;
  RealClock real_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> told_;
  std::unique_ptr<Line> line_;
};

TEST(OwnThread, CarriesThingsOutAndTells) {
  Daemon daemon;
  ASSERT_TRUE(daemon.line().Create("a", Of(kServer), {}).ok());
  EXPECT_TRUE(daemon.Is("a", AppState::kRunning));
  EXPECT_TRUE(daemon.Eventually([&] { return daemon.told("a") > 0; }));
  ASSERT_TRUE(daemon.fake().Exit(daemon.fake().Live("a", "web")[0], 3));
  EXPECT_TRUE(daemon.Is("a", AppState::kFailed));
  ASSERT_TRUE(daemon.line().Start("a").ok());
  EXPECT_TRUE(daemon.Is("a", AppState::kRunning));
  ASSERT_TRUE(daemon.line().Stop("a").ok());
  EXPECT_TRUE(daemon.Is("a", AppState::kStopped));
  int told = daemon.told("a");
  ASSERT_TRUE(daemon.line().Remove("a").ok());
  EXPECT_TRUE(daemon.Eventually([&] { return !daemon.line().Get("a").ok(); }));
  EXPECT_TRUE(daemon.Eventually([&] { return daemon.told("a") > told; }));
}

TEST(OwnThread, ManyMayCallAtOnce) {
  Daemon daemon;
  constexpr int kThreads = 4, kRounds = 15;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  std::atomic<int> configured = 0;
  ASSERT_TRUE(daemon.line().Create("shared", Of(kServer), {}).ok());
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const std::string own = "own" + std::to_string(t);
      for (int i = 0; i < kRounds; ++i) {
        Configuration configuration = Of(kServer);
        configuration.values["V"] = StrCat(t, ".", i);
        if (daemon.line().Configure("shared", configuration, {}).ok()) ++configured;
        (void)daemon.line().Create(own, configuration, {});
        (void)daemon.line().List();
        (void)daemon.line().PreviewConfigure("shared", Of(kServer));
        (void)daemon.line().Stop(own);
        (void)daemon.line().Events("", 0, 10);
        (void)daemon.line().Start(own);
        if (i % 3 == 2) (void)daemon.line().Remove(own);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(configured, kThreads * kRounds);
  EXPECT_EQ(daemon.line().Get("shared")->revision.number, 1 + kThreads * kRounds)
      << "every acknowledged change is one revision";
  EXPECT_TRUE(daemon.Is("shared", AppState::kRunning));
  EXPECT_EQ(daemon.fake().Live("shared", "web").size(), 1u);
}

}  // namespace
}  // namespace takt::line
