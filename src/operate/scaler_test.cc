#include "operate/scaler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/fs.h"

namespace takt::operate {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using namespace std::chrono_literals;

constexpr std::nullopt_t kUnknown = std::nullopt;

templates::AutoScaling Rule() {
  templates::AutoScaling rule;
  rule.max_cpu = 70;
  rule.min_cpu = 20;
  rule.step = 2;
  rule.max_instances = 6;
  return rule;
}

TEST(Decide, StepsOnlyWhenEveryAverageSaysSo) {
  const struct {
    int instances;
    Averages cpu;
    bool may_shrink;
    int expected;
  } kCases[] = {
      {1, {71, 80, 99}, true, 3},
      {1, {71, 80, 70}, true, 1},  // not above
      {1, {69, 80, 99}, true, 1},
      {5, {90, 90, 90}, true, 6},  // as many as may be
      {6, {90, 90, 90}, true, 6},
      {4, {10, 10, 10}, true, 2},
      {4, {10, 10, 10}, false, 4},  // cooling down
      {4, {90, 90, 90}, false, 6},  // that holds nobody up
      {4, {10, 10, 20}, true, 4},
      {2, {10, 10, 10}, true, 1},  // as few as may be
      {1, {10, 10, 10}, true, 1},
      {1, {90, kUnknown, 90}, true, 1},
      {4, {10, kUnknown, 10}, true, 4},
      {1, {90, 90}, true, 1},
      {1, {}, true, 1},
  };
  for (const auto& c : kCases) {
    const ScaleDecision decision = Decide(Rule(), c.instances, c.cpu, {}, c.may_shrink);
    EXPECT_EQ(decision.instances, c.expected);
    EXPECT_EQ(decision.why.empty(), c.expected == c.instances);
  }
}

TEST(Decide, OneTooHighIsEnoughAndAllMustBeLow) {
  templates::AutoScaling rule = Rule();
  rule.max_memory = 80;
  rule.min_memory = 30;
  const Averages low = {10, 10, 10}, middle = {50, 50, 50}, high = {95, 95, 95};
  EXPECT_EQ(Decide(rule, 3, low, high, true).instances, 5);
  EXPECT_EQ(Decide(rule, 3, high, low, true).instances, 5);
  EXPECT_EQ(Decide(rule, 3, low, middle, true).instances, 3);
  EXPECT_EQ(Decide(rule, 3, low, {}, true).instances, 3);  // unknown
  EXPECT_EQ(Decide(rule, 3, low, low, true).instances, 1);
}

TEST(Decide, SaysWhy) {
  EXPECT_EQ(Decide(Rule(), 1, {90, 91, 92.4}, {}, true).why,
            "CPU averaged 90 %, 91 % and 92 % in the last 3 minutes, above 70 %");
  templates::AutoScaling rule = Rule();
  rule.min_memory = 30;
  EXPECT_EQ(Decide(rule, 3, {1, 2, 3}, {4, 5, 6}, true).why,
            "CPU averaged 1 %, 2 % and 3 % in the last 3 minutes, below 20 %; "
            "memory averaged 4 %, 5 % and 6 % in the last 3 minutes, below 30 %");
}

// A service of which every instance uses as much as the test says, on a clock that it drives.
class ScalerTest : public testing::Test {
 protected:
  ScalerTest()
      : store_(metrics::MetricStore::Open(dir_.path() + "/m.db", clock_).value()),
        scaler_(*store_, clock_,
                [this](const std::string& app, const std::string& service, int instances,
                       const std::string&) {
                  told_.push_back(
                      StrCat(app, "/", service, " ", instances, " after ", seconds_ / 60, " min"));
                  if (obeys_) wanted_ = running_ = instances;
                  return absl::OkStatus();
                }) {
    rule_.max_cpu = 70;
    rule_.min_cpu = 20;
    rule_.max_instances = 3;
  }

  // `cores`: what each instance uses; negative: not measured.
  void Run(int minutes, double cores) {
    for (int i = 0; i < minutes * 12; ++i) {
      const std::int64_t now =
          std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now().time_since_epoch())
              .count();
      std::vector<metrics::MetricStore::Point> points;
      for (int n = 0; n < running_ && cores >= 0; ++n) {
        used_ += cores * 5 / running_;
        points.push_back(
            {*store_->Series(
                 "takt_instance_cpu_seconds_total",
                 {{"app", "a"}, {"instance", StrCat("i", n, "_", running_)}, {"service", "s"}},
                 metrics::Type::kCounter),
             used_});
      }
      store_->Append(now, points);
      if (i % 3 == 0) scaler_.Step({App()}, {.cores = 2});
      clock_.Advance(5s);
      seconds_ += 5;
    }
  }
  line::App App() {
    line::App app;
    app.name = "a";
    app.services.resize(1);
    app.services[0].spec.name = "s";
    app.services[0].spec.scaling = rule_;
    app.services[0].spec.cpus = cpus_;
    app.services[0].spec.replicas = wanted_;
    app.services[0].instances.resize(running_);
    for (auto& instance : app.services[0].instances) {
      instance.state = runtime::InstanceState::kRunning;
    }
    return app;
  }

  TempDir dir_;
  FakeClock clock_;
  std::unique_ptr<metrics::MetricStore> store_;
  templates::AutoScaling rule_;
  double cpus_ = 1;
  int wanted_ = 1, running_ = 1;
  bool obeys_ = true;
  double used_ = 0;
  int seconds_ = 0;
  std::vector<std::string> told_;
  Scaler scaler_;
};

TEST_F(ScalerTest, GrowsAStepEachThreeMinutesWhileBusyUpToItsLimit) {
  Run(12, 0.9);
  EXPECT_THAT(told_, ElementsAre("a/s 2 after 3 min", "a/s 3 after 7 min"));
}

TEST_F(ScalerTest, AShortPeakChangesNothing) {
  Run(2, 0.9);
  Run(4, 0.5);
  Run(2, 0.9);
  Run(4, 0.5);
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(ScalerTest, ShrinksOnlyAfterTheCoolDown) {
  Run(4, 0.9);
  EXPECT_THAT(told_, ElementsAre("a/s 2 after 3 min"));
  Run(8, 0.05);
  EXPECT_THAT(told_, ElementsAre("a/s 2 after 3 min", "a/s 1 after 8 min"));
}

TEST_F(ScalerTest, WithoutALimitAnInstanceMayUseTheMachine) {
  cpus_ = 0;  // 0.9 of 2 cores
  Run(8, 0.9);
  EXPECT_THAT(told_, IsEmpty());
  Run(4, 1.8);
  EXPECT_THAT(told_, testing::SizeIs(1));
}

TEST_F(ScalerTest, WhatIsNotMeasuredOrNotAllThereIsLeftAlone) {
  Run(5, -1);
  wanted_ = 2;  // one of them has not come up
  Run(5, 0.9);
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(ScalerTest, WithoutLabelsNothingScales) {
  line::App app = App();
  app.services[0].spec.scaling.reset();
  for (int i = 0; i < 40; ++i) {
    scaler_.Step({app}, {.cores = 2});
    clock_.Advance(15s);
  }
  EXPECT_THAT(told_, IsEmpty());
}

}  // namespace
}  // namespace takt::operate
