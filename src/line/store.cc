#include "line/store.h"

#include <sys/stat.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/fs.h"

namespace takt::line {
namespace {

using nlohmann::json;

// Each brings the file one version on. Never change one that was released; add another.
constexpr const char* kMigrations[] = {
    R"(CREATE TABLE apps (
         name TEXT PRIMARY KEY, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
         revision INTEGER NOT NULL, stopped INTEGER NOT NULL, removing INTEGER NOT NULL);
       CREATE TABLE revisions (
         app TEXT NOT NULL REFERENCES apps(name) ON DELETE CASCADE, number INTEGER NOT NULL,
         template_name TEXT NOT NULL, template_text TEXT NOT NULL, parameter_values TEXT NOT NULL,
         volume_options TEXT NOT NULL, image_digests TEXT NOT NULL, created_at TEXT NOT NULL,
         author TEXT NOT NULL, why TEXT NOT NULL, rollback_of INTEGER NOT NULL,
         PRIMARY KEY (app, number));
       CREATE TABLE handed (
         app TEXT NOT NULL REFERENCES apps(name) ON DELETE CASCADE, service TEXT NOT NULL,
         identity TEXT NOT NULL, settings TEXT NOT NULL, replicas INTEGER NOT NULL, revision INTEGER NOT NULL,
         phase INTEGER NOT NULL, before TEXT NOT NULL, PRIMARY KEY (app, service));
       CREATE TABLE events (
         id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, app TEXT NOT NULL,
         kind TEXT NOT NULL, message TEXT NOT NULL, level TEXT NOT NULL);
       CREATE INDEX events_by_app ON events(app, id);
       CREATE TABLE seen (instance TEXT PRIMARY KEY, state TEXT NOT NULL);)",
    // What the runtime may have: a JSON list of [identity, revision].
    R"(ALTER TABLE handed ADD COLUMN tried TEXT NOT NULL DEFAULT '[]';
       UPDATE handed SET tried = json_array(json_array(identity, revision));)",
};
constexpr int kVersion = static_cast<int>(std::size(kMigrations));

std::string Dump(const json& j) { return j.dump(-1, ' ', false, json::error_handler_t::replace); }

std::map<std::string, std::string> ToMap(std::string_view text) {
  std::map<std::string, std::string> map;
  json j = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!j.is_object()) return map;
  for (const auto& [key, value] : j.items()) {
    if (value.is_string()) map[key] = value.get<std::string>();
  }
  return map;
}

constexpr std::string_view kRevisionColumns =
    "number, template_name, template_text, parameter_values, volume_options, image_digests, "
    "created_at, author, why, rollback_of";

Revision ToRevision(const SqlRows& rows) {
  Revision revision;
  revision.number = static_cast<int>(rows.Int(0));
  revision.configuration.template_name = rows.Text(1);
  revision.configuration.template_text = rows.Text(2);
  revision.configuration.values = ToMap(rows.Text(3));
  for (const auto& [volume, subdirectory] : ToMap(rows.Text(4))) {
    revision.configuration.volume_options[volume].subdirectory = subdirectory;
  }
  revision.image_digests = ToMap(rows.Text(5));
  revision.created_at = rows.Text(6);
  revision.author = rows.Text(7);
  revision.why = rows.Text(8);
  revision.rollback_of = static_cast<int>(rows.Int(9));
  return revision;
}

std::string BackupPath(const std::string& path, int age) {
  return age == 0 ? path + ".backup" : StrCat(path, ".backup.", age);
}

