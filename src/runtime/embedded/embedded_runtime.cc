#include "runtime/embedded/embedded_runtime.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"
#include "base/ids.h"
#include "base/spawn.h"
#include "runtime/embedded/control_groups.h"
#include "runtime/embedded/event_loop.h"
#include "runtime/embedded/log_reader.h"
#include "runtime/embedded/machine.h"
#include "runtime/embedded/pid_fd.h"
#include "runtime/embedded/plan_launch.h"
#include "runtime/embedded/prober.h"
#include "runtime/embedded/records.h"

namespace takt::runtime {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxRecordBytes = 64 << 20;  // a service's files lie in its record
// An empty file of this name says of the record beside it: stopped.
constexpr const char* kStoppedSuffix = ".stopped";
constexpr milliseconds kLogPause{20};    // between two looks at busy logs
constexpr milliseconds kGroupPause{50};  // between attempts to remove control groups
constexpr int kGroupTries = 100;
constexpr int kLastGroupTries = 5;
constexpr milliseconds kMeasureAge{1000};
constexpr milliseconds kProbeTimeout{10'000};

std::chrono::system_clock::time_point FromNanoseconds(std::int64_t ns) {
  return std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds(ns)));
}

// "22nd field" of /proc/PID/stat: with the pid it names a process for ever. 0 = no such process,
// or one that has ended and only waits to be reaped.
std::uint64_t StartTime(std::int64_t pid) {
  const std::string text = ReadFile(StrCat("/proc/", pid, "/stat"), 4096).value_or("");
  const std::size_t paren = text.rfind(')');
  if (paren == std::string::npos) return 0;
  const std::vector<std::string> fields = absl::StrSplit(text.substr(paren + 1), ' ');
  std::uint64_t start = 0;
  if (fields.size() < 21 || fields[1] == "Z" || !absl::SimpleAtoi(fields[20], &start)) return 0;
  return start;
}

// What the shim says: see runtime/shim/protocol.h.
struct State {
  std::int64_t shim = 0, pid = 0, started_ns = 0;
  std::uint64_t shim_start = 0;
  std::string address;                           // of its own, "" = none
  std::map<std::uint16_t, std::uint16_t> ports;  // target -> published
};

