#include "metrics/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/str.h"

namespace takt::metrics {
namespace {

constexpr std::int64_t kMinuteMs = 60'000, kHourMs = 3'600'000;
constexpr std::size_t kSamplesPerChunk = 360;
constexpr std::uint64_t kMinFreeBytes = 256 << 20;  // of the disk (or a 20th), kept free
constexpr std::uint64_t kMaxOwnRoomBytes = 16
                                           << 20;  // made by dropping, where others fill the disk
constexpr std::int64_t kReserveBytes = 8 << 20;    // of a file that gives way on a full disk
constexpr const char* kReserveSuffix = ".reserve";
constexpr int kCacheKib = 8 << 10;                    // of pages: an hour of two thousand series
constexpr std::int64_t kMinuteBlockMs = 4 * kHourMs;  // of one row of minutes
constexpr std::int64_t kHourBlockMs = 24 * kHourMs;   // of one row of hours
constexpr std::int64_t kPointsAimedAt = 300;

constexpr const char* kSchema = R"(
CREATE TABLE IF NOT EXISTS series(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, labels TEXT NOT NULL, type INTEGER NOT NULL,
  base REAL NOT NULL DEFAULT 0, minutes_until INTEGER NOT NULL DEFAULT 0,
  hours_until INTEGER NOT NULL DEFAULT 0, last_ms INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS samples(
  id INTEGER PRIMARY KEY, series INTEGER NOT NULL, first_ms INTEGER NOT NULL,
  last_ms INTEGER NOT NULL, data BLOB NOT NULL);
DROP INDEX IF EXISTS samples_series;
CREATE INDEX IF NOT EXISTS samples_start ON samples(series, first_ms);
-- What is still growing: written over and over, so that samples holds whole chunks only.
CREATE TABLE IF NOT EXISTS growing(series INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS minutes(
  id INTEGER PRIMARY KEY, series INTEGER NOT NULL, first_ms INTEGER NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS minutes_series ON minutes(series, first_ms);
CREATE TABLE IF NOT EXISTS hours(
  id INTEGER PRIMARY KEY, series INTEGER NOT NULL, first_ms INTEGER NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS hours_series ON hours(series, first_ms);
)";

constexpr std::pair<std::string_view, Function> kFunctions[] = {
    {"avg", Function::kAvg},   {"min", Function::kMin},           {"max", Function::kMax},
    {"sum", Function::kSum},   {"last", Function::kLast},         {"count", Function::kCount},
    {"rate", Function::kRate}, {"increase", Function::kIncrease},
};
constexpr std::pair<std::string_view, Aggregation> kAggregations[] = {
    {"none", Aggregation::kNone}, {"sum", Aggregation::kSum}, {"avg", Aggregation::kAvg},
    {"min", Aggregation::kMin},   {"max", Aggregation::kMax},
};

template <typename Table>
auto FindName(const Table& table, std::string_view name)
    -> std::optional<decltype(std::begin(table)->second)> {
  for (const auto& [known, value] : table) {
    if (known == name) return value;
  }
  return std::nullopt;
}

template <typename Table, typename Value>
const char* NameOf(const Table& table, Value value) {
  for (const auto& [known, each] : table) {
    if (each == value) return known.data();
  }
  return "";
}

// Labels as one text: name, \1, value, \2 for each.
std::string JoinLabels(const Labels& labels) {
  std::string text;
  for (const auto& [name, value] : labels) absl::StrAppend(&text, name, "\1", value, "\2");
  return text;
}

Labels SplitLabels(std::string_view text) {
  Labels labels;
  while (!text.empty()) {
    const auto middle = text.find('\1'), end = text.find('\2');
    if (middle == std::string_view::npos || end == std::string_view::npos || end < middle) break;
    labels.emplace_back(text.substr(0, middle), text.substr(middle + 1, end - middle - 1));
    text.remove_prefix(end + 1);
  }
  return labels;
}

std::string_view LabelOf(const Labels& labels, std::string_view name) {
  for (const auto& [n, value] : labels) {
    if (n == name) return value;
  }
  return "";
}

// One value a step out of the windows of one series. `windows` starts one step early.
std::vector<double> Apply(const std::vector<Window>& windows, Function function,
                          std::int64_t from_ms, std::int64_t step_ms, std::size_t steps) {
  std::vector<double> values(steps, std::nan(""));
  double before = std::nan("");  // of a counter: its value at the end of the span before
  for (const Window& w : windows) {
    const std::int64_t offset = w.time_ms - from_ms;
    const auto i = static_cast<std::size_t>(offset / step_ms);
    double value = std::nan("");
    switch (function) {
      case Function::kAvg:
        value = w.sum / static_cast<double>(w.count);
        break;
      case Function::kMin:
        value = w.min;
        break;
      case Function::kMax:
        value = w.max;
        break;
      case Function::kSum:
        value = w.sum;
        break;
      case Function::kLast:
        value = w.last;
        break;
      case Function::kCount:
        value = static_cast<double>(w.count);
        break;
      case Function::kIncrease:
      case Function::kRate:
        // The first span of a series counts from its own first sample; of one alone nothing is
        // known.
        if (!std::isnan(before)) {
          value = w.max - before;
        } else if (w.count > 1) {
          value = w.max - w.min;
        }
        before = w.max;
        if (function == Function::kRate) value /= static_cast<double>(step_ms) / 1000;
        break;
    }
    if (offset >= 0 && i < steps) values[i] = value;
  }
  return values;
}

void Combine(Aggregation aggregation, double value, double& into, int& count) {
  if (std::isnan(value)) return;
  if (count++ == 0) {
    into = value;
    return;
  }
  switch (aggregation) {
    case Aggregation::kMin:
      into = std::min(into, value);
      break;
    case Aggregation::kMax:
      into = std::max(into, value);
      break;
    default:
      into += value;
  }
}

// Prometheus' histogram_quantile: `buckets` holds (upper bound, increase up to it), by bound.
double QuantileOf(double q, std::vector<std::pair<double, double>> buckets) {
  std::sort(buckets.begin(), buckets.end());
  if (buckets.size() < 2 || !std::isinf(buckets.back().first)) return std::nan("");
  for (std::size_t i = 1; i < buckets.size(); ++i) {
    buckets[i].second = std::max(buckets[i].second, buckets[i - 1].second);
  }
  const double total = buckets.back().second;
  if (!(total > 0)) return std::nan("");
  const double rank = q * total;
  std::size_t i = 0;
  while (i + 1 < buckets.size() && buckets[i].second < rank) ++i;
  if (i + 1 == buckets.size()) return buckets[i - 1].first;
  const double lower = i == 0 ? std::min(0.0, buckets[0].first) : buckets[i - 1].first;
  const double below = i == 0 ? 0 : buckets[i - 1].second;
  const double within = buckets[i].second - below;
  if (within <= 0) return buckets[i].first;
  return lower + (buckets[i].first - lower) * (rank - below) / within;
}

}  // namespace

const char* FunctionName(Function function) { return NameOf(kFunctions, function); }
const char* AggregationName(Aggregation aggregation) { return NameOf(kAggregations, aggregation); }
std::optional<Function> FunctionFromName(std::string_view name) {
  return FindName(kFunctions, name);
}
std::optional<Aggregation> AggregationFromName(std::string_view name) {
  return FindName(kAggregations, name);
}

absl::StatusOr<std::vector<Matcher>> ParseMatchers(std::string_view text) {
  std::vector<Matcher> matchers;
  if (text.empty()) return matchers;
  for (const absl::string_view part : absl::StrSplit(ToAbsl(text), ',')) {
    const auto equal = part.find('=');
    const bool negative = equal != absl::string_view::npos && equal > 0 && part[equal - 1] == '!';
    if (equal == absl::string_view::npos || equal == (negative ? 1 : 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("match: expected label=value or label!=value, got \"", part, "\""));
    }
    Matcher matcher;
    matcher.label = std::string(part.substr(0, equal - (negative ? 1 : 0)));
    matcher.value = std::string(part.substr(equal + 1));
    matcher.op = negative ? Matcher::Op::kNotEqual : Matcher::Op::kEqual;
    if (!negative && !matcher.value.empty() && matcher.value.back() == '*') {
      matcher.value.pop_back();
      matcher.op = Matcher::Op::kPrefix;
    }
    matchers.push_back(std::move(matcher));
  }
  return matchers;
}

std::string MatchersText(const std::vector<Matcher>& matchers) {
  std::string text;
  for (const Matcher& matcher : matchers) {
    absl::StrAppend(&text, text.empty() ? "" : ",", matcher.label,
                    matcher.op == Matcher::Op::kNotEqual ? "!=" : "=", matcher.value,
                    matcher.op == Matcher::Op::kPrefix ? "*" : "");
  }
  return text;
}

struct MetricStore::Series_ {
  std::int64_t id = 0;
  std::string name;
  Labels labels;
  Type type = Type::kGauge;
  std::vector<Sample> open;  // the newest samples, not yet a chunk of their own
  bool dirty = false;
  std::chrono::steady_clock::time_point written{};
  double base = 0;  // of a counter: what is added to what its source says
  Sample newest;    // time 0 = none
  std::int64_t minutes_until = 0, hours_until = 0;  // rolled up so far
};

MetricStore::MetricStore(std::string path, const Clock& clock, std::uint64_t max_bytes)
    : path_(std::move(path)), clock_(clock), max_bytes_(max_bytes) {}

MetricStore::~MetricStore() {
  if (db_ != nullptr) Flush().IgnoreError();
}

std::int64_t MetricStore::NowMs() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now().time_since_epoch())
      .count();
}

absl::StatusOr<std::unique_ptr<MetricStore>> MetricStore::Open(const std::string& path,
                                                               const Clock& clock,
                                                               std::uint64_t max_bytes) {
  std::unique_ptr<MetricStore> store(new MetricStore(path, clock, max_bytes));
  TAKT_ASSIGN_OR_RETURN(store->db_, Sqlite::Open(path, {.durable = false}));
  TAKT_RETURN_IF_ERROR(store->db_->Script(kSchema));
  TAKT_RETURN_IF_ERROR(store->db_->Script(absl::StrCat("PRAGMA cache_size=-", kCacheKib)));
  TAKT_RETURN_IF_ERROR(store->Load());
  store->KeepReserve();
  return store;
}

absl::Status MetricStore::Load() {
  {
    auto rows =
        db_->Query("SELECT id, name, labels, type, base, minutes_until, hours_until FROM series");
    TAKT_RETURN_IF_ERROR(rows.status());
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
      if (!more) break;
      auto series = std::make_unique<Series_>();
      series->id = rows->Int(0);
      series->name = rows->Text(1);
      series->labels = SplitLabels(rows->Text(2));
      series->type = static_cast<Type>(rows->Int(3));
      series->base = rows->Real(4);
      series->minutes_until = rows->Int(5);
      series->hours_until = rows->Int(6);
      by_key_[absl::StrCat(series->name, "\3", JoinLabels(series->labels))] = series.get();
      by_id_[series->id] = series.get();
      by_name_[series->name].push_back(series.get());
      series_.push_back(std::move(series));
    }
  }
  for (const auto& series : series_) {
    std::vector<Sample> newest_chunk;
    for (const auto& [sql, samples] :
         {std::pair("SELECT data FROM samples WHERE series=? ORDER BY first_ms DESC LIMIT 1",
                    &newest_chunk),
          std::pair("SELECT data FROM growing WHERE series=?", &series->open)}) {
      auto rows = db_->Query(sql, {series->id});
      TAKT_RETURN_IF_ERROR(rows.status());
      TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
      if (more) TAKT_RETURN_IF_ERROR(DecodeSamples(rows->Blob(0), *samples));
    }
    if (!newest_chunk.empty()) {
      series->newest = newest_chunk.back();
      // What was growing became that chunk.
      if (!series->open.empty() && series->open.front().time_ms <= series->newest.time_ms) {
        series->open.clear();
      }
    }
    if (!series->open.empty()) series->newest = series->open.back();
    latest_ms_ = std::max(latest_ms_, series->newest.time_ms);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::int64_t> MetricStore::Series(const std::string& name, const Labels& labels,
                                                 Type type, bool* fresh) {
  if (fresh != nullptr) *fresh = false;
  const std::string joined = JoinLabels(labels);
  std::string key = absl::StrCat(name, "\3", joined);
  const std::lock_guard lock(mutex_);
  if (const auto it = by_key_.find(key); it != by_key_.end()) return it->second->id;
  if (series_.size() >= kMaxSeries && !DropOldest()) {
    ++refused_;
    return absl::ResourceExhaustedError(
        absl::StrCat("metrics: at most ", kMaxSeries, " series; ", name, " is one more"));
  }
  TAKT_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO series(name, labels, type) VALUES(?,?,?)",
      {std::string_view(name), std::string_view(joined), static_cast<std::int64_t>(type)}));
  auto series = std::make_unique<Series_>();
  series->id = db_->last_insert_id();
  series->name = name;
  series->labels = labels;
  series->type = type;
  const std::int64_t id = series->id;
  by_key_[std::move(key)] = series.get();
  by_id_[id] = series.get();
  by_name_[name].push_back(series.get());
  series_.push_back(std::move(series));
  if (fresh != nullptr) *fresh = true;
  return id;
}

// Makes room: what ended longest ago goes, if nothing came of it for an hour.
bool MetricStore::DropOldest() {
  const auto oldest = std::min_element(
      series_.begin(), series_.end(),
      [](const auto& a, const auto& b) { return a->newest.time_ms < b->newest.time_ms; });
  const Series_& series = **oldest;
  if (series.newest.time_ms > NowMs() - kHourMs) return false;
  for (const std::string_view sql :
       {"DELETE FROM samples WHERE series=?", "DELETE FROM growing WHERE series=?",
        "DELETE FROM minutes WHERE series=?", "DELETE FROM hours WHERE series=?",
        "DELETE FROM series WHERE id=?"}) {
    if (!db_->Run(sql, {series.id}).ok()) return false;
  }
  by_key_.erase(absl::StrCat(series.name, "\3", JoinLabels(series.labels)));
  by_id_.erase(series.id);
  auto& named = by_name_[series.name];
  std::erase(named, oldest->get());
  if (named.empty()) by_name_.erase(series.name);
  std::swap(*oldest, series_.back());
  series_.pop_back();
  return true;
}

void MetricStore::Append(std::int64_t time_ms, std::span<const Point> points) {
  const auto now = clock_.Steady();
  const std::lock_guard lock(mutex_);
  for (const Point& point : points) {
    const auto it = by_id_.find(point.series);
    if (it == by_id_.end() || std::isnan(point.value)) continue;
    Series_& series = *it->second;
    if (time_ms <= series.newest.time_ms) continue;
    double value = point.value;
    if (series.type == Type::kCounter) {
      if (value + series.base < series.newest.value) series.base = series.newest.value;
      value += series.base;
    }
    // On a full disk samples wait here, as many as make one chunk; Tend makes room.
    if (series.open.size() >= kSamplesPerChunk && !WriteChunk(series).ok() &&
        series.open.size() >= kMaxChunkSamples) {
      continue;
    }
    if (series.open.empty() || !series.dirty) series.written = now;
    series.open.push_back({time_ms, value});
    series.newest = series.open.back();
    series.dirty = true;
    latest_ms_ = std::max(latest_ms_, time_ms);
  }
}

absl::Status MetricStore::WriteChunk(Series_& series) {
  const std::string data = EncodeSamples(series.open);
  TAKT_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO samples(series, first_ms, last_ms, data) VALUES(?,?,?,?)",
      {series.id, series.open.front().time_ms, series.open.back().time_ms, SqlBlob{data}}));
  series.open.clear();
  series.dirty = false;
  return WriteBase(series);
}

