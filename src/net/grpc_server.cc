#include "net/grpc_server.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/socket.h"
#include "net/grpc_connection.h"
#include "net/grpc_shard.h"

namespace takt::net {
namespace {

using Clock = std::chrono::steady_clock;

class Server;

class Acceptor final : public EventLoop::FdHandler {
 public:
  Acceptor(Server* server, int fd, bool unix_socket)
      : server_(server), fd_(fd), unix_(unix_socket) {}
  ~Acceptor() override { close(fd_); }
  void OnEvents(std::uint32_t events) override;
  int fd() const { return fd_; }

 private:
  Server* const server_;
  const int fd_;
  const bool unix_;
};

class Server final : public GrpcServer {
 public:
  Server(GrpcServerOptions options, std::vector<EventLoop*> loops);
  ~Server() override;
  void Handle(std::string method, GrpcHandler handler) override {
    MethodAt(method).handler = std::move(handler);
  }
  void HandleStream(std::string method, GrpcStreamFactory factory) override {
    MethodAt(method).stream_factory = std::move(factory);
  }
  void PlaceBodiesOf(std::string_view method,
                     std::function<std::size_t(std::string_view)> offset) override {
    MethodAt(std::string(method)).place = std::move(offset);
  }
  void HandleGet(std::string path, std::string content_type,
                 std::function<void(PlainAnswer)> ask) override {
    core_.pages[std::move(path)] = {std::move(content_type), std::move(ask)};
  }
  absl::Status Start() override;
  std::uint16_t port() const override { return port_; }
  const std::vector<EventLoop*>& loops() const override { return loops_; }
  GrpcServerStats stats() const override;
  std::uint64_t Drain(std::chrono::milliseconds limit) override;

  void Accepted(int fd, std::string peer);

 private:
  GrpcMethod& MethodAt(const std::string& path) {
    GrpcMethod& method = core_.methods[path];
    method.path = path;
    return method;
  }
  absl::Status ListenTcp();
  absl::Status ListenUnix();
  void StopAccepting();
  void OnEveryLoop(const std::function<void(GrpcShard&)>& work);

  GrpcCore core_;
  const std::vector<EventLoop*> loops_;
  std::vector<std::unique_ptr<GrpcShard>> shards_;
  std::vector<std::unique_ptr<Acceptor>> acceptors_;
  std::shared_ptr<SSL_CTX> tls_;
  std::uint16_t port_ = 0;
};

void Acceptor::OnEvents(std::uint32_t) {
  for (int i = 0; i < 64; ++i) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    const int fd =
        accept4(fd_, reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    std::string peer = "unix:";
    if (!unix_) {
      SetForCalls(fd, reinterpret_cast<sockaddr*>(&address));
      char host[NI_MAXHOST];
      char service[NI_MAXSERV];
      if (getnameinfo(reinterpret_cast<sockaddr*>(&address), length, host, sizeof host, service,
                      sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        const bool v6 = std::strchr(host, ':') != nullptr;
        peer = v6 ? StrCat("[", host, "]:", service) : StrCat(host, ":", service);
      }
    }
    server_->Accepted(fd, std::move(peer));
  }
}

Server::Server(GrpcServerOptions options, std::vector<EventLoop*> loops)
    : loops_(std::move(loops)) {
  core_.options = std::move(options);
  for (EventLoop* loop : loops_) shards_.push_back(std::make_unique<GrpcShard>(&core_, loop));
}

void Server::OnEveryLoop(const std::function<void(GrpcShard&)>& work) {
  std::atomic<std::size_t> left = shards_.size();
  for (auto& shard : shards_) {
    shard->loop->Post([&, shard = shard.get()] {
      work(*shard);
      // Under the lock, or this frame may be gone before the notification.
      std::lock_guard lock(core_.mutex);
      --left;
      core_.changed.notify_all();
    });
  }
  std::unique_lock lock(core_.mutex);
  core_.changed.wait(lock, [&] { return left == 0; });
}

Server::~Server() {
  core_.draining = true;
  StopAccepting();
  OnEveryLoop([](GrpcShard& shard) {
    shard.loop->Cancel(shard.sweep_timer);
    shard.connections.clear();
  });
  // Whoever still holds a call lets go of it first.
  std::unique_lock lock(core_.mutex);
  core_.changed.wait(lock, [&] { return stats().calls_in_flight == 0; });
  lock.unlock();
  OnEveryLoop([](GrpcShard&) {});
}

absl::Status Server::Start() {
  if (core_.options.tls.has_value()) {
    std::vector<std::string> alpn = {"h2"};
    if (!core_.pages.empty()) alpn.emplace_back("http/1.1");
    TAKT_ASSIGN_OR_RETURN(tls_, MakeTlsServerContext(*core_.options.tls, alpn));
  }
  if (core_.options.port >= 0) TAKT_RETURN_IF_ERROR(ListenTcp());
  if (!core_.options.unix_socket_path.empty()) TAKT_RETURN_IF_ERROR(ListenUnix());
  EventLoop* loop = shards_.front()->loop;
  for (auto& acceptor : acceptors_) {
    loop->Post([loop, acceptor = acceptor.get()] {
      // Cannot fail but for want of kernel memory; then nothing is ever accepted, which is seen.
      [[maybe_unused]] absl::Status status = loop->Watch(acceptor->fd(), EPOLLIN, acceptor);
    });
  }
  return absl::OkStatus();
}

absl::Status Server::ListenTcp() {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port_text = std::to_string(core_.options.port);
  if (getaddrinfo(core_.options.host.empty() ? nullptr : core_.options.host.c_str(),
                  port_text.c_str(), &hints, &found) != 0) {
    return absl::UnavailableError(StrCat("host \"", core_.options.host, "\" has no address"));
  }
  std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found, freeaddrinfo);
  const int fd =
      socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, found->ai_protocol);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1024) != 0) {
    const int error = errno;
    close(fd);
    if (error == EADDRINUSE) {
      return absl::UnavailableError(StrCat("port ", port_text, " is in use"));
    }
    return absl::UnavailableError(
        StrCat("listen on ", core_.options.host, ":", port_text, ": ", std::strerror(error)));
  }
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  port_ = ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                              : reinterpret_cast<sockaddr_in&>(address).sin_port);
  acceptors_.push_back(std::make_unique<Acceptor>(this, fd, false));
  return absl::OkStatus();
}

