// The server as a peer sees it, over real sockets: answers, order, limits.
#include "net/http_server.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/tcp.h"

namespace takt::net {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A peer that writes bytes and reads what comes back.
class Peer {
 public:
  explicit Peer(std::uint16_t port) {
    fd_ = Connect("127.0.0.1", port, steady_clock::now() + seconds(10)).value();
  }
  ~Peer() { close(fd_); }
  int fd() const { return fd_; }

  // False when the other side no longer takes it.
  bool Write(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n > 0) {
        text.remove_prefix(static_cast<std::size_t>(n));
      } else if (errno == EAGAIN) {
        if (!Poll(POLLOUT)) return false;
      } else {
        return false;
      }
    }
    return true;
  }
  void EndWriting() { shutdown(fd_, SHUT_WR); }
  // Everything until the server closes, or until `stop` is in it.
  std::string Read(std::string_view stop = {}) {
    std::string text;
    char buffer[4096];
    while (stop.empty() || text.find(stop) == std::string::npos) {
      const ssize_t n = recv(fd_, buffer, sizeof(buffer), 0);
      if (n > 0) {
        text.append(buffer, static_cast<std::size_t>(n));
      } else if (n == 0 || errno != EAGAIN || !Poll(POLLIN)) {
        closed_ = n == 0 || errno == ECONNRESET;
        break;
      }
    }
    return text;
  }
  bool closed() const { return closed_; }

 private:
  bool Poll(short events) {
    pollfd wait{.fd = fd_, .events = events, .revents = 0};
    return poll(&wait, 1, 20000) == 1;
  }
  int fd_ = -1;
  bool closed_ = false;
};

HttpResponse Text(std::string body) {
  HttpResponse response;
  response.content_type = "text/plain";
  response.body = std::move(body);
  return response;
}

std::unique_ptr<HttpServer> Serve(HttpHandler handler, HttpServerOptions options = {}) {
  return HttpServer::Start(std::move(options), std::move(handler)).value();
}
void Echo(const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder) {
  responder->Send(Text(StrCat(request.method, " ", request.path, " ", request.body)));
}
const char kGet[] = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

TEST(HttpServer, AnswersOneAfterAnotherOnOneConnection) {
  const auto server = Serve(Echo);
  Peer peer(server->port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(
        peer.Write(StrCat("POST /", i, " HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")));
    const std::string answer = peer.Read("hi");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(answer, HasSubstr("\r\nContent-Length: 10\r\n"));
    EXPECT_THAT(answer, EndsWith(StrCat("\r\n\r\nPOST /", i, " hi")));
  }
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  const auto server = Serve(Echo);
  Peer peer(server->port());
  std::string text;
  for (int i = 0; i < 500; ++i) text += StrCat("GET /", i, " HTTP/1.1\r\nHost: a\r\n\r\n");
  text += "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  ASSERT_TRUE(peer.Write(text));
  const std::string answers = peer.Read();
  std::size_t at = 0;
  for (int i = 0; i < 500; ++i) {
    at = answers.find(StrCat("GET /", i, " "), at);
    ASSERT_NE(at, std::string::npos) << i;
  }
  EXPECT_THAT(answers, EndsWith("GET /last "));
}

TEST(HttpServer, KeepsOrderWhenAnswersComeFromOtherThreads) {
  std::mutex mutex;
  std::vector<std::thread> threads;
  {
    const auto server =
        Serve([&](const HttpRequest& request, const std::shared_ptr<HttpResponder>& responder) {
          const std::lock_guard lock(mutex);
          threads.emplace_back([path = request.path, responder] { responder->Send(Text(path)); });
        });
    Peer peer(server->port());
    ASSERT_TRUE(
        peer.Write("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: "
                   "close\r\n\r\n"));
    const std::string answers = peer.Read();
    EXPECT_LT(answers.find("\r\n\r\n/1"), answers.find("\r\n\r\n/2"));
    EXPECT_THAT(answers, EndsWith("/2"));
  }
  for (std::thread& each : threads) each.join();
}

