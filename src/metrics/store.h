// Samples over time, kept small: as they came for a day, by the minute for a week, by the hour for
// a year, in one SQLite file. Not a collector; it asks nobody.
//
// Counters are kept rising over restarts of their source: a value below the one before begins
// anew on top of it. So the increase over any span is the difference of two values, at every
// resolution.
//
// Threads: every function may be called from any thread. What was appended is on the disk after at
// most kFlushInterval; a kill -9 loses no more than that.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/sqlite.h"
#include "base/status.h"
#include "metrics/chunk.h"

namespace takt::metrics {

inline constexpr std::size_t kMaxSeries = 50'000;
inline constexpr std::size_t kMaxPointsPerSeries = 2000;  // of one answer
inline constexpr std::size_t kMaxSeriesPerQuery = 2000;   // touched by one question
inline constexpr auto kFlushInterval = std::chrono::seconds(60);
inline constexpr auto kKeepSamples = std::chrono::hours(24);
inline constexpr auto kKeepMinutes = std::chrono::hours(24 * 7);
inline constexpr auto kKeepHours = std::chrono::hours(24 * 365);

inline constexpr std::uint64_t kMaxMetricBytes = 4ull << 30;  // on disk; beyond: the oldest go
inline constexpr std::chrono::seconds kRoomInterval{10};      // between looks at the disk's room
// A clock that is put back by more: what was measured in its future is forgotten, and said. By
// less: nothing is taken until it has caught up.
inline constexpr std::chrono::seconds kMaxClockStep{60};

enum class Type { kGauge, kCounter };
using Labels = std::vector<std::pair<std::string, std::string>>;  // by name

struct Matcher {
  enum class Op { kEqual, kNotEqual, kPrefix };
  std::string label;
  Op op = Op::kEqual;
  std::string value;
};
// "app=mnist,node!=a,instance=i*": label, comparison, value; commas between. INVALID_ARGUMENT.
absl::StatusOr<std::vector<Matcher>> ParseMatchers(std::string_view text);
std::string MatchersText(const std::vector<Matcher>& matchers);  // the inverse

// What becomes of the samples of one series within one step ...
enum class Function { kAvg, kMin, kMax, kSum, kLast, kCount, kIncrease, kRate };
// ... and of the series of one group.
enum class Aggregation { kNone, kSum, kAvg, kMin, kMax };
std::optional<Function> FunctionFromName(std::string_view name);        // "avg", ...
std::optional<Aggregation> AggregationFromName(std::string_view name);  // "none", ...
const char* FunctionName(Function function);
const char* AggregationName(Aggregation aggregation);

struct Question {
  std::string name;
  std::vector<Matcher> matchers;
  std::int64_t from_ms = 0, to_ms = 0;  // [from, to)
  std::int64_t step_ms = 0;             // 0 = one that gives about 300 points
  Function function = Function::kAvg;
  Aggregation aggregation = Aggregation::kNone;
  std::vector<std::string> by;  // labels that keep groups apart when aggregating
  // In (0, 1): `name` is a histogram's buckets (label "le", cumulative counters). The increases of
  // each group's buckets are added up, and this quantile of them is the answer, linear within a
  // bucket as Prometheus' histogram_quantile has it.
  std::optional<double> quantile;
  // "" = none. Else each value is divided by that of the series of this metric that the same
  // question finds under the same labels; where that is unknown or not positive, so is the answer.
  std::string divide_by;
  std::vector<Matcher> divide_matchers;
};

struct AnswerSeries {
  Labels labels;
  std::vector<double> values;  // one a step; NaN = unknown
};
struct Answer {
  std::int64_t from_ms = 0, step_ms = 0;
  std::vector<AnswerSeries> series;
};

struct MetricStats {
  std::size_t series = 0;
  std::uint64_t disk_bytes = 0;
  std::uint64_t refused_series = 0;  // beyond kMaxSeries
  std::uint64_t dropped_blocks = 0;  // for want of room, since the store was opened
};

class MetricStore {
 public:
  // On a nearly full disk, or beyond `max_bytes`, the oldest samples go first (what is rolled up of
  // them stays), then the oldest minutes and hours; stderr says so. New samples wait in memory
  // until there is room, about an hour of them.
  static absl::StatusOr<std::unique_ptr<MetricStore>> Open(
      const std::string& path, const Clock& clock, std::uint64_t max_bytes = kMaxMetricBytes);
  ~MetricStore();  // flushes

