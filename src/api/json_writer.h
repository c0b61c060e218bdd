// Appends JSON text to a string: no tree, keys in the order of writing. Invalid UTF-8 becomes
// U+FFFD, so that the output is valid whatever a file name or an environment held.
#pragma once

#include <cmath>
#include <concepts>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/str.h"

namespace takt::api {

class JsonWriter {
 public:
  explicit JsonWriter(std::string* out) : out_(out), start_(out->size()) {}

  JsonWriter& BeginObject() { return Open('{'); }
  JsonWriter& EndObject() { return Close('}'); }
  JsonWriter& BeginArray() { return Open('['); }
  JsonWriter& EndArray() { return Close(']'); }
  JsonWriter& Key(std::string_view name) {
    Value(name);
    out_->push_back(':');
    return *this;
  }

  JsonWriter& Value(std::string_view text);
  JsonWriter& Value(const std::string& text) { return Value(std::string_view(text)); }
  JsonWriter& Value(const char* text) { return Value(std::string_view(text)); }
  JsonWriter& Value(bool value) { return Raw(value ? "true" : "false"); }
  template <std::integral T>
  JsonWriter& Value(T value) {
    return Raw(ToStd(absl::AlphaNum(value).Piece()));
  }
  JsonWriter& Value(double value) {  // JSON has no infinity
    return std::isfinite(value) ? Raw(ToStd(absl::AlphaNum(value).Piece())) : Null();
  }
  JsonWriter& Null() { return Raw("null"); }
  template <typename T>
  JsonWriter& Value(const std::optional<T>& value) {
    return value.has_value() ? Value(*value) : Null();
  }
  template <typename T>
  JsonWriter& Value(const std::vector<T>& values) {
    BeginArray();
    for (const T& each : values) Value(each);
    return EndArray();
  }
  template <typename T>
  JsonWriter& Value(const std::map<std::string, T>& values) {
    BeginObject();
    for (const auto& [key, value] : values) Key(key).Value(value);
    return EndObject();
  }
  JsonWriter& Raw(std::string_view json) {
    Comma();
    out_->append(json);
    return *this;
  }

  template <typename T>
  JsonWriter& Field(std::string_view name, const T& value) {
    Key(name);
    return Value(value);
  }

 private:
  void Comma() {
    if (out_->size() == start_) return;
    const char last = out_->back();
    if (last != '{' && last != '[' && last != ':') out_->push_back(',');
  }
  JsonWriter& Open(char bracket) {
    Comma();
    out_->push_back(bracket);
    return *this;
  }
  JsonWriter& Close(char bracket) {
    out_->push_back(bracket);
    return *this;
  }

  std::string* const out_;
  const std::size_t start_;
};

}  // namespace takt::api
