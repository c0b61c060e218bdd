// SQLite with every error as a Status that names the file. One connection, which only one thread
// uses at a time: the owner locks. Statements are prepared once and kept.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/status.h"

struct sqlite3;
struct sqlite3_stmt;

namespace takt {

// A value to bind. Text and blob are not copied: they must live until the statement has run.
struct SqlBlob {
  std::string_view bytes;
};
using SqlValue = std::variant<std::nullptr_t, std::int64_t, double, std::string_view, SqlBlob>;

// A prepared statement that is being run. Ends (is reset) when it goes out of scope.
class SqlRows {
 public:
  SqlRows(SqlRows&& other) noexcept;
  SqlRows& operator=(SqlRows&&) = delete;
  ~SqlRows();
  // Steps to the next row: true when there is one, false at the end.
  absl::StatusOr<bool> Next();
  // Columns of the current row, from 0. Views live until the next call of Next.
  std::int64_t Int(int column) const;
  double Real(int column) const;
  std::string_view Text(int column) const;
  std::string_view Blob(int column) const;
  bool IsNull(int column) const;

 private:
  friend class Sqlite;
  SqlRows(class Sqlite* db, sqlite3_stmt* statement) : db_(db), statement_(statement) {}
  Sqlite* db_;
  sqlite3_stmt* statement_;
};

class Sqlite {
 public:
  struct Options {
    bool read_only = false;
    bool durable = true;  // synchronous=FULL: a commit is on the disk when it returns
    // Takes the file for this process alone: FAILED_PRECONDITION when another one has it.
    bool exclusive = false;
  };
  // Opens or creates `path` in WAL mode. DATA_LOSS when it is not a database or is damaged
  // (`PRAGMA quick_check` is not run here: see Check), UNAVAILABLE when it cannot be opened.
  static absl::StatusOr<std::unique_ptr<Sqlite>> Open(const std::string& path,
                                                      const Options& options);
  ~Sqlite();
  Sqlite(const Sqlite&) = delete;
  Sqlite& operator=(const Sqlite&) = delete;

  // Runs one or several statements without parameters or rows.
  absl::Status Script(const std::string& sql);
  // Runs one statement to its end, ignoring rows.
  absl::Status Run(std::string_view sql, std::initializer_list<SqlValue> values = {});
  // Begins one statement. The same `sql` must not be begun again before the result is gone.
  absl::StatusOr<SqlRows> Query(std::string_view sql, std::initializer_list<SqlValue> values = {});
  std::int64_t last_insert_id() const;
  int changes() const;
  // DATA_LOSS with SQLite's first findings when the file is damaged. Reads the whole file.
  absl::Status Check();
  // A whole copy of the database at `path`, by way of a temporary file and a rename.
  absl::Status BackupTo(const std::string& path);
  const std::string& path() const { return path_; }

 private:
  friend class SqlRows;
  Sqlite() = default;
  absl::Status Error(int code, std::string_view what) const;
  absl::StatusOr<sqlite3_stmt*> Prepare(std::string_view sql,
                                        std::initializer_list<SqlValue> values);

  sqlite3* db_ = nullptr;
  std::string path_;
  std::map<std::string, sqlite3_stmt*, std::less<>> statements_;
};

// BEGIN IMMEDIATE now; ROLLBACK when it goes out of scope without Commit.
class SqlTransaction {
 public:
  static absl::StatusOr<SqlTransaction> Begin(Sqlite& db);
  SqlTransaction(SqlTransaction&& other) noexcept : db_(other.db_) { other.db_ = nullptr; }
  SqlTransaction& operator=(SqlTransaction&&) = delete;
  ~SqlTransaction();
  absl::Status Commit();

 private:
  explicit SqlTransaction(Sqlite* db) : db_(db) {}
  Sqlite* db_;
};

}  // namespace takt
