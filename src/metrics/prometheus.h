// Prometheus' text exposition format, version 0.0.4: read from what others offer, written for who
// scrapes us. Source: prometheus.io/docs/instrumenting/exposition_formats. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "metrics/node.h"

namespace takt::metrics {

inline constexpr std::size_t kMaxScrapeBytes = 16 << 20;
inline constexpr std::size_t kMaxFigureBytes = 4096;     // name and labels; larger: dropped
inline constexpr std::size_t kMaxScrapedFigures = 5000;  // of one target; further ones are dropped

struct Exposition {
  std::vector<Figure> figures;  // in the order given; labels by name
  std::size_t dropped = 0;      // beyond kMaxScrapedFigures or kMaxFigureBytes
};

// INVALID_ARGUMENT naming the line. Histograms and summaries come as their parts (_bucket, _sum,
// _count), counters all of them; quantiles as gauges. Time stamps are passed by.
absl::StatusOr<Exposition> ParseExposition(std::string_view text);

// What a metric of ours says, in one sentence, for # HELP; "" for one that is not ours.
std::string_view HelpOf(std::string_view name);

// With HELP and TYPE lines; figures of one name must stand together.
std::string WriteExposition(const std::vector<Figure>& figures);

}  // namespace takt::metrics
