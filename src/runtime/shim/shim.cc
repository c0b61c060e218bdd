#include "runtime/shim/shim.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "runtime/shim/forward.h"
#include "runtime/shim/log_writer.h"
#include "runtime/shim/process.h"
#include "runtime/shim/remap.h"

namespace takt::runtime::shim {
namespace {

constexpr std::int64_t kProgressEveryMs = 1000;
// After SIGKILL for the sandbox's init had no effect, the sandbox itself is killed.
constexpr std::int64_t kKillAgainMs = 2000;

std::int64_t NowNs() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1'000'000'000ll + t.tv_nsec;
}

std::int64_t SteadyMs() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000ll + t.tv_nsec / 1'000'000;
}

// A small file's first bytes; "" when it cannot be read.
std::string ReadSmall(const char* path) {
  std::string text;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  char buffer[4096];
  for (ssize_t n; text.size() < 65'536 && (n = read(fd, buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, static_cast<std::size_t>(n));
  }
  close(fd);
  return text;
}

// Children of process `pid`, oldest first.
std::vector<pid_t> Children(pid_t pid) {
  std::vector<pid_t> result;
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
  const std::string text = ReadSmall(path);
  for (const char* at = text.c_str(); *at;) {
    char* end = nullptr;
    const long child = std::strtol(at, &end, 10);
    if (end == at) break;
    result.push_back(static_cast<pid_t>(child));
    at = end + std::strspn(end, " ");
  }
  return result;
}

// Field 22 of /proc/self/stat: with the pid it names a process for ever.
std::string OwnStartTime() {
  const std::string text = ReadSmall("/proc/self/stat");
  std::size_t at = text.rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = text.find(' ', at + 1);
  if (at == std::string::npos) return "0";
  return text.substr(at + 1, text.find(' ', at + 1) - at - 1);
}

class Shim {
 public:
  Shim(int directory, const rlimit& program_files)
      : directory_(directory), program_files_(program_files) {}
  int Run();

 private:
  bool Prepare(std::string& failure);
  bool Spawn(std::string& failure);
  [[noreturn]] void ExecSandbox(int socket);
  void Loop();
  void Drain(int stream);
  void OnReport();
  void OnPortCall(bool waiting);
  void Reap();
  void Started(pid_t program);
  void SendSignal(int signal);
  void StopNow();
  void KillStragglers();
  void WriteState();
  void WriteExit(const std::string& failure);
  void RemoveGroups();
  int Timeout() const;

  int directory_;
  rlimit program_files_;  // limit of open files that the program gets
  Launch launch_;
  int launch_fd_ = -1, exit_fd_ = -1, signals_ = -1, init_ = -1;
  int pipes_[2] = {-1, -1};  // reading ends of stdout and stderr
  std::unique_ptr<LogWriter> log_;
  Forwarder forwarder_;
  std::unique_ptr<Remapper> remapper_;
  int port_filter_ = -1;
  pid_t child_ = -1;    // the program, or bubblewrap
  pid_t program_ = -1;  // as seen from here
  std::int64_t started_ns_ = 0;
  bool started_ = false, ended_ = false, child_gone_ = false;
  int status_ = 0;  // of the program, once ended_
  std::string failure_;
  std::int64_t kill_at_ms_ = -1;  // -1: nobody asked to stop
  bool killed_ = false;
  std::int64_t progress_at_ms_ = -1;
};

