// Runs: each execution of a training service from start to exit, over restarts, with what it was
// given and what it made. Recorded by looking at instances; it starts and stops nothing.
//
// Kept in a file of operate's own (runs.db), not in the line's database: a run is something seen,
// not something desired, so the line decides the same with or without it, and a damaged file of
// either harms nothing of the other. It survives kill -9; a power cut may cost the last seconds,
// which are seen again.
//
// Threads: every function may be called from any thread.
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

#include "base/sqlite.h"
#include "base/status.h"
#include "learning/diagnose.h"
#include "learning/store.h"
#include "line/line.h"
#include "operate/models.h"
#include "storage/volumes.h"

namespace takt::operate {

inline constexpr std::size_t kMaxRunsPerApp = 1000;  // beyond: the oldest that ended goes
inline constexpr std::size_t kMaxRuns = 10'000;      // of all apps; likewise
inline constexpr std::size_t kMaxRunNoteBytes = 4096;
inline constexpr std::size_t kMaxRunTags = 20;
inline constexpr std::size_t kMaxRunTagBytes = 64;

//   kRunning -> kCompleted   every instance ended with exit code 0
//   kRunning -> kFailed      one ended otherwise, and is not started again
//   kRunning -> kStopped     a person stopped, changed or removed it before its end
enum class RunState { kRunning, kCompleted, kFailed, kStopped };
const char* RunStateName(RunState state);  // "running", ...

struct Run {
  std::string app;
  int number = 0;  // of the app, from 1; never given twice, though an app of the name is made anew
  std::string service;
  int revision = 0;                           // of the app
  std::map<std::string, std::string> values;  // its parameters, the template's defaults included
  std::string why, author;
  double started = 0;           // seconds since the epoch
  std::optional<double> ended;  // likewise
  RunState state = RunState::kRunning;
  std::string reason;            // why it failed or was stopped
  std::optional<int> exit_code;  // of the instance that decided
  std::optional<int> signal;
  int restarts = 0;
  double cpu_seconds = 0;  // of all its instances
  int gpus = 0;            // that each instance was given; -1 = all
  std::string node;
  std::optional<Model> model;               // where it exports to
  std::vector<Version> versions;            // what it exported there, by rising number
  std::vector<learning::Finding> findings;  // what is wrong with it now; none once it has ended
  std::string note;
  std::vector<std::string> tags;  // in order, no two equal

  // When its training events were written.
  learning::Window window() const;
};

class Runs {
 public:
  // DATA_LOSS when the file is damaged, FAILED_PRECONDITION when a newer version wrote it.
  static absl::StatusOr<std::unique_ptr<Runs>> Open(const std::string& path,
                                                    std::size_t max_runs = kMaxRuns);

  // Records what `app` shows at `now`: runs that began, went on, ended, and what they exported.
  absl::Status Observe(const line::App& app, storage::VolumeStore& volumes,
                       std::chrono::system_clock::time_point now);
  // The app is gone: what of it ran was stopped. Its runs stay, for the models they made.
  absl::Status Removed(const std::string& app, std::chrono::system_clock::time_point now);

  // Newest first; app "" = all.
  absl::StatusOr<std::vector<Run>> List(const std::string& app, std::size_t limit);
  absl::StatusOr<std::vector<Run>> Running();                   // of all apps
  absl::StatusOr<Run> Get(const std::string& app, int number);  // NOT_FOUND
  // Runs that exported versions to `directory`, newest first.
  absl::StatusOr<std::vector<Run>> MakersOf(const std::string& directory);
  // Directories that some run exported to, with the newest run's names for them.
  absl::StatusOr<std::vector<Model>> Models();

  // What is not given stays. NOT_FOUND; INVALID_ARGUMENT for an empty tag; RESOURCE_EXHAUSTED
  // beyond the limits above.
  absl::StatusOr<Run> Annotate(const std::string& app, int number,
                               const std::optional<std::string>& note,
                               const std::optional<std::vector<std::string>>& tags);
  // Replaces the findings; answers those whose kind was not there before.
  absl::StatusOr<std::vector<learning::Finding>> SetFindings(
      const std::string& app, int number, const std::vector<learning::Finding>& findings);

 private:
  struct Known;
  explicit Runs(std::size_t max_runs) : max_runs_(max_runs) {}
  absl::Status ObserveService(const line::App& app, const line::ServiceView& service,
                              storage::VolumeStore& volumes, double now);
  absl::StatusOr<Known> Newest(const std::string& app, const std::string& service);
  absl::StatusOr<Known> Begin(const line::App& app, const line::ServiceView& service,
                              const runtime::InstanceStatus& first, int previous_revision,
                              storage::VolumeStore& volumes);
  absl::Status Finish(const Known& run, RunState state, double ended, const std::string& reason,
                      std::optional<int> exit_code, std::optional<int> signal);
  absl::Status FindVersions(std::int64_t id);
  absl::Status Prune(const std::string& app);
  absl::StatusOr<std::vector<Run>> Select(std::string_view where,
                                          std::initializer_list<SqlValue> values);
  absl::StatusOr<std::int64_t> IdOf(const std::string& app, int number);

  const std::size_t max_runs_;
  std::mutex mutex_;
  std::unique_ptr<Sqlite> db_;
};

}  // namespace takt::operate
