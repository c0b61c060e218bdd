#include "net/http_client.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "net/http_parser.h"
#include "net/tcp.h"

namespace takt::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kReadBytes = 64 << 10;
constexpr std::size_t kMaxReplyHeadBytes = 64 << 10;
constexpr milliseconds kWaitSlice{200};

bool HasControl(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 127; });
}

}  // namespace

std::string_view HttpReply::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

std::string UrlEncode(std::string_view text, std::string_view keep) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte) || c == '-' || c == '.' || c == '_' || c == '~' ||
        keep.find(c) != std::string_view::npos) {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
  return out;
}

absl::StatusOr<HttpUrl> ParseHttpUrl(std::string_view url) {
  const absl::Status bad =
      absl::InvalidArgumentError(StrCat("expected http://HOST[:PORT]/PATH, got \"", url, "\""));
  std::string_view rest = url;
  if (rest.substr(0, 7) != "http://" || HasControl(url) || url.find(' ') != url.npos) return bad;
  rest.remove_prefix(7);
  const std::size_t slash = std::min(rest.find_first_of("/?"), rest.size());
  const std::string_view authority = rest.substr(0, slash);
  HttpUrl out;
  out.target = rest.substr(slash);
  out.target = out.target.substr(0, out.target.find('#'));
  if (out.target.empty() || out.target[0] != '/') out.target = StrCat("/", out.target);
  const bool has_port =
      authority.find(':', authority.find(']') == authority.npos ? 0 : authority.find(']')) !=
      authority.npos;
  const std::string full = has_port ? std::string(authority) : StrCat(authority, ":80");
  if (authority.empty() || authority.find('@') != authority.npos ||
      !SplitHostPort(full, &out.host, &out.port).ok() || out.host.empty()) {
    return bad;
  }
  return out;
}

HttpClient::~HttpClient() { Close(); }

void HttpClient::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  used_ = false;
  buffer_.clear();
}

std::string HttpClient::Peer() const {
  return options_.unix_socket.empty() ? StrCat(options_.host, ":", options_.port)
                                      : options_.unix_socket;
}

absl::Status HttpClient::Open(TimePoint deadline) {
  if (fd_ >= 0) {
    char byte = 0;  // a kept connection is silent; one that ended, or talks unasked, is no use
    const ssize_t n = recv(fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN && buffer_.empty()) return absl::OkStatus();
    Close();
  }
  absl::StatusOr<int> fd = options_.unix_socket.empty()
                               ? Connect(options_.host, options_.port, deadline)
                               : ConnectUnix(options_.unix_socket);
  TAKT_RETURN_IF_ERROR(fd.status());
  fd_ = *fd;
  return absl::OkStatus();
}

absl::Status HttpClient::Send(const HttpCall& call, TimePoint deadline) {
  std::string text;
  text.reserve(256 + call.body.size());
  const bool v6 = options_.host.find(':') != std::string::npos;
  text.append(call.method).append(" ").append(call.target).append(" HTTP/1.1\r\nHost: ");
  text.append(v6 ? StrCat("[", options_.host, "]") : options_.host);
  text.append(StrCat(":", options_.port, "\r\n"));
  if (!call.body.empty() || call.method == "POST" || call.method == "PUT") {
    text.append(StrCat("Content-Type: ", call.content_type,
                       "\r\nContent-Length: ", call.body.size(), "\r\n"));
  }
  for (const auto* headers : {&options_.headers, &call.headers}) {
    for (const auto& [name, value] : *headers) {
      if (!IsHttpToken(name) || HasControl(value)) {
        return absl::InvalidArgumentError(StrCat("the header \"", name, "\" cannot be sent"));
      }
      text.append(StrCat(name, ": ", value, "\r\n"));
    }
  }
  text.append("\r\n").append(call.body);
  for (std::size_t sent = 0; sent < text.size();) {
    const ssize_t n = send(fd_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<std::size_t>(n);
      continue;
    }
    if (errno == EINTR) continue;
    // The server may have refused what it has read so far; its answer says more than the reset.
    if (errno == EPIPE || errno == ECONNRESET) return absl::OkStatus();
    if (errno != EAGAIN) return absl::UnavailableError(StrCat(Peer(), ": ", strerror(errno)));
    const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now()).count();
    pollfd wait{.fd = fd_, .events = POLLOUT, .revents = 0};
    if (left <= 0 || poll(&wait, 1, static_cast<int>(left)) == 0) {
      return absl::DeadlineExceededError(StrCat(Peer(), ": does not take the request in time"));
    }
  }
  return absl::OkStatus();
}

