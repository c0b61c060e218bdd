#include "runtime/fake/fake_runtime.h"

#include <algorithm>
#include <csignal>
#include <mutex>
#include <utility>

#include "runtime/supervisor.h"

namespace takt::runtime {

using std::chrono::milliseconds;
using SteadyTime = std::chrono::steady_clock::time_point;

// The launcher: a list of events in time for each instance.
class FakeRuntime::Stage final : public Launcher {
 public:
  explicit Stage(FakeClock& clock) : clock_(clock), supervisor_(*this, clock) {
    capabilities_.name = "fake";
    capabilities_.features = {"cpus",   "devices", "gpus",       "healthcheck", "memory",
                              "shm",    "tmpfs",   "ulimits",    "user",        "read_only",
                              "init",   "ports",   "replicas",   "networks",    "extra_hosts",
                              "global", "cap_add", "cap_drop",   "dns",         "hostname",
                              "build",  "tty",     "stdin_open", "links",       "auto_scaling"};
    capabilities_.private_mounts = true;
  }

  Supervisor& supervisor() { return supervisor_; }

  Capabilities capabilities() const override {
    std::lock_guard lock(mutex_);
    return capabilities_;
  }
  absl::StatusOr<ImageInfo> ResolveImage(const std::string& image) override {
    std::lock_guard lock(mutex_);
    if (missing_.count(image)) {
      return absl::NotFoundError(StrCat("there is no image ", image, " here"));
    }
    if (const auto it = images_.find(image); it != images_.end()) return it->second;
    ImageInfo info;
    info.name = image;
    info.digest = StrCat("sha256:", image);
    return info;
  }
  absl::Status Check(const ServiceSpec&, const std::vector<PortMapping>& new_ports) override {
    std::lock_guard lock(mutex_);
    for (const PortMapping& port : new_ports) {
      if (const auto it = taken_.find(port.published); it != taken_.end()) {
        return absl::AlreadyExistsError(
            StrCat("port ", port.published, " is taken by another process (", it->second, ")"));
      }
    }
    return absl::OkStatus();
  }
  absl::Status Save(const ServiceRecord&) override { return absl::OkStatus(); }
  void Forget(const std::string&, const std::string&) override {}
  void Wake() override {}
  void Measure(InstanceStatus& status) override {
    status.memory_bytes = 1 << 20;
    status.cpu_seconds = 0.5;
  }

  void Start(const ServiceSpec& spec, const InstanceRecord& record) override {
    std::lock_guard lock(mutex_);
    ++started_;
    Behaviour b;
    if (const auto it = scripts_.find({spec.app, spec.service}); it != scripts_.end()) {
      b = it->second;
    }
    Actor& actor = actors_[record.id];
    actor.behaviour = b;
    actor.grace = spec.stop_grace;
    const std::string id = record.id;
    const SteadyTime now = clock_.Steady();
    if (!b.fails_to_start.empty()) {
      EndOfInstance end;
      end.failure = b.fails_to_start;
      At(id, now + b.starts_after, [this, id, end] { End(id, end); });
      return;
    }
    const SteadyTime start = now + b.starts_after;
    std::vector<Endpoint> endpoints;
    for (const PortMapping& port : spec.ports) {
      Endpoint endpoint;
      endpoint.host = "127.0.0.1";
      endpoint.port = port.published ? port.published : ++next_port_;
      endpoint.target = port.target;
      endpoint.protocol = port.protocol;
      endpoints.push_back(endpoint);
    }
    At(id, start, [this, id, endpoints, pid = 1000 + started_] {
      supervisor_.Started(id, pid, clock_.Now(), endpoints);
    });
    for (const Behaviour::Line& line : b.log) {
      At(id, start + line.after,
         [this, id, line] { Append(id, {.is_stderr = line.is_stderr, .text = line.text}); });
    }
    if (spec.health.kind != HealthProbe::Kind::kNone) {
      if (b.healthy_after) {
        At(id, start + *b.healthy_after,
           [this, id] { supervisor_.SetHealth(id, Health::kHealthy, ""); });
      } else {
        const auto after =
            spec.health.start_period + spec.health.interval * std::max(1, spec.health.retries);
        At(id, start + after,
           [this, id] { supervisor_.SetHealth(id, Health::kUnhealthy, "its health check fails"); });
      }
    }
    if (b.ends_after) {
      EndOfInstance end;
      if (b.signal) {
        end.signal = b.signal;
      } else {
        end.exit_code = b.exit_code;
      }
      end.oom_killed = b.oom_killed;
      At(id, start + *b.ends_after, [this, id, end] { End(id, end); });
    }
  }

