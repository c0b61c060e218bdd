#include "net/http_parser.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace takt::net {
namespace {

constexpr std::array<bool, 256> kTokenCharacters = [] {
  std::array<bool, 256> table{};
  for (int c = '0'; c <= '9'; ++c) table[c] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[c] = true;
  for (int c = 'A'; c <= 'Z'; ++c) table[c] = true;
  for (const char c : {'!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~'})
    table[static_cast<unsigned char>(c)] = true;
  return table;
}();

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string_view TrimBlanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool EqualsNoCase(std::string_view a, std::string_view b) {
  return absl::EqualsIgnoreCase(ToAbsl(a), ToAbsl(b));
}

// Whether the comma-separated list has the (lower-case) word.
bool ListHas(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    if (EqualsNoCase(TrimBlanks(list.substr(0, comma)), word)) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

void ParseQuery(std::string_view text, HttpRequest* request, bool* ok) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('&'), text.size());
    const std::string_view pair = text.substr(0, end);
    if (!pair.empty()) {
      const std::size_t equals = std::min(pair.find('='), pair.size());
      std::pair<std::string, std::string> decoded;
      *ok = *ok && PercentDecode(pair.substr(0, equals), true, &decoded.first) &&
            PercentDecode(pair.substr(std::min(equals + 1, pair.size())), true, &decoded.second);
      request->query.push_back(std::move(decoded));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

bool IsHttpToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return kTokenCharacters[static_cast<unsigned char>(c)];
  });
}

bool PercentDecode(std::string_view text, bool plus_is_space, std::string* out) {
  out->clear();
  out->reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (text.size() - i < 3) return false;
      const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
      if (high < 0 || low < 0 || (high == 0 && low == 0)) return false;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    out->push_back(c);
  }
  return true;
}

std::string_view HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return value;
  }
  return {};
}

std::string_view HttpRequest::Query(std::string_view name) const {
  for (const auto& [key, value] : query) {
    if (key == name) return value;
  }
  return {};
}

void HttpParser::Reset() {
  state_ = State::kHead;
  request_ = HttpRequest();
  head_.clear();
  left_ = trailer_bytes_ = 0;
  keep_alive_ = true;
  http_1_0_ = expect_continue_ = false;
}

HttpParser::Result HttpParser::Fail(int status, std::string message) {
  state_ = State::kError;
  keep_alive_ = false;
  if (error_status_ == 0) {
    error_status_ = status;
    error_message_ = std::move(message);
  }
  return Result::kError;
}

bool HttpParser::TakeExpectContinue() { return std::exchange(expect_continue_, false); }