TEST(HttpServer, PutsAnswersOfAHugePipelineOnHoldWhileThePeerDoesNotRead) {
  std::atomic<int> handled = 0;
  const std::string large(64 << 10, 'x');
  const auto server = Serve([&](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
    ++handled;
    out->Send(Text(large));
  });
  Peer peer(server->port());
  constexpr int kRequests = 1000;  // 64 MB of answers
  std::string text;
  for (int i = 0; i < kRequests; ++i) text += kGet;
  ASSERT_TRUE(peer.Write(text));
  std::size_t received = 0;
  received += peer.Read("xxxx").size();
  EXPECT_LT(handled, kRequests) << "all were answered into memory";
  peer.EndWriting();
  received += peer.Read().size();
  EXPECT_EQ(handled, kRequests);
  EXPECT_GT(received, large.size() * kRequests);
}

TEST(HttpServer, AnswersAPeerThatEndedItsSending) {
  const auto server = Serve(Echo);
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(kGet));
  peer.EndWriting();
  EXPECT_THAT(peer.Read(), EndsWith("GET /a "));
  EXPECT_TRUE(peer.closed());
}

TEST(HttpServer, GivesHeadTheHeadersOfGet) {
  const auto server = Serve([](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
    out->Send(Text("abc"));
  });
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
  const std::string answer = peer.Read();
  EXPECT_THAT(answer, HasSubstr("Content-Length: 3\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\n"));
}

