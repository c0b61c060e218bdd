#include "net/tcp.h"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "base/socket.h"

namespace takt::net {
namespace {

std::string HostPort(const std::string& host, std::uint16_t port) {
  return host.find(':') == std::string::npos ? StrCat(host, ":", port)
                                             : StrCat("[", host, "]:", port);
}

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

absl::StatusOr<Addresses> Resolve(const std::string& host, std::uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const std::string service = std::to_string(port);
  const int error = getaddrinfo(host.c_str(), service.c_str(), &hints, &list);
  if (error != 0) {
    return absl::NotFoundError(StrCat("host \"", host, "\": ", gai_strerror(error)));
  }
  return Addresses(list);
}

}  // namespace

std::string AddressText(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text));
    return HostPort(text, ntohs(v4->sin_port));
  }
  if (address->sa_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
    inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text));
    return HostPort(text, ntohs(v6->sin6_port));
  }
  return "unix";
}

absl::Status SplitHostPort(std::string_view text, std::string* host, std::uint16_t* port) {
  const std::size_t colon = text.rfind(':');
  absl::Status bad = absl::InvalidArgumentError(StrCat("expected HOST:PORT, got \"", text, "\""));
  if (colon == std::string_view::npos) return bad;
  std::string_view name = text.substr(0, colon);
  if (name.size() >= 2 && name.front() == '[' && name.back() == ']') {
    name = name.substr(1, name.size() - 2);
  } else if (name.find(':') != std::string_view::npos) {
    return bad;
  }
  const std::string_view digits = text.substr(colon + 1);
  unsigned value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || value > 65535) return bad;
  host->assign(name);
  *port = static_cast<std::uint16_t>(value);
  return absl::OkStatus();
}

bool IsLoopback(std::string_view host) {
  in_addr v4{};
  if (host == "localhost" || host == "::1") return true;
  return inet_pton(AF_INET, std::string(host).c_str(), &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

absl::StatusOr<ListeningSocket> Listen(const std::string& host, std::uint16_t port) {
  const std::string name = host.empty() || host == "*" ? "0.0.0.0" : host;
  absl::StatusOr<Addresses> addresses = Resolve(name, port, AI_PASSIVE);
  if (!addresses.ok()) {
    return absl::InvalidArgumentError(
        StrCat("cannot listen at ", HostPort(name, port), ": ", addresses.status().message()));
  }
  const addrinfo* address = addresses->get();
  const int fd =
      socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, 1024) != 0) {
    const int error = errno;
    close(fd);
    if (error == EADDRINUSE) {
      return absl::UnavailableError(StrCat(HostPort(name, port), " is in use"));
    }
    const std::string message =
        StrCat("cannot listen at ", HostPort(name, port), ": ", std::strerror(error));
    return error == EACCES ? absl::PermissionDeniedError(message)
                           : absl::InvalidArgumentError(message);
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
  const std::uint16_t network_port = bound.ss_family == AF_INET6
                                         ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                         : reinterpret_cast<sockaddr_in*>(&bound)->sin_port;
  return ListeningSocket{.fd = fd, .port = ntohs(network_port)};
}

absl::StatusOr<int> Connect(const std::string& host, std::uint16_t port,
                            std::chrono::steady_clock::time_point deadline) {
  TAKT_ASSIGN_OR_RETURN(const Addresses addresses, Resolve(host, port, 0));
  absl::Status last = absl::UnavailableError(StrCat("connect to ", HostPort(host, port)));
  for (const addrinfo* each = addresses.get(); each != nullptr; each = each->ai_next) {
    const int fd = socket(each->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) return ErrnoStatus(errno, "socket");
    int error = connect(fd, each->ai_addr, each->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd wait{.fd = fd, .events = POLLOUT, .revents = 0};
      const int ready = poll(&wait, 1, static_cast<int>(std::max<std::int64_t>(0, left.count())));
      if (ready == 0) {
        close(fd);
        return absl::DeadlineExceededError(
            StrCat("connect to ", HostPort(host, port), ": no answer in time"));
      }
      socklen_t size = sizeof(error);
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error == 0) {
      SetForCalls(fd, each->ai_addr);
      return fd;
    }
    close(fd);
    last = absl::UnavailableError(
        StrCat("connect to ", HostPort(host, port), ": ", std::strerror(error)));
  }
  return last;
}

absl::StatusOr<int> ConnectUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(StrCat("socket path ", path, " is too long"));
  }
  path.copy(address.sun_path, path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    close(fd);
    return absl::UnavailableError(StrCat("connect to ", path, ": ", std::strerror(error)));
  }
  return fd;
}

}  // namespace takt::net
