#include "serving/api/json.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

namespace takt::serving {
namespace {

constexpr std::string_view kHexDigits = "0123456789ABCDEF";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// The digits that `text` begins with, at most eight of them, all at once: how many, and their
// value.
inline std::size_t EightDigits(const char* text, std::uint64_t* value) {
  constexpr std::uint64_t kZeros = 0x3030303030303030;
  constexpr std::uint64_t kAboveNine = 0x4646464646464646;  // carries into bit 7 from '9' + 1 on
  constexpr std::uint64_t kTopBits = 0x8080808080808080;
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, text, sizeof bytes);
  const std::uint64_t others = ((bytes + kAboveNine) | (bytes - kZeros) | bytes) & kTopBits;
  const auto count = static_cast<std::size_t>(std::countr_zero(others)) / 8;  // of 64: eight
  if (count == 0) {
    *value = 0;
    return 0;
  }
  // The first digit is the lowest byte. Shifted up, what is below reads as zeros before it.
  bytes = (bytes - kZeros) << (64 - 8 * count);
  bytes = bytes * 10 + (bytes >> 8);  // pairs of digits, in every other byte
  constexpr std::uint64_t kPairs = 0x000000ff000000ff;
  *value = ((bytes & kPairs) * (100 + (std::uint64_t{1000000} << 32)) +
            ((bytes >> 16) & kPairs) * (1 + (std::uint64_t{10000} << 32))) >>
           32;
  return count;
}

constexpr std::uint64_t kPowersOfTen[] = {1,       10,        100,        1'000,      10'000,
                                          100'000, 1'000'000, 10'000'000, 100'000'000};
constexpr double kExactPowersOfTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                        1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                        1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr std::uint64_t kLargestExact = std::uint64_t{1} << 53;  // whole numbers in a double

// The digits at `at`, which moves behind them, appended to `value`; how many there were. Past 19
// the value has overflowed.
inline std::size_t TakeDigits(const char*& at, std::uint64_t* value) {
  std::size_t total = 0;
  std::size_t count = 0;
  do {
    std::uint64_t digits = 0;
    count = EightDigits(at, &digits);
    *value = *value * kPowersOfTen[count] + digits;
    at += count;
    total += count;
  } while (count == 8 && total <= 16);
  return total;
}

struct QuickNumber {
  double real = 0;
  bool whole = false;
};

// Reads the number at `at`, which moves behind it, where that can be done exactly with little work:
// digits and exponent such that one operation on doubles rounds as the whole number does. False:
// read it the other way; `at` is where it was. At least kQuickBytes can be read at `at`.
constexpr std::size_t kQuickBytes = 64;
inline bool ReadQuickNumber(const char*& at, QuickNumber* out) {
  static_assert(std::endian::native == std::endian::little);
  constexpr std::size_t kMostDigits = 19;
  const char* p = at;
  const bool minus = *p == '-';
  if (minus) ++p;
  const bool zero = *p == '0';
  std::uint64_t digits = 0;
  std::size_t total = 1;
  if (IsDigit(p[0]) && !IsDigit(p[1])) {  // most often
    digits = static_cast<std::uint64_t>(*p++ - '0');
  } else {
    total = TakeDigits(p, &digits);
  }
  if (total == 0 || total > kMostDigits || (zero && total > 1)) return false;
  int exponent = 0;
  out->whole = true;
  if (*p == '.') {
    ++p;
    out->whole = false;
    const std::size_t fraction = TakeDigits(p, &digits);
    total += fraction;
    if (fraction == 0 || total > kMostDigits) return false;
    exponent = -static_cast<int>(fraction);
  }
  if (*p == 'e' || *p == 'E') {
    ++p;
    out->whole = false;
    const bool down = *p == '-';
    if (down || *p == '+') ++p;
    std::uint64_t by = 0;
    const std::size_t count = TakeDigits(p, &by);
    if (count == 0 || count > 3) return false;
    exponent += down ? -static_cast<int>(by) : static_cast<int>(by);
  }
  constexpr int kMostExponent = static_cast<int>(std::size(kExactPowersOfTen)) - 1;
  if (digits > kLargestExact || exponent > kMostExponent || exponent < -kMostExponent) return false;
  if (out->whole) {  // a whole "-0" is zero
    const auto integer = static_cast<std::int64_t>(digits);
    out->real = static_cast<double>(minus ? -integer : integer);
  } else {
    const auto exact = static_cast<double>(digits);
    out->real =
        exponent < 0 ? exact / kExactPowersOfTen[-exponent] : exact * kExactPowersOfTen[exponent];
    if (minus) out->real = -out->real;
  }
  at = p;
  return true;
}

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

JsonValue Unpacked(double real, bool is_double) {
  JsonValue value;
  value.type = JsonValue::Type::kNumber;
  if (is_double) {
    value.number = JsonValue::Number::kDouble;
    value.real = real;
  } else {
    value.integer = static_cast<std::int64_t>(real);
  }
  return value;
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
        if (!AppendMessageText(value.Element(i), indent + 4, out)) return false;
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
  // What parsing needs besides the document; kept from one document to the next.
  struct Scratch {
    std::vector<JsonValue> stack;
    std::vector<double> reals;
    std::vector<std::uint8_t> kinds;  // 1 = kDouble
  };
  JsonParser(std::string_view text, Scratch& scratch)
      : text_(text), scratch_(scratch), stack_(scratch.stack) {
    stack_.clear();
  }

  absl::StatusOr<JsonDocument> Parse() {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;  // a byte order mark
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
    auto* array = static_cast<JsonValue*>(document_.Take(size * sizeof(JsonValue)));
    std::uninitialized_copy(stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end(),
                            array);
    stack_.resize(begin);
    return array;
  }

  // Elements of an array as long as they are numbers. kMore: what comes next is another element,
  // and those before it are on stack_.
  enum class Numbers { kWholeArray, kMore, kError };
  Numbers NumbersOf(JsonValue* array) {
    std::vector<double>& reals = scratch_.reals;
    std::vector<std::uint8_t>& kinds = scratch_.kinds;
    reals.clear();
    kinds.clear();
    bool any_whole = false;
    bool any_real = false;
    while (true) {
      QuickNumber number;
      const char* at = text_.data() + at_;
      if (text_.size() - at_ >= kQuickBytes && ReadQuickNumber(at, &number)) {
        at_ = static_cast<std::size_t>(at - text_.data());
      } else {
        const std::size_t begin = at_;
        const bool is_number = IsDigit(Peek()) || Peek() == '-' || Peek() == 'N' || Peek() == 'I';
        JsonValue exact;
        if (is_number && !Number(&exact)) return Numbers::kError;
        number = {exact.AsDouble(), !exact.IsDouble()};
        constexpr auto kMost = static_cast<std::int64_t>(kLargestExact);
        if (!is_number || exact.number == JsonValue::Number::kUint64 ||
            (number.whole && (exact.integer > kMost || exact.integer < -kMost))) {
          at_ = begin;
          for (std::size_t i = 0; i < reals.size(); ++i) {
            stack_.push_back(Unpacked(reals[i], kinds[i] != 0));
          }
          return Numbers::kMore;
        }
      }
      ++document_.nodes_;
      reals.push_back(number.real);
      kinds.push_back(number.whole ? 0 : 1);
      (number.whole ? any_whole : any_real) = true;
      // ", " or "," and the next number: most often.
      if (text_.size() - at_ > 2 && text_[at_] == ',') {
        at_ += text_[at_ + 1] == ' ' ? 2 : 1;
        if (text_[at_] > ' ') continue;
      } else {
        SkipSpace();
        if (Consume(']')) break;
        if (!Consume(',')) {
          Fail(kNoComma, at_);
          return Numbers::kError;
        }
      }
      SkipSpace();
    }
    const std::size_t bytes = reals.size() * sizeof(double);
    const bool mixed = any_whole && any_real;
    char* kept = static_cast<char*>(document_.Take(bytes + (mixed ? kinds.size() : 0)));
    std::memcpy(kept, reals.data(), bytes);
    if (mixed) std::memcpy(kept + bytes, kinds.data(), kinds.size());
    array->type = JsonValue::Type::kArray;
    array->packing = mixed      ? JsonValue::Packing::kMixed
                     : any_real ? JsonValue::Packing::kReal
                                : JsonValue::Packing::kWhole;
    array->count = static_cast<std::uint32_t>(reals.size());
    array->reals = reinterpret_cast<const double*>(kept);
    return Numbers::kWholeArray;
  }

  bool Array(JsonValue* out, int depth) {
    if (depth >= kMaxJsonDepth) return Fail("Nested too deeply.", at_);
    ++at_;
    const std::size_t begin = stack_.size();
    SkipSpace();
    if (!Consume(']')) {
      if (IsDigit(Peek()) || Peek() == '-') {
        const Numbers numbers = NumbersOf(out);
        if (numbers != Numbers::kMore) return numbers == Numbers::kWholeArray;
      }
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
          return Fail(kNoComma, at_);
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

  static constexpr const char* kNoComma = "Missing a comma or ] after an array element.";
  std::string_view text_;
  std::size_t at_ = 0;
  const char* error_ = nullptr;
  std::size_t error_at_ = 0;
  Scratch& scratch_;
  std::vector<JsonValue>& stack_;
  JsonDocument document_;
};

JsonValue JsonValue::Element(std::size_t i) const {
  if (!IsPacked()) return values[i];
  const auto* kinds = reinterpret_cast<const std::uint8_t*>(reals + count);
  return Unpacked(reals[i],
                  packing == Packing::kReal || (packing == Packing::kMixed && kinds[i] != 0));
}

void* JsonDocument::Take(std::size_t bytes) {
  bytes = (bytes + alignof(JsonValue) - 1) / alignof(JsonValue) * alignof(JsonValue);
  if (bytes > left_) {
    constexpr std::size_t kLargestChunkBytes = 1 << 20;
    left_ = std::max(bytes, next_chunk_bytes_);
    next_chunk_bytes_ = std::min(2 * left_, kLargestChunkBytes);
    chunks_.push_back(std::make_unique_for_overwrite<char[]>(left_));
    free_ = chunks_.back().get();
  }
  left_ -= bytes;
  return std::exchange(free_, free_ + bytes);
}

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
  thread_local JsonParser::Scratch scratch;
  absl::StatusOr<JsonDocument> document = JsonParser(text, scratch).Parse();
  // One large body does not hold on to its memory.
  constexpr std::size_t kMostKept = 1 << 16;
  if (scratch.reals.capacity() > kMostKept || scratch.stack.capacity() > kMostKept) scratch = {};
  return document;
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
