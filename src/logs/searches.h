// Searches that were kept under a name, for everybody who uses this daemon. Any thread.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/sqlite.h"
#include "base/status.h"

namespace takt::logs {

inline constexpr std::size_t kMaxSavedSearches = 200;
inline constexpr std::size_t kMaxSearchNameBytes = 100;
inline constexpr std::chrono::hours kMaxSearchSpan{24 * 366};

struct SavedSearch {
  std::string name;              // unique; UTF-8 without control characters and slashes
  std::string query;             // as Query::Parse takes it
  std::chrono::seconds span{0};  // how far back to look; 0 = everything that is kept
  std::chrono::system_clock::time_point changed_at;
};

class SavedSearches {
 public:
  // The database at `path`, made when missing. DATA_LOSS when it is damaged.
  static absl::StatusOr<std::unique_ptr<SavedSearches>> Open(const std::string& path,
                                                             const Clock& clock);
  // By name.
  absl::StatusOr<std::vector<SavedSearch>> List();
  // Keeps it, in place of the one with its name; changed_at becomes now. On the disk when this
  // returns. INVALID_ARGUMENT for a name, query or span that is none, RESOURCE_EXHAUSTED beyond
  // kMaxSavedSearches.
  absl::StatusOr<SavedSearch> Put(SavedSearch search);
  absl::Status Remove(const std::string& name);  // NOT_FOUND

 private:
  explicit SavedSearches(const Clock& clock) : clock_(clock) {}

  const Clock& clock_;
  std::mutex mutex_;
  std::unique_ptr<Sqlite> db_;  // guarded by mutex_
};

}  // namespace takt::logs
