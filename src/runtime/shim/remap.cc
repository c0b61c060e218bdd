#include "runtime/shim/remap.h"

#include <arpa/inet.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace takt::runtime::shim {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "the number of this architecture in seccomp filters is needed here"
#endif

constexpr int kAddressTries = 64;

sockaddr_in At(std::uint32_t address, std::uint16_t port) {
  sockaddr_in result{};
  result.sin_family = AF_INET;
  result.sin_addr.s_addr = htonl(address);
  result.sin_port = htons(port);
  return result;
}

// "::ffff:127.64.0.1"
sockaddr_in6 MappedAt(std::uint32_t address, std::uint16_t port) {
  sockaddr_in6 result{};
  result.sin6_family = AF_INET6;
  result.sin6_addr.s6_addr[10] = result.sin6_addr.s6_addr[11] = 0xff;
  const std::uint32_t network = htonl(address);
  std::memcpy(&result.sin6_addr.s6_addr[12], &network, sizeof(network));
  result.sin6_port = htons(port);
  return result;
}

// The port of an address that means this machine as a whole or its loopback; 0 for others.
std::uint16_t LocalPort(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    const std::uint32_t ip = ntohl(v4.sin_addr.s_addr);
    return ip == INADDR_ANY || ip == INADDR_LOOPBACK ? ntohs(v4.sin_port) : 0;
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    const sockaddr_in6 any = MappedAt(INADDR_ANY, 0), loopback = MappedAt(INADDR_LOOPBACK, 0);
    const auto is = [&](const in6_addr& other) {
      return std::memcmp(&v6.sin6_addr, &other, sizeof(other)) == 0;
    };
    const bool local =
        is(in6addr_any) || is(in6addr_loopback) || is(any.sin6_addr) || is(loopback.sin6_addr);
    return local ? ntohs(v6.sin6_port) : 0;
  }
  return 0;
}

int OptionOf(int socket, int level, int option) {
  int value = 0;
  socklen_t size = sizeof(value);
  return getsockopt(socket, level, option, &value, &size) == 0 ? value : 0;
}

int FamilyOf(int socket) { return OptionOf(socket, SOL_SOCKET, SO_DOMAIN); }

std::uint16_t BoundPort(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(reinterpret_cast<sockaddr_in&>(address).sin_port);
}

// Socket `fd` of the process that thread `tid` belongs to, as a descriptor of ours; -1 when it is
// gone.
int Borrow(pid_t tid, int fd) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/status", tid);
  pid_t process = tid;
  if (std::FILE* status = std::fopen(path, "re")) {
    char line[128];
    while (std::fgets(line, sizeof(line), status)) {
      if (std::strncmp(line, "Tgid:", 5) == 0) process = std::atoi(line + 5);
    }
    std::fclose(status);
  }
  const int pid_fd = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
  if (pid_fd < 0) return -1;
  const int socket = static_cast<int>(syscall(SYS_pidfd_getfd, pid_fd, fd, 0));
  close(pid_fd);
  return socket;
}

}  // namespace

int InstallPortFilter() {
  const sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 0, 4),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bind, 1, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_connect, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{sizeof(filter) / sizeof(filter[0]), const_cast<sock_filter*>(filter)};
  const auto install = [&] {
    return static_cast<int>(
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
  };
  const int listener = install();
  if (listener >= 0 || errno != EACCES) return listener;
  // Who is not privileged may do it who cannot become so.
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return install();
}

Remapper::Remapper(const Launch& launch) : launch_(launch) {
  for (int n = 0; n < kAddressTries; ++n) {
    std::uint32_t random = 0;
    [[maybe_unused]] const ssize_t got = getrandom(&random, sizeof(random), 0);
    // 127.64.0.0/10, without the first and last of each 256.
    address_ = 0x7f400000u | (random & 0x003fff00u) | (1 + (random & 0xff) % 254);
    const bool free = std::all_of(
        launch_.forwards.begin(), launch_.forwards.end(), [&](const Launch::Forward& f) {
          const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
          const sockaddr_in address = At(address_, static_cast<std::uint16_t>(f.target));
          const int one = 1;
          setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
          const bool bound =
              bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
          close(fd);
          return bound;
        });
    if (free) break;
  }
  char text[INET_ADDRSTRLEN];
  const in_addr address{htonl(address_)};
  address_text_ = inet_ntop(AF_INET, &address, text, sizeof(text));
}