// The newest backup that is whole, with how to put it in place; or that there is none.
std::string HowToRestore(const std::string& path) {
  for (int age = 0; age < kMaxBackups; ++age) {
    std::string backup = BackupPath(path, age);
    if (!Exists(backup)) continue;
    auto db = Sqlite::Open(backup, {.read_only = true});
    if (!db.ok() || !(*db)->Check().ok()) continue;
    auto rows = (*db)->Query(
        "SELECT count(*), max((SELECT max(updated_at) FROM apps), (SELECT max(time) FROM events)) "
        "FROM apps");
    if (!rows.ok() || !rows->Next().value_or(false)) continue;
    return StrCat("The last backup is ", backup, " (", rows->Int(0), " apps, last change ",
                  rows->IsNull(1) ? "unknown" : std::string(rows->Text(1)), "). To restore it: mv ",
                  path, " ", path, ".corrupt; rm -f ", path, "-wal ", path, "-shm; cp ", backup,
                  " ", path, "; then start the daemon again");
  }
  return StrCat("There is no backup. To begin anew: mv ", path, " ", path, ".corrupt; rm -f ", path,
                "-wal ", path, "-shm; then start the daemon again");
}

absl::Status Corrupt(const std::string& path, const absl::Status& why) {
  return absl::DataLossError(StrCat("the database ", path, " is corrupt: ", why.message(),
                                    ". The file is kept as it is. ", HowToRestore(path)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& data_dir,
                                                   std::uint64_t max_bytes) {
  std::string path = JoinPath(data_dir, "takt.db");
  std::unique_ptr<Store> store(new Store(path));
  struct stat info {};
  bool empty = ::stat(path.c_str(), &info) != 0 || info.st_size == 0;
  if (empty && store->HasBackup()) {
    return Corrupt(path,
                   absl::DataLossError("it is missing or empty, but backups of it are there"));
  }
  auto db = Sqlite::Open(path, {.durable = false});
  if (!db.ok()) {
    return absl::IsDataLoss(db.status()) ? Corrupt(path, db.status()) : db.status();
  }
  store->db_ = std::move(*db);
  absl::Status status = store->db_->Check();
  if (status.ok()) status = store->Migrate();
  if (absl::IsDataLoss(status)) {
    store->db_.reset();
    return Corrupt(path, status);
  }
  TAKT_RETURN_IF_ERROR(status);
  constexpr std::uint64_t kPageBytes = 4096;
  TAKT_RETURN_IF_ERROR(
      store->db_->Script(StrCat("PRAGMA max_page_count=", max_bytes / kPageBytes)));
  return store;
}

absl::Status Store::Migrate() {
  int version = 0;
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query("PRAGMA user_version"));
    TAKT_ASSIGN_OR_RETURN(bool more, rows.Next());
    if (more) version = static_cast<int>(rows.Int(0));
  }
  if (version > kVersion) {
    return absl::FailedPreconditionError(
        StrCat(path_, " was written by a newer takt: its format is ", version,
               ", this program knows ", kVersion, ". Start the newer one"));
  }
  for (; version < kVersion; ++version) {
    TAKT_ASSIGN_OR_RETURN(SqlTransaction transaction, SqlTransaction::Begin(*db_));
    TAKT_RETURN_IF_ERROR(db_->Script(kMigrations[version]));
    TAKT_RETURN_IF_ERROR(db_->Script(StrCat("PRAGMA user_version=", version + 1)));
    TAKT_RETURN_IF_ERROR(transaction.Commit());
  }
  return absl::OkStatus();
}

