#include "metrics/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/fs.h"

namespace takt::metrics {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::IsNan;
using namespace std::chrono_literals;

class MetricStoreTest : public testing::Test {
 protected:
  MetricStoreTest() { Reopen(); }
  void Reopen() {
    store_.reset();
    auto store = MetricStore::Open(dir_.path() + "/metrics.db", clock_);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = std::move(*store);
  }
  std::int64_t Now() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now().time_since_epoch())
        .count();
  }
  std::int64_t Series(const std::string& name, const Labels& labels = {},
                      Type type = Type::kGauge) {
    auto id = store_->Series(name, labels, type);
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or(0);
  }
  // One sample each 5 s, the clock with it, the store tended as it is in life.
  void Run(std::int64_t series, int samples, const std::function<double(int)>& value) {
    for (int i = 0; i < samples; ++i) {
      const MetricStore::Point point{series, value(i)};
      store_->Append(Now(), {&point, 1});
      clock_.Advance(5s);
      ASSERT_TRUE(store_->Tend().ok());
    }
  }
  Answer Ask(Question q) {
    auto answer = store_->Ask(q);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return answer.value_or(Answer{});
  }

  TempDir dir_;
  FakeClock clock_;
  const std::int64_t start_ = Now();  // a whole hour
  std::unique_ptr<MetricStore> store_;
};

TEST_F(MetricStoreTest, AnswersAlikeBeforeAndAfterItIsOnTheDisk) {
  const auto cpu = Series("cpu");
  Run(cpu, 500, [](int i) { return i * 1.0; });
  for (int round = 0; round < 2; ++round) {
    const Answer answer =
        Ask({.name = "cpu", .from_ms = start_, .to_ms = start_ + 60'000, .step_ms = 20'000});
    ASSERT_EQ(answer.series.size(), 1u);
    EXPECT_THAT(answer.series[0].values, ElementsAre(1.5, 5.5, 9.5));
    Reopen();
  }
}

