#include "logs/store.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/text.h"

namespace takt::logs {
namespace {

constexpr std::int64_t kDayUs = std::int64_t{86'400} * 1'000'000;
constexpr auto kDropInterval = std::chrono::seconds(60);
constexpr auto kReleaseIdle = std::chrono::minutes(5);  // then a chunk leaves the memory as it is
constexpr std::uint64_t kMinFreeBytes = 256 << 20;      // of the disk (or a 20th), kept free
// Twice what SQLite's log holds between checkpoints (1000 pages): room to bring it home.
constexpr std::int64_t kReserveBytes = 8 << 20;

constexpr const char* kSchema = R"(
CREATE TABLE IF NOT EXISTS stream(
  id INTEGER PRIMARY KEY, app TEXT NOT NULL, service TEXT NOT NULL, instance TEXT NOT NULL,
  store TEXT NOT NULL, node TEXT NOT NULL, run TEXT NOT NULL, revision INTEGER NOT NULL,
  file TEXT NOT NULL, inode INTEGER NOT NULL, ttl_days INTEGER NOT NULL,
  position INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS stream_app ON stream(app);
CREATE TABLE IF NOT EXISTS chunk(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  stream INTEGER NOT NULL REFERENCES stream(id) ON DELETE CASCADE,
  first_us INTEGER NOT NULL, last_us INTEGER NOT NULL, entries INTEGER NOT NULL,
  text_bytes INTEGER NOT NULL, levels BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS chunk_last ON chunk(last_us);
CREATE INDEX IF NOT EXISTS chunk_stream ON chunk(stream, id);
CREATE TABLE IF NOT EXISTS filter(
  chunk INTEGER PRIMARY KEY REFERENCES chunk(id) ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta(
  chunk INTEGER PRIMARY KEY REFERENCES chunk(id) ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS body(
  chunk INTEGER PRIMARY KEY REFERENCES chunk(id) ON DELETE CASCADE, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS reader(
  name TEXT PRIMARY KEY, low INTEGER NOT NULL, removed INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reader_cursor(
  reader TEXT NOT NULL REFERENCES reader(name) ON DELETE CASCADE,
  stream INTEGER NOT NULL, chunk INTEGER NOT NULL, next INTEGER NOT NULL,
  PRIMARY KEY(reader, stream)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS total(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
)";

// What a reader r has not read of a chunk c, k being its cursor in the chunk's stream: everything
// from r.low on, but what lies before the cursor.
constexpr const char* kUnread =
    " c.entries>0 AND c.id>=r.low AND (k.chunk IS NULL OR c.id>k.chunk OR "
    "(c.id=k.chunk AND c.entries>k.next))";
constexpr const char* kUnreadEntries = "c.entries - CASE WHEN k.chunk=c.id THEN k.next ELSE 0 END";
constexpr const char* kUnreadJoin =
    " FROM chunk c LEFT JOIN reader_cursor k ON k.reader=r.name AND k.stream=c.stream WHERE ";

using LevelCounts = std::array<std::uint32_t, kLevels>;

std::string Joined(const StreamKey& key) {
  return absl::StrCat(key.app, "\n", key.service, "\n", key.instance, "\n", key.store, "\n",
                      key.node, "\n", key.run, "\n", key.revision, "\n", key.file, "\n", key.inode);
}

StreamKey KeyOf(const SqlRows& rows, int column) {
  StreamKey key;
  key.app = rows.Text(column);
  key.service = rows.Text(column + 1);
  key.instance = rows.Text(column + 2);
  key.store = rows.Text(column + 3);
  key.node = rows.Text(column + 4);
  key.run = rows.Text(column + 5);
  key.revision = static_cast<int>(rows.Int(column + 6));
  key.file = rows.Text(column + 7);
  key.inode = static_cast<std::uint64_t>(rows.Int(column + 8));
  return key;
}

std::string_view BytesOf(const LevelCounts& counts) {
  return {reinterpret_cast<const char*>(counts.data()), sizeof(counts)};
}

Entry EntryAt(const Columns& columns, std::size_t i) {
  return {columns.times_us[i], columns.LevelOf(i), columns.IsStderr(i),
          std::string(columns.Text(i))};
}

}  // namespace

struct LogStore::OpenStream {
  std::int64_t id = 0;
  StreamKey key;
  int ttl_days = 0;
  std::uint64_t position = 0;  // after everything appended
  std::int64_t chunk = 0;      // of `columns`, 0 = none yet
  Columns columns;
  std::int64_t first_us = 0, last_us = 0;  // least and greatest time in `columns`
  bool dirty = false;
  bool in_use = false;  // asked for by Stream and not closed since
  std::chrono::steady_clock::time_point dirty_since, touched;
};

struct LogStore::Follower {
  std::mutex mutex;  // held during a call
  std::atomic<bool> active = true;
  std::shared_ptr<const Query> query;
  std::function<bool(const std::vector<FoundEntry>&)> on_entries;
};

struct LogStore::ChunkRow {
  std::int64_t id = 0, stream = 0, first_us = 0, last_us = 0, entries = 0;
  LevelCounts levels{};
};

// The best matches so far, in the order asked for.
class LogStore::Collected {
 public:
  explicit Collected(const SearchOptions& options)
      : options_(options), keep_(std::min(options.limit, kMaxSearchEntries) + 1) {}

  void Add(EntryId id, const StreamKey& key, const Columns& columns, std::size_t i) {
    if (options_.after.chunk != 0 &&
        !Before(options_.after_time_us, options_.after, columns.times_us[i], id)) {
      return;
    }
    if (full_ && Before(last_time_us_, last_id_, columns.times_us[i], id)) return;
    found_.push_back({id, key, EntryAt(columns, i)});
    if (found_.size() >= 2 * keep_) Prune();
  }
  // True when nothing at or beyond `time_us` can be among the best any more.
  bool Done(std::int64_t time_us) {
    if (found_.size() < keep_) return false;
    Prune();
    return options_.newest_first ? last_time_us_ > time_us : last_time_us_ < time_us;
  }
  std::vector<FoundEntry> Take(bool& more) {
    Prune();
    more = found_.size() == keep_;
    if (more) found_.pop_back();
    return std::move(found_);
  }

 private:
  bool Before(std::int64_t time_a, EntryId a, std::int64_t time_b, EntryId b) const {
    if (!options_.newest_first) return time_a != time_b ? time_a < time_b : a < b;
    return time_a != time_b ? time_a > time_b : b < a;
  }
  void Prune() {
    std::sort(found_.begin(), found_.end(), [this](const FoundEntry& a, const FoundEntry& b) {
      return Before(a.entry.time_us, a.id, b.entry.time_us, b.id);
    });
    if (found_.size() >= keep_) {
      found_.resize(keep_);
      full_ = true;
      last_time_us_ = found_.back().entry.time_us;
      last_id_ = found_.back().id;
    }
  }

  const SearchOptions& options_;
  const std::size_t keep_;
  std::vector<FoundEntry> found_;
  bool full_ = false;
  std::int64_t last_time_us_ = 0;
  EntryId last_id_;
};

LogStore::LogStore(const StoreOptions& options, const Clock& clock)
    : options_(options), clock_(clock) {}

LogStore::~LogStore() { Flush().IgnoreError(); }

absl::StatusOr<std::unique_ptr<LogStore>> LogStore::Open(const StoreOptions& options,
                                                         const Clock& clock) {
  std::unique_ptr<LogStore> store(new LogStore(options, clock));
  // Not durable against a power cut: the source still has what would be lost.
  TAKT_ASSIGN_OR_RETURN(store->db_, Sqlite::Open(options.path, {.durable = false}));
  TAKT_RETURN_IF_ERROR(store->db_->Script(kSchema));
  TAKT_ASSIGN_OR_RETURN(store->reader_, Sqlite::Open(options.path, {.read_only = true}));
  TAKT_RETURN_IF_ERROR(store->reader_->Script("PRAGMA mmap_size=1073741824"));
  TAKT_RETURN_IF_ERROR(store->Load());
  store->KeepReserve();
  return store;
}

absl::Status LogStore::Load() {
  auto rows = db_->Query(
      "SELECT app, service, instance, store, node, run, revision, file, inode, id, ttl_days, "
      "position FROM stream");
  TAKT_RETURN_IF_ERROR(rows.status());
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    if (!more) return absl::OkStatus();
    auto stream = std::make_unique<OpenStream>();
    stream->key = KeyOf(*rows, 0);
    stream->id = rows->Int(9);
    stream->ttl_days = static_cast<int>(rows->Int(10));
    stream->position = static_cast<std::uint64_t>(rows->Int(11));
    ids_[Joined(stream->key)] = stream->id;
    streams_[stream->id] = std::move(stream);
  }
}

LogStore::OpenStream* LogStore::FindStream(std::int64_t id) {
  const auto it = streams_.find(id);
  return it == streams_.end() ? nullptr : it->second.get();
}

absl::StatusOr<std::int64_t> LogStore::Stream(const StreamKey& key, int ttl_days) {
  const std::lock_guard lock(mutex_);
  return StreamLocked(key, ttl_days);
}

absl::StatusOr<std::int64_t> LogStore::StreamLocked(const StreamKey& key, int ttl_days) {
  const std::string joined = Joined(key);
  if (const auto it = ids_.find(joined); it != ids_.end()) {
    OpenStream& stream = *streams_[it->second];
    stream.in_use = true;
    if (stream.ttl_days != ttl_days) {
      TAKT_RETURN_IF_ERROR(
          db_->Run("UPDATE stream SET ttl_days=? WHERE id=?", {std::int64_t{ttl_days}, stream.id}));
      stream.ttl_days = ttl_days;
    }
    return it->second;
  }
  TAKT_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO stream(app, service, instance, store, node, run, revision, file, inode, "
      "ttl_days) VALUES(?,?,?,?,?,?,?,?,?,?)",
      {std::string_view(key.app), std::string_view(key.service), std::string_view(key.instance),
       std::string_view(key.store), std::string_view(key.node), std::string_view(key.run),
       std::int64_t{key.revision}, std::string_view(key.file), static_cast<std::int64_t>(key.inode),
       std::int64_t{ttl_days}}));
  auto stream = std::make_unique<OpenStream>();
  stream->id = db_->last_insert_id();
  stream->key = key;
  stream->ttl_days = ttl_days;
  const std::int64_t id = stream->id;
  stream->in_use = true;
  ids_[joined] = id;
  streams_[id] = std::move(stream);
  return id;
}

void LogStore::Close(std::int64_t id) {
  const std::lock_guard lock(mutex_);
  if (OpenStream* const stream = FindStream(id); stream != nullptr) stream->in_use = false;
}

absl::StatusOr<std::uint64_t> LogStore::Position(std::int64_t id) {
  const std::lock_guard lock(mutex_);
  const OpenStream* stream = FindStream(id);
  if (stream == nullptr) return absl::NotFoundError(absl::StrCat("no log stream ", id));
  return stream->position;
}

absl::Status LogStore::Append(std::int64_t id, std::span<const Entry> entries) {
  std::vector<FoundEntry> added;
  absl::Status status;
  {
    const std::lock_guard lock(mutex_);
    OpenStream* stream = FindStream(id);
    if (stream == nullptr) return absl::NotFoundError(absl::StrCat("no log stream ", id));
    bool followed = false;
    {
      const std::lock_guard followers_lock(followers_mutex_);
      followed = !followers_.empty();
    }
    status = AppendLocked(*stream, entries, followed ? &added : nullptr);
  }
  if (!added.empty()) Notify(added);
  return status;
}

absl::Status LogStore::AppendLocked(OpenStream& stream, std::span<const Entry> entries,
                                    std::vector<FoundEntry>* added) {
  const auto now = clock_.Steady();
  for (const Entry& entry : entries) {
    if (stream.columns.size() >= kMaxChunkEntries ||
        (stream.columns.size() != 0 &&
         stream.columns.text.size() + entry.text.size() > kMaxChunkBytes)) {
      TAKT_RETURN_IF_ERROR(FlushStream(stream));
      stream.columns.Clear();
      stream.chunk = 0;
    }
    if (stream.chunk == 0) {
      TAKT_RETURN_IF_ERROR(
          db_->Run("INSERT INTO chunk(stream, first_us, last_us, entries, text_bytes, levels) "
                   "VALUES(?,0,0,0,0,x'')",
                   {stream.id}));
      stream.chunk = db_->last_insert_id();
      stream.first_us = stream.last_us = entry.time_us;
    }
    if (entry.text.size() > kMaxEntryBytes) {
      Entry cut = entry;
      std::size_t keep = kMaxEntryBytes - 64;
      while (keep > 0 && (static_cast<std::uint8_t>(cut.text[keep]) & 0xc0) == 0x80) --keep;
      cut.text.resize(keep);
      absl::StrAppend(&cut.text, "... [", entry.text.size() - keep, " more bytes cut]");
      stream.columns.Append(cut);
    } else {
      stream.columns.Append(entry);
    }
    stream.first_us = std::min(stream.first_us, entry.time_us);
    stream.last_us = std::max(stream.last_us, entry.time_us);
    if (added != nullptr) {
      const std::size_t i = stream.columns.size() - 1;
      added->push_back(
          {{stream.chunk, static_cast<std::int64_t>(i)}, stream.key, EntryAt(stream.columns, i)});
    }
    if (!stream.dirty) stream.dirty_since = now;
    stream.dirty = true;
    stream.position = entry.position;
    stream.touched = now;
  }
  return absl::OkStatus();
}

absl::Status LogStore::FlushStream(OpenStream& stream) {
  if (!stream.dirty) return absl::OkStatus();
  const Columns& columns = stream.columns;
  LevelCounts levels{};
  for (std::size_t i = 0; i < columns.size(); ++i) ++levels[columns.flags[i] & 7];
  const std::string meta = EncodeMeta(columns), body = EncodeText(columns);
  const std::string filter = BuildFilter(columns.text);
  auto transaction = SqlTransaction::Begin(*db_);
  TAKT_RETURN_IF_ERROR(transaction.status());
  TAKT_RETURN_IF_ERROR(db_->Run(
      "UPDATE chunk SET first_us=?2, last_us=?3, entries=?4, text_bytes=?5, levels=?6 "
      "WHERE id=?1",
      {stream.chunk, stream.first_us, stream.last_us, static_cast<std::int64_t>(columns.size()),
       static_cast<std::int64_t>(columns.text.size()), SqlBlob{BytesOf(levels)}}));
  TAKT_RETURN_IF_ERROR(
      db_->Run("INSERT OR REPLACE INTO filter VALUES(?,?)", {stream.chunk, SqlBlob{filter}}));
  TAKT_RETURN_IF_ERROR(
      db_->Run("INSERT OR REPLACE INTO meta VALUES(?,?)", {stream.chunk, SqlBlob{meta}}));
  TAKT_RETURN_IF_ERROR(
      db_->Run("INSERT OR REPLACE INTO body VALUES(?,?)", {stream.chunk, SqlBlob{body}}));
  TAKT_RETURN_IF_ERROR(db_->Run("UPDATE stream SET position=? WHERE id=?",
                                {static_cast<std::int64_t>(stream.position), stream.id}));
  TAKT_RETURN_IF_ERROR(transaction->Commit());
  stream.dirty = false;
  ++flushes_;
  return absl::OkStatus();
}

absl::Status LogStore::FlushLocked(bool everything) {
  const auto now = clock_.Steady();
  absl::Status first;
  for (auto& [id, stream] : streams_) {
    if (stream->dirty && (everything || now - stream->dirty_since >= options_.flush_interval)) {
      if (absl::Status status = FlushStream(*stream); !status.ok()) first.Update(status);
    } else if (!stream->dirty && stream->chunk != 0 && now - stream->touched >= kReleaseIdle) {
      stream->columns = Columns();
      stream->chunk = 0;
    }
  }
  return first;
}

absl::Status LogStore::Flush() {
  const std::lock_guard lock(mutex_);
  return FlushLocked(true);
}

absl::Status LogStore::Tend() {
  const std::lock_guard lock(mutex_);
  absl::Status status = FlushLocked(false);
  const auto now = clock_.Steady();
  if (now - last_drop_ >= kDropInterval || !status.ok()) {
    last_drop_ = now;
    status.Update(DropExpired());
    status.Update(DropOverSize());
  }
  return status;
}

absl::Status LogStore::DropExpired() {
  const std::int64_t now_us =
      std::chrono::duration_cast<std::chrono::microseconds>(clock_.Now().time_since_epoch())
          .count();
  std::set<std::int64_t> open, past;
  std::set<int> days;
  for (const auto& [id, stream] : streams_) {
    if (stream->chunk != 0) open.insert(stream->chunk);
    if (stream->ttl_days > 0) days.insert(stream->ttl_days);
  }
  for (const int each : days) {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                          db_->Query("SELECT c.id FROM chunk c JOIN stream s ON s.id=c.stream "
                                     "WHERE c.last_us<? AND c.entries>0 AND s.ttl_days=?",
                                     {now_us - each * kDayUs, std::int64_t{each}}));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) break;
      if (!open.contains(rows.Int(0))) past.insert(rows.Int(0));
    }
  }
  if (!past.empty()) {
    auto transaction = SqlTransaction::Begin(*db_);
    TAKT_RETURN_IF_ERROR(transaction.status());
    for (const std::int64_t chunk : past) {
      TAKT_RETURN_IF_ERROR(CountUnread("c.id=?", {chunk}));
      TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM chunk WHERE id=?", {chunk}));
    }
    TAKT_RETURN_IF_ERROR(transaction->Commit());
  }
  return DropEmptyStreams();
}

absl::Status LogStore::DropEmptyStreams() {
  std::set<std::int64_t> empty;
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query("SELECT id FROM stream s WHERE NOT EXISTS "
                                                   "(SELECT 1 FROM chunk WHERE stream=s.id)"));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) break;
      empty.insert(rows.Int(0));
    }
  }
  for (const std::int64_t id : empty) {
    const auto it = streams_.find(id);
    if (it == streams_.end() || it->second->in_use) continue;  // its place is still needed
    TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM stream WHERE id=?", {id}));
    ids_.erase(Joined(it->second->key));
    streams_.erase(it);
  }
  return absl::OkStatus();
}