  // The series' number, made when new. Beyond kMaxSeries the one that ended longest ago goes;
  // RESOURCE_EXHAUSTED when all of them had a sample within the last hour.
  // `fresh`, where given: whether this call made it.
  absl::StatusOr<std::int64_t> Series(const std::string& name, const Labels& labels, Type type,
                                      bool* fresh = nullptr);
  // One sample for each series; times of one series must rise (others are dropped). NaN is not
  // kept.
  struct Point {
    std::int64_t series = 0;
    double value = 0;
  };
  void Append(std::int64_t time_ms, std::span<const Point> points);

  // INVALID_ARGUMENT for a span, a step or a quantile that makes no sense, RESOURCE_EXHAUSTED for
  // more than kMaxSeriesPerQuery series.
  absl::StatusOr<Answer> Ask(const Question& question);
  // Newest sample of each matching series, not older than `max_age_ms`.
  struct Latest {
    Labels labels;
    Sample sample;
  };
  std::vector<Latest> Newest(const std::string& name, const std::vector<Matcher>& matchers,
                             std::int64_t max_age_ms);
  // All names with their types, sorted.
  std::vector<std::pair<std::string, Type>> Names();

  // Writes what has waited, rolls up, forgets what is past its time. About once a second.
  absl::Status Tend();
  absl::Status Flush();
  MetricStats Stats();

 private:
  struct Series_;
  absl::StatusOr<Answer> AskUndivided(const Question& question);
  MetricStore(std::string path, const Clock& clock, std::uint64_t max_bytes);
  absl::Status TendLocked();
  absl::Status MakeRoom(bool full);
  absl::Status LimitGrowth();
  absl::Status DropOldestBlocks(bool full);
  void KeepReserve() const;
  absl::Status ForgetAfter(std::int64_t time_ms);
  absl::StatusOr<std::uint64_t> Pragma(std::string_view name);
  absl::Status Load();
  bool DropOldest();
  // The open samples: as a chunk of their own, then there are none left, or as what is growing.
  absl::Status WriteChunk(Series_& series);
  absl::Status WriteGrowing(Series_& series);
  absl::Status WriteBase(const Series_& series);
  absl::Status RollUp(Series_& series, std::int64_t now_ms);
  absl::Status ReadWindows(const Series_& series, std::int64_t from_ms, std::int64_t to_ms,
                           std::int64_t step_ms, std::vector<Window>& out);
  std::vector<Series_*> Select(const std::string& name, const std::vector<Matcher>& matchers);
  std::int64_t NowMs() const;

  const std::string path_;
  const Clock& clock_;
  std::mutex mutex_;
  std::unique_ptr<Sqlite> db_;
  std::vector<std::unique_ptr<Series_>> series_;
  std::unordered_map<std::string, Series_*> by_key_;
  std::unordered_map<std::int64_t, Series_*> by_id_;
  std::map<std::string, std::vector<Series_*>> by_name_;
  const std::uint64_t max_bytes_;
  std::uint64_t refused_ = 0, dropped_ = 0;
  std::int64_t latest_ms_ = 0;  // of all samples
  std::chrono::steady_clock::time_point last_room_{};
  std::size_t next_tend_ = 0;  // series looked at next
  std::chrono::steady_clock::time_point last_tend_{};
};

}  // namespace takt::metrics