  void Stop(const std::string& id) override {
    std::lock_guard lock(mutex_);
    const auto it = actors_.find(id);
    if (it == actors_.end() || it->second.ended) return;
    const Behaviour& b = it->second.behaviour;
    EndOfInstance end;
    milliseconds after = b.stops_after;
    if (after > it->second.grace) {
      after = it->second.grace;
      end.signal = SIGKILL;
    } else if (b.exit_code_on_stop) {
      end.exit_code = b.exit_code_on_stop;
    } else {
      end.signal = SIGTERM;
    }
    At(id, clock_.Steady() + after, [this, id, end] { End(id, end); });
  }

  void Discard(const InstanceRecord& record) override {
    std::lock_guard lock(mutex_);
    actors_.erase(record.id);
  }

  absl::StatusOr<std::vector<LogLine>> ReadLog(const std::string& id, std::uint64_t cursor,
                                               std::size_t max_lines) override {
    std::lock_guard lock(mutex_);
    std::vector<LogLine> lines;
    const std::vector<LogLine>& all = actors_[id].log;
    for (std::size_t i = cursor; i < all.size() && lines.size() < max_lines; ++i) {
      lines.push_back(all[i]);
    }
    return lines;
  }
  absl::StatusOr<std::uint64_t> TailCursor(const std::string& id, std::size_t lines) override {
    std::lock_guard lock(mutex_);
    const std::size_t size = actors_[id].log.size();
    return size - std::min(size, lines);
  }

  // Plays one event that is due at `until` or before. False when there is none.
  bool PlayOne(SteadyTime until) {
    std::function<void()> play;
    {
      std::lock_guard lock(mutex_);
      if (events_.empty() || events_.begin()->first > until) return false;
      if (const auto actor = actors_.find(events_.begin()->second.instance);
          actor != actors_.end() && !actor->second.ended) {
        play = events_.begin()->second.play;
      }
      events_.erase(events_.begin());
    }
    if (play) play();
    return true;
  }
  std::optional<SteadyTime> Next() const {
    std::lock_guard lock(mutex_);
    if (events_.empty()) return std::nullopt;
    return events_.begin()->first;
  }

  bool Append(const std::string& id, LogLine line) {
    {
      std::lock_guard lock(mutex_);
      const auto it = actors_.find(id);
      if (it == actors_.end() || it->second.ended) return false;
      line.time = clock_.Now();
      line.instance = id;
      line.cursor = it->second.log.size() + 1;
      it->second.log.push_back(std::move(line));
    }
    supervisor_.LogGrew(id);
    return true;
  }
  bool End(const std::string& id, EndOfInstance end) {
    {
      std::lock_guard lock(mutex_);
      const auto it = actors_.find(id);
      if (it == actors_.end() || it->second.ended) return false;
      it->second.ended = true;
    }
    end.finished = clock_.Now();
    supervisor_.Ended(id, end);
    return true;
  }

  mutable std::mutex mutex_;
  Capabilities capabilities_;
  std::map<std::pair<std::string, std::string>, Behaviour> scripts_;
  std::map<std::string, ImageInfo> images_;
  std::set<std::string> missing_;
  std::map<std::uint16_t, std::string> taken_;
  std::optional<absl::Status> fail_next_;
  int started_ = 0;
  std::mutex play_mutex_;  // one player at a time

 private:
  struct Actor {
    Behaviour behaviour;
    milliseconds grace{0};
    bool ended = false;
    std::vector<LogLine> log;
  };
  struct Event {
    std::string instance;
    std::function<void()> play;
  };
  void At(const std::string& id, SteadyTime when, std::function<void()> play) {
    events_.emplace(when, Event{id, std::move(play)});
  }

