#include "runtime/fake/fake_runtime.h"

#include "runtime/conformance_test.h"
#include "runtime/supervisor.h"

namespace takt::runtime {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

class FakeHarness final : public ConformanceHarness {
 public:
  Runtime& runtime() override { return runtime_; }
  ServiceSpec Spec(const std::string& service, const Program& program) override {
    Behaviour b;
    for (const std::string& line : program.lines) b.log.push_back({.text = line});
    if (program.exit_code) {
      b.ends_after = milliseconds(0);
      b.exit_code = *program.exit_code;
    }
    if (program.ignores_stop) b.stops_after = std::chrono::hours(1);
    b.exit_code_on_stop = program.exit_on_stop;
    runtime_.Script("app", service, b);
    ServiceSpec spec;
    spec.app = "app";
    spec.service = service;
    spec.image = "fake/image";
    return spec;
  }
  bool Eventually(const std::function<bool()>& condition) override {
    for (int step = 0; step < 1000; ++step) {
      if (condition()) return true;
      runtime_.Advance(milliseconds(50));
    }
    return condition();
  }
  void Settle() override { runtime_.Advance(milliseconds(5000)); }
  std::uint16_t FreePort() override { return 9000; }
  FakeHarness() { runtime_.MissImage("no/such-image:1"); }

 private:
  FakeClock clock_;
  FakeRuntime runtime_{clock_};
};

INSTANTIATE_TEST_SUITE_P(Fake, RuntimeConformance,
                         testing::Values(RuntimeUnderTest{
                             "fake", [] { return std::make_unique<FakeHarness>(); }}),
                         [](const auto& info) { return info.param.name; });

class FakeRuntimeTest : public testing::Test {
 protected:
  static ServiceSpec Spec() {
    ServiceSpec spec;
    spec.app = "app";
    spec.service = "s";
    spec.image = "x";
    return spec;
  }
  InstanceStatus Last() { return runtime_.Observe()->at(0).instances.back(); }

