#include "serving/api/json.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

namespace takt::serving {
namespace {

constexpr std::string_view kHexDigits = "0123456789ABCDEF";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

void AppendUtf8(std::uint32_t code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xc0 | code >> 6));
    out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
  } else if (code < 0x10000) {
    out->push_back(static_cast<char>(0xe0 | code >> 12));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
  } else {
    out->push_back(static_cast<char>(0xf0 | code >> 18));
    out->push_back(static_cast<char>(0x80 | (code >> 12 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3f)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
  }
}

template <typename Float>
void AppendDecimal(Float value, std::string* out) {
  if (std::isnan(value)) {
    out->append("NaN");
    return;
  }
  if (std::isinf(value)) {
    out->append(value < 0 ? "-Infinity" : "Infinity");
    return;
  }
  char buffer[40];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value);
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  out->append(text);
  if (text.find_first_of(".e") == std::string_view::npos) out->append(".0");
}

// A double as RapidJSON's writer lays it out: plain up to 21 digits before the point and 6 zeros
// after it, else "1.5e-7", "1e30".
std::string MessageDouble(double value) {
  if (value == 0) return std::signbit(value) ? "-0.0" : "0.0";
  char buffer[40];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), std::abs(value),
                                          std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<std::size_t>(end - buffer));
  const std::size_t e = text.find('e');
  std::string digits(text.substr(0, 1));
  if (e > 2) digits.append(text.substr(2, e - 2));
  int exponent = 0;
  const char* from = text.data() + e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(from, end, exponent);
  const int length = static_cast<int>(digits.size());
  const int point = exponent + 1;  // digits before the decimal point
  std::string out = value < 0 ? "-" : "";
  if (length <= point && point <= 21) {
    out += digits + std::string(static_cast<std::size_t>(point - length), '0') + ".0";
  } else if (point > 0 && point <= 21) {
    out += digits.substr(0, static_cast<std::size_t>(point)) + "." +
           digits.substr(static_cast<std::size_t>(point));
  } else if (point > -6 && point <= 0) {
    out += "0." + std::string(static_cast<std::size_t>(-point), '0') + digits;
  } else {
    out += digits.substr(0, 1);
    if (length > 1) out += "." + digits.substr(1);
    out += StrCat("e", exponent);
  }
  return out;
}

// False where the original's writer stops.
bool AppendMessageText(const JsonValue& value, std::size_t indent, std::string* out) {
  switch (value.type) {
    case JsonValue::Type::kNull:
      out->append("null");
      return true;
    case JsonValue::Type::kFalse:
      out->append("false");
      return true;
    case JsonValue::Type::kTrue:
      out->append("true");
      return true;
    case JsonValue::Type::kString:
      AppendJsonString(value.AsString(), out);
      return true;
    case JsonValue::Type::kNumber:
      if (value.number == JsonValue::Number::kUint64) {
        absl::StrAppend(out, value.AsUint64());
      } else if (value.number == JsonValue::Number::kInt64) {
        absl::StrAppend(out, value.integer);
      } else {
        if (!std::isfinite(value.real)) return false;
        out->append(MessageDouble(value.real));
      }
      return true;
    case JsonValue::Type::kArray:
      out->push_back('[');
      for (std::uint32_t i = 0; i < value.count; ++i) {
        if (i > 0) out->append(", ");
        if (!AppendMessageText(value.values[i], indent + 4, out)) return false;
      }
      out->push_back(']');
      return true;
    case JsonValue::Type::kObject:
      out->push_back('{');
      for (std::uint32_t i = 0; i < value.count; ++i) {
        out->append(i > 0 ? ",\n" : "\n");
        out->append(indent + 4, ' ');
        AppendJsonString(value.MemberName(i), out);
        out->append(": ");
        if (!AppendMessageText(value.MemberValue(i), indent + 4, out)) return false;
      }
      if (value.count > 0) {
        out->push_back('\n');
        out->append(indent, ' ');
      }
      out->push_back('}');
      return true;
  }
  return true;
}

}  // namespace