absl::Status MetricStore::WriteGrowing(Series_& series) {
  if (!series.dirty) return absl::OkStatus();
  const std::string data = EncodeSamples(series.open);
  TAKT_RETURN_IF_ERROR(
      db_->Run("INSERT OR REPLACE INTO growing VALUES(?,?)", {series.id, SqlBlob{data}}));
  series.dirty = false;
  return WriteBase(series);
}

absl::Status MetricStore::WriteBase(const Series_& series) {
  if (series.type != Type::kCounter || series.base == 0) return absl::OkStatus();
  return db_->Run("UPDATE series SET base=?1 WHERE id=?2 AND base<>?1", {series.base, series.id});
}

absl::Status MetricStore::RollUp(Series_& series, std::int64_t now_ms) {
  // A block is rolled up once it lies an hour back, so that late flushes are in it.
  const std::int64_t minutes_end = (now_ms - kHourMs) / kMinuteBlockMs * kMinuteBlockMs;
  if (series.minutes_until < minutes_end) {
    std::int64_t from = series.minutes_until;
    if (from == 0) {
      auto rows = db_->Query("SELECT min(first_ms) FROM samples WHERE series=?", {series.id});
      TAKT_RETURN_IF_ERROR(rows.status());
      TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
      from =
          more && !rows->IsNull(0) ? rows->Int(0) / kMinuteBlockMs * kMinuteBlockMs : minutes_end;
    }
    for (; from < minutes_end; from += kMinuteBlockMs) {
      std::vector<Window> windows;
      TAKT_RETURN_IF_ERROR(ReadWindows(series, from, from + kMinuteBlockMs, kMinuteMs, windows));
      if (windows.empty()) continue;
      const std::string data = EncodeWindows(windows);
      TAKT_RETURN_IF_ERROR(
          db_->Run("INSERT OR REPLACE INTO minutes(series, first_ms, data) VALUES(?,?,?)",
                   {series.id, from, SqlBlob{data}}));
    }
    TAKT_RETURN_IF_ERROR(
        db_->Run("UPDATE series SET minutes_until=? WHERE id=?", {minutes_end, series.id}));
    series.minutes_until = minutes_end;
    TAKT_RETURN_IF_ERROR(db_->Run(
        "DELETE FROM samples WHERE series=? AND last_ms<?",
        {series.id,
         std::min(now_ms - std::chrono::milliseconds(kKeepSamples).count(), minutes_end)}));
  }
  const std::int64_t hours_end = series.minutes_until / kHourBlockMs * kHourBlockMs;
  if (series.hours_until >= hours_end) return absl::OkStatus();
  std::int64_t from = series.hours_until;
  if (from == 0) {
    auto rows = db_->Query("SELECT min(first_ms) FROM minutes WHERE series=?", {series.id});
    TAKT_RETURN_IF_ERROR(rows.status());
    TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
    from = more && !rows->IsNull(0) ? rows->Int(0) / kHourBlockMs * kHourBlockMs : hours_end;
  }
  for (; from < hours_end; from += kHourBlockMs) {
    std::vector<Window> windows;
    TAKT_RETURN_IF_ERROR(ReadWindows(series, from, from + kHourBlockMs, kHourMs, windows));
    if (windows.empty()) continue;
    const std::string data = EncodeWindows(windows);
    TAKT_RETURN_IF_ERROR(
        db_->Run("INSERT OR REPLACE INTO hours(series, first_ms, data) VALUES(?,?,?)",
                 {series.id, from, SqlBlob{data}}));
  }
  TAKT_RETURN_IF_ERROR(
      db_->Run("UPDATE series SET hours_until=? WHERE id=?", {hours_end, series.id}));
  series.hours_until = hours_end;
  TAKT_RETURN_IF_ERROR(
      db_->Run("DELETE FROM minutes WHERE series=? AND first_ms<?",
               {series.id,
                std::min(now_ms - std::chrono::milliseconds(kKeepMinutes).count() - kMinuteBlockMs,
                         hours_end)}));
  return db_->Run(
      "DELETE FROM hours WHERE series=? AND first_ms<?",
      {series.id, now_ms - std::chrono::milliseconds(kKeepHours).count() - kHourBlockMs});
}

