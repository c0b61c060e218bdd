// A request whose whole answer is known at once, for tests and fuzzers of Http2Session.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "net/http2_session.h"

namespace takt::net {

inline constexpr HpackEncoder::Field kTestFields[] = {{"x-answer", "yes"}, {"x-end", "now"}};

struct TestRequest : Http2Stream {
  std::string answer;
  std::size_t sent = 0;
  bool headers_sent = false;
};

// As much of it as may go: "x-answer" with the head, "x-end" with the trailers. The request may be
// closed then.
inline void SendAnswer(Http2Session& session, TestRequest& request) {
  if (!session.HasRoom()) return session.Wait(request, false);
  if (!std::exchange(request.headers_sent, true)) {
    session.BeginHeaders();
    session.fields().Status("200", session.block());
    session.fields().Fixed(0, session.block());
    session.EndHeaders(request, false);
  }
  const std::string_view left = std::string_view(request.answer).substr(request.sent);
  const std::size_t n = session.SendData(request, left);
  request.sent += n;
  if (n < left.size()) return session.Wait(request, true);
  session.BeginHeaders();
  session.fields().Fixed(1, session.block());
  session.EndHeaders(request, true);
}

}  // namespace takt::net