absl::Status Server::ListenUnix() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string& path = core_.options.unix_socket_path;
  if (path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(StrCat("socket path \"", path, "\" has ", path.size(),
                                             " bytes; at most ", sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  // A socket that a dead server left behind is replaced; one that answers is not.
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool alive =
      probe >= 0 && connect(probe, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  if (probe >= 0) close(probe);
  if (!alive) unlink(path.c_str());
  if (alive || bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd, 1024) != 0) {
    const int error = alive ? EADDRINUSE : errno;
    close(fd);
    return absl::UnavailableError(StrCat("socket ", path, ": ", std::strerror(error)));
  }
  acceptors_.push_back(std::make_unique<Acceptor>(this, fd, true));
  return absl::OkStatus();
}

void Server::Accepted(int fd, std::string peer) {
  std::uint64_t total = 0;
  GrpcShard* chosen = shards_.front().get();
  for (auto& shard : shards_) {
    const std::uint64_t count = shard->connection_count.load(std::memory_order_relaxed);
    total += count;
    if (count < chosen->connection_count.load(std::memory_order_relaxed)) chosen = shard.get();
  }
  if (core_.draining || total >= core_.options.max_connections) {
    close(fd);
    return;
  }
  SSL* ssl = nullptr;
  if (tls_ != nullptr) {
    ssl = SSL_new(tls_.get());
    if (ssl == nullptr) {
      close(fd);
      return;
    }
    SSL_set_fd(ssl, fd);
  }
  // Counted here, so that a burst of connections spreads over the loops.
  chosen->connection_count.fetch_add(1, std::memory_order_relaxed);
  auto adopt = [chosen, fd, ssl, peer = std::move(peer)] {
    chosen->Adopt(std::make_unique<GrpcServerConnection>(chosen, fd, peer, ssl));
  };
  if (chosen->loop->InLoop()) {
    adopt();
  } else {
    chosen->loop->Post(std::move(adopt));
  }
}

GrpcServerStats Server::stats() const {
  GrpcServerStats stats;
  for (auto& shard : shards_) {
    stats.connections += shard->connection_count.load(std::memory_order_relaxed);
    stats.calls += shard->calls.load(std::memory_order_relaxed);
    stats.calls_in_flight += shard->in_flight.load(std::memory_order_relaxed);
  }
  return stats;
}

void Server::StopAccepting() {
  if (acceptors_.empty()) return;
  OnEveryLoop([this](GrpcShard& shard) {
    if (&shard != shards_.front().get()) return;
    for (auto& acceptor : acceptors_) shard.loop->Unwatch(acceptor->fd(), acceptor.get());
    acceptors_.clear();
  });
  if (!core_.options.unix_socket_path.empty()) unlink(core_.options.unix_socket_path.c_str());
}

std::uint64_t Server::Drain(std::chrono::milliseconds limit) {
  const Clock::time_point end = Clock::now() + limit;
  core_.draining = true;
  StopAccepting();
  OnEveryLoop([](GrpcShard& shard) {
    std::vector<GrpcServerConnection*> all;
    for (auto& [connection, owned] : shard.connections) all.push_back(connection);
    for (GrpcServerConnection* connection : all) connection->StartDrain();
  });
  std::unique_lock lock(core_.mutex);
  core_.changed.wait_until(lock, end, [&] { return stats().connections == 0; });
  lock.unlock();
  const std::uint64_t cut = stats().calls_in_flight;
  OnEveryLoop([](GrpcShard& shard) { shard.connections.clear(); });
  return cut;
}

}  // namespace

std::unique_ptr<GrpcServer> GrpcServer::Create(GrpcServerOptions options,
                                               std::vector<EventLoop*> loops) {
  return std::make_unique<Server>(std::move(options), std::move(loops));
}

}  // namespace takt::net
