#include "learning/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/fs.h"
#include "base/tfrecord.h"

namespace takt::learning {
namespace {

constexpr std::size_t kBlockBytes = 1 << 20;   // read at once
constexpr std::int64_t kPointsPerChunk = 512;  // of one row: what a growing curve rewrites
constexpr std::size_t kPointBytes = sizeof(Point);
static_assert(kPointBytes == 24);

constexpr const char* kSchema = R"(
CREATE TABLE IF NOT EXISTS file(
  id INTEGER PRIMARY KEY, app TEXT NOT NULL, service TEXT NOT NULL, name TEXT NOT NULL,
  writer TEXT NOT NULL, inode INTEGER NOT NULL, position INTEGER NOT NULL DEFAULT 0,
  first_wall REAL, last_wall REAL, corrupt INTEGER NOT NULL DEFAULT 0,
  skipped INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS file_app ON file(app, first_wall);
CREATE TABLE IF NOT EXISTS series(
  id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES file(id) ON DELETE CASCADE,
  tag TEXT NOT NULL, kind INTEGER NOT NULL, count INTEGER NOT NULL, last_step INTEGER NOT NULL,
  last_wall REAL NOT NULL, last_value REAL, least REAL, greatest REAL, UNIQUE(file, tag));
CREATE TABLE IF NOT EXISTS chunk(
  series INTEGER NOT NULL REFERENCES series(id) ON DELETE CASCADE, number INTEGER NOT NULL,
  data BLOB NOT NULL, PRIMARY KEY(series, number));
CREATE TABLE IF NOT EXISTS item(
  series INTEGER NOT NULL REFERENCES series(id) ON DELETE CASCADE, number INTEGER NOT NULL,
  step INTEGER NOT NULL, wall REAL NOT NULL, data BLOB NOT NULL, PRIMARY KEY(series, number));
CREATE TABLE IF NOT EXISTS hyperparameter(
  file INTEGER NOT NULL REFERENCES file(id) ON DELETE CASCADE, name TEXT NOT NULL,
  value TEXT NOT NULL, PRIMARY KEY(file, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unknown(
  file INTEGER NOT NULL REFERENCES file(id) ON DELETE CASCADE, plugin TEXT NOT NULL,
  count INTEGER NOT NULL, PRIMARY KEY(file, plugin)) WITHOUT ROWID;
)";

struct FoundFile {
  std::string name;  // relative to the source's directory
  std::uint64_t inode = 0, size = 0;
};

// Event files below `directory`, links not followed.
void FindEventFiles(const std::string& directory, const std::string& prefix, int depth,
                    std::size_t& entries, std::vector<FoundFile>& out) {
  DIR* dir = opendir(directory.c_str());
  if (dir == nullptr) return;
  while (dirent* entry = readdir(dir)) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (++entries > kMaxScanEntries) break;
    struct stat st;
    if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (S_ISDIR(st.st_mode) && depth < kMaxScanDepth) {
      FindEventFiles(JoinPath(directory, name), JoinPath(prefix, name), depth + 1, entries, out);
    } else if (S_ISREG(st.st_mode) && name.find(".tfevents.") != std::string_view::npos) {
      out.push_back({JoinPath(prefix, name), st.st_ino, static_cast<std::uint64_t>(st.st_size)});
    }
  }
  closedir(dir);
}

std::string WriterOf(const std::string& name) {
  const auto slash = name.rfind('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

std::string_view PointBytes(const std::vector<Point>& points, std::size_t from, std::size_t count) {
  return {reinterpret_cast<const char*>(points.data() + from), count * kPointBytes};
}

}  // namespace

// How far a file has been read, and the series in it.
struct LearningStore::File {
  struct Series {
    std::int64_t id = 0;
    Kind kind = Kind::kScalar;
    std::int64_t count = 0;
    double least = std::nan(""), greatest = std::nan("");
  };
  std::string name;  // relative to the source's directory
  std::int64_t id = 0;
  std::uint64_t inode = 0;
  std::uint64_t position = 0;
  std::uint64_t stuck_size = 0;  // nothing more could be read when the file had this size
  std::map<std::string, Series, std::less<>> series;
};

// Gathers the values of one block and writes them in one transaction.
class LearningStore::BlockWriter {
 public:
  BlockWriter(Sqlite& db, File& file) : db_(db), file_(file) {}

  void Add(Event event) {
    first_wall_ = seen_ ? first_wall_ : event.wall_time;
    last_wall_ = seen_ ? std::max(last_wall_, event.wall_time) : event.wall_time;
    seen_ = true;
    for (const std::string& plugin : event.unknown_plugins) ++unknown_[plugin];
    for (auto& [name, value] : event.hyperparameters) hyperparameters_[name] = value;
    for (Value& value : event.values) AddValue(event, value);
  }
  void AddCorrupt() { ++corrupt_; }
  void AddSkipped() { ++skipped_; }
  std::size_t values() const { return values_; }

  absl::Status Commit(std::uint64_t position) {
    auto transaction = SqlTransaction::Begin(db_);
    TAKT_RETURN_IF_ERROR(transaction.status());
    for (auto& [tag, pending] : pending_) TAKT_RETURN_IF_ERROR(Write(tag, pending));
    for (const auto& [name, value] : hyperparameters_) {
      TAKT_RETURN_IF_ERROR(db_.Run("INSERT OR REPLACE INTO hyperparameter VALUES(?,?,?)",
                                   {file_.id, std::string_view(name), std::string_view(value)}));
    }
    for (const auto& [plugin, count] : unknown_) {
      TAKT_RETURN_IF_ERROR(
          db_.Run("INSERT INTO unknown VALUES(?,?,?) ON CONFLICT DO UPDATE SET "
                  "count = count + excluded.count",
                  {file_.id, std::string_view(plugin), count}));
    }
    TAKT_RETURN_IF_ERROR(
        db_.Run("UPDATE file SET position=?2, corrupt=corrupt+?3, skipped=skipped+?4 WHERE id=?1",
                {file_.id, static_cast<std::int64_t>(position), corrupt_, skipped_}));
    if (seen_) {
      TAKT_RETURN_IF_ERROR(
          db_.Run("UPDATE file SET first_wall=coalesce(first_wall, ?2), "
                  "last_wall=max(coalesce(last_wall, ?3), ?3) WHERE id=?1",
                  {file_.id, first_wall_, last_wall_}));
    }
    TAKT_RETURN_IF_ERROR(transaction->Commit());
    for (auto& [tag, pending] : pending_) file_.series[tag] = pending.series;
    file_.position = position;
    return absl::OkStatus();
  }

 private:
  struct Pending {
    File::Series series;  // as it will be
    std::vector<Point> points;
    std::vector<Item> items;
    Point last;
  };

  void AddValue(const Event& event, Value& value) {
    auto it = pending_.find(value.tag);
    if (it == pending_.end()) {
      const auto known = file_.series.find(value.tag);
      if (known == file_.series.end() &&
          file_.series.size() + pending_.size() >= kMaxSeriesPerSource) {
        ++skipped_;
        return;
      }
      Pending fresh;
      if (known != file_.series.end()) {
        fresh.series = known->second;
      } else {
        fresh.series.kind = value.kind;
      }
      it = pending_.emplace(std::string(value.tag), std::move(fresh)).first;
    }
    Pending& pending = it->second;
    if (value.kind != pending.series.kind) {
      ++skipped_;
      return;
    }
    pending.last = {event.step, event.wall_time, value.scalar};
    switch (value.kind) {
      case Kind::kScalar:
        pending.points.push_back(pending.last);
        if (std::isfinite(value.scalar)) {
          pending.series.least = std::fmin(pending.series.least, value.scalar);
          pending.series.greatest = std::fmax(pending.series.greatest, value.scalar);
        }
        break;
      case Kind::kHistogram:
        AddItem(pending, event,
                {reinterpret_cast<const char*>(value.histogram.data()),
                 value.histogram.size() * sizeof(HistogramBucket)});
        break;
      case Kind::kImage:
        AddItem(pending, event, value.image);
        break;
      case Kind::kText: {
        std::string text;
        for (const std::string_view part : value.text)
          text += StrCat(text.empty() ? "" : "\n", part);
        AddItem(pending, event, text);
        break;
      }
    }
    ++values_;
  }

  void AddItem(Pending& pending, const Event& event, std::string_view data) {
    if (data.size() > kMaxItemBytes) {
      ++skipped_;
      return;
    }
    pending.items.push_back(
        {.step = event.step, .wall_time = event.wall_time, .data = std::string(data)});
    if (pending.items.size() > kMaxItemsPerSeries) {
      pending.items.erase(pending.items.begin());
      ++pending.series.count;
    }
  }

  absl::Status Write(const std::string& tag, Pending& pending) {
    File::Series& series = pending.series;
    if (series.id == 0) {
      TAKT_RETURN_IF_ERROR(db_.Run(
          "INSERT INTO series(file, tag, kind, count, last_step, last_wall) VALUES(?,?,?,0,0,0)",
          {file_.id, std::string_view(tag), static_cast<std::int64_t>(series.kind)}));
      series.id = db_.last_insert_id();
    }
    for (std::size_t from = 0; from < pending.points.size();) {
      const std::int64_t room = kPointsPerChunk - series.count % kPointsPerChunk;
      const auto count =
          std::min<std::size_t>(static_cast<std::size_t>(room), pending.points.size() - from);
      TAKT_RETURN_IF_ERROR(
          db_.Run("INSERT INTO chunk VALUES(?,?,?) ON CONFLICT DO UPDATE SET "
                  "data = CAST(data || excluded.data AS BLOB)",
                  {series.id, series.count / kPointsPerChunk,
                   SqlBlob{PointBytes(pending.points, from, count)}}));
      series.count += static_cast<std::int64_t>(count);
      from += count;
    }
    for (const Item& item : pending.items) {
      TAKT_RETURN_IF_ERROR(
          db_.Run("INSERT INTO item VALUES(?,?,?,?,?)",
                  {series.id, series.count++, item.step, item.wall_time, SqlBlob{item.data}}));
    }
    if (!pending.items.empty()) {
      TAKT_RETURN_IF_ERROR(
          db_.Run("DELETE FROM item WHERE series=? AND number<?",
                  {series.id, series.count - static_cast<std::int64_t>(kMaxItemsPerSeries)}));
    }
    return db_.Run(
        "UPDATE series SET count=?2, last_step=?3, last_wall=?4, last_value=?5, least=?6, "
        "greatest=?7 WHERE id=?1",
        {series.id, series.count, pending.last.step, pending.last.wall_time, pending.last.value,
         series.least, series.greatest});
  }

  Sqlite& db_;
  File& file_;
  bool seen_ = false;
  double first_wall_ = 0, last_wall_ = 0;
  std::int64_t corrupt_ = 0, skipped_ = 0;
  std::size_t values_ = 0;
  std::map<std::string, Pending, std::less<>> pending_;
  std::map<std::string, std::string> hyperparameters_;
  std::map<std::string, std::int64_t> unknown_;
};

LearningStore::LearningStore() = default;
LearningStore::~LearningStore() = default;

absl::StatusOr<std::unique_ptr<LearningStore>> LearningStore::Open(const std::string& path) {
  std::unique_ptr<LearningStore> store(new LearningStore);
  // Not durable: what a power cut takes is read from the event files again.
  TAKT_ASSIGN_OR_RETURN(store->db_, Sqlite::Open(path, {.durable = false}));
  TAKT_RETURN_IF_ERROR(store->db_->Script(kSchema));
  return store;
}

absl::StatusOr<LearningStore::File*> LearningStore::FindFile(const Source& source,
                                                             const std::string& name,
                                                             std::uint64_t inode,
                                                             std::uint64_t size) {
  const std::string key = StrCat(source.app, "/", source.service, "/", name);
  std::unique_ptr<File>& slot = files_[key];
  if (slot == nullptr) {
    auto file = std::make_unique<File>();
    file->name = name;
    {
      auto rows = db_->Query(
          "SELECT id, inode, position FROM file WHERE app=? AND service=? AND name=? "
          "ORDER BY id DESC LIMIT 1",
          {std::string_view(source.app), std::string_view(source.service), std::string_view(name)});
      TAKT_RETURN_IF_ERROR(rows.status());
      TAKT_ASSIGN_OR_RETURN(const bool found, rows->Next());
      if (found) {
        file->id = rows->Int(0);
        file->inode = static_cast<std::uint64_t>(rows->Int(1));
        file->position = static_cast<std::uint64_t>(rows->Int(2));
      }
    }
    if (file->id != 0) {
      auto rows = db_->Query(
          "SELECT tag, id, kind, count, least, greatest FROM series WHERE file=?", {file->id});
      TAKT_RETURN_IF_ERROR(rows.status());
      while (true) {
        TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
        if (!more) break;
        File::Series series{
            .id = rows->Int(1), .kind = static_cast<Kind>(rows->Int(2)), .count = rows->Int(3)};
        if (!rows->IsNull(4)) series.least = rows->Real(4);
        if (!rows->IsNull(5)) series.greatest = rows->Real(5);
        file->series.emplace(rows->Text(0), series);
      }
    }
    slot = std::move(file);
  }
  // Another file under the same name, or the same one begun anew: what was read stays as it is.
  if (slot->id == 0 || slot->inode != inode || size < slot->position) {
    auto file = std::make_unique<File>();
    file->name = name;
    file->inode = inode;
    TAKT_RETURN_IF_ERROR(db_->Run(
        "INSERT INTO file(app, service, name, writer, inode) VALUES(?,?,?,?,?)",
        {std::string_view(source.app), std::string_view(source.service), std::string_view(name),
         std::string_view(WriterOf(name)), static_cast<std::int64_t>(inode)}));
    file->id = db_->last_insert_id();
    slot = std::move(file);
  }
  return slot.get();
}

absl::Status LearningStore::ReadFile(const Source& source, File& file, std::uint64_t size,
                                     ScanReport& report) {
  const int fd =
      open(JoinPath(source.directory, file.name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    report.problems.push_back(StrCat(file.name, ": ", std::strerror(errno)));
    return absl::OkStatus();
  }
  std::string block;
  absl::Status status;
  std::uint64_t next_record = 0;  // size of the record that did not fit into the block, if known
  bool more = true;
  while (more && status.ok()) {
    block.resize(std::max<std::uint64_t>(kBlockBytes, next_record));
    const ssize_t got = pread(fd, block.data(), block.size(), static_cast<off_t>(file.position));
    if (got <= 0) break;
    std::string_view rest(block.data(), static_cast<std::size_t>(got));
    BlockWriter writer(*db_, file);
    std::uint64_t position = file.position;
    bool damaged = false;
    next_record = 0;
    while (!rest.empty()) {
      const TfRecordResult record = ReadTfRecord(rest, kMaxEventRecordBytes);
      damaged = record.state == TfRecordState::kCorrupt && record.size == 0;
      if (record.state == TfRecordState::kIncomplete || position + record.size > size) {
        next_record = record.size;
      }
      if (damaged || record.state == TfRecordState::kIncomplete || next_record != 0) break;
      if (record.state == TfRecordState::kRecord) {
        auto event = DecodeEvent(record.data);
        if (event.ok()) {
          writer.Add(std::move(*event));
        } else {
          writer.AddCorrupt();
        }
      } else if (record.state == TfRecordState::kTooLarge) {
        writer.AddSkipped();
      } else {
        writer.AddCorrupt();
      }
      position += record.size;
      rest.remove_prefix(std::min<std::uint64_t>(rest.size(), record.size));
    }
    if (damaged) {
      report.problems.push_back(position == 0 ? StrCat(file.name, ": not an event file")
                                              : StrCat(file.name, ": damaged at byte ", position,
                                                       "; nothing after it can be read"));
    }
    const bool progress = position != file.position;
    if (progress) {
      report.new_values += writer.values();
      status = writer.Commit(position);
    }
    const std::uint64_t left = size - file.position;
    more = !damaged && left != 0 && next_record <= left &&
           (progress || next_record > static_cast<std::uint64_t>(got));
  }
  close(fd);
  file.stuck_size = size;
  return status;
}

absl::StatusOr<ScanReport> LearningStore::Scan(const Source& source) {
  if (!IsDirectory(source.directory)) {
    return absl::NotFoundError(ToAbsl(StrCat(source.directory, " is not a directory")));
  }
  std::vector<FoundFile> found;
  std::size_t entries = 0;
  FindEventFiles(source.directory, "", 0, entries, found);
  std::sort(found.begin(), found.end(),
            [](const FoundFile& a, const FoundFile& b) { return a.name < b.name; });
  ScanReport report;
  report.files = found.size();
  if (entries > kMaxScanEntries) {
    report.problems.push_back(StrCat(source.directory, ": more than ", kMaxScanEntries,
                                     " entries; the rest is not looked at"));
  }
  for (const FoundFile& f : found) {
    const std::lock_guard lock(mutex_);
    TAKT_ASSIGN_OR_RETURN(File * file, FindFile(source, f.name, f.inode, f.size));
    if (f.size == file->position || f.size == file->stuck_size) continue;
    TAKT_RETURN_IF_ERROR(ReadFile(source, *file, f.size, report));
  }
  return report;
}

absl::StatusOr<std::vector<SeriesInfo>> LearningStore::List(const std::string& app,
                                                            const Window& window) {
  const std::lock_guard lock(mutex_);
  auto rows = db_->Query(
      "SELECT f.service, f.writer, s.tag, s.kind, s.count, s.last_step, s.last_wall, s.last_value, "
      "s.least, s.greatest FROM file f JOIN series s ON s.file=f.id "
      "WHERE f.app=? AND f.first_wall BETWEEN ? AND ? ORDER BY f.service, f.writer, s.tag, "
      "f.first_wall",
      {std::string_view(app), window.from, window.to});
  TAKT_RETURN_IF_ERROR(rows.status());
  std::vector<SeriesInfo> list;
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    if (!more) return list;
    const bool same = !list.empty() && list.back().service == rows->Text(0) &&
                      list.back().writer == rows->Text(1) && list.back().tag == rows->Text(2);
    if (!same) {
      list.push_back({.service = std::string(rows->Text(0)),
                      .writer = std::string(rows->Text(1)),
                      .tag = std::string(rows->Text(2)),
                      .kind = static_cast<Kind>(rows->Int(3)),
                      .min = std::nan(""),
                      .max = std::nan("")});
    }
    SeriesInfo& info = list.back();
    info.count += rows->Int(4);
    if (rows->Real(6) >= info.last_wall_time) {
      info.last_step = rows->Int(5);
      info.last_wall_time = rows->Real(6);
      info.last_value = rows->IsNull(7) ? std::nan("") : rows->Real(7);
    }
    if (!rows->IsNull(8)) info.min = std::fmin(info.min, rows->Real(8));
    if (!rows->IsNull(9)) info.max = std::fmax(info.max, rows->Real(9));
  }
}

absl::StatusOr<std::vector<Point>> LearningStore::Curve(const std::string& app,
                                                        const std::string& service,
                                                        const std::string& writer,
                                                        const std::string& tag,
                                                        const Window& window) {
  std::vector<Segment> segments;
  {
    const std::lock_guard lock(mutex_);
    auto rows = db_->Query(
        "SELECT s.id, s.count, c.data FROM file f JOIN series s ON s.file=f.id "
        "JOIN chunk c ON c.series=s.id WHERE f.app=? AND f.service=? AND f.writer=? AND s.tag=? "
        "AND f.first_wall BETWEEN ? AND ? ORDER BY s.id, c.number",
        {std::string_view(app), std::string_view(service), std::string_view(writer),
         std::string_view(tag), window.from, window.to});
    TAKT_RETURN_IF_ERROR(rows.status());
    std::int64_t current = 0;
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
      if (!more) break;
      if (segments.empty() || rows->Int(0) != current) {
        segments.emplace_back().reserve(static_cast<std::size_t>(rows->Int(1)));
        current = rows->Int(0);
      }
      const std::string_view data = rows->Blob(2);
      Segment& segment = segments.back();
      const std::size_t before = segment.size();
      segment.resize(before + data.size() / kPointBytes);
      std::memcpy(segment.data() + before, data.data(), (segment.size() - before) * kPointBytes);
    }
  }
  return JoinSegments(std::move(segments));
}

absl::StatusOr<std::vector<Item>> LearningStore::Items(const std::string& app,
                                                       const std::string& service,
                                                       const std::string& writer,
                                                       const std::string& tag, const Window& window,
                                                       const ItemOptions& options) {
  const std::lock_guard lock(mutex_);
  auto rows = db_->Query(
      "SELECT i.step, i.wall, s.kind, length(i.data), CASE WHEN ? THEN i.data END "
      "FROM file f JOIN series s ON s.file=f.id JOIN item i ON i.series=s.id "
      "WHERE f.app=? AND f.service=? AND f.writer=? AND s.tag=? AND f.first_wall BETWEEN ? AND ? "
      "AND (? OR i.step=?) ORDER BY i.step DESC, i.wall DESC",
      {static_cast<std::int64_t>(options.data), std::string_view(app), std::string_view(service),
       std::string_view(writer), std::string_view(tag), window.from, window.to,
       static_cast<std::int64_t>(!options.step), options.step.value_or(0)});
  TAKT_RETURN_IF_ERROR(rows.status());
  std::vector<Item> items;
  std::size_t bytes = 0;
  while (items.size() < options.limit) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    if (!more) break;
    if (!items.empty() && items.back().step == rows->Int(0)) continue;
    Item item{.step = rows->Int(0),
              .wall_time = rows->Real(1),
              .kind = static_cast<Kind>(rows->Int(2)),
              .bytes = static_cast<std::size_t>(rows->Int(3)),
              .data = ""};
    if (options.data) {
      bytes += item.bytes;
      if (bytes > options.max_bytes && !items.empty()) break;
      item.data = std::string(rows->Blob(4));
    }
    items.push_back(std::move(item));
  }
  std::reverse(items.begin(), items.end());
  return items;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> LearningStore::Hyperparameters(
    const std::string& app, const Window& window) {
  const std::lock_guard lock(mutex_);
  auto rows = db_->Query(
      "SELECT h.name, h.value FROM file f JOIN hyperparameter h ON h.file=f.id WHERE f.app=? AND "
      "f.first_wall BETWEEN ? AND ? ORDER BY h.name, f.id",
      {std::string_view(app), window.from, window.to});
  TAKT_RETURN_IF_ERROR(rows.status());
  std::vector<std::pair<std::string, std::string>> list;
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    if (!more) return list;
    if (!list.empty() && list.back().first == rows->Text(0)) {
      list.back().second = rows->Text(1);
    } else {
      list.emplace_back(rows->Text(0), rows->Text(1));
    }
  }
}

absl::StatusOr<Statistics> LearningStore::Stats(const std::string& app, const Window& window) {
  const std::lock_guard lock(mutex_);
  Statistics stats;
  {
    auto rows = db_->Query(
        "SELECT coalesce(sum(corrupt),0), coalesce(sum(skipped),0), coalesce(max(last_wall),0) "
        "FROM file WHERE app=? AND (first_wall IS NULL OR first_wall BETWEEN ? AND ?)",
        {std::string_view(app), window.from, window.to});
    TAKT_RETURN_IF_ERROR(rows.status());
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    if (more) {
      stats.corrupt_records = rows->Int(0);
      stats.skipped_values = rows->Int(1);
      stats.last_wall_time = rows->Real(2);
    }
  }
  auto rows = db_->Query(
      "SELECT u.plugin, sum(u.count) FROM file f JOIN unknown u ON u.file=f.id WHERE f.app=? AND "
      "f.first_wall BETWEEN ? AND ? GROUP BY u.plugin",
      {std::string_view(app), window.from, window.to});
  TAKT_RETURN_IF_ERROR(rows.status());
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    if (!more) return stats;
    stats.unknown_plugins.emplace(rows->Text(0), rows->Int(1));
  }
}

absl::Status LearningStore::RemoveApp(const std::string& app) {
  const std::lock_guard lock(mutex_);
  std::erase_if(files_, [&app](const auto& entry) {
    return entry.first.compare(0, app.size() + 1, app + "/") == 0;
  });
  return db_->Run("DELETE FROM file WHERE app=?", {std::string_view(app)});
}

}  // namespace takt::learning