std::optional<State> ReadState(const std::string& directory) {
  const auto text = ReadFile(JoinPath(directory, shim::kStateFile), 1 << 16);
  if (!text.ok()) return std::nullopt;
  State state;
  for (const auto& line : absl::StrSplit(*text, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    int target = 0, published = 0;
    if (words[0] == "shim" && words.size() == 3) {
      if (!absl::SimpleAtoi(words[1], &state.shim) ||
          !absl::SimpleAtoi(words[2], &state.shim_start)) {
        return std::nullopt;
      }
    } else if (words[0] == "pid" && words.size() == 2) {
      if (!absl::SimpleAtoi(words[1], &state.pid)) return std::nullopt;
    } else if (words[0] == "started" && words.size() == 2) {
      if (!absl::SimpleAtoi(words[1], &state.started_ns)) return std::nullopt;
    } else if (words[0] == "address" && words.size() == 2) {
      state.address = words[1];
    } else if (words[0] == "port" && words.size() == 3 && absl::SimpleAtoi(words[1], &target) &&
               absl::SimpleAtoi(words[2], &published)) {
      state.ports[static_cast<std::uint16_t>(target)] = static_cast<std::uint16_t>(published);
    }
  }
  return state;
}

std::optional<EndOfInstance> ReadEnd(const std::string& directory) {
  const auto text = ReadFile(JoinPath(directory, shim::kExitFile), shim::kExitFileBytes * 2);
  if (!text.ok() || text->rfind("ended ", 0) != 0) return std::nullopt;
  const std::vector<std::string> words = absl::StrSplit(*text, absl::MaxSplits(' ', 6));
  int code = 0, signal = 0, oom = 0;
  std::int64_t finished = 0, cpu_us = 0;
  if (words.size() < 7 || !absl::SimpleAtoi(words[1], &code) ||
      !absl::SimpleAtoi(words[2], &signal) || !absl::SimpleAtoi(words[3], &oom) ||
      !absl::SimpleAtoi(words[4], &finished) || !absl::SimpleAtoi(words[5], &cpu_us)) {
    return std::nullopt;
  }
  EndOfInstance end;
  if (code >= 0) end.exit_code = code;
  if (signal >= 0) end.signal = signal;
  end.oom_killed = oom != 0;
  end.finished = FromNanoseconds(finished);
  end.cpu_seconds = static_cast<double>(cpu_us) / 1e6;
  end.failure = words[6];
  while (!end.failure.empty() && (end.failure.back() == ' ' || end.failure.back() == '\n')) {
    end.failure.pop_back();
  }
  return end;
}

// In a shim's place, for an instance that has none. Where the disk refuses, the next start of the
// daemon finds out again.
void WriteEnd(const std::string& file, const std::string& why,
              std::chrono::system_clock::time_point finished) {
  const auto ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(finished.time_since_epoch()).count();
  WriteFileAtomic(file, StrCat("ended -1 -1 0 ", ns, " 0 ", why.substr(0, 800), "\n"), 0600)
      .IgnoreError();
}

std::string ToLaunchFile(const shim::Launch& launch) {
  using shim::AppendRecord;
  using shim::Tag;
  std::string out;
  for (const std::string& a : launch.arguments) AppendRecord(out, Tag::kArgument, a);
  for (const std::string& e : launch.environment) AppendRecord(out, Tag::kEnvironment, e);
  for (const std::string& b : launch.sandbox) AppendRecord(out, Tag::kSandbox, b);
  for (const std::string& g : launch.control_groups) AppendRecord(out, Tag::kControlGroup, g);
  if (!launch.directory.empty()) AppendRecord(out, Tag::kDirectory, launch.directory);
  if (!launch.oom_file.empty()) AppendRecord(out, Tag::kOomFile, launch.oom_file);
  if (launch.has_user) {
    std::string user;
    for (const std::uint32_t id : launch.user) user += StrCat(user.empty() ? "" : " ", id);
    AppendRecord(out, Tag::kUser, user);
  }
  for (const auto& r : launch.resources) {
    AppendRecord(out, Tag::kResource, StrCat(r.which, " ", r.soft, " ", r.hard));
  }
  AppendRecord(out, Tag::kMaxLogBytes, std::to_string(launch.max_log_bytes));
  AppendRecord(out, Tag::kStopSignal, std::to_string(launch.stop_signal));
  AppendRecord(out, Tag::kGraceMs, std::to_string(launch.grace_ms));
  for (const auto& f : launch.forwards) {
    AppendRecord(out, Tag::kForward, StrCat(f.listen_ip, " ", f.published, " ", f.target));
  }
  if (launch.move_all_ports) AppendRecord(out, Tag::kMovePort, "*");
  for (const int port : launch.moved_ports) {
    AppendRecord(out, Tag::kMovePort, std::to_string(port));
  }
  for (const int port : launch.shared_ports) {
    AppendRecord(out, Tag::kSharePort, std::to_string(port));
  }
  return out;
}

// OK when the program ends with 0 before its time is up; otherwise the first line that it says.
absl::Status RunToEnd(const std::vector<std::string>& words) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) return ErrnoStatus(errno, "pipe");
  const absl::StatusOr<pid_t> pid = Spawn(words, {.error = fds[1]}, SpawnSession::kOwn);
  close(fds[1]);
  absl::Status status = pid.status();
  if (pid.ok()) {
    const int fd = pidfd_open(*pid, 0);
    pollfd waiting{fd, POLLIN, 0};
    if (poll(&waiting, 1, static_cast<int>(kProbeTimeout.count())) != 1) kill(*pid, SIGKILL);
    close(fd);
    int result = 0;
    waitpid(*pid, &result, 0);
    if (!WIFEXITED(result) || WEXITSTATUS(result) != 0) {
      char text[300];
      const ssize_t n = read(fds[0], text, sizeof(text));
      std::string said(text, n > 0 ? static_cast<std::size_t>(n) : 0);
      status = absl::FailedPreconditionError(said.substr(0, said.find('\n')));
    }
  }
  close(fds[0]);
  return status;
}

// Whether bubblewrap can make a sandbox here. Otherwise why not.
absl::Status TrySandbox(const Machine& machine, const std::string& data_dir) {
  if (!Exists(kBubblewrap)) return absl::NotFoundError("bubblewrap is not installed");
  ServiceSpec spec;
  spec.service = "probe";
  spec.command = {"/bin/true"};
  Image image;
  TAKT_ASSIGN_OR_RETURN(LaunchPlan plan,
                        PlanLaunch(spec, image, machine, data_dir, "probe", 0, {}));
  std::vector<std::string> words = plan.launch.sandbox;
  // Without the file that only an instance's directory has; with a program that only ends.
  for (std::size_t i = 0; i + 2 < words.size(); ++i) {
    if (words[i] == "--ro-bind" && words[i + 1] == JoinPath(data_dir, "hosts")) {
      words.erase(words.begin() + static_cast<std::ptrdiff_t>(i),
                  words.begin() + static_cast<std::ptrdiff_t>(i) + 3);
      break;
    }
  }
  words.back() = "probe";
  return RunToEnd(words);
}

