// Peers that break the rules, or keep to them and do harm. Each time: what happens to them, and
// that another client is served as before.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <set>

#include "net/grpc_server.h"
#include "net/grpc_wire.h"
#include "net/http2_frames_for_test.h"

namespace takt::net {
namespace {

using Clock = std::chrono::steady_clock;

using namespace frames;

constexpr std::uint32_t kEnhanceYourCalm = 11;

std::string Message(std::string_view bytes, char flag = 0) {
  return std::string(1, flag) + U32(static_cast<std::uint32_t>(bytes.size())) + std::string(bytes);
}
// The body in frames that every peer must take.
std::string Request(std::uint32_t stream, std::string_view body,
                    const std::string& block = Block()) {
  std::string frames = Frame(kHeaders, kEndHeaders, stream, block);
  while (body.size() > 16384) {
    frames += Frame(kData, 0, stream, body.substr(0, 16384));
    body.remove_prefix(16384);
  }
  return frames + Frame(kData, kEndStream, stream, body);
}

class Peer {
 public:
  explicit Peer(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  ~Peer() { close(fd_); }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  bool connected() const { return connected_; }

  // As much as the server takes; false when it has closed.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  bool Hello() { return Send(std::string(kPreface) + Frame(kSettings, 0, 0, "")); }

  // The next frame; nothing when the server closed, or said nothing for twenty seconds (which the
  // test then sees in `timed_out`).
  std::optional<Seen> Next() {
    while (true) {
      if (auto seen = TakeFrame(in_)) return seen;
      pollfd poller{fd_, POLLIN, 0};
      if (poll(&poller, 1, 20'000) <= 0) {
        timed_out = true;
        return std::nullopt;
      }
      char buffer[65536];
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) return std::nullopt;
      in_.append(buffer, static_cast<std::size_t>(n));
    }
  }
  // What the server says of a stream until it has ended, in words.
  std::string AnswerOf(std::uint32_t stream) {
    std::string answer;
    while (auto seen = Next()) {
      if (seen->stream != stream) continue;
      if (seen->type == kReset) return StrCat("reset ", Code(seen->payload));
      if (seen->type == kHeaders) answer += inflater_.Inflate(seen->payload);
      if ((seen->flags & kEndStream) != 0) return answer;
    }
    return timed_out ? "nothing" : "closed";
  }
  // The code of the GOAWAY before the connection closes; -1 when it closes without, -2 when it does
  // not close.
  int Goodbye() {
    int code = -1;
    while (auto seen = Next()) {
      if (seen->type == kGoaway) code = static_cast<int>(Code(seen->payload.substr(4)));
    }
    return timed_out ? -2 : code;
  }
  bool timed_out = false;

 private:
  const int fd_;
  bool connected_ = false;
  Inflater inflater_;
  std::string in_;
};

class GrpcHostileTest : public testing::Test {
 protected:
  void SetUp() override { Make({}); }
  void Make(GrpcServerOptions options) {
    server_.reset();
    if (loops_ == nullptr) loops_ = EventLoopPool::Start(1).value();
    options.host = "127.0.0.1";
    server_ = GrpcServer::Create(std::move(options), loops_->loops());
    server_->Handle("/t.T/Echo", [](GrpcCallPtr call) {
      call->response().append(call->body());
      call.Finish(absl::OkStatus());
    });
    server_->Handle("/t.T/Large", [](GrpcCallPtr call) {
      call->response().append(std::size_t{32} << 20, 'x');
      call.Finish(absl::OkStatus());
    });
    ASSERT_TRUE(server_->Start().ok());
  }
  void TearDown() override { ExpectOthersAreServed(); }
  void ExpectOthersAreServed() {
    Peer peer(server_->port());
    ASSERT_TRUE(peer.Hello());
    peer.Send(Request(1, Message("still there")));
    std::string body;
    while (auto seen = peer.Next()) {
      if (seen->type == kData && seen->stream == 1) body += seen->payload;
      if (seen->stream == 1 && (seen->flags & kEndStream) != 0) break;
    }
    EXPECT_EQ(body, Message("still there"));
  }
  // The status in the trailers-only answer to one request.
  std::string Ask(const std::string& body, const std::string& block = Block()) {
    Peer peer(server_->port());
    peer.Hello();
    // The server's windows hold once its settings are acknowledged.
    peer.Next();
    peer.Send(Frame(kSettings, 1, 0, "") + Request(1, body, block));
    return peer.AnswerOf(1);
  }

