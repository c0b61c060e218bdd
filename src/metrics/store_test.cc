#include "metrics/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>

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
  Answer Ask(const Question& q) {
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

// Rows by runs: what is divided are the answers, group by group, not the samples.
TEST_F(MetricStoreTest, DividesByWhatTheSameQuestionFindsOfAnother) {
  for (const auto& [name, app, instance, value] : {std::tuple("rows", "x", "1", 6.0),
                                                   {"rows", "x", "2", 10.0},
                                                   {"rows", "y", "3", 5.0},
                                                   {"rows", "z", "4", 1.0},
                                                   {"runs", "x", "1", 1.0},
                                                   {"runs", "x", "2", 3.0},
                                                   {"runs", "y", "3", 0.0},
                                                   {"runs", "w", "5", 1.0}}) {
    const MetricStore::Point point{Series(name, {{"app", app}, {"instance", instance}}), value};
    store_->Append(start_, {&point, 1});
  }
  const Question q{.name = "rows",
                   .from_ms = start_,
                   .to_ms = start_ + 10'000,
                   .step_ms = 5000,
                   .aggregation = Aggregation::kSum,
                   .by = {"app"},
                   .divide_by = "runs",
                   .divide_matchers = {{"instance", Matcher::Op::kNotEqual, "5"}}};
  const Answer answer = Ask(q);
  ASSERT_EQ(answer.series.size(), 3u);
  EXPECT_EQ(answer.series[0].labels, (Labels{{"app", "x"}}));
  EXPECT_THAT(answer.series[0].values, ElementsAre(4, IsNan()));
  EXPECT_THAT(answer.series[1].values, ElementsAre(IsNan(), IsNan())) << "nothing by nothing";
  EXPECT_THAT(answer.series[2].values, ElementsAre(IsNan(), IsNan())) << "no such divisor";
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
    expect(start_ + 3'600'000, 60'000);                // two days ago: minutes
    expect(start_ + 7'200'000, 3'600'000);             // hours
    expect(start_, 86'400'000);                        // a day of hours
    expect(start_ + 86'400'000, 86'400'000);           // across what is rolled up and what is not
    expect(start_ + 71LL * 3'600'000 + 60'000, 5000);  // the last hour: samples
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

// A file system of its own, which only this process sees. False where it may not be made.
bool MountSmallDisk(const std::string& path, const char* size) {
  if (unshare(CLONE_NEWNS) != 0) return false;
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return mount("tmpfs", path.c_str(), "tmpfs", 0, size) == 0;
}

// Samples of `series` that pack badly, `rounds` times 5 s.
void FillWithNoise(MetricStore& store, FakeClock& clock, int series, int rounds) {
  std::mt19937_64 random(11);
  std::vector<MetricStore::Point> points;
  points.reserve(static_cast<std::size_t>(series));
  for (int i = 0; i < series; ++i) {
    points.push_back({*store.Series("noise", {{"i", std::to_string(i)}}, Type::kGauge), 0});
  }
  for (int round = 0; round < rounds; ++round) {
    for (auto& point : points) point.value = 1 / (1.0 + static_cast<double>(random() >> 12));
    store.Append(
        std::chrono::duration_cast<std::chrono::milliseconds>(clock.Now().time_since_epoch())
            .count(),
        points);
    clock.Advance(5s);
    store.Tend().IgnoreError();
  }
}

TEST_F(MetricStoreTest, BeyondItsSizeTheOldestSamplesGoAndWhatIsRolledUpStays) {
  constexpr std::uint64_t kMost = 8 << 20;
  store_.reset();
  store_ = MetricStore::Open(dir_.path() + "/metrics.db", clock_, kMost).value();
  const std::int64_t from = Now();
  FillWithNoise(*store_, clock_, 200, 10 * 720);  // some 12 MB
  ASSERT_TRUE(store_->Flush().ok());
  EXPECT_GT(store_->Stats().dropped_blocks, 0u);
  EXPECT_LT(store_->Stats().disk_bytes, kMost + (4 << 20));
  const auto known = [&](std::int64_t since, std::int64_t step) {
    const Answer answer = Ask({.name = "noise",
                               .matchers = {{"i", Matcher::Op::kEqual, "7"}},
                               .from_ms = since,
                               .to_ms = since + 3'600'000,
                               .step_ms = step});
    return answer.series.empty()
               ? 0
               : std::count_if(answer.series[0].values.begin(), answer.series[0].values.end(),
                               [](double v) { return !std::isnan(v); });
  };
  EXPECT_EQ(known(from, 5000), 0);
  EXPECT_EQ(known(from, 60'000), 60);
  EXPECT_EQ(known(Now() - 3'600'000, 5000), 720);
}

TEST_F(MetricStoreTest, OnAFullDiskTheOldestGoAndNewSamplesAreKept) {
  store_.reset();
  if (!MountSmallDisk(dir_.path(), "size=32m")) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  Reopen();
  FillWithNoise(*store_, clock_, 200, 3 * 720);
  {  // Somebody else takes all that is left.
    std::ofstream file(dir_.path() + "/other", std::ios::binary);
    const std::string block(4096, 'x');
    while (file.write(block.data(), std::ssize(block)).flush()) {
    }
  }
  FillWithNoise(*store_, clock_, 200, 4 * 720);
  EXPECT_GT(store_->Stats().dropped_blocks, 0u);
  const Answer answer = Ask({.name = "noise",
                             .matchers = {{"i", Matcher::Op::kEqual, "7"}},
                             .from_ms = Now() - 1'800'000,
                             .to_ms = Now(),
                             .step_ms = 5000});
  ASSERT_EQ(answer.series.size(), 1u);
  EXPECT_TRUE(std::none_of(answer.series[0].values.begin(), answer.series[0].values.end(),
                           [](double v) { return std::isnan(v); }));
}

// The wall clock may be put elsewhere; the steady one goes on.
class ShiftedClock final : public Clock {
 public:
  std::chrono::system_clock::time_point Now() const override { return clock.Now() + shift; }
  std::chrono::steady_clock::time_point Steady() const override { return clock.Steady(); }
  FakeClock clock;
  std::chrono::seconds shift{0};
};

TEST(MetricStoreClock, PutBackItsFutureIsForgottenAndTheRestGoesOn) {
  for (const bool restart : {false, true}) {
    for (const auto back : {2h, 20h}) {
      TempDir dir;
      ShiftedClock clock;
      auto store = MetricStore::Open(dir.path() + "/m.db", clock).value();
      const auto now = [&] {
        return std::chrono::duration_cast<std::chrono::milliseconds>(clock.Now().time_since_epoch())
            .count();
      };
      const auto run = [&](int rounds, double value) {
        const MetricStore::Point point{*store->Series("m", {}, Type::kGauge), value};
        for (int i = 0; i < rounds; ++i) {
          store->Append(now(), {&point, 1});
          clock.clock.Advance(5s);
          ASSERT_TRUE(store->Tend().ok());
        }
      };
      run(36 * 720, 1);
      clock.shift = -back;
      if (restart) {
        store.reset();
        store = MetricStore::Open(dir.path() + "/m.db", clock).value();
      }
      ASSERT_TRUE(store->Tend().ok());
      run(720, 2);
      const auto values = [&](std::int64_t from, std::int64_t to) {
        const auto answer = store->Ask({.name = "m",
                                        .from_ms = from / 60'000 * 60'000,
                                        .to_ms = to / 60'000 * 60'000,
                                        .step_ms = 60'000});
        return answer->series.at(0).values;
      };
      const auto after = values(now() - 3'500'000, now());
      EXPECT_EQ(std::count(after.begin(), after.end(), 2.0), std::ssize(after));
      const auto before = values(now() - 2LL * 3'600'000, now() - 3'700'000);
      EXPECT_EQ(std::count(before.begin(), before.end(), 1.0), std::ssize(before));
      EXPECT_EQ(store->Newest("m", {}, 60'000).size(), 1u);
    }
  }
}

}  // namespace
}  // namespace takt::metrics