absl::Status LogStore::DropOverSize() {
  absl::Status status = DropOldest();
  if (!absl::IsResourceExhausted(status)) return status;
  // Even to remove something SQLite must write a little: that is what the reserve is for.
  unlink(ReservePath().c_str());
  status = db_->Script("PRAGMA wal_checkpoint(TRUNCATE)");
  status.Update(DropOldest());
  status.Update(db_->Script("PRAGMA wal_checkpoint(TRUNCATE)"));
  KeepReserve();
  return status;
}

std::string LogStore::ReservePath() const { return options_.path + ".reserve"; }

void LogStore::KeepReserve() const {
  const int fd = open(ReservePath().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;  // the disk is full already: it is made when there is room
  if (posix_fallocate(fd, 0, kReserveBytes) != 0) unlink(ReservePath().c_str());
  close(fd);
}

absl::Status LogStore::DropOldest() {
  const auto pragma = [this](std::string_view name) -> absl::StatusOr<std::uint64_t> {
    auto rows = db_->Query(name);
    TAKT_RETURN_IF_ERROR(rows.status());
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    return more ? static_cast<std::uint64_t>(rows->Int(0)) : 0;
  };
  TAKT_ASSIGN_OR_RETURN(const std::uint64_t page, pragma("PRAGMA page_size"));
  TAKT_ASSIGN_OR_RETURN(const std::uint64_t pages, pragma("PRAGMA page_count"));
  TAKT_ASSIGN_OR_RETURN(std::uint64_t free_pages, pragma("PRAGMA freelist_count"));
  const std::uint64_t used = (pages - free_pages) * page;
  std::uint64_t limit = options_.max_bytes;
  std::string why = StrCat("the log store reached ", FormatBytes(limit));
  struct statvfs disk;
  if (statvfs(options_.path.c_str(), &disk) == 0) {
    // What is dropped becomes free pages of the file, which new entries use.
    const std::uint64_t room = std::uint64_t{disk.f_bavail} * disk.f_frsize + free_pages * page;
    const std::uint64_t wanted = std::min(
        kMinFreeBytes, std::max<std::uint64_t>(2 * kReserveBytes,
                                               std::uint64_t{disk.f_blocks} * disk.f_frsize / 20));
    if (room < wanted && used - std::min(used, wanted - room) < limit) {
      limit = used - std::min(used, wanted - room);
      why = "the disk is nearly full";
    }
  }
  std::int64_t dropped = 0;
  while ((pages - free_pages) * page > limit) {
    std::int64_t chunk = 0, entries = 0;
    {
      auto rows =
          db_->Query("SELECT id, entries FROM chunk WHERE entries>0 ORDER BY last_us LIMIT 1");
      TAKT_RETURN_IF_ERROR(rows.status());
      TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
      if (!more) break;
      chunk = rows->Int(0);
      entries = rows->Int(1);
    }
    for (auto& [id, stream] : streams_) {
      if (stream->chunk != chunk) continue;
      entries = std::max(entries, std::ssize(stream->columns.times_us));
      stream->columns.Clear();
      stream->chunk = 0;
      stream->dirty = false;
    }
    TAKT_RETURN_IF_ERROR(CountUnread("c.id=?", {chunk}));
    TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM chunk WHERE id=?", {chunk}));
    dropped += entries;
    TAKT_ASSIGN_OR_RETURN(free_pages, pragma("PRAGMA freelist_count"));
  }
  if (dropped == 0) return absl::OkStatus();
  TAKT_RETURN_IF_ERROR(
      db_->Run("INSERT INTO total VALUES('dropped',?) ON CONFLICT DO UPDATE SET "
               "value = value + excluded.value",
               {dropped}));
  // Nothing goes silently: the store says it in a line of its own.
  TAKT_ASSIGN_OR_RETURN(const std::int64_t id,
                        StreamLocked({.service = "takt", .store = "takt"}, 0));
  const Entry said{
      std::chrono::duration_cast<std::chrono::microseconds>(clock_.Now().time_since_epoch())
          .count(),
      Level::kWarn, false, StrCat(why, ": the oldest ", dropped, " entries were dropped")};
  return AppendLocked(*FindStream(id), {&said, 1}, nullptr);
}

absl::StatusOr<std::vector<LogStore::ChunkRow>> LogStore::ListChunks(std::int64_t from_us,
                                                                     std::int64_t to_us,
                                                                     bool newest_first) {
  const std::lock_guard lock(read_mutex_);
  auto rows = reader_->Query(
      newest_first
          ? "SELECT id, stream, first_us, last_us, entries, levels FROM chunk WHERE last_us>=? AND "
            "first_us<? AND entries>0 ORDER BY last_us DESC"
          : "SELECT id, stream, first_us, last_us, entries, levels FROM chunk WHERE last_us>=? AND "
            "first_us<? AND entries>0 ORDER BY first_us",
      {from_us, to_us});
  TAKT_RETURN_IF_ERROR(rows.status());
  std::vector<ChunkRow> list;
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    if (!more) return list;
    ChunkRow row{rows->Int(0), rows->Int(1), rows->Int(2), rows->Int(3), rows->Int(4), {}};
    const std::string_view levels = rows->Blob(5);
    if (levels.size() == sizeof(row.levels)) {
      std::memcpy(row.levels.data(), levels.data(), levels.size());
    }
    list.push_back(row);
  }
}