// Starts and watches shims. One thread of its own runs the loop: what the supervisor asks for comes
// from its Tick there.
class Processes final : public Launcher {
 public:
  Processes(const EmbeddedOptions& options, const Clock& clock)
      : options_(options),
        clock_(clock),
        images_(options.prefix, options.data_dir),
        supervisor_(*this, clock),
        prober_(loop_, options.shim,
                [this](const std::string& id, Health health, const std::string& why) {
                  supervisor_.SetHealth(id, health, why);
                }) {}

  ~Processes() override {
    stop_ = true;
    loop_.Wake();
    if (thread_.joinable()) thread_.join();
    for (auto& [id, live] : live_) close(live.pid_fd);
    // Nobody comes back for these. A last little patience.
    for (int n = 0; n < kLastGroupTries && !busy_groups_.empty(); ++n) {
      std::erase_if(busy_groups_, [&](const std::string& id) { return groups_.Remove(id); });
      if (!busy_groups_.empty()) poll(nullptr, 0, static_cast<int>(kGroupPause.count()));
    }
    if (inotify_ >= 0) close(inotify_);
  }

  absl::Status Open();
  Supervisor& supervisor() { return supervisor_; }
  ImageCatalogue& images() { return images_; }

  Capabilities capabilities() const override { return capabilities_; }
  absl::StatusOr<ImageInfo> ResolveImage(const std::string& name) override {
    TAKT_ASSIGN_OR_RETURN(const Image image, images_.Find(name));
    ImageInfo info;
    info.name = name;
    info.role = image.role;
    for (const ImageProgram& p : image.programs) {
      if (!p.role.empty()) info.program_roles[absl::AsciiStrToLower(p.path)] = p.role;
    }
    TAKT_ASSIGN_OR_RETURN(info.digest, images_.Digest(image));
    return info;
  }
  absl::Status Check(const ServiceSpec& spec, const std::vector<PortMapping>& new_ports) override;
  absl::Status Save(const ServiceRecord& record) override;
  void Forget(const std::string& app, const std::string& service) override;
  void Start(const ServiceSpec& spec, const InstanceRecord& record) override;
  void Stop(const std::string& instance) override;
  void Discard(const InstanceRecord& record) override;
  void Wake() override {
    tick_ = true;
    loop_.Wake();
  }
  void Measure(InstanceStatus& status) override;
  absl::StatusOr<std::vector<LogLine>> ReadLog(const std::string& instance, std::uint64_t cursor,
                                               std::size_t max_lines) override {
    return ReadLogLines(Directory(instance), instance, cursor, max_lines);
  }
  absl::StatusOr<std::uint64_t> TailCursor(const std::string& instance,
                                           std::size_t lines) override {
    return LogTail(Directory(instance), lines);
  }

 private:
  // A shim that runs. For the loop's thread.
  struct Live {
    std::string id;
    int pid_fd = -1, watch = -1;
    std::int64_t shim = 0;
    bool told_started = false;
    std::string app, service, address;
    std::string hosts;  // as last written
  };

  std::string Directory(const std::string& id) const {
    return JoinPath(JoinPath(options_.data_dir, "instances"), id);
  }
  std::string ServiceFile(const std::string& app, const std::string& service) const {
    return JoinPath(JoinPath(JoinPath(options_.data_dir, "services"), app), service + ".json");
  }
  Siblings SiblingsIn(const std::string& app) {
    std::lock_guard lock(mutex_);
    const auto it = apps_.find(app);
    return it == apps_.end() ? Siblings() : it->second;
  }

  absl::Status TryStart(const ServiceSpec& spec, const InstanceRecord& record);
  absl::Status Restore();
  bool Adopt(const InstanceRecord& record, const State& state);
  bool Watch(const std::string& id, int pid_fd, std::int64_t shim);
  void RemoveGroups(const std::string& id, int tries = kGroupTries);
  void RefreshHosts(const std::string& app);
  void OnFiles();
  void OnState(const std::string& id);
  void OnShimEnd(const std::string& id);
  void Run();

  const EmbeddedOptions options_;
  const Clock& clock_;
  ImageCatalogue images_;
  ControlGroups groups_;
  Machine machine_;
  Capabilities capabilities_;
  EventLoop loop_;
  Supervisor supervisor_;
  Prober prober_;
  int inotify_ = -1;
  std::thread thread_;
  std::atomic<bool> stop_{false}, tick_{true};
  std::map<std::string, Live> live_;
  std::set<std::string> busy_groups_;   // control groups that could not be removed yet
  std::map<int, std::string> watched_;  // inotify watch -> instance
  std::uint64_t tick_timer_ = 0;

