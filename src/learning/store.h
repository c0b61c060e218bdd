// Training events, kept: event files are read as they grow, their values go into one SQLite file,
// and curves come out of it. Not a judge of what is seen (see diagnose.h), and it knows no runs:
// whoever asks gives the time window in which a run wrote.
//
// Threads: every function may be called from any thread. Scan takes the lock for one block of a
// file at a time, so that a query waits for milliseconds at most.
//
// kill -9 safe: the values of a block and how far the file was read are one transaction.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/sqlite.h"
#include "base/status.h"
#include "learning/curve.h"
#include "learning/events.h"

namespace takt::learning {

inline constexpr std::uint64_t kMaxEventRecordBytes = 64 << 20;  // larger ones are skipped, counted
inline constexpr std::size_t kMaxSeriesPerSource = 10'000;       // further tags are counted
inline constexpr std::size_t kMaxItemsPerSeries = 200;  // histograms, images, texts: newest kept
inline constexpr std::size_t kMaxItemBytes = 8 << 20;   // larger ones are skipped, counted
inline constexpr std::size_t kMaxScanEntries = 20'000;  // directory entries looked at in one scan
inline constexpr int kMaxScanDepth = 8;

// Where one service writes events.
struct Source {
  std::string app, service;
  std::string directory;  // on this machine
};

struct ScanReport {
  std::size_t files = 0;       // event files there
  std::size_t new_values = 0;  // read in this scan
  // What was wrong, a sentence each, once per file and size: "train/events...: damaged at byte 77".
  std::vector<std::string> problems;
};

// A span of wall time, seconds since the epoch. A file belongs to it by its first event.
struct Window {
  double from = 0;
  double to = std::numeric_limits<double>::infinity();
};

struct SeriesInfo {
  std::string service;
  std::string
      writer;  // directory below the source: "train", "validation", "" for the source itself
  std::string tag;
  Kind kind = Kind::kScalar;
  std::int64_t count = 0;
  std::int64_t last_step = 0;
  double last_wall_time = 0, last_value = 0;  // last_value: scalars only
  double min = 0, max = 0;                    // of finite values, NaN where there is none
};

struct Item {
  std::int64_t step = 0;
  double wall_time = 0;
  Kind kind = Kind::kHistogram;
  std::size_t bytes = 0;  // of the data
  std::string data;       // histogram: buckets as 3 doubles each; image: encoded; text: UTF-8
};

// Which items are wanted.
struct ItemOptions {
  std::optional<std::int64_t> step = {};   // of this step only
  std::size_t limit = kMaxItemsPerSeries;  // the newest
  std::size_t max_bytes = kMaxItemBytes;   // of all their data; the newest that fit, one at least
  bool data = true;                        // false: without their data
};

struct Statistics {
  std::int64_t corrupt_records = 0, skipped_values = 0;
  std::map<std::string, std::int64_t> unknown_plugins;
  double last_wall_time = 0;  // of the newest event, 0 = none
};

class LearningStore {
 public:
  // Opens or makes `path`. DATA_LOSS when it is damaged.
  static absl::StatusOr<std::unique_ptr<LearningStore>> Open(const std::string& path);
  ~LearningStore();

  // Reads whatever is new below the source's directory. NOT_FOUND when the directory is not there.
  absl::StatusOr<ScanReport> Scan(const Source& source);

  absl::StatusOr<std::vector<SeriesInfo>> List(const std::string& app, const Window& window);
  // The whole curve, restarts joined (see JoinSegments). Empty when there is no such series.
  absl::StatusOr<std::vector<Point>> Curve(const std::string& app, const std::string& service,
                                           const std::string& writer, const std::string& tag,
                                           const Window& window);
  // Histograms, images or texts of one tag, by rising step; of a step that was written again after
  // a restart, what was written last.
  absl::StatusOr<std::vector<Item>> Items(const std::string& app, const std::string& service,
                                          const std::string& writer, const std::string& tag,
                                          const Window& window, const ItemOptions& options = {});
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Hyperparameters(
      const std::string& app, const Window& window);
  absl::StatusOr<Statistics> Stats(const std::string& app, const Window& window);
  // Forgets everything of an app.
  absl::Status RemoveApp(const std::string& app);

 private:
  struct File;
  class BlockWriter;
  LearningStore();
  absl::StatusOr<File*> FindFile(const Source& source, const std::string& name, std::uint64_t inode,
                                 std::uint64_t size);
  absl::Status ReadFile(const Source& source, File& file, std::uint64_t size, ScanReport& report);

  std::mutex mutex_;
  std::unique_ptr<Sqlite> db_;
  std::map<std::string, std::unique_ptr<File>> files_;  // by "app/service/name"
};

}  // namespace takt::learning
