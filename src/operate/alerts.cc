#include "operate/alerts.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/ids.h"
#include "nlohmann/json.hpp"

namespace takt::operate {
namespace {

using Json = nlohmann::ordered_json;

std::string Number(double value) {
  return std::abs(value) < 10 ? absl::StrFormat("%.3g", value) : absl::StrFormat("%.0f", value);
}

std::string SummaryOf(const AlertRule& rule, const Reading& reading) {
  std::string text = rule.summary;
  std::vector<std::pair<std::string, std::string>> replacements = {
      {"{value}", Number(reading.value)}, {"{percent}", Number(reading.value * 100) + " %"}};
  for (const auto& [name, value] : reading.labels)
    replacements.emplace_back("{" + name + "}", value);
  return absl::StrReplaceAll(text, replacements);
}

Json LabelsOf(const Alert& alert) {
  Json labels = {{"alertname", alert.rule}, {"severity", SeverityName(alert.severity)}};
  for (const auto& [name, value] : alert.labels) labels[name] = value;
  return labels;
}

// Every label of `wanted` is in `labels`.
bool Holds(const metrics::Labels& labels, const metrics::Labels& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&](const auto& label) {
    return std::find(labels.begin(), labels.end(), label) != labels.end();
  });
}

}  // namespace

const char* SeverityName(Severity severity) {
  switch (severity) {
    case Severity::kInfo:
      return "info";
    case Severity::kWarning:
      return "warning";
    case Severity::kCritical:
      return "critical";
  }
  return "unknown";
}

std::optional<Severity> SeverityFromName(std::string_view name) {
  for (const Severity s : {Severity::kInfo, Severity::kWarning, Severity::kCritical}) {
    if (name == SeverityName(s)) return s;
  }
  return std::nullopt;
}

Evaluation EvaluateRule(const AlertRule& rule, const std::vector<Reading>& readings,
                        const std::vector<Alert>& before,
                        std::chrono::system_clock::time_point now) {
  Evaluation result;
  std::vector<bool> seen(before.size(), false);
  for (const Reading& reading : readings) {
    const auto it = std::find_if(before.begin(), before.end(), [&](const Alert& alert) {
      return alert.labels == reading.labels;
    });
    const Alert* const earlier = it == before.end() ? nullptr : &*it;
    if (earlier != nullptr) seen[static_cast<std::size_t>(it - before.begin())] = true;
    if (std::isnan(reading.value)) {  // unknown: everything stays as it is
      if (earlier != nullptr) result.active.push_back(*earlier);
      continue;
    }
    const bool holds = rule.above ? reading.value > rule.threshold : reading.value < rule.threshold;
    if (!holds) {
      if (earlier != nullptr && earlier->firing) {
        result.resolved.push_back(*earlier);
        result.resolved.back().resolved = now;
        result.resolved.back().value = reading.value;
      }
      continue;
    }
    if (earlier == nullptr && result.active.size() >= kMaxActiveAlerts) continue;
    Alert alert = earlier != nullptr
                      ? *earlier
                      : Alert{.rule = rule.name, .labels = reading.labels, .since = now};
    alert.severity = rule.severity;
    alert.value = reading.value;
    alert.summary = SummaryOf(rule, reading);
    if (!alert.firing && now - alert.since >= rule.for_at_least) {
      alert.firing = true;
      result.fired.push_back(alert);
    }
    result.active.push_back(std::move(alert));
  }
  // What is no longer measured cannot be said to hold: it is over.
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (seen[i] || !before[i].firing) continue;
    result.resolved.push_back(before[i]);
    result.resolved.back().resolved = now;
  }
  return result;
}

bool IsSilenced(const Alert& alert, const std::vector<Silence>& silences,
                std::chrono::system_clock::time_point now) {
  return std::any_of(silences.begin(), silences.end(), [&](const Silence& silence) {
    return now < silence.until && (silence.rule.empty() || silence.rule == alert.rule) &&
           Holds(alert.labels, silence.labels);
  });
}

