#include "operate/alerts.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <tuple>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/ids.h"
#include "base/str.h"
#include "nlohmann/json.hpp"

namespace takt::operate {
namespace {

using Json = nlohmann::ordered_json;

std::string Number(double value) {
  return std::abs(value) < 10 ? absl::StrFormat("%.3g", value) : absl::StrFormat("%.0f", value);
}

std::string SummaryOf(const std::string& text, const Reading& reading) {
  std::vector<std::pair<std::string, std::string>> replacements = {
      {"{value}", Number(reading.value)}, {"{percent}", Number(reading.value * 100) + " %"}};
  for (const auto& [name, value] : reading.labels)
    replacements.emplace_back("{" + name + "}", value);
  return absl::StrReplaceAll(text, replacements);
}

std::string Quoted(const std::string& text) { return StrCat("\"", text, "\""); }

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
    if (!rule.Holds(reading.value)) {
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
    alert.since = std::min(alert.since, now);  // the clock may have been put back
    alert.severity = rule.severity;
    alert.value = reading.value;
    alert.summary = SummaryOf(rule.summary, reading);
    alert.summary_zh = SummaryOf(rule.summary_zh, reading);
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
       .summary = "the disk under {directory} has {percent} left",
       .summary_zh = "{directory} 所在磁盘仅剩 {percent}"},
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
       .summary = "the machine has {percent} of its memory left",
       .summary_zh = "本机内存仅剩 {percent}"},
      {.name = "service_keeps_restarting",
       .metric = "takt_service_restarts_total",
       .function = Function::kIncrease,
       .window = std::chrono::minutes(10),
       .threshold = 3,
       .for_at_least = std::chrono::seconds(0),
       .severity = Severity::kWarning,
       .summary = "{app}/{service} restarted {value} times within ten minutes",
       .summary_zh = "{app}/{service} 十分钟内重启了 {value} 次"},
      {.name = "service_is_down",
       .metric = "takt_service_missing_instances",
       .function = Function::kMin,
       .window = std::chrono::minutes(1),
       .threshold = 0,
       .for_at_least = std::chrono::minutes(2),
       .severity = Severity::kCritical,
       .summary = "{app}/{service} lacks {value} of its instances",
       .summary_zh = "{app}/{service} 缺少 {value} 个实例"},
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
       .summary = "{percent} of the requests to model {model_name} of {app} fail",
       .summary_zh = "{app} 的模型 {model_name} 有 {percent} 的请求失败"},
      {.name = "metric_samples_dropped",
       .metric = "takt_metric_dropped_blocks_total",
       .function = Function::kIncrease,
       .window = std::chrono::minutes(10),
       .threshold = 0,
       .for_at_least = std::chrono::seconds(0),
       .severity = Severity::kWarning,
       .summary = "there is no room for metrics: the oldest {value} blocks of samples went",
       .summary_zh = "监控数据空间不足：最旧的 {value} 块样本已被清除"},
      {.name = "log_entries_dropped",
       .metric = "takt_log_dropped_entries_total",
       .function = Function::kIncrease,
       .window = std::chrono::minutes(10),
       .threshold = 0,
       .for_at_least = std::chrono::seconds(0),
       .severity = Severity::kWarning,
       .summary = "the log store is full: {value} of the oldest entries went",
       .summary_zh = "日志库已满：最旧的 {value} 条已被清除"},
      {.name = "training_goes_wrong",
       .metric = "takt_run_alerts",
       .function = Function::kLast,
       .window = std::chrono::seconds(15),
       .threshold = 0,
       .for_at_least = std::chrono::seconds(0),
       .severity = Severity::kWarning,
       .summary = "run {run} of {app} goes wrong: {kind}",
       .summary_zh = "{app} 的训练任务 {run} 异常：{kind}"},
  };
}

