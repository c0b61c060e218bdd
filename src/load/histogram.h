// Latencies in logarithmic buckets of linear steps, as HDR histograms have them: a percentile is
// off by at most a thousandth. No threads.
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <vector>

namespace takt::load {

class Histogram {
 public:
  // Values up to about two hours; longer ones count as that.
  Histogram() : counts_((kBuckets + 1) << kStepBits, 0) {}

  void Record(std::chrono::nanoseconds value) {
    const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(value.count(), 0));
    ++counts_[std::min(Index(ns), counts_.size() - 1)];
    ++total_;
    sum_ns_ += ns;
    max_ns_ = std::max(max_ns_, ns);
  }
  void Add(const Histogram& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
    sum_ns_ += other.sum_ns_;
    max_ns_ = std::max(max_ns_, other.max_ns_);
  }
  std::uint64_t count() const { return total_; }
  std::chrono::nanoseconds max() const {
    return std::chrono::nanoseconds(static_cast<std::int64_t>(max_ns_));
  }
  std::chrono::nanoseconds mean() const {
    return std::chrono::nanoseconds(total_ == 0 ? 0 : static_cast<std::int64_t>(sum_ns_ / total_));
  }
  // The value that `percent` of all values do not exceed; 0 when there are none.
  std::chrono::nanoseconds Percentile(double percent) const {
    const auto rank = std::max<std::uint64_t>(
        1, static_cast<std::uint64_t>(std::llround(percent / 100 * static_cast<double>(total_))));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (total_ > 0 && seen >= rank) {
        return std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(Upper(i), max_ns_)));
      }
    }
    return {};
  }

 private:
  static constexpr int kStepBits = 10;  // 1024 steps a power of two
  static constexpr int kBuckets = 33;

  static std::size_t Index(std::uint64_t ns) {
    if (ns < (1U << kStepBits)) return ns;
    const int bucket = std::bit_width(ns) - kStepBits;  // >= 1
    return (static_cast<std::size_t>(bucket) << kStepBits) + (ns >> (bucket - 1)) -
           (1U << kStepBits);
  }
  static std::uint64_t Upper(std::size_t index) {
    const std::size_t bucket = index >> kStepBits;
    if (bucket == 0) return index;
    const std::uint64_t step = (index & ((1U << kStepBits) - 1)) + (1U << kStepBits);
    return ((step + 1) << (bucket - 1)) - 1;
  }

  std::vector<std::uint64_t> counts_;
  std::uint64_t total_ = 0;
  std::uint64_t sum_ns_ = 0;
  std::uint64_t max_ns_ = 0;
};

}  // namespace takt::load
