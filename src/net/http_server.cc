#include "net/http_server.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <ctime>
#include <mutex>
#include <thread>
#include <unordered_map>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/socket.h"
#include "net/event_loop.h"
#include "net/http_parser.h"
#include "net/tcp.h"

namespace takt::net {
namespace {

using std::chrono::milliseconds;
using TimePoint = std::chrono::steady_clock::time_point;

constexpr TimePoint kNever = TimePoint::max();
constexpr std::size_t kReadBytes = 64 << 10;
constexpr std::size_t kKeepBytes = 16 << 10;        // a buffer that is larger is freed when empty
constexpr std::size_t kMaxAheadBytes = 64 << 10;    // of pipelined requests while one is answered
constexpr std::size_t kMaxUnsentBytes = 256 << 10;  // of pipelined answers before requests wait
constexpr std::size_t kMaxLingerBytes = 4 << 20;
constexpr milliseconds kLingerTime{2000};

struct Worker;
class Connection;

// The way to a loop for who may outlive it.
class Gate {
 public:
  explicit Gate(EventLoop* loop) : loop_(loop), id_(loop) {}
  void Post(EventLoop::Task task) {
    const std::lock_guard lock(mutex_);
    if (loop_ != nullptr) loop_->Post(std::move(task));
  }
  void Shut() {
    const std::lock_guard lock(mutex_);
    loop_ = nullptr;
  }
  bool InLoop() const { return EventLoop::Current() == id_; }

 private:
  std::mutex mutex_;
  EventLoop* loop_;  // guarded by mutex_
  const void* const id_;
};

// One request's answer, shared by the connection and by whoever answers. `connection` belongs to
// the loop's thread; the rest to anyone.
struct Exchange {
  std::shared_ptr<Gate> gate;
  Connection* connection = nullptr;
  std::size_t max_backlog = 0;
  std::atomic<bool> answered{false}, closed{false}, streaming{false};
  std::atomic<std::size_t> unsent{0};  // what the connection holds of a stream

  std::mutex mutex;
  std::string queued;  // guarded by mutex, as the two below
  bool flush_posted = false, finished = false;
};

class Responder final : public HttpResponder {
 public:
  explicit Responder(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  ~Responder() override;
  void Send(HttpResponse response) override;
  void StartStream(HttpResponse head) override;
  bool Write(std::string_view chunk) override;
  void Finish() override;
  bool closed() const override { return exchange_->closed; }
  std::size_t backlog() const override {
    const std::lock_guard lock(exchange_->mutex);
    return exchange_->queued.size() + exchange_->unsent;
  }

 private:
  void Answer(HttpResponse response, bool stream);
  const std::shared_ptr<Exchange> exchange_;
};

class Connection final : public EventLoop::FdHandler {
 public:
  Connection(Worker* worker, int fd, std::string peer);
  ~Connection() override;

  void OnEvents(std::uint32_t events) override;
  void OnAnswer(const HttpResponse& response, bool stream);
  void OnStreamData();
  void OnTick(TimePoint now);
  void Drain();
  void Close();
  void Abort();  // Close, with what the kernel still holds for the peer thrown away

 private:
  // kReading -> kWaiting (a request was given to the handler) -> kReading (answered)
  // kWaiting -> kStreaming (StartStream) -> kReading (Finish)
  // any -> kEnding (the last answer is being written) -> kLingering or closed
  // kLingering: we sent our last, the peer may still be sending; read so that it sees the answer
  enum class Mode { kReading, kWaiting, kStreaming, kEnding, kLingering };

  void ReadSome();
  void Process(std::string_view data);
  void Dispatch();
  void SendError(int status, const std::string& message);
  void AppendHead(const HttpResponse& response, bool stream);
  void Settle();  // writes what is there, then goes on or ends, then says what it waits for
  bool Flush();   // false when closed
  ssize_t Receive(char* data, std::size_t size);
  ssize_t Transmit(const char* data, std::size_t size);
  void UpdateEvents();
  std::size_t unsent() const { return out_.size() - out_offset_; }

