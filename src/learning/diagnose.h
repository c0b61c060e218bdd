// A training run that is going wrong says so. Pure: a snapshot in, findings out.
#pragma once

#include <string>
#include <vector>

#include "learning/curve.h"

namespace takt::learning {

// Defaults that stay quiet on a healthy run.
struct DiagnoseOptions {
  double silent_factor = 10;        // no event for this many usual intervals ...
  double min_silent_seconds = 120;  // ... and at least so long
  std::size_t flat_points = 100;    // the loss did not move over this many points
  double flat_relative_change = 1e-3;
  double idle_cpu_cores = 0.05;   // less than this used ...
  double min_idle_seconds = 300;  // ... for so long
};

// What is known of a run that is under way.
struct RunSnapshot {
  double now = 0, started = 0;   // seconds since the epoch
  std::vector<Point> loss = {};  // the loss on the training data, by rising step
  std::string loss_tag = {};     // its name
  double last_event = 0;         // wall time of the newest event of any tag, 0 = none yet
  double usual_interval = 0;     // median time between events, 0 = unknown
  double idle_cpu_since = 0;     // since when the CPU has been idle, 0 = it is not
};

struct Finding {
  enum class Kind { kNotFinite, kSilent, kFlat, kIdle };
  Kind kind = Kind::kNotFinite;
  bool alert = false;  // true: tell somebody; false: worth showing
  std::string message;
};
const char* FindingName(Finding::Kind kind);  // "not_finite", ...

std::vector<Finding> Diagnose(const RunSnapshot& run, const DiagnoseOptions& options);

// The scalar that is most likely the loss on the training data, out of "writer/tag" names;
// "" when none looks like one.
std::string GuessLoss(const std::vector<std::string>& names);

// Which way a scalar is better, by its name: losses and errors low, accuracies and scores high.
enum class Better { kUnknown, kLower, kHigher };
Better BetterOf(const std::string& tag);

}  // namespace takt::learning