bool Shim::Prepare(std::string& failure) {
  exit_fd_ = openat(directory_, kExitFile, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const std::string blank(kExitFileBytes, ' ');
  if (exit_fd_ < 0 ||
      pwrite(exit_fd_, blank.data(), blank.size(), 0) != static_cast<ssize_t>(blank.size())) {
    failure = std::string("its records cannot be written: ") + std::strerror(errno);
    return false;
  }
  launch_fd_ = openat(directory_, kLaunchFile, O_RDONLY | O_CLOEXEC);
  if (!ReadLaunch(launch_fd_, launch_, failure)) return false;
  WriteState();
  log_ = std::make_unique<LogWriter>(directory_, launch_.max_log_bytes);
  if (launch_.remaps()) remapper_ = std::make_unique<Remapper>(launch_);
  for (Launch::Forward& forward : launch_.forwards) {
    if (!forwarder_.Listen(forward, failure)) return false;
  }
  return true;
}

bool Shim::Spawn(std::string& failure) {
  int out[2], err[2], pair[2] = {-1, -1};
  const bool sandboxed = !launch_.sandbox.empty();
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 ||
      (sandboxed && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)) {
    failure = std::string("no pipe can be made: ") + std::strerror(errno);
    return false;
  }
  for (const int fd : {out[0], err[0]}) fcntl(fd, F_SETFL, O_NONBLOCK);
  pipes_[0] = out[0];
  pipes_[1] = err[0];
  // In the child: everything that it starts is to die with the shim, counts for its control groups
  // and writes into its log.
  const auto first = [&] {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setrlimit(RLIMIT_NOFILE, &program_files_);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    for (const std::string& group : launch_.control_groups) {
      const int fd = open((group + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC);
      if (fd < 0 || write(fd, "0", 1) != 1) {
        std::fprintf(stderr, "takt: control group %s: %s\n", group.c_str(), std::strerror(errno));
      }
      close(fd);
    }
  };
  if (sandboxed) {
    child_ = fork();
    if (child_ == 0) {
      first();
      ExecSandbox(pair[1]);
    }
    if (child_ < 0) failure = std::string("no process can be made: ") + std::strerror(errno);
    close(pair[1]);
    init_ = pair[0];
  } else {
    Report failed;
    child_ = StartProgram(launch_, failed, port_filter_, first);
    if (child_ < 0) {
      failure = StageText(launch_, failed.stage) + ": " + std::strerror(failed.value);
    } else {
      Started(child_);
    }
  }
  close(out[1]);
  close(err[1]);
  return child_ >= 0;
}

void Shim::ExecSandbox(int socket) {
  std::vector<char*> arguments;
  for (const std::string& a : launch_.sandbox) arguments.push_back(const_cast<char*>(a.c_str()));
  const std::string launch_text = std::to_string(launch_fd_), socket_text = std::to_string(socket);
  arguments.push_back(const_cast<char*>(launch_text.c_str()));
  arguments.push_back(const_cast<char*>(socket_text.c_str()));
  arguments.push_back(nullptr);
  fcntl(launch_fd_, F_SETFD, 0);
  fcntl(socket, F_SETFD, 0);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execv(arguments[0], arguments.data());
  std::fprintf(stderr, "%s: %s\n", arguments[0], std::strerror(errno));
  _exit(127);
}

void Shim::Started(pid_t program) {
  started_ = true;
  program_ = program;
  started_ns_ = NowNs();
  WriteState();
}

void Shim::WriteState() {
  std::string text = "shim " + std::to_string(getpid()) + " " + OwnStartTime() + "\n";
  if (started_) {
    text += "pid " + std::to_string(program_) + "\nstarted " + std::to_string(started_ns_) + "\n";
    if (launch_.move_all_ports || !launch_.moved_ports.empty()) {
      text += "address " + remapper_->address() + "\n";
    }
    for (const Launch::Forward& f : launch_.forwards) {
      text += "port " + std::to_string(f.target) + " " + std::to_string(f.published) + "\n";
    }
  }
  const int fd = openat(directory_, "state.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return;
  const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(fd);
  if (written) renameat(directory_, "state.new", directory_, kStateFile);
}

void Shim::WriteExit(const std::string& failure) {
  if (exit_fd_ < 0) return;
  int code = -1, signal = -1, oom = 0;
  if (ended_) {
    if (WIFEXITED(status_)) code = WEXITSTATUS(status_);
    if (WIFSIGNALED(status_)) signal = WTERMSIG(status_);
  }
  // A shell says so of the program that it ran.
  if (!launch_.oom_file.empty() && (signal == SIGKILL || code == 128 + SIGKILL)) {
    const std::string text = ReadSmall(launch_.oom_file.c_str());
    const std::size_t at = text.find("oom_kill ");
    oom = at != std::string::npos && std::atoi(text.c_str() + at + 9) > 0;
  }
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  const long long cpu_us = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000ll +
                           usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
  std::string line = "ended " + std::to_string(code) + " " + std::to_string(signal) + " " +
                     std::to_string(oom) + " " + std::to_string(NowNs()) + " " +
                     std::to_string(cpu_us) + " " +
                     (failure.empty() ? "" : "could not be started: " + failure);
  std::replace(line.begin(), line.end(), '\n', ' ');
  line.resize(kExitFileBytes - 1, ' ');
  line.push_back('\n');
  [[maybe_unused]] const ssize_t n = pwrite(exit_fd_, line.data(), line.size(), 0);
  fdatasync(exit_fd_);
}

void Shim::SendSignal(int signal) {
  if (init_ >= 0) {
    if (send(init_, &signal, sizeof(signal), MSG_NOSIGNAL) < 0 && child_ > 0) kill(child_, SIGKILL);
  } else if (program_ > 0 && !ended_) {
    kill(program_, signal);
  }
}

void Shim::StopNow() {
  if (kill_at_ms_ >= 0) return;
  kill_at_ms_ = SteadyMs() + launch_.grace_ms;
  SendSignal(launch_.stop_signal);
}

void Shim::OnReport() {
  Report report;
  int fd = -1;
  const ssize_t n = ReceiveReport(init_, report, fd, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n != sizeof(report)) {
    close(init_);
    init_ = -1;
    return;
  }
  if (report.kind == Report::kPortFilter) {
    port_filter_ = fd;
  } else if (report.kind == Report::kStarted) {
    // bubblewrap -> init -> program
    pid_t pid = child_;
    for (int level = 0; level < 2 && pid > 0; ++level) {
      const std::vector<pid_t> children = Children(pid);
      pid = children.empty() ? 0 : children.front();
    }
    Started(pid);
  } else if (report.kind == Report::kFailed) {
    failure_ = StageText(launch_, report.stage) + ": " + std::strerror(report.value);
  } else {
    ended_ = true;
    status_ = report.value;
  }
}

// `waiting`: a call waits; otherwise nobody is left who could make one.
void Shim::OnPortCall(bool waiting) {
  if (!waiting || !remapper_->Handle(port_filter_)) {
    close(port_filter_);
    port_filter_ = -1;
    return;
  }
  for (const auto& [port, actual] : remapper_->moved()) {
    forwarder_.SetTarget(port, remapper_->address(), actual);
  }
}

void Shim::Reap() {
  int status = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != child_) continue;
    child_gone_ = true;
    if (launch_.sandbox.empty()) {
      ended_ = true;
      status_ = status;
    }
  }
}

