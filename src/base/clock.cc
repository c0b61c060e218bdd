#include "base/clock.h"

#include "absl/time/time.h"

namespace takt {

using std::chrono::steady_clock;
using std::chrono::system_clock;

system_clock::time_point RealClock::Now() const { return system_clock::now(); }
steady_clock::time_point RealClock::Steady() const { return steady_clock::now(); }

system_clock::time_point FakeClock::Now() const {
  std::lock_guard lock(mutex_);
  constexpr std::chrono::seconds kStart{1767225600};  // 2026-01-01T00:00:00Z
  return system_clock::time_point(
      std::chrono::duration_cast<system_clock::duration>(kStart + elapsed_));
}

steady_clock::time_point FakeClock::Steady() const {
  std::lock_guard lock(mutex_);
  return steady_clock::time_point(elapsed_);
}

void FakeClock::Advance(std::chrono::nanoseconds by) {
  std::lock_guard lock(mutex_);
  elapsed_ += by;
}

std::string FormatRfc3339(system_clock::time_point t) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromChrono(t), absl::UTCTimeZone());
}

}  // namespace takt
