// Rules over samples: what holds for long enough is an alert. Deciding is apart from doing:
// EvaluateRule is a pure function of a snapshot; Alerts asks the store, remembers, and tells.
// Who is told, and how, is receivers.h.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "metrics/store.h"
#include "operate/alert_file.h"

namespace takt::operate {

inline constexpr std::size_t kMaxRules = 200;
inline constexpr std::size_t kMaxSilences = 200;
inline constexpr std::size_t kMaxRuleLabels = 20;     // in `by`, or compared
inline constexpr std::size_t kMaxSummaryBytes = 500;  // of a rule, a silence's reason
inline constexpr std::chrono::seconds kMinRuleWindow{5};
inline constexpr std::chrono::seconds kMaxRuleWindow{86'400};
inline constexpr std::chrono::seconds kMaxRuleFor{86'400 * 7};
// After a start, what is not measured yet is unknown and not over.
inline constexpr std::chrono::seconds kStartGrace{60};
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
  // For people; {value}, {percent} and {LABEL} are replaced. The Chinese may be empty: then the
  // first one stands for both.
  std::string summary, summary_zh;
  bool enabled = true;
  // kBuiltIn: as it came; kChanged: a built-in one that was edited; kOwn: made by somebody.
  enum class Origin { kBuiltIn, kChanged, kOwn };
  Origin origin = Origin::kOwn;

  bool Holds(double value) const { return above ? value > threshold : value < threshold; }
};
// INVALID_ARGUMENT naming the field, what was expected, and what came.
absl::Status CheckRule(const AlertRule& rule);

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
  std::string summary, summary_zh;
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

// Evaluates the rules, keeps the state: rules, silences and what fires are in `file` before a call
// returns. Thread-safe.
class Alerts {
 public:
  // What fired and what was resolved, silenced ones left out. Called from Evaluate's thread. A
  // daemon killed between telling and remembering tells once more.
  using Tell =
      std::function<void(const std::vector<Alert>& fired, const std::vector<Alert>& resolved)>;
  // Reads what `file` remembers; what it cannot read of it is left out, with a warning.
  static absl::StatusOr<std::unique_ptr<Alerts>> Open(AlertFile& file, metrics::MetricStore& store,
                                                      const Clock& clock, Tell tell);

  void Evaluate();
  std::vector<Alert> Active() const;

  std::vector<AlertRule> Rules() const;  // built-in ones first, each kind by name
  std::optional<AlertRule> Rule(const std::string& name) const;
  // Why a rule could not be evaluated the last time, by name: "touches more than 2000 series".
  std::map<std::string, std::string> Problems() const;
  // Makes or replaces the rule of that name (`origin` is not read). Alerts of it go on.
  // INVALID_ARGUMENT, RESOURCE_EXHAUSTED at the limit.
  absl::Status PutRule(AlertRule rule);
  // Removes an own rule, or takes a changed one back to how it came. NOT_FOUND,
  // FAILED_PRECONDITION for a built-in one, which can only be switched off.
  absl::Status RemoveRule(const std::string& name);
  // What the rule reads now, without any effect.
  absl::StatusOr<std::vector<Reading>> Try(const AlertRule& rule) const;

  // RESOURCE_EXHAUSTED at the limit, INVALID_ARGUMENT.
  absl::StatusOr<Silence> AddSilence(Silence silence);
  absl::Status RemoveSilence(const std::string& id);  // NOT_FOUND
  std::vector<Silence> Silences() const;

 private:
  Alerts(AlertFile& file, metrics::MetricStore& store, const Clock& clock, Tell tell)
      : file_(file),
        store_(store),
        clock_(clock),
        tell_(std::move(tell)),
        started_(clock.Steady()) {}
  absl::Status Load();
  absl::StatusOr<std::vector<Reading>> Ask(const AlertRule& rule) const;
  void Remember(const std::string& rule, const std::vector<Alert>& active);

  AlertFile& file_;
  metrics::MetricStore& store_;
  const Clock& clock_;
  const Tell tell_;
  const std::chrono::steady_clock::time_point started_;
  mutable std::mutex mutex_;
  std::map<std::string, AlertRule> built_in_, changed_;  // under mutex_, as all below
  std::map<std::string, std::vector<Alert>> active_;     // by rule
  std::map<std::string, std::string> problems_;
  std::vector<Silence> silences_;
};

}  // namespace takt::operate