  Worker* const worker_;
  int fd_;
  const std::string peer_;
  HttpParser parser_;
  Mode mode_ = Mode::kReading;
  SSL* ssl_ = nullptr;
  bool in_process_ = false, in_settle_ = false;
  bool peer_ended_ = false, linger_ = false, head_request_ = false, keep_alive_ = true;
  bool ssl_wants_write_ = false, chunked_ = false;
  std::uint32_t events_ = 0;
  std::string in_;  // received ahead of its turn
  std::string out_;
  std::size_t out_offset_ = 0, lingered_ = 0;
  std::shared_ptr<Exchange> exchange_;
  TimePoint deadline_ = kNever, write_deadline_ = kNever;
};

class Server;

// One loop with its connections. Everything is of the loop's thread.
struct Worker {
  Server* server = nullptr;
  std::unique_ptr<EventLoop> loop;
  std::shared_ptr<Gate> gate;
  std::thread thread;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections;
  std::vector<std::unique_ptr<Connection>> dead;  // until no frame of theirs is on the stack
  std::vector<char> scratch = std::vector<char>(kReadBytes);
  bool draining = false, ticking = false;
  std::time_t date_second = 0;
  std::string date;

  void Adopt(int fd, std::string peer);
  void Tick();
  void Bury(Connection* connection);
  const std::string& Date();
};

class Server final : public HttpServer, public EventLoop::FdHandler {
 public:
  Server(HttpServerOptions options, HttpHandler handler)
      : options_(std::move(options)), handler_(std::move(handler)) {}
  ~Server() override { Stop(0); }

  absl::Status Open();
  std::uint16_t port() const override { return port_; }
  void Stop(int drain_ms) override;
  void OnEvents(std::uint32_t events) override;  // the listening socket, in the first loop

  const HttpServerOptions& options() const { return options_; }
  const HttpHandler& handler() const { return handler_; }
  SSL_CTX* tls() const { return tls_.get(); }
  milliseconds tick() const { return tick_; }
  void OnGone();

 private:
  const HttpServerOptions options_;
  const HttpHandler handler_;
  std::shared_ptr<SSL_CTX> tls_;
  milliseconds tick_{1000};
  int listener_ = -1;
  int spare_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
  std::uint16_t port_ = 0;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::size_t next_worker_ = 0;
  bool stopped_ = false;

