// Latency over time, as an SVG picture.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "load/load.h"

namespace takt {

struct PlotPoint {
  load::LoadSecond second;
  std::optional<std::int64_t> version;  // that answered last in it
};
// p50 and p99 by second, on a logarithmic scale; a line where another version began to answer.
std::string PlotSvg(const std::vector<PlotPoint>& points);

}  // namespace takt
