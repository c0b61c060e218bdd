// Time as a dependency, so that tests drive it.
#pragma once

#include <chrono>
#include <mutex>
#include <string>

namespace takt {

// All functions may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  // Wall clock, for what people and files see. May jump.
  virtual std::chrono::system_clock::time_point Now() const = 0;
  // Monotonic, for timeouts and back-off.
  virtual std::chrono::steady_clock::time_point Steady() const = 0;
};

class RealClock final : public Clock {
 public:
  std::chrono::system_clock::time_point Now() const override;
  std::chrono::steady_clock::time_point Steady() const override;
};

// Stands still until Advance. Starts at 2026-01-01T00:00:00Z.
class FakeClock final : public Clock {
 public:
  std::chrono::system_clock::time_point Now() const override;
  std::chrono::steady_clock::time_point Steady() const override;
  void Advance(std::chrono::nanoseconds by);

 private:
  mutable std::mutex mutex_;
  std::chrono::nanoseconds elapsed_{0};
};

// "2026-01-01T00:00:00.000Z": RFC 3339, UTC, milliseconds.
std::string FormatRfc3339(std::chrono::system_clock::time_point t);

}  // namespace takt
