#include "runtime/shim/forward.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>

namespace takt::runtime::shim {
namespace {

// Everything on one thread: the forwarder runs while a condition is waited for.
class ForwardTest : public testing::Test {
 protected:
  ForwardTest() : server_(Socket()) {
    sockaddr_in address = At(0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(server_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(server_, 100), 0);
    EXPECT_EQ(getsockname(server_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    forward_ = {"127.0.0.1", 0, ntohs(address.sin_port)};
  }
  ~ForwardTest() override {
    for (const int fd : opened_) close(fd);
  }
  int Keep(int fd) {
    EXPECT_GE(fd, 0);
    opened_.push_back(fd);
    return fd;
  }
  int Socket() { return Keep(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)); }
  static sockaddr_in At(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    return address;
  }
  void Listen(Forwarder& forwarder) {
    std::string error;
    ASSERT_TRUE(forwarder.Listen(forward_, error)) << error;
    ASSERT_NE(forward_.published, 0);
  }
  int Connect() {
    const int fd = Socket();
    const sockaddr_in address = At(forward_.published);
    EXPECT_TRUE(connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
                errno == EINPROGRESS);
    return fd;
  }
  static bool Run(Forwarder& forwarder, const std::function<bool()>& condition) {
    for (int round = 0; round < 20'000; ++round) {
      if (condition()) return true;
      pollfd ready{forwarder.poll_fd(), POLLIN, 0};
      poll(&ready, 1, 1);
      forwarder.Process();
    }
    return condition();
  }
  int Accepted(Forwarder& forwarder) {
    int fd = -1;
    EXPECT_TRUE(Run(forwarder, [&] {
      fd = accept4(server_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      return fd >= 0;
    }));
    return Keep(fd);
  }
  // Reads until `size` bytes or the end came.
  static std::string Receive(Forwarder& forwarder, int fd, std::size_t size,
                             bool* ended = nullptr) {
    std::string text;
    Run(forwarder, [&] {
      char buffer[65536];
      const ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
      if (n > 0) text.append(buffer, static_cast<std::size_t>(n));
      const bool end = n == 0 || (n < 0 && errno != EAGAIN);
      if (ended) *ended = end;
      return end || text.size() >= size;
    });
    return text;
  }

  std::vector<int> opened_;
  int server_;
  Launch::Forward forward_;
};

TEST_F(ForwardTest, BytesPassBothWaysAndAnEndIsPassedOnAlone) {
  Forwarder forwarder;
  Listen(forwarder);
  const int client = Connect();
  const int server = Accepted(forwarder);
  ASSERT_EQ(send(client, "ask", 3, 0), 3);
  EXPECT_EQ(Receive(forwarder, server, 3), "ask");
  ASSERT_EQ(shutdown(client, SHUT_WR), 0);
  bool ended = false;
  EXPECT_EQ(Receive(forwarder, server, 1, &ended), "");
  EXPECT_TRUE(ended);
  ASSERT_EQ(send(server, "answer", 6, 0), 6) << "the other direction stays open";
  EXPECT_EQ(Receive(forwarder, client, 6), "answer");
  ASSERT_EQ(shutdown(server, SHUT_WR), 0);
  Receive(forwarder, client, 1, &ended);
  EXPECT_TRUE(ended);
}

TEST_F(ForwardTest, ASlowReaderHoldsUpTheWriterAndLosesNothing) {
  Forwarder forwarder;
  Listen(forwarder);
  const int client = Connect();
  const int server = Accepted(forwarder);
  std::string sent;
  // Until nothing more goes in: buffers are bounded.
  int stuck = 0;
  Run(forwarder, [&] {
    const std::string piece(10'000, static_cast<char>('a' + sent.size() / 10'000 % 26));
    const ssize_t n = send(client, piece.data(), piece.size(), MSG_NOSIGNAL);
    if (n > 0) sent.append(piece, 0, static_cast<std::size_t>(n));
    stuck = n > 0 ? 0 : stuck + 1;
    return stuck > 50 || sent.size() > (64u << 20);
  });
  EXPECT_GT(stuck, 50);
  EXPECT_EQ(Receive(forwarder, server, sent.size()), sent);
}

TEST_F(ForwardTest, BeyondItsLimitConnectionsAreClosedAndRoomComesBack) {
  Forwarder forwarder(2);
  Listen(forwarder);
  const int first = Connect();
  const int first_server = Accepted(forwarder);
  Connect();
  Accepted(forwarder);
  bool ended = false;
  Receive(forwarder, Connect(), 1, &ended);
  EXPECT_TRUE(ended);
  shutdown(first, SHUT_RDWR);
  Receive(forwarder, first_server, 1, &ended);
  shutdown(first_server, SHUT_RDWR);
  // The next one gets through once the first is gone.
  int server = -1;
  ASSERT_TRUE(Run(forwarder, [&] {
    const int client = Connect();
    pollfd waiting{server_, POLLIN, 0};
    for (int i = 0; i < 20 && poll(&waiting, 1, 1) != 1; ++i) forwarder.Process();
    server = accept4(server_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (server < 0) shutdown(client, SHUT_RDWR);
    return server >= 0;
  }));
  Keep(server);
}

TEST_F(ForwardTest, WhereNobodyListensConnectionsAreClosed) {
  Forwarder forwarder;
  Listen(forwarder);
  forwarder.SetTarget(forward_.target, "127.0.0.1", 1);
  bool ended = false;
  Receive(forwarder, Connect(), 1, &ended);
  EXPECT_TRUE(ended);
  forwarder.SetTarget(forward_.target, "127.0.0.1", forward_.target);
  const int client = Connect();
  const int server = Accepted(forwarder);
  ASSERT_EQ(send(server, "x", 1, 0), 1);
  EXPECT_EQ(Receive(forwarder, client, 1), "x");
}

TEST_F(ForwardTest, AnAddressThatCannotBeOpenedIsNamed) {
  Forwarder forwarder;
  std::string error;
  Launch::Forward forward{"192.0.2.1", 8080, 80};
  EXPECT_FALSE(forwarder.Listen(forward, error));
  EXPECT_THAT(error, testing::HasSubstr("port 8080 at 192.0.2.1 cannot be opened"));
  forward.listen_ip = "nonsense";
  EXPECT_FALSE(forwarder.Listen(forward, error));
}

}  // namespace
}  // namespace takt::runtime::shim