// What the program left behind has become our child, since we are a subreaper.
void Shim::KillStragglers() {
  for (int round = 0; round < 1000; ++round) {
    const std::vector<pid_t> children = Children(getpid());
    if (children.empty()) return;
    for (const pid_t pid : children) kill(pid, SIGKILL);
    while (waitpid(-1, nullptr, 0) > 0) {
      const std::vector<pid_t> more = Children(getpid());
      for (const pid_t pid : more) kill(pid, SIGKILL);
    }
  }
}

void Shim::Drain(int stream) {
  static char buffer[64 * 1024];
  while (pipes_[stream] >= 0) {
    const ssize_t n = read(pipes_[stream], buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
      close(pipes_[stream]);
      pipes_[stream] = -1;
      return;
    }
    log_->Append(NowNs(), stream == 1, buffer, static_cast<std::size_t>(n));
    if (static_cast<std::size_t>(n) < sizeof(buffer)) return;
  }
}

int Shim::Timeout() const {
  std::int64_t at = -1;
  if (kill_at_ms_ >= 0) at = kill_at_ms_;
  if (progress_at_ms_ >= 0 && (at < 0 || progress_at_ms_ < at)) at = progress_at_ms_;
  if (at < 0) return -1;
  return static_cast<int>(std::clamp<std::int64_t>(at - SteadyMs(), 0, 1'000'000));
}

void Shim::Loop() {
  while (!child_gone_) {
    pollfd polls[] = {{pipes_[0], POLLIN, 0},
                      {pipes_[1], POLLIN, 0},
                      {signals_, POLLIN, 0},
                      {init_, POLLIN, 0},
                      {launch_.forwards.empty() ? -1 : forwarder_.poll_fd(), POLLIN, 0},
                      {port_filter_, POLLIN, 0}};
    if (poll(polls, 6, Timeout()) < 0 && errno != EINTR) _exit(1);
    for (int stream = 0; stream < 2; ++stream) {
      if (polls[stream].revents) Drain(stream);
    }
    if (polls[3].revents) OnReport();
    if (polls[4].revents) forwarder_.Process();
    if (polls[5].revents) OnPortCall((polls[5].revents & POLLIN) != 0);
    if (polls[2].revents) {
      signalfd_siginfo info;
      while (read(signals_, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGTERM) StopNow();
      }
      Reap();
    }
    const std::int64_t now = SteadyMs();
    if (kill_at_ms_ >= 0 && now >= kill_at_ms_) {
      if (killed_ && !launch_.sandbox.empty()) kill(child_, SIGKILL);
      SendSignal(SIGKILL);
      killed_ = true;
      kill_at_ms_ = now + kKillAgainMs;
    }
    if (!log_->HasProgress()) {
      progress_at_ms_ = -1;
    } else if (progress_at_ms_ < 0) {
      progress_at_ms_ = now + kProgressEveryMs;
    } else if (now >= progress_at_ms_) {
      log_->ShowProgress(NowNs());
      progress_at_ms_ = -1;
    }
  }
}

int Shim::Run() {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGCHLD, SIGINT, SIGHUP}) sigaddset(&set, signal);
  sigprocmask(SIG_SETMASK, &set, nullptr);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (!Prepare(failure_) || !Spawn(failure_)) {
    WriteExit(failure_);
    RemoveGroups();
    return 1;
  }
  Loop();
  KillStragglers();
  // Nobody writes any more: the pipes end.
  for (int stream = 0; stream < 2; ++stream) {
    if (pipes_[stream] >= 0) fcntl(pipes_[stream], F_SETFL, 0);
    while (pipes_[stream] >= 0) Drain(stream);
  }
  if (init_ >= 0) OnReport();
  log_->Finish(NowNs());
  if (failure_.empty() && !started_) {
    failure_ = "its sandbox cannot be made: " + log_->last_error_line();
  } else if (failure_.empty() && !ended_) {
    ended_ = true;  // the sandbox was killed as a whole
    status_ = SIGKILL;
  }
  WriteExit(failure_);
  RemoveGroups();
  return 0;
}