TEST(HttpServer, SaysContinueToWhoAsks) {
  const auto server = Serve(Echo);
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(
      "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
  EXPECT_EQ(peer.Read("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  ASSERT_TRUE(peer.Write("hi"));
  EXPECT_THAT(peer.Read("hi"), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST(HttpServer, RefusesALargeBodyBeforeItIsSent) {
  HttpServerOptions options;
  options.max_body_bytes = 1000;
  const auto server = Serve(Echo, options);
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(
      "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"));
  EXPECT_THAT(peer.Read(), StartsWith("HTTP/1.1 413 Content Too Large\r\n"));
}

TEST(HttpServer, LetsAPeerThatSendsTooMuchReadWhy) {
  HttpServerOptions options;
  options.max_body_bytes = 1000;
  const auto server = Serve(Echo, options);
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"));
  peer.Write(std::string(1'000'000, 'x'));
  EXPECT_THAT(peer.Read(), StartsWith("HTTP/1.1 413 Content Too Large\r\n"));
  EXPECT_TRUE(peer.closed());
}

TEST(HttpServer, RefusesHeadersBeyondTheLimit) {
  HttpServerOptions options;
  options.max_header_bytes = 1000;
  const auto server = Serve(Echo, options);
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write("GET / HTTP/1.1\r\nHost: a\r\nA: " + std::string(2000, 'x')));
  EXPECT_THAT(peer.Read(), StartsWith("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
  EXPECT_TRUE(peer.closed());
}

TEST(HttpServer, EndsTheConnectionAfterWhatIsNoRequest) {
  const auto server = Serve(Echo);
  for (const char* text :
       {"hello\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
        "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"}) {
    Peer peer(server->port());
    ASSERT_TRUE(peer.Write(text));
    const std::string answer = peer.Read();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 Bad Request\r\n"));
    EXPECT_THAT(answer, Not(HasSubstr("smuggled")));
    EXPECT_TRUE(peer.closed());
  }
}

TEST(HttpServer, TimesOutARequestThatDoesNotComeWhole) {
  HttpServerOptions options;
  options.read_timeout_ms = 50;
  const auto server = Serve(Echo, options);
  Peer slow_head(server->port()), slow_body(server->port());
  ASSERT_TRUE(slow_head.Write("GET / HT"));
  ASSERT_TRUE(slow_body.Write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"));
  EXPECT_THAT(slow_head.Read(), StartsWith("HTTP/1.1 408 Request Timeout\r\n"));
  EXPECT_THAT(slow_body.Read(), StartsWith("HTTP/1.1 408 Request Timeout\r\n"));
}

TEST(HttpServer, ClosesIdleConnections) {
  HttpServerOptions options;
  options.idle_timeout_ms = 50;
  const auto server = Serve(Echo, options);
  Peer silent(server->port()), answered(server->port());
  ASSERT_TRUE(answered.Write(kGet));
  EXPECT_THAT(answered.Read(), EndsWith("GET /a "));
  EXPECT_TRUE(answered.closed());
  EXPECT_EQ(silent.Read(), "");
  EXPECT_TRUE(silent.closed());
}

TEST(HttpServer, DropsAPeerThatDoesNotTakeItsAnswer) {
  HttpServerOptions options;
  options.write_timeout_ms = 50;
  const std::string large(16 << 20, 'x');
  const auto server =
      Serve([&](const HttpRequest&,
                const std::shared_ptr<HttpResponder>& out) { out->Send(Text(large)); },
            options);
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(kGet));
  pollfd gone{.fd = peer.fd(), .events = 0, .revents = 0};
  ASSERT_EQ(poll(&gone, 1, 20000), 1);
  EXPECT_LT(peer.Read().size(), large.size());
}

TEST(HttpServer, ClosesConnectionsBeyondTheLimitAtOnce) {
  HttpServerOptions options;
  options.max_connections = 2;
  const auto server = Serve(Echo, options);
  Peer first(server->port()), second(server->port());
  for (Peer* each : {&first, &second}) {
    ASSERT_TRUE(each->Write(kGet));
    ASSERT_THAT(each->Read("/a "), HasSubstr("200 OK"));
  }
  Peer third(server->port());
  EXPECT_EQ(third.Read(), "");
  EXPECT_TRUE(third.closed());
  ASSERT_TRUE(first.Write(kGet));
  EXPECT_THAT(first.Read("/a "), HasSubstr("200 OK"));
}

TEST(HttpServer, SeesPeersOffWhileItIsOutOfDescriptors) {
  const auto server = Serve(Echo);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(server->port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::vector<int> peers;
  for (int i = 0; i < 20; ++i) peers.push_back(socket(AF_INET, SOCK_STREAM, 0));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = static_cast<rlim_t>(peers.back()) + 1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  for (const int peer : peers) {
    EXPECT_EQ(connect(peer, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    char byte = 0;
    EXPECT_LE(recv(peer, &byte, 1, 0), 0) << "closed, not left waiting";
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  for (const int peer : peers) close(peer);
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(kGet));
  EXPECT_THAT(peer.Read("/a "), HasSubstr("200 OK"));
}

TEST(HttpServer, AnswersFiveHundredForAHandlerThatForgets) {
  const auto server = Serve([](const HttpRequest&, const std::shared_ptr<HttpResponder>&) {});
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(kGet));
  EXPECT_THAT(peer.Read("answered\n"), StartsWith("HTTP/1.1 500 Internal Server Error\r\n"));
}

TEST(HttpServer, LetsNoHeaderEndItsLine) {
  const auto server = Serve([](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
    HttpResponse response = Text("");
    response.headers.emplace_back("X-A", "b\r\nSet-Cookie: c");
    out->Send(std::move(response));
  });
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(kGet));
  EXPECT_THAT(peer.Read("\r\n\r\n"), HasSubstr("X-A: b  Set-Cookie: c\r\n"));
}

TEST(HttpServer, StreamsInChunksAndGoesOnWithTheConnection) {
  const auto server =
      Serve([](const HttpRequest& request, const std::shared_ptr<HttpResponder>& out) {
        if (request.path != "/stream") return out->Send(Text("after"));
        out->StartStream(Text(""));
        EXPECT_TRUE(out->Write("one "));
        EXPECT_TRUE(out->Write("two"));
        out->Finish();
      });
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"));
  const std::string answer = peer.Read("0\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\n7\r\none two\r\n0\r\n\r\n"));
  ASSERT_TRUE(peer.Write(kGet));
  EXPECT_THAT(peer.Read("after"), EndsWith("after"));
}

TEST(HttpServer, StreamsToHttp10UntilTheEnd) {
  const auto server = Serve([](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
    out->StartStream(Text(""));
    out->Write("data");
    out->Finish();
  });
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
  const std::string answer = peer.Read();
  EXPECT_THAT(answer, EndsWith("\r\n\r\ndata"));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
}

// A stream's responder, handed to the test.
struct Streams {
  std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<HttpResponder> responder;
  HttpHandler Handler() {
    return [this](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
      out->StartStream(Text(""));
      const std::lock_guard lock(mutex);
      responder = out;
      changed.notify_all();
    };
  }
  std::shared_ptr<HttpResponder> Wait() {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, seconds(20), [&] { return responder != nullptr; });
    return responder;
  }
};

TEST(HttpServer, DropsAStreamWhosePeerDoesNotRead) {
  HttpServerOptions options;
  options.max_stream_backlog_bytes = 100'000;
  Streams streams;
  const auto server = Serve(streams.Handler(), options);
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(kGet));
  const auto responder = streams.Wait();
  const std::string piece(10'000, 'x');
  const auto end = steady_clock::now() + seconds(20);
  while (responder->Write(piece) && steady_clock::now() < end) std::this_thread::yield();
  EXPECT_FALSE(responder->Write(piece));
  EXPECT_TRUE(responder->closed());
  peer.Read();
  EXPECT_TRUE(peer.closed());
}

TEST(HttpServer, TellsAStreamThatItsPeerIsGone) {
  Streams streams;
  const auto server = Serve(streams.Handler());
  auto peer = std::make_unique<Peer>(server->port());
  ASSERT_TRUE(peer->Write(kGet));
  const auto responder = streams.Wait();
  peer.reset();
  const auto end = steady_clock::now() + seconds(20);
  while (!responder->closed() && steady_clock::now() < end) std::this_thread::yield();
  EXPECT_TRUE(responder->closed());
  EXPECT_FALSE(responder->Write("x"));
}

TEST(HttpServer, ServesManyConnectionsOnManyThreads) {
  HttpServerOptions options;
  options.threads = 3;
  const auto server = Serve(Echo, options);
  std::vector<std::unique_ptr<Peer>> peers;
  peers.reserve(100);
  for (int i = 0; i < 100; ++i) peers.push_back(std::make_unique<Peer>(server->port()));
  for (auto& each : peers) ASSERT_TRUE(each->Write(kGet));
  for (auto& each : peers) EXPECT_THAT(each->Read("/a "), HasSubstr("200 OK"));
}

TEST(HttpServer, LetsAnswersInFlightEndWhenItStops) {
  std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<HttpResponder> held;
  const auto server = Serve([&](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
    const std::lock_guard lock(mutex);
    held = out;
    changed.notify_all();
  });
  Peer peer(server->port()), idle(server->port());
  ASSERT_TRUE(peer.Write(kGet));
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, seconds(20), [&] { return held != nullptr; }));
  }
  std::thread stop([&] { server->Stop(20000); });
  EXPECT_EQ(idle.Read(), "");
  held->Send(Text("in time"));
  const std::string answer = peer.Read();
  EXPECT_THAT(answer, EndsWith("in time"));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  stop.join();
  EXPECT_FALSE(Connect("127.0.0.1", server->port(), steady_clock::now() + seconds(5)).ok());
}

TEST(HttpServer, AnAnswerAfterTheServerIsGoneHarmsNothing) {
  Streams streams;
  auto server = Serve(streams.Handler());
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(kGet));
  const auto responder = streams.Wait();
  server.reset();
  EXPECT_FALSE(responder->Write("x"));
  responder->Finish();
}