// Recursive descent; depth is bounded, so the stack is.
class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  absl::StatusOr<JsonDocument> Parse() {
    SkipSpace();
    auto root = std::make_unique<JsonValue>();
    if (at_ >= text_.size()) {
      Fail("The document is empty.", at_);
    } else {
      Value(root.get(), 0);
    }
    if (error_ != nullptr) {
      return absl::InvalidArgumentError(
          StrCat("JSON Parse error: ", error_, " at offset: ", error_at_));
    }
    document_.root_ = std::move(root);
    return std::move(document_);
  }

 private:
  // RapidJSON's stream yields NUL at its end; the same here keeps its errors.
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool Consume(char c) {
    if (Peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }
  void SkipSpace() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
      ++at_;
    }
  }
  bool Fail(const char* message, std::size_t at) {
    if (error_ == nullptr) {
      error_ = message;
      error_at_ = at;
    }
    return false;
  }

  bool Value(JsonValue* out, int depth) {
    ++document_.nodes_;
    switch (Peek()) {
      case '{':
        return Object(out, depth);
      case '[':
        return Array(out, depth);
      case '"':
        return String(out);
      case 'n':
        return Word("null", JsonValue::Type::kNull, out);
      case 't':
        return Word("true", JsonValue::Type::kTrue, out);
      case 'f':
        return Word("false", JsonValue::Type::kFalse, out);
      default:
        return Number(out);
    }
  }

  bool Word(std::string_view word, JsonValue::Type type, JsonValue* out) {
    for (const char c : word) {
      if (!Consume(c)) return Fail("Invalid value.", at_);
    }
    out->type = type;
    return true;
  }

  // Moves what lies on stack_ from `begin` on into an array of the document.
  const JsonValue* Keep(std::size_t begin) {
    const std::size_t size = stack_.size() - begin;
    if (size == 0) return nullptr;
    auto array = std::make_unique<JsonValue[]>(size);
    std::copy(stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end(), array.get());
    stack_.resize(begin);
    document_.arrays_.push_back(std::move(array));
    return document_.arrays_.back().get();
  }

  bool Array(JsonValue* out, int depth) {
    if (depth >= kMaxJsonDepth) return Fail("Nested too deeply.", at_);
    ++at_;
    const std::size_t begin = stack_.size();
    SkipSpace();
    if (!Consume(']')) {
      while (true) {
        JsonValue element;
        if (!Value(&element, depth + 1)) return false;
        stack_.push_back(element);
        SkipSpace();
        if (Consume(',')) {
          SkipSpace();
        } else if (Consume(']')) {
          break;
        } else {
          return Fail("Missing a comma or ] after an array element.", at_);
        }
      }
    }
    out->type = JsonValue::Type::kArray;
    out->count = static_cast<std::uint32_t>(stack_.size() - begin);
    out->values = Keep(begin);
    return true;
  }

  bool Object(JsonValue* out, int depth) {
    if (depth >= kMaxJsonDepth) return Fail("Nested too deeply.", at_);
    ++at_;
    const std::size_t begin = stack_.size();
    SkipSpace();
    if (!Consume('}')) {
      while (true) {
        if (Peek() != '"') return Fail("Missing a name for object member.", at_);
        JsonValue name;
        if (!String(&name)) return false;
        SkipSpace();
        if (!Consume(':')) return Fail("Missing a colon after a name of object member.", at_);
        SkipSpace();
        JsonValue value;
        if (!Value(&value, depth + 1)) return false;
        stack_.push_back(name);
        stack_.push_back(value);
        SkipSpace();
        if (Consume(',')) {
          SkipSpace();
        } else if (Consume('}')) {
          break;
        } else {
          return Fail("Missing a comma or } after an object member.", at_);
        }
      }
    }
    out->type = JsonValue::Type::kObject;
    out->count = static_cast<std::uint32_t>((stack_.size() - begin) / 2);
    out->values = Keep(begin);
    return true;
  }

  std::optional<std::uint32_t> Hex4(std::size_t escape_at) {
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = Peek();
      code <<= 4;
      if (IsDigit(c)) {
        code += static_cast<std::uint32_t>(c - '0');
      } else if (c >= 'A' && c <= 'F') {
        code += static_cast<std::uint32_t>(c - 'A' + 10);
      } else if (c >= 'a' && c <= 'f') {
        code += static_cast<std::uint32_t>(c - 'a' + 10);
      } else {
        Fail("Incorrect hex digit after \\u escape in string.", escape_at);
        return std::nullopt;
      }
      ++at_;
    }
    return code;
  }

  bool String(JsonValue* out) {
    ++at_;
    out->type = JsonValue::Type::kString;
    const std::size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
           static_cast<unsigned char>(text_[at_]) >= 0x20) {
      ++at_;
    }
    if (at_ < text_.size() && text_[at_] == '"') {
      out->text = text_.data() + begin;
      out->text_bytes = at_ - begin;
      ++at_;
      return true;
    }
    std::string& copy = document_.strings_.emplace_back(text_.substr(begin, at_ - begin));
    while (true) {
      const char c = Peek();
      if (at_ >= text_.size() || c == '\0') {
        return Fail("Missing a closing quotation mark in string.", at_);
      }
      if (c == '"') {
        ++at_;
        break;
      }
      if (static_cast<unsigned char>(c) < 0x20) return Fail("Invalid encoding in string.", at_);
      if (c != '\\') {
        copy.push_back(c);
        ++at_;
        continue;
      }
      if (!Escape(&copy)) return false;
    }
    out->text = copy.data();
    out->text_bytes = copy.size();
    return true;
  }

  bool Escape(std::string* out) {
    const std::size_t escape_at = at_;
    ++at_;
    const char e = Peek();
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
    const std::size_t which = kNames.find(e);
    if (at_ < text_.size() && which != std::string_view::npos) {
      ++at_;
      out->push_back(kValues[which]);
      return true;
    }
    if (e != 'u') return Fail("Invalid escape character in string.", escape_at);
    ++at_;
    std::optional<std::uint32_t> code = Hex4(escape_at);
    if (!code.has_value()) return false;
    if (*code >= 0xd800 && *code <= 0xdfff) {
      if (*code > 0xdbff || !Consume('\\') || !Consume('u')) {
        return Fail("The surrogate pair in string is invalid.", escape_at);
      }
      const std::optional<std::uint32_t> low = Hex4(escape_at);
      if (!low.has_value()) return false;
      if (*low < 0xdc00 || *low > 0xdfff) {
        return Fail("The surrogate pair in string is invalid.", escape_at);
      }
      code = (((*code - 0xd800) << 10) | (*low - 0xdc00)) + 0x10000;
    }
    AppendUtf8(*code, out);
    return true;
  }

  bool Number(JsonValue* out) {
    out->type = JsonValue::Type::kNumber;
    const std::size_t begin = at_;
    const bool minus = Consume('-');
    if (!IsDigit(Peek())) return NotFinite(minus, out);
    const std::size_t digits = at_;
    if (!Consume('0')) {
      while (IsDigit(Peek())) ++at_;
    }
    const std::size_t digits_end = at_;
    bool whole = true;
    if (Consume('.')) {
      whole = false;
      if (!IsDigit(Peek())) return Fail("Miss fraction part in number.", at_);
      while (IsDigit(Peek())) ++at_;
    }
    if (Peek() == 'e' || Peek() == 'E') {
      whole = false;
      ++at_;
      if (!Consume('+')) Consume('-');
      if (!IsDigit(Peek())) return Fail("Miss exponent in number.", at_);
      while (IsDigit(Peek())) ++at_;
    }
    const char* first = text_.data() + begin;
    const char* last = text_.data() + at_;
    if (whole) {
      std::int64_t integer = 0;
      if (std::from_chars(first, last, integer).ec == std::errc()) {
        out->number = JsonValue::Number::kInt64;
        out->integer = integer;
        return true;
      }
      std::uint64_t large = 0;
      if (!minus && std::from_chars(text_.data() + digits, text_.data() + digits_end, large).ec ==
                        std::errc()) {
        out->number = JsonValue::Number::kUint64;
        out->integer = static_cast<std::int64_t>(large);
        return true;
      }
    }
    double real = 0;
    const auto parsed = std::from_chars(first, last, real);
    if (parsed.ec == std::errc::result_out_of_range) {
      // Too small reads as zero; too big is refused. from_chars says the same for both.
      if (!TooSmall(begin, digits)) return Fail("Number too big to be stored in double.", begin);
      real = minus ? -0.0 : 0.0;
    }
    out->number = JsonValue::Number::kDouble;
    out->real = real;
    return true;
  }

  // Of a number that is out of range: whether it lies near zero. Its exponent tells, counted from
  // the first digit that is not zero.
  bool TooSmall(std::size_t begin, std::size_t digits) const {
    const std::string_view number = text_.substr(begin, at_ - begin);
    const std::size_t e = number.find_first_of("eE");
    if (e == std::string_view::npos)
      return number.find('.') == digits - begin + 1 && number[digits - begin] == '0';
    return number[e + 1] == '-';
  }

  bool NotFinite(bool minus, JsonValue* out) {
    out->number = JsonValue::Number::kDouble;
    if (Consume('N')) {
      if (Consume('a') && Consume('N')) {
        out->real = std::numeric_limits<double>::quiet_NaN();
        return true;
      }
    } else if (Consume('I')) {
      if (Consume('n') && Consume('f')) {
        if (Peek() == 'i') {
          for (const char c : std::string_view("inity")) {
            if (!Consume(c)) return Fail("Invalid value.", at_);
          }
        }
        out->real = minus ? -std::numeric_limits<double>::infinity()
                          : std::numeric_limits<double>::infinity();
        return true;
      }
    }
    return Fail("Invalid value.", at_);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  const char* error_ = nullptr;
  std::size_t error_at_ = 0;
  std::vector<JsonValue> stack_;
  JsonDocument document_;
};

