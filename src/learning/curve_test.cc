#include "learning/curve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace takt::learning {
namespace {

using testing::ElementsAre;

std::vector<std::int64_t> Steps(const std::vector<Point>& curve) {
  std::vector<std::int64_t> steps;
  for (const Point& p : curve) steps.push_back(p.step);
  return steps;
}

// Points at wall time = `start` + index, the value the wall time.
Segment At(double start, std::vector<std::int64_t> steps) {
  Segment segment;
  for (const std::int64_t step : steps) {
    const double t = start + static_cast<double>(segment.size());
    segment.push_back({step, t, t});
  }
  return segment;
}

TEST(JoinSegments, ARestartReplacesTheStepsThatItRepeats) {
  const auto curve = JoinSegments({At(100, {20, 30, 40}), At(0, {0, 10, 20, 30})});
  EXPECT_THAT(Steps(curve), ElementsAre(0, 10, 20, 30, 40));
  EXPECT_EQ(curve[2].value, 100);  // the later writer's step 20
}

TEST(JoinSegments, WritersAtTheSameTimeKeepAllTheirPoints) {
  EXPECT_THAT(Steps(JoinSegments({At(0, {0, 10, 20}), At(1, {5, 15, 25})})),
              ElementsAre(0, 5, 10, 15, 20, 25));
}

TEST(JoinSegments, ARestartAfterTwoWritersCutsBoth) {
  EXPECT_THAT(Steps(JoinSegments({At(0, {0, 10, 20}), At(1, {5, 15, 25}), At(50, {12, 22})})),
              ElementsAre(0, 5, 10, 12, 22));
}

TEST(JoinSegments, AStepThatGoesBackWithinOneFileDropsWhatItRepeats) {
  EXPECT_THAT(Steps(JoinSegments({At(0, {0, 10, 20, 30, 15, 25})})), ElementsAre(0, 10, 15, 25));
}

TEST(JoinSegments, NothingComesOfNothing) { EXPECT_TRUE(JoinSegments({{}, {}}).empty()); }

TEST(Smooth, CorrectsTheStartAndPassesByWhatIsNotFinite) {
  std::vector<Point> curve = At(0, {0, 1, 2});
  curve[0].value = 4;
  curve[1].value = std::nan("");
  curve[2].value = 8;
  const auto smoothed = Smooth(curve, 0.5);
  EXPECT_DOUBLE_EQ(smoothed[0], 4);
  EXPECT_TRUE(std::isnan(smoothed[1]));
  EXPECT_DOUBLE_EQ(smoothed[2], (0.5 * 2 + 0.5 * 8) / 0.75);
}

TEST(Smooth, WithWeightZeroIsTheCurve) {
  const auto curve = At(5, {0, 1, 2});
  EXPECT_THAT(Smooth(curve, 0), ElementsAre(5, 6, 7));
}

TEST(Choose, KeepsAllOfAShortCurve) {
  EXPECT_THAT(Choose(At(0, {0, 1, 2}), 10), ElementsAre(0, 1, 2));
}

TEST(Choose, KeepsBothEndsAndEverySpikeWithinTheLimit) {
  std::vector<Point> curve;
  for (int i = 0; i < 1'000'000; ++i) curve.push_back({i, i * 1.0, std::sin(i * 1e-5)});
  curve[123'456].value = 1000;
  curve[654'321].value = -1000;
  curve[777'777].value = std::nan("");
  const auto chosen = Choose(curve, 1500);
  EXPECT_LE(chosen.size(), 1500u);
  EXPECT_GE(chosen.size(), 900u);
  EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
  EXPECT_EQ(chosen.front(), 0u);
  EXPECT_EQ(chosen.back(), curve.size() - 1);
  EXPECT_THAT(chosen, testing::IsSupersetOf({123'456u, 654'321u, 777'777u}));
}

TEST(Choose, EndsWithAFlatCurveOfEveryLength) {
  for (std::size_t n = 1; n < 60; ++n) {
    const std::vector<Point> curve(n, Point{1, 1, 1});
    for (std::size_t max = 0; max < 40; ++max) {
      const auto chosen = Choose(curve, max);
      EXPECT_LE(chosen.size(), std::max<std::size_t>(max, 4)) << n << " " << max;
      EXPECT_EQ(chosen.back(), n - 1) << n << " " << max;
    }
  }
}

}  // namespace
}  // namespace takt::learning