  std::mutex mutex_;
  std::map<std::string, Siblings> apps_;
  struct Measured {
    std::chrono::steady_clock::time_point at;
    ControlGroups::Usage usage;
  };
  std::map<std::string, Measured> measured_;
};

absl::Status Processes::Open() {
  for (const char* name : {"services", "instances"}) {
    TAKT_RETURN_IF_ERROR(MakeDirs(JoinPath(options_.data_dir, name), 0711));
  }
  if (!Exists(options_.shim)) {
    return absl::FailedPreconditionError(
        StrCat(options_.shim, " is not there: takt-shim belongs beside takt"));
  }
  inotify_ = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (inotify_ < 0) return ErrnoStatus(errno, "inotify");
  groups_ = ControlGroups::Detect();
  machine_ = DescribeMachine();
  machine_.shim = options_.shim;
  machine_.prefix = options_.prefix;
  machine_.memory_groups = groups_.memory();
  machine_.private_mounts = true;
  capabilities_.name = "embedded";
  // The words are those of template features; what all runtimes have needs none.
  capabilities_.features = {"auto_scaling", "cpus",         "extra_hosts", "files",    "global",
                            "healthcheck",  "host_network", "hostname",    "init",     "links",
                            "memory",       "networks",     "read_only",   "replicas", "shm",
                            "tmpfs",        "ulimits",      "user"};
  if (machine_.gpus > 0) capabilities_.features.insert("gpus");
  auto& warnings = capabilities_.warnings;
  absl::Status sandbox = absl::FailedPreconditionError("switched off");
  if (!options_.force_translate) sandbox = TrySandbox(machine_, options_.data_dir);
  machine_.private_mounts = capabilities_.private_mounts = sandbox.ok();
  if (!sandbox.ok()) {
    warnings.push_back(
        StrCat("no namespaces (", std::string(sandbox.message()),
               "): volumes are not mounted at their paths in the instance, but paths in commands ",
               "and variables are translated; read-only mounts, sizes of tmpfs and a private /tmp ",
               "are not enforced"));
    for (const char* feature : {"hostname", "read_only", "shm"}) {
      capabilities_.features.erase(feature);
    }
    if (!machine_.root) capabilities_.features.erase("user");
  }
  if (!RunToEnd({options_.shim, "probe-ports"}).ok()) {
    warnings.push_back(
        "no seccomp notifications: replicas that listen on one port, and two services that listen "
        "on the same one, are in each other's way");
  }
  if (!groups_.memory()) {
    warnings.push_back(
        "no memory control group can be written: memory limits are RLIMIT_DATA of each process");
  }
  if (!groups_.cpu()) {
    warnings.push_back("no cpu control group can be written: CPU limits are not enforced");
  }
  TAKT_RETURN_IF_ERROR(Restore());
  loop_.Watch(inotify_, EPOLLIN, [this](std::uint32_t) { OnFiles(); });
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

void Processes::Run() {
  while (!stop_) {
    if (tick_.exchange(false)) {
      loop_.Cancel(std::exchange(tick_timer_, 0));
      if (const auto next = supervisor_.Tick()) {
        // The supervisor's clock may not be the loop's.
        const auto wait = std::max<std::chrono::nanoseconds>(*next - clock_.Steady(), {});
        tick_timer_ = loop_.At(std::chrono::steady_clock::now() + wait, [this] { tick_ = true; });
      }
      if (tick_) continue;
    }
    loop_.RunOnce();
  }
}

absl::Status Processes::Check(const ServiceSpec& spec, const std::vector<PortMapping>& new_ports) {
  TAKT_ASSIGN_OR_RETURN(const Image image, images_.Find(spec.image));
  TAKT_RETURN_IF_ERROR(
      PlanLaunch(spec, image, machine_, Directory("check"), "check", 0, SiblingsIn(spec.app))
          .status());
  for (const PortMapping& port : new_ports) TAKT_RETURN_IF_ERROR(CheckPortFree(port));
  return absl::OkStatus();
}

absl::Status Processes::Save(const ServiceRecord& record) {
  const std::string file = ServiceFile(record.spec.app, record.spec.service);
  TAKT_RETURN_IF_ERROR(MakeDirs(file.substr(0, file.rfind('/')), 0700));
  absl::Status written = WriteFileAtomic(file, ServiceToJson(record), 0600);
  if (written.ok()) {
    unlink((file + kStoppedSuffix).c_str());
  } else if (record.removed) {
    // On a full disk, what frees room must work. Without its record, a service and its instances
    // are cleared away at the next start.
    if (unlink(file.c_str()) != 0) return written;
  } else if (record.stopped) {
    // Nor may it be impossible to stop what fills the disk: an empty file needs no room.
    const int fd = open((file + kStoppedSuffix).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return written;
    close(fd);
  } else {
    return written;
  }
  std::lock_guard lock(mutex_);
  apps_[record.spec.app].try_emplace(record.spec.service);
  return absl::OkStatus();
}

void Processes::Forget(const std::string& app, const std::string& service) {
  const std::string file = ServiceFile(app, service);
  for (const char* suffix : {"", kStoppedSuffix}) unlink((file + suffix).c_str());
  rmdir(file.substr(0, file.rfind('/')).c_str());
  std::lock_guard lock(mutex_);
  apps_[app].erase(service);
  if (apps_[app].empty()) apps_.erase(app);
}

void Processes::Start(const ServiceSpec& spec, const InstanceRecord& record) {
  const absl::Status status = TryStart(spec, record);
  if (status.ok()) return;
  RemoveGroups(record.id);
  EndOfInstance end;
  end.failure = StrCat("could not be started: ", std::string(status.message()));
  end.finished = clock_.Now();
  // What is ended is remembered, where the disk allows it.
  WriteEnd(JoinPath(Directory(record.id), shim::kExitFile), end.failure, end.finished);
  supervisor_.Ended(record.id, end);
}

absl::Status Processes::TryStart(const ServiceSpec& spec, const InstanceRecord& record) {
  const std::string directory = Directory(record.id);
  TAKT_RETURN_IF_ERROR(MakeDirs(directory, 0700));
  // An instance does not outlive the machine, and neither need its files.
  TAKT_RETURN_IF_ERROR(WriteFileWhole(JoinPath(directory, "record"), InstanceToJson(record), 0600));
  TAKT_ASSIGN_OR_RETURN(const Image image, images_.Find(spec.image));
  TAKT_ASSIGN_OR_RETURN(LaunchPlan plan, PlanLaunch(spec, image, machine_, directory, record.id,
                                                    record.replica, SiblingsIn(spec.app)));
  // Where the instance sees them at their own paths, another user must get there.
  if (!machine_.private_mounts) chmod(directory.c_str(), 0711);
  const auto own = [&](const std::string& name) {
    if (!plan.launch.has_user) return;
    [[maybe_unused]] const int done =
        chown(JoinPath(directory, name).c_str(), plan.launch.user[0], plan.launch.user[1]);
  };
  for (const std::string& name : plan.directories) {
    TAKT_RETURN_IF_ERROR(MakeDirs(JoinPath(directory, name), 0777));
    own(name);
  }
  for (const std::string& path : plan.host_directories) TAKT_RETURN_IF_ERROR(MakeDirs(path));
  for (const auto& [name, content] : plan.files) {
    TAKT_RETURN_IF_ERROR(WriteFileWhole(JoinPath(directory, name), content, 0444));
    own(name);
  }
  TAKT_ASSIGN_OR_RETURN(const ControlGroups::Group group,
                        groups_.Make(record.id, spec.cpus, spec.memory_bytes));
  plan.launch.control_groups = group.directories;
  plan.launch.oom_file = group.oom_file;
  plan.launch.max_log_bytes = options_.max_log_bytes;
  TAKT_RETURN_IF_ERROR(
      WriteFileWhole(JoinPath(directory, shim::kLaunchFile), ToLaunchFile(plan.launch), 0600));
  const int watch =
      inotify_add_watch(inotify_, directory.c_str(), IN_MODIFY | IN_MOVED_TO | IN_ONLYDIR);
  if (watch < 0) return ErrnoStatus(errno, StrCat("watching ", directory));
  watched_[watch] = record.id;
  const absl::StatusOr<pid_t> pid =
      Spawn({options_.shim, "run", directory}, {}, SpawnSession::kOwn);
  const int pid_fd = pid.ok() ? pidfd_open(*pid, 0) : -1;
  if (pid_fd < 0) {
    inotify_rm_watch(inotify_, watch);
    watched_.erase(watch);
    return pid.ok() ? ErrnoStatus(errno, "pidfd_open") : pid.status();
  }
  Live& live = live_[record.id];
  live.id = record.id;
  live.pid_fd = pid_fd;
  live.watch = watch;
  live.shim = *pid;
  live.app = record.app;
  live.service = record.service;
  loop_.Watch(pid_fd, EPOLLIN, [this, id = record.id](std::uint32_t) { OnShimEnd(id); });
  RefreshHosts(record.app);
  return absl::OkStatus();
}

void Processes::Stop(const std::string& id) {
  prober_.Remove(id);
  const auto it = live_.find(id);
  if (it != live_.end()) pidfd_send_signal(it->second.pid_fd, SIGTERM, nullptr, 0);
}

void Processes::Discard(const InstanceRecord& record) {
  RemoveAll(Directory(record.id)).IgnoreError();
  std::lock_guard lock(mutex_);
  measured_.erase(record.id);
}

// A process that was killed is in its group until it is gone altogether.
void Processes::RemoveGroups(const std::string& id, int tries) {
  if (groups_.Remove(id) || tries <= 1) {
    busy_groups_.erase(id);
    return;
  }
  busy_groups_.insert(id);
  loop_.At(std::chrono::steady_clock::now() + kGroupPause,
           [this, id, tries] { RemoveGroups(id, tries - 1); });
}

// Tells the app's instances where its services are: /etc/hosts is one file of ours in all of them,
// so it is written in place.
void Processes::RefreshHosts(const std::string& app) {
  Siblings siblings;
  {
    std::lock_guard lock(mutex_);
    const auto it = apps_.find(app);
    if (it == apps_.end()) return;
    for (auto& [service, addresses] : it->second) addresses.clear();
    for (const auto& [id, live] : live_) {
      if (live.app != app || live.address.empty()) continue;
      it->second[live.service].push_back(live.address);
    }
    siblings = it->second;
  }
  if (!machine_.private_mounts) return;
  for (auto& [id, live] : live_) {
    const auto spec = live.app == app ? supervisor_.SpecOf(id) : nullptr;
    if (!spec) continue;
    std::string hosts = HostsFile(*spec, siblings);
    if (hosts == live.hosts) continue;
    const int fd = open(JoinPath(Directory(id), "hosts").c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) continue;
    if (pwrite(fd, hosts.data(), hosts.size(), 0) == static_cast<ssize_t>(hosts.size()) &&
        ftruncate(fd, static_cast<off_t>(hosts.size())) == 0) {
      live.hosts = std::move(hosts);
    }
    close(fd);
  }
}

// Some file in an instance's directory changed: its log grew, or its state is known.
void Processes::OnFiles() {
  alignas(inotify_event) char buffer[16 * 1024];
  std::set<std::string> logs, states;
  bool overflow = false;
  while (true) {
    const ssize_t n = read(inotify_, buffer, sizeof(buffer));
    if (n <= 0) break;
    for (ssize_t at = 0; at < n;) {
      const auto& event = *reinterpret_cast<const inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event.len);
      if (event.mask & IN_Q_OVERFLOW) overflow = true;
      const auto it = watched_.find(event.wd);
      if (it == watched_.end() || event.len == 0) continue;
      if (std::strncmp(event.name, shim::kLogPrefix, std::strlen(shim::kLogPrefix)) == 0) {
        logs.insert(it->second);
      } else if (std::strcmp(event.name, shim::kStateFile) == 0) {
        states.insert(it->second);
      }
    }
  }
  if (overflow) {
    for (const auto& [id, live] : live_) {
      logs.insert(id);
      states.insert(id);
    }
  }
  for (const std::string& id : states) OnState(id);
  for (const std::string& id : logs) supervisor_.LogGrew(id);
  if (states.empty() && !logs.empty()) {
    // Programs that write much are looked at now and then, not at each line.
    loop_.Change(inotify_, 0);
    loop_.At(std::chrono::steady_clock::now() + kLogPause,
             [this] { loop_.Change(inotify_, EPOLLIN); });
  }
}

void Processes::OnState(const std::string& id) {
  const auto it = live_.find(id);
  if (it == live_.end() || it->second.told_started) return;
  const auto state = ReadState(Directory(id));
  if (!state || state->pid == 0) return;
  it->second.told_started = true;
  it->second.address = state->address;
  if (!state->address.empty()) RefreshHosts(it->second.app);
  const auto spec = supervisor_.SpecOf(id);
  if (!spec) return;
  supervisor_.Started(id, state->pid, FromNanoseconds(state->started_ns),
                      EndpointsOf(*spec, state->ports));
  prober_.Add(id, state->pid, spec->health, state->address);
}

void Processes::OnShimEnd(const std::string& id) {
  const auto it = live_.find(id);
  if (it == live_.end()) return;
  // What it wrote last comes first.
  OnState(id);
  prober_.Remove(id);
  siginfo_t info{};
  waitid(P_PIDFD, static_cast<id_t>(it->second.pid_fd), &info, WEXITED | WNOHANG);
  loop_.Forget(it->second.pid_fd);
  close(it->second.pid_fd);
  inotify_rm_watch(inotify_, it->second.watch);
  watched_.erase(it->second.watch);
  const std::string app = it->second.app;
  const bool had_address = !it->second.address.empty();
  live_.erase(it);
  if (had_address) RefreshHosts(app);
  RemoveGroups(id);
  std::optional<EndOfInstance> end = ReadEnd(Directory(id));
  if (!end) {
    end.emplace();
    end->failure = "was lost: its takt-shim was killed";
    end->finished = clock_.Now();
    WriteEnd(JoinPath(Directory(id), shim::kExitFile), end->failure, end->finished);
  }
  {
    std::lock_guard lock(mutex_);
    measured_.erase(id);
  }
  supervisor_.LogGrew(id);
  supervisor_.Ended(id, *end);
}

absl::Status Processes::Restore() {
  std::map<std::pair<std::string, std::string>, RestoredService> services;
  const std::string root = JoinPath(options_.data_dir, "services");
  TAKT_ASSIGN_OR_RETURN(const auto apps, ListDir(root));
  for (const std::string& app : apps) {
    TAKT_ASSIGN_OR_RETURN(const auto files, ListDir(JoinPath(root, app)));
    for (const std::string& name : files) {
      if (!absl::EndsWith(name, ".json")) continue;
      const std::string path = JoinPath(JoinPath(root, app), name);
      TAKT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxRecordBytes));
      absl::StatusOr<ServiceRecord> record = ServiceFromJson(text);
      if (!record.ok()) return Annotate(record.status(), path);
      if (Exists(path + kStoppedSuffix)) record->stopped = true;
      apps_[app].try_emplace(record->spec.service);
      const std::string service = record->spec.service;
      services[{app, service}].record = *std::move(record);
    }
  }
  TAKT_ASSIGN_OR_RETURN(const auto ids, ListDir(JoinPath(options_.data_dir, "instances")));
  for (const std::string& id : ids) {
    const std::string directory = Directory(id);
    const std::optional<State> state = ReadState(directory);
    const bool runs = state && state->shim > 0 && StartTime(state->shim) == state->shim_start;
    const auto text = ReadFile(JoinPath(directory, "record"), kMaxRecordBytes);
    absl::StatusOr<InstanceRecord> record =
        text.ok() ? InstanceFromJson(*text) : absl::StatusOr<InstanceRecord>(text.status());
    const auto service =
        record.ok() ? services.find({record->app, record->service}) : services.end();
    std::optional<EndOfInstance> end = ReadEnd(directory);
    // Nobody's, or one whose shim the daemon's death came before.
    if (service == services.end() || record->id != id || (!runs && !state && !end)) {
      if (runs) kill(static_cast<pid_t>(state->shim), SIGKILL);
      RemoveGroups(id);
      TAKT_RETURN_IF_ERROR(RemoveAll(directory));
      continue;
    }
    RestoredInstance instance;
    instance.record = *record;
    if (state && state->pid > 0) {
      instance.pid = state->pid;
      instance.started = FromNanoseconds(state->started_ns);
      instance.endpoints = EndpointsOf(service->second.record.spec, state->ports);
    }
    if (!runs || !Adopt(*record, *state)) {
      end = ReadEnd(directory);
      if (!end) {
        end.emplace();
        end->failure = "was lost: the machine or its takt-shim went down";
        end->finished = clock_.Now();
        WriteEnd(JoinPath(directory, shim::kExitFile), end->failure, end->finished);
      }
      RemoveGroups(id);
      instance.end = end;
    }
    service->second.instances.push_back(std::move(instance));
  }
  std::vector<RestoredService> restored;
  for (auto& [name, service] : services) {
    std::sort(service.instances.begin(), service.instances.end(),
              [](const RestoredInstance& a, const RestoredInstance& b) {
                return std::tie(a.record.generation, a.record.created, a.record.restarts) <
                       std::tie(b.record.generation, b.record.created, b.record.restarts);
              });
    restored.push_back(std::move(service));
  }
  supervisor_.Restore(std::move(restored));
  for (auto& [id, live] : live_) OnState(id);
  return absl::OkStatus();
}

