#include "learning/diagnose.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "base/str.h"

namespace takt::learning {
namespace {

std::string Duration(double seconds) {
  if (seconds < 120) return absl::StrFormat("%.0f s", seconds);
  if (seconds < 7200) return absl::StrFormat("%.0f min", seconds / 60);
  return absl::StrFormat("%.1f h", seconds / 3600);
}

}  // namespace

const char* FindingName(Finding::Kind kind) {
  switch (kind) {
    case Finding::Kind::kNotFinite:
      return "not_finite";
    case Finding::Kind::kSilent:
      return "silent";
    case Finding::Kind::kFlat:
      return "flat";
    case Finding::Kind::kIdle:
      return "idle";
  }
  return "unknown";
}

std::vector<Finding> Diagnose(const RunSnapshot& run, const DiagnoseOptions& options) {
  std::vector<Finding> findings;
  if (!run.loss.empty() && !std::isfinite(run.loss.back().value)) {
    auto first = std::find_if(run.loss.rbegin(), run.loss.rend(),
                              [](const Point& p) { return std::isfinite(p.value); });
    const Point& since = first == run.loss.rbegin() ? run.loss.front() : *std::prev(first);
    findings.push_back({Finding::Kind::kNotFinite, true,
                        absl::StrFormat("%s is %s since step %d", run.loss_tag,
                                        std::isnan(since.value) ? "NaN" : "infinite", since.step)});
  }
  const double last = std::max(run.last_event, run.started);
  const double silent = run.now - last;
  if (silent >= std::max(options.min_silent_seconds, options.silent_factor * run.usual_interval)) {
    findings.push_back(
        {Finding::Kind::kSilent, true,
         run.last_event == 0
             ? absl::StrFormat("no training event since the start %s ago", Duration(silent))
             : absl::StrFormat("no training event for %s%s", Duration(silent),
                               run.usual_interval > 0
                                   ? StrCat(" (usual: every ", Duration(run.usual_interval), ")")
                                   : "")});
  }
  if (run.loss.size() >= options.flat_points) {
    double least = HUGE_VAL, greatest = -HUGE_VAL;
    for (auto it = run.loss.end() - static_cast<std::ptrdiff_t>(options.flat_points);
         it != run.loss.end(); ++it) {
      least = std::min(least, it->value);
      greatest = std::max(greatest, it->value);
    }
    if (std::isfinite(least) && std::isfinite(greatest) &&
        greatest - least <= options.flat_relative_change * std::abs(greatest)) {
      findings.push_back(
          {Finding::Kind::kFlat, false,
           absl::StrFormat("%s has stayed at %.4g over the last %d points", run.loss_tag,
                           run.loss.back().value, options.flat_points)});
    }
  }
  if (run.idle_cpu_since > 0 && run.now - run.idle_cpu_since >= options.min_idle_seconds) {
    findings.push_back({Finding::Kind::kIdle, true,
                        absl::StrFormat("the CPU has been idle for %s while training",
                                        Duration(run.now - run.idle_cpu_since))});
  }
  return findings;
}

std::string GuessLoss(const std::vector<std::string>& names) {
  const std::string* best = nullptr;
  int best_score = 0;
  for (const std::string& name : names) {
    const std::string lower = absl::AsciiStrToLower(name);
    int score = 0;
    if (absl::StrContains(lower, "loss") || absl::StrContains(lower, "cross_entropy") ||
        absl::StrContains(lower, "cost")) {
      score = 4;
      if (lower.ends_with("loss")) ++score;
      if (absl::StrContains(lower, "train")) ++score;
      if (absl::StrContains(lower, "val") || absl::StrContains(lower, "eval") ||
          absl::StrContains(lower, "test")) {
        score -= 2;
      }
    }
    if (score > best_score) {
      best = &name;
      best_score = score;
    }
  }
  return best == nullptr ? "" : *best;
}

Better BetterOf(const std::string& tag) {
  const std::string lower = absl::AsciiStrToLower(tag) + "/";
  const auto has = [&](std::initializer_list<const char*> words) {
    return std::any_of(words.begin(), words.end(),
                       [&](const char* word) { return absl::StrContains(lower, word); });
  };
  if (has({"loss", "error", "cost", "entropy", "perplexity", "divergence"})) return Better::kLower;
  if (has({"accuracy", "precision", "recall", "score", "reward"})) return Better::kHigher;
  // The short ones only as whole words: "acc" is in "accumulated".
  std::string word;
  for (const char c : lower) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c))) {
      word += c;
      continue;
    }
    for (const char* each : {"mae", "mse", "rmse", "wer", "cer", "ppl", "nll"}) {
      if (word == each) return Better::kLower;
    }
    for (const char* each : {"acc", "auc", "f1", "bleu", "iou", "map", "psnr", "ssim"}) {
      if (word == each) return Better::kHigher;
    }
    word.clear();
  }
  return Better::kUnknown;
}

}  // namespace takt::learning