// The finest that is there and no finer than asked for: hours where the step is one, then minutes,
// then samples for what has not been rolled up.
absl::Status MetricStore::ReadWindows(const Series_& series, std::int64_t from_ms,
                                      std::int64_t to_ms, std::int64_t step_ms,
                                      std::vector<Window>& out) {
  const std::int64_t raw_since =
      NowMs() - std::chrono::milliseconds(kKeepSamples).count() + kHourMs;
  const std::int64_t minutes_since =
      NowMs() - std::chrono::milliseconds(kKeepMinutes).count() + kHourMs;
  const auto read_rolled = [&](std::string_view sql, std::int64_t begin, std::int64_t end,
                               std::int64_t block_ms) -> absl::Status {
    auto rows = db_->Query(sql, {series.id, begin - block_ms, end});
    TAKT_RETURN_IF_ERROR(rows.status());
    std::vector<Window> windows;
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
      if (!more) break;
      windows.clear();
      TAKT_RETURN_IF_ERROR(DecodeWindows(rows->Blob(0), windows));
      for (const Window& w : windows) {
        if (w.time_ms >= begin && w.time_ms < end) AddWindow(w, step_ms, out);
      }
    }
    return absl::OkStatus();
  };
  std::int64_t at = from_ms;
  const bool by_hour = step_ms % kHourMs == 0;
  if (at < series.hours_until && (by_hour || at < minutes_since)) {
    const std::int64_t end =
        std::min({to_ms, series.hours_until, by_hour ? to_ms : minutes_since / kHourMs * kHourMs});
    TAKT_RETURN_IF_ERROR(
        read_rolled("SELECT data FROM hours WHERE series=? AND first_ms>? AND first_ms<? ORDER BY "
                    "first_ms",
                    at, end, kHourBlockMs));
    at = std::max(at, end);
  }
  const bool by_minute = step_ms % kMinuteMs == 0;
  if (at < to_ms && at < series.minutes_until && (by_minute || at < raw_since)) {
    const std::int64_t end = std::min(
        {to_ms, series.minutes_until, by_minute ? to_ms : raw_since / kMinuteMs * kMinuteMs});
    TAKT_RETURN_IF_ERROR(
        read_rolled("SELECT data FROM minutes WHERE series=? AND first_ms>? AND first_ms<? ORDER "
                    "BY first_ms",
                    at, end, kMinuteBlockMs));
    at = std::max(at, end);
  }
  if (at >= to_ms) return absl::OkStatus();
  thread_local std::vector<Sample> samples;
  samples.clear();
  const std::int64_t open_from = series.open.empty() ? INT64_MAX : series.open.front().time_ms;
  {
    auto rows = db_->Query(
        "SELECT data FROM samples WHERE series=?1 AND first_ms<?3 AND first_ms>=coalesce("
        "(SELECT max(first_ms) FROM samples WHERE series=?1 AND first_ms<=?2), ?2) "
        "ORDER BY first_ms",
        {series.id, at, std::min(to_ms, open_from)});
    TAKT_RETURN_IF_ERROR(rows.status());
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows->Next());
      if (!more) break;
      TAKT_RETURN_IF_ERROR(DecodeSamples(rows->Blob(0), samples));
    }
  }
  samples.insert(samples.end(), series.open.begin(), series.open.end());
  const auto before = [](const Sample& s, std::int64_t time_ms) { return s.time_ms < time_ms; };
  const auto first = std::lower_bound(samples.begin(), samples.end(), at, before);
  const auto end = std::lower_bound(first, samples.end(), to_ms, before);
  AddSamples({first, end}, step_ms, out);
  return absl::OkStatus();
}

