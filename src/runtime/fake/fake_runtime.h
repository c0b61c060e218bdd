// A runtime that starts nothing: instances behave as a test says, in the time of a FakeClock.
// Supervision (restart policies, back-off, replacement, records) is the real one.
// Things happen inside calls: every function first plays what is due by the clock, and Advance
// moves the clock from event to event. Thread-safe.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "runtime/runtime.h"

namespace takt::runtime {

// How the instances of a service behave. As it stands: starts at once, runs until it is stopped,
// ends by SIGTERM then.
struct Behaviour {
  struct Line {
    std::chrono::milliseconds after{0};  // since it started
    std::string text;
    bool is_stderr = false;
  };
  std::string fails_to_start;                           // why; empty = it starts
  std::chrono::milliseconds starts_after{0};            // how long it is kStarting
  std::optional<std::chrono::milliseconds> ends_after;  // since it started; nullopt = runs on
  int exit_code = 0;
  std::optional<int> signal;  // it ends by this one instead of exiting
  bool oom_killed = false;
  std::vector<Line> log;
  // Of a service with a health check: when it becomes healthy; nullopt = never (unhealthy after
  // its retries).
  std::optional<std::chrono::milliseconds> healthy_after = std::chrono::milliseconds(0);
  std::chrono::milliseconds stops_after{0};  // since the stop signal; at the latest its grace
  std::optional<int> exit_code_on_stop;      // nullopt = SIGTERM ends it
};

class FakeRuntime final : public Runtime {
 public:
  explicit FakeRuntime(FakeClock& clock);
  ~FakeRuntime() override;

  // For instances that start from now on. Services without one behave as Behaviour{} says.
  void Script(const std::string& app, const std::string& service, Behaviour behaviour);
  // Every image is known unless it is said to be missing. The digest of an image is
  // "sha256:" and its name until set otherwise.
  void MissImage(const std::string& image);
  void SetImage(const std::string& image, ImageInfo info);
  void SetCapabilities(Capabilities capabilities);
  // The next Deploy answers so, and does nothing.
  void FailNextDeploy(absl::Status status);
  // A process outside has it: "port 9000 is taken by another process (nginx, pid 17)".
  void TakePort(std::uint16_t port, const std::string& by);
  // Plays `by` of time, event by event.
  void Advance(std::chrono::milliseconds by);

  // To a live instance, now; false when there is none.
  bool Log(const std::string& instance, const std::string& text, bool is_stderr = false);
  // The same with what else a line says (goes_on, lost_bytes); time and cursor are set here.
  bool LogWith(const std::string& instance, LogLine line);
  bool Exit(const std::string& instance, int exit_code);
  bool Kill(const std::string& instance, int signal, bool oom_killed = false);
  bool SetHealth(const std::string& instance, Health health, const std::string& why);
  // Ids of the live instances of a service, by replica.
  std::vector<std::string> Live(const std::string& app, const std::string& service);
  // How many instances were started since the beginning, failures included.
  int started() const;

  Capabilities capabilities() const override;
  absl::StatusOr<ImageInfo> ResolveImage(const std::string& image) override;
  absl::Status Check(const ServiceSpec& spec) override;
  absl::Status Deploy(const ServiceSpec& spec) override;
  absl::Status Stop(const std::string& app, const std::string& service) override;
  absl::Status Remove(const std::string& app, const std::string& service) override;
  absl::StatusOr<std::vector<ServiceStatus>> Observe() override;
  absl::StatusOr<std::vector<LogLine>> ReadLog(const std::string& instance, std::uint64_t cursor,
                                               std::size_t max_lines) override;
  absl::StatusOr<std::uint64_t> TailCursor(const std::string& instance, std::size_t lines) override;
  void SetListener(std::function<void()> listener) override;
  void SetLogListener(std::function<void(const std::string& instance)> listener) override;

 private:
  class Stage;
  void Play();

  FakeClock& clock_;
  std::unique_ptr<Stage> stage_;
};

}  // namespace takt::runtime