// Receives once into buffer_.
absl::StatusOr<HttpClient::Readable> HttpClient::Fill(TimePoint deadline,
                                                      const std::function<bool()>& on_wait) {
  while (true) {
    const std::size_t had = buffer_.size();
    buffer_.resize(had + kReadBytes);
    const ssize_t n = recv(fd_, buffer_.data() + had, kReadBytes, 0);
    buffer_.resize(had + (n > 0 ? static_cast<std::size_t>(n) : 0));
    if (n > 0) return Readable::kYes;
    if (n == 0) return Readable::kEnd;
    if (errno == EINTR) continue;
    if (errno == ECONNRESET) return Readable::kEnd;
    if (errno != EAGAIN) return absl::UnavailableError(StrCat(Peer(), ": ", strerror(errno)));
    auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now());
    if (left.count() <= 0) {
      return absl::DeadlineExceededError(StrCat(Peer(), ": no answer in time"));
    }
    if (on_wait) left = std::min(left, kWaitSlice);
    pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
    poll(&wait, 1, static_cast<int>(left.count()));
    if (on_wait && !on_wait()) return Readable::kStopped;
  }
}

absl::StatusOr<HttpReply> HttpClient::ReadHead(TimePoint deadline) {
  while (true) {
    std::size_t end = 0;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (buffer_.size() > kMaxReplyHeadBytes) {
        return absl::ResourceExhaustedError(StrCat(
            Peer(), ": the answer's headers are larger than ", kMaxReplyHeadBytes, " bytes"));
      }
      const bool begun = !buffer_.empty();
      TAKT_ASSIGN_OR_RETURN(const Readable readable, Fill(deadline, nullptr));
      if (readable == Readable::kEnd) {
        const std::string message = StrCat(Peer(), ": closed the connection without an answer");
        return begun ? absl::DataLossError(message) : absl::UnavailableError(message);
      }
    }
    HttpReply reply;
    std::string_view head = std::string_view(buffer_).substr(0, end);
    const std::string_view line = head.substr(0, head.find("\r\n"));
    const bool http = line.size() >= 12 && line.substr(0, 7) == "HTTP/1." && line[8] == ' ' &&
                      absl::SimpleAtoi(ToAbsl(line.substr(9, 3)), &reply.status) &&
                      reply.status >= 100;
    if (!http) return absl::DataLossError(StrCat(Peer(), ": the answer is not HTTP/1.1"));
    head.remove_prefix(std::min(line.size() + 2, head.size()));
    while (!head.empty()) {
      const std::string_view one = head.substr(0, head.find("\r\n"));
      head.remove_prefix(std::min(one.size() + 2, head.size()));
      const std::size_t colon = one.find(':');
      if (colon == std::string_view::npos) {
        return absl::DataLossError(StrCat(Peer(), ": a header of the answer is malformed"));
      }
      const absl::string_view value = absl::StripAsciiWhitespace(ToAbsl(one.substr(colon + 1)));
      reply.headers.emplace_back(absl::AsciiStrToLower(ToAbsl(one.substr(0, colon))),
                                 std::string(value.data(), value.size()));
    }
    // The version matters only for how long the connection lasts.
    if (line[7] == '0' && reply.Header("connection").empty()) {
      reply.headers.emplace_back("connection", "close");
    }
    buffer_.erase(0, end + 4);
    if (reply.status >= 200) return reply;  // 100 Continue and its kin come before the answer
  }
}

absl::StatusOr<std::string> HttpClient::ReadLine(TimePoint deadline,
                                                 const std::function<bool()>& on_wait,
                                                 bool* stopped) {
  std::size_t end = 0;
  while ((end = buffer_.find("\r\n")) == std::string::npos) {
    if (buffer_.size() > kMaxChunkLineBytes) {
      return absl::DataLossError(StrCat(Peer(), ": a chunk of the answer has no size"));
    }
    TAKT_ASSIGN_OR_RETURN(const Readable readable, Fill(deadline, on_wait));
    if (readable == Readable::kStopped) {
      *stopped = true;
      return std::string();
    }
    if (readable == Readable::kEnd) {
      return absl::DataLossError(StrCat(Peer(), ": the answer ended early"));
    }
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 2);
  return line;
}

