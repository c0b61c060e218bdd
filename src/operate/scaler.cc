#include "operate/scaler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_format.h"

namespace takt::operate {
namespace {

bool IsKnown(const Averages& averages) {
  return averages.size() == kScaleAverages &&
         std::all_of(averages.begin(), averages.end(), [](const auto& a) { return a.has_value(); });
}

bool AllAbove(const Averages& averages, int limit) {
  return IsKnown(averages) && std::all_of(averages.begin(), averages.end(),
                                          [limit](const auto& a) { return *a > limit; });
}

bool AllBelow(const Averages& averages, int limit) {
  return IsKnown(averages) && std::all_of(averages.begin(), averages.end(),
                                          [limit](const auto& a) { return *a < limit; });
}

std::string Why(const char* what, const Averages& averages, const char* side, int limit) {
  std::string text = absl::StrCat(what, " averaged ");
  for (std::size_t i = 0; i < averages.size(); ++i) {
    absl::StrAppend(&text,
                    i == 0                     ? ""
                    : i + 1 == averages.size() ? " and "
                                               : ", ",
                    absl::StrFormat("%.0f %%", *averages[i]));
  }
  absl::StrAppend(&text, " in the last ", averages.size(), " minutes, ", side, " ", limit, " %");
  return text;
}

bool IsLive(const runtime::InstanceStatus& instance) {
  return instance.state == runtime::InstanceState::kRunning;
}

}  // namespace

ScaleDecision Decide(const templates::AutoScaling& rule, int instances, const Averages& cpu,
                     const Averages& memory, bool may_shrink) {
  struct Quantity {
    const char* name;
    const Averages& averages;
    const std::optional<int>&max, &min;
  };
  const Quantity quantities[] = {{"CPU", cpu, rule.max_cpu, rule.min_cpu},
                                 {"memory", memory, rule.max_memory, rule.min_memory}};
  for (const Quantity& q : quantities) {
    if (!q.max || !AllAbove(q.averages, *q.max)) continue;
    const int more = std::min(instances + rule.step, rule.max_instances);
    if (more <= instances) return {instances, ""};  // there are as many as may be
    return {more, Why(q.name, q.averages, "above", *q.max)};
  }
  if (!may_shrink) return {instances, ""};
  std::string why;
  for (const Quantity& q : quantities) {
    if (!q.min) continue;
    if (!AllBelow(q.averages, *q.min)) return {instances, ""};
    absl::StrAppend(&why, why.empty() ? "" : "; ", Why(q.name, q.averages, "below", *q.min));
  }
  const int fewer = std::max(instances - rule.step, rule.min_instances);
  if (why.empty() || fewer >= instances) return {instances, ""};
  return {fewer, std::move(why)};
}

Averages Scaler::Ask(const std::string& metric, metrics::Function function, const std::string& app,
                     const std::string& service, double whole,
                     std::chrono::system_clock::time_point not_before) const {
  using std::chrono::duration_cast;
  using std::chrono::milliseconds;
  const std::int64_t window = milliseconds(kScaleWindow).count();
  const std::int64_t now = duration_cast<milliseconds>(clock_.Now().time_since_epoch()).count();
  const std::int64_t to = now / window * window;
  const std::int64_t from = to - window * static_cast<std::int64_t>(kScaleAverages);
  // All of them from after the last change.
  if (from < duration_cast<milliseconds>(not_before.time_since_epoch()).count()) return {};
  const auto answer = store_.Ask({.name = metric,
                                  .matchers = {{"app", metrics::Matcher::Op::kEqual, app},
                                               {"service", metrics::Matcher::Op::kEqual, service}},
                                  .from_ms = from,
                                  .to_ms = to,
                                  .step_ms = window,
                                  .function = function,
                                  .aggregation = metrics::Aggregation::kAvg});
  if (!answer.ok() || answer->series.size() != 1 || !(whole > 0)) return {};
  Averages averages;
  for (const double value : answer->series[0].values) {
    averages.push_back(std::isnan(value) ? std::nullopt : std::optional(100 * value / whole));
  }
  return averages;
}

void Scaler::Step(const std::vector<line::App>& apps, const Machine& machine) {
  const auto now = clock_.Steady();
  decltype(seen_) seen;
  for (const line::App& app : apps) {
    if (app.stopped) continue;
    for (const line::ServiceView& service : app.services) {
      if (!service.spec.scaling) continue;
      const auto key = std::pair(app.name, service.spec.name);
      const auto live = static_cast<int>(
          std::count_if(service.instances.begin(), service.instances.end(), IsLive));
      const auto before = seen_.find(key);
      Seen& mine = seen[key];
      if (before != seen_.end() && before->second.instances == live) {
        mine = before->second;
      } else {
        mine = {live, clock_.Now(), now, before != seen_.end() && before->second.stepped};
      }
      if (live != service.spec.replicas || live == 0) continue;
      const double cores = service.spec.cpus > 0 ? service.spec.cpus : machine.cores;
      const double bytes = service.spec.memory_bytes > 0
                               ? static_cast<double>(service.spec.memory_bytes)
                               : machine.memory_bytes;
      const Averages cpu = Ask("takt_instance_cpu_seconds_total", metrics::Function::kRate,
                               app.name, service.spec.name, cores, mine.changed);
      const Averages memory = Ask("takt_instance_memory_bytes", metrics::Function::kAvg, app.name,
                                  service.spec.name, bytes, mine.changed);
      const bool may_shrink = !mine.stepped || now - mine.changed_steady >= kScaleCoolDown;
      const ScaleDecision decision = Decide(*service.spec.scaling, live, cpu, memory, may_shrink);
      if (decision.instances == live) continue;
      const absl::Status status =
          scale_(app.name, service.spec.name, decision.instances, decision.why);
      if (!status.ok()) {
        std::fprintf(stderr, "takt: warning: %s\n", std::string(status.message()).c_str());
        continue;
      }
      mine.stepped = true;
    }
  }
  seen_ = std::move(seen);
}

}  // namespace takt::operate