HttpParser::Result HttpParser::Feed(std::string_view data, std::size_t* consumed) {
  const std::size_t size = data.size();
  *consumed = size;
  while (true) {
    switch (state_) {
      case State::kHead: {
        // An empty line before a request is tolerated (RFC 9112 section 2.2), in pieces too.
        if (head_ == "\r" && data.substr(0, 1) == "\n") {
          head_.clear();
          data.remove_prefix(1);
        }
        if (head_.empty()) {
          while (data.substr(0, 2) == "\r\n") data.remove_prefix(2);
        }
        if (data.empty()) return Result::kNeedMore;
        const std::size_t had = head_.size();
        std::string_view text = data;
        if (had > 0) {
          head_.append(data.substr(0, max_header_bytes_ + 4 - std::min(had, max_header_bytes_)));
          text = head_;
        }
        const std::size_t from = had > 3 ? had - 3 : 0;
        const void* found =
            memmem(text.data() + from, text.size() - from, "\r\n\r\n", std::size_t{4});
        if (found == nullptr) {
          if (text.size() > max_header_bytes_ + 3) {  // three may belong to the empty line
            return Fail(431, StrCat("headers are larger than ", max_header_bytes_, " bytes"));
          }
          const std::size_t newline = text.find('\n', from > 0 ? from - 1 : 0);
          if (newline != std::string_view::npos && (newline == 0 || text[newline - 1] != '\r')) {
            return Fail(400, "a line ends with LF alone; HTTP wants CR LF");
          }
          if (had == 0) head_.assign(data);
          return Result::kNeedMore;
        }
        const std::size_t length = static_cast<const char*>(found) - text.data();
        if (length > max_header_bytes_) {
          return Fail(431, StrCat("headers are larger than ", max_header_bytes_, " bytes"));
        }
        if (!ParseHead(text.substr(0, length)) || !Frame()) return Result::kError;
        data.remove_prefix(length + 4 - had);
        head_.clear();
        break;
      }
      case State::kBody:
      case State::kChunkData: {
        const std::size_t take = std::min(left_, data.size());
        request_.body.append(data.substr(0, take));
        data.remove_prefix(take);
        left_ -= take;
        if (left_ > 0) return Result::kNeedMore;
        state_ = state_ == State::kBody ? State::kDone : State::kChunkEnd;
        break;
      }
      case State::kChunkSize:
      case State::kChunkEnd:
      case State::kTrailer: {
        const std::size_t newline = data.find('\n');
        const std::size_t take = newline == std::string_view::npos ? data.size() : newline + 1;
        const std::size_t limit =
            state_ == State::kTrailer ? max_header_bytes_ : kMaxChunkLineBytes;
        trailer_bytes_ += state_ == State::kTrailer ? take : 0;
        if (head_.size() + take > limit || trailer_bytes_ > limit) {
          return state_ == State::kTrailer
                     ? Fail(431, StrCat("trailers are larger than ", limit, " bytes"))
                     : Fail(400, StrCat("a chunk's size line is longer than ", limit, " bytes"));
        }
        head_.append(data.substr(0, take));
        data.remove_prefix(take);
        if (newline == std::string_view::npos) return Result::kNeedMore;
        if (head_.size() < 2 || head_[head_.size() - 2] != '\r') {
          return Fail(400, "a line of a chunked body does not end with CR LF");
        }
        const std::string_view line = std::string_view(head_).substr(0, head_.size() - 2);
        if (state_ == State::kChunkEnd) {
          if (!line.empty()) return Fail(400, "a chunk is longer than its size says");
          state_ = State::kChunkSize;
        } else if (state_ == State::kChunkSize) {
          if (!ParseChunkSize(line)) return Result::kError;
        } else if (line.empty()) {
          state_ = State::kDone;
        }
        head_.clear();
        break;
      }
      case State::kDone:
        *consumed = size - data.size();
        return Result::kDone;
      case State::kError:
        return Result::kError;
    }
  }
}

bool HttpParser::ParseHead(std::string_view head) {
  const std::size_t end = std::min(head.find("\r\n"), head.size());
  return ParseRequestLine(head.substr(0, end)) &&
         ParseHeaders(head.substr(std::min(end + 2, head.size())));
}

bool HttpParser::ParseRequestLine(std::string_view line) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last || line.find(' ', first + 1) != last) {
    Fail(400, "expected a request line METHOD TARGET HTTP/1.1");
    return false;
  }
  const std::string_view method = line.substr(0, first);
  const std::string_view version = line.substr(last + 1);
  if (!IsHttpToken(method)) {
    Fail(400, "the method is not a token");
    return false;
  }
  if (version == "HTTP/1.0") {
    http_1_0_ = true;
    keep_alive_ = false;
  } else if (version != "HTTP/1.1") {
    const bool http = version.size() == 8 && version.substr(0, 5) == "HTTP/";
    Fail(http ? 505 : 400, "expected HTTP/1.1");
    return false;
  }
  request_.method.assign(method);
  return ParseTarget(line.substr(first + 1, last - first - 1));
}

bool HttpParser::ParseTarget(std::string_view target) {
  for (const char c : target) {
    if (static_cast<unsigned char>(c) <= ' ' || c == 127) {
      Fail(400, "the request's target has a control character");
      return false;
    }
  }
  request_.target.assign(target);
  if (target.substr(0, 7) == "http://") {  // absolute form, as proxies send it
    const std::size_t slash = target.find('/', 7);
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  } else if (target != "*" && (target.empty() || target[0] != '/')) {
    Fail(400, "the request's target is not a path");
    return false;
  }
  target = target.substr(0, target.find('#'));
  const std::size_t question = std::min(target.find('?'), target.size());
  bool ok = PercentDecode(target.substr(0, question), false, &request_.path);
  ParseQuery(target.substr(std::min(question + 1, target.size())), &request_, &ok);
  if (!ok) Fail(400, "the request's target has a malformed percent escape");
  return ok;
}

