#include "api/json_writer.h"

#include <array>

#include "base/text.h"

namespace takt::api {
namespace {

// Characters of a string that stand for themselves in JSON and are ASCII.
constexpr std::array<bool, 256> kPlain = [] {
  std::array<bool, 256> table{};
  for (int c = ' '; c < 127; ++c) table[c] = c != '"' && c != '\\';
  return table;
}();

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
    std::size_t length = Utf8Length(text);
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