Remapper::Fate Remapper::FateOf(std::uint16_t port) const {
  const auto has = [&](const std::vector<int>& ports) {
    return std::find(ports.begin(), ports.end(), port) != ports.end();
  };
  if (port == 0) return Fate::kAsIs;
  if (launch_.move_all_ports || has(launch_.moved_ports)) return Fate::kMoved;
  return has(launch_.shared_ports) ? Fate::kShared : Fate::kAsIs;
}

bool Remapper::Bind(int socket, const sockaddr_storage& wanted, int& error) {
  const std::uint16_t port = LocalPort(wanted);
  const Fate fate = FateOf(port);
  if (fate == Fate::kAsIs) return false;
  // A published port of one instance and the same port of another one's own address go together
  // only so.
  const int one = 1;
  setsockopt(socket, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
  const auto bind_to = [&](const auto& address) {
    error =
        bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ? 0 : errno;
    return error == 0;
  };
  const bool v6 = FamilyOf(socket) == AF_INET6;
  if (fate == Fate::kShared) {
    if (v6) {
      bind_to(reinterpret_cast<const sockaddr_in6&>(wanted));
    } else {
      bind_to(reinterpret_cast<const sockaddr_in&>(wanted));
    }
    return true;
  }
  if (v6 && OptionOf(socket, IPPROTO_IPV6, IPV6_V6ONLY)) {
    // Its IPv4 companion is the one that is found; there is only one IPv6 loopback address.
    sockaddr_in6 nowhere{};
    nowhere.sin6_family = AF_INET6;
    nowhere.sin6_addr = in6addr_loopback;
    bind_to(nowhere);
    return true;
  }
  for (const std::uint16_t at : {port, std::uint16_t{0}}) {
    if (v6 ? bind_to(MappedAt(address_, at)) : bind_to(At(address_, at))) {
      moved_[port] = BoundPort(socket);
      break;
    }
    if (error != EADDRINUSE) break;  // a process that is none of ours has the port everywhere
  }
  return true;
}

bool Remapper::Connect(int socket, const sockaddr_storage& wanted, int& error) {
  const auto moved = moved_.find(LocalPort(wanted));
  if (moved == moved_.end()) return false;
  const sockaddr_in v4 = At(address_, moved->second);
  const sockaddr_in6 v6 = MappedAt(address_, moved->second);
  const bool is_v6 = FamilyOf(socket) == AF_INET6;
  if (is_v6) {
    const int zero = 0;
    setsockopt(socket, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
  }
  const auto* address =
      is_v6 ? reinterpret_cast<const sockaddr*>(&v6) : reinterpret_cast<const sockaddr*>(&v4);
  error = connect(socket, address, is_v6 ? sizeof(v6) : sizeof(v4)) == 0 ? 0 : errno;
  return true;
}

bool Remapper::Handle(int listener) {
  seccomp_notif call{};
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0)
    return errno == EINTR || errno == ENOENT;
  seccomp_notif_resp answer{};
  answer.id = call.id;
  answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  sockaddr_storage address{};
  const std::size_t size = std::min<std::size_t>(call.data.args[2], sizeof(address));
  iovec here{&address, size};
  iovec there{nullptr, size};  // a pointer of the other process
  std::memcpy(&there.iov_base, &call.data.args[1], sizeof(there.iov_base));
  const bool known = size >= sizeof(sa_family_t) &&
                     process_vm_readv(static_cast<pid_t>(call.pid), &here, 1, &there, 1, 0) ==
                         static_cast<ssize_t>(size);
  const bool internet = (address.ss_family == AF_INET && size >= sizeof(sockaddr_in)) ||
                        (address.ss_family == AF_INET6 && size >= sizeof(sockaddr_in6));
  const bool is_bind = call.data.nr == SYS_bind;
  const std::uint16_t port = known && internet ? LocalPort(address) : 0;
  const bool ours = port != 0 && (is_bind ? FateOf(port) != Fate::kAsIs : moved_.count(port) > 0);
  if (ours && ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call.id) == 0) {
    const int socket = Borrow(static_cast<pid_t>(call.pid), static_cast<int>(call.data.args[0]));
    // Only stream sockets; names of datagram services stay what they are.
    if (socket >= 0 && OptionOf(socket, SOL_SOCKET, SO_TYPE) == SOCK_STREAM) {
      int error = 0;
      if (is_bind ? Bind(socket, address, error) : Connect(socket, address, error)) {
        answer.flags = 0;
        answer.error = -error;
      }
    }
    if (socket >= 0) close(socket);
  }
  ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
  return true;
}

}  // namespace takt::runtime::shim
