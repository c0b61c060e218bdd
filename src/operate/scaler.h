// How many instances a service with auto scaling labels is to have. Deciding is apart from doing:
// Decide is a pure function of three averages; Scaler asks the store for them and calls the line.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "line/line.h"
#include "metrics/store.h"

namespace takt::operate {

inline constexpr std::size_t kScaleAverages = 3;
inline constexpr std::chrono::seconds kScaleWindow{60};     // of one average
inline constexpr std::chrono::seconds kScaleInterval{15};   // between two looks
inline constexpr std::chrono::seconds kScaleCoolDown{300};  // after a step, before one down
// A step up needs three averages from after the last step, which is a cool-down of its own.

// Averages over the live instances, in per cent of what one may use, oldest first; nullopt:
// unknown.
using Averages = std::vector<std::optional<double>>;

struct ScaleDecision {
  int instances = 0;
  std::string why;  // "CPU averaged 90 %, 91 % and 92 %, above 70 %"; empty where nothing changes
};
// Up by a step where CPU or memory was above its limit in every average; down by a step where all
// that have a lower limit were below it in every average and `may_shrink`; within the limits. With
// fewer than kScaleAverages, or one of them unknown, that quantity decides nothing, and nothing
// shrinks that is not known.
ScaleDecision Decide(const templates::AutoScaling& rule, int instances, const Averages& cpu,
                     const Averages& memory, bool may_shrink);

// One thread.
class Scaler {
 public:
  using Scale = std::function<absl::Status(const std::string& app, const std::string& service,
                                           int instances, const std::string& why)>;
  // What an instance without limits may use.
  struct Machine {
    double cores = 1;
    double memory_bytes = 0;  // 0 = unknown
  };
  Scaler(metrics::MetricStore& store, const Clock& clock, Scale scale)
      : store_(store), clock_(clock), scale_(std::move(scale)) {}

  // Looks at every service of `apps` that scales, and takes the steps that are due. A service of
  // which not all instances run is left alone. A daemon that has just started waits as after a
  // step: what it has not measured is unknown.
  void Step(const std::vector<line::App>& apps, const Machine& machine);

 private:
  Averages Ask(const std::string& metric, metrics::Function function, const std::string& app,
               const std::string& service, double whole,
               std::chrono::system_clock::time_point not_before) const;

  metrics::MetricStore& store_;
  const Clock& clock_;
  const Scale scale_;
  struct Seen {
    int instances = 0;
    std::chrono::system_clock::time_point changed;  // when that was first seen
    std::chrono::steady_clock::time_point changed_steady;
    bool stepped = false;  // by us: a step down waits
  };
  std::map<std::pair<std::string, std::string>, Seen> seen_;  // (app, service)
};

}  // namespace takt::operate
