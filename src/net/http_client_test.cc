// The client against our server, and against servers that misbehave.
#include "net/http_client.h"

#include <atomic>
#include <thread>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/http_server.h"
#include "net/tcp.h"

namespace takt::net {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Accepts one connection after another, and to the first bytes of each says what it was told to.
class Scripted {
 public:
  explicit Scripted(std::string answer) : answer_(std::move(answer)) {
    const ListeningSocket socket = Listen("127.0.0.1", 0).value();
    fd_ = socket.fd;
    port_ = socket.port;
    thread_ = std::thread([this] {
      while (Wait(fd_)) {
        const int peer = accept(fd_, nullptr, nullptr);
        if (peer < 0) continue;
        char buffer[65536];
        if (Wait(peer) && recv(peer, buffer, sizeof(buffer), 0) > 0) {
          send(peer, answer_.data(), answer_.size(), MSG_NOSIGNAL);
        }
        if (answer_.empty()) Wait(peer);  // until the client gives up
        close(peer);
      }
    });
  }
  ~Scripted() {
    stop_ = true;
    thread_.join();
    close(fd_);
  }
  std::uint16_t port() const { return port_; }

 private:
  bool Wait(int fd) {
    while (!stop_) {
      pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
      if (poll(&wait, 1, 20) == 1) return true;
    }
    return false;
  }
  const std::string answer_;
  int fd_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

HttpClientOptions To(std::uint16_t port) {
  HttpClientOptions options;
  options.port = port;
  return options;
}
HttpCall Get(std::string target) {
  HttpCall call;
  call.target = std::move(target);
  return call;
}

std::unique_ptr<HttpServer> Server(HttpHandler handler, HttpServerOptions options = {}) {
  return HttpServer::Start(std::move(options), std::move(handler)).value();
}

TEST(HttpClient, CallsOverOneKeptConnection) {
  std::vector<std::string> peers;
  const auto server =
      Server([&](const HttpRequest& request, const std::shared_ptr<HttpResponder>& out) {
        peers.push_back(request.peer);
        HttpResponse response;
        response.status = request.method == "POST" ? 201 : 200;
        response.headers.emplace_back("X-Token", std::string(request.Header("authorization")));
        response.body = StrCat(request.method, " ", request.target, " ", request.body);
        out->Send(std::move(response));
      });
  HttpClientOptions options = To(server->port());
  options.headers = {{"Authorization", "Bearer x"}};
  HttpClient client(options);
  const auto got = client.Call(Get("/a?b=c"));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->body, "GET /a?b=c ");
  EXPECT_EQ(got->Header("x-token"), "Bearer x");
  HttpCall post;
  post.method = "POST";
  post.body = std::string(1 << 20, 'x');
  const auto posted = client.Call(post);
  ASSERT_TRUE(posted.ok()) << posted.status();
  EXPECT_EQ(posted->status, 201);
  EXPECT_EQ(posted->body, "POST / " + post.body);
  ASSERT_EQ(peers.size(), 2u);
  EXPECT_EQ(peers[0], peers[1]);
}

TEST(HttpClient, OpensAnewWhatTheServerClosedMeanwhile) {
  HttpServerOptions options;
  options.idle_timeout_ms = 20;
  std::atomic<int> calls = 0;
  const auto server = Server(
      [&](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
        ++calls;
        out->Send(HttpResponse());
      },
      options);
  HttpClient client(To(server->port()));
  for (int i = 1; i <= 30; ++i) {
    HttpCall post;
    post.method = "POST";
    const auto reply = client.Call(post);
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(calls, i);
    if (i % 10 == 0) poll(nullptr, 0, 60);  // beyond the server's patience
  }
}

TEST(HttpClient, StreamsEventsUntilToldToStop) {
  const auto server = Server([](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
    out->StartStream(HttpResponse());
    out->Write("event: a\nid: 7\ndata: one\ndata: two\n\n: comment\n\ndata: three\r\n\r\nda");
    out->Write("ta: four\n\n");
  });
  HttpClient client(To(server->port()));
  ServerSentEventParser parser;
  std::vector<std::string> events;
  const auto reply = client.Stream(Get("/"), [&](std::string_view piece) {
    return parser.Feed(piece, [&](const ServerSentEvent& event) {
      events.push_back(StrCat(event.event, "/", event.id, "/", event.data));
      return events.size() < 3;
    });
  });
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_THAT(events, ElementsAre("a/7/one\ntwo", "message/7/three", "message/7/four"));
}

TEST(HttpClient, AsksWhileItWaitsWhetherToGoOn) {
  std::vector<std::shared_ptr<HttpResponder>> held;
  const auto server = Server([&](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
    out->StartStream(HttpResponse());
    held.push_back(out);
  });
  HttpClient client(To(server->port()));
  int asked = 0;
  const auto reply = client.Stream(
      Get("/"), [](std::string_view) { return true; }, [&] { return ++asked < 3; });
  EXPECT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(asked, 3);
}

TEST(HttpClient, GivesAStreamThatWasRefusedWithItsBody) {
  const auto server = Server([](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
    HttpResponse response;
    response.status = 404;
    response.body = "no such app";
    out->Send(std::move(response));
  });
  HttpClient client(To(server->port()));
  const auto reply = client.Stream(Get("/"), [](std::string_view) {
    ADD_FAILURE();
    return true;
  });
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->status, 404);
  EXPECT_EQ(reply->body, "no such app");
}

