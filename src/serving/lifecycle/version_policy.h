// Which versions of a model should be served: pure functions over what the storage shows and what
// the server holds. No files, no threads, no clock.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace takt::serving {

struct VersionPolicy {
  enum class Kind {
    kLatest,    // the `num_versions` highest
    kAll,       // every version
    kSpecific,  // those in `specific`
  };
  Kind kind = Kind::kLatest;
  int num_versions = 1;
  std::vector<std::int64_t> specific;
  bool operator==(const VersionPolicy&) const = default;
};

// The version that a directory name stands for: "00000123" is 123. Nothing for a name with
// anything but decimal digits, or beyond int64: ".123", "123.tmp", "tmp-123", "-1".
std::optional<std::int64_t> ParseVersion(std::string_view directory_name);

// The versions that the policy picks out of `candidates`, highest first, each once.
std::vector<std::int64_t> PickVersions(const VersionPolicy& policy,
                                       const std::vector<std::int64_t>& candidates);

// Life of one version, by TensorFlow Serving's names and numbers:
//   kStart   -> kLoading                         its files are complete and it is wanted
//   kLoading -> kAvailable | kEnd                loaded and warm | failed, with the error
//   kEnd     -> kLoading                         after a failure: retry is due or files changed
//   kAvailable -> kUnloading -> kEnd             not wanted any more; the last request has ended
enum class VersionState { kStart = 10, kLoading = 20, kAvailable = 30, kUnloading = 40, kEnd = 50 };

// What the planner knows of one version.
struct VersionView {
  VersionState state = VersionState::kStart;
  bool complete = false;  // its files are whole and have stopped changing
  bool failed = false;    // the last load failed
  bool due = false;       // failed, and worth another try: time has come or files have changed
  bool present = true;    // in the last listing that showed any version
  bool operator==(const VersionView&) const = default;
};

struct VersionPlan {
  std::vector<std::int64_t> load;    // highest first
  std::vector<std::int64_t> unload;  // highest first
  bool operator==(const VersionPlan&) const = default;
};

// What to do next for one model. Stateless and idempotent: an action that is under way shows in
// `versions` as kLoading or kUnloading and is not repeated.
// - Wanted are the policy's picks among versions that serve, load, or could be loaded: a
// half-copied
//   or broken new version never takes the place of a whole old one.
// - A version whose directory was removed beside others is not wanted: that is how one rolls back.
// - A version that is not wanted goes only once a wanted one serves.
// - `removed`: the model was taken out of the configuration, so everything goes.
VersionPlan PlanVersions(const VersionPolicy& policy,
                         const std::map<std::int64_t, VersionView>& versions, bool removed);

}  // namespace takt::serving
