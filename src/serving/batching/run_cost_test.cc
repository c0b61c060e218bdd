#include "serving/batching/run_cost.h"

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
  EXPECT_EQ(cost.MostRows(microseconds(700)), 64);
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
  EXPECT_GE(cost.MostRows(milliseconds(10)), 64);
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
  EXPECT_EQ(cost.MostRows(milliseconds(10)), 32);
  // Two rows that cost more than two of one are no reason to stay at one.
  for (int i = 0; i < 10; ++i) cost.Record(2, microseconds(100));
  EXPECT_EQ(cost.MostRows(milliseconds(10)), 32);
}

TEST(RunCost, AModelThatHasBecomeSlowIsBelieved) {
  RunCost cost;
  cost.Record(1, microseconds(10));
  for (int i = 0; i < 100; ++i) cost.Record(1, milliseconds(5));
  EXPECT_GT(cost.Estimate(1), RunCost::kLong);
}

// As many calls as a client has at once are a power of two more often than not: a batch of one less
// would leave a run of one.
TEST(RunCost, ABatchTakesAPowerOfTwo) {
  RunCost cost;
  for (int i = 0; i < 10; ++i) {
    cost.Record(1, microseconds(6));
    cost.Record(8, microseconds(7));
    cost.Record(16, microseconds(40));
  }
  EXPECT_EQ(cost.MostRows(milliseconds(10)), 8);
}

TEST(RunCost, RowsAreAsCheapAsTheRunsWereAndNotAsTheSizesEndSays) {
  RunCost cost;
  for (int i = 0; i < 10; ++i) {
    cost.Record(8, microseconds(80));
    cost.Record(9, microseconds(90));  // 10 a row, as before, though 16 fit this size
  }
  EXPECT_EQ(cost.MostRows(microseconds(200)), 16);
  EXPECT_EQ(cost.Estimate(9), microseconds(90));
  EXPECT_EQ(cost.Estimate(16), microseconds(160));
}

TEST(RunCost, RowsOfAModelThatWasNeverRunOnOneAreShared) {
  RunCost cost;
  for (int i = 0; i < 10; ++i) cost.Record(4, microseconds(20));
  EXPECT_EQ(cost.MostRows(microseconds(100)), 16);
}

}  // namespace
}  // namespace takt::serving
