#include "serving/lifecycle/version_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace takt::serving {
namespace {

using testing::ElementsAre;
using State = VersionState;

TEST(ParseVersion, TakesDecimalDigitsAndNothingElse) {
  const std::pair<const char*, std::optional<std::int64_t>> cases[] = {
      {"1", 1},
      {"00000123", 123},
      {"0", 0},
      {"9223372036854775807", INT64_MAX},
      {"9223372036854775808", std::nullopt},
      {"", std::nullopt},
      {".123", std::nullopt},
      {"123.tmp", std::nullopt},
      {"tmp-123", std::nullopt},
      {"-1", std::nullopt},
      {"+1", std::nullopt},
      {" 1", std::nullopt},
      {"1 ", std::nullopt},
      {"0x1", std::nullopt},
  };
  for (const auto& [name, version] : cases) EXPECT_EQ(ParseVersion(name), version) << name;
}

TEST(PickVersions, FollowsThePolicy) {
  const std::vector<std::int64_t> there = {3, 1, 10, 2, 3};
  const auto latest = [](int n) { return VersionPolicy{VersionPolicy::Kind::kLatest, n, {}}; };
  EXPECT_THAT(PickVersions(latest(1), there), ElementsAre(10));
  EXPECT_THAT(PickVersions(latest(2), there), ElementsAre(10, 3));
  EXPECT_THAT(PickVersions(latest(9), there), ElementsAre(10, 3, 2, 1));
  EXPECT_THAT(PickVersions({VersionPolicy::Kind::kAll, 1, {}}, there), ElementsAre(10, 3, 2, 1));
  EXPECT_THAT(PickVersions({VersionPolicy::Kind::kSpecific, 1, {2, 7, 3}}, there),
              ElementsAre(3, 2));
  EXPECT_THAT(PickVersions(latest(1), {}), ElementsAre());
}

struct PlanCase {
  const char* name;
  VersionPolicy policy;
  std::map<std::int64_t, VersionView> versions;
  bool removed;
  VersionPlan plan;
};

TEST(PlanVersions, Table) {
  const VersionPolicy latest{VersionPolicy::Kind::kLatest, 1, {}};
  const VersionPolicy two{VersionPolicy::Kind::kLatest, 2, {}};
  const VersionPolicy all{VersionPolicy::Kind::kAll, 1, {}};
  const VersionPolicy only_1{VersionPolicy::Kind::kSpecific, 1, {1}};
  const VersionPolicy only_9{VersionPolicy::Kind::kSpecific, 1, {9}};
  const VersionView complete{State::kStart, true, false, false};
  const VersionView half{State::kStart, false, false, false};
  const VersionView loading{State::kLoading, true, false, false};
  const VersionView serves{State::kAvailable, true, false, false};
  const VersionView deleted{State::kAvailable, true, false, false, false};
  const VersionView going{State::kUnloading, true, false, false};
  const VersionView ended{State::kEnd, true, false, false};
  const VersionView failed{State::kEnd, true, true, false};
  const VersionView failed_due{State::kEnd, true, true, true};
  const VersionView failed_half{State::kEnd, false, true, true};
  const std::vector<PlanCase> cases = {
      {"nothing there, nothing to do", latest, {}, false, {{}, {}}},
      {"a complete version is loaded", latest, {{1, complete}}, false, {{1}, {}}},
      {"only the latest is loaded", latest, {{1, complete}, {2, complete}}, false, {{2}, {}}},
      {"all are loaded, highest first", all, {{1, complete}, {2, complete}}, false, {{2, 1}, {}}},
      {"the new one loads before the old one goes",
       latest,
       {{1, serves}, {2, complete}},
       false,
       {{2}, {}}},
      {"the old one stays while the new one loads",
       latest,
       {{1, serves}, {2, loading}},
       false,
       {{}, {}}},
      {"the old one goes once the new one serves",
       latest,
       {{1, serves}, {2, serves}},
       false,
       {{}, {1}}},
      {"a half-copied version is left alone", latest, {{1, serves}, {2, half}}, false, {{}, {}}},
      {"a start beside a half-copied version serves the whole one",
       latest,
       {{1, complete}, {2, half}},
       false,
       {{1}, {}}},
      {"a failed version gives way to the one below",
       latest,
       {{1, complete}, {2, failed}},
       false,
       {{1}, {}}},
      {"a failed version does not unload the old one",
       latest,
       {{1, serves}, {2, failed}},
       false,
       {{}, {}}},
      {"a failed version is tried again when due",
       latest,
       {{1, serves}, {2, failed_due}},
       false,
       {{2}, {}}},
      {"but not while its files are incomplete", latest, {{2, failed_half}}, false, {{}, {}}},
      {"a version that is going is not touched",
       latest,
       {{1, going}, {2, serves}},
       false,
       {{}, {}}},
      {"an ended version that is wanted again is loaded",
       only_1,
       {{1, ended}, {2, serves}},
       false,
       {{1}, {}}},
      {"a pinned version replaces a newer one",
       only_1,
       {{1, serves}, {2, serves}},
       false,
       {{}, {2}}},
      {"a pin on a version that is not there keeps what serves",
       only_9,
       {{1, serves}},
       false,
       {{}, {}}},
      {"deleting the newest rolls back: the one below loads first",
       latest,
       {{1, complete}, {2, deleted}},
       false,
       {{1}, {}}},
      {"and then the deleted one goes", latest, {{1, serves}, {2, deleted}}, false, {{}, {2}}},
      {"a deleted version alone keeps serving", latest, {{2, deleted}}, false, {{}, {}}},
      {"two latest keep two", two, {{1, serves}, {2, serves}, {3, serves}}, false, {{}, {1}}},
      {"a removed model loses every version",
       latest,
       {{1, serves}, {2, serves}, {3, complete}},
       true,
       {{}, {2, 1}}},
  };
  for (const PlanCase& c : cases) {
    const VersionPlan plan = PlanVersions(c.policy, c.versions, c.removed);
    EXPECT_EQ(plan.load, c.plan.load) << c.name;
    EXPECT_EQ(plan.unload, c.plan.unload) << c.name;
  }
}

}  // namespace
}  // namespace takt::serving