template <typename Body>
absl::Status Store::Transact(bool durable, Body body) {
  TAKT_RETURN_IF_ERROR(
      db_->Script(durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL"));
  TAKT_ASSIGN_OR_RETURN(SqlTransaction transaction, SqlTransaction::Begin(*db_));
  TAKT_RETURN_IF_ERROR(body());
  return transaction.Commit();
}

absl::StatusOr<std::vector<Store::AppRow>> Store::Apps() {
  std::vector<AppRow> apps;
  std::map<std::string, std::size_t> index;
  {
    TAKT_ASSIGN_OR_RETURN(
        SqlRows rows,
        db_->Query(StrCat(
            "SELECT ", kRevisionColumns,
            ", name, created, updated, stopped, removing FROM revisions ",
            "JOIN (SELECT name, created_at AS created, updated_at AS updated, revision AS current, "
            "stopped, removing FROM apps) ON app = name AND number = current ORDER BY name")));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(bool more, rows.Next());
      if (!more) break;
      AppRow app;
      app.revision = ToRevision(rows);
      app.name = rows.Text(10);
      app.created_at = rows.Text(11);
      app.updated_at = rows.Text(12);
      app.stopped = rows.Int(13) != 0;
      app.removing = rows.Int(14) != 0;
      index[app.name] = apps.size();
      apps.push_back(std::move(app));
    }
  }
  TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                        db_->Query("SELECT app, service, identity, settings, "
                                   "replicas, revision, phase, before, tried FROM handed"));
  while (true) {
    TAKT_ASSIGN_OR_RETURN(bool more, rows.Next());
    if (!more) return apps;
    auto at = index.find(std::string(rows.Text(0)));
    if (at == index.end()) continue;
    Handed& handed = apps[at->second].handed[std::string(rows.Text(1))];
    handed.identity = rows.Text(2);
    handed.settings = rows.Text(3);
    handed.replicas = static_cast<int>(rows.Int(4));
    handed.revision = static_cast<int>(rows.Int(5));
    handed.phase = static_cast<Phase>(rows.Int(6));
    json before = json::parse(rows.Text(7), nullptr, /*allow_exceptions=*/false);
    for (const json& id : before) {
      if (id.is_string()) handed.before.insert(id.get<std::string>());
    }
    json tried = json::parse(rows.Text(8), nullptr, /*allow_exceptions=*/false);
    for (const json& pair : tried) {
      if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string()) continue;
      if (pair[1].is_number_integer())
        handed.tried[pair[0].get<std::string>()] = pair[1].get<int>();
    }
  }
}

absl::StatusOr<std::vector<Revision>> Store::Revisions(const std::string& app) {
  std::vector<Revision> revisions;
  TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                        db_->Query(StrCat("SELECT ", kRevisionColumns,
                                          " FROM revisions WHERE app = ? ORDER BY number DESC"),
                                   {std::string_view(app)}));
  while (true) {
    TAKT_ASSIGN_OR_RETURN(bool more, rows.Next());
    if (!more) return revisions;
    revisions.push_back(ToRevision(rows));
  }
}

absl::StatusOr<Revision> Store::GetRevision(const std::string& app, int number) {
  TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                        db_->Query(StrCat("SELECT ", kRevisionColumns,
                                          " FROM revisions WHERE app = ? AND number = ?"),
                                   {std::string_view(app), std::int64_t{number}}));
  TAKT_ASSIGN_OR_RETURN(bool more, rows.Next());
  if (!more) {
    return absl::NotFoundError(StrCat("app \"", app, "\" has no revision ", number));
  }
  return ToRevision(rows);
}

absl::Status Store::InsertRevision(const std::string& app, const Revision& revision) {
  json options = json::object();
  for (const auto& [volume, option] : revision.configuration.volume_options) {
    options[volume] = option.subdirectory;
  }
  std::string values = Dump(revision.configuration.values), volume_options = Dump(options),
              digests = Dump(revision.image_digests);
  return db_->Run(
      StrCat("INSERT INTO revisions (app, ", kRevisionColumns, ") VALUES (?,?,?,?,?,?,?,?,?,?,?)"),
      {std::string_view(app), std::int64_t{revision.number},
       std::string_view(revision.configuration.template_name),
       std::string_view(revision.configuration.template_text), std::string_view(values),
       std::string_view(volume_options), std::string_view(digests),
       std::string_view(revision.created_at), std::string_view(revision.author),
       std::string_view(revision.why), std::int64_t{revision.rollback_of}});
}