absl::Status HttpClient::ReadBody(const HttpCall& call, const HttpReply& reply, bool stream,
                                  TimePoint deadline,
                                  const std::function<bool(std::string_view)>& on_data,
                                  const std::function<bool()>& on_wait) {
  if (call.method == "HEAD" || reply.status == 204 || reply.status == 304) {
    return absl::OkStatus();
  }
  const auto until = [&] {
    return stream ? steady_clock::now() + options_.stream_silence : deadline;
  };
  std::size_t total = 0;
  bool stopped = false;
  // Hands on what the buffer has of the next `left` bytes.
  const auto take = [&](std::size_t left) -> absl::StatusOr<std::size_t> {
    const std::size_t n = std::min(left, buffer_.size());
    total += n;
    if (!stream && total > options_.max_body_bytes) {
      return absl::ResourceExhaustedError(
          StrCat(Peer(), ": the answer is larger than ", options_.max_body_bytes, " bytes"));
    }
    if (n > 0 && !on_data(std::string_view(buffer_).substr(0, n))) stopped = true;
    buffer_.erase(0, n);
    return n;
  };
  const auto read_exactly = [&](std::size_t left) -> absl::Status {
    while (left > 0 && !stopped) {
      if (buffer_.empty()) {
        TAKT_ASSIGN_OR_RETURN(const Readable readable, Fill(until(), on_wait));
        if (readable == Readable::kStopped) stopped = true;
        if (readable == Readable::kEnd) {
          return absl::DataLossError(StrCat(Peer(), ": the answer ended early"));
        }
        continue;
      }
      TAKT_ASSIGN_OR_RETURN(const std::size_t n, take(left));
      left -= n;
    }
    return absl::OkStatus();
  };
  bool reusable = !absl::EqualsIgnoreCase(ToAbsl(reply.Header("connection")), "close");
  if (absl::EqualsIgnoreCase(ToAbsl(reply.Header("transfer-encoding")), "chunked")) {
    while (!stopped) {
      TAKT_ASSIGN_OR_RETURN(const std::string line, ReadLine(until(), on_wait, &stopped));
      if (stopped) break;
      std::size_t size = 0;
      const char* end = line.data() + std::min(line.find(';'), line.size());
      const auto [stop, error] = std::from_chars(line.data(), end, size, 16);
      if (error != std::errc() || stop == line.data()) {
        return absl::DataLossError(StrCat(Peer(), ": a chunk of the answer has no size"));
      }
      TAKT_RETURN_IF_ERROR(read_exactly(size));
      std::string after = "-";
      while (!stopped && !after.empty()) {  // the chunk's end, or the trailers'
        TAKT_ASSIGN_OR_RETURN(after, ReadLine(until(), on_wait, &stopped));
        if (size > 0 && !after.empty()) {
          return absl::DataLossError(StrCat(Peer(), ": a chunk is longer than its size says"));
        }
      }
      if (size == 0) break;
    }
  } else if (const std::string_view text = reply.Header("content-length"); !text.empty()) {
    std::uint64_t length = 0;
    if (!absl::SimpleAtoi(ToAbsl(text), &length)) {
      return absl::DataLossError(StrCat(Peer(), ": the answer's content-length is no number"));
    }
    if (!stream && length > options_.max_body_bytes) {
      return absl::ResourceExhaustedError(
          StrCat(Peer(), ": the answer is larger than ", options_.max_body_bytes, " bytes"));
    }
    TAKT_RETURN_IF_ERROR(read_exactly(length));
  } else {
    reusable = false;
    while (!stopped) {
      if (buffer_.empty()) {
        TAKT_ASSIGN_OR_RETURN(const Readable readable, Fill(until(), on_wait));
        if (readable != Readable::kYes) break;
      }
      TAKT_RETURN_IF_ERROR(take(buffer_.size()).status());
    }
  }
  if (stopped || !reusable) Close();
  return absl::OkStatus();
}

