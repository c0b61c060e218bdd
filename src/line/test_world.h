// A line on a fake clock and a fake runtime, for tests: its daemon can be ended, killed at the very
// moment of a call to the runtime, and started again, while the runtime's instances go on.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/fs.h"
#include "line/line.h"
#include "runtime/fake/fake_runtime.h"
#include "storage/volumes.h"

namespace takt::line {

// Passes calls on to a runtime until its daemon "dies": then nothing has an effect any more, and
// what lay on the disk at that moment is what the next daemon finds.
class MortalRuntime final : public runtime::Runtime {
 public:
  // Whether to die in this call, before it is passed on or after.
  enum class Fate { kLive, kDieBefore, kDieAfter };

  MortalRuntime(runtime::FakeRuntime& inner, std::string data_dir)
      : inner_(inner), data_dir_(std::move(data_dir)) {}

  void SetFate(std::function<Fate()> fate) { fate_ = std::move(fate); }
  bool dead() const { return dead_; }
  // The next daemon: puts back the files of the moment of death, where there was one.
  void Revive() {
    if (!std::exchange(dead_, false)) return;
    for (const char* name : kFiles) {
      const std::string path = JoinPath(data_dir_, name);
      RemoveAll(path).IgnoreError();
      auto content = ReadFile(path + ".image", 1 << 30);
      if (content.ok()) WriteFileAtomic(path, *content).IgnoreError();
      RemoveAll(path + ".image").IgnoreError();
    }
  }

  runtime::Capabilities capabilities() const override { return inner_.capabilities(); }
  absl::StatusOr<runtime::ImageInfo> ResolveImage(const std::string& image) override {
    return inner_.ResolveImage(image);
  }
  absl::Status Check(const runtime::ServiceSpec& spec) override { return inner_.Check(spec); }
  absl::Status Deploy(const runtime::ServiceSpec& spec) override {
    return Act([&] {
      absl::Status status = inner_.Deploy(spec);
      if (status.ok()) last_[{spec.app, spec.service}] = spec;
      return status;
    });
  }
  absl::Status Stop(const std::string& app, const std::string& service) override {
    return Act([&] { return inner_.Stop(app, service); });
  }
  absl::Status Remove(const std::string& app, const std::string& service) override {
    return Act([&] { return inner_.Remove(app, service); });
  }
  absl::StatusOr<std::vector<runtime::ServiceStatus>> Observe() override {
    return inner_.Observe();
  }
  absl::StatusOr<std::vector<runtime::LogLine>> ReadLog(const std::string& instance,
                                                        std::uint64_t cursor,
                                                        std::size_t max_lines) override {
    return inner_.ReadLog(instance, cursor, max_lines);
  }
  absl::StatusOr<std::uint64_t> TailCursor(const std::string& instance,
                                           std::size_t lines) override {
    return inner_.TailCursor(instance, lines);
  }
  void SetListener(std::function<void()> listener) override {
    inner_.SetListener(std::move(listener));
  }
  void SetLogListener(std::function<void(const std::string&)> listener) override {
    inner_.SetLogListener(std::move(listener));
  }

  // What the runtime was last given of a service, or null.
  const runtime::ServiceSpec* Last(const std::string& app, const std::string& service) const {
    auto it = last_.find({app, service});
    return it == last_.end() ? nullptr : &it->second;
  }

 private:
  static constexpr const char* kFiles[] = {"takt.db", "takt.db-wal", "takt.db-shm"};

  absl::Status Act(const std::function<absl::Status()>& call) {
    if (dead_) return absl::UnavailableError("this daemon is dead");
    Fate fate = fate_ ? fate_() : Fate::kLive;
    if (fate == Fate::kDieBefore) return Die();
    absl::Status status = call();
    return fate == Fate::kDieAfter ? Die() : status;
  }

  absl::Status Die() {
    dead_ = true;
    for (const char* name : kFiles) {
      const std::string path = JoinPath(data_dir_, name);
      if (std::string_view(name).ends_with("-shm")) continue;  // made anew from the log
      auto content = ReadFile(path, 1 << 30);
      if (content.ok()) WriteFileAtomic(path + ".image", *content).IgnoreError();
    }
    return absl::UnavailableError("this daemon has just died");
  }

  runtime::FakeRuntime& inner_;
  const std::string data_dir_;
  std::function<Fate()> fate_;
  bool dead_ = false;
  std::map<std::pair<std::string, std::string>, runtime::ServiceSpec> last_;
};

struct TestWorld {
  TestWorld() {
    if (!Open().ok()) std::abort();
  }

  std::string data_dir() const { return JoinPath(dir.path(), "data"); }

  // Ends the daemon, if there is one, and starts the next.
  absl::Status Open() {
    line.reset();
    volumes.reset();
    runtime.Revive();
    TAKT_ASSIGN_OR_RETURN(volumes, storage::VolumeStore::Open(data_dir(), "fake"));
    LineOptions options;
    options.data_dir = data_dir();
    options.own_thread = false;
    TAKT_ASSIGN_OR_RETURN(line, Line::Open(options, runtime, *volumes, clock));
    return absl::OkStatus();
  }

  // Plays time, the line's loop going on all the while.
  void Advance(std::chrono::milliseconds by) {
    constexpr std::chrono::milliseconds kStep{500};
    while (by.count() > 0) {
      std::chrono::milliseconds step = std::min(by, kStep);
      fake.Advance(step);
      line->Step();
      by -= step;
    }
  }

  TempDir dir;
  FakeClock clock;
  runtime::FakeRuntime fake{clock};
  MortalRuntime runtime{fake, JoinPath(dir.path(), "data")};
  std::unique_ptr<storage::VolumeStore> volumes;
  std::unique_ptr<Line> line;
};

}  // namespace takt::line
