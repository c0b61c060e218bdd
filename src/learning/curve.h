// From the points that several writers left to the curve that a person looks at. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace takt::learning {

struct Point {
  std::int64_t step = 0;
  double wall_time = 0;  // seconds since the epoch
  double value = 0;      // NaN and infinities are kept
};

// What one writer (one event file) wrote for one tag, in the order written.
using Segment = std::vector<Point>;

// One curve by rising step. A writer that began after another had ended is a restart: what the
// earlier one wrote at or after the step where the later one began was lost with the restart and
// is left out. Writers whose times overlap wrote together: all their points stay. Within one
// segment a step that goes back drops what it repeats.
std::vector<Point> JoinSegments(std::vector<Segment> segments);

// Exponential moving average with TensorBoard's correction for the start, `weight` in [0, 1):
//   m = weight * m + (1 - weight) * v;  smoothed = m / (1 - weight^n)
// Values that are not finite pass through and do not count.
std::vector<double> Smooth(const std::vector<Point>& curve, double weight);

// Indices of at most `max_points` points (at least 4) to draw, rising: the first, the last, and of
// each of equal stretches the least, the greatest and the first that is not finite, so that a spike
// of one point survives. All of them when there are no more than that.
std::vector<std::size_t> Choose(const std::vector<Point>& curve, std::size_t max_points);

}  // namespace takt::learning
