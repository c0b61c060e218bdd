// What the line keeps: apps, revisions, events, and how far each service was handed over; one
// SQLite file, <data_dir>/takt.db. One thread at a time. Every change is one transaction: after an
// error nothing of it is there. RESOURCE_EXHAUSTED when the disk (or the file's limit) is full.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/sqlite.h"
#include "line/plan.h"

namespace takt::line {

class Store {
 public:
  // FAILED_PRECONDITION when a newer version wrote it, DATA_LOSS when it is corrupt: the message
  // says which backup can be restored and how. The files are then left as they are.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& data_dir,
                                                     std::uint64_t max_bytes);

  struct AppRow {
    std::string name, created_at, updated_at;
    Revision revision;  // the current one
    bool stopped = false, removing = false;
    std::map<std::string, Handed> handed;  // by service
  };
  absl::StatusOr<std::vector<AppRow>> Apps();
  // Newest first. Empty for an unknown app.
  absl::StatusOr<std::vector<Revision>> Revisions(const std::string& app);
  // NOT_FOUND.
  absl::StatusOr<Revision> GetRevision(const std::string& app, int number);

  // These are on the disk when they return.
  absl::Status AddApp(const std::string& name, const Revision& revision, const Event& event);
  // Drops the oldest beyond kMaxRevisionsPerApp.
  absl::Status AddRevision(const std::string& app, const Revision& revision, const Event& event);
  // `rerun`: services that shall run again though they have ended (Phase::kStopFirst).
  absl::Status SetStopped(const std::string& app, bool stopped,
                          const std::vector<std::string>& rerun, const Event& event);
  absl::Status SetRemoving(const std::string& app, const Event& event);
  absl::Status DeleteApp(const std::string& app, const Event& event);

  // These outlive the daemon's death, but not necessarily the machine's.
  absl::Status PutHanded(const std::string& app, const std::string& service, const Handed& handed);
  absl::Status DeleteHanded(const std::string& app, const std::string& service);
  absl::Status AddEvent(const Event& event);
  // The last state of each instance that an event was made of.
  absl::StatusOr<std::map<std::string, std::string>> Seen();
  absl::Status PutSeen(const std::string& instance, const std::string& state, const Event& event);
  absl::Status DeleteSeen(const std::string& instance);

  absl::StatusOr<std::vector<Event>> Events(const std::string& app, std::int64_t after_id,
                                            std::size_t limit);

  // A whole copy as <data_dir>/takt.db.backup; older ones move on to .1 and .2. Through a
  // connection of its own: may run beside everything else.
  static absl::Status Backup(const std::string& data_dir);
  bool HasBackup() const;

 private:
  explicit Store(std::string path) : path_(std::move(path)) {}
  absl::Status Migrate();
  absl::Status InsertRevision(const std::string& app, const Revision& revision);
  absl::Status InsertEvent(const Event& event);
  template <typename Body>
  absl::Status Transact(bool durable, Body body);

  const std::string path_;
  std::unique_ptr<Sqlite> db_;
};

}  // namespace takt::line