absl::StatusOr<std::string> LogStore::ReadFilter(std::int64_t chunk) {
  const std::lock_guard lock(read_mutex_);
  auto rows = reader_->Query("SELECT data FROM filter WHERE chunk=?", {chunk});
  TAKT_RETURN_IF_ERROR(rows.status());
  TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
  return more ? std::string(rows->Blob(0)) : std::string();
}

absl::Status LogStore::ReadColumns(std::int64_t chunk, bool with_text, Columns& columns) {
  columns.Clear();
  const std::lock_guard lock(read_mutex_);
  // Both by one statement: a chunk that still grows is written anew between two, and its text does
  // not fit an older meta.
  auto rows = reader_->Query(
      with_text ? "SELECT m.data, b.data FROM meta m JOIN body b ON b.chunk=m.chunk WHERE m.chunk=?"
                : "SELECT data FROM meta WHERE chunk=?",
      {chunk});
  TAKT_RETURN_IF_ERROR(rows.status());
  TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
  if (!more) return absl::OkStatus();
  TAKT_RETURN_IF_ERROR(DecodeMeta(rows->Blob(0), columns));
  return with_text ? DecodeText(rows->Blob(1), columns) : absl::OkStatus();
}

void LogStore::ForMatches(const Query& query, const StreamKey& key, const Columns& columns,
                          std::int64_t from_us, std::int64_t to_us,
                          const std::function<void(std::size_t)>& visit) {
  const auto in_time = [&](std::size_t i) {
    return columns.times_us[i] >= from_us && columns.times_us[i] < to_us;
  };
  if (query.AlwaysMatchesStream(key)) {
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (in_time(i)) visit(i);
    }
    return;
  }
  std::string lower = columns.text;
  LowerAscii(lower);
  const auto check = [&](std::size_t i) {
    const std::size_t begin = i == 0 ? 0 : columns.ends[i - 1];
    const Subject subject{&key, columns.LevelOf(i), columns.IsStderr(i), columns.Text(i),
                          std::string_view(lower).substr(begin, columns.ends[i] - begin)};
    if (query.Match(subject)) visit(i);
  };
  const std::string_view anchor = query.anchor();
  if (anchor.empty()) {
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (in_time(i)) check(i);
    }
    return;
  }
  // Only entries that hold the anchor can match: jump from one to the next.
  const char* const base = lower.data();
  for (std::size_t at = 0; at < lower.size();) {
    const void* hit = memmem(base + at, lower.size() - at, anchor.data(), anchor.size());
    if (hit == nullptr) return;
    const auto offset = static_cast<std::uint32_t>(static_cast<const char*>(hit) - base);
    const auto i = static_cast<std::size_t>(
        std::upper_bound(columns.ends.begin(), columns.ends.end(), offset) - columns.ends.begin());
    if (in_time(i)) check(i);
    at = columns.ends[i];
  }
}

