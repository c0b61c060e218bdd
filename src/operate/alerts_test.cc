#include "operate/alerts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/fs.h"
#include "nlohmann/json.hpp"

namespace takt::operate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using namespace std::chrono_literals;

using Time = std::chrono::system_clock::time_point;
Time At(int seconds) { return Time(std::chrono::seconds(1'000'000 + seconds)); }

const AlertRule kRule{.name = "hot",
                      .metric = "m",
                      .threshold = 90,
                      .for_at_least = 60s,
                      .summary = "{node} is at {value}"};

// Evaluates a story: one reading each 30 s; gives what was told, and when.
std::vector<std::string> Story(const std::vector<double>& values) {
  std::vector<std::string> told;
  std::vector<Alert> active;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int second = static_cast<int>(i) * 30;
    const Evaluation e = EvaluateRule(kRule, {{{{"node", "a"}}, values[i]}}, active, At(second));
    for (const Alert& a : e.fired) told.push_back(absl::StrCat(second, " fired: ", a.summary));
    for (const Alert& a : e.resolved) told.push_back(absl::StrCat(second, " resolved ", a.rule));
    active = e.active;
  }
  return told;
}

TEST(EvaluateRule, FiresOnceAfterItHeldForLongEnoughAndResolvesOnce) {
  EXPECT_THAT(Story({95, 96, 97, 98, 50, 50}),
              ElementsAre("60 fired: a is at 97", "120 resolved hot"));
}

TEST(EvaluateRule, AShortPeakTellsNobody) { EXPECT_THAT(Story({95, 50, 95, 50}), IsEmpty()); }

TEST(EvaluateRule, WhatIsUnknownNeitherOpensNorCloses) {
  const double unknown = std::nan("");
  EXPECT_THAT(Story({unknown, unknown, unknown}), IsEmpty());
  EXPECT_THAT(Story({95, unknown, 95, unknown, 95}), ElementsAre("60 fired: a is at 95"));
}

TEST(EvaluateRule, WhatIsNoLongerMeasuredIsOver) {
  const Alert firing{.rule = "hot", .labels = {{"node", "a"}}, .firing = true, .since = At(0)};
  EXPECT_THAT(EvaluateRule(kRule, {}, {firing}, At(30)).resolved, SizeIs(1));
}

TEST(EvaluateRule, BelowIsTheOtherWayRound) {
  AlertRule rule = kRule;
  rule.above = false;
  rule.for_at_least = 0s;
  EXPECT_THAT(EvaluateRule(rule, {{{}, 5}}, {}, At(0)).fired, SizeIs(1));
  EXPECT_THAT(EvaluateRule(rule, {{{}, 95}}, {}, At(0)).fired, IsEmpty());
}

TEST(EvaluateRule, HasALimit) {
  std::vector<Reading> readings;
  for (std::size_t i = 0; i < kMaxActiveAlerts + 5; ++i) {
    readings.push_back({{{"i", std::to_string(i)}}, 99});
  }
  EXPECT_THAT(EvaluateRule(kRule, readings, {}, At(0)).active, SizeIs(kMaxActiveAlerts));
}

TEST(Silence, HoldsForItsRuleItsLabelsAndItsTime) {
  const Alert alert{.rule = "hot", .labels = {{"app", "x"}, {"node", "a"}}};
  const auto silenced = [&](Silence s) {
    s.until = At(100);
    return IsSilenced(alert, {s}, At(50));
  };
  EXPECT_TRUE(silenced({}));
  EXPECT_TRUE(silenced({.rule = "hot", .labels = {{"node", "a"}}}));
  EXPECT_FALSE(silenced({.rule = "cold"}));
  EXPECT_FALSE(silenced({.labels = {{"node", "b"}}}));
  EXPECT_FALSE(IsSilenced(alert, {{.until = At(100)}}, At(100)));
}

TEST(Webhook, BodiesAreWhatTheReceiversExpect) {
  Alert fired{.rule = "hot",
              .labels = {{"node", "a"}},
              .severity = Severity::kCritical,
              .firing = true,
              .since = At(0),
              .value = 97,
              .summary = "a is at \"97\""};
  Alert over = fired;
  over.resolved = At(60);
  const auto body = nlohmann::json::parse(AlertmanagerBody({fired, over}));
  EXPECT_EQ(body["version"], "4");
  EXPECT_EQ(body["status"], "firing");
  EXPECT_EQ(body["alerts"][0]["labels"]["alertname"], "hot");
  EXPECT_EQ(body["alerts"][0]["labels"]["severity"], "critical");
  EXPECT_EQ(body["alerts"][0]["annotations"]["summary"], "a is at \"97\"");
  EXPECT_EQ(body["alerts"][1]["status"], "resolved");
  const auto ding = nlohmann::json::parse(DingTalkBody({fired, over}));
  EXPECT_EQ(ding["msgtype"], "text");
  EXPECT_THAT(ding["text"]["content"].get<std::string>(),
              testing::AllOf(HasSubstr("[critical] a is at"), HasSubstr("[resolved]")));
}