TEST(HttpClient, SaysWhatKeptAnAnswerFromComing) {
  struct Case {
    std::string answer;
    absl::StatusCode code;
    std::string message;
  };
  const std::string head = "HTTP/1.1 200 OK\r\n";
  const std::vector<Case> cases = {
      {"", absl::StatusCode::kDeadlineExceeded, "no answer in time"},
      {"SSH-2.0-OpenSSH\r\n\r\n", absl::StatusCode::kDataLoss, "not HTTP/1.1"},
      {"HTTP/1.1 200", absl::StatusCode::kDataLoss, "without an answer"},
      {head + "Content-Length: 10\r\n\r\nabc", absl::StatusCode::kDataLoss, "ended early"},
      {head + "Content-Length: ten\r\n\r\n", absl::StatusCode::kDataLoss, "no number"},
      {head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", absl::StatusCode::kDataLoss, "no size"},
      {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
       absl::StatusCode::kDataLoss, "longer than its size"},
      {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", absl::StatusCode::kDataLoss, "early"},
      {head + "nonsense\r\n\r\n", absl::StatusCode::kDataLoss, "malformed"},
      {head + "A: " + std::string(70'000, 'x'), absl::StatusCode::kResourceExhausted, "headers"},
      {head + "Content-Length: 1001\r\n\r\n", absl::StatusCode::kResourceExhausted, "1000 bytes"},
      {head + "\r\n" + std::string(1001, 'x'), absl::StatusCode::kResourceExhausted, "1000 bytes"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.answer.substr(0, 60));
    const Scripted server(c.answer);
    HttpClientOptions options = To(server.port());
    options.timeout = milliseconds(c.answer.empty() ? 50 : 20000);
    options.max_body_bytes = 1000;
    const auto reply = HttpClient(options).Call(Get("/"));
    ASSERT_FALSE(reply.ok());
    EXPECT_EQ(reply.status().code(), c.code) << reply.status();
    EXPECT_THAT(std::string(reply.status().message()), HasSubstr(c.message));
    EXPECT_THAT(std::string(reply.status().message()), HasSubstr(StrCat(":", server.port())));
  }
}

TEST(HttpClient, ReadsBodiesHoweverTheyEnd) {
  const std::vector<std::string> answers = {
      "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
      "HTTP/1.0 200 OK\r\n\r\nabc",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n2\r\nbc\r\n0\r\nT: "
      "1\r\n\r\n",
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
  };
  for (const std::string& answer : answers) {
    const Scripted server(answer);
    const auto reply =
        HttpGet(StrCat("http://127.0.0.1:", server.port()), milliseconds(20000), 1000);
    ASSERT_TRUE(reply.ok()) << reply.status() << answer;
    EXPECT_EQ(reply->body, "abc");
  }
}

TEST(HttpClient, SaysWhenNobodyListens) {
  std::uint16_t port = 0;
  {
    const ListeningSocket socket = Listen("127.0.0.1", 0).value();
    port = socket.port;
    close(socket.fd);
  }
  const auto reply = HttpClient(To(port)).Call(Get("/"));
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(reply.status().message()), HasSubstr("Connection refused"));
}

TEST(HttpClient, SendsNoRequestThatWouldBeTwo) {
  HttpClient client(To(9));
  EXPECT_EQ(client.Call(Get("/a HTTP/1.1\r\n\r\nGET /b")).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client.Call(Get("b")).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(UrlEncode, KeepsTheUnreservedCharactersAndThoseAskedFor) {
  EXPECT_EQ(UrlEncode("aZ9-._~ /+\xe4"), "aZ9-._~%20%2F%2B%E4");
  EXPECT_EQ(UrlEncode("a/b c", "/"), "a/b%20c");
}

TEST(HttpUrl, HasHostPortAndTarget) {
  const auto url = ParseHttpUrl("http://[::1]:8501/v1/models?x=y#z");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, 8501);
  EXPECT_EQ(url->target, "/v1/models?x=y");
  EXPECT_EQ(ParseHttpUrl("http://a")->port, 80);
  EXPECT_EQ(ParseHttpUrl("http://a?b")->target, "/?b");
  for (const char* bad : {"https://a/", "a", "http://", "http:///x", "http://u@h/", "http://a:b/",
                          "http://a:99999/", "http://a/b c", "http://a/\r\n"}) {
    EXPECT_FALSE(ParseHttpUrl(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace takt::net