absl::StatusOr<SearchResult> LogStore::Search(const Query& query, const SearchOptions& options) {
  SearchResult result;
  Collected collected(options);
  std::map<std::int64_t, StreamKey> keys;
  std::vector<std::int64_t> seen;  // chunks looked at in memory
  {
    const std::lock_guard lock(mutex_);
    for (const auto& each : streams_) {
      const std::int64_t id = each.first;
      const OpenStream* const stream = each.second.get();
      if (!query.MayMatchStream(stream->key)) continue;
      keys[id] = stream->key;
      if (stream->chunk == 0) continue;
      seen.push_back(stream->chunk);
      result.scanned_entries += stream->columns.size();
      ForMatches(query, stream->key, stream->columns, options.from_us, options.to_us,
                 [&](std::size_t i) {
                   collected.Add({stream->chunk, static_cast<std::int64_t>(i)}, stream->key,
                                 stream->columns, i);
                 });
    }
  }
  std::sort(seen.begin(), seen.end());
  TAKT_ASSIGN_OR_RETURN(const std::vector<ChunkRow> chunks,
                        ListChunks(options.from_us, options.to_us, options.newest_first));
  Columns columns;
  for (const ChunkRow& chunk : chunks) {
    if (collected.Done(options.newest_first ? chunk.last_us : chunk.first_us)) break;
    const auto key = keys.find(chunk.stream);
    if (key == keys.end() || std::binary_search(seen.begin(), seen.end(), chunk.id)) continue;
    if (options.after.chunk != 0 &&
        (options.newest_first ? chunk.first_us > options.after_time_us
                              : chunk.last_us < options.after_time_us)) {
      continue;
    }
    if (std::chrono::steady_clock::now() > options.deadline) {
      result.complete = false;
      break;
    }
    if (!query.AlwaysMatchesStream(key->second)) {
      TAKT_ASSIGN_OR_RETURN(const std::string filter, ReadFilter(chunk.id));
      if (!query.MayMatchChunk(key->second, filter)) continue;
    }
    TAKT_RETURN_IF_ERROR(ReadColumns(chunk.id, true, columns));
    result.scanned_entries += columns.size();
    ForMatches(query, key->second, columns, options.from_us, options.to_us, [&](std::size_t i) {
      collected.Add({chunk.id, static_cast<std::int64_t>(i)}, key->second, columns, i);
    });
  }
  result.entries = collected.Take(result.more);
  return result;
}