absl::Status Store::InsertEvent(const Event& event) {
  TAKT_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO events (time, app, kind, message, level) VALUES (?, ?, ?, ?, ?)",
      {std::string_view(event.time), std::string_view(event.app), std::string_view(event.kind),
       std::string_view(event.message), std::string_view(event.level)}));
  std::int64_t oldest = db_->last_insert_id() - static_cast<std::int64_t>(kMaxEvents);
  return db_->Run("DELETE FROM events WHERE id <= ?", {oldest});
}

absl::Status Store::AddApp(const std::string& name, const Revision& revision, const Event& event) {
  return Transact(/*durable=*/true, [&]() -> absl::Status {
    TAKT_RETURN_IF_ERROR(
        db_->Run("INSERT INTO apps (name, created_at, updated_at, revision, stopped, removing) "
                 "VALUES (?, ?, ?, ?, 0, 0)",
                 {std::string_view(name), std::string_view(revision.created_at),
                  std::string_view(revision.created_at), std::int64_t{revision.number}}));
    TAKT_RETURN_IF_ERROR(InsertRevision(name, revision));
    return InsertEvent(event);
  });
}

absl::Status Store::AddRevision(const std::string& app, const Revision& revision,
                                const Event& event) {
  return Transact(/*durable=*/true, [&]() -> absl::Status {
    TAKT_RETURN_IF_ERROR(InsertRevision(app, revision));
    TAKT_RETURN_IF_ERROR(db_->Run("UPDATE apps SET revision = ?, updated_at = ? WHERE name = ?",
                                  {std::int64_t{revision.number},
                                   std::string_view(revision.created_at), std::string_view(app)}));
    TAKT_RETURN_IF_ERROR(
        db_->Run("DELETE FROM revisions WHERE app = ? AND number <= ?",
                 {std::string_view(app),
                  std::int64_t{revision.number} - static_cast<std::int64_t>(kMaxRevisionsPerApp)}));
    return InsertEvent(event);
  });
}

absl::Status Store::SetStopped(const std::string& app, bool stopped,
                               const std::vector<std::string>& rerun, const Event& event) {
  return Transact(/*durable=*/true, [&]() -> absl::Status {
    TAKT_RETURN_IF_ERROR(
        db_->Run("UPDATE apps SET stopped = ?, updated_at = ? WHERE name = ?",
                 {std::int64_t{stopped}, std::string_view(event.time), std::string_view(app)}));
    for (const std::string& service : rerun) {
      TAKT_RETURN_IF_ERROR(db_->Run("UPDATE handed SET phase = ? WHERE app = ? AND service = ?",
                                    {static_cast<std::int64_t>(Phase::kStopFirst),
                                     std::string_view(app), std::string_view(service)}));
    }
    return InsertEvent(event);
  });
}

absl::Status Store::SetRemoving(const std::string& app, const Event& event) {
  return Transact(/*durable=*/true, [&]() -> absl::Status {
    TAKT_RETURN_IF_ERROR(db_->Run("UPDATE apps SET removing = 1, updated_at = ? WHERE name = ?",
                                  {std::string_view(event.time), std::string_view(app)}));
    return InsertEvent(event);
  });
}

absl::Status Store::DeleteApp(const std::string& app, const Event& event) {
  return Transact(/*durable=*/true, [&]() -> absl::Status {
    TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM apps WHERE name = ?", {std::string_view(app)}));
    return InsertEvent(event);
  });
}

absl::Status Store::PutHanded(const std::string& app, const std::string& service,
                              const Handed& handed) {
  std::string before = Dump(handed.before);
  json pairs = json::array();
  for (const auto& [identity, revision] : handed.tried) pairs.push_back({identity, revision});
  std::string tried = Dump(pairs);
  return Transact(/*durable=*/false, [&] {
    return db_->Run(
        "INSERT OR REPLACE INTO handed (app, service, identity, settings, replicas, revision, "
        "phase, "
        "before, tried) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        {std::string_view(app), std::string_view(service), std::string_view(handed.identity),
         std::string_view(handed.settings), std::int64_t{handed.replicas},
         std::int64_t{handed.revision}, static_cast<std::int64_t>(handed.phase),
         std::string_view(before), std::string_view(tried)});
  });
}

