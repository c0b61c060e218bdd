#include "operate/alerts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/fs.h"

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

TEST(EvaluateRule, AClockThatWasPutBackDelaysNothing) {
  const Alert pending{.rule = "hot", .labels = {{"node", "a"}}, .since = At(100'000)};
  const Evaluation first = EvaluateRule(kRule, {{{{"node", "a"}}, 95}}, {pending}, At(0));
  EXPECT_THAT(EvaluateRule(kRule, {{{{"node", "a"}}, 95}}, first.active, At(60)).fired, SizeIs(1));
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

class AlertsTest : public testing::Test {
 protected:
  AlertsTest() {
    auto store = metrics::MetricStore::Open(dir_.path() + "/m.db", clock_);
    EXPECT_TRUE(store.ok());
    store_ = std::move(*store);
    Restart();
  }
  // As after a kill -9: what is not in the file is forgotten.
  void Restart() {
    alerts_.reset();
    file_.reset();
    auto file = AlertFile::Open(dir_.path() + "/alerts.db");
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = std::move(*file);
    auto alerts =
        Alerts::Open(*file_, *store_, clock_, [this](const auto& fired, const auto& over) {
          for (const Alert& a : fired) told_.push_back(a.summary);
          for (const Alert& a : over) told_.push_back("resolved " + a.rule);
        });
    ASSERT_TRUE(alerts.ok()) << alerts.status();
    alerts_ = std::move(*alerts);
  }
  // `minutes` of samples each 5 s, evaluated as often.
  void Run(int minutes, const std::vector<std::pair<std::string, double>>& figures,
           const metrics::Labels& labels, metrics::Type type = metrics::Type::kGauge) {
    for (int i = 0; i < minutes * 12; ++i) {
      std::vector<metrics::MetricStore::Point> points;
      points.reserve(figures.size());
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
  std::unique_ptr<AlertFile> file_;
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

TEST_F(AlertsTest, ARunThatGoesWrongIsToldAtOnceAndIsOverWhenNothingSaysSoAnyMore) {
  Run(2, {{"takt_run_alerts", 1}}, {{"app", "mnist"}, {"kind", "not_finite"}, {"run", "3"}});
  EXPECT_THAT(told_, ElementsAre("run 3 of mnist goes wrong: not_finite"));
  Run(8, {{"takt_other", 1}}, {{"app", "mnist"}});
  EXPECT_THAT(told_,
              ElementsAre("run 3 of mnist goes wrong: not_finite", "resolved training_goes_wrong"));
}

const AlertRule kOwnRule{.name = "queue",
                         .metric = "queue_length",
                         .matchers = {{"app", metrics::Matcher::Op::kPrefix, "mnist"}},
                         .threshold = 10,
                         .for_at_least = 60s,
                         .summary = "{app} has {value} waiting",
                         .summary_zh = "{app} 有 {value} 个在等待"};

TEST_F(AlertsTest, ADisabledRuleIsQuietAlsoAfterARestart) {
  AlertRule rule = *alerts_->Rule("disk_almost_full");
  rule.enabled = false;
  ASSERT_TRUE(alerts_->PutRule(rule).ok());
  Restart();
  EXPECT_EQ(alerts_->Rule("disk_almost_full")->origin, AlertRule::Origin::kChanged);
  Run(8, {{"takt_node_filesystem_free_bytes", 1}, {"takt_node_filesystem_size_bytes", 100}},
      {{"directory", "/d"}});
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(AlertsTest, ARuleThatSomebodyMadeFiresAndSurvivesARestart) {
  ASSERT_TRUE(alerts_->PutRule(kOwnRule).ok());
  Restart();
  const auto rule = alerts_->Rule("queue");
  ASSERT_TRUE(rule.has_value());
  EXPECT_EQ(rule->matchers.size(), 1u);
  EXPECT_EQ(rule->for_at_least, 60s);
  EXPECT_EQ(rule->origin, AlertRule::Origin::kOwn);
  Run(2, {{"queue_length", 12}}, {{"app", "mnist-a"}});
  EXPECT_THAT(told_, ElementsAre("mnist-a has 12 waiting"));
  EXPECT_EQ(alerts_->Active().at(0).summary_zh, "mnist-a 有 12 个在等待");
}

TEST_F(AlertsTest, WhatFiresIsNotToldAgainAfterARestartButItsEndIs) {
  ASSERT_TRUE(alerts_->PutRule(kOwnRule).ok());
  Run(2, {{"queue_length", 12}}, {{"app", "mnist-a"}});
  const auto since = alerts_->Active().at(0).since;
  Restart();
  Run(1, {{"queue_length", 12}}, {{"app", "mnist-a"}});
  EXPECT_EQ(alerts_->Active().at(0).since, since);
  Run(3, {{"queue_length", 1}}, {{"app", "mnist-a"}});
  EXPECT_THAT(told_, ElementsAre("mnist-a has 12 waiting", "resolved queue"));
}

TEST_F(AlertsTest, WhatIsNotMeasuredYetAfterAStartIsUnknownAndLaterOver) {
  ASSERT_TRUE(alerts_->PutRule(kOwnRule).ok());
  Run(2, {{"queue_length", 12}}, {{"app", "mnist-a"}});
  clock_.Advance(1h);  // the daemon was not there
  Restart();
  alerts_->Evaluate();
  EXPECT_THAT(alerts_->Active(), SizeIs(1));
  clock_.Advance(kStartGrace);
  alerts_->Evaluate();
  EXPECT_THAT(alerts_->Active(), IsEmpty());
  EXPECT_THAT(told_, ElementsAre("mnist-a has 12 waiting", "resolved queue"));
}

TEST_F(AlertsTest, RemovingARuleEndsItsAlertsAndTakesABuiltInOneBack) {
  ASSERT_TRUE(alerts_->PutRule(kOwnRule).ok());
  Run(2, {{"queue_length", 12}}, {{"app", "mnist-a"}});
  ASSERT_TRUE(alerts_->RemoveRule("queue").ok());
  alerts_->Evaluate();
  EXPECT_THAT(told_, ElementsAre("mnist-a has 12 waiting", "resolved queue"));
  EXPECT_EQ(alerts_->RemoveRule("queue").code(), absl::StatusCode::kNotFound);

  EXPECT_EQ(alerts_->RemoveRule("disk_almost_full").code(), absl::StatusCode::kFailedPrecondition);
  AlertRule disk = *alerts_->Rule("disk_almost_full");
  const double threshold = disk.threshold;
  disk.threshold = 0.5;
  ASSERT_TRUE(alerts_->PutRule(disk).ok());
  ASSERT_TRUE(alerts_->RemoveRule("disk_almost_full").ok());
  Restart();
  EXPECT_EQ(alerts_->Rule("disk_almost_full")->threshold, threshold);
}

TEST_F(AlertsTest, RulesHaveALimit) {
  AlertRule rule = kOwnRule;
  for (std::size_t i = alerts_->Rules().size(); i < kMaxRules; ++i) {
    rule.name = StrCat("r", i);
    ASSERT_TRUE(alerts_->PutRule(rule).ok());
  }
  rule.name = "one_more";
  EXPECT_EQ(alerts_->PutRule(rule).code(), absl::StatusCode::kResourceExhausted);
  rule.name = StrCat("r", kMaxRules - 1);  // changing one of them is no new one
  EXPECT_TRUE(alerts_->PutRule(rule).ok());
  EXPECT_THAT(alerts_->Rules(), SizeIs(kMaxRules));
}

TEST_F(AlertsTest, ARuleThatAsksTooMuchSaysSo) {
  std::vector<metrics::MetricStore::Point> points;
  for (std::size_t i = 0; i <= metrics::kMaxSeriesPerQuery; ++i) {
    points.push_back(
        {*store_->Series("queue_length", {{"app", StrCat("mnist-", i)}}, metrics::Type::kGauge),
         100});
  }
  store_->Append(
      std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now().time_since_epoch())
          .count(),
      points);
  ASSERT_TRUE(alerts_->PutRule(kOwnRule).ok());
  alerts_->Evaluate();
  EXPECT_THAT(alerts_->Problems()["queue"], HasSubstr("2000"));
  EXPECT_THAT(alerts_->Active(), IsEmpty());
}

TEST(CheckRule, NamesTheFieldAndWhatWasExpected) {
  EXPECT_TRUE(CheckRule(kOwnRule).ok());
  const auto refused = [](const std::function<void(AlertRule&)>& spoil) {
    AlertRule rule = kOwnRule;
    spoil(rule);
    return std::string(CheckRule(rule).message());
  };
  using Rule = AlertRule;
  for (const auto& [field, spoil] : std::vector<std::pair<std::string, std::function<void(Rule&)>>>{
           {"name", [](Rule& r) { r.name = "a/b"; }},
           {"metric", [](Rule& r) { r.metric = "9lives"; }},
           {"divided_by", [](Rule& r) { r.divide_by = "a b"; }},
           {"divided_by_match",
            [](Rule& r) {
              r.divide_matchers = {{"a", {}, "b"}};
            }},
           {"match", [](Rule& r) { r.matchers.resize(kMaxRuleLabels + 1); }},
           {"by", [](Rule& r) { r.by = {"app"}; }},
           {"window_seconds", [](Rule& r) { r.window = kMinRuleWindow - 1s; }},
           {"window_seconds", [](Rule& r) { r.window = kMaxRuleWindow + 1s; }},
           {"for_seconds", [](Rule& r) { r.for_at_least = kMaxRuleFor + 1s; }},
           {"threshold", [](Rule& r) { r.threshold = std::nan(""); }},
           {"summary", [](Rule& r) { r.summary = ""; }},
           {"summary_zh", [](Rule& r) { r.summary_zh.assign(kMaxSummaryBytes + 1, 'x'); }},
       }) {
    EXPECT_THAT(refused(spoil), testing::StartsWith(field + ": expected"));
  }
}

TEST_F(AlertsTest, SilencesEndAndHaveALimit) {
  EXPECT_EQ(alerts_->AddSilence({.until = clock_.Now()}).status().code(),
            absl::StatusCode::kInvalidArgument);
  for (Silence bad : {Silence{.why = std::string(kMaxSummaryBytes + 1, 'x')},
                      Silence{.labels = metrics::Labels(kMaxRuleLabels + 1)}}) {
    bad.until = clock_.Now() + 1h;
    EXPECT_EQ(alerts_->AddSilence(bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
  for (std::size_t i = 0; i < kMaxSilences; ++i) {
    ASSERT_TRUE(alerts_->AddSilence({.until = clock_.Now() + 1h}).ok());
  }
  EXPECT_EQ(alerts_->AddSilence({.until = clock_.Now() + 1h}).status().code(),
            absl::StatusCode::kResourceExhausted);
  Restart();
  EXPECT_THAT(alerts_->Silences(), SizeIs(kMaxSilences));
  clock_.Advance(2h);
  alerts_->Evaluate();
  EXPECT_THAT(alerts_->Silences(), IsEmpty());
  Restart();
  EXPECT_THAT(alerts_->Silences(), IsEmpty());
  EXPECT_EQ(alerts_->RemoveSilence("x").code(), absl::StatusCode::kNotFound);
}

TEST(DefaultRules, HaveUniqueNamesAndSayWhatIsWrong) {
  std::set<std::string> names;
  for (const AlertRule& rule : DefaultRules()) {
    EXPECT_TRUE(names.insert(rule.name).second) << rule.name;
    EXPECT_TRUE(CheckRule(rule).ok()) << CheckRule(rule);
    EXPECT_FALSE(rule.summary_zh.empty()) << rule.name;
  }
  EXPECT_LE(names.size(), kMaxRules);
}

}  // namespace
}  // namespace takt::operate