absl::StatusOr<HttpReply> HttpClient::Exchange(const HttpCall& call,
                                               const std::function<bool(std::string_view)>* on_data,
                                               const std::function<bool()>& on_wait) {
  if (!IsHttpToken(call.method) || call.target.empty() || call.target[0] != '/' ||
      HasControl(call.target) || call.target.find(' ') != std::string::npos) {
    return absl::InvalidArgumentError(
        StrCat("cannot send ", call.method, " \"", call.target, "\""));
  }
  const TimePoint deadline = steady_clock::now() + options_.timeout;
  absl::StatusOr<HttpReply> reply = absl::UnavailableError("");
  for (int attempt = 0; attempt < 2; ++attempt) {
    TAKT_RETURN_IF_ERROR(Open(deadline));
    const bool reused = used_;
    const absl::Status sent = Send(call, deadline);
    reply = sent.ok() ? ReadHead(deadline) : sent;
    if (reply.ok()) break;
    Close();
    // A kept connection that ended before a byte of an answer: the server closed it, idle, at the
    // same moment. Only what changes nothing may be sent twice.
    const bool harmless = call.method == "GET" || call.method == "HEAD";
    if (!reused || !harmless || !absl::IsUnavailable(reply.status())) return reply;
  }
  TAKT_RETURN_IF_ERROR(reply.status());
  used_ = true;
  const bool stream = on_data != nullptr && reply->status == 200;
  std::string body;
  const std::function<bool(std::string_view)> collect = [&body](std::string_view piece) {
    body.append(piece);
    return true;
  };
  const absl::Status read = ReadBody(call, *reply, stream, deadline, stream ? *on_data : collect,
                                     stream ? on_wait : nullptr);
  if (!read.ok()) {
    Close();
    return read;
  }
  reply->body = std::move(body);
  return reply;
}

absl::StatusOr<HttpReply> HttpClient::Call(const HttpCall& call) {
  return Exchange(call, nullptr, nullptr);
}

absl::StatusOr<HttpReply> HttpClient::Stream(const HttpCall& call,
                                             const std::function<bool(std::string_view)>& on_data,
                                             const std::function<bool()>& on_wait) {
  return Exchange(call, &on_data, on_wait);
}

absl::StatusOr<HttpReply> HttpGet(std::string_view url, milliseconds timeout,
                                  std::size_t max_body_bytes) {
  TAKT_ASSIGN_OR_RETURN(HttpUrl parts, ParseHttpUrl(url));
  HttpClientOptions options;
  options.host = std::move(parts.host);
  options.port = parts.port;
  options.timeout = timeout;
  options.max_body_bytes = max_body_bytes;
  options.headers = {{"Connection", "close"}};
  HttpCall call;
  call.target = std::move(parts.target);
  return HttpClient(std::move(options)).Call(call);
}

bool ServerSentEventParser::Feed(std::string_view piece,
                                 const std::function<bool(const ServerSentEvent&)>& on_event) {
  while (!piece.empty()) {
    const std::size_t newline = piece.find('\n');
    line_.append(piece.substr(0, newline));
    if (line_.size() + event_.data.size() > kMaxServerSentEventBytes) return false;
    if (newline == std::string_view::npos) return true;
    piece.remove_prefix(newline + 1);
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    if (line_.empty()) {
      if (any_ && !on_event(event_)) return false;
      any_ = false;
      event_.event = "message";
      event_.data.clear();  // the id stays, as in a browser
    } else if (line_[0] != ':') {
      const std::size_t colon = std::min(line_.find(':'), line_.size());
      const std::string_view field = std::string_view(line_).substr(0, colon);
      std::string_view value = std::string_view(line_).substr(std::min(colon + 1, line_.size()));
      if (!value.empty() && value[0] == ' ') value.remove_prefix(1);
      if (field == "data") {
        if (any_) event_.data.push_back('\n');
        event_.data.append(value);
        any_ = true;
      } else if (field == "event") {
        event_.event = value;
      } else if (field == "id") {
        event_.id = value;
      }
    }
    line_.clear();
  }
  return true;
}

}  // namespace takt::net