std::vector<MetricStore::Series_*> MetricStore::Select(const std::string& name,
                                                       const std::vector<Matcher>& matchers) {
  std::vector<Series_*> selected;
  const auto it = by_name_.find(name);
  if (it == by_name_.end()) return selected;
  for (Series_* series : it->second) {
    const bool all = std::all_of(matchers.begin(), matchers.end(), [&](const Matcher& m) {
      const std::string_view value = LabelOf(series->labels, m.label);
      switch (m.op) {
        case Matcher::Op::kEqual:
          return value == m.value;
        case Matcher::Op::kNotEqual:
          return value != m.value;
        case Matcher::Op::kPrefix:
          return value.starts_with(m.value);
      }
      return false;
    });
    if (all) selected.push_back(series);
  }
  return selected;
}

absl::StatusOr<Answer> MetricStore::Ask(const Question& q) {
  TAKT_ASSIGN_OR_RETURN(Answer answer, AskUndivided(q));
  if (q.divide_by.empty()) return answer;
  Question by = q;
  by.name = q.divide_by;
  by.matchers = q.divide_matchers;
  TAKT_ASSIGN_OR_RETURN(const Answer divisor, AskUndivided(by));
  std::map<Labels, const std::vector<double>*> divisors;
  for (const AnswerSeries& series : divisor.series) divisors[series.labels] = &series.values;
  for (AnswerSeries& series : answer.series) {
    const auto found = divisors.find(series.labels);
    for (std::size_t i = 0; i < series.values.size(); ++i) {
      const double value = found == divisors.end() ? std::nan("") : (*found->second)[i];
      series.values[i] = value > 0 ? series.values[i] / value : std::nan("");
    }
  }
  return answer;
}