std::vector<AlertRule> DefaultRules() {
  using metrics::Aggregation;
  using metrics::Function;
  using metrics::Matcher;
  const auto equal = [](const char* label, const char* value) {
    return Matcher{label, Matcher::Op::kEqual, value};
  };
  return {
      {.name = "disk_almost_full",
       .metric = "takt_node_filesystem_free_bytes",
       .function = Function::kLast,
       .divide_by = "takt_node_filesystem_size_bytes",
       .above = false,
       .threshold = 0.05,
       .for_at_least = std::chrono::minutes(5),
       .severity = Severity::kCritical,
       .summary = "the disk under {directory} has {percent} left"},
      {.name = "memory_almost_exhausted",
       .metric = "takt_node_memory_bytes",
       .matchers = {equal("kind", "available")},
       .function = Function::kAvg,
       .aggregation = Aggregation::kSum,
       .divide_by = "takt_node_memory_bytes",
       .divide_matchers = {equal("kind", "total")},
       .above = false,
       .threshold = 0.05,
       .for_at_least = std::chrono::minutes(5),
       .severity = Severity::kCritical,
       .summary = "the machine has {percent} of its memory left"},
      {.name = "service_keeps_restarting",
       .metric = "takt_service_restarts_total",
       .function = Function::kIncrease,
       .window = std::chrono::minutes(10),
       .threshold = 3,
       .for_at_least = std::chrono::seconds(0),
       .severity = Severity::kWarning,
       .summary = "{app}/{service} restarted {value} times within ten minutes"},
      {.name = "service_is_down",
       .metric = "takt_service_missing_instances",
       .function = Function::kMin,
       .window = std::chrono::minutes(1),
       .threshold = 0,
       .for_at_least = std::chrono::minutes(2),
       .severity = Severity::kCritical,
       .summary = "{app}/{service} lacks {value} of its instances"},
      {.name = "model_requests_fail",
       .metric = ":tensorflow:serving:request_count",
       .matchers = {{"status", Matcher::Op::kNotEqual, "OK"}},
       .function = Function::kRate,
       .aggregation = Aggregation::kSum,
       .by = {"app", "model_name"},
       .window = std::chrono::minutes(2),
       .divide_by = ":tensorflow:serving:request_count",
       .threshold = 0.05,
       .for_at_least = std::chrono::minutes(2),
       .severity = Severity::kCritical,
       .summary = "{percent} of the requests to model {model_name} of {app} fail"},
      {.name = "log_entries_dropped",
       .metric = "takt_log_dropped_entries_total",
       .function = Function::kIncrease,
       .window = std::chrono::minutes(10),
       .threshold = 0,
       .for_at_least = std::chrono::seconds(0),
       .severity = Severity::kWarning,
       .summary = "the log store is full: {value} of the oldest entries went"},
  };
}

