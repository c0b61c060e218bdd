#include "runtime/shim/process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "runtime/shim/remap.h"

namespace takt::runtime::shim {
namespace {

[[noreturn]] void Fail(int socket, char stage) {
  Report report;
  report.kind = Report::kFailed;
  report.value = errno;
  report.stage = stage;
  SendReport(socket, report, -1);
  _exit(127);
}

[[noreturn]] void Become(const Launch& launch, int socket) {
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
    if (setrlimit(static_cast<__rlimit_resource_t>(r.which), &limit) != 0) Fail(socket, 'l');
  }
  if (launch.remaps()) {
    Report report;
    report.kind = Report::kPortFilter;
    const int filter = InstallPortFilter();
    if (filter >= 0) SendReport(socket, report, filter);
    close(filter);
  }
  if (launch.has_user) {
    const std::vector<gid_t> groups(launch.user.begin() + 2, launch.user.end());
    if (setgroups(groups.size(), groups.data()) != 0 && geteuid() == 0) Fail(socket, 'u');
    if (setgid(launch.user[1]) != 0 || setuid(launch.user[0]) != 0) Fail(socket, 'u');
  }
  if (!launch.directory.empty() && chdir(launch.directory.c_str()) != 0) Fail(socket, 'd');
  std::vector<char*> environment, arguments;
  for (const std::string& e : launch.environment) {
    environment.push_back(const_cast<char*>(e.c_str()));
  }
  for (const std::string& a : launch.arguments) arguments.push_back(const_cast<char*>(a.c_str()));
  environment.push_back(nullptr);
  arguments.push_back(nullptr);
  environ = environment.data();
  execvp(arguments[0], arguments.data());
  Fail(socket, 'p');
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

bool SendReport(int socket, const Report& report, int fd) {
  iovec part{const_cast<Report*>(&report), sizeof(report)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof(report);
}

ssize_t ReceiveReport(int socket, Report& report, int& fd, int flags) {
  fd = -1;
  iovec part{&report, sizeof(report)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t n = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  if (n > 0) {
    for (cmsghdr* h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
      if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
        std::memcpy(&fd, CMSG_DATA(h), sizeof(int));
      }
    }
  }
  return n;
}

pid_t StartProgram(const Launch& launch, Report& failed, int& port_filter,
                   const std::function<void()>& first) {
  failed = Report();
  failed.kind = Report::kFailed;
  failed.stage = 'f';
  port_filter = -1;
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    failed.value = errno;
    return -1;
  }
  const pid_t pid = fork();
  if (pid == 0) {
    close(fds[0]);
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
  Report report;
  int fd = -1;
  while ((n = ReceiveReport(fds[0], report, fd, 0)) != 0) {
    if (n < 0 && errno == EINTR) continue;
    if (n != sizeof(report) || report.kind != Report::kPortFilter) break;
    port_filter = fd;
  }
  close(fds[0]);
  if (n == 0) return pid;  // the socket closed with exec
  failed = report;
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
  int port_filter = -1;
  const pid_t program = StartProgram(launch, report, port_filter, [] {});
  if (program < 0) {
    SendReport(socket, report, -1);
    return 127;
  }
  report = Report();
  if (port_filter >= 0) {
    report.kind = Report::kPortFilter;
    SendReport(socket, report, port_filter);
    close(port_filter);
  }
  report.kind = Report::kStarted;
  SendReport(socket, report, -1);
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
      SendReport(socket, report, -1);
      return 0;  // and the kernel ends what is left in the sandbox
    }
  }
}

}  // namespace takt::runtime::shim
