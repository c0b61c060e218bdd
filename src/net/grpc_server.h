// gRPC over HTTP/2 on event loops: unary and streamed calls, compression, deadlines,
// cancellation, limits, drain, TLS. It knows no service: methods are registered by their path.
//
// Threads: a connection lives on one loop; its handlers run there and must not block for long. A
// call may be answered inside its handler (the cheapest) or later from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "net/event_loop.h"
#include "net/tls.h"

namespace takt::net {

// What a peer may ask of the server. Beyond any of these its stream or connection ends with the
// code that is named; the others are unharmed.
inline constexpr std::size_t kMaxGrpcMessageBytes = 0x7fffffff;    // RESOURCE_EXHAUSTED
inline constexpr std::size_t kMaxGrpcInflationRatio = 100;         // RESOURCE_EXHAUSTED
inline constexpr std::size_t kMaxGrpcHeaderBytes = 32 << 10;       // stream reset
inline constexpr std::uint32_t kMaxGrpcConcurrentStreams = 10000;  // REFUSED_STREAM
inline constexpr std::size_t kMaxGrpcConnections = 20000;          // closed at once
// Frames that make work and carry none (resets, pings, settings, empty data, priorities), in one
// second: beyond it the connection ends with ENHANCE_YOUR_CALM.
inline constexpr int kMaxGrpcIdleFramesPerSecond = 2000;
// What a loop sets aside for messages that are announced and have not come. Beyond it they get
// memory as they come.
inline constexpr std::size_t kMaxGrpcReservedBytes = 512 << 20;
// Messages from this size on may have a buffer of their own, which ShareBody hands out.
inline constexpr std::size_t kSharedBodyBytes = 32 << 10;
inline constexpr std::size_t kMaxGrpcMessageText = 1024;   // longer: cut, "...TRUNCATED"
inline constexpr std::size_t kMaxPlainGetBytes = 8 << 10;  // head of an HTTP/1.1 GET: closed

// One call. Not thread-safe: whoever holds it uses it. Finish or destruction ends it.
class GrpcCall {
 public:
  virtual ~GrpcCall() = default;

  std::string_view method() const { return method_; }  // "/package.Service/Method"
  // Unary: the request message, decompressed, contiguous. Valid until the handler returns, unless
  // RetainBody was called: then until the call ends.
  std::string_view body() const { return body_; }
  virtual void RetainBody() = 0;
  // Keeps the bytes of body() alive beyond the call, without a copy where they have a buffer of
  // their own (large messages do). The view is the same bytes, perhaps at another place.
  virtual std::pair<std::shared_ptr<const void>, std::string_view> ShareBody() = 0;
  // Of the message as it came, also when body() is gone.
  virtual std::size_t request_bytes() const = 0;
  // body() has a buffer of its own already: ShareBody moves nothing.
  virtual bool body_is_shared() const = 0;

  std::optional<std::chrono::steady_clock::time_point> deadline() const { return deadline_; }
  bool expired(std::chrono::steady_clock::time_point now) const {
    return deadline_.has_value() && *deadline_ <= now;
  }
  // The client reset the stream or the connection is gone. May turn true at any moment.
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }
  // User metadata (names in lower case, "-bin" values decoded); without HTTP/2's and gRPC's own.
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }
  virtual std::string peer() const = 0;  // "127.0.0.1:40000", "unix:"
  EventLoop* loop() const { return loop_; }

  // The message of a unary answer, to be appended to (only that: framing comes before) until
  // Finish.
  std::string& response() { return response_; }
  // Metadata of the answer, sent as initial headers (or with the trailers when no message comes).
  void AddResponseMetadata(std::string name, std::string value) {
    response_metadata_.emplace_back(std::move(name), std::move(value));
  }
  // Streamed calls: sends one message now. Does nothing once cancelled.
  virtual void Write(std::string_view message) = 0;

 protected:
  friend class GrpcCallPtr;
  // Sends what response() holds (when OK), then the trailers. Any thread.
  virtual void Finish(const absl::Status& status) = 0;
  virtual void Abandon() = 0;

  std::string_view method_;
  std::string_view body_;
  std::optional<std::chrono::steady_clock::time_point> deadline_;
  std::atomic<bool> cancelled_{false};
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::vector<std::pair<std::string, std::string>> response_metadata_;
  std::string response_;
  EventLoop* loop_ = nullptr;
};

