#include "base/socket.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

namespace takt {
namespace {

std::string PacedBy(int fd) {
  char name[16] = {};
  socklen_t size = sizeof name;
  EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size), 0);
  return name;
}

TEST(SetForCalls, ASocketToThisMachineIsNeitherDelayedNorPaced) {
  struct Case {
    std::string what;
    int family;
    std::string address;
    bool here;
  };
  for (const Case& c : {Case{"loopback", AF_INET, "127.0.0.1", true},
                        Case{"all of 127", AF_INET, "127.1.2.3", true},
                        Case{"elsewhere", AF_INET, "192.0.2.1", false},
                        Case{"loopback of IPv6", AF_INET6, "::1", true},
                        Case{"an IPv4 peer of an IPv6 socket", AF_INET6, "::ffff:127.0.0.1", true},
                        Case{"elsewhere, IPv6", AF_INET6, "2001:db8::7f00:1", false}}) {
    SCOPED_TRACE(c.what);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_GE(fd, 0);
    // The default may be what is chosen anyway; then there is nothing to see of the rest.
    const std::string before = PacedBy(fd);
    sockaddr_storage peer{};
    peer.ss_family = static_cast<sa_family_t>(c.family);
    void* bytes = c.family == AF_INET
                      ? static_cast<void*>(&reinterpret_cast<sockaddr_in&>(peer).sin_addr)
                      : static_cast<void*>(&reinterpret_cast<sockaddr_in6&>(peer).sin6_addr);
    ASSERT_EQ(inet_pton(c.family, c.address.c_str(), bytes), 1);
    SetForCalls(fd, reinterpret_cast<sockaddr*>(&peer));
    EXPECT_EQ(PacedBy(fd), c.here ? "reno" : before);
    int on = 0;
    socklen_t size = sizeof on;
    EXPECT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
    EXPECT_NE(on, 0);
    close(fd);
  }
}

TEST(SetForCalls, ALocalSocketStaysAsItIs) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  sockaddr_un peer{};
  peer.sun_family = AF_UNIX;
  SetForCalls(pair[0], reinterpret_cast<sockaddr*>(&peer));
  EXPECT_EQ(write(pair[0], "x", 1), 1);
  close(pair[0]);
  close(pair[1]);
}

}  // namespace
}  // namespace takt