  FakeClock& clock_;
  Supervisor supervisor_;
  std::map<std::string, Actor> actors_;
  std::multimap<SteadyTime, Event> events_;  // equal times in the order in which they were added
  std::uint16_t next_port_ = 40000;
};

FakeRuntime::FakeRuntime(FakeClock& clock)
    : clock_(clock), stage_(std::make_unique<Stage>(clock)) {}
FakeRuntime::~FakeRuntime() = default;

// A listener that calls back into the runtime, from the same thread, is answered from what is
// there: the one who plays goes on afterwards.
void FakeRuntime::Play() {
  std::unique_lock lock(stage_->play_mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  do {
    stage_->supervisor().Tick();
  } while (stage_->PlayOne(clock_.Steady()));
}

void FakeRuntime::Advance(milliseconds by) {
  const SteadyTime end = clock_.Steady() + by;
  while (true) {
    Play();
    std::optional<SteadyTime> next = stage_->supervisor().Tick();
    if (const auto event = stage_->Next(); event && (!next || *event < *next)) next = event;
    const SteadyTime to = next && *next < end ? *next : end;
    if (to > clock_.Steady()) clock_.Advance(to - clock_.Steady());
    if (to == end) break;
  }
  Play();
}

void FakeRuntime::Script(const std::string& app, const std::string& service, Behaviour behaviour) {
  std::lock_guard lock(stage_->mutex_);
  stage_->scripts_[{app, service}] = std::move(behaviour);
}
void FakeRuntime::MissImage(const std::string& image) {
  std::lock_guard lock(stage_->mutex_);
  stage_->missing_.insert(image);
}
void FakeRuntime::SetImage(const std::string& image, ImageInfo info) {
  std::lock_guard lock(stage_->mutex_);
  stage_->missing_.erase(image);
  stage_->images_[image] = std::move(info);
}
void FakeRuntime::SetCapabilities(Capabilities capabilities) {
  std::lock_guard lock(stage_->mutex_);
  stage_->capabilities_ = std::move(capabilities);
}
void FakeRuntime::FailNextDeploy(absl::Status status) {
  std::lock_guard lock(stage_->mutex_);
  stage_->fail_next_ = std::move(status);
}
void FakeRuntime::TakePort(std::uint16_t port, const std::string& by) {
  std::lock_guard lock(stage_->mutex_);
  stage_->taken_[port] = by;
}

bool FakeRuntime::Log(const std::string& instance, const std::string& text, bool is_stderr) {
  return LogWith(instance, {.is_stderr = is_stderr, .text = text});
}
bool FakeRuntime::LogWith(const std::string& instance, LogLine line) {
  Play();
  return stage_->Append(instance, std::move(line));
}
bool FakeRuntime::Exit(const std::string& instance, int exit_code) {
  Play();
  EndOfInstance end;
  end.exit_code = exit_code;
  const bool ended = stage_->End(instance, end);
  Play();
  return ended;
}
bool FakeRuntime::Kill(const std::string& instance, int signal, bool oom_killed) {
  Play();
  EndOfInstance end;
  end.signal = signal;
  end.oom_killed = oom_killed;
  const bool ended = stage_->End(instance, end);
  Play();
  return ended;
}
bool FakeRuntime::SetHealth(const std::string& instance, Health health, const std::string& why) {
  Play();
  if (!stage_->supervisor().SpecOf(instance)) return false;
  stage_->supervisor().SetHealth(instance, health, why);
  return true;
}
std::vector<std::string> FakeRuntime::Live(const std::string& app, const std::string& service) {
  std::map<int, std::string> ids;
  const auto services = Observe();
  for (const ServiceStatus& s : *services) {
    if (s.app != app || s.service != service) continue;
    for (const InstanceStatus& i : s.instances) {
      if (stage_->supervisor().SpecOf(i.id)) ids[i.replica] = i.id;
    }
  }
  std::vector<std::string> result;
  result.reserve(ids.size());
  for (auto& [replica, id] : ids) result.push_back(id);
  return result;
}
int FakeRuntime::started() const {
  std::lock_guard lock(stage_->mutex_);
  return stage_->started_;
}

Capabilities FakeRuntime::capabilities() const { return stage_->capabilities(); }
absl::StatusOr<ImageInfo> FakeRuntime::ResolveImage(const std::string& image) {
  return stage_->ResolveImage(image);
}
absl::Status FakeRuntime::Check(const ServiceSpec& spec) {
  return stage_->supervisor().Check(spec);
}
absl::Status FakeRuntime::Deploy(const ServiceSpec& spec) {
  {
    std::lock_guard lock(stage_->mutex_);
    if (std::optional<absl::Status> fail = std::exchange(stage_->fail_next_, std::nullopt)) {
      return *fail;
    }
  }
  TAKT_RETURN_IF_ERROR(stage_->supervisor().Deploy(spec));
  Play();
  return absl::OkStatus();
}
absl::Status FakeRuntime::Stop(const std::string& app, const std::string& service) {
  TAKT_RETURN_IF_ERROR(stage_->supervisor().Stop(app, service));
  Play();
  return absl::OkStatus();
}
absl::Status FakeRuntime::Remove(const std::string& app, const std::string& service) {
  TAKT_RETURN_IF_ERROR(stage_->supervisor().Remove(app, service));
  Play();
  return absl::OkStatus();
}
absl::StatusOr<std::vector<ServiceStatus>> FakeRuntime::Observe() {
  Play();
  return stage_->supervisor().Observe();
}
absl::StatusOr<std::vector<LogLine>> FakeRuntime::ReadLog(const std::string& instance,
                                                          std::uint64_t cursor,
                                                          std::size_t max_lines) {
  Play();
  return stage_->supervisor().ReadLog(instance, cursor, max_lines);
}
absl::StatusOr<std::uint64_t> FakeRuntime::TailCursor(const std::string& instance,
                                                      std::size_t lines) {
  Play();
  return stage_->supervisor().TailCursor(instance, lines);
}
void FakeRuntime::SetListener(std::function<void()> listener) {
  stage_->supervisor().SetListener(std::move(listener));
}

void FakeRuntime::SetLogListener(std::function<void(const std::string&)> listener) {
  stage_->supervisor().SetLogListener(std::move(listener));
}

}  // namespace takt::runtime