absl::Status Store::DeleteHanded(const std::string& app, const std::string& service) {
  return Transact(/*durable=*/false, [&] {
    return db_->Run("DELETE FROM handed WHERE app = ? AND service = ?",
                    {std::string_view(app), std::string_view(service)});
  });
}

absl::Status Store::AddEvent(const Event& event) {
  return Transact(/*durable=*/false, [&] { return InsertEvent(event); });
}

absl::StatusOr<std::map<std::string, std::string>> Store::Seen() {
  std::map<std::string, std::string> seen;
  TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query("SELECT instance, state FROM seen"));
  while (true) {
    TAKT_ASSIGN_OR_RETURN(bool more, rows.Next());
    if (!more) return seen;
    seen[std::string(rows.Text(0))] = rows.Text(1);
  }
}

absl::Status Store::PutSeen(const std::string& instance, const std::string& state,
                            const Event& event) {
  return Transact(/*durable=*/false, [&]() -> absl::Status {
    TAKT_RETURN_IF_ERROR(db_->Run("INSERT OR REPLACE INTO seen (instance, state) VALUES (?, ?)",
                                  {std::string_view(instance), std::string_view(state)}));
    return event.kind.empty() ? absl::OkStatus() : InsertEvent(event);
  });
}

absl::Status Store::DeleteSeen(const std::string& instance) {
  return Transact(/*durable=*/false, [&] {
    return db_->Run("DELETE FROM seen WHERE instance = ?", {std::string_view(instance)});
  });
}

absl::StatusOr<std::vector<Event>> Store::Events(const std::string& app, std::int64_t after_id,
                                                 std::size_t limit) {
  std::vector<Event> events;
  const auto count = static_cast<std::int64_t>(std::min(limit, kMaxEvents));
  TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                        app.empty()
                            ? db_->Query("SELECT id, time, app, kind, message, level FROM events "
                                         "WHERE id > ? ORDER BY id LIMIT ?",
                                         {after_id, count})
                            : db_->Query("SELECT id, time, app, kind, message, level FROM events "
                                         "WHERE app = ? AND id > ? ORDER BY id LIMIT ?",
                                         {std::string_view(app), after_id, count}));
  while (true) {
    TAKT_ASSIGN_OR_RETURN(bool more, rows.Next());
    if (!more) return events;
    events.push_back({rows.Int(0), std::string(rows.Text(1)), std::string(rows.Text(2)),
                      std::string(rows.Text(3)), std::string(rows.Text(4)),
                      std::string(rows.Text(5))});
  }
}

absl::Status Store::Backup(const std::string& data_dir) {
  const std::string path = JoinPath(data_dir, "takt.db");
  const std::string fresh = path + ".backup.fresh";
  TAKT_ASSIGN_OR_RETURN(std::unique_ptr<Sqlite> db, Sqlite::Open(path, {.read_only = true}));
  TAKT_RETURN_IF_ERROR(db->BackupTo(fresh));
  for (int age = kMaxBackups - 1; age > 0; --age) {
    // Where there is no such backup yet, nothing moves.
    (void)std::rename(BackupPath(path, age - 1).c_str(), BackupPath(path, age).c_str());
  }
  if (std::rename(fresh.c_str(), BackupPath(path, 0).c_str()) != 0) {
    return ErrnoStatus(errno, StrCat("rename to ", BackupPath(path, 0)));
  }
  return absl::OkStatus();
}

bool Store::HasBackup() const {
  for (int age = 0; age < kMaxBackups; ++age) {
    if (Exists(BackupPath(path_, age))) return true;
  }
  return false;
}

}  // namespace takt::line
