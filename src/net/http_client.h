// Blocking HTTP/1.1 client for the command line, health probes and scrapers. One connection a call,
// or kept between the calls of an HttpClient. Plain text only: what has to cross a network
// encrypted goes through libcurl elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace takt::net {

struct HttpUrl {
  std::string host;
  std::uint16_t port = 80;
  std::string target;  // path and query, "/" at least
};
// INVALID_ARGUMENT: expected http://HOST[:PORT]/PATH.
absl::StatusOr<HttpUrl> ParseHttpUrl(std::string_view url);

struct HttpClientOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 80;
  std::string unix_socket;                   // path; then host is only the Host header
  std::chrono::milliseconds timeout{30000};  // of a whole call; of a stream until its headers came
  std::chrono::milliseconds stream_silence{60000};  // of a stream: beyond, DEADLINE_EXCEEDED
  std::size_t max_body_bytes = 64 << 20;            // beyond: RESOURCE_EXHAUSTED
  std::vector<std::pair<std::string, std::string>> headers;  // with every request
};

struct HttpCall {
  std::string method = "GET";
  std::string target = "/";  // as on the wire: escaped path and query
  std::string body;
  std::string content_type = "application/json";  // sent with a body
  std::vector<std::pair<std::string, std::string>> headers;
};

struct HttpReply {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;                                          // of a stream: empty
  std::string_view Header(std::string_view name) const;
};

// One thread at a time. A reply of any status is a reply; a Status is for what kept it from coming:
// UNAVAILABLE, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED for a limit, INVALID_ARGUMENT for a request
// that cannot be sent, DATA_LOSS for an answer that is no HTTP or ends early.
class HttpClient {
 public:
  explicit HttpClient(HttpClientOptions options) : options_(std::move(options)) {}
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // A kept connection that the server closed meanwhile is opened anew.
  absl::StatusOr<HttpReply> Call(const HttpCall& call);

  // Hands each piece of the body to `on_data` as it comes, until that returns false (OK) or the
  // server ends it (OK). A reply whose status is not 200 comes back whole, with its body. While it
  // waits, `on_wait` (may be empty) is asked about every 200 ms whether to go on.
  absl::StatusOr<HttpReply> Stream(const HttpCall& call,
                                   const std::function<bool(std::string_view)>& on_data,
                                   const std::function<bool()>& on_wait = nullptr);

 private:
  using TimePoint = std::chrono::steady_clock::time_point;
  enum class Readable { kYes, kEnd, kStopped };

  absl::Status Open(TimePoint deadline);
  void Close();
  absl::Status Send(const HttpCall& call, TimePoint deadline);
  absl::StatusOr<Readable> Fill(TimePoint deadline, const std::function<bool()>& on_wait);
  absl::StatusOr<HttpReply> ReadHead(TimePoint deadline);
  absl::StatusOr<std::string> ReadLine(TimePoint deadline, const std::function<bool()>& on_wait,
                                       bool* stopped);
  absl::StatusOr<HttpReply> Exchange(const HttpCall& call,
                                     const std::function<bool(std::string_view)>* on_data,
                                     const std::function<bool()>& on_wait);
  absl::Status ReadBody(const HttpCall& call, const HttpReply& reply, bool stream,
                        TimePoint deadline, const std::function<bool(std::string_view)>& on_data,
                        const std::function<bool()>& on_wait);
  std::string Peer() const;

  const HttpClientOptions options_;
  int fd_ = -1;
  bool used_ = false;  // the connection has served a call already
  std::string buffer_;
};

// One GET of an absolute URL, for probes and scrapers.
absl::StatusOr<HttpReply> HttpGet(std::string_view url, std::chrono::milliseconds timeout,
                                  std::size_t max_body_bytes);

// Server-sent events out of the pieces of a stream.
struct ServerSentEvent {
  std::string event = "message";
  std::string data, id;
};
inline constexpr std::size_t kMaxServerSentEventBytes = 16 << 20;

class ServerSentEventParser {
 public:
  // Calls `on_event` for each whole event; false from it, or an event beyond the limit, ends it.
  bool Feed(std::string_view piece, const std::function<bool(const ServerSentEvent&)>& on_event);

 private:
  std::string line_;
  ServerSentEvent event_;
  bool any_ = false;
};

// Percent-encodes everything but RFC 3986's unreserved characters and those of `keep`: for a path
// segment or a query value (and as AWS signs them).
std::string UrlEncode(std::string_view text, std::string_view keep = "");

}  // namespace takt::net