// False when the shim ended meanwhile.
bool Processes::Adopt(const InstanceRecord& record, const State& state) {
  const std::string& id = record.id;
  const int pid_fd = pidfd_open(static_cast<pid_t>(state.shim), 0);
  if (pid_fd < 0) return false;
  // The descriptor holds whoever had the pid when it was opened.
  const int watch =
      StartTime(state.shim) == state.shim_start
          ? inotify_add_watch(inotify_, Directory(id).c_str(), IN_MODIFY | IN_MOVED_TO | IN_ONLYDIR)
          : -1;
  if (watch < 0) {
    close(pid_fd);
    return false;
  }
  watched_[watch] = id;
  Live& live = live_[id];
  live.id = id;
  live.pid_fd = pid_fd;
  live.watch = watch;
  live.shim = state.shim;
  live.app = record.app;
  live.service = record.service;
  loop_.Watch(pid_fd, EPOLLIN, [this, id](std::uint32_t) { OnShimEnd(id); });
  return true;
}

void Processes::Measure(InstanceStatus& status) {
  if (status.pid == 0) return;
  const auto now = clock_.Steady();
  {
    std::lock_guard lock(mutex_);
    const auto it = measured_.find(status.id);
    if (it != measured_.end() && now - it->second.at < kMeasureAge) {
      status.cpu_seconds = it->second.usage.cpu_seconds;
      status.memory_bytes = it->second.usage.memory_bytes;
      return;
    }
  }
  const auto grouped = groups_.Measure(status.id);
  const ControlGroups::Usage usage = grouped ? *grouped : MeasureProcessTree(status.pid);
  status.cpu_seconds = usage.cpu_seconds;
  status.memory_bytes = usage.memory_bytes;
  std::lock_guard lock(mutex_);
  measured_[status.id] = {now, usage};
}