absl::StatusOr<Answer> MetricStore::AskUndivided(const Question& q) {
  if (q.to_ms <= q.from_ms) return absl::InvalidArgumentError("metrics: expected from before to");
  if (q.quantile && !(*q.quantile > 0 && *q.quantile < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics: expected a quantile between 0 and 1, got ", *q.quantile));
  }
  Answer answer;
  std::int64_t step = q.step_ms;
  if (step <= 0) {
    constexpr std::int64_t kSteps[] = {5'000,   10'000,  15'000,    30'000,     60'000,
                                       300'000, 900'000, 3'600'000, 14'400'000, 86'400'000};
    step = kSteps[std::size(kSteps) - 1];
    for (const std::int64_t candidate : kSteps) {
      if ((q.to_ms - q.from_ms) / candidate <= kPointsAimedAt) {
        step = candidate;
        break;
      }
    }
  }
  answer.step_ms = step;
  answer.from_ms = q.from_ms / step * step;
  const auto steps = static_cast<std::size_t>((q.to_ms - answer.from_ms + step - 1) / step);
  if (steps > kMaxPointsPerSeries) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics: expected at most ", kMaxPointsPerSeries, " steps, got ", steps));
  }
  const Function function = q.quantile ? Function::kIncrease : q.function;
  const bool grouped = q.quantile || q.aggregation != Aggregation::kNone;

  struct Group {
    AnswerSeries series;
    std::vector<int> counts;
    std::vector<std::map<double, double>> buckets;  // by step, for a quantile
  };
  std::map<std::string, Group> groups;
  const std::lock_guard lock(mutex_);
  const std::vector<Series_*> selected = Select(q.name, q.matchers);
  if (selected.size() > kMaxSeriesPerQuery) {
    return absl::ResourceExhaustedError(absl::StrCat("metrics: ", q.name, " has ", selected.size(),
                                                     " such series; expected at most ",
                                                     kMaxSeriesPerQuery, ": ask for fewer"));
  }
  // One transaction, so that the file is locked once and not for each series.
  TAKT_ASSIGN_OR_RETURN(const SqlTransaction reading, SqlTransaction::Begin(*db_));
  std::vector<Window> windows;
  for (const Series_* series : selected) {
    windows.clear();
    TAKT_RETURN_IF_ERROR(ReadWindows(*series, answer.from_ms - step, q.to_ms, step, windows));
    if (windows.empty()) continue;
    std::vector<double> values = Apply(windows, function, answer.from_ms, step, steps);
    if (!grouped) {
      answer.series.push_back({series->labels, std::move(values)});
      continue;
    }
    Labels labels;
    for (const auto& label : series->labels) {
      if (std::find(q.by.begin(), q.by.end(), label.first) != q.by.end()) labels.push_back(label);
    }
    Group& group = groups[JoinLabels(labels)];
    if (group.counts.empty()) {
      group.series = {labels, std::vector<double>(steps, std::nan(""))};
      group.counts.resize(steps);
      if (q.quantile) group.buckets.resize(steps);
    }
    if (q.quantile) {
      const std::string_view le = LabelOf(series->labels, "le");
      const double bound = le == "+Inf" ? std::numeric_limits<double>::infinity()
                                        : std::strtod(std::string(le).c_str(), nullptr);
      for (std::size_t i = 0; i < steps; ++i) {
        if (!std::isnan(values[i])) group.buckets[i][bound] += values[i];
      }
    } else {
      for (std::size_t i = 0; i < steps; ++i) {
        Combine(q.aggregation, values[i], group.series.values[i], group.counts[i]);
      }
    }
  }
  for (auto& [key, group] : groups) {
    for (std::size_t i = 0; i < steps; ++i) {
      if (q.quantile) {
        group.series.values[i] =
            QuantileOf(*q.quantile, {group.buckets[i].begin(), group.buckets[i].end()});
      } else if (q.aggregation == Aggregation::kAvg && group.counts[i] > 0) {
        group.series.values[i] /= group.counts[i];
      }
    }
    answer.series.push_back(std::move(group.series));
  }
  return answer;
}

