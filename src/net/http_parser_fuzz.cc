// Any bytes, in one piece and in many: the same request or a refusal, within the limits.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "net/http_parser.h"

namespace {

using takt::net::HttpParser;

constexpr std::size_t kMaxHeaderBytes = 512, kMaxBodyBytes = 256;

void Require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t piece = data[0] == 0 ? 1 : data[0];
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);

  HttpParser whole(kMaxHeaderBytes, kMaxBodyBytes), pieces(kMaxHeaderBytes, kMaxBodyBytes);
  std::size_t consumed = 0;
  const HttpParser::Result result = whole.Feed(text, &consumed);
  Require(consumed <= text.size());

  std::size_t total = 0;
  HttpParser::Result in_pieces = HttpParser::Result::kNeedMore;
  while (total < text.size() && in_pieces == HttpParser::Result::kNeedMore) {
    std::size_t n = 0;
    const std::string_view next = text.substr(total, piece);
    in_pieces = pieces.Feed(next, &n);
    Require(n <= next.size());
    Require(in_pieces != HttpParser::Result::kNeedMore || n == next.size());
    total += n;
  }
  // An empty text is fed to neither.
  if (!text.empty()) Require(result == in_pieces || result == HttpParser::Result::kNeedMore);
  if (result == HttpParser::Result::kDone) {
    Require(total == consumed);
    const takt::net::HttpRequest &a = whole.request(), &b = pieces.request();
    Require(a.method == b.method && a.target == b.target && a.path == b.path);
    Require(a.headers == b.headers && a.query == b.query && a.body == b.body);
    Require(a.body.size() <= kMaxBodyBytes && a.headers.size() <= takt::net::kMaxHeaders);
    Require(a.path.find('\0') == std::string::npos);
    for (const auto& [name, value] : a.headers) {
      Require(value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
    }
  } else if (result == HttpParser::Result::kError) {
    Require(whole.error_status() >= 400 && !whole.error_message().empty());
  }
  return 0;
}
