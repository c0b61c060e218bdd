// Looks at runs that are under way and says what is wrong with them (learning/diagnose.h judges,
// this gathers). Threads: one at a time.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "learning/diagnose.h"
#include "learning/store.h"
#include "operate/runs.h"

namespace takt::operate {

inline constexpr std::size_t kMaxDiagnosedPoints = 10'000;  // of the loss: the newest

class Doctor {
 public:
  // `now` in seconds since the epoch, never going back. A training that writes no events is not
  // silent: unless `expects_events`, silence counts from the first event only.
  absl::StatusOr<std::vector<learning::Finding>> Examine(const Run& run, bool expects_events,
                                                         learning::LearningStore& store,
                                                         double now);
  // Forgets all but these.
  void Keep(const std::vector<Run>& runs);

 private:
  struct Chart {
    double looked = 0, cpu_seconds = 0;  // when last, and what it had used then
    double idle_since = 0;               // 0 = it is not
    double last_event = 0;
    std::string loss_tag;
    std::vector<learning::Point> loss;
    double usual_interval = 0;
  };
  std::map<std::pair<std::string, int>, Chart> charts_;
};

}  // namespace takt::operate
