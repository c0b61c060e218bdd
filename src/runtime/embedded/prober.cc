#include "runtime/embedded/prober.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "base/spawn.h"
#include "base/str.h"
#include "runtime/embedded/pid_fd.h"

namespace takt::runtime {
namespace {

constexpr std::size_t kMaxProbeOutputBytes = 4096;  // what of a command's output is kept
constexpr std::chrono::milliseconds kMinInterval{10};
constexpr int kMaxReapMs = 200;

std::string LastLine(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  const std::size_t newline = text.rfind('\n');
  return newline == std::string::npos ? text : text.substr(newline + 1);
}

}  // namespace

struct Prober::Check {
  std::string instance;
  std::int64_t pid = 0;
  HealthProbe probe;
  std::string address;
  EventLoop::Time started;
  int failures = 0;
  std::uint64_t timer = 0;  // the next begin, or the running one's deadline
  int socket = -1;
  bool connected = false;
  std::string answer;
  pid_t command = -1;
  int command_fd = -1, output = -1;
};

bool ParseProbeUrl(const std::string& url, std::string& host, int& port, std::string& path) {
  std::string rest = url;
  const bool http = rest.rfind("http://", 0) == 0;
  if (http) rest.erase(0, 7);
  const std::size_t slash = rest.find('/');
  path = slash == std::string::npos ? "/" : rest.substr(slash);
  rest.resize(std::min(slash, rest.size()));
  const std::size_t colon = rest.rfind(':');
  port = 80;
  if (colon == std::string::npos) {
    if (!http) return false;
  } else if (!absl::SimpleAtoi(rest.substr(colon + 1), &port) || port < 1 || port > 65535) {
    return false;
  }
  host = rest.substr(0, colon);
  return !host.empty();
}

Prober::Prober(EventLoop& loop, std::string shim, OnHealth on_health)
    : loop_(loop), shim_(std::move(shim)), on_health_(std::move(on_health)) {}

Prober::~Prober() {
  for (auto& [id, check] : checks_) Abort(loop_, *check);
}

void Prober::Add(const std::string& instance, std::int64_t pid, const HealthProbe& probe,
                 const std::string& address) {
  if (probe.kind == HealthProbe::Kind::kNone || checks_.count(instance)) return;
  auto check = std::make_unique<Check>();
  check->instance = instance;
  check->pid = pid;
  check->probe = probe;
  check->address = address.empty() ? "127.0.0.1" : address;
  check->started = std::chrono::steady_clock::now();
  Check& c = *check;
  checks_[instance] = std::move(check);
  // The first one comes early: a start is not to wait for a whole interval.
  const auto first =
      std::min<std::chrono::milliseconds>(probe.interval, std::chrono::milliseconds(100));
  c.timer = loop_.At(c.started + first, [this, &c] { Begin(c); });
}

void Prober::Remove(const std::string& instance) {
  const auto it = checks_.find(instance);
  if (it == checks_.end()) return;
  Abort(loop_, *it->second);
  checks_.erase(it);
}

void Prober::Abort(EventLoop& loop, Check& check) {
  loop.Cancel(check.timer);
  check.timer = 0;
  if (check.command > 0) {
    // It reaps what it started, which takes no time; where it does, that is left to others.
    pollfd ended{check.command_fd, POLLIN, 0};
    kill(check.command, SIGTERM);
    if (poll(&ended, 1, kMaxReapMs) != 1) kill(check.command, SIGKILL);
    waitpid(check.command, nullptr, 0);
    check.command = -1;
  }
  for (int* fd : {&check.socket, &check.command_fd, &check.output}) {
    if (*fd < 0) continue;
    loop.Forget(*fd);
    close(*fd);
    *fd = -1;
  }
}

void Prober::Begin(Check& check) {
  check.answer.clear();
  check.connected = false;
  check.timer = loop_.At(std::chrono::steady_clock::now() + check.probe.timeout, [this, &check] {
    check.timer = 0;
    Finish(check, StrCat("no answer within ", check.probe.timeout.count(), " ms"));
  });
  if (check.probe.kind == HealthProbe::Kind::kHttp || check.probe.kind == HealthProbe::Kind::kTcp) {
    BeginSocket(check);
  } else {
    BeginCommand(check);
  }
}

void Prober::BeginSocket(Check& check) {
  std::string host, path;
  int port = 0;
  if (!ParseProbeUrl(check.probe.url, host, port, path)) {
    Finish(check, StrCat("\"", check.probe.url, "\" is no address to check"));
    return;
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  // A name, like "localhost", means the instance itself.
  const bool own = host == "127.0.0.1" || inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1;
  if (own) inet_pton(AF_INET, check.address.c_str(), &address.sin_addr);
  check.socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (check.socket < 0 ||
      (connect(check.socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 &&
       errno != EINPROGRESS) ||
      !loop_.Watch(check.socket, EPOLLOUT,
                   [this, &check](std::uint32_t events) { OnSocket(check, events); })) {
    Finish(check, StrCat("connecting to ", host, ":", port, ": ", strerror(errno)));
  }
}

void Prober::OnSocket(Check& check, std::uint32_t) {
  std::string host, path;
  int port = 0;
  ParseProbeUrl(check.probe.url, host, port, path);
  if (!check.connected) {
    int error = 0;
    socklen_t size = sizeof(error);
    getsockopt(check.socket, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) {
      Finish(check, StrCat("port ", port, ": ", strerror(error)));
      return;
    }
    if (check.probe.kind == HealthProbe::Kind::kTcp) {
      Finish(check, "");
      return;
    }
    check.connected = true;
    const std::string request = StrCat("GET ", path, " HTTP/1.1\r\nHost: ", host, ":", port,
                                       "\r\nUser-Agent: takt-health\r\nConnection: close\r\n\r\n");
    if (send(check.socket, request.data(), request.size(), MSG_NOSIGNAL) < 0) {
      Finish(check, StrCat("port ", port, ": ", strerror(errno)));
      return;
    }
    loop_.Change(check.socket, EPOLLIN);
    return;
  }
  char buffer[1024];
  const ssize_t n = recv(check.socket, buffer, sizeof(buffer), 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n > 0) check.answer.append(buffer, static_cast<std::size_t>(n));
  const std::size_t end = check.answer.find('\n');
  if (end == std::string::npos && n > 0 && check.answer.size() < kMaxProbeOutputBytes) return;
  // "HTTP/1.1 200 OK"
  int status = 0;
  if (check.answer.rfind("HTTP/1.", 0) != 0 || check.answer.size() < 12 ||
      !absl::SimpleAtoi(check.answer.substr(9, 3), &status)) {
    Finish(check, StrCat("port ", port, " does not answer in HTTP"));
    return;
  }
  Finish(check, status >= 200 && status < 400 ? "" : StrCat(check.probe.url, " answers ", status));
}

void Prober::BeginCommand(Check& check) {
  std::vector<std::string> words = {shim_, "enter", std::to_string(check.pid), "--"};
  if (check.probe.kind == HealthProbe::Kind::kShell) {
    words.insert(words.end(), {"/bin/sh", "-c"});
  }
  words.insert(words.end(), check.probe.command.begin(), check.probe.command.end());
  int fds[2];
  if (check.probe.command.empty() || pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
    Finish(check, "its health check has no command");
    return;
  }
  const absl::StatusOr<pid_t> pid = Spawn(words, {.out = fds[1], .error = fds[1]});
  close(fds[1]);
  if (!pid.ok()) {
    close(fds[0]);
    Finish(check, StrCat("its health check cannot start: ", pid.status().message()));
    return;
  }
  check.command = *pid;
  check.output = fds[0];
  check.command_fd = pidfd_open(check.command, 0);
  fcntl(check.command_fd, F_SETFD, FD_CLOEXEC);
  loop_.Watch(check.command_fd, EPOLLIN, [this, &check](std::uint32_t) { OnCommand(check); });
  loop_.Watch(check.output, EPOLLIN, [this, &check](std::uint32_t) {
    char buffer[1024];
    const ssize_t n = read(check.output, buffer, sizeof(buffer));
    if (n > 0) {
      check.answer.append(buffer, static_cast<std::size_t>(n));
      if (check.answer.size() > kMaxProbeOutputBytes) {
        check.answer.erase(0, check.answer.size() - kMaxProbeOutputBytes);
      }
    } else {
      loop_.Forget(check.output);
    }
  });
}

void Prober::OnCommand(Check& check) {
  int status = 0;
  if (waitpid(check.command, &status, WNOHANG) != check.command) return;
  check.command = -1;
  char buffer[kMaxProbeOutputBytes];
  const ssize_t n = read(check.output, buffer, sizeof(buffer));
  if (n > 0) check.answer.append(buffer, static_cast<std::size_t>(n));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    Finish(check, "");
    return;
  }
  const std::string said = LastLine(check.answer);
  Finish(check, StrCat("exit code ", WIFEXITED(status) ? WEXITSTATUS(status) : 128,
                       said.empty() ? "" : ": ", said.substr(0, 300)));
}

void Prober::Finish(Check& check, const std::string& failure) {
  Abort(loop_, check);
  const auto now = std::chrono::steady_clock::now();
  const auto interval = std::max(check.probe.interval, kMinInterval);
  const std::string instance = check.instance;
  Health health = Health::kHealthy;
  if (failure.empty()) {
    check.failures = 0;
  } else if (now - check.started >= check.probe.start_period) {
    ++check.failures;
  }
  const bool starting = !failure.empty() && check.failures < std::max(1, check.probe.retries);
  check.timer = loop_.At(now + interval, [this, &check] { Begin(check); });
  if (starting) return;
  if (!failure.empty()) health = Health::kUnhealthy;
  on_health_(instance, health, failure.empty() ? "" : StrCat("its health check fails: ", failure));
}

}  // namespace takt::runtime
