#include "base/clock.h"

#include <gtest/gtest.h>

namespace takt {
namespace {

TEST(FakeClock, StandsStillUntilAdvanced) {
  FakeClock clock;
  auto wall = clock.Now();
  auto steady = clock.Steady();
  EXPECT_EQ(clock.Now(), wall);
  clock.Advance(std::chrono::seconds(90));
  EXPECT_EQ(clock.Now() - wall, std::chrono::seconds(90));
  EXPECT_EQ(clock.Steady() - steady, std::chrono::seconds(90));
}

TEST(FormatRfc3339, IsUtcWithMilliseconds) {
  FakeClock clock;
  clock.Advance(std::chrono::milliseconds(61001));
  EXPECT_EQ(FormatRfc3339(clock.Now()), "2026-01-01T00:01:01.001Z");
}

}  // namespace
}  // namespace takt
