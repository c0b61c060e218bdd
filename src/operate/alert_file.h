// What alerting remembers over a restart and a kill -9: rules that were made or changed, silences,
// receivers with their passwords, which alerts fire, and messages that are not delivered yet. Small
// JSON texts in one SQLite file (alerts.db), which only its owner may read. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/sqlite.h"
#include "base/status.h"

namespace takt::operate {

class AlertFile {
 public:
  // Creates it when there is none. DATA_LOSS when it is damaged.
  static absl::StatusOr<std::unique_ptr<AlertFile>> Open(const std::string& path);

  // One text for each kind ("rule", "silence", "receiver", "firing") and key. On the disk when they
  // return.
  absl::Status Put(std::string_view kind, std::string_view key, std::string_view text);
  absl::Status Remove(std::string_view kind, std::string_view key);  // OK when there is none
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> All(std::string_view kind);

  // Messages that wait for their receiver, oldest first.
  struct Letter {
    std::int64_t id = 0;
    std::string body;
  };
  absl::StatusOr<std::int64_t> AddLetter(std::string_view receiver, std::string_view body);
  absl::Status RemoveLetter(std::int64_t id);
  absl::Status RemoveLetters(std::string_view receiver);
  absl::StatusOr<std::vector<Letter>> Letters(std::string_view receiver);

 private:
  explicit AlertFile(std::unique_ptr<Sqlite> db) : db_(std::move(db)) {}
  std::mutex mutex_;
  std::unique_ptr<Sqlite> db_;  // under mutex_
};

}  // namespace takt::operate