class AlertsTest : public testing::Test {
 protected:
  AlertsTest() {
    auto store = metrics::MetricStore::Open(dir_.path() + "/m.db", clock_);
    EXPECT_TRUE(store.ok());
    store_ = std::move(*store);
    alerts_ =
        std::make_unique<Alerts>(*store_, clock_, [this](const auto& fired, const auto& over) {
          for (const Alert& a : fired) told_.push_back(a.summary);
          for (const Alert& a : over) told_.push_back("resolved " + a.rule);
        });
  }
  // `minutes` of samples each 5 s, evaluated as often.
  void Run(int minutes, const std::vector<std::pair<std::string, double>>& figures,
           const metrics::Labels& labels, metrics::Type type = metrics::Type::kGauge) {
    for (int i = 0; i < minutes * 12; ++i) {
      std::vector<metrics::MetricStore::Point> points;
      for (const auto& [name, value] : figures) {
        points.push_back({*store_->Series(name, labels, type),
                          type == metrics::Type::kCounter ? value * counter_ : value});
      }
      ++counter_;
      store_->Append(
          std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now().time_since_epoch())
              .count(),
          points);
      alerts_->Evaluate();
      clock_.Advance(5s);
    }
  }

  TempDir dir_;
  FakeClock clock_;
  std::unique_ptr<metrics::MetricStore> store_;
  std::unique_ptr<Alerts> alerts_;
  std::vector<std::string> told_;
  double counter_ = 0;
};

TEST_F(AlertsTest, AFullDiskIsToldAndResolved) {
  const auto disk = [](double free) {
    return std::vector<std::pair<std::string, double>>{{"takt_node_filesystem_free_bytes", free},
                                                       {"takt_node_filesystem_size_bytes", 100}};
  };
  Run(6, disk(50), {{"directory", "/d"}});
  EXPECT_THAT(told_, IsEmpty());
  Run(7, disk(2), {{"directory", "/d"}});
  EXPECT_THAT(told_, ElementsAre("the disk under /d has 2 % left"));
  ASSERT_THAT(alerts_->Active(), SizeIs(1));
  Run(2, disk(50), {{"directory", "/d"}});
  EXPECT_THAT(told_, ElementsAre("the disk under /d has 2 % left", "resolved disk_almost_full"));
}

TEST_F(AlertsTest, WhatIsSilencedIsKeptButNotTold) {
  ASSERT_TRUE(alerts_->AddSilence({.rule = "disk_almost_full", .until = clock_.Now() + 1h}).ok());
  Run(8, {{"takt_node_filesystem_free_bytes", 1}, {"takt_node_filesystem_size_bytes", 100}},
      {{"directory", "/d"}});
  EXPECT_THAT(told_, IsEmpty());
  ASSERT_THAT(alerts_->Active(), SizeIs(1));
  EXPECT_TRUE(alerts_->Active()[0].silenced);
}

TEST_F(AlertsTest, ADisabledRuleIsQuiet) {
  ASSERT_TRUE(alerts_->SetEnabled("disk_almost_full", false).ok());
  Run(8, {{"takt_node_filesystem_free_bytes", 1}, {"takt_node_filesystem_size_bytes", 100}},
      {{"directory", "/d"}});
  EXPECT_THAT(told_, IsEmpty());
  EXPECT_EQ(alerts_->SetEnabled("none", true).code(), absl::StatusCode::kNotFound);
}

TEST_F(AlertsTest, SilencesEndAndHaveALimit) {
  EXPECT_EQ(alerts_->AddSilence({.until = clock_.Now()}).status().code(),
            absl::StatusCode::kInvalidArgument);
  for (std::size_t i = 0; i < kMaxSilences; ++i) {
    ASSERT_TRUE(alerts_->AddSilence({.until = clock_.Now() + 1h}).ok());
  }
  EXPECT_EQ(alerts_->AddSilence({.until = clock_.Now() + 1h}).status().code(),
            absl::StatusCode::kResourceExhausted);
  clock_.Advance(2h);
  alerts_->Evaluate();
  EXPECT_THAT(alerts_->Silences(), IsEmpty());
  EXPECT_EQ(alerts_->RemoveSilence("x").code(), absl::StatusCode::kNotFound);
}

TEST(DefaultRules, HaveUniqueNamesAndSayWhatIsWrong) {
  std::set<std::string> names;
  for (const AlertRule& rule : DefaultRules()) {
    EXPECT_TRUE(names.insert(rule.name).second) << rule.name;
    EXPECT_FALSE(rule.summary.empty()) << rule.name;
  }
  EXPECT_LE(names.size(), kMaxRules);
}

}  // namespace
}  // namespace takt::operate