  FakeClock clock_;
  FakeRuntime runtime_{clock_};
};

TEST_F(FakeRuntimeTest, PlaysTheScriptInTheClocksTime) {
  Behaviour b;
  b.starts_after = milliseconds(100);
  b.log = {{milliseconds(50), "half way", false}, {milliseconds(60), "oh", true}};
  b.ends_after = milliseconds(200);
  b.exit_code = 2;
  runtime_.Script("app", "s", b);
  ASSERT_EQ(runtime_.Deploy(Spec()), absl::OkStatus());
  EXPECT_EQ(Last().state, InstanceState::kStarting);
  EXPECT_EQ(Last().reason, "is starting");
  runtime_.Advance(milliseconds(100));
  EXPECT_EQ(Last().state, InstanceState::kRunning);
  runtime_.Advance(milliseconds(150));
  EXPECT_EQ(runtime_.ReadLog(Last().id, 0, 10)->size(), 2u);
  EXPECT_TRUE(runtime_.ReadLog(Last().id, 1, 10)->at(0).is_stderr);
  runtime_.Advance(milliseconds(50));
  EXPECT_EQ(Last().exit_code, 2);
  EXPECT_EQ(Last().finished - Last().started, milliseconds(200));
}

TEST_F(FakeRuntimeTest, AnInstanceThatCannotStartSaysWhy) {
  Behaviour b;
  b.fails_to_start = "no such program: python9";
  runtime_.Script("app", "s", b);
  ASSERT_EQ(runtime_.Deploy(Spec()), absl::OkStatus());
  EXPECT_EQ(Last().state, InstanceState::kExited);
  EXPECT_EQ(Last().reason, "no such program: python9");
  EXPECT_FALSE(Last().exit_code);
  EXPECT_FALSE(Last().signal);
}

TEST_F(FakeRuntimeTest, ATestActsOnALiveInstance) {
  ServiceSpec spec = Spec();
  spec.health.kind = HealthProbe::Kind::kTcp;
  ASSERT_EQ(runtime_.Deploy(spec), absl::OkStatus());
  const std::string id = runtime_.Live("app", "s").at(0);
  EXPECT_EQ(Last().health, Health::kHealthy);
  EXPECT_TRUE(runtime_.SetHealth(id, Health::kUnhealthy, "port 80 refuses"));
  EXPECT_EQ(Last().reason, "port 80 refuses");
  EXPECT_TRUE(runtime_.Log(id, "bye"));
  EXPECT_TRUE(runtime_.Kill(id, 9, true));
  EXPECT_TRUE(Last().oom_killed);
  EXPECT_FALSE(runtime_.Log(id, "from beyond"));
  EXPECT_FALSE(runtime_.Exit(id, 0));
  EXPECT_THAT(runtime_.Live("app", "s"), testing::IsEmpty());
}

TEST_F(FakeRuntimeTest, UnhealthyAfterItsRetries) {
  ServiceSpec spec = Spec();
  spec.health.kind = HealthProbe::Kind::kTcp;
  spec.health.interval = milliseconds(1000);
  spec.health.retries = 3;
  Behaviour b;
  b.healthy_after = std::nullopt;
  runtime_.Script("app", "s", b);
  ASSERT_EQ(runtime_.Deploy(spec), absl::OkStatus());
  runtime_.Advance(milliseconds(2999));
  EXPECT_EQ(Last().health, Health::kStarting);
  runtime_.Advance(milliseconds(1));
  EXPECT_EQ(Last().health, Health::kUnhealthy);
}

TEST_F(FakeRuntimeTest, RestartsBackOffUpToTheLimitAndAStableRunStartsTheRowAnew) {
  Behaviour b;
  b.ends_after = milliseconds(0);
  b.exit_code = 1;
  runtime_.Script("app", "s", b);
  ServiceSpec spec = Spec();
  spec.restart = RestartPolicy::kAlways;
  ASSERT_EQ(runtime_.Deploy(spec), absl::OkStatus());
  milliseconds wait{100};
  for (int n = 1; n <= 14; ++n) {
    EXPECT_EQ(runtime_.started(), n);
    EXPECT_EQ(Last().state, InstanceState::kBackingOff);
    runtime_.Advance(wait - milliseconds(1));
    EXPECT_EQ(runtime_.started(), n);
    runtime_.Advance(milliseconds(1));
    wait = std::min(wait * 2, kMaxBackOff);
  }
  EXPECT_EQ(wait, kMaxBackOff);
  b.ends_after = kStableAfter;
  runtime_.Script("app", "s", b);
  runtime_.Advance(kMaxBackOff);
  EXPECT_EQ(Last().state, InstanceState::kRunning);
  runtime_.Advance(kStableAfter);
  EXPECT_THAT(Last().reason, HasSubstr("restarts in 0.1 s"));
}

TEST_F(FakeRuntimeTest, OneDeployFailsAsTold) {
  runtime_.FailNextDeploy(absl::UnavailableError("disk full"));
  EXPECT_EQ(runtime_.Deploy(Spec()).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(runtime_.Observe()->empty());
  EXPECT_EQ(runtime_.Deploy(Spec()), absl::OkStatus());
}

TEST_F(FakeRuntimeTest, AForeignProcessHasThePort) {
  runtime_.TakePort(9000, "nginx, pid 17");
  ServiceSpec spec = Spec();
  spec.ports = {{"", 9000, 9000}};
  EXPECT_EQ(runtime_.Deploy(spec).message(),
            "port 9000 is taken by another process (nginx, pid 17)");
}

TEST(SupervisorTest, BackOffDoublesUpToItsLimit) {
  EXPECT_EQ(BackOff(1), milliseconds(100));
  EXPECT_EQ(BackOff(2), milliseconds(200));
  EXPECT_EQ(BackOff(10), milliseconds(51200));
  EXPECT_EQ(BackOff(11), kMaxBackOff);
  EXPECT_EQ(BackOff(1'000'000), kMaxBackOff);
}

}  // namespace
}  // namespace takt::runtime
