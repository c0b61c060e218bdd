#include "operate/doctor.h"

#include <algorithm>
#include <set>

namespace takt::operate {
namespace {

// Of the times between points of a curve; 0 for fewer than three.
double MedianInterval(const std::vector<learning::Point>& curve) {
  if (curve.size() < 3) return 0;
  std::vector<double> gaps;
  for (std::size_t i = 1; i < curve.size(); ++i) {
    gaps.push_back(curve[i].wall_time - curve[i - 1].wall_time);
  }
  const auto middle = gaps.begin() + static_cast<std::ptrdiff_t>(gaps.size() / 2);
  std::nth_element(gaps.begin(), middle, gaps.end());
  return std::max(*middle, 0.0);
}

}  // namespace

absl::StatusOr<std::vector<learning::Finding>> Doctor::Examine(const Run& run, bool expects_events,
                                                               learning::LearningStore& store,
                                                               double now) {
  const learning::DiagnoseOptions options;
  const learning::Window window = run.window();
  Chart& chart = charts_[{run.app, run.number}];
  const double elapsed = now - chart.looked;
  if (chart.looked > 0 && elapsed > 0) {
    const bool idle = run.cpu_seconds - chart.cpu_seconds < options.idle_cpu_cores * elapsed;
    if (!idle) {
      chart.idle_since = 0;
    } else if (chart.idle_since == 0) {
      chart.idle_since = chart.looked;
    }
  }
  chart.looked = now;
  chart.cpu_seconds = run.cpu_seconds;

  TAKT_ASSIGN_OR_RETURN(const learning::Statistics stats, store.Stats(run.app, window));
  if (stats.last_wall_time != chart.last_event) {
    chart.last_event = stats.last_wall_time;
    TAKT_ASSIGN_OR_RETURN(const auto series, store.List(run.app, window));
    std::vector<std::string> names;
    std::map<std::string, const learning::SeriesInfo*> by_name;
    for (const learning::SeriesInfo& each : series) {
      if (each.kind != learning::Kind::kScalar || each.service != run.service) continue;
      names.push_back(each.writer.empty() ? each.tag : each.writer + "/" + each.tag);
      by_name[names.back()] = &each;
    }
    chart.loss_tag = learning::GuessLoss(names);
    chart.loss.clear();
    if (!chart.loss_tag.empty()) {
      const learning::SeriesInfo& loss = *by_name[chart.loss_tag];
      TAKT_ASSIGN_OR_RETURN(chart.loss,
                            store.Curve(run.app, loss.service, loss.writer, loss.tag, window));
      if (chart.loss.size() > kMaxDiagnosedPoints) {
        chart.loss.erase(chart.loss.begin(),
                         chart.loss.end() - static_cast<std::ptrdiff_t>(kMaxDiagnosedPoints));
      }
    }
    chart.usual_interval = MedianInterval(chart.loss);
  }
  std::vector<learning::Finding> findings =
      learning::Diagnose({.now = now,
                          .started = run.started,
                          .loss = chart.loss,
                          .loss_tag = chart.loss_tag,
                          .last_event = chart.last_event,
                          .usual_interval = chart.usual_interval,
                          .idle_cpu_since = chart.idle_since},
                         options);
  if (!expects_events && chart.last_event == 0) {
    std::erase_if(findings, [](const learning::Finding& finding) {
      return finding.kind == learning::Finding::Kind::kSilent;
    });
  }
  return findings;
}

void Doctor::Keep(const std::vector<Run>& runs) {
  std::set<std::pair<std::string, int>> keep;
  for (const Run& run : runs) keep.emplace(run.app, run.number);
  std::erase_if(charts_, [&](const auto& chart) { return !keep.contains(chart.first); });
}

}  // namespace takt::operate
