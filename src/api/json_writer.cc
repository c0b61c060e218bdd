#include "api/json_writer.h"

#include <array>

namespace takt::api {
namespace {

// Characters of a string that stand for themselves in JSON and are ASCII.
constexpr std::array<bool, 256> kPlain = [] {
  std::array<bool, 256> table{};
  for (int c = ' '; c < 127; ++c) table[c] = c != '"' && c != '\\';
  return table;
}();

// Length of the valid UTF-8 sequence that `text` begins with; 0 where it is none.
std::size_t SequenceLength(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, and what lies beyond U+10FFFF.
  if ((first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) > 0x9f) ||
      (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) > 0x8f)) {
    return 0;
  }
  return length;
}

}  // namespace

JsonWriter& JsonWriter::Value(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  Comma();
  out_->push_back('"');
  while (!text.empty()) {
    std::size_t plain = 0;
    while (plain < text.size() && kPlain[static_cast<unsigned char>(text[plain])]) ++plain;
    out_->append(text.substr(0, plain));
    text.remove_prefix(plain);
    if (text.empty()) break;
    const char c = text.front();
    std::size_t length = SequenceLength(text);
    if (length > 1) {
      out_->append(text.substr(0, length));
    } else if (length == 0) {
      out_->append("\xef\xbf\xbd");
      length = 1;
    } else if (c == '"' || c == '\\') {
      out_->push_back('\\');
      out_->push_back(c);
    } else if (c == '\n') {
      out_->append("\\n");
    } else if (c == '\r') {
      out_->append("\\r");
    } else if (c == '\t') {
      out_->append("\\t");
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out_->append("\\u00");
      out_->push_back(kHex[byte >> 4]);
      out_->push_back(kHex[byte & 15]);
    }
    text.remove_prefix(length);
  }
  out_->push_back('"');
  return *this;
}

}  // namespace takt::api
