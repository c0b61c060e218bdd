// Any bytes behind a client's preface: the server answers or closes, and serves the next one.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "base/fs.h"
#include "base/fuzz_for_test.h"
#include "net/grpc_server.h"

namespace {

using namespace takt::net;
using takt::Require;

class Many final : public GrpcStream {
 public:
  void OnStart(GrpcCallPtr call) override { call_ = std::move(call); }
  void OnMessage(std::string_view message) override { call_->Write(message); }
  void OnHalfClose() override { call_.Finish(absl::OkStatus()); }
  void OnCancel() override {
    if (call_) call_.Finish(absl::CancelledError(""));
  }

 private:
  GrpcCallPtr call_;
};

// One server for all inputs.
struct Fixture {
  Fixture() {
    loops = EventLoopPool::Start(1).value();
    GrpcServerOptions options;
    options.port = -1;
    options.max_message_bytes = 64 << 20;  // the fuzzer takes a larger block for a leak
    options.unix_socket_path = dir.path() + "/s";
    server = GrpcServer::Create(options, loops->loops());
    server->Handle("/t.T/Echo", [](GrpcCallPtr call) {
      call->response().append(call->body());
      call.Finish(absl::OkStatus());
    });
    server->HandleStream("/t.T/Many", [] { return std::make_unique<Many>(); });
    Require(server->Start().ok(), "the server listens");
  }
  takt::TempDir dir;
  std::unique_ptr<EventLoopPool> loops;
  std::unique_ptr<GrpcServer> server;
};

int Connect(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const timeval patience{20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  Require(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0,
          "the server accepts");
  return fd;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Fixture fixture;
  const int fd = Connect(fixture.dir.path() + "/s");
  constexpr std::string_view kHello("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 24 + 9);
  send(fd, kHello.data(), kHello.size(), MSG_NOSIGNAL);
  send(fd, data, size, MSG_NOSIGNAL);
  shutdown(fd, SHUT_WR);
  char buffer[4096];
  ssize_t n;
  while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0) continue;
  // The end of the connection, or its reset: not twenty seconds of silence.
  Require(n == 0 || errno != EAGAIN, "the server closes when its client has");
  close(fd);
  return 0;
}