std::vector<MetricStore::Latest> MetricStore::Newest(const std::string& name,
                                                     const std::vector<Matcher>& matchers,
                                                     std::int64_t max_age_ms) {
  const std::int64_t since = NowMs() - max_age_ms;
  const std::lock_guard lock(mutex_);
  std::vector<Latest> latest;
  for (const Series_* series : Select(name, matchers)) {
    if (series->newest.time_ms >= since && series->newest.time_ms != 0) {
      latest.push_back({series->labels, series->newest});
    }
  }
  return latest;
}

std::vector<std::pair<std::string, Type>> MetricStore::Names() {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<std::string, Type>> names;
  for (const auto& [name, list] : by_name_) names.emplace_back(name, list.front()->type);
  return names;
}

absl::Status MetricStore::Tend() {
  const auto now = clock_.Steady();
  const std::lock_guard lock(mutex_);
  if (series_.empty() || now - last_tend_ < std::chrono::seconds(1)) return absl::OkStatus();
  last_tend_ = now;
  const std::int64_t now_ms = NowMs();
  if (now_ms < latest_ms_ - std::chrono::milliseconds(kMaxClockStep).count()) {
    std::fprintf(stderr,
                 "takt: warning: the clock was put back by %lld s: what was measured in its future "
                 "is forgotten\n",
                 static_cast<long long>((latest_ms_ - now_ms) / 1000));
    TAKT_RETURN_IF_ERROR(ForgetAfter(now_ms));
  }
  absl::Status status = TendLocked();
  const bool full = absl::IsResourceExhausted(status);
  if (full || now - last_room_ >= kRoomInterval) {
    last_room_ = now;
    status = MakeRoom(full);  // what could not be written waits for the next time
  }
  return status;
}

