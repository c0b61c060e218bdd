#include "runtime/shim/process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace takt::runtime::shim {
namespace {

[[noreturn]] void Fail(int pipe_fd, char stage) {
  Report report;
  report.kind = Report::kFailed;
  report.value = errno;
  report.stage = stage;
  [[maybe_unused]] const ssize_t n = write(pipe_fd, &report, sizeof(report));
  _exit(127);
}

[[noreturn]] void Become(const Launch& launch, int pipe_fd) {
  for (int signal = 1; signal < NSIG; ++signal) std::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setpgid(0, 0);
  const int null = open("/dev/null", O_RDONLY);
  if (null >= 0) {
    dup2(null, STDIN_FILENO);
    if (null != STDIN_FILENO) close(null);
  }
  for (const Launch::Resource& r : launch.resources) {
    const rlimit limit{r.soft, r.hard};
    if (setrlimit(static_cast<__rlimit_resource_t>(r.which), &limit) != 0) Fail(pipe_fd, 'l');
  }
  if (launch.has_user) {
    const std::vector<gid_t> groups(launch.user.begin() + 2, launch.user.end());
    if (setgroups(groups.size(), groups.data()) != 0 && geteuid() == 0) Fail(pipe_fd, 'u');
    if (setgid(launch.user[1]) != 0 || setuid(launch.user[0]) != 0) Fail(pipe_fd, 'u');
  }
  if (!launch.directory.empty() && chdir(launch.directory.c_str()) != 0) Fail(pipe_fd, 'd');
  std::vector<char*> environment, arguments;
  for (const std::string& e : launch.environment) {
    environment.push_back(const_cast<char*>(e.c_str()));
  }
  for (const std::string& a : launch.arguments) arguments.push_back(const_cast<char*>(a.c_str()));
  environment.push_back(nullptr);
  arguments.push_back(nullptr);
  environ = environment.data();
  execvp(arguments[0], arguments.data());
  Fail(pipe_fd, 'p');
}

}  // namespace

std::string StageText(const Launch& launch, char stage) {
  switch (stage) {
    case 'l':
      return "its resource limits cannot be set";
    case 'u':
      return "it cannot become user " + std::to_string(launch.user[0]);
    case 'd':
      return "working directory \"" + launch.directory + "\"";
    case 'p':
      return "program \"" + launch.arguments[0] + "\"";
    default:
      return "no process can be made";
  }
}

pid_t StartProgram(const Launch& launch, Report& failed, const std::function<void()>& first) {
  failed = Report();
  failed.kind = Report::kFailed;
  failed.stage = 'f';
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) {
    failed.value = errno;
    return -1;
  }
  const pid_t pid = fork();
  if (pid == 0) {
    first();
    Become(launch, fds[1]);
  }
  const int fork_error = errno;
  close(fds[1]);
  if (pid < 0) {
    close(fds[0]);
    failed.value = fork_error;
    return -1;
  }
  ssize_t n;
  do {
    n = read(fds[0], &failed, sizeof(failed));
  } while (n < 0 && errno == EINTR);
  close(fds[0]);
  if (n == 0) return pid;  // the pipe closed with exec
  waitpid(pid, nullptr, 0);
  return -1;
}

int RunInit(int launch_fd, int socket) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Launch launch;
  Report report;
  std::string error;
  if (!ReadLaunch(launch_fd, launch, error)) return 127;
  close(launch_fd);
  fcntl(socket, F_SETFD, FD_CLOEXEC);
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  const int signals = signalfd(-1, &all, SFD_CLOEXEC);
  const pid_t program = StartProgram(launch, report, [] {});
  if (program < 0) {
    send(socket, &report, sizeof(report), MSG_NOSIGNAL);
    return 127;
  }
  report = Report();
  send(socket, &report, sizeof(report), MSG_NOSIGNAL);
  // The program alone holds the log's pipes from now on.
  close(STDIN_FILENO);
  close(STDOUT_FILENO);
  close(STDERR_FILENO);
  pollfd polls[2] = {{signals, POLLIN, 0}, {socket, POLLIN, 0}};
  while (true) {
    if (poll(polls, 2, -1) < 0 && errno != EINTR) return 127;
    if (polls[1].revents) {
      int signal = 0;
      if (recv(socket, &signal, sizeof(signal), 0) != sizeof(signal)) return 127;
      kill(signal == SIGKILL ? -1 : program, signal);
    }
    if (polls[0].revents) {
      signalfd_siginfo info;
      if (read(signals, &info, sizeof(info)) != sizeof(info)) continue;
    }
    int status = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
      if (pid != program) continue;
      report.kind = Report::kEnded;
      report.value = status;
      send(socket, &report, sizeof(report), MSG_NOSIGNAL);
      return 0;  // and the kernel ends what is left in the sandbox
    }
  }
}

}  // namespace takt::runtime::shim
