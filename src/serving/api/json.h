// JSON as the REST API of TensorFlow Serving reads and writes it: NaN and Infinity are numbers,
// text after the document is ignored, errors have the original's words and offsets (its parser is
// RapidJSON, whose messages clients see). Depth is bounded. Lists of numbers, which is what bodies
// of a model server are made of, are read several digits at a time and kept as such.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace takt::serving {

// Deeper documents are refused. A tensor has at most 254 dimensions.
inline constexpr int kMaxJsonDepth = 512;

// A value in a document; lives as long as the document.
struct JsonValue {
  enum class Type : std::uint8_t { kNull, kFalse, kTrue, kObject, kArray, kString, kNumber };
  enum class Number : std::uint8_t {
    kInt64,   // fits int64 (in `integer`)
    kUint64,  // beyond int64, fits uint64 (in `integer`, by bits)
    kDouble,  // had a fraction or an exponent, or fits neither
  };
  // Whether the elements of an array lie one after another as doubles, and which kinds of numbers
  // they are. Whole ones beyond 2^53 are not packed.
  enum class Packing : std::uint8_t {
    kNone,
    kWhole,  // all kInt64
    kReal,   // all kDouble
    kMixed,  // of both kinds: behind the doubles lies a byte for each, 1 = kDouble
  };
  Type type = Type::kNull;
  Number number = Number::kInt64;
  Packing packing = Packing::kNone;
  std::uint32_t count = 0;  // elements of an array, members of an object
  union {
    std::int64_t integer;
    double real;
    const char* text;         // string: not terminated
    const JsonValue* values;  // array: `count`; object: 2 * `count`, name and value in turn
    const double* reals;      // packed array: `count`
  };
  std::size_t text_bytes = 0;

  JsonValue() : integer(0) {}
  bool IsObject() const { return type == Type::kObject; }
  bool IsArray() const { return type == Type::kArray; }
  bool IsString() const { return type == Type::kString; }
  bool IsNumber() const { return type == Type::kNumber; }
  bool IsBool() const { return type == Type::kTrue || type == Type::kFalse; }
  bool IsDouble() const { return IsNumber() && number == Number::kDouble; }
  bool IsInt64() const { return IsNumber() && number == Number::kInt64; }
  bool IsUint64() const {
    return IsNumber() && (number == Number::kUint64 || (number == Number::kInt64 && integer >= 0));
  }
  std::uint64_t AsUint64() const { return static_cast<std::uint64_t>(integer); }
  double AsDouble() const {
    return number == Number::kDouble   ? real
           : number == Number::kUint64 ? static_cast<double>(AsUint64())
                                       : static_cast<double>(integer);
  }
  std::string_view AsString() const { return {text, text_bytes}; }
  bool IsPacked() const { return packing != Packing::kNone; }
  // Of an array: its element `i`.
  JsonValue Element(std::size_t i) const;
  // Of an object: name and value of its member `i`.
  std::string_view MemberName(std::size_t i) const { return values[2 * i].AsString(); }
  const JsonValue& MemberValue(std::size_t i) const { return values[2 * i + 1]; }
  // First member of that name, null when there is none or this is no object.
  const JsonValue* Member(std::string_view name) const;
};

class JsonDocument {
 public:
  // The text must outlive the document: strings without escapes point into it.
  // INVALID_ARGUMENT "JSON Parse error: Missing a name for object member. at offset: 20".
  static absl::StatusOr<JsonDocument> Parse(std::string_view text);
  JsonDocument(JsonDocument&&) = default;
  JsonDocument& operator=(JsonDocument&&) = default;
  const JsonValue& root() const { return *root_; }
  std::size_t nodes() const { return nodes_; }

 private:
  friend class JsonParser;
  JsonDocument() = default;
  std::unique_ptr<JsonValue> root_;
  // `bytes`, aligned for a JsonValue, that live as long as the document.
  void* Take(std::size_t bytes);

  std::vector<std::unique_ptr<char[]>> chunks_;
  char* free_ = nullptr;  // in the last chunk
  std::size_t left_ = 0;
  std::size_t next_chunk_bytes_ = 1024;
  std::deque<std::string> strings_;  // those that had escapes
  std::size_t nodes_ = 0;
};

// "Null", "False", "Object", "Number", ...
std::string_view JsonTypeName(const JsonValue& value);
// For messages: objects one member a line, arrays on one line; ends before a NaN or Infinity, as
// the original's does.
std::string JsonText(const JsonValue& value);

// `text` with quotes, escaped.
void AppendJsonString(std::string_view text, std::string* out);
// Shortest form that reads back as the same number; whole numbers end in ".0"; NaN, Infinity,
// -Infinity as such.
void AppendJsonFloat(float value, std::string* out);
void AppendJsonDouble(double value, std::string* out);
// {"error": "..."} as the original lays it out.
std::string JsonError(std::string_view message);

}  // namespace takt::serving
