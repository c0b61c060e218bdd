// Any bytes as the answer of a server: the client has a reply or an error, soon, and the pieces
// that the bytes come in do not matter to who reads events.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

#include "base/fs.h"
#include "base/fuzz_for_test.h"
#include "net/http_client.h"

namespace takt::net {
namespace {

constexpr std::size_t kMaxBody = 4096;

// A server for all inputs: gives each connection the same bytes and closes it.
class Server {
 public:
  Server() : path_(dir_.path() + "/s"), fd_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
    Require(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
                listen(fd_, 16) == 0,
            "the server listens");
    std::thread([this] { Serve(); }).detach();
  }
  const std::string& path() const { return path_; }
  void Answer(const std::string& bytes) {
    const std::lock_guard lock(mutex_);
    bytes_ = bytes;
  }

 private:
  void Serve() {
    while (true) {
      const int fd = accept(fd_, nullptr, nullptr);
      if (fd < 0) continue;
      // The client may have had enough, and the next input be there, before all is sent.
      std::unique_lock lock(mutex_);
      const std::string bytes = bytes_;
      lock.unlock();
      for (std::size_t sent = 0; sent < bytes.size();) {
        const ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += static_cast<std::size_t>(n);
      }
      shutdown(fd, SHUT_WR);
      char ignored[4096];
      while (recv(fd, ignored, sizeof ignored, 0) > 0) continue;
      close(fd);
    }
  }

  TempDir dir_;
  const std::string path_;
  const int fd_;
  std::mutex mutex_;
  std::string bytes_;  // under mutex_
};

using Events = std::vector<std::tuple<std::string, std::string, std::string>>;

Events Read(std::string_view stream, std::size_t piece) {
  Events events;
  ServerSentEventParser parser;
  while (!stream.empty()) {
    if (!parser.Feed(stream.substr(0, piece), [&](const ServerSentEvent& event) {
          events.emplace_back(event.event, event.data, event.id);
          return true;
        })) {
      break;
    }
    stream.remove_prefix(std::min(piece, stream.size()));
  }
  return events;
}

void Url(std::string_view text) {
  const auto url = ParseHttpUrl(text);
  if (!url.ok()) return;
  Require(!url->host.empty() && url->target.starts_with('/') &&
              url->target.find_first_of(" \r\n") == std::string::npos,
          "what is asked for fits into a request's first line");
}

}  // namespace
}  // namespace takt::net

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt::net;
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (takt::Choice(data[0], 2) == 0) {
    Url(text.substr(0, text.find('\n')));
    takt::Require(Read(text, text.size()) == Read(text, 1), "pieces do not matter");
    return 0;
  }
  static auto* const server = new Server();
  server->Answer(text);
  HttpClientOptions options;
  options.unix_socket = server->path();
  options.max_body_bytes = kMaxBody;
  options.timeout = std::chrono::seconds(20);
  options.stream_silence = std::chrono::seconds(20);
  const auto reply = HttpClient(options).Call({});
  takt::Require(reply.ok() || !absl::IsDeadlineExceeded(reply.status()),
                "the end of the connection is seen");
  if (reply.ok()) {
    takt::Require(reply->status >= 200 && reply->status <= 999, "a status has three digits");
    takt::Require(reply->body.size() <= kMaxBody, "a body is no larger than the limit");
  }
  std::string streamed;
  const auto stream = HttpClient(options).Stream({}, [&](std::string_view piece) {
    streamed.append(piece);
    return true;
  });
  if (reply.ok() && reply->status == 200) {
    takt::Require(stream.ok() && streamed == reply->body, "a stream has the same body");
  }
  return 0;
}