void Shim::RemoveGroups() {
  for (const std::string& group : launch_.control_groups) rmdir(group.c_str());
}

}  // namespace

int RunShim(const char* directory) {
  close_range(3, ~0u, 0);
  setsid();
  const int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return 1;
  if (chdir("/") != 0) return 1;
  // Forwarded connections take descriptors.
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  const rlimit all{files.rlim_max, files.rlim_max};
  setrlimit(RLIMIT_NOFILE, &all);
  return Shim(fd, files).Run();
}

int RunEnter(const char* pid, char** arguments) {
  const std::string process = std::string("/proc/") + pid;
  const auto fail = [&](const std::string& what) {
    std::fprintf(stderr, "takt-shim: %s: %s\n", what.c_str(), std::strerror(errno));
    return 126;
  };
  const int root = open((process + "/root").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int cwd = open((process + "/cwd").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::string environment = ReadSmall((process + "/environ").c_str());
  const std::string status = ReadSmall((process + "/status").c_str());
  if (root < 0 || cwd < 0 || status.empty()) return fail(process);
  // The user namespace comes last: the others belong to the one that bubblewrap made them in, which
  // may be the parent of the one that the program is in.
  const auto same = [](const std::string& a, const std::string& b) {
    struct stat x {
    }, y{};
    return stat(a.c_str(), &x) == 0 && stat(b.c_str(), &y) == 0 && x.st_ino == y.st_ino;
  };
  const auto join = [](int fd) {
    const bool joined = fd >= 0 && setns(fd, 0) == 0;
    if (fd >= 0) close(fd);
    return joined;
  };
  const std::string theirs = process + "/ns/", ours = "/proc/self/ns/";
  const int user = same(theirs + "user", ours + "user")
                       ? -1
                       : open((theirs + "user").c_str(), O_RDONLY | O_CLOEXEC);
  bool inside = false;
  std::vector<int> namespaces;
  for (const char* name : {"mnt", "pid", "ipc", "uts"}) {
    if (same(theirs + name, ours + name)) continue;
    namespaces.push_back(open((theirs + name).c_str(), O_RDONLY | O_CLOEXEC));
    if (namespaces.back() < 0) return fail(theirs + name);
    inside = true;
  }
  if (user >= 0 && inside && !join(ioctl(namespaces[0], NS_GET_USERNS))) {
    return fail("entering the user namespace of process " + std::string(pid));
  }
  for (const int fd : namespaces) {
    if (!join(fd)) return fail("entering the namespaces of process " + std::string(pid));
  }
  if (inside && (fchdir(root) != 0 || chroot(".") != 0)) return fail("its root");
  if (fchdir(cwd) != 0) return fail("its directory");
  // Where it is the one that the others belong to, this process is in it already.
  if (user >= 0 && !join(user) && errno != EINVAL) return fail("entering its user namespace");
  unsigned uid = 0, gid = 0;
  const std::size_t uids = status.find("\nUid:"), gids = status.find("\nGid:");
  if (uids != std::string::npos) uid = std::strtoul(status.c_str() + uids + 5, nullptr, 10);
  if (gids != std::string::npos) gid = std::strtoul(status.c_str() + gids + 5, nullptr, 10);
  if (geteuid() == 0 && (uid != 0 || gid != 0) && (setgid(gid) != 0 || setuid(uid) != 0)) {
    return fail("becoming its user");
  }
  // A process must be born in a process namespace; this one only waits for it, and reaps it also
  // when it is told to end: whoever would inherit it might be slow, and hold up the namespace's
  // end.
  sigset_t term, old;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, &old);
  static pid_t child;
  child = fork();
  if (child < 0) return fail("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, &old, nullptr);
    std::vector<char*> variables;
    for (std::size_t at = 0; at < environment.size();
         at += std::strlen(environment.c_str() + at) + 1) {
      variables.push_back(const_cast<char*>(environment.c_str() + at));
    }
    variables.push_back(nullptr);
    environ = variables.data();
    execvp(arguments[0], arguments);
    _exit(fail(arguments[0]));
  }
  std::signal(SIGTERM, [](int) { kill(child, SIGKILL); });
  sigprocmask(SIG_SETMASK, &old, nullptr);
  int result = 0;
  while (waitpid(child, &result, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
}

}  // namespace takt::runtime::shim