absl::Status MetricStore::TendLocked() {
  const auto now = clock_.Steady();
  // A share of the series each time, so that no second does the work of all.
  const std::size_t share = series_.size() / 30 + 1;
  const std::int64_t now_ms = NowMs();
  auto transaction = SqlTransaction::Begin(*db_);
  TAKT_RETURN_IF_ERROR(transaction.status());
  struct Before {
    Series_* series;
    bool dirty;
    std::int64_t minutes_until, hours_until;
  };
  std::vector<Before> before;
  absl::Status status;
  for (std::size_t i = 0; i < share && status.ok(); ++i) {
    Series_& series = *series_[next_tend_++ % series_.size()];
    before.push_back({&series, series.dirty, series.minutes_until, series.hours_until});
    if (series.dirty && now - series.written >= kFlushInterval / 2) status = WriteGrowing(series);
    if (status.ok()) status = RollUp(series, now_ms);
  }
  if (status.ok()) status = transaction->Commit();
  if (!status.ok()) {  // nothing of it is there
    for (auto it = before.rbegin(); it != before.rend(); ++it) {
      it->series->dirty = it->dirty;
      it->series->minutes_until = it->minutes_until;
      it->series->hours_until = it->hours_until;
    }
  }
  return status;
}

absl::StatusOr<std::uint64_t> MetricStore::Pragma(std::string_view name) {
  TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query(name));
  TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
  return more ? static_cast<std::uint64_t>(rows.Int(0)) : 0;
}

