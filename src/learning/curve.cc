#include "learning/curve.h"

#include <algorithm>
#include <cmath>

namespace takt::learning {
namespace {

bool ByStep(const Point& a, const Point& b) { return a.step < b.step; }

// Drops what a step that went back repeats.
Segment Rising(Segment segment) {
  if (std::is_sorted(segment.begin(), segment.end(), ByStep)) return segment;
  Segment result;
  result.reserve(segment.size());
  for (const Point& p : segment) {
    while (!result.empty() && result.back().step > p.step) result.pop_back();
    result.push_back(p);
  }
  return result;
}

}  // namespace

std::vector<Point> JoinSegments(std::vector<Segment> segments) {
  std::erase_if(segments, [](const Segment& s) { return s.empty(); });
  std::stable_sort(segments.begin(), segments.end(), [](const Segment& a, const Segment& b) {
    return a.front().wall_time < b.front().wall_time;
  });
  std::vector<Point> curve;
  double ended = 0;  // when the last writer so far wrote its last point
  bool overlapping = false;
  for (Segment& segment : segments) {
    const double began = segment.front().wall_time;
    const double last = segment.back().wall_time;
    segment = Rising(std::move(segment));
    if (curve.empty()) {
      curve = std::move(segment);
    } else {
      if (began >= ended) {
        if (overlapping) std::stable_sort(curve.begin(), curve.end(), ByStep);
        overlapping = false;
        const std::int64_t from = segment.front().step;
        curve.erase(std::lower_bound(curve.begin(), curve.end(), from,
                                     [](const Point& p, std::int64_t s) { return p.step < s; }),
                    curve.end());
      } else {
        overlapping = true;
      }
      curve.insert(curve.end(), segment.begin(), segment.end());
    }
    ended = std::max(ended, last);
  }
  if (overlapping) std::stable_sort(curve.begin(), curve.end(), ByStep);
  return curve;
}

std::vector<double> Smooth(const std::vector<Point>& curve, double weight) {
  std::vector<double> result;
  result.reserve(curve.size());
  double mean = 0, remaining = 1;
  for (const Point& p : curve) {
    if (!std::isfinite(p.value)) {
      result.push_back(p.value);
      continue;
    }
    mean = weight * mean + (1 - weight) * p.value;
    remaining *= weight;
    result.push_back(mean / (1 - remaining));
  }
  return result;
}

std::vector<std::size_t> Choose(const std::vector<Point>& curve, std::size_t max_points) {
  max_points = std::max<std::size_t>(max_points, 4);
  const std::size_t n = curve.size();
  std::vector<std::size_t> chosen;
  if (n <= max_points) {
    chosen.resize(n);
    for (std::size_t i = 0; i < n; ++i) chosen[i] = i;
    return chosen;
  }
  const bool all_finite = std::all_of(curve.begin(), curve.end(),
                                      [](const Point& p) { return std::isfinite(p.value); });
  const std::size_t per_stretch = all_finite ? 2 : 3;
  const std::size_t stretches = std::max<std::size_t>(1, (max_points - 2) / per_stretch);
  chosen.reserve(max_points);
  chosen.push_back(0);
  for (std::size_t s = 0; s < stretches; ++s) {
    const std::size_t begin = 1 + s * (n - 2) / stretches;
    const std::size_t end = 1 + (s + 1) * (n - 2) / stretches;
    std::size_t least = n, greatest = n, odd = n;
    for (std::size_t i = begin; i < end; ++i) {
      const double v = curve[i].value;
      if (!std::isfinite(v)) {
        if (odd == n) odd = i;
        continue;
      }
      if (least == n || v < curve[least].value) least = i;
      if (greatest == n || v > curve[greatest].value) greatest = i;
    }
    std::size_t picks[] = {least, greatest, odd};
    std::sort(std::begin(picks), std::end(picks));
    for (const std::size_t pick : picks) {
      if (pick != n && chosen.back() != pick) chosen.push_back(pick);
    }
  }
  chosen.push_back(n - 1);
  return chosen;
}

}  // namespace takt::learning