// Sole owner of a call that is not yet answered. Destroying it unanswered sends INTERNAL.
class GrpcCallPtr {
 public:
  GrpcCallPtr() = default;
  explicit GrpcCallPtr(GrpcCall* call) : call_(call) {}
  GrpcCallPtr(GrpcCallPtr&& other) noexcept : call_(std::exchange(other.call_, nullptr)) {}
  GrpcCallPtr& operator=(GrpcCallPtr&& other) noexcept {
    if (this != &other) {
      if (call_ != nullptr) call_->Abandon();
      call_ = std::exchange(other.call_, nullptr);
    }
    return *this;
  }
  ~GrpcCallPtr() {
    if (call_ != nullptr) call_->Abandon();
  }
  GrpcCall* operator->() const { return call_; }
  GrpcCall& operator*() const { return *call_; }
  explicit operator bool() const { return call_ != nullptr; }
  // Answers and lets go. The message is cut at kMaxGrpcMessageText characters.
  void Finish(const absl::Status& status) { std::exchange(call_, nullptr)->Finish(status); }

 private:
  GrpcCall* call_ = nullptr;
};

using GrpcHandler = std::function<void(GrpcCallPtr call)>;

// One streamed call's other side; lives as long as the call. All on the connection's loop.
class GrpcStream {
 public:
  virtual ~GrpcStream() = default;
  // Once, before any message. The stream keeps the call and ends it with Finish.
  virtual void OnStart(GrpcCallPtr call) = 0;
  virtual void OnMessage(std::string_view message) = 0;
  virtual void OnHalfClose() = 0;  // the client sends no more
  virtual void OnCancel() = 0;     // the client is gone: let the call go
};
using GrpcStreamFactory = std::function<std::unique_ptr<GrpcStream>()>;

struct GrpcServerOptions {
  std::string host = "0.0.0.0";
  int port = 0;                  // 0 = any free one; -1 = no TCP
  std::string unix_socket_path;  // "" = none
  std::size_t max_message_bytes = kMaxGrpcMessageBytes;
  std::uint32_t max_concurrent_streams = kMaxGrpcConcurrentStreams;  // a connection
  std::size_t max_connections = kMaxGrpcConnections;
  std::chrono::milliseconds idle_timeout{0};            // no stream open: GOAWAY; 0 = never
  std::chrono::milliseconds handshake_timeout{20000};   // TLS and the HTTP/2 preface
  std::chrono::milliseconds slow_peer_timeout{120000};  // a request half sent, an answer not read
  std::optional<TlsOptions> tls;
};

struct GrpcServerStats {
  std::uint64_t connections = 0;  // open now
  std::uint64_t calls = 0;        // accepted since the start
  std::uint64_t calls_in_flight = 0;
};

class GrpcServer {
 public:
  // Loops must outlive the server.
  static std::unique_ptr<GrpcServer> Create(GrpcServerOptions options,
                                            std::vector<EventLoop*> loops);
  virtual ~GrpcServer() = default;  // without Drain: closes at once

  // Before Start. An unknown method is answered UNIMPLEMENTED.
  virtual void Handle(std::string method, GrpcHandler handler) = 0;
  virtual void HandleStream(std::string method, GrpcStreamFactory factory) = 0;
  // Where large messages are laid in memory: called with the first bytes (at least some hundred) of
  // a message that is not yet complete, says which of its offsets shall be 64-byte aligned.
  virtual void PlaceBodiesOf(std::string_view method,
                             std::function<std::size_t(std::string_view prefix)> offset) = 0;
  // Before Start. HTTP/1.1 GET of `path` on the same port, for what scrapes metrics (over TLS for
  // clients that do not ask for h2 by ALPN):
  // `ask` runs on a loop and must not block; it gives the body to its argument, then or later, on
  // any thread. One answer a connection, within the handshake's timeout.
  using PlainAnswer = std::function<void(std::string body)>;
  virtual void HandleGet(std::string path, std::string content_type,
                         std::function<void(PlainAnswer)> ask) = 0;

  // Listens: UNAVAILABLE naming the address when it cannot ("port 8500 is in use"),
  // INVALID_ARGUMENT when keys or certificates do not parse.
  virtual absl::Status Start() = 0;
  virtual std::uint16_t port() const = 0;
  virtual const std::vector<EventLoop*>& loops() const = 0;
  virtual GrpcServerStats stats() const = 0;
  // Stops accepting, sends GOAWAY, lets calls in flight end, at most `limit`; closes. Blocks; not
  // on a loop's thread. The number of calls that were cut off.
  virtual std::uint64_t Drain(std::chrono::milliseconds limit) = 0;
};

}  // namespace takt::net
