// Rules over samples: what holds for long enough is an alert. Deciding is apart from doing:
// EvaluateRule is a pure function of a snapshot; Alerts asks the store, remembers, and tells.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "metrics/store.h"

namespace takt::operate {

inline constexpr std::size_t kMaxRules = 200;
inline constexpr std::size_t kMaxSilences = 200;
inline constexpr std::size_t kMaxActiveAlerts = 1000;  // further ones of a rule are not opened

enum class Severity { kInfo, kWarning, kCritical };
const char* SeverityName(Severity severity);
std::optional<Severity> SeverityFromName(std::string_view name);

struct AlertRule {
  std::string name;  // unique; letters, digits, '_' and '-'
  // What is asked of the newest `window` of samples, one value for each series or group.
  std::string metric;
  std::vector<metrics::Matcher> matchers;
  metrics::Function function = metrics::Function::kAvg;
  metrics::Aggregation aggregation = metrics::Aggregation::kNone;
  std::vector<std::string> by;
  std::chrono::seconds window{60};
  // Divided by the same question of this metric, where it is not empty: a share.
  std::string divide_by;
  std::vector<metrics::Matcher> divide_matchers;
  bool above = true;  // fires above the threshold, else below it
  double threshold = 0;
  std::chrono::seconds for_at_least{60};
  Severity severity = Severity::kWarning;
  std::string summary;  // for people; {value} and {LABEL} are replaced
  bool enabled = true;
};

// One alert of one rule for one set of labels.
//   (none) -> pending -> firing -> resolved (told once, then forgotten); pending -> (none)
struct Alert {
  std::string rule;
  metrics::Labels labels;
  Severity severity = Severity::kWarning;
  bool firing = false;
  std::chrono::system_clock::time_point since{};  // when the condition began to hold
  std::chrono::system_clock::time_point resolved{};
  double value = 0;
  std::string summary;
  bool silenced = false;
};

struct Reading {
  metrics::Labels labels;
  double value = 0;  // NaN: unknown, which neither opens nor closes an alert
};
struct Evaluation {
  std::vector<Alert> active;    // pending and firing
  std::vector<Alert> fired;     // newly firing
  std::vector<Alert> resolved;  // were firing
};
Evaluation EvaluateRule(const AlertRule& rule, const std::vector<Reading>& readings,
                        const std::vector<Alert>& before,
                        std::chrono::system_clock::time_point now);

struct Silence {
  std::string id;
  std::string rule;        // "" = all
  metrics::Labels labels;  // all of these must be equal
  std::chrono::system_clock::time_point until{};
  std::string why;
};
bool IsSilenced(const Alert& alert, const std::vector<Silence>& silences,
                std::chrono::system_clock::time_point now);

// The set that a machine has from the start: quiet where all is well.
std::vector<AlertRule> DefaultRules();

// Bodies of webhooks. Alertmanager's (version "4", prometheus.io/docs/alerting) and the text
// message of DingTalk's robots.
std::string AlertmanagerBody(const std::vector<Alert>& alerts);
std::string DingTalkBody(const std::vector<Alert>& alerts);

// Evaluates the rules, keeps the state. Thread-safe.
class Alerts {
 public:
  // What fired and what was resolved, silenced ones left out. Called from Evaluate's thread.
  using Tell =
      std::function<void(const std::vector<Alert>& fired, const std::vector<Alert>& resolved)>;
  Alerts(metrics::MetricStore& store, const Clock& clock, Tell tell)
      : store_(store), clock_(clock), tell_(std::move(tell)), rules_(DefaultRules()) {}

  void Evaluate();
  std::vector<Alert> Active() const;
  std::vector<AlertRule> Rules() const;
  // RESOURCE_EXHAUSTED at the limit.
  absl::StatusOr<Silence> AddSilence(Silence silence);
  absl::Status RemoveSilence(const std::string& id);  // NOT_FOUND
  std::vector<Silence> Silences() const;
  // NOT_FOUND.
  absl::Status SetEnabled(const std::string& rule, bool enabled);

 private:
  absl::StatusOr<std::vector<Reading>> Ask(const AlertRule& rule) const;

  metrics::MetricStore& store_;
  const Clock& clock_;
  const Tell tell_;
  mutable std::mutex mutex_;
  std::vector<AlertRule> rules_;                      // under mutex_, as all below
  std::map<std::string, std::vector<Alert>> active_;  // by rule
  std::vector<Silence> silences_;
};

}  // namespace takt::operate