absl::Status CheckRule(const AlertRule& rule) {
  const auto expected = [](std::string_view field, const auto& what, const auto& got) {
    return absl::InvalidArgumentError(StrCat(field, ": expected ", what, ", got ", got));
  };
  const auto is_metric = [](const std::string& name) {
    constexpr std::size_t kMost = 200;
    return !name.empty() && name.size() <= kMost && !absl::ascii_isdigit(name[0]) &&
           std::all_of(name.begin(), name.end(),
                       [](char c) { return absl::ascii_isalnum(c) || c == '_' || c == ':'; });
  };
  constexpr std::string_view kMetricRule = "the name of a metric ([A-Za-z_:][A-Za-z0-9_:]*)";
  if (!IsValidName(rule.name)) {
    return expected("name", "1 to 63 letters, digits, '_', '-' and '.'", Quoted(rule.name));
  }
  if (!is_metric(rule.metric)) return expected("metric", kMetricRule, Quoted(rule.metric));
  if (!rule.divide_by.empty() && !is_metric(rule.divide_by)) {
    return expected("divided_by", kMetricRule, Quoted(rule.divide_by));
  }
  if (rule.divide_by.empty() && !rule.divide_matchers.empty()) {
    return absl::InvalidArgumentError("divided_by_match: expected together with divided_by only");
  }
  for (const auto& [field, size] : {std::pair("match", rule.matchers.size()),
                                    std::pair("divided_by_match", rule.divide_matchers.size()),
                                    std::pair("by", rule.by.size())}) {
    if (size > kMaxRuleLabels) {
      return expected(field, StrCat("at most ", kMaxRuleLabels, " labels"), size);
    }
  }
  if (!rule.by.empty() && rule.aggregation == metrics::Aggregation::kNone) {
    return absl::InvalidArgumentError(
        "by: expected together with an aggregate (sum, avg, min, max)");
  }
  for (const auto& [field, time, least, most] :
       {std::tuple("window_seconds", rule.window, kMinRuleWindow, kMaxRuleWindow),
        std::tuple("for_seconds", rule.for_at_least, std::chrono::seconds(0), kMaxRuleFor)}) {
    if (time < least || time > most) {
      return expected(field, StrCat(least.count(), " to ", most.count()), time.count());
    }
  }
  if (!std::isfinite(rule.threshold)) return expected("threshold", "a number", rule.threshold);
  if (rule.summary.empty()) return absl::InvalidArgumentError("summary: expected a text");
  for (const auto& [field, text] :
       {std::pair("summary", &rule.summary), std::pair("summary_zh", &rule.summary_zh)}) {
    if (text->size() > kMaxSummaryBytes) {
      return expected(field, StrCat("at most ", kMaxSummaryBytes, " bytes"), text->size());
    }
  }
  return absl::OkStatus();
}

// ---- What is remembered ----