std::string AlertmanagerBody(const std::vector<Alert>& alerts) {
  const bool firing = std::any_of(alerts.begin(), alerts.end(), [](const Alert& a) {
    return a.resolved == std::chrono::system_clock::time_point{};
  });
  Json body = {{"version", "4"},
               {"groupKey", "takt"},
               {"truncatedAlerts", 0},
               {"status", firing ? "firing" : "resolved"},
               {"receiver", "takt"},
               {"groupLabels", Json::object()},
               {"commonLabels", Json::object()},
               {"commonAnnotations", Json::object()},
               {"externalURL", ""},
               {"alerts", Json::array()}};
  for (const Alert& alert : alerts) {
    const bool over = alert.resolved != std::chrono::system_clock::time_point{};
    body["alerts"].push_back(
        {{"status", over ? "resolved" : "firing"},
         {"labels", LabelsOf(alert)},
         {"annotations", {{"summary", alert.summary}, {"value", Number(alert.value)}}},
         {"startsAt", FormatRfc3339(alert.since)},
         {"endsAt", over ? FormatRfc3339(alert.resolved) : "0001-01-01T00:00:00Z"},
         {"generatorURL", ""},
         {"fingerprint", ""}});
  }
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string DingTalkBody(const std::vector<Alert>& alerts) {
  std::string text = "Takt";
  for (const Alert& alert : alerts) {
    const bool over = alert.resolved != std::chrono::system_clock::time_point{};
    text += StrCat("\n", over ? "[resolved] " : StrCat("[", SeverityName(alert.severity), "] "),
                   alert.summary);
  }
  const Json body = {{"msgtype", "text"}, {"text", {{"content", text}}}};
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<std::vector<Reading>> Alerts::Ask(const AlertRule& rule) const {
  const std::int64_t now_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now().time_since_epoch())
          .count();
  const std::int64_t window_ms = std::chrono::milliseconds(rule.window).count();
  // One step that ends with the newest whole round of samples.
  metrics::Question question{.name = rule.metric,
                             .matchers = rule.matchers,
                             .from_ms = now_ms / window_ms * window_ms - window_ms,
                             .to_ms = now_ms / window_ms * window_ms + window_ms,
                             .step_ms = window_ms,
                             .function = rule.function,
                             .aggregation = rule.aggregation,
                             .by = rule.by};
  TAKT_ASSIGN_OR_RETURN(const metrics::Answer answer, store_.Ask(question));
  const auto newest = [](const metrics::AnswerSeries& series) {
    for (auto v = series.values.rbegin(); v != series.values.rend(); ++v) {
      if (!std::isnan(*v)) return *v;
    }
    return std::nan("");
  };
  std::vector<Reading> readings;
  for (const metrics::AnswerSeries& series : answer.series) {
    readings.push_back({series.labels, newest(series)});
  }
  if (rule.divide_by.empty()) return readings;
  question.name = rule.divide_by;
  question.matchers = rule.divide_matchers;
  TAKT_ASSIGN_OR_RETURN(const metrics::Answer divisor, store_.Ask(question));
  for (Reading& reading : readings) {
    double value = std::nan("");
    for (const metrics::AnswerSeries& series : divisor.series) {
      if (series.labels == reading.labels) value = newest(series);
    }
    reading.value = value > 0 ? reading.value / value : std::nan("");
  }
  return readings;
}

void Alerts::Evaluate() {
  const auto now = clock_.Now();
  std::vector<Alert> fired, resolved;
  for (const AlertRule& rule : Rules()) {
    auto readings = rule.enabled ? Ask(rule) : std::vector<Reading>();
    if (!readings.ok()) continue;  // too much to ask, or the store is ill: nothing is known
    const std::lock_guard lock(mutex_);
    std::erase_if(silences_, [now](const Silence& s) { return s.until <= now; });
    Evaluation evaluation = EvaluateRule(rule, *readings, active_[rule.name], now);
    for (Alert& alert : evaluation.active) alert.silenced = IsSilenced(alert, silences_, now);
    active_[rule.name] = std::move(evaluation.active);
    for (auto [from, to] :
         {std::pair(&evaluation.fired, &fired), std::pair(&evaluation.resolved, &resolved)}) {
      for (Alert& alert : *from) {
        if (!IsSilenced(alert, silences_, now)) to->push_back(std::move(alert));
      }
    }
  }
  if (!fired.empty() || !resolved.empty()) tell_(fired, resolved);
}

std::vector<Alert> Alerts::Active() const {
  const std::lock_guard lock(mutex_);
  std::vector<Alert> all;
  for (const auto& [rule, alerts] : active_) all.insert(all.end(), alerts.begin(), alerts.end());
  return all;
}

std::vector<AlertRule> Alerts::Rules() const {
  const std::lock_guard lock(mutex_);
  return rules_;
}

absl::StatusOr<Silence> Alerts::AddSilence(Silence silence) {
  if (silence.until <= clock_.Now()) {
    return absl::InvalidArgumentError("silence: expected an end in the future");
  }
  const std::lock_guard lock(mutex_);
  if (silences_.size() >= kMaxSilences) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", kMaxSilences, " silences at once; remove one"));
  }
  silence.id = RandomId(8);
  silences_.push_back(silence);
  return silence;
}

absl::Status Alerts::RemoveSilence(const std::string& id) {
  const std::lock_guard lock(mutex_);
  if (std::erase_if(silences_, [&id](const Silence& s) { return s.id == id; }) == 0) {
    return absl::NotFoundError(absl::StrCat("there is no silence ", id));
  }
  return absl::OkStatus();
}

std::vector<Silence> Alerts::Silences() const {
  const std::lock_guard lock(mutex_);
  return silences_;
}

absl::Status Alerts::SetEnabled(const std::string& rule, bool enabled) {
  const std::lock_guard lock(mutex_);
  for (AlertRule& each : rules_) {
    if (each.name != rule) continue;
    each.enabled = enabled;
    return absl::OkStatus();
  }
  return absl::NotFoundError(absl::StrCat("there is no alert rule ", rule));
}

}  // namespace takt::operate