  std::mutex mutex_;
  std::condition_variable gone_;
  std::size_t connections_ = 0;  // guarded by mutex_
};

// ---- Responder ----

Responder::~Responder() {
  if (!exchange_->answered) {
    HttpResponse response;
    response.status = 500;
    response.content_type = "text/plain";
    response.body = "the request was not answered\n";
    Answer(std::move(response), false);
  } else if (exchange_->streaming) {
    Finish();
  }
}

void Responder::Send(HttpResponse response) { Answer(std::move(response), false); }
void Responder::StartStream(HttpResponse head) { Answer(std::move(head), true); }

void Responder::Answer(HttpResponse response, bool stream) {
  if (exchange_->answered.exchange(true)) return;
  if (stream) exchange_->streaming = true;
  if (exchange_->gate->InLoop()) {
    if (exchange_->connection != nullptr) {
      exchange_->connection->OnAnswer(response, stream);
    }
    return;
  }
  exchange_->gate->Post([exchange = exchange_, response = std::move(response), stream] {
    if (exchange->connection != nullptr) {
      exchange->connection->OnAnswer(response, stream);
    }
  });
}

bool Responder::Write(std::string_view chunk) {
  if (exchange_->closed) return false;
  bool post = false, overflow = false;
  {
    const std::lock_guard lock(exchange_->mutex);
    if (exchange_->finished) return false;
    overflow = exchange_->queued.size() + exchange_->unsent + chunk.size() > exchange_->max_backlog;
    if (overflow) {
      exchange_->closed = true;
    } else {
      exchange_->queued.append(chunk);
    }
    post = !std::exchange(exchange_->flush_posted, true) || overflow;
  }
  if (post) {
    exchange_->gate->Post([exchange = exchange_, overflow] {
      if (exchange->connection == nullptr) return;
      if (overflow) {
        exchange->connection->Abort();
      } else {
        exchange->connection->OnStreamData();
      }
    });
  }
  return !overflow;
}

void Responder::Finish() {
  {
    const std::lock_guard lock(exchange_->mutex);
    if (std::exchange(exchange_->finished, true)) return;
  }
  exchange_->gate->Post([exchange = exchange_] {
    if (exchange->connection != nullptr) exchange->connection->OnStreamData();
  });
}

// ---- Connection ----

Connection::Connection(Worker* worker, int fd, std::string peer)
    : worker_(worker),
      fd_(fd),
      peer_(std::move(peer)),
      parser_(worker->server->options().max_header_bytes,
              worker->server->options().max_body_bytes) {
  if (worker->server->tls() != nullptr) {
    ssl_ = SSL_new(worker->server->tls());
    SSL_set_fd(ssl_, fd_);
    SSL_set_accept_state(ssl_);
  }
  deadline_ = worker->loop->now() + milliseconds(worker->server->options().idle_timeout_ms);
}

Connection::~Connection() {
  if (fd_ >= 0) close(fd_);
  if (ssl_ != nullptr) SSL_free(ssl_);
  if (exchange_ != nullptr) {
    exchange_->connection = nullptr;
    exchange_->closed = true;
  }
}

void Connection::Close() {
  if (fd_ < 0) return;
  if (exchange_ != nullptr) {
    exchange_->connection = nullptr;
    exchange_->closed = true;
    exchange_ = nullptr;
  }
  worker_->loop->Unwatch(fd_, this);
  close(fd_);
  fd_ = -1;
  worker_->Bury(this);
}

void Connection::Abort() {
  const linger now{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  Close();
}

void Connection::UpdateEvents() {
  if (fd_ < 0) return;
  std::uint32_t wanted = 0;
  const bool ahead = in_.size() >= kMaxAheadBytes;
  if (!peer_ended_ && (mode_ == Mode::kLingering ||
                       (mode_ != Mode::kEnding && !ahead && unsent() <= kMaxUnsentBytes))) {
    wanted |= EPOLLIN;
  }
  if (unsent() > 0 || ssl_wants_write_) wanted |= EPOLLOUT;
  if (wanted == events_) return;
  events_ = wanted;
  if (!worker_->loop->Rewatch(fd_, wanted, this).ok()) Close();
}

ssize_t Connection::Receive(char* data, std::size_t size) {
  if (ssl_ == nullptr) return recv(fd_, data, size, 0);
  ERR_clear_error();
  ssl_wants_write_ = false;
  const int n = SSL_read(ssl_, data, static_cast<int>(size));
  if (n > 0) return n;
  const int error = SSL_get_error(ssl_, n);
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  ssl_wants_write_ = error == SSL_ERROR_WANT_WRITE;
  errno = error == SSL_ERROR_WANT_READ || ssl_wants_write_ ? EAGAIN : EPROTO;
  return -1;
}

ssize_t Connection::Transmit(const char* data, std::size_t size) {
  if (ssl_ == nullptr) return send(fd_, data, size, MSG_NOSIGNAL);
  ERR_clear_error();
  const int n = SSL_write(ssl_, data, static_cast<int>(std::min<std::size_t>(size, 1 << 30)));
  if (n > 0) return n;
  const int error = SSL_get_error(ssl_, n);
  errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
  return -1;
}

void Connection::OnEvents(std::uint32_t events) {
  if (fd_ < 0) return;
  if ((events & (EPOLLERR | EPOLLHUP)) != 0 && (events & EPOLLIN) == 0) {
    Close();  // both directions are shut; an answer would reach nobody
    return;
  }
  if ((events & EPOLLIN) != 0 || ssl_wants_write_) {
    ReadSome();
  } else {
    Settle();
  }
}

void Connection::ReadSome() {
  while (fd_ >= 0) {
    const ssize_t n = Receive(worker_->scratch.data(), worker_->scratch.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        UpdateEvents();
        return;
      }
      Close();
      return;
    }
    if (n == 0) {
      // A peer that only ended its sending may still wait for its answer.
      peer_ended_ = true;
      keep_alive_ = false;
      if (mode_ == Mode::kLingering || mode_ == Mode::kStreaming ||
          (mode_ == Mode::kReading && unsent() == 0)) {
        Close();
      } else {
        if (mode_ == Mode::kReading) mode_ = Mode::kEnding;
        Settle();
      }
      return;
    }
    const std::string_view data(worker_->scratch.data(), static_cast<std::size_t>(n));
    if (mode_ == Mode::kLingering) {
      lingered_ += data.size();
      if (lingered_ > kMaxLingerBytes) Close();
    } else if (mode_ == Mode::kReading && in_.empty()) {
      Process(data);
      Settle();
    } else {
      in_.append(data);
      Settle();
    }
    // A descriptor is level-triggered; what OpenSSL holds decrypted is not.
    if (ssl_ == nullptr || (events_ & EPOLLIN) == 0) return;
  }
}

// Parses and dispatches as many requests as are whole; keeps the rest in in_.
void Connection::Process(std::string_view data) {
  in_process_ = true;
  while (!data.empty() && mode_ == Mode::kReading && unsent() <= kMaxUnsentBytes) {
    const bool started = parser_.started();
    std::size_t consumed = 0;
    const HttpParser::Result result = parser_.Feed(data, &consumed);
    data.remove_prefix(consumed);
    if (result == HttpParser::Result::kError) {
      data = {};
      SendError(parser_.error_status(), parser_.error_message());
    } else if (result == HttpParser::Result::kDone) {
      Dispatch();
    } else {
      if (parser_.TakeExpectContinue()) out_.append("HTTP/1.1 100 Continue\r\n\r\n");
      if (!started && parser_.started()) {
        deadline_ = worker_->loop->now() + milliseconds(worker_->server->options().read_timeout_ms);
      }
    }
  }
  in_process_ = false;
  if (fd_ >= 0) in_.assign(data);
}

void Connection::Dispatch() {
  keep_alive_ = parser_.keep_alive() && !worker_->draining && !peer_ended_;
  HttpRequest& request = parser_.request();
  request.peer = peer_;
  head_request_ = request.method == "HEAD";
  exchange_ = std::make_shared<Exchange>();
  exchange_->gate = worker_->gate;
  exchange_->connection = this;
  exchange_->max_backlog = worker_->server->options().max_stream_backlog_bytes;
  mode_ = Mode::kWaiting;
  deadline_ = kNever;
  worker_->server->handler()(std::move(request), std::make_shared<Responder>(exchange_));
}

void Connection::OnAnswer(const HttpResponse& response, bool stream) {
  if (worker_->draining) keep_alive_ = false;
  AppendHead(response, stream);
  if (stream && !head_request_ && !worker_->draining) {
    mode_ = Mode::kStreaming;
  } else {
    if (!stream && !head_request_) out_.append(response.body);
    exchange_->connection = nullptr;
    exchange_->closed = true;
    exchange_ = nullptr;
    parser_.Reset();
    mode_ = keep_alive_ && (!stream || head_request_) ? Mode::kReading : Mode::kEnding;
    deadline_ = worker_->loop->now() + milliseconds(worker_->server->options().idle_timeout_ms);
  }
  if (!in_process_) Settle();
}

void Connection::AppendHead(const HttpResponse& response, bool stream) {
  const auto append = [this](std::initializer_list<std::string_view> parts) {
    for (const std::string_view part : parts) out_.append(part);
  };
  const auto append_clean = [this](std::string_view text) {  // a header cannot end its own line
    const std::size_t from = out_.size();
    out_.append(text);
    for (std::size_t i = from; i < out_.size(); ++i) {
      if (out_[i] == '\r' || out_[i] == '\n') out_[i] = ' ';
    }
  };
  const bool bodiless = response.status == 204 || response.status == 304;
  chunked_ = stream && !parser_.http_1_0();
  if (stream && !chunked_) keep_alive_ = false;
  const absl::AlphaNum status(response.status), length(response.body.size());
  append({"HTTP/1.1 ", ToStd(status.Piece()), " ", HttpReason(response.status),
          "\r\nDate: ", worker_->Date(), "\r\n"});
  if (!response.content_type.empty() && !bodiless) {
    append({"Content-Type: "});
    append_clean(response.content_type);
    append({"\r\n"});
  }
  if (chunked_) {
    append({"Transfer-Encoding: chunked\r\n"});
  } else if (!stream && !bodiless) {
    append({"Content-Length: ", ToStd(length.Piece()), "\r\n"});
  }
  for (const auto& [name, value] : response.headers) {
    append_clean(name);
    append({": "});
    append_clean(value);
    append({"\r\n"});
  }
  if (!keep_alive_) {
    append({"Connection: close\r\n"});
  } else if (parser_.http_1_0()) {
    append({"Connection: keep-alive\r\n"});
  }
  append({"\r\n"});
}

void Connection::OnStreamData() {
  if (mode_ != Mode::kStreaming) return;
  bool finished = false;
  {
    const std::lock_guard lock(exchange_->mutex);
    exchange_->flush_posted = false;
    finished = exchange_->finished;
    if (!exchange_->queued.empty()) {
      if (chunked_) {
        out_.append(ToStd(absl::AlphaNum(absl::Hex(exchange_->queued.size())).Piece()));
        out_.append("\r\n");
      }
      out_.append(exchange_->queued);
      if (chunked_) out_.append("\r\n");
      exchange_->queued.clear();
    }
  }
  if (finished) {
    if (chunked_) out_.append("0\r\n\r\n");
    exchange_->connection = nullptr;
    exchange_->closed = true;
    exchange_ = nullptr;
    parser_.Reset();
    mode_ = keep_alive_ ? Mode::kReading : Mode::kEnding;
    deadline_ = worker_->loop->now() + milliseconds(worker_->server->options().idle_timeout_ms);
  }
  Settle();
}

void Connection::SendError(int status, const std::string& message) {
  HttpResponse response;
  response.content_type = "text/plain";
  response.body = message + "\n";
  if (const auto& make = worker_->server->options().error_response)
    response = make(status, message);
  response.status = status;
  keep_alive_ = false;
  linger_ = true;
  head_request_ = false;
  AppendHead(response, false);
  out_.append(response.body);
  mode_ = Mode::kEnding;
}

void Connection::Settle() {
  if (in_settle_) return;
  in_settle_ = true;
  while (Flush() && unsent() <= kMaxUnsentBytes && mode_ == Mode::kReading && !in_.empty()) {
    const std::string data = std::move(in_);
    in_.clear();
    Process(data);
  }
  in_settle_ = false;
  if (fd_ < 0) return;
  if (mode_ == Mode::kReading && peer_ended_) mode_ = Mode::kEnding;
  if (mode_ == Mode::kEnding && unsent() == 0) {
    if (!linger_ || peer_ended_) {
      Close();
      return;
    }
    if (ssl_ != nullptr) SSL_shutdown(ssl_);
    shutdown(fd_, SHUT_WR);
    mode_ = Mode::kLingering;
    deadline_ = worker_->loop->now() + kLingerTime;
  }
  UpdateEvents();
}

bool Connection::Flush() {
  while (fd_ >= 0 && unsent() > 0) {
    const ssize_t n = Transmit(out_.data() + out_offset_, unsent());
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
      Close();
      break;
    }
    out_offset_ += static_cast<std::size_t>(n);
    write_deadline_ = kNever;
  }
  if (fd_ < 0) return false;
  if (unsent() == 0) {
    out_offset_ = 0;
    out_.clear();
    if (out_.capacity() > kKeepBytes) std::string().swap(out_);
    write_deadline_ = kNever;
  } else {
    if (out_offset_ > kMaxUnsentBytes) {
      out_.erase(0, out_offset_);
      out_offset_ = 0;
    }
    if (write_deadline_ == kNever) {
      write_deadline_ =
          worker_->loop->now() + milliseconds(worker_->server->options().write_timeout_ms);
    }
  }
  if (mode_ == Mode::kStreaming) exchange_->unsent = unsent();
  return true;
}

void Connection::OnTick(TimePoint now) {
  if (now >= write_deadline_) {
    Abort();
  } else if (now >= deadline_ && mode_ != Mode::kWaiting && mode_ != Mode::kStreaming) {
    if (mode_ == Mode::kReading && parser_.started()) {
      SendError(408, "the request did not come whole in time");
      deadline_ = kNever;
      Settle();
    } else if (mode_ != Mode::kEnding) {
      Close();
    }
  }
}

void Connection::Drain() {
  keep_alive_ = false;
  if (mode_ == Mode::kStreaming || (mode_ == Mode::kReading && unsent() == 0)) {
    Close();
  } else if (mode_ == Mode::kReading) {
    mode_ = Mode::kEnding;
    Settle();
  }
}

// ---- Worker ----

void Worker::Adopt(int fd, std::string peer) {
  auto connection = std::make_unique<Connection>(this, fd, std::move(peer));
  Connection* raw = connection.get();
  if (draining || !loop->Watch(fd, 0, raw).ok()) {
    connection.reset();
    server->OnGone();
    return;
  }
  if (!ticking) {
    ticking = true;
    loop->After(server->tick(), [this] { Tick(); });
  }
  connections.emplace(raw, std::move(connection));
  raw->OnEvents(0);
}

void Worker::Tick() {
  std::vector<Connection*> all;
  all.reserve(connections.size());
  for (const auto& [each, owner] : connections) all.push_back(each);
  for (Connection* each : all) each->OnTick(loop->now());
  ticking = !connections.empty();  // a server without connections never wakes
  if (ticking) loop->After(server->tick(), [this] { Tick(); });
}

void Worker::Bury(Connection* connection) {
  auto node = connections.extract(connection);
  if (node.empty()) return;
  if (dead.empty()) loop->Post([this] { dead.clear(); });
  dead.push_back(std::move(node.mapped()));
  server->OnGone();
}

const std::string& Worker::Date() {
  const std::time_t now = std::time(nullptr);
  if (now != date_second) {
    date_second = now;
    std::tm parts{};
    gmtime_r(&now, &parts);
    char text[40];
    date.assign(text, std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts));
  }
  return date;
}

// ---- Server ----

absl::Status Server::Open() {
  if (options_.tls.has_value()) {
    TAKT_ASSIGN_OR_RETURN(tls_, MakeTlsServerContext(*options_.tls, {"http/1.1"}));
  }
  TAKT_ASSIGN_OR_RETURN(const ListeningSocket socket, Listen(options_.host, options_.port));
  listener_ = socket.fd;
  port_ = socket.port;
  const int shortest =
      std::min({options_.idle_timeout_ms, options_.read_timeout_ms, options_.write_timeout_ms});
  tick_ = milliseconds(std::clamp(shortest / 4, 5, 1000));
  for (int i = 0; i < std::max(1, options_.threads); ++i) {
    auto worker = std::make_unique<Worker>();
    worker->server = this;
    TAKT_ASSIGN_OR_RETURN(worker->loop, EventLoop::Create());
    worker->gate = std::make_shared<Gate>(worker->loop.get());
    workers_.push_back(std::move(worker));
  }
  TAKT_RETURN_IF_ERROR(workers_[0]->loop->Watch(listener_, EPOLLIN, this));
  for (auto& worker : workers_) {
    worker->thread = std::thread([loop = worker->loop.get()] { loop->Run(); });
  }
  return absl::OkStatus();
}

void Server::OnEvents(std::uint32_t) {
  for (int i = 0; i < 64; ++i) {  // then others have their turn
    sockaddr_storage address{};
    socklen_t size = sizeof(address);
    const int fd = accept4(listener_, reinterpret_cast<sockaddr*>(&address), &size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno != EMFILE && errno != ENFILE) return;
      // Out of descriptors. The spare one lets this peer in only to see it off; left in the queue
      // it would wake the loop without end.
      close(spare_);
      const int refused = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (refused >= 0) close(refused);
      spare_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
      continue;
    }
    {
      const std::lock_guard lock(mutex_);
      if (connections_ >= options_.max_connections) {
        close(fd);
        continue;
      }
      ++connections_;
    }
    SetForCalls(fd, reinterpret_cast<const sockaddr*>(&address));
    Worker& worker = *workers_[next_worker_++ % workers_.size()];
    std::string peer = AddressText(reinterpret_cast<const sockaddr*>(&address));
    if (worker.loop->InLoop()) {
      worker.Adopt(fd, std::move(peer));
    } else {
      worker.loop->Post([&worker, fd, peer = std::move(peer)] { worker.Adopt(fd, peer); });
    }
  }
}