namespace {

constexpr std::string_view kRule = "rule";
constexpr std::string_view kSilence = "silence";
constexpr std::string_view kFiring = "firing";

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::int64_t Ms(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}
std::chrono::system_clock::time_point FromMs(std::int64_t ms) {
  return std::chrono::system_clock::time_point(std::chrono::milliseconds(ms));
}

std::string Encode(const AlertRule& rule) {
  return Dump({{"metric", rule.metric},
               {"match", metrics::MatchersText(rule.matchers)},
               {"function", metrics::FunctionName(rule.function)},
               {"aggregate", metrics::AggregationName(rule.aggregation)},
               {"by", rule.by},
               {"window_seconds", rule.window.count()},
               {"divided_by", rule.divide_by},
               {"divided_by_match", metrics::MatchersText(rule.divide_matchers)},
               {"above", rule.above},
               {"threshold", rule.threshold},
               {"for_seconds", rule.for_at_least.count()},
               {"severity", SeverityName(rule.severity)},
               {"summary", rule.summary},
               {"summary_zh", rule.summary_zh},
               {"enabled", rule.enabled}});
}

absl::Status Decode(const Json& json, AlertRule& rule) {
  rule.metric = json.at("metric");
  TAKT_ASSIGN_OR_RETURN(rule.matchers, metrics::ParseMatchers(json.at("match").get<std::string>()));
  rule.function = metrics::FunctionFromName(json.at("function").get<std::string>())
                      .value_or(metrics::Function::kAvg);
  rule.aggregation = metrics::AggregationFromName(json.at("aggregate").get<std::string>())
                         .value_or(metrics::Aggregation::kNone);
  rule.by = json.at("by").get<std::vector<std::string>>();
  rule.window = std::chrono::seconds(json.at("window_seconds").get<std::int64_t>());
  rule.divide_by = json.at("divided_by");
  TAKT_ASSIGN_OR_RETURN(rule.divide_matchers,
                        metrics::ParseMatchers(json.at("divided_by_match").get<std::string>()));
  rule.above = json.at("above");
  rule.threshold = json.at("threshold");
  rule.for_at_least = std::chrono::seconds(json.at("for_seconds").get<std::int64_t>());
  rule.severity =
      SeverityFromName(json.at("severity").get<std::string>()).value_or(Severity::kWarning);
  rule.summary = json.at("summary");
  rule.summary_zh = json.at("summary_zh");
  rule.enabled = json.at("enabled");
  return CheckRule(rule);
}

std::string Encode(const Silence& silence) {
  return Dump({{"rule", silence.rule},
               {"labels", silence.labels},
               {"until_ms", Ms(silence.until)},
               {"why", silence.why}});
}

void Decode(const Json& json, Silence& silence) {
  silence.rule = json.at("rule");
  silence.labels = json.at("labels").get<metrics::Labels>();
  silence.until = FromMs(json.at("until_ms"));
  silence.why = json.at("why");
}

std::string Encode(const std::vector<Alert>& firing) {
  Json all = Json::array();
  for (const Alert& alert : firing) {
    all.push_back({{"labels", alert.labels},
                   {"severity", SeverityName(alert.severity)},
                   {"since_ms", Ms(alert.since)},
                   {"value", alert.value},
                   {"summary", alert.summary},
                   {"summary_zh", alert.summary_zh}});
  }
  return Dump(all);
}

void Decode(const Json& json, const std::string& rule, std::vector<Alert>& firing) {
  for (const Json& each : json) {
    Alert alert{.rule = rule, .firing = true};
    alert.labels = each.at("labels").get<metrics::Labels>();
    alert.severity =
        SeverityFromName(each.at("severity").get<std::string>()).value_or(Severity::kWarning);
    alert.since = FromMs(each.at("since_ms"));
    alert.value = each.at("value");
    alert.summary = each.at("summary");
    alert.summary_zh = each.at("summary_zh");
    firing.push_back(std::move(alert));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Alerts>> Alerts::Open(AlertFile& file, metrics::MetricStore& store,
                                                     const Clock& clock, Tell tell) {
  std::unique_ptr<Alerts> self(new Alerts(file, store, clock, std::move(tell)));
  TAKT_RETURN_IF_ERROR(self->Load());
  return self;
}

absl::Status Alerts::Load() {
  const std::lock_guard lock(mutex_);
  for (AlertRule& rule : DefaultRules()) {
    rule.origin = AlertRule::Origin::kBuiltIn;
    const std::string name = rule.name;
    built_in_.emplace(name, std::move(rule));
  }
  for (const std::string_view kind : {kRule, kSilence, kFiring}) {
    TAKT_ASSIGN_OR_RETURN(const auto kept, file_.All(kind));
    for (const auto& [key, text] : kept) {
      absl::Status status;
      try {  // nlohmann reports by exceptions; they end here
        const Json json = Json::parse(text);
        if (kind == kRule) {
          AlertRule rule{.name = key};
          status = Decode(json, rule);
          rule.origin =
              built_in_.contains(key) ? AlertRule::Origin::kChanged : AlertRule::Origin::kOwn;
          if (status.ok()) changed_.emplace(key, std::move(rule));
        } else if (kind == kSilence) {
          Silence silence{.id = key};
          Decode(json, silence);
          silences_.push_back(std::move(silence));
        } else {
          Decode(json, key, active_[key]);
        }
      } catch (const Json::exception& error) {
        status = absl::DataLossError(error.what());
      }
      if (!status.ok()) {
        std::fprintf(stderr, "takt: warning: the %s %s cannot be read and is left out: %s\n",
                     kind.data(), key.c_str(), std::string(status.message()).c_str());
      }
    }
  }
  return absl::OkStatus();
}

void Alerts::Remember(const std::string& rule, const std::vector<Alert>& active) {
  std::vector<Alert> firing;
  std::copy_if(active.begin(), active.end(), std::back_inserter(firing),
               [](const Alert& alert) { return alert.firing; });
  const absl::Status status =
      firing.empty() ? file_.Remove(kFiring, rule) : file_.Put(kFiring, rule, Encode(firing));
  if (!status.ok()) {
    std::fprintf(stderr, "takt: warning: %s\n", std::string(status.message()).c_str());
  }
}

absl::StatusOr<std::vector<Reading>> Alerts::Ask(const AlertRule& rule) const {
  const std::int64_t now_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now().time_since_epoch())
          .count();
  const std::int64_t window_ms = std::chrono::milliseconds(rule.window).count();
  // One step that ends with the newest whole round of samples.
  const metrics::Question question{.name = rule.metric,
                                   .matchers = rule.matchers,
                                   .from_ms = now_ms / window_ms * window_ms - window_ms,
                                   .to_ms = now_ms / window_ms * window_ms + window_ms,
                                   .step_ms = window_ms,
                                   .function = rule.function,
                                   .aggregation = rule.aggregation,
                                   .by = rule.by,
                                   .divide_by = rule.divide_by,
                                   .divide_matchers = rule.divide_matchers};
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
  return readings;
}

absl::StatusOr<std::vector<Reading>> Alerts::Try(const AlertRule& rule) const {
  TAKT_RETURN_IF_ERROR(CheckRule(rule));
  return Ask(rule);
}

void Alerts::Evaluate() {
  const auto now = clock_.Now();
  const bool starting = clock_.Steady() - started_ < kStartGrace;
  std::vector<Alert> fired, resolved;
  std::vector<AlertRule> rules = Rules();
  {
    // Alerts of a rule that is gone are over.
    const std::lock_guard lock(mutex_);
    for (const auto& [name, alerts] : active_) {
      if (!changed_.contains(name) && !built_in_.contains(name)) {
        rules.push_back({.name = name, .enabled = false});
      }
    }
    std::erase_if(silences_, [&](const Silence& silence) {
      return silence.until <= now && file_.Remove(kSilence, silence.id).ok();
    });
  }
  std::vector<std::pair<std::string, std::vector<Alert>>> remember;
  for (const AlertRule& rule : rules) {
    auto readings = rule.enabled ? Ask(rule) : std::vector<Reading>();
    const std::lock_guard lock(mutex_);
    if (!readings.ok()) {  // too much to ask, or the store is ill: nothing is known
      problems_[rule.name] = std::string(readings.status().message());
      continue;
    }
    problems_.erase(rule.name);
    std::vector<Alert>& active = active_[rule.name];
    if (starting && rule.enabled) {
      for (const Alert& alert : active) {
        if (std::none_of(readings->begin(), readings->end(),
                         [&](const Reading& r) { return r.labels == alert.labels; })) {
          readings->push_back({alert.labels, std::nan("")});
        }
      }
    }
    Evaluation evaluation = EvaluateRule(rule, *readings, active, now);
    for (Alert& alert : evaluation.active) alert.silenced = IsSilenced(alert, silences_, now);
    active = std::move(evaluation.active);
    if (!evaluation.fired.empty() || !evaluation.resolved.empty()) {
      remember.emplace_back(rule.name, active);
    }
    if (active.empty()) active_.erase(rule.name);
    for (auto [from, to] :
         {std::pair(&evaluation.fired, &fired), std::pair(&evaluation.resolved, &resolved)}) {
      for (Alert& alert : *from) {
        if (!IsSilenced(alert, silences_, now)) to->push_back(std::move(alert));
      }
    }
  }
  if (!fired.empty() || !resolved.empty()) tell_(fired, resolved);
  for (const auto& [rule, active] : remember) Remember(rule, active);
}

std::vector<Alert> Alerts::Active() const {
  const std::lock_guard lock(mutex_);
  std::vector<Alert> all;
  for (const auto& [rule, alerts] : active_) all.insert(all.end(), alerts.begin(), alerts.end());
  return all;
}

std::vector<AlertRule> Alerts::Rules() const {
  const std::lock_guard lock(mutex_);
  std::vector<AlertRule> rules;
  for (const auto& [name, rule] : built_in_) {
    const auto it = changed_.find(name);
    rules.push_back(it == changed_.end() ? rule : it->second);
  }
  for (const auto& [name, rule] : changed_) {
    if (!built_in_.contains(name)) rules.push_back(rule);
  }
  return rules;
}

std::optional<AlertRule> Alerts::Rule(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  for (const auto* rules : {&changed_, &built_in_}) {
    const auto it = rules->find(name);
    if (it != rules->end()) return it->second;
  }
  return std::nullopt;
}

std::map<std::string, std::string> Alerts::Problems() const {
  const std::lock_guard lock(mutex_);
  return problems_;
}

absl::Status Alerts::PutRule(AlertRule rule) {
  TAKT_RETURN_IF_ERROR(CheckRule(rule));
  const std::lock_guard lock(mutex_);
  const bool built_in = built_in_.contains(rule.name);
  rule.origin = built_in ? AlertRule::Origin::kChanged : AlertRule::Origin::kOwn;
  if (!built_in && !changed_.contains(rule.name) &&
      static_cast<std::size_t>(
          std::count_if(changed_.begin(), changed_.end(),
                        [&](const auto& each) { return !built_in_.contains(each.first); })) +
              built_in_.size() >=
          kMaxRules) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", kMaxRules, " alert rules; remove one"));
  }
  TAKT_RETURN_IF_ERROR(file_.Put(kRule, rule.name, Encode(rule)));
  const std::string name = rule.name;
  changed_.insert_or_assign(name, std::move(rule));
  return absl::OkStatus();
}

absl::Status Alerts::RemoveRule(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (!changed_.contains(name)) {
    if (!built_in_.contains(name)) {
      return absl::NotFoundError(absl::StrCat("there is no alert rule ", name));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("the alert rule ", name, " is built in: switch it off instead"));
  }
  TAKT_RETURN_IF_ERROR(file_.Remove(kRule, name));
  changed_.erase(name);
  problems_.erase(name);
  return absl::OkStatus();
}

absl::StatusOr<Silence> Alerts::AddSilence(Silence silence) {
  if (silence.until <= clock_.Now()) {
    return absl::InvalidArgumentError("silence: expected an end in the future");
  }
  if (silence.why.size() > kMaxSummaryBytes || silence.rule.size() > kMaxSummaryBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("silence: expected a reason of at most ", kMaxSummaryBytes, " bytes"));
  }
  if (silence.labels.size() > kMaxRuleLabels) {
    return absl::InvalidArgumentError(absl::StrCat("silence: expected at most ", kMaxRuleLabels,
                                                   " labels, got ", silence.labels.size()));
  }
  const std::lock_guard lock(mutex_);
  if (silences_.size() >= kMaxSilences) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", kMaxSilences, " silences at once; remove one"));
  }
  silence.id = RandomId(8);
  TAKT_RETURN_IF_ERROR(file_.Put(kSilence, silence.id, Encode(silence)));
  silences_.push_back(silence);
  return silence;
}

absl::Status Alerts::RemoveSilence(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(silences_.begin(), silences_.end(),
                               [&id](const Silence& silence) { return silence.id == id; });
  if (it == silences_.end()) return absl::NotFoundError(absl::StrCat("there is no silence ", id));
  TAKT_RETURN_IF_ERROR(file_.Remove(kSilence, id));
  silences_.erase(it);
  return absl::OkStatus();
}

std::vector<Silence> Alerts::Silences() const {
  const std::lock_guard lock(mutex_);
  return silences_;
}

}  // namespace takt::operate
