// HTTP/1.1 server for the public API, the console and the model server's REST port. No product
// logic. Handlers run on the server's threads and must not block for long.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "net/tls.h"

namespace takt::net {

struct HttpRequest {
  std::string method;                                        // upper case
  std::string target;                                        // as sent: "/a%20b?x=1"
  std::string path;                                          // decoded, without the query
  std::vector<std::pair<std::string, std::string>> query;    // decoded
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::string peer;  // "127.0.0.1:40000"
  // First value, or "" when there is none. Names in lower case.
  std::string_view Header(std::string_view name) const;
  std::string_view Query(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

// Reason phrase: "Not Found"; "" for a status that has none.
std::string_view HttpReason(int status);

// Writes one answer. Exactly one of Send and StartStream is called, once, from any thread; the
// object may outlive the handler's call (asynchronous answers). Destroying it unanswered sends 500.
class HttpResponder {
 public:
  virtual ~HttpResponder() = default;
  virtual void Send(HttpResponse response) = 0;
  // Begins an unbounded answer (server-sent events): headers now, then Write for each piece.
  virtual void StartStream(HttpResponse head) = 0;
  // False when the peer is gone or more than HttpServerOptions::max_stream_backlog_bytes wait; the
  // stream is then closed and nothing more need be written.
  virtual bool Write(std::string_view chunk) = 0;
  virtual void Finish() = 0;
  virtual bool closed() const = 0;
  // Bytes of the stream that the peer's kernel has not taken; any thread.
  virtual std::size_t backlog() const = 0;
};

using HttpHandler =
    std::function<void(HttpRequest request, std::shared_ptr<HttpResponder> responder)>;

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;  // 0 = any free one; see HttpServer::port
  int threads = 1;
  std::size_t max_body_bytes = 16 << 20;    // beyond: 413
  std::size_t max_header_bytes = 64 << 10;  // beyond: 431
  std::size_t max_connections = 4096;       // beyond: accepted and closed at once
  std::size_t max_stream_backlog_bytes = 1 << 20;
  int idle_timeout_ms = 75000;
  int read_timeout_ms = 30000;   // for a whole request, once its first byte came; beyond: 408
  int write_timeout_ms = 30000;  // without a byte taken by the peer; beyond: closed
  std::optional<TlsOptions> tls;
  // The answer to what the server itself refuses (400, 408, 413, 431, ...); empty: plain text.
  std::function<HttpResponse(int status, const std::string& message)> error_response;
};

class HttpServer {
 public:
  // Listens at once: UNAVAILABLE naming the address when it cannot ("127.0.0.1:8080 is in use"),
  // INVALID_ARGUMENT for a host that is no address or TLS material that is none.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(HttpServerOptions options,
                                                           HttpHandler handler);
  virtual ~HttpServer() = default;
  virtual std::uint16_t port() const = 0;
  // Stops accepting, ends streams, lets answers in flight end (at most `drain_ms`), closes. Blocks.
  virtual void Stop(int drain_ms) = 0;
};

}  // namespace takt::net
