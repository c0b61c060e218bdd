#include "base/sqlite.h"

#include <sqlite3.h>
#include <unistd.h>

#include <cstdio>

namespace takt {
namespace {

absl::StatusCode CodeFor(int code) {
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::StatusCode::kDataLoss;
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::StatusCode::kFailedPrecondition;
    case SQLITE_CONSTRAINT:
      return absl::StatusCode::kAlreadyExists;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return absl::StatusCode::kUnavailable;
    default:
      return absl::StatusCode::kInternal;
  }
}

}  // namespace

SqlRows::SqlRows(SqlRows&& other) noexcept : db_(other.db_), statement_(other.statement_) {
  other.statement_ = nullptr;
}

SqlRows::~SqlRows() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

absl::StatusOr<bool> SqlRows::Next() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return db_->Error(code, sqlite3_sql(statement_));
}

std::int64_t SqlRows::Int(int column) const { return sqlite3_column_int64(statement_, column); }
double SqlRows::Real(int column) const { return sqlite3_column_double(statement_, column); }
std::string_view SqlRows::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return text == nullptr
             ? std::string_view()
             : std::string_view(text,
                                static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
}
std::string_view SqlRows::Blob(int column) const {
  const auto* blob = static_cast<const char*>(sqlite3_column_blob(statement_, column));
  return blob == nullptr
             ? std::string_view()
             : std::string_view(blob,
                                static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)));
}
bool SqlRows::IsNull(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

absl::StatusOr<std::unique_ptr<Sqlite>> Sqlite::Open(const std::string& path,
                                                     const Options& options) {
  std::unique_ptr<Sqlite> db(new Sqlite);
  db->path_ = path;
  const int flags =
      options.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  int code = sqlite3_open_v2(path.c_str(), &db->db_, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  if (code != SQLITE_OK) return db->Error(code, "open");
  sqlite3_extended_result_codes(db->db_, 1);
  sqlite3_busy_timeout(db->db_, options.exclusive ? 0 : 5000);
  if (options.read_only) return db;
  if (options.exclusive) TAKT_RETURN_IF_ERROR(db->Script("PRAGMA locking_mode=EXCLUSIVE"));
  TAKT_RETURN_IF_ERROR(db->Script("PRAGMA journal_mode=WAL"));
  TAKT_RETURN_IF_ERROR(
      db->Script(options.durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL"));
  TAKT_RETURN_IF_ERROR(db->Script("PRAGMA foreign_keys=ON"));
  if (options.exclusive) {  // takes the lock now rather than at the first write
    TAKT_RETURN_IF_ERROR(db->Script("BEGIN EXCLUSIVE; COMMIT"));
  }
  return db;
}

Sqlite::~Sqlite() {
  for (auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(db_);
}

absl::Status Sqlite::Error(int code, std::string_view what) const {
  const absl::StatusCode status = CodeFor(code);
  if (status == absl::StatusCode::kFailedPrecondition) {
    return {status, ToAbsl(StrCat(path_, " is in use by another process"))};
  }
  return {status,
          ToAbsl(StrCat(path_, ": ", db_ != nullptr ? sqlite3_errmsg(db_) : sqlite3_errstr(code),
                        " (", what, ")"))};
}

absl::Status Sqlite::Script(const std::string& sql) {
  const int code = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code, sql);
}

absl::StatusOr<sqlite3_stmt*> Sqlite::Prepare(std::string_view sql,
                                              std::initializer_list<SqlValue> values) {
  auto it = statements_.find(sql);
  if (it == statements_.end()) {
    sqlite3_stmt* statement = nullptr;
    const int code = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()),
                                        SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
    if (code != SQLITE_OK) return Error(code, sql);
    it = statements_.emplace(sql, statement).first;
  }
  int index = 0;
  for (const SqlValue& value : values) {
    ++index;
    int code = SQLITE_OK;
    if (const auto* i = std::get_if<std::int64_t>(&value)) {
      code = sqlite3_bind_int64(it->second, index, *i);
    } else if (const auto* d = std::get_if<double>(&value)) {
      code = sqlite3_bind_double(it->second, index, *d);
    } else if (const auto* t = std::get_if<std::string_view>(&value)) {
      code = sqlite3_bind_text64(it->second, index, t->data() != nullptr ? t->data() : "",
                                 t->size(), SQLITE_STATIC, SQLITE_UTF8);
    } else if (const auto* b = std::get_if<SqlBlob>(&value)) {
      code =
          sqlite3_bind_blob64(it->second, index, b->bytes.data() != nullptr ? b->bytes.data() : "",
                              b->bytes.size(), SQLITE_STATIC);
    } else {
      code = sqlite3_bind_null(it->second, index);
    }
    if (code != SQLITE_OK) return Error(code, sql);
  }
  return it->second;
}

absl::StatusOr<SqlRows> Sqlite::Query(std::string_view sql,
                                      std::initializer_list<SqlValue> values) {
  TAKT_ASSIGN_OR_RETURN(sqlite3_stmt * statement, Prepare(sql, values));
  return SqlRows(this, statement);
}

absl::Status Sqlite::Run(std::string_view sql, std::initializer_list<SqlValue> values) {
  TAKT_ASSIGN_OR_RETURN(SqlRows rows, Query(sql, values));
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
    if (!more) return absl::OkStatus();
  }
}

std::int64_t Sqlite::last_insert_id() const { return sqlite3_last_insert_rowid(db_); }
int Sqlite::changes() const { return sqlite3_changes(db_); }

absl::Status Sqlite::Check() {
  TAKT_ASSIGN_OR_RETURN(SqlRows rows, Query("PRAGMA quick_check(3)"));
  std::string findings;
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
    if (!more) break;
    if (rows.Text(0) != "ok") findings += StrCat(findings.empty() ? "" : "; ", rows.Text(0));
  }
  if (findings.empty()) return absl::OkStatus();
  return absl::DataLossError(StrCat(path_, " is damaged: ", findings));
}

absl::Status Sqlite::BackupTo(const std::string& path) {
  const std::string temporary = path + ".new";
  unlink(temporary.c_str());
  TAKT_RETURN_IF_ERROR(Run("VACUUM INTO ?", {std::string_view(temporary)}));
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return ErrnoStatus(errno, StrCat("rename ", temporary, " to ", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<SqlTransaction> SqlTransaction::Begin(Sqlite& db) {
  TAKT_RETURN_IF_ERROR(db.Run("BEGIN IMMEDIATE"));
  return SqlTransaction(&db);
}

SqlTransaction::~SqlTransaction() {
  if (db_ != nullptr) db_->Run("ROLLBACK").IgnoreError();
}

absl::Status SqlTransaction::Commit() {
  TAKT_RETURN_IF_ERROR(db_->Run("COMMIT"));
  db_ = nullptr;
  return absl::OkStatus();
}

}  // namespace takt
