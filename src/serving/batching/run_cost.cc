#include "serving/batching/run_cost.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace takt::serving {
namespace {

std::size_t SizeOf(std::int64_t rows, std::size_t sizes) {
  const auto from_zero = static_cast<std::uint64_t>(std::max<std::int64_t>(rows, 1) - 1);
  return std::min<std::size_t>(std::bit_width(from_zero), sizes - 1);
}

// A size that was run fewer times may have been interrupted in most of them.
constexpr std::uint32_t kFewRuns = 8;
constexpr float kInfinite = std::numeric_limits<float>::infinity();

}  // namespace

void RunCost::Record(std::int64_t rows, std::chrono::nanoseconds took) {
  if (rows < 1) return;
  Size& size = sizes_[SizeOf(rows, kSizes)];
  auto ns = static_cast<float>(took.count());
  const auto count = static_cast<float>(rows);
  const std::uint32_t runs = size.runs.load(std::memory_order_relaxed);
  if (runs == 0) {
    size.ns.store(ns, std::memory_order_relaxed);
    size.rows.store(count, std::memory_order_relaxed);
  } else {
    // A single run that was interrupted (by the system, by another load) says little: up goes
    // slowly and by a bounded step, down quickly.
    const float old_ns = size.ns.load(std::memory_order_relaxed);
    const float old_rows = size.rows.load(std::memory_order_relaxed);
    const float expected = old_ns * count / old_rows;
    ns = std::min(ns, 2 * expected);
    const float weight = ns > expected ? 1.0F / 8 : 1.0F / 4;
    size.ns.store(old_ns + (ns - old_ns) * weight, std::memory_order_relaxed);
    size.rows.store(old_rows + (count - old_rows) * weight, std::memory_order_relaxed);
  }
  size.runs.store(std::min(runs + 1, std::uint32_t{1} << 30), std::memory_order_relaxed);
}

class RunCost::Walk {
 public:
  explicit Walk(const RunCost& cost) : cost_(cost) {}

  // A row of the next size in a run of `rows`, which lie in that size; infinite when neither it nor
  // a smaller one was run.
  float NextRow(float rows) {
    const Size& size = cost_.sizes_[next_++];
    const std::uint32_t runs = size.runs.load(std::memory_order_relaxed);
    const float by_fewer = cheapest_;
    if (runs == 0) return by_fewer;
    const float seen_rows = size.rows.load(std::memory_order_relaxed);
    const float seen_ns = size.ns.load(std::memory_order_relaxed);
    cheapest_ = std::min(cheapest_, seen_ns / seen_rows);
    // Fewer rows than were seen may cost as much as those; more cost more by as many.
    const float row = seen_ns / std::min(seen_rows, rows);
    // At worst each row costs what it costs in a smaller run. That bounds what was measured, too: a
    // size that looked bad once is not run again, so its own figure would never mend.
    return std::min(row, runs < kFewRuns ? by_fewer : by_fewer * 1.5F);
  }

 private:
  const RunCost& cost_;
  std::size_t next_ = 0;
  float cheapest_ = kInfinite;
};

std::chrono::nanoseconds RunCost::Estimate(std::int64_t rows) const {
  rows = std::max<std::int64_t>(rows, 1);
  const std::size_t own = SizeOf(rows, kSizes);
  const auto count = static_cast<float>(rows);
  Walk walk(*this);
  float row = 0;
  for (std::size_t s = 0; s <= own; ++s) row = walk.NextRow(count);
  if (row != kInfinite) {
    return std::chrono::nanoseconds(
        std::max<std::int64_t>(static_cast<std::int64_t>(row * count), 1));
  }
  for (std::size_t s = own + 1; s < kSizes; ++s) {
    if (sizes_[s].runs.load(std::memory_order_relaxed) == 0) continue;
    return std::chrono::nanoseconds(
        static_cast<std::int64_t>(sizes_[s].ns.load(std::memory_order_relaxed)));
  }
  return kUnknown;
}

std::int64_t RunCost::MostRows(std::chrono::nanoseconds target) const {
  // A larger batch must not make a row dearer: beyond what the caches hold it often does.
  constexpr float kTolerance = 1.15F;
  // Now and then it is tried all the same: what was seen may have changed.
  constexpr std::uint32_t kTryEvery = 1024;
  const bool try_it = asked_.fetch_add(1, std::memory_order_relaxed) % kTryEvery == kTryEvery - 1;
  const auto most_ns = static_cast<float>(target.count());
  std::array<float, kSizes> row;
  std::size_t fit = 0;
  for (Walk walk(*this); fit < kSizes; ++fit) {
    const auto rows = static_cast<float>(std::int64_t{1} << fit);
    row[fit] = walk.NextRow(rows);
    if (row[fit] != kInfinite && row[fit] * rows > most_ns) break;
  }
  // From the cheapest size on, as far as rows stay about as cheap.
  std::size_t most = 0;
  for (std::size_t s = 1; s < fit; ++s) {
    if (row[s] < row[most]) most = s;
  }
  if (fit == 0 || row[most] == kInfinite) return 1;
  const float cheap = row[most] * kTolerance;
  while (most + 1 < fit && (try_it || row[most + 1] <= cheap)) ++most;
  return std::int64_t{1} << most;
}

}  // namespace takt::serving