void Server::OnGone() {
  const std::lock_guard lock(mutex_);
  --connections_;
  if (connections_ == 0) gone_.notify_all();
}

void Server::Stop(int drain_ms) {
  if (std::exchange(stopped_, true)) return;
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    workers_[i]->loop->Post([this, i] {
      if (i == 0) workers_[0]->loop->Unwatch(listener_, this);
      Worker& worker = *workers_[i];
      worker.draining = true;
      std::vector<Connection*> all;
      for (const auto& [each, owner] : worker.connections) all.push_back(each);
      for (Connection* each : all) each->Drain();
    });
  }
  if (drain_ms > 0) {
    std::unique_lock lock(mutex_);
    gone_.wait_for(lock, milliseconds(drain_ms), [this] { return connections_ == 0; });
  }
  for (auto& worker : workers_) {
    worker->loop->Stop();
    if (worker->thread.joinable()) worker->thread.join();
  }
  for (auto& worker : workers_) {
    worker->gate->Shut();
    worker->connections.clear();
  }
  if (listener_ >= 0) close(listener_);
  close(spare_);
}

}  // namespace

std::string_view HttpReason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 206:
      return "Partial Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 417:
      return "Expectation Failed";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";
  }
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(HttpServerOptions options,
                                                              HttpHandler handler) {
  auto server = std::make_unique<Server>(std::move(options), std::move(handler));
  TAKT_RETURN_IF_ERROR(server->Open());
  return server;
}

}  // namespace takt::net
