// What is a request, where it ends, and what is refused.
#include "net/http_parser.h"

#include <gtest/gtest.h>

namespace takt::net {
namespace {

struct Case {
  const char* name;
  std::string text;
  int status;  // 0: a whole request
  std::string body;
};

std::vector<Case> Cases() {
  const std::string host = "Host: a\r\n";
  return {
      {"plain", "GET / HTTP/1.1\r\n" + host + "\r\n", 0, ""},
      {"empty lines before", "\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", 0, ""},
      {"body", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc", 0, "abc"},
      {"chunked",
       "POST / HTTP/1.1\r\n" + host +
           "Transfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\n",
       0, "abc0123456789"},
      {"1.0 needs no host", "GET / HTTP/1.0\r\n\r\n", 0, ""},
      {"absolute form", "GET http://a/b HTTP/1.1\r\n" + host + "\r\n", 0, ""},
      {"no target", "GET HTTP/1.1\r\n" + host + "\r\n", 400, ""},
      {"two blanks", "GET  / HTTP/1.1\r\n" + host + "\r\n", 400, ""},
      {"blank in target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", 400, ""},
      {"bad method", "G(T / HTTP/1.1\r\n" + host + "\r\n", 400, ""},
      {"HTTP/2 text", "GET / HTTP/2.0\r\n" + host + "\r\n", 505, ""},
      {"another protocol", "GET / SPDY/1\r\n" + host + "\r\n", 400, ""},
      {"TLS hello", std::string("\x16\x03\x01\x02\x00\x01\r\n\r\n", 10), 400, ""},
      {"bad escape", "GET /%zz HTTP/1.1\r\n" + host + "\r\n", 400, ""},
      {"escaped NUL", "GET /%00 HTTP/1.1\r\n" + host + "\r\n", 400, ""},
      {"cut escape", "GET /?a=%4 HTTP/1.1\r\n" + host + "\r\n", 400, ""},
      {"relative target", "GET a HTTP/1.1\r\n" + host + "\r\n", 400, ""},
      {"no host", "GET / HTTP/1.1\r\n\r\n", 400, ""},
      {"two hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", 400, ""},
      {"LF alone", "GET / HTTP/1.1\nHost: a\n\n", 400, ""},
      {"LF alone later", "GET / HTTP/1.1\r\n" + host + "A: b\nC: d\r\n\r\n", 400, ""},
      {"CR inside", "GET / HTTP/1.1\r\n" + host + "A: b\rC\r\n\r\n", 400, ""},
      {"NUL inside", "GET / HTTP/1.1\r\n" + host + std::string("A: b\0c", 6) + "\r\n\r\n", 400, ""},
      {"folded", "GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", 400, ""},
      {"blank before colon", "GET / HTTP/1.1\r\n" + host + "Content-Length : 3\r\n\r\nabc", 400,
       ""},
      {"no colon", "GET / HTTP/1.1\r\n" + host + "abc\r\n\r\n", 400, ""},
      {"length and encoding",
       "POST / HTTP/1.1\r\n" + host +
           "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       400, ""},
      {"two lengths",
       "POST / HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, ""},
      {"list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc", 400,
       ""},
      {"signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc", 400, ""},
      {"hex length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x3\r\n\r\nabc", 400, ""},
      {"endless length",
       "POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999\r\n\r\n", 400, ""},
      {"large length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 101\r\n\r\n", 413, ""},
      {"two encodings",
       "POST / HTTP/1.1\r\n" + host +
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       400, ""},
      {"gzip, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n",
       501, ""},
      {"xchunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n", 501, ""},
      {"encoding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
       ""},
      {"chunk without size",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n\r\n", 400, ""},
      {"chunk size signed",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400, ""},
      {"chunk size 0x",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n", 400, ""},
      {"chunk size overflows",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
       400, ""},
      {"chunk too long for its size",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
       400, ""},
      {"chunk line with LF alone",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400,
       ""},
      {"chunks beyond the limit",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n40\r\n" +
           std::string(64, 'a') + "\r\n40\r\n",
       413, ""},
      {"chunk line beyond its limit",
       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3;" +
           std::string(kMaxChunkLineBytes, 'x'),
       400, ""},
      {"trailers beyond the limit",
       "POST / HTTP/1.1\r\n" + host +
           "Transfer-Encoding: chunked\r\n\r\n0\r\nT: " + std::string(5000, 'x') + "\r\n\r\n",
       431, ""},
      {"headers beyond the limit",
       "GET / HTTP/1.1\r\n" + host + "A: " + std::string(5000, 'x') + "\r\n\r\n", 431, ""},
      {"too many headers",
       [&] {
         std::string text = "GET / HTTP/1.1\r\n" + host;
         for (std::size_t i = 0; i < kMaxHeaders; ++i) text += "A: b\r\n";
         return text + "\r\n";
       }(),
       431, ""},
      {"expects the impossible", "POST / HTTP/1.1\r\n" + host + "Expect: tea\r\n\r\n", 417, ""},
  };
}

// Feeds in pieces; says how much was consumed in all.
HttpParser::Result FeedAll(HttpParser& parser, std::string_view text, std::size_t piece,
                           std::size_t* total) {
  *total = 0;
  HttpParser::Result result = HttpParser::Result::kNeedMore;
  while (*total < text.size() && result == HttpParser::Result::kNeedMore) {
    std::size_t consumed = 0;
    result = parser.Feed(text.substr(*total, piece), &consumed);
    *total += consumed;
  }
  return result;
}

TEST(HttpParser, TakesAndRefusesTheSameInOnePieceAndInMany) {
  for (const Case& c : Cases()) {
    for (const std::size_t piece : {c.text.size(), std::size_t{7}, std::size_t{1}}) {
      SCOPED_TRACE(StrCat(c.name, ", pieces of ", piece));
      HttpParser parser(4096, 100);
      std::size_t consumed = 0;
      const HttpParser::Result result = FeedAll(parser, c.text, piece, &consumed);
      if (c.status == 0) {
        ASSERT_EQ(result, HttpParser::Result::kDone) << parser.error_message();
        EXPECT_EQ(parser.request().body, c.body);
        EXPECT_EQ(consumed, c.text.size());
      } else {
        ASSERT_EQ(result, HttpParser::Result::kError);
        EXPECT_EQ(parser.error_status(), c.status) << parser.error_message();
        EXPECT_FALSE(parser.error_message().empty());
        EXPECT_FALSE(parser.keep_alive());
      }
    }
  }
}

TEST(HttpParser, LeavesTheNextRequestAlone) {
  const std::string first = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab";
  HttpParser parser(4096, 100);
  std::size_t consumed = 0;
  ASSERT_EQ(parser.Feed(first + "GET /b HTTP/1.1\r\n", &consumed), HttpParser::Result::kDone);
  EXPECT_EQ(consumed, first.size());
}

TEST(HttpParser, DecodesPathQueryAndHeaders) {
  HttpParser parser(4096, 100);
  std::size_t consumed = 0;
  ASSERT_EQ(
      parser.Feed("GET /a%20b+c?x=1+2&y=%26&flag&=v HTTP/1.1\r\nHOST: h\r\nX-A:  b c \r\n\r\n",
                  &consumed),
      HttpParser::Result::kDone);
  const HttpRequest& request = parser.request();
  EXPECT_EQ(request.path, "/a b+c");
  EXPECT_EQ(request.Query("x"), "1 2");
  EXPECT_EQ(request.Query("y"), "&");
  EXPECT_EQ(request.query.size(), 4u);
  EXPECT_EQ(request.Query("absent"), "");
  EXPECT_EQ(request.Header("host"), "h");
  EXPECT_EQ(request.Header("x-a"), "b c");
}

TEST(HttpParser, KeepsTheConnectionAsTheVersionAndTheHeaderSay) {
  const std::vector<std::pair<std::string, bool>> cases = {
      {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
      {"GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n", false},
      {"GET / HTTP/1.0\r\n\r\n", false},
      {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
  };
  for (const auto& [text, keep] : cases) {
    HttpParser parser(4096, 100);
    std::size_t consumed = 0;
    ASSERT_EQ(parser.Feed(text, &consumed), HttpParser::Result::kDone);
    EXPECT_EQ(parser.keep_alive(), keep) << text;
  }
}

}  // namespace
}  // namespace takt::net