const JsonValue* JsonValue::Member(std::string_view name) const {
  if (!IsObject()) return nullptr;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (MemberName(i) == name) return &MemberValue(i);
  }
  return nullptr;
}

absl::StatusOr<JsonDocument> JsonDocument::Parse(std::string_view text) {
  if (text.empty()) {
    return absl::InvalidArgumentError("JSON Parse error: The document is empty");
  }
  return JsonParser(text).Parse();
}

std::string_view JsonTypeName(const JsonValue& value) {
  constexpr std::string_view kNames[] = {"Null",  "False",  "True",  "Object",
                                         "Array", "String", "Number"};
  return kNames[static_cast<int>(value.type)];
}

std::string JsonText(const JsonValue& value) {
  std::string text;
  AppendMessageText(value, 0, &text);
  return text;
}

void AppendJsonString(std::string_view text, std::string* out) {
  out->push_back('"');
  std::size_t plain = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\') continue;
    out->append(text.substr(plain, i - plain));
    plain = i + 1;
    out->push_back('\\');
    constexpr std::string_view kRaw = "\"\\\b\f\n\r\t";
    constexpr std::string_view kNames = "\"\\bfnrt";
    if (const std::size_t which = kRaw.find(c); which != std::string_view::npos) {
      out->push_back(kNames[which]);
    } else {
      out->append("u00");
      out->push_back(kHexDigits[static_cast<unsigned char>(c) >> 4]);
      out->push_back(kHexDigits[static_cast<unsigned char>(c) & 15]);
    }
  }
  out->append(text.substr(plain));
  out->push_back('"');
}

void AppendJsonFloat(float value, std::string* out) { AppendDecimal(value, out); }
void AppendJsonDouble(double value, std::string* out) { AppendDecimal(value, out); }

std::string JsonError(std::string_view message) {
  std::string out = "{\n    \"error\": ";
  AppendJsonString(message, &out);
  out.append("\n}");
  return out;
}

}  // namespace takt::serving