  std::unique_ptr<EventLoopPool> loops_;
  std::unique_ptr<GrpcServer> server_;
};

using testing::Test;

TEST_F(GrpcHostileTest, WhatIsNoHttp2IsClosed) {
  for (std::string_view bytes :
       {std::string_view("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        std::string_view("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11),
        std::string_view("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")}) {
    Peer peer(server_->port());
    peer.Send(std::string(bytes) + std::string(64, 'x'));
    EXPECT_NE(peer.Goodbye(), -2);
  }
}

TEST_F(GrpcHostileTest, TruncatedFramesHarmNobody) {
  const std::string whole = std::string(kPreface) + Frame(kSettings, 0, 0, "") +
                            Request(1, Message(std::string(300, 'm')));
  for (std::size_t cut = 0; cut < whole.size(); cut += 7) {
    Peer peer(server_->port());
    peer.Send(whole.substr(0, cut));
  }
}

TEST_F(GrpcHostileTest, MessagesThatLieAboutTheirLength) {
  struct Case {
    std::string body;
    std::string said;
  };
  for (const Case& c : std::initializer_list<Case>{
           {std::string("\0\xff\xff\xff\xff", 5) + "x", "larger than max"},
           {std::string("\0\x7f\xff\xff\xff", 5) + "x", "ends within its message"},
           {std::string("\0\0\0\0\x09", 5) + "x", "ends within its message"},
           {std::string("\0\0\0", 3), "ends within its message"},
           {Message("one") + Message("two"), "more than one request message"},
           {Message("one") + "x", "more than one request message"},
           {Message("x", 7), "message flags 7"},
           {Message("x", 1), "a compressed message without grpc-encoding"},
           {"", "the request has no message"}}) {
    const std::string answer = Ask(c.body);
    EXPECT_NE(answer.find(c.said), std::string::npos) << c.said << " in " << answer;
  }
}

// The address space of this process.
std::size_t VirtualBytes() {
  std::size_t pages = 0;
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr || std::fscanf(file, "%zu", &pages) != 1) pages = 0;
  if (file != nullptr) std::fclose(file);
  return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

TEST_F(GrpcHostileTest, MemoryIsNotTakenForMessagesThatAreOnlyAnnounced) {
  const std::string announced = std::string("\0\x40\0\0\0", 5) + std::string(300, 'm');  // 1 GiB
  Peer peer(server_->port());
  ASSERT_TRUE(peer.Hello());
  ASSERT_TRUE(peer.Next().has_value());
  ASSERT_TRUE(peer.Send(Frame(kSettings, 1, 0, "")));
  const std::size_t before = VirtualBytes();
  for (std::uint32_t i = 0; i < 1000; ++i) {
    ASSERT_TRUE(peer.Send(Frame(kHeaders, kEndHeaders, 2 * i + 1, Block()) +
                          Frame(kData, 0, 2 * i + 1, announced)));
  }
  ExpectOthersAreServed();
  EXPECT_LT(VirtualBytes() - before, std::size_t{4} << 30);
}

TEST_F(GrpcHostileTest, AMessageBeyondTheReserveGrowsAsItComes) {
  Peer greedy(server_->port());
  ASSERT_TRUE(greedy.Hello());
  greedy.Send(Frame(kHeaders, kEndHeaders, 1, Block()) +
              Frame(kData, 0, 1, std::string("\0\x1f\xff\xff\xff", 5) + "m"));  // 512 MiB
  std::string body(3 << 20, 'b');
  for (std::size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i / 1000);
  Peer peer(server_->port());
  ASSERT_TRUE(peer.Hello());
  // The server's window holds once its settings were read and acknowledged.
  ASSERT_TRUE(peer.Next().has_value());
  ASSERT_TRUE(peer.Send(Frame(kSettings, 1, 0, "") + Frame(kWindow, 0, 0, U32(64 << 20)) +
                        Frame(kHeaders, kEndHeaders, 1, Block()) +
                        Frame(kWindow, 0, 1, U32(64 << 20))));
  const std::string message = Message(body);
  for (std::size_t at = 0; at < message.size(); at += 16384) {
    const bool last = at + 16384 >= message.size();
    ASSERT_TRUE(peer.Send(Frame(kData, last ? kEndStream : 0, 1, message.substr(at, 16384))));
  }
  std::string answer;
  while (auto seen = peer.Next()) {
    if (seen->type == kData && seen->stream == 1) answer += seen->payload;
    if (seen->stream == 1 && (seen->flags & kEndStream) != 0) break;
  }
  EXPECT_TRUE(answer == message) << answer.size();
}

TEST_F(GrpcHostileTest, CompressionThatIsNone) {
  const std::string gzip = Block() + Header("grpc-encoding", "gzip");
  EXPECT_NE(Ask(Message("no gzip at all", 1), gzip).find("does not inflate as gzip"),
            std::string::npos);
  EXPECT_NE(Ask(Message("x", 1), Block() + Header("grpc-encoding", "snappy")).find("snappy"),
            std::string::npos);
  const std::string bomb =
      GrpcDeflate(GrpcCompression::kGzip, std::string(200 << 20, '\0')).value();
  EXPECT_GT((std::size_t{200} << 20) / bomb.size(), kMaxGrpcInflationRatio);
  EXPECT_NE(Ask(Message(bomb, 1), gzip).find("inflates beyond"), std::string::npos);
}

TEST_F(GrpcHostileTest, WhatIsNoGrpcHasAnHttpStatus) {
  EXPECT_EQ(Ask(Message(""), Block("/t.T/Echo", "GET")), ":status: 405\n");
  EXPECT_EQ(Ask(Message(""), Block("/t.T/Echo", "POST", "application/json")), ":status: 415\n");
}

TEST_F(GrpcHostileTest, AMethodThatIsNoTextIsUnknown) {
  const std::string answer = Ask(Message(""), Block("/t.T/\xff\xfe"));
  EXPECT_TRUE(answer.find("grpc-status: 12") != std::string::npos || answer.starts_with("reset"))
      << answer;
}

TEST_F(GrpcHostileTest, HeadersBeyondTheirLimitResetTheStream) {
  Peer peer(server_->port());
  ASSERT_TRUE(peer.Hello());
  const std::string large(8000, 'h');
  std::string block = Block();
  for (std::size_t i = 0; i <= kMaxGrpcHeaderBytes / large.size(); ++i) {
    block += Header(StrCat("x-", i), large);
  }
  // In pieces that fit into frames.
  std::string_view rest = block;
  std::string sent = Frame(kHeaders, kEndStream, 1, rest.substr(0, 16000));
  rest.remove_prefix(16000);
  while (rest.size() > 16000) {
    sent += Frame(kContinue, 0, 1, rest.substr(0, 16000));
    rest.remove_prefix(16000);
  }
  sent += Frame(kContinue, kEndHeaders, 1, rest);
  peer.Send(sent);
  const std::string answer = peer.AnswerOf(1);
  EXPECT_TRUE(answer.starts_with("reset") || answer == "closed") << answer;
}

TEST_F(GrpcHostileTest, StreamsBeyondTheirLimitAreRefused) {
  GrpcServerOptions options;
  options.max_concurrent_streams = 3;
  Make(std::move(options));
  Peer peer(server_->port());
  ASSERT_TRUE(peer.Hello());
  // Until it has heard of the limit a client may think that there is none: read the settings first.
  ASSERT_TRUE(peer.Next().has_value());
  ASSERT_TRUE(peer.Send(Frame(kSettings, 1, 0, "")));
  for (std::uint32_t stream : {1, 3, 5, 7}) {
    ASSERT_TRUE(peer.Send(Frame(kHeaders, kEndHeaders, stream, Block())));
  }
  const std::string answer = peer.AnswerOf(7);
  EXPECT_TRUE(answer == "reset 7" || answer == "closed") << answer;  // REFUSED_STREAM
}

TEST_F(GrpcHostileTest, FloodsEndTheirConnection) {
  struct Case {
    const char* name;
    std::function<std::string(std::uint32_t i)> frame;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"rapid reset",
            [](std::uint32_t i) {
              return Frame(kHeaders, kEndHeaders, 2 * i + 1, Block()) +
                     Frame(kReset, 0, 2 * i + 1, U32(8));
            }},
           {"resets that the server must send",
            [](std::uint32_t i) {
              return Frame(kHeaders, kEndHeaders, 2 * i + 1, Block()) +
                     Frame(kWindow, 0, 2 * i + 1, U32(0x7fffffff));
            }},
           {"ping", [](std::uint32_t) { return Frame(kPing, 0, 0, "12345678"); }},
           {"settings", [](std::uint32_t) { return Frame(kSettings, 0, 0, ""); }},
           {"empty data",
            [](std::uint32_t i) {
              return (i == 0 ? Frame(kHeaders, kEndHeaders, 1, Block()) : std::string()) +
                     Frame(kData, 0, 1, "");
            }},
           {"priority",
            [](std::uint32_t i) {
              return Frame(kPriority, 0, 2 * i + 1, std::string("\0\0\0\0\x10", 5));
            }},
           {"continuation",
            [](std::uint32_t i) {
              return i == 0 ? Frame(kHeaders, 0, 1, Block()) : Frame(kContinue, 0, 1, "");
            }},
       }) {
    Peer peer(server_->port());
    ASSERT_TRUE(peer.Hello());
    bool open = true;
    for (std::uint32_t i = 0; open && i < 4U * kMaxGrpcIdleFramesPerSecond; i += 100) {
      std::string frames;
      for (std::uint32_t j = 0; j < 100; ++j) frames += c.frame(i + j);
      open = peer.Send(frames);
    }
    EXPECT_NE(peer.Goodbye(), -2) << c.name << " goes on for ever";
    ExpectOthersAreServed();
  }
}

TEST_F(GrpcHostileTest, AFloodIsToldToCalmDown) {
  Peer peer(server_->port());
  ASSERT_TRUE(peer.Hello());
  std::string frames;
  for (int i = 0; i <= kMaxGrpcIdleFramesPerSecond; ++i) {
    frames +=
        Frame(kHeaders, kEndHeaders, 2 * i + 1, Block()) + Frame(kReset, 0, 2 * i + 1, U32(8));
  }
  peer.Send(frames);
  const int code = peer.Goodbye();
  // When the peer is still sending as the server closes, the system takes the message away.
  EXPECT_TRUE(code == kEnhanceYourCalm || code == -1) << code;
}

TEST_F(GrpcHostileTest, ThousandsOfIdleConnectionsAreHeldUpToTheLimit) {
  GrpcServerOptions options;
  options.max_connections = 500;
  Make(std::move(options));
  std::vector<std::unique_ptr<Peer>> peers;
  for (int i = 0; i < 499; ++i) {
    peers.push_back(std::make_unique<Peer>(server_->port()));
    ASSERT_TRUE(peers.back()->connected());
  }
  ExpectOthersAreServed();
  peers.push_back(std::make_unique<Peer>(server_->port()));
  peers.back()->Hello();
  Peer beyond(server_->port());
  beyond.Hello();
  while (beyond.Next().has_value()) continue;
  EXPECT_FALSE(beyond.timed_out);  // closed
  peers.clear();
  const auto end = Clock::now() + std::chrono::seconds(20);
  while (server_->stats().connections > 0 && Clock::now() < end) std::this_thread::yield();
  EXPECT_EQ(server_->stats().connections, 0U);
}

TEST_F(GrpcHostileTest, SlowPeersAreLetGo) {
  GrpcServerOptions options;
  options.slow_peer_timeout = std::chrono::milliseconds(300);
  options.handshake_timeout = std::chrono::milliseconds(300);
  options.idle_timeout = std::chrono::milliseconds(300);
  Make(std::move(options));
  {
    Peer silent(server_->port());
    EXPECT_NE(silent.Goodbye(), -2) << "says nothing";
  }
  {
    Peer half(server_->port());
    half.Hello();
    half.Send(Frame(kHeaders, kEndHeaders, 1, Block()) +
              Frame(kData, 0, 1, std::string("\0\0\x10\0\0", 5) + "a"));
    EXPECT_NE(half.Goodbye(), -2) << "half a request";
  }
  {
    Peer idle(server_->port());
    idle.Hello();
    idle.Send(Request(1, Message("x")));
    bool away = false;
    while (auto seen = idle.Next()) {
      away |= seen->type == kGoaway;
      if (seen->type == kPing) idle.Send(Frame(kPing, 1, 0, seen->payload));
    }
    EXPECT_TRUE(away && !idle.timed_out) << "idle";
  }
  {
    Peer deaf(server_->port());
    deaf.Hello();
    deaf.Send(Frame(kWindow, 0, 0, U32(0x7fff0000)) +
              Request(1, Message("x"), Block("/t.T/Large")) +
              Frame(kWindow, 0, 1, U32(0x7fff0000)));
    const auto end = Clock::now() + std::chrono::seconds(20);
    while (server_->stats().connections > 0 && Clock::now() < end) std::this_thread::yield();
    EXPECT_EQ(server_->stats().connections, 0U) << "reads nothing";
  }
}

}  // namespace
}  // namespace takt::net
