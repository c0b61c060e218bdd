#include "operate/alert_file.h"

#include <sys/stat.h>

#include <cerrno>

#include "base/str.h"

namespace takt::operate {

absl::StatusOr<std::unique_ptr<AlertFile>> AlertFile::Open(const std::string& path) {
  TAKT_ASSIGN_OR_RETURN(auto db, Sqlite::Open(path, {}));
  if (chmod(path.c_str(), 0600) != 0) return ErrnoStatus(errno, StrCat("chmod ", path));
  TAKT_RETURN_IF_ERROR(
      db->Script("CREATE TABLE IF NOT EXISTS kept (kind TEXT, key TEXT, text TEXT NOT NULL,"
                 " PRIMARY KEY (kind, key)) WITHOUT ROWID;"
                 "CREATE TABLE IF NOT EXISTS letters (id INTEGER PRIMARY KEY AUTOINCREMENT,"
                 " receiver TEXT NOT NULL, body TEXT NOT NULL);"));
  return std::unique_ptr<AlertFile>(new AlertFile(std::move(db)));
}

absl::Status AlertFile::Put(std::string_view kind, std::string_view key, std::string_view text) {
  const std::lock_guard lock(mutex_);
  return db_->Run("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", {kind, key, text});
}

absl::Status AlertFile::Remove(std::string_view kind, std::string_view key) {
  const std::lock_guard lock(mutex_);
  return db_->Run("DELETE FROM kept WHERE kind = ? AND key = ?", {kind, key});
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> AlertFile::All(
    std::string_view kind) {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<std::string, std::string>> all;
  TAKT_ASSIGN_OR_RETURN(
      SqlRows rows, db_->Query("SELECT key, text FROM kept WHERE kind = ? ORDER BY key", {kind}));
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
    if (!more) return all;
    all.emplace_back(rows.Text(0), rows.Text(1));
  }
}

absl::StatusOr<std::int64_t> AlertFile::AddLetter(std::string_view receiver,
                                                  std::string_view body) {
  const std::lock_guard lock(mutex_);
  TAKT_RETURN_IF_ERROR(
      db_->Run("INSERT INTO letters (receiver, body) VALUES (?, ?)", {receiver, body}));
  return db_->last_insert_id();
}

absl::Status AlertFile::RemoveLetter(std::int64_t id) {
  const std::lock_guard lock(mutex_);
  return db_->Run("DELETE FROM letters WHERE id = ?", {id});
}

absl::Status AlertFile::RemoveLetters(std::string_view receiver) {
  const std::lock_guard lock(mutex_);
  return db_->Run("DELETE FROM letters WHERE receiver = ?", {receiver});
}

absl::StatusOr<std::vector<AlertFile::Letter>> AlertFile::Letters(std::string_view receiver) {
  const std::lock_guard lock(mutex_);
  std::vector<Letter> letters;
  TAKT_ASSIGN_OR_RETURN(
      SqlRows rows,
      db_->Query("SELECT id, body FROM letters WHERE receiver = ? ORDER BY id", {receiver}));
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
    if (!more) return letters;
    letters.push_back({rows.Int(0), std::string(rows.Text(1))});
  }
}

}  // namespace takt::operate