absl::StatusOr<HistogramResult> LogStore::Histogram(
    const Query& query, std::int64_t from_us, std::int64_t to_us, std::size_t buckets,
    std::chrono::steady_clock::time_point deadline) {
  if (to_us <= from_us) {
    return absl::InvalidArgumentError("histogram: expected from before to");
  }
  buckets = std::clamp<std::size_t>(buckets, 1, kMaxHistogramBuckets);
  HistogramResult result;
  result.from_us = from_us;
  const auto span = static_cast<std::uint64_t>(to_us) - static_cast<std::uint64_t>(from_us);
  result.bucket_us = static_cast<std::int64_t>((span + buckets - 1) / buckets);
  result.buckets.resize(buckets);
  const auto bucket_of = [&](std::int64_t time_us) {
    return static_cast<std::size_t>((time_us - from_us) / result.bucket_us);
  };
  const auto count = [&](const Query& q, const StreamKey& key, const Columns& columns) {
    ForMatches(q, key, columns, from_us, to_us, [&](std::size_t i) {
      ++result.buckets[bucket_of(columns.times_us[i])][columns.flags[i] & 7];
      ++result.total;
    });
  };
  std::map<std::int64_t, StreamKey> keys;
  std::vector<std::int64_t> seen;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, stream] : streams_) {
      if (!query.MayMatchStream(stream->key)) continue;
      keys[id] = stream->key;
      if (stream->chunk == 0) continue;
      seen.push_back(stream->chunk);
      count(query, stream->key, stream->columns);
    }
  }
  std::sort(seen.begin(), seen.end());
  TAKT_ASSIGN_OR_RETURN(const std::vector<ChunkRow> chunks, ListChunks(from_us, to_us, true));
  Columns columns;
  for (const ChunkRow& chunk : chunks) {
    const auto key = keys.find(chunk.stream);
    if (key == keys.end() || std::binary_search(seen.begin(), seen.end(), chunk.id)) continue;
    if (std::chrono::steady_clock::now() > deadline) {
      result.complete = false;
      break;
    }
    const bool always = query.AlwaysMatchesStream(key->second);
    if (always && chunk.first_us >= from_us && chunk.last_us < to_us &&
        bucket_of(chunk.first_us) == bucket_of(chunk.last_us)) {
      auto& bucket = result.buckets[bucket_of(chunk.first_us)];
      for (int level = 0; level < kLevels; ++level) bucket[level] += chunk.levels[level];
      result.total += static_cast<std::uint64_t>(chunk.entries);
      continue;
    }
    if (!always) {
      TAKT_ASSIGN_OR_RETURN(const std::string filter, ReadFilter(chunk.id));
      if (!query.MayMatchChunk(key->second, filter)) continue;
    }
    TAKT_RETURN_IF_ERROR(ReadColumns(chunk.id, !always, columns));
    count(query, key->second, columns);
  }
  return result;
}

