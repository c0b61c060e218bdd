// A server of nothing: each request, whatever it is, gets a few bytes after a while. With it,
// clients and judges from elsewhere ask Http2Session itself. Prints its port; ends when its input
// does.
#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "net/event_loop.h"
#include "net/http2_answer_for_test.h"
#include "net/http2_session.h"

namespace {

using namespace takt::net;

constexpr std::string_view kAnswer = "hello, whoever you are\n";
// So long a request is open; a judge of the limit of streams needs more than one at once.
constexpr std::chrono::milliseconds kThinking{30};
constexpr Http2SessionOptions kOptions = {
    .max_concurrent_streams = 10, .max_header_bytes = 32 << 10, .max_idle_frames_per_second = 2000};

struct Request final : TestRequest {
  EventLoop::TimerId timer = 0;
};

class Connection final : public EventLoop::FdHandler, public EventLoop::TurnEnd, Http2Owner {
 public:
  Connection(EventLoop* loop, Http2OutputPool& pool, int fd)
      : loop_(loop), fd_(fd), session_(kOptions, *this, pool, kTestFields) {
    loop_->AtTurnEnd(this, EventLoop::Phase::kWrite);
    if (!loop_->Watch(fd_, EPOLLIN, this).ok()) std::abort();
  }

  void OnEvents(std::uint32_t) override {
    char buffer[64 << 10];
    const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
    if (n < 0) return;
    if (n == 0 || !session_.Receive({buffer, static_cast<std::size_t>(n)}, loop_->now())) {
      return End();
    }
    loop_->AtTurnEnd(this, EventLoop::Phase::kWrite);
  }
  void OnTurnEnd() override {
    Flush();
    if (session_.finished()) End();
  }
  Http2Stream& OnRequest() override {
    Request* request = new Request;
    request->answer = kAnswer;
    requests_.insert(request);
    return *request;
  }
  void OnHeader(Http2Stream&, const HeaderField&) override {}
  bool KeepHead(Http2Stream&, std::size_t) override { return true; }
  void OnSameHead(Http2Stream&, std::size_t) override {}
  void OnHeaders(Http2Stream&) override {}
  void OnData(Http2Stream&, std::string_view) override {}
  void OnEnd(Http2Stream& stream) override {
    auto& request = static_cast<Request&>(stream);
    request.timer = loop_->After(kThinking, [this, &request] {
      SendAnswer(session_, request);
      loop_->AtTurnEnd(this, EventLoop::Phase::kWrite);
    });
  }
  void OnClosed(Http2Stream& stream) override {
    auto* request = &static_cast<Request&>(stream);
    loop_->Cancel(request->timer);
    requests_.erase(request);
    delete request;
  }
  void OnWritable(Http2Stream& stream) override {
    SendAnswer(session_, static_cast<Request&>(stream));
  }

 private:
  // The answers are so short that any socket takes them.
  void Flush() {
    session_.Fill();
    while (!session_.Output().empty()) {
      const ssize_t n = send(fd_, session_.Output().data(), session_.Output().size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      session_.Sent(static_cast<std::size_t>(n));
    }
  }
  void End() {
    Flush();
    loop_->Unwatch(fd_, this);
    loop_->NotAtTurnEnd(this);
    for (Request* request : requests_) {
      loop_->Cancel(request->timer);
      delete request;
    }
    close(fd_);
    loop_->Post([this] { delete this; });
  }

  EventLoop* const loop_;
  const int fd_;
  Http2Session session_;
  std::set<Request*> requests_;
};

class Listener final : public EventLoop::FdHandler {
 public:
  Listener(EventLoop* loop, int fd) : loop_(loop), fd_(fd) {}
  void OnEvents(std::uint32_t) override {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) new Connection(loop_, pool_, fd);  // deletes itself
  }

 private:
  EventLoop* const loop_;
  const int fd_;
  Http2OutputPool pool_;
};

class Input final : public EventLoop::FdHandler {
 public:
  explicit Input(EventLoop* loop) : loop_(loop) {}
  void OnEvents(std::uint32_t) override {
    char byte;
    if (read(STDIN_FILENO, &byte, 1) <= 0) loop_->Stop();
  }

 private:
  EventLoop* const loop_;
};

}  // namespace

int main() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(fd, 64) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    std::perror("listen");
    return 1;
  }
  auto loop = EventLoop::Create();
  if (!loop.ok()) return 1;
  Listener listener(loop->get(), fd);
  Input input(loop->get());
  if (!(*loop)->Watch(fd, EPOLLIN, &listener).ok() ||
      !(*loop)->Watch(STDIN_FILENO, EPOLLIN | EPOLLHUP, &input).ok()) {
    return 1;
  }
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  (*loop)->Run();
  return 0;
}