class Embedded final : public EmbeddedRuntime {
 public:
  Embedded(const EmbeddedOptions& options, const Clock& clock) : processes_(options, clock) {}
  absl::Status Open() { return processes_.Open(); }

  Capabilities capabilities() const override { return processes_.capabilities(); }
  absl::StatusOr<ImageInfo> ResolveImage(const std::string& image) override {
    return processes_.ResolveImage(image);
  }
  absl::Status Check(const ServiceSpec& spec) override { return supervisor().Check(spec); }
  absl::Status Deploy(const ServiceSpec& spec) override { return supervisor().Deploy(spec); }
  absl::Status Stop(const std::string& app, const std::string& service) override {
    return supervisor().Stop(app, service);
  }
  absl::Status Remove(const std::string& app, const std::string& service) override {
    return supervisor().Remove(app, service);
  }
  absl::StatusOr<std::vector<ServiceStatus>> Observe() override { return supervisor().Observe(); }
  absl::StatusOr<std::vector<LogLine>> ReadLog(const std::string& instance, std::uint64_t cursor,
                                               std::size_t max_lines) override {
    return supervisor().ReadLog(instance, cursor, max_lines);
  }
  absl::StatusOr<std::uint64_t> TailCursor(const std::string& instance,
                                           std::size_t lines) override {
    return supervisor().TailCursor(instance, lines);
  }
  void SetListener(std::function<void()> listener) override {
    supervisor().SetListener(std::move(listener));
  }
  void SetLogListener(std::function<void(const std::string&)> listener) override {
    supervisor().SetLogListener(std::move(listener));
  }
  ImageCatalogue& images() override { return processes_.images(); }
  std::vector<KnownImage> Images() override {
    std::vector<KnownImage> known;
    const auto images = processes_.images().List();
    if (!images.ok()) return known;
    for (const Image& image : *images) {
      const std::string root =
          image.root == "host" ? "this machine's files" : StrCat("the files of ", image.root);
      std::string description = root;
      for (const ImageProgram& program : image.programs) {
        description += StrCat(description.size() == root.size() ? "; " : ", ", program.path);
      }
      const absl::Status ready = processes_.images().Digest(image).status();
      for (const std::string& name : image.names) {
        known.push_back({name, image.role, description, std::string(ready.message())});
      }
    }
    return known;
  }

 private:
  Supervisor& supervisor() { return processes_.supervisor(); }
  Processes processes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EmbeddedRuntime>> EmbeddedRuntime::Open(
    const EmbeddedOptions& options, const Clock& clock) {
  EmbeddedOptions complete = options;
  if (complete.data_dir.empty() || complete.data_dir.front() != '/') {
    return absl::InvalidArgumentError(
        StrCat("expected an absolute data directory, got \"", complete.data_dir, "\""));
  }
  if (complete.prefix.empty()) {
    char self[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof(self));
    if (n <= 0) return ErrnoStatus(errno, "/proc/self/exe");
    complete.prefix = CleanPath(std::string(self, static_cast<std::size_t>(n)) + "/../..");
  }
  if (complete.shim.empty()) complete.shim = JoinPath(complete.prefix, "bin/takt-shim");
  auto runtime = std::make_unique<Embedded>(complete, clock);
  TAKT_RETURN_IF_ERROR(runtime->Open());
  return runtime;
}

}  // namespace takt::runtime