absl::StatusOr<std::vector<FoundEntry>> LogStore::Context(EntryId id, std::size_t before,
                                                          std::size_t after) {
  before = std::min(before, kMaxSearchEntries / 2);
  after = std::min(after, kMaxSearchEntries / 2);
  TAKT_RETURN_IF_ERROR(Flush());
  std::vector<std::int64_t> chunks;
  std::int64_t stream_id = 0;
  StreamKey key;
  {
    const std::lock_guard lock(read_mutex_);
    {
      auto rows = reader_->Query(
          "SELECT s.app, s.service, s.instance, s.store, s.node, s.run, s.revision, s.file, "
          "s.inode, s.id FROM chunk c JOIN stream s ON s.id=c.stream WHERE c.id=? AND c.entries>?",
          {id.chunk, id.index});
      TAKT_RETURN_IF_ERROR(rows.status());
      TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
      if (!more || id.index < 0) {
        return absl::NotFoundError(
            absl::StrCat("log entry ", id.chunk, ".", id.index, " is no longer kept"));
      }
      key = KeyOf(*rows, 0);
      stream_id = rows->Int(9);
    }
    auto rows = reader_->Query("SELECT id FROM chunk WHERE stream=? AND entries>0 ORDER BY id",
                               {stream_id});
    TAKT_RETURN_IF_ERROR(rows.status());
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
      if (!more) break;
      chunks.push_back(rows->Int(0));
    }
  }
  const auto self = std::lower_bound(chunks.begin(), chunks.end(), id.chunk);
  std::vector<FoundEntry> earlier, later;
  Columns columns;
  for (auto at = self;; --at) {
    TAKT_RETURN_IF_ERROR(ReadColumns(*at, true, columns));
    std::size_t i = at == self ? static_cast<std::size_t>(id.index) : columns.size();
    while (i-- > 0 && earlier.size() < before) {
      earlier.push_back({{*at, static_cast<std::int64_t>(i)}, key, EntryAt(columns, i)});
    }
    if (earlier.size() >= before || at == chunks.begin()) break;
  }
  for (auto at = self; at != chunks.end() && later.size() <= after; ++at) {
    TAKT_RETURN_IF_ERROR(ReadColumns(*at, true, columns));
    for (std::size_t i = at == self ? static_cast<std::size_t>(id.index) : 0;
         i < columns.size() && later.size() <= after; ++i) {
      later.push_back({{*at, static_cast<std::int64_t>(i)}, key, EntryAt(columns, i)});
    }
  }
  std::reverse(earlier.begin(), earlier.end());
  std::move(later.begin(), later.end(), std::back_inserter(earlier));
  return earlier;
}