absl::Status MetricStore::MakeRoom(bool full) {
  const std::uint64_t before = dropped_;
  absl::Status status;
  if (full) {
    // Even to remove something SQLite must write a little: that is what the reserve is for.
    unlink((path_ + kReserveSuffix).c_str());
    status = db_->Script("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  status.Update(LimitGrowth());
  status.Update(DropOldestBlocks(full));
  if (full) {
    status.Update(db_->Script("PRAGMA wal_checkpoint(TRUNCATE)"));
  } else {
    KeepReserve();  // where it had to give way and there is room again
  }
  if (dropped_ != before) {
    std::fprintf(stderr,
                 "takt: warning: there is no room for metrics: the oldest %llu blocks of samples "
                 "were dropped\n",
                 static_cast<unsigned long long>(dropped_ - before));
  }
  return status;
}

// On a disk that is almost full the file does not grow: what is left is for the log of writes,
// without which nothing could even be removed.
absl::Status MetricStore::LimitGrowth() {
  TAKT_ASSIGN_OR_RETURN(const std::uint64_t pages, Pragma("PRAGMA page_count"));
  struct statvfs disk;
  const bool tight = statvfs(path_.c_str(), &disk) == 0 &&
                     std::uint64_t{disk.f_bavail} * disk.f_frsize < 2 * kReserveBytes;
  // The limit of SQLite itself is the same number of pages.
  constexpr std::uint64_t kAnyPages = 4'294'967'294;
  return db_->Script(absl::StrCat("PRAGMA max_page_count=", tight ? pages : kAnyPages));
}

void MetricStore::KeepReserve() const {
  const std::string path = path_ + kReserveSuffix;
  struct statvfs disk;
  struct stat info;
  if (stat(path.c_str(), &info) == 0 || statvfs(path_.c_str(), &disk) != 0 ||
      std::uint64_t{disk.f_bavail} * disk.f_frsize < 2 * kReserveBytes) {
    return;
  }
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;  // the disk is full already: it is made when there is room
  if (posix_fallocate(fd, 0, kReserveBytes) != 0) unlink(path.c_str());
  close(fd);
}

absl::Status MetricStore::DropOldestBlocks(bool full) {
  TAKT_ASSIGN_OR_RETURN(const std::uint64_t page, Pragma("PRAGMA page_size"));
  TAKT_ASSIGN_OR_RETURN(const std::uint64_t pages, Pragma("PRAGMA page_count"));
  TAKT_ASSIGN_OR_RETURN(std::uint64_t free_pages, Pragma("PRAGMA freelist_count"));
  const std::uint64_t used = (pages - free_pages) * page;
  std::uint64_t limit = max_bytes_;
  struct statvfs disk;
  if (statvfs(path_.c_str(), &disk) == 0) {
    // What is dropped becomes free pages of the file, which new samples use. Where others fill the
    // disk, a part of ours is enough to go on with: the rest stays.
    const std::uint64_t room = std::uint64_t{disk.f_bavail} * disk.f_frsize + free_pages * page;
    const std::uint64_t wanted =
        std::min<std::uint64_t>(kMinFreeBytes, std::uint64_t{disk.f_blocks} * disk.f_frsize / 20);
    const std::uint64_t own = std::min(kMaxOwnRoomBytes, pages * page / 4);
    const std::uint64_t own_lack = own - std::min(own, free_pages * page);
    if (full || room < wanted) {
      limit = std::min(limit, used - (full ? own_lack : std::min(own_lack, wanted - room)));
    }
  }
  // The last hour stays as long as there is anything else.
  const std::int64_t last_hour = NowMs() - kHourMs;
  constexpr std::int64_t kAtOnce = 500;
  while ((pages - free_pages) * page > limit) {
    bool any = false;
    for (const auto& [sql, until] :
         {std::pair("DELETE FROM samples WHERE id IN (SELECT id FROM samples WHERE last_ms<? "
                    "ORDER BY id LIMIT ?)",
                    last_hour),
          std::pair("DELETE FROM minutes WHERE id IN (SELECT id FROM minutes WHERE first_ms<? "
                    "ORDER BY id LIMIT ?)",
                    last_hour),
          std::pair("DELETE FROM hours WHERE id IN (SELECT id FROM hours WHERE first_ms<? "
                    "ORDER BY id LIMIT ?)",
                    last_hour),
          std::pair("DELETE FROM samples WHERE id IN (SELECT id FROM samples WHERE last_ms<? "
                    "ORDER BY id LIMIT ?)",
                    INT64_MAX)}) {
      TAKT_RETURN_IF_ERROR(db_->Run(sql, {until, kAtOnce}));
      if (db_->changes() == 0) continue;
      dropped_ += static_cast<std::uint64_t>(db_->changes());
      any = true;
      break;
    }
    if (!any) break;  // others fill the disk
    TAKT_ASSIGN_OR_RETURN(free_pages, Pragma("PRAGMA freelist_count"));
  }
  return absl::OkStatus();
}

absl::Status MetricStore::ForgetAfter(std::int64_t time_ms) {
  TAKT_ASSIGN_OR_RETURN(SqlTransaction transaction, SqlTransaction::Begin(*db_));
  TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM samples WHERE first_ms>?", {time_ms}));
  // Chunks that reach over the time keep what is before it.
  std::vector<std::pair<std::int64_t, std::vector<Sample>>> cut;
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                          db_->Query("SELECT id, data FROM samples WHERE last_ms>?", {time_ms}));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) break;
      auto& [id, samples] = cut.emplace_back(rows.Int(0), std::vector<Sample>());
      TAKT_RETURN_IF_ERROR(DecodeSamples(rows.Blob(1), samples));
      std::erase_if(samples, [time_ms](const Sample& s) { return s.time_ms > time_ms; });
    }
  }
  for (const auto& [id, samples] : cut) {
    const std::string data = EncodeSamples(samples);
    TAKT_RETURN_IF_ERROR(db_->Run("UPDATE samples SET last_ms=?, data=? WHERE id=?",
                                  {samples.back().time_ms, SqlBlob{data}, id}));
  }
  // Blocks of roll-ups that reach over it are made again, of what they were made of.
  const std::int64_t minutes = time_ms / kMinuteBlockMs * kMinuteBlockMs;
  const std::int64_t hours = time_ms / kHourBlockMs * kHourBlockMs;
  TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM minutes WHERE first_ms>=?", {minutes}));
  TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM hours WHERE first_ms>=?", {hours}));
  TAKT_RETURN_IF_ERROR(db_->Run(
      "UPDATE series SET minutes_until=min(minutes_until,?), hours_until=min(hours_until,?)",
      {minutes, hours}));
  TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM growing"));
  std::vector<std::pair<Series_*, Sample>> newest;  // of those that have no open sample left
  for (const auto& series : series_) {
    if (series->newest.time_ms <= time_ms ||
        (!series->open.empty() && series->open.front().time_ms <= time_ms)) {
      continue;
    }
    std::vector<Sample> last;
    TAKT_ASSIGN_OR_RETURN(
        SqlRows rows,
        db_->Query("SELECT data FROM samples WHERE series=? ORDER BY first_ms DESC LIMIT 1",
                   {series->id}));
    TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
    if (more) TAKT_RETURN_IF_ERROR(DecodeSamples(rows.Blob(0), last));
    newest.emplace_back(series.get(), last.empty() ? Sample() : last.back());
  }
  TAKT_RETURN_IF_ERROR(transaction.Commit());
  for (auto& [series, sample] : newest) series->newest = sample;
  latest_ms_ = 0;
  for (const auto& series : series_) {
    std::erase_if(series->open, [time_ms](const Sample& s) { return s.time_ms > time_ms; });
    if (!series->open.empty()) series->newest = series->open.back();
    series->dirty = !series->open.empty();
    series->minutes_until = std::min(series->minutes_until, minutes);
    series->hours_until = std::min(series->hours_until, hours);
    latest_ms_ = std::max(latest_ms_, series->newest.time_ms);
  }
  return absl::OkStatus();
}

absl::Status MetricStore::Flush() {
  const std::lock_guard lock(mutex_);
  auto transaction = SqlTransaction::Begin(*db_);
  TAKT_RETURN_IF_ERROR(transaction.status());
  for (const auto& series : series_) TAKT_RETURN_IF_ERROR(WriteGrowing(*series));
  TAKT_RETURN_IF_ERROR(transaction->Commit());
  return db_->Run("PRAGMA wal_checkpoint(TRUNCATE)");  // a large one may have grown
}

MetricStats MetricStore::Stats() {
  const std::lock_guard lock(mutex_);
  MetricStats stats{series_.size(), 0, refused_, dropped_};
  for (const char* suffix : {"", "-wal"}) {
    struct stat st;
    if (stat((path_ + suffix).c_str(), &st) == 0) {
      stats.disk_bytes += static_cast<std::uint64_t>(st.st_size);
    }
  }
  return stats;
}

}  // namespace takt::metrics
