#include "logs/searches.h"

#include <algorithm>

#include "logs/query.h"

namespace takt::logs {
namespace {

constexpr const char* kSchema =
    "CREATE TABLE IF NOT EXISTS search(name TEXT PRIMARY KEY, query TEXT NOT NULL, "
    "span_seconds INTEGER NOT NULL, changed_us INTEGER NOT NULL) WITHOUT ROWID";

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxSearchNameBytes && name.front() != ' ' &&
         name.back() != ' ' && std::none_of(name.begin(), name.end(), [](char c) {
           return static_cast<std::uint8_t>(c) < 0x20 || c == 0x7f || c == '/';
         });
}

}  // namespace

absl::StatusOr<std::unique_ptr<SavedSearches>> SavedSearches::Open(const std::string& path,
                                                                   const Clock& clock) {
  std::unique_ptr<SavedSearches> self(new SavedSearches(clock));
  TAKT_ASSIGN_OR_RETURN(self->db_, Sqlite::Open(path, {}));
  TAKT_RETURN_IF_ERROR(self->db_->Script(kSchema));
  return self;
}

absl::StatusOr<std::vector<SavedSearch>> SavedSearches::List() {
  const std::lock_guard lock(mutex_);
  TAKT_ASSIGN_OR_RETURN(
      SqlRows rows,
      db_->Query("SELECT name, query, span_seconds, changed_us FROM search ORDER BY name"));
  std::vector<SavedSearch> list;
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
    if (!more) return list;
    list.push_back({std::string(rows.Text(0)), std::string(rows.Text(1)),
                    std::chrono::seconds(rows.Int(2)),
                    std::chrono::system_clock::time_point(std::chrono::microseconds(rows.Int(3)))});
  }
}

absl::StatusOr<SavedSearch> SavedSearches::Put(SavedSearch search) {
  if (!IsName(search.name)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "name of a saved search: expected 1 to ", kMaxSearchNameBytes,
        " bytes without control characters, slashes and outer blanks, got ", search.name.size()));
  }
  TAKT_RETURN_IF_ERROR(Annotate(Query::Parse(search.query).status(), "query"));
  if (search.span.count() < 0 || search.span > kMaxSearchSpan) {
    return absl::InvalidArgumentError(
        absl::StrCat("span_seconds: expected 0 to ",
                     std::chrono::duration_cast<std::chrono::seconds>(kMaxSearchSpan).count(),
                     ", got ", search.span.count()));
  }
  search.changed_at = clock_.Now();
  const std::lock_guard lock(mutex_);
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query("SELECT count(*) FROM search WHERE name<>?",
                                                   {std::string_view(search.name)}));
    TAKT_RETURN_IF_ERROR(rows.Next().status());
    if (rows.Int(0) >= static_cast<std::int64_t>(kMaxSavedSearches)) {
      return absl::ResourceExhaustedError(
          absl::StrCat(kMaxSavedSearches, " searches are saved, the most allowed: remove one"));
    }
  }
  TAKT_RETURN_IF_ERROR(db_->Run(
      "INSERT OR REPLACE INTO search VALUES(?,?,?,?)",
      {std::string_view(search.name), std::string_view(search.query), search.span.count(),
       std::chrono::duration_cast<std::chrono::microseconds>(search.changed_at.time_since_epoch())
           .count()}));
  return search;
}

absl::Status SavedSearches::Remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM search WHERE name=?", {std::string_view(name)}));
  if (db_->changes() > 0) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("there is no saved search \"", name, "\""));
}

}  // namespace takt::logs