absl::StatusOr<LogStore::Tail> LogStore::Follow(
    std::shared_ptr<const Query> query,
    std::function<bool(const std::vector<FoundEntry>&)> on_entries) {
  auto follower = std::make_shared<Follower>();
  follower->query = std::move(query);
  follower->on_entries = std::move(on_entries);
  const std::lock_guard lock(followers_mutex_);
  std::erase_if(followers_, [](const auto& weak) {
    const auto f = weak.lock();
    return f == nullptr || !f->active;
  });
  if (followers_.size() >= kMaxTails) {
    return absl::ResourceExhaustedError(
        absl::StrCat("live tails: at most ", kMaxTails, " at once; close one and try again"));
  }
  followers_.push_back(follower);
  return Tail(follower.get(), [follower](void*) {
    const std::lock_guard call_lock(follower->mutex);
    follower->active = false;
  });
}

void LogStore::Notify(const std::vector<FoundEntry>& added) {
  std::vector<std::shared_ptr<Follower>> followers;
  {
    const std::lock_guard lock(followers_mutex_);
    for (const auto& weak : followers_) {
      if (auto follower = weak.lock()) followers.push_back(std::move(follower));
    }
  }
  for (const auto& follower : followers) {
    if (!follower->active) continue;
    std::vector<FoundEntry> matches;
    for (const FoundEntry& found : added) {
      std::string lower = found.entry.text;
      LowerAscii(lower);
      if (follower->query->Match(
              {&found.stream, found.entry.level, found.entry.is_stderr, found.entry.text, lower})) {
        matches.push_back(found);
      }
    }
    if (matches.empty()) continue;
    const std::lock_guard lock(follower->mutex);
    if (follower->active && !follower->on_entries(matches)) follower->active = false;
  }
}

// ---- Durable readers ----

absl::Status LogStore::CountUnread(std::string_view condition,
                                   std::initializer_list<SqlValue> values) {
  return db_->Run(StrCat("UPDATE reader AS r SET removed = removed + (SELECT coalesce(sum(",
                         kUnreadEntries, "),0)", kUnreadJoin, condition, " AND ", kUnread, ")"),
                  values);
}

std::int64_t LogStore::OldestOpenChunk() const {
  std::int64_t oldest = INT64_MAX;
  for (const auto& [id, stream] : streams_) {
    if (stream->chunk != 0) oldest = std::min(oldest, stream->chunk);
  }
  return oldest;
}

absl::StatusOr<std::vector<std::string>> LogStore::Readers() {
  const std::lock_guard lock(mutex_);
  TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query("SELECT name FROM reader"));
  std::vector<std::string> names;
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
    if (!more) return names;
    names.emplace_back(rows.Text(0));
  }
}

absl::Status LogStore::AddReader(const std::string& name, bool from_start) {
  const std::lock_guard lock(mutex_);
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query("SELECT count(*) FROM reader"));
    TAKT_RETURN_IF_ERROR(rows.Next().status());
    if (rows.Int(0) >= static_cast<std::int64_t>(kMaxReaders)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("there are ", kMaxReaders, " readers of the log store, the most allowed"));
    }
  }
  TAKT_RETURN_IF_ERROR(FlushLocked(true));
  auto transaction = SqlTransaction::Begin(*db_);
  TAKT_RETURN_IF_ERROR(transaction.status());
  TAKT_RETURN_IF_ERROR(db_->Run("INSERT INTO reader VALUES(?,0,0)", {std::string_view(name)}));
  if (!from_start) {
    TAKT_RETURN_IF_ERROR(db_->Run(
        "UPDATE reader SET low=(SELECT min(?, coalesce(max(id)+1,1)) FROM chunk) WHERE name=?",
        {OldestOpenChunk(), std::string_view(name)}));
    TAKT_RETURN_IF_ERROR(
        db_->Run("INSERT INTO reader_cursor SELECT r.name, c.stream, c.id, c.entries "
                 "FROM reader r JOIN chunk c ON c.id>=r.low WHERE r.name=? AND c.id="
                 "(SELECT max(id) FROM chunk WHERE stream=c.stream)",
                 {std::string_view(name)}));
  }
  return transaction->Commit();
}

absl::Status LogStore::RemoveReader(const std::string& name) {
  const std::lock_guard lock(mutex_);
  TAKT_RETURN_IF_ERROR(
      db_->Run("DELETE FROM reader_cursor WHERE reader=?", {std::string_view(name)}));
  return db_->Run("DELETE FROM reader WHERE name=?", {std::string_view(name)});
}

