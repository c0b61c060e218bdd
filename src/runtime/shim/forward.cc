#include "runtime/shim/forward.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace takt::runtime::shim {
namespace {

constexpr std::size_t kOtherFiles = 64;       // descriptors that a shim has besides
constexpr std::size_t kBufferBytes = 65'536;  // waiting for a slow end; then reading pauses

bool Address(const std::string& ip, int port, sockaddr_storage& address, socklen_t& size) {
  std::memset(&address, 0, sizeof(address));
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
  if (inet_pton(AF_INET, ip.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<std::uint16_t>(port));
    size = sizeof(*v4);
    return true;
  }
  if (inet_pton(AF_INET6, ip.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<std::uint16_t>(port));
    size = sizeof(*v6);
    return true;
  }
  return false;
}

}  // namespace

Forwarder::Forwarder(std::size_t max_connections)
    : epoll_(epoll_create1(EPOLL_CLOEXEC)), max_connections_(max_connections) {
  // Two descriptors a connection; accepting must never fail for want of one.
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    const std::size_t left = files.rlim_cur > kOtherFiles ? files.rlim_cur - kOtherFiles : 0;
    max_connections_ = std::min(max_connections_, left / 2);
  }
}

Forwarder::~Forwarder() {
  for (const auto& end : ends_) {
    if (end->fd >= 0) close(end->fd);
  }
  close(epoll_);
}

bool Forwarder::Listen(Launch::Forward& forward, std::string& error) {
  sockaddr_storage address;
  socklen_t size = 0;
  const auto fail = [&](const char* why) {
    error = "port " + std::to_string(forward.published) + " at " + forward.listen_ip +
            " cannot be opened: " + why;
    return false;
  };
  if (!Address(forward.listen_ip, forward.published, address, size)) return fail("no IP address");
  const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int one = 1;
  if (fd < 0) return fail(std::strerror(errno));
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(fd, 1024) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    const int why = errno;
    close(fd);
    return fail(std::strerror(why));
  }
  // The port lies at the same place in both families.
  forward.published = ntohs(reinterpret_cast<sockaddr_in*>(&address)->sin_port);
  auto end = std::make_unique<End>();
  end->fd = fd;
  end->target = forward.target;
  targets_.try_emplace(forward.target, "127.0.0.1", forward.target);
  ends_.push_back(std::move(end));
  Watch(*ends_.back());
  return true;
}

void Forwarder::SetTarget(int target, const std::string& ip, int port) {
  targets_[target] = {ip, port};
}

void Forwarder::Watch(End& end) {
  std::uint32_t events = 0;
  if (!end.peer) {
    events = EPOLLIN;
  } else {
    const bool room = end.peer->out.size() < kBufferBytes;
    if (!end.connecting && !end.no_more_in && room) events |= EPOLLIN;
    if (end.connecting || !end.out.empty()) events |= EPOLLOUT;
  }
  epoll_event event{events, {.ptr = &end}};
  if (end.events == 0 && epoll_ctl(epoll_, EPOLL_CTL_ADD, end.fd, &event) == 0) {
    end.events = events | EPOLLERR;
  } else if (end.events != (events | EPOLLERR)) {
    epoll_ctl(epoll_, EPOLL_CTL_MOD, end.fd, &event);
    end.events = events | EPOLLERR;
  }
}

void Forwarder::Process() {
  epoll_event events[64];
  const int n = epoll_wait(epoll_, events, 64, 0);
  for (int i = 0; i < n; ++i) {
    End& end = *static_cast<End*>(events[i].data.ptr);
    if (end.dead) continue;
    if (!end.peer) {
      Accept(end);
      continue;
    }
    if (end.connecting && (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
      int error = 0;
      socklen_t size = sizeof(error);
      getsockopt(end.fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error != 0) {
        Drop(end);
        continue;
      }
      end.connecting = false;
    }
    if (events[i].events & EPOLLOUT) Flush(end);
    if (!end.dead && (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))) Read(end);
    if (!end.dead) {
      Watch(end);
      Watch(*end.peer);
    }
  }
  std::erase_if(ends_, [](const std::unique_ptr<End>& end) { return end->dead; });
}

void Forwarder::Accept(const End& listener) {
  const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return;
  sockaddr_storage address;
  socklen_t size = 0;
  const auto& [ip, port] = targets_[listener.target];
  const int target = Address(ip, port, address, size)
                         ? socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
                         : -1;
  if (target < 0 || connections_ >= max_connections_ ||
      (connect(target, reinterpret_cast<sockaddr*>(&address), size) != 0 && errno != EINPROGRESS)) {
    if (target >= 0) close(target);
    close(fd);
    return;
  }
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  setsockopt(target, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  auto client = std::make_unique<End>();
  auto server = std::make_unique<End>();
  client->fd = fd;
  server->fd = target;
  server->connecting = true;
  client->peer = server.get();
  server->peer = client.get();
  ++connections_;
  Watch(*client);
  Watch(*server);
  ends_.push_back(std::move(client));
  ends_.push_back(std::move(server));
}

void Forwarder::Read(End& end) {
  char buffer[16 * 1024];
  const ssize_t n = read(end.fd, buffer, sizeof(buffer));
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n < 0) {
    Drop(end);
    return;
  }
  End& peer = *end.peer;
  if (n == 0) {
    end.no_more_in = true;
    peer.no_more_out = true;
  } else {
    peer.out.append(buffer, static_cast<std::size_t>(n));
  }
  if (!peer.connecting) Flush(peer);
}

void Forwarder::Flush(End& end) {
  if (!end.out.empty()) {
    const ssize_t n = send(end.fd, end.out.data(), end.out.size(), MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
      Drop(end);
      return;
    }
    if (n > 0) end.out.erase(0, static_cast<std::size_t>(n));
  }
  if (!end.out.empty() || !end.no_more_out) return;
  shutdown(end.fd, SHUT_WR);
  if (end.no_more_in) Drop(end);  // both directions are done
}

void Forwarder::Drop(End& end) {
  for (End* each : {&end, end.peer}) {
    close(each->fd);
    each->fd = -1;
    each->dead = true;
  }
  --connections_;
}

}  // namespace takt::runtime::shim