TEST_F(MetricStoreTest, WhatIsUnknownIsNotZero) {
  const auto cpu = Series("cpu");
  Run(cpu, 1, [](int) { return 5.0; });
  clock_.Advance(10s);
  Run(cpu, 1, [](int) { return 7.0; });
  EXPECT_THAT(Ask({.name = "cpu", .from_ms = start_, .to_ms = start_ + 20'000, .step_ms = 5000})
                  .series[0]
                  .values,
              ElementsAre(5, IsNan(), IsNan(), 7));
}

TEST_F(MetricStoreTest, EachFunctionOfAStep) {
  const auto cpu = Series("cpu");
  Run(cpu, 4, [](int i) { return std::vector<double>{3, 1, 9, 5}[i]; });
  const std::pair<Function, double> kCases[] = {{Function::kAvg, 4.5}, {Function::kMin, 1},
                                                {Function::kMax, 9},   {Function::kSum, 18},
                                                {Function::kLast, 5},  {Function::kCount, 4}};
  for (const auto& [function, expected] : kCases) {
    EXPECT_THAT(Ask({.name = "cpu",
                     .from_ms = start_,
                     .to_ms = start_ + 20'000,
                     .step_ms = 20'000,
                     .function = function})
                    .series[0]
                    .values,
                ElementsAre(expected));
  }
}

TEST_F(MetricStoreTest, ACounterRisesOverRestartsOfItsSource) {
  const auto requests = Series("requests", {}, Type::kCounter);
  Run(requests, 6, [](int i) { return std::vector<double>{100, 110, 120, 5, 15, 25}[i]; });
  const Answer answer = Ask({.name = "requests",
                             .from_ms = start_,
                             .to_ms = start_ + 30'000,
                             .step_ms = 10'000,
                             .function = Function::kIncrease});
  EXPECT_THAT(answer.series[0].values, ElementsAre(10, 15, 20));
  Reopen();
  Run(requests, 1, [](int) { return 35.0; });
  EXPECT_THAT(Ask({.name = "requests",
                   .from_ms = start_ + 30'000,
                   .to_ms = start_ + 40'000,
                   .step_ms = 10'000,
                   .function = Function::kRate})
                  .series[0]
                  .values,
              ElementsAre(1));
}

TEST_F(MetricStoreTest, OneSampleOfACounterIsNoRate) {
  Run(Series("requests", {}, Type::kCounter), 3, [](int i) { return 100.0 * i; });
  EXPECT_THAT(Ask({.name = "requests",
                   .from_ms = start_,
                   .to_ms = start_ + 15'000,
                   .step_ms = 5000,
                   .function = Function::kRate})
                  .series[0]
                  .values,
              ElementsAre(IsNan(), 20, 20));
}

TEST_F(MetricStoreTest, GroupsSeriesByLabels) {
  const auto a = Series("mem", {{"app", "x"}, {"instance", "1"}});
  const auto b = Series("mem", {{"app", "x"}, {"instance", "2"}});
  const auto c = Series("mem", {{"app", "y"}, {"instance", "3"}});
  const MetricStore::Point points[] = {{a, 1}, {b, 2}, {c, 4}};
  store_->Append(start_, points);
  Question q{.name = "mem",
             .from_ms = start_,
             .to_ms = start_ + 5000,
             .step_ms = 5000,
             .aggregation = Aggregation::kSum,
             .by = {"app"}};
  const Answer answer = Ask(q);
  ASSERT_EQ(answer.series.size(), 2u);
  EXPECT_EQ(answer.series[0].labels, (Labels{{"app", "x"}}));
  EXPECT_THAT(answer.series[0].values, ElementsAre(3));
  EXPECT_THAT(answer.series[1].values, ElementsAre(4));
  q.by = {};
  q.aggregation = Aggregation::kAvg;
  EXPECT_THAT(Ask(q).series[0].values, ElementsAre(DoubleNear(7.0 / 3, 1e-9)));
  q.aggregation = Aggregation::kNone;
  q.matchers = {{"app", Matcher::Op::kEqual, "x"}, {"instance", Matcher::Op::kNotEqual, "1"}};
  EXPECT_THAT(Ask(q).series[0].values, ElementsAre(2));
}

TEST_F(MetricStoreTest, QuantilesComeOutOfMergedHistograms) {
  std::vector<MetricStore::Point> zero, later;
  for (const char* instance : {"1", "2"}) {
    const std::pair<const char*, double> buckets[] = {{"1", 50}, {"2", 90}, {"+Inf", 100}};
    for (const auto& [le, count] : buckets) {
      const auto id =
          Series("latency_bucket", {{"instance", instance}, {"le", le}}, Type::kCounter);
      zero.push_back({id, 0});
      later.push_back({id, count});
    }
  }
  store_->Append(start_, zero);
  store_->Append(start_ + 5000, later);
  Question q{.name = "latency_bucket",
             .from_ms = start_,
             .to_ms = start_ + 10'000,
             .step_ms = 10'000,
             .quantile = 0.5};
  EXPECT_THAT(Ask(q).series[0].values, ElementsAre(1));
  q.quantile = 0.7;
  EXPECT_THAT(Ask(q).series[0].values, ElementsAre(1.5));
  q.quantile = 0.99;
  EXPECT_THAT(Ask(q).series[0].values, ElementsAre(2));
  q.quantile = 1.5;
  EXPECT_EQ(store_->Ask(q).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(MetricStoreTest, OldSamplesBecomeMinutesAndHoursThatAreExact) {
  const auto cpu = Series("cpu");
  const int day = 24 * 720;
  Run(cpu, 3 * day, [](int i) { return static_cast<double>(i * 7919 % 1000); });
  const auto expect = [&](std::int64_t from, std::int64_t step) {
    const int first = static_cast<int>((from - start_) / 5000), n = static_cast<int>(step / 5000);
    double sum = 0, min = 1e9, max = -1;
    for (int i = first; i < first + n; ++i) {
      const double v = i * 7919 % 1000;
      sum += v;
      min = std::min(min, v);
      max = std::max(max, v);
    }
    const auto ask = [&](Function f) {
      return Ask({.name = "cpu",
                  .from_ms = from,
                  .to_ms = from + step,
                  .step_ms = step,
                  .function = f})
          .series.at(0)
          .values;
    };
    EXPECT_THAT(ask(Function::kSum), ElementsAre(sum)) << from << " " << step;
    EXPECT_THAT(ask(Function::kMin), ElementsAre(min));
    EXPECT_THAT(ask(Function::kMax), ElementsAre(max));
    EXPECT_THAT(ask(Function::kCount), ElementsAre(n));
  };
  for (int round = 0; round < 2; ++round) {
    expect(start_ + 3'600'000, 60'000);              // two days ago: minutes
    expect(start_ + 7'200'000, 3'600'000);           // hours
    expect(start_, 86'400'000);                      // a day of hours
    expect(start_ + 86'400'000, 86'400'000);         // across what is rolled up and what is not
    expect(start_ + 71 * 3'600'000 + 60'000, 5000);  // the last hour: samples
    Reopen();
  }
  EXPECT_LT(store_->Stats().disk_bytes, 3u * day * 8);
}

TEST_F(MetricStoreTest, WhatEndedLongestAgoMakesRoomForNewSeries) {
  std::vector<MetricStore::Point> points;
  for (std::size_t i = 0; i < kMaxSeries; ++i) {
    points.push_back({Series("m", {{"i", std::to_string(i)}}), 1});
  }
  store_->Append(Now(), points);
  EXPECT_EQ(store_->Series("one more", {}, Type::kGauge).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(store_->Stats().refused_series, 1u);
  clock_.Advance(2h);
  EXPECT_TRUE(store_->Series("one more", {}, Type::kGauge).ok());
  EXPECT_EQ(store_->Stats().series, kMaxSeries);
}

TEST_F(MetricStoreTest, AQuestionHasLimits) {
  Series("cpu");
  EXPECT_EQ(store_->Ask({.name = "cpu", .from_ms = 5, .to_ms = 5}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_
                ->Ask({.name = "cpu",
                       .from_ms = 0,
                       .to_ms = static_cast<std::int64_t>(kMaxPointsPerSeries + 1) * 1000,
                       .step_ms = 1000})
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(MetricStoreTest, NewestForgetsWhatIsOld) {
  const auto cpu = Series("cpu", {{"node", "a"}});
  Run(cpu, 2, [](int i) { return i + 1.0; });
  const auto newest = store_->Newest("cpu", {}, 60'000);
  ASSERT_EQ(newest.size(), 1u);
  EXPECT_EQ(newest[0].sample.value, 2);
  clock_.Advance(2min);
  EXPECT_TRUE(store_->Newest("cpu", {}, 60'000).empty());
}

TEST_F(MetricStoreTest, ATimeThatDoesNotRiseIsDropped) {
  const auto cpu = Series("cpu");
  for (const double v : {1.0, 2.0}) {
    const MetricStore::Point point{cpu, v};
    store_->Append(start_, {&point, 1});
  }
  EXPECT_EQ(store_->Newest("cpu", {}, 60'000).at(0).sample.value, 1);
}

}  // namespace
}  // namespace takt::metrics