absl::StatusOr<ReaderBatch> LogStore::ReadNext(const std::string& name, const Query& query,
                                               std::size_t max_entries, std::size_t max_bytes) {
  struct Piece {
    std::int64_t chunk, stream, begin, end;
    StreamKey key;
  };
  // Only so many chunks at once: one that has a match in a thousand lines is read on the next call.
  constexpr std::int64_t kChunksAtOnce = 64;
  std::vector<Piece> pieces;
  {
    const std::lock_guard lock(read_mutex_);
    {
      TAKT_ASSIGN_OR_RETURN(SqlRows rows, reader_->Query("SELECT 1 FROM reader WHERE name=?",
                                                         {std::string_view(name)}));
      TAKT_ASSIGN_OR_RETURN(const bool found, rows.Next());
      if (!found) return absl::NotFoundError(StrCat("no reader ", name, " of the log store"));
    }
    const std::string sql = StrCat(
        "SELECT s.app, s.service, s.instance, s.store, s.node, s.run, s.revision, s.file, s.inode, "
        "c.id, c.stream, CASE WHEN k.chunk=c.id THEN k.next ELSE 0 END, c.entries "
        "FROM reader r JOIN chunk c LEFT JOIN reader_cursor k ON k.reader=r.name AND "
        "k.stream=c.stream JOIN stream s ON s.id=c.stream WHERE r.name=? AND ",
        kUnread, " ORDER BY c.id LIMIT ?");
    TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                          reader_->Query(sql, {std::string_view(name), kChunksAtOnce}));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) break;
      pieces.push_back({rows.Int(9), rows.Int(10), rows.Int(11), rows.Int(12), KeyOf(rows, 0)});
    }
  }
  ReaderBatch batch;
  std::size_t bytes = 0;
  Columns columns;
  for (const Piece& piece : pieces) {
    std::int64_t end = piece.end;
    if (query.MayMatchStream(piece.key)) {
      TAKT_RETURN_IF_ERROR(ReadColumns(piece.chunk, true, columns));
      end = std::min<std::int64_t>(end, std::ssize(columns.times_us));
      std::string lower;
      for (std::int64_t i = piece.begin; i < end; ++i) {
        if (batch.entries.size() >= max_entries || (bytes > 0 && bytes >= max_bytes)) {
          end = i;
          break;
        }
        const auto at = static_cast<std::size_t>(i);
        const std::string_view text = columns.Text(at);
        lower = text;
        LowerAscii(lower);
        if (!query.Match({&piece.key, columns.LevelOf(at), columns.IsStderr(at), text, lower})) {
          continue;
        }
        batch.entries.push_back({{piece.chunk, i}, piece.key, EntryAt(columns, at)});
        bytes += text.size();
      }
    }
    if (end > piece.begin) batch.passed += static_cast<std::uint64_t>(end - piece.begin);
    batch.ends[piece.stream] = {piece.chunk, end};
    if (end < piece.end) {
      batch.more = true;
      return batch;
    }
  }
  batch.more = std::ssize(pieces) == kChunksAtOnce;
  return batch;
}

absl::Status LogStore::CommitRead(const std::string& name, const ReaderBatch& batch) {
  if (batch.ends.empty()) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  auto transaction = SqlTransaction::Begin(*db_);
  TAKT_RETURN_IF_ERROR(transaction.status());
  for (const auto& [stream, end] : batch.ends) {
    TAKT_RETURN_IF_ERROR(
        db_->Run("INSERT OR REPLACE INTO reader_cursor "
                 "SELECT name, ?2, ?3, ?4 FROM reader WHERE name=?1",
                 {std::string_view(name), stream, end.chunk, end.index}));
  }
  if (!batch.more) {
    // Everything on the disk has been read: only chunks that are open now, or new, can hold more.
    TAKT_RETURN_IF_ERROR(db_->Run(
        StrCat("UPDATE reader AS r SET low=max(low, (SELECT min(?2, "
               "coalesce(max(id)+1,1)) FROM chunk)) WHERE name=?1 AND NOT EXISTS (SELECT 1",
               kUnreadJoin, kUnread, ")"),
        {std::string_view(name), OldestOpenChunk()}));
    TAKT_RETURN_IF_ERROR(
        db_->Run("DELETE FROM reader_cursor WHERE reader=?1 AND "
                 "chunk<(SELECT low FROM reader WHERE name=?1)",
                 {std::string_view(name)}));
  }
  return transaction->Commit();
}

absl::StatusOr<ReaderState> LogStore::StateOfReader(const std::string& name) {
  const std::lock_guard lock(read_mutex_);
  TAKT_ASSIGN_OR_RETURN(
      SqlRows rows,
      reader_->Query(StrCat("SELECT r.removed, (SELECT coalesce(sum(", kUnreadEntries, "),0)",
                            kUnreadJoin, kUnread, "), (SELECT coalesce(min(c.first_us),0)",
                            kUnreadJoin, kUnread, ") FROM reader r WHERE r.name=?"),
                     {std::string_view(name)}));
  TAKT_ASSIGN_OR_RETURN(const bool found, rows.Next());
  if (!found) return absl::NotFoundError(StrCat("no reader ", name, " of the log store"));
  return ReaderState{static_cast<std::uint64_t>(rows.Int(1)), rows.Int(2),
                     static_cast<std::uint64_t>(rows.Int(0))};
}

absl::StatusOr<StoreStats> LogStore::Stats() {
  const std::lock_guard lock(mutex_);
  StoreStats stats;
  stats.streams = streams_.size();
  const auto number = [this](std::string_view sql) -> absl::StatusOr<std::uint64_t> {
    auto rows = db_->Query(sql);
    TAKT_RETURN_IF_ERROR(rows.status());
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    return more ? static_cast<std::uint64_t>(rows->Int(0)) : 0;
  };
  TAKT_ASSIGN_OR_RETURN(stats.entries, number("SELECT coalesce(sum(entries),0) FROM chunk"));
  TAKT_ASSIGN_OR_RETURN(stats.text_bytes, number("SELECT coalesce(sum(text_bytes),0) FROM chunk"));
  TAKT_ASSIGN_OR_RETURN(const std::uint64_t page, number("PRAGMA page_size"));
  TAKT_ASSIGN_OR_RETURN(const std::uint64_t pages, number("PRAGMA page_count"));
  stats.disk_bytes = page * pages;
  TAKT_ASSIGN_OR_RETURN(stats.dropped_entries,
                        number("SELECT coalesce(sum(value),0) FROM total WHERE name='dropped'"));
  return stats;
}

std::vector<StreamKey> LogStore::Streams() {
  const std::lock_guard lock(mutex_);
  std::vector<StreamKey> keys;
  keys.reserve(streams_.size());
  for (const auto& [id, stream] : streams_) keys.push_back(stream->key);
  return keys;
}

}  // namespace takt::logs
