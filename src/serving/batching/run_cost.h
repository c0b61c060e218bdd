// What runs of a signature take, as they were seen lately, by how many rows they have.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace takt::serving {

// Any thread; nobody waits: a lost update is made up for by the next.
class RunCost {
 public:
  // A run that takes longer than this does not run on an event loop where it can be helped.
  static constexpr std::chrono::nanoseconds kLong = std::chrono::milliseconds(1);
  // Never run: surely long, as the first run prepares much.
  static constexpr std::chrono::nanoseconds kUnknown = std::chrono::seconds(1);

  void Record(std::int64_t rows, std::chrono::nanoseconds took);
  std::chrono::nanoseconds Estimate(std::int64_t rows) const;
  // The most rows for one run: a power of two whose run is expected to take no longer than
  // `target`, and whose rows are about as cheap as at any size that was seen. At least one.
  std::int64_t MostRows(std::chrono::nanoseconds target) const;

 private:
  // Sizes of 2^(b-1)+1 to 2^b rows. What callers send is often a power of two (as many calls at
  // once as a client has), so that is what a size ends with: one more would leave 7 + 1 of 8.
  static constexpr std::size_t kSizes = 24;
  struct Size {
    std::atomic<std::uint32_t> runs{0};
    // Means of the same runs, so that their ratio is what a row cost, whatever the runs' rows
    // within the size were. 0 runs: not known.
    std::atomic<float> ns{0};
    std::atomic<float> rows{0};
  };
  // Walks through the sizes from the smallest on.
  class Walk;

  std::array<Size, kSizes> sizes_;
  mutable std::atomic<std::uint32_t> asked_{0};
};

}  // namespace takt::serving