bool HttpParser::ParseHeaders(std::string_view lines) {
  request_.headers.reserve(8);
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find("\r\n"), lines.size());
    const std::string_view line = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 2, lines.size()));
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || !IsHttpToken(line.substr(0, colon))) {
      // Also a folded line, and a blank before the colon: both have served to smuggle requests.
      Fail(400, "a header line is not NAME: VALUE");
      return false;
    }
    const std::string_view value = TrimBlanks(line.substr(colon + 1));
    for (const char c : value) {
      if ((static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 127) {
        Fail(400, "a header's value has a control character");
        return false;
      }
    }
    if (request_.headers.size() >= kMaxHeaders) {
      Fail(431, StrCat("more than ", kMaxHeaders, " headers"));
      return false;
    }
    auto& [name, stored] = request_.headers.emplace_back();
    name.resize(colon);
    std::transform(line.begin(), line.begin() + colon, name.begin(),
                   [](char c) { return absl::ascii_tolower(static_cast<unsigned char>(c)); });
    stored.assign(value);
  }
  return true;
}

bool HttpParser::Frame() {
  const std::string* length = nullptr;
  const std::string* encoding = nullptr;
  int hosts = 0;
  for (const auto& [name, value] : request_.headers) {
    const std::string** once = name == "content-length"      ? &length
                               : name == "transfer-encoding" ? &encoding
                                                             : nullptr;
    if (once != nullptr && std::exchange(*once, &value) != nullptr) {
      Fail(400, StrCat("the header ", name, " came twice"));
      return false;
    }
    if (name == "host") {
      ++hosts;
    } else if (name == "connection") {
      if (ListHas(value, "close")) {
        keep_alive_ = false;
      } else if (http_1_0_ && ListHas(value, "keep-alive")) {
        keep_alive_ = true;
      }
    } else if (name == "expect") {
      if (!EqualsNoCase(value, "100-continue")) {
        Fail(417, "the only expectation that can be met is 100-continue");
        return false;
      }
      expect_continue_ = !http_1_0_;
    }
  }
  if (hosts > 1 || (hosts == 0 && !http_1_0_)) {
    Fail(400, hosts > 1 ? "the header host came twice" : "the header host is missing");
    return false;
  }
  if (encoding != nullptr && (length != nullptr || http_1_0_)) {
    Fail(400, length != nullptr ? "both content-length and transfer-encoding"
                                : "transfer-encoding in HTTP/1.0");
    return false;
  }
  if (encoding != nullptr) {
    if (!EqualsNoCase(*encoding, "chunked")) {
      Fail(501, "the only transfer-encoding is chunked");
      return false;
    }
    state_ = State::kChunkSize;
    return true;
  }
  left_ = 0;
  if (length != nullptr) {
    const bool digits = !length->empty() && length->size() <= 18 &&
                        length->find_first_not_of("0123456789") == std::string::npos;
    if (!digits) {
      Fail(400, "content-length is not a number");
      return false;
    }
    left_ = std::stoull(*length);
    if (left_ > max_body_bytes_) {
      Fail(413,
           StrCat("the body has ", left_, " bytes, at most ", max_body_bytes_, " are allowed"));
      return false;
    }
    request_.body.reserve(std::min<std::size_t>(left_, 1 << 20));
  }
  state_ = left_ > 0 ? State::kBody : State::kDone;
  expect_continue_ = expect_continue_ && left_ > 0;
  return true;
}

bool HttpParser::ParseChunkSize(std::string_view line) {
  std::string_view digits = TrimBlanks(line.substr(0, line.find(';')));
  std::size_t size = 0;
  bool ok = !digits.empty() && digits.size() <= 15 && digits.data() == line.data();
  for (const char c : digits) {
    ok = ok && HexDigit(c) >= 0;
    size = size * 16 + static_cast<std::size_t>(std::max(0, HexDigit(c)));
  }
  for (const char c : line) ok = ok && (static_cast<unsigned char>(c) >= ' ' || c == '\t');
  if (!ok) {
    Fail(400, "a chunk's size is not a hexadecimal number");
    return false;
  }
  if (size > max_body_bytes_ || request_.body.size() + size > max_body_bytes_) {
    Fail(413, StrCat("the body has more than the allowed ", max_body_bytes_, " bytes"));
    return false;
  }
  left_ = size;
  state_ = size > 0 ? State::kChunkData : State::kTrailer;
  return true;
}

}  // namespace takt::net