TEST(HttpServer, SaysWhichAddressIsInUse) {
  const auto server = Serve(Echo);
  HttpServerOptions options;
  options.port = server->port();
  const auto second = HttpServer::Start(options, Echo);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.status().message(), StrCat("127.0.0.1:", server->port(), " is in use"));
  options.host = "no.such.host.invalid";
  EXPECT_EQ(HttpServer::Start(options, Echo).status().code(), absl::StatusCode::kInvalidArgument);
}

// ---- TLS ----

// A key and a certificate of it for 127.0.0.1, signed by `issuer` (by itself where that is null).
struct Identity {
  EVP_PKEY* key = nullptr;
  X509* certificate = nullptr;
  std::string key_pem, certificate_pem;

  explicit Identity(const Identity* issuer) {
    key = EVP_EC_gen("P-256");
    certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), issuer == nullptr ? 1 : 2);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    const std::string name = issuer == nullptr ? "authority" : "leaf";
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(
        certificate, X509_get_subject_name(issuer == nullptr ? certificate : issuer->certificate));
    if (issuer == nullptr) {
      X509_EXTENSION* ca = X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "CA:TRUE");
      X509_add_ext(certificate, ca, -1);
      X509_EXTENSION_free(ca);
    }
    X509_sign(certificate, issuer == nullptr ? key : issuer->key, EVP_sha256());
    BIO* out = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr);
    key_pem = Take(out);
    PEM_write_bio_X509(out, certificate);
    certificate_pem = Take(out);
    BIO_free(out);
  }
  ~Identity() {
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  static std::string Take(BIO* from) {
    char* data = nullptr;
    const long size = BIO_get_mem_data(from, &data);
    std::string text(data, static_cast<std::size_t>(size));
    BIO_reset(from);
    return text;
  }
};

