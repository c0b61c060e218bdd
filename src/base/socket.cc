#include "base/socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <string_view>

namespace takt {
namespace {

bool IsThisMachine(const sockaddr* peer) {
  if (peer->sa_family == AF_INET) {
    return ntohl(reinterpret_cast<const sockaddr_in*>(peer)->sin_addr.s_addr) >> 24 == 127;
  }
  if (peer->sa_family != AF_INET6) return false;
  const in6_addr& address = reinterpret_cast<const sockaddr_in6*>(peer)->sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&address) ||
         (IN6_IS_ADDR_V4MAPPED(&address) && address.s6_addr[12] == 127);
}

}  // namespace

void SetForCalls(int fd, const sockaddr* peer) {
  if (peer->sa_family != AF_INET && peer->sa_family != AF_INET6) return;
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // Every kernel has Reno, and every user may choose it.
  constexpr std::string_view kUnpaced = "reno";
  if (IsThisMachine(peer)) {
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, kUnpaced.data(), kUnpaced.size());
  }
}

}  // namespace takt
