#include "serving/servable.h"

#include <gtest/gtest.h>

namespace takt::serving {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

TEST(RunCost, NothingIsKnownBeforeTheFirstRun) {
  RunCost cost;
  EXPECT_EQ(cost.Estimate(1), RunCost::kUnknown);
  EXPECT_EQ(cost.MostRows(milliseconds(10)), 1);
}

TEST(RunCost, MoreRowsThanWereEverRunCostAsMuchEach) {
  RunCost cost;
  cost.Record(1, microseconds(10));
  EXPECT_EQ(cost.Estimate(1), microseconds(10));
  EXPECT_EQ(cost.Estimate(64), microseconds(640));
  EXPECT_EQ(cost.MostRows(microseconds(700)), 127);
  cost.Record(64, microseconds(20));
  EXPECT_EQ(cost.Estimate(64), microseconds(20));
  EXPECT_GT(cost.MostRows(microseconds(700)), 1000);
}

TEST(RunCost, FewerRowsThanWereRunCostNoMore) {
  RunCost cost;
  cost.Record(32, microseconds(50));
  EXPECT_EQ(cost.Estimate(1), microseconds(50));
}

TEST(RunCost, OneInterruptedRunDoesNotShutASizeOut) {
  RunCost cost;
  cost.Record(1, microseconds(10));
  cost.Record(32, milliseconds(50));
  EXPECT_GE(cost.MostRows(milliseconds(10)), 63);
  for (int i = 0; i < 20; ++i) cost.Record(32, microseconds(20));
  cost.Record(32, milliseconds(50));
  EXPECT_LT(cost.Estimate(32), microseconds(300));
}

TEST(RunCost, ABatchDoesNotGrowToWhereRowsAreDearer) {
  RunCost cost;
  cost.Record(1, microseconds(40));
  for (int i = 0; i < 10; ++i) {
    cost.Record(32, microseconds(500));   // 16 a row
    cost.Record(64, microseconds(1500));  // 23 a row
  }
  EXPECT_EQ(cost.MostRows(milliseconds(10)), 63);
  // Two rows that cost more than two of one are no reason to stay at one.
  for (int i = 0; i < 10; ++i) cost.Record(2, microseconds(100));
  EXPECT_EQ(cost.MostRows(milliseconds(10)), 63);
}

TEST(RunCost, AModelThatHasBecomeSlowIsBelieved) {
  RunCost cost;
  cost.Record(1, microseconds(10));
  for (int i = 0; i < 100; ++i) cost.Record(1, milliseconds(5));
  EXPECT_GT(cost.Estimate(1), RunCost::kLong);
}

TEST(ServableDirectory, ReadersKeepWhatTheyRead) {
  ServableDirectory directory;
  const std::uint64_t before = directory.generation();
  auto old = directory.Get();
  EXPECT_TRUE(old->models.empty());
  auto next = std::make_shared<ServableSnapshot>();
  next->models["m"];
  directory.Publish(next);
  EXPECT_GT(directory.generation(), before);
  EXPECT_TRUE(old->models.empty());
  EXPECT_EQ(directory.Get()->models.count("m"), 1U);
}

}  // namespace
}  // namespace takt::serving