// Sends kGet over TLS; what came back, or "" where the handshake failed.
std::string GetOverTls(std::uint16_t port, const Identity& authority, const Identity* client) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority.certificate);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  if (client != nullptr) {
    SSL_CTX_use_certificate(context, client->certificate);
    SSL_CTX_use_PrivateKey(context, client->key);
  }
  const int fd = Connect("127.0.0.1", port, steady_clock::now() + seconds(10)).value();
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  SSL* ssl = SSL_new(context);
  SSL_set_fd(ssl, fd);
  std::string text;
  const std::string request = "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  if (SSL_connect(ssl) == 1 &&
      SSL_write(ssl, request.data(), static_cast<int>(request.size())) > 0) {
    char buffer[16384];
    int n = 0;
    while ((n = SSL_read(ssl, buffer, sizeof(buffer))) > 0) {
      text.append(buffer, static_cast<std::size_t>(n));
    }
  }
  SSL_free(ssl);
  SSL_CTX_free(context);
  close(fd);
  return text;
}

TlsOptions Material(std::string key, std::string cert, std::string ca = "", bool verify = false) {
  TlsOptions options;
  options.key_pem = std::move(key);
  options.cert_pem = std::move(cert);
  options.ca_pem = std::move(ca);
  options.verify_client = verify;
  return options;
}

TEST(HttpServerTls, ServesAndVerifiesClientsWhereAsked) {
  const Identity authority(nullptr), server_identity(&authority), client(&authority);
  const Identity other_authority(nullptr), stranger(&other_authority);
  const std::string large(300'000, 'x');
  const auto handler = [&](const HttpRequest&, const std::shared_ptr<HttpResponder>& out) {
    out->Send(Text(large));
  };
  HttpServerOptions options;
  options.tls = Material(server_identity.key_pem, server_identity.certificate_pem);
  const auto open = Serve(handler, options);
  EXPECT_THAT(GetOverTls(open->port(), authority, nullptr), EndsWith(large));
  EXPECT_EQ(GetOverTls(open->port(), other_authority, nullptr), "");

  options.tls->ca_pem = authority.certificate_pem;
  options.tls->verify_client = true;
  const auto strict = Serve(handler, options);
  EXPECT_THAT(GetOverTls(strict->port(), authority, &client), EndsWith(large));
  EXPECT_EQ(GetOverTls(strict->port(), authority, nullptr), "");
  EXPECT_EQ(GetOverTls(strict->port(), authority, &stranger), "");
}

TEST(HttpServerTls, ClosesAPeerThatSpeaksPlainText) {
  const Identity authority(nullptr);
  HttpServerOptions options;
  options.tls = Material(authority.key_pem, authority.certificate_pem);
  const auto server = Serve(Echo, options);
  Peer peer(server->port());
  ASSERT_TRUE(peer.Write(kGet));
  EXPECT_THAT(peer.Read(), Not(HasSubstr("200 OK")));
  EXPECT_TRUE(peer.closed());
}

TEST(HttpServerTls, NamesTheMaterialThatIsWrong) {
  const Identity one(nullptr), two(nullptr);
  const std::vector<std::pair<TlsOptions, std::string>> cases = {
      {Material(one.key_pem, "x"), "server_cert is not a PEM certificate"},
      {Material("x", one.certificate_pem), "server_key is not a PEM private key"},
      {Material(two.key_pem, one.certificate_pem), "server_key does not belong to server_cert"},
      {Material(one.key_pem, one.certificate_pem, "x"), "custom_ca is not a PEM certificate"},
      {Material(one.key_pem, one.certificate_pem, "", true), "client_verify needs custom_ca"},
  };
  for (const auto& [tls, message] : cases) {
    HttpServerOptions options;
    options.tls = tls;
    const auto server = HttpServer::Start(options, Echo);
    ASSERT_FALSE(server.ok()) << message;
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(server.status().message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace takt::net
