// HTTP/1.1 request parser: fed with bytes as they come, strict where two programs could disagree
// on where a request ends (RFC 9112 section 11.2). Knows no socket. One thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "net/http_server.h"

namespace takt::net {

inline constexpr std::size_t kMaxHeaders = 128;          // beyond: 431
inline constexpr std::size_t kMaxChunkLineBytes = 4096;  // size and extensions; beyond: 400

class HttpParser {
 public:
  enum class Result {
    kNeedMore,  // everything was consumed
    kDone,      // request() is whole; `consumed` tells where the next one begins
    kError,     // error_status() and error_message(); the connection has to end
  };
  HttpParser(std::size_t max_header_bytes, std::size_t max_body_bytes)
      : max_header_bytes_(max_header_bytes), max_body_bytes_(max_body_bytes) {}

  Result Feed(std::string_view data, std::size_t* consumed);
  void Reset();  // for the next request

  HttpRequest& request() { return request_; }
  bool started() const { return state_ != State::kHead || !head_.empty(); }  // first byte came
  bool keep_alive() const { return keep_alive_; }
  bool http_1_0() const { return http_1_0_; }
  // True once for a request that waits for "100 Continue" before it sends its body.
  bool TakeExpectContinue();
  int error_status() const { return error_status_; }
  const std::string& error_message() const { return error_message_; }

 private:
  enum class State { kHead, kBody, kChunkSize, kChunkData, kChunkEnd, kTrailer, kDone, kError };

  Result Fail(int status, std::string message);
  bool ParseHead(std::string_view head);  // request line and headers, without the empty line
  bool ParseRequestLine(std::string_view line);
  bool ParseTarget(std::string_view target);
  bool ParseHeaders(std::string_view lines);
  bool Frame();  // how the body is framed
  bool ParseChunkSize(std::string_view line);

  const std::size_t max_header_bytes_, max_body_bytes_;
  State state_ = State::kHead;
  HttpRequest request_;
  std::string head_;  // of a head, chunk line or trailer that came in pieces
  std::size_t left_ = 0, trailer_bytes_ = 0;
  bool keep_alive_ = true, http_1_0_ = false, expect_continue_ = false;
  int error_status_ = 0;
  std::string error_message_;
};

// "%2F", "+" left alone. False for a malformed escape or a NUL.
bool PercentDecode(std::string_view text, bool plus_is_space, std::string* out);
// RFC 9110's token.
bool IsHttpToken(std::string_view text);

}  // namespace takt::net
