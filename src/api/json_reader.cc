#include "api/json_reader.h"

#include <algorithm>

#include "api/errors.h"
#include "base/text.h"

namespace takt::api {
namespace {

using nlohmann::json;

// What came, short enough for a message.
std::string Shown(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  constexpr std::size_t kMost = 60;
  if (text.size() > kMost) text = text.substr(0, kMost) + "...";
  return text;
}

}  // namespace

absl::StatusOr<json> ParseJsonObject(std::string_view body) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) return json::object();
  int depth = 0;
  const auto limit = [&depth](int at, json::parse_event_t, json&) {
    depth = std::max(depth, at);
    return at <= kMaxJsonDepth;
  };
  json parsed;
  try {  // nlohmann's parser reports by exceptions; they end here
    parsed = json::parse(body, limit);
  } catch (const json::exception& error) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    std::string_view what = error.what();
    what.remove_prefix(std::min(what.find("] ") + 2, what.size()));
    return absl::InvalidArgumentError(StrCat("the body is not JSON: ", what));
  }
  if (depth > kMaxJsonDepth) {
    return absl::InvalidArgumentError(
        StrCat("the body is nested deeper than ", kMaxJsonDepth, " levels"));
  }
  if (!parsed.is_object()) {
    return absl::InvalidArgumentError(StrCat("the body: expected an object, got ", Shown(parsed)));
  }
  return parsed;
}

std::string ObjectReader::PathOf(std::string_view name) const {
  return path_.empty() ? std::string(name) : StrCat(path_, ".", name);
}

void ObjectReader::Fail(const std::string& field, std::string_view expected, const json& got) {
  if (!status_.ok()) return;
  status_ = WithDetails(
      absl::InvalidArgumentError(StrCat(field, ": expected ", expected, ", got ", Shown(got))),
      [&](JsonWriter& w) { w.Field("field", field); });
}

const json* ObjectReader::Find(std::string_view name) {
  known_.emplace_back(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool ObjectReader::Has(std::string_view name) const {
  const auto found = object_.find(name);
  return found != object_.end() && !found->is_null();
}

void ObjectReader::Require(std::string_view name) {
  if (Has(name) || !status_.ok()) return;
  status_ =
      WithDetails(absl::InvalidArgumentError(StrCat("the field ", PathOf(name), " is missing")),
                  [&](JsonWriter& w) { w.Field("field", PathOf(name)); });
}

void ObjectReader::Read(std::string_view name, std::string* out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_string()) return Fail(PathOf(name), "a string", *value);
  *out = value->get_ref<const std::string&>();
}

void ObjectReader::Read(std::string_view name, bool* out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return Fail(PathOf(name), "true or false", *value);
  *out = value->get<bool>();
}

void ObjectReader::Read(std::string_view name, int* out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  constexpr std::int64_t kMost = 1'000'000'000;
  const bool fits = value->is_number_integer() && value->get<std::int64_t>() <= kMost &&
                    value->get<std::int64_t>() >= -kMost;
  if (!fits) return Fail(PathOf(name), "an integer", *value);
  *out = value->get<int>();
}

void ObjectReader::Read(std::string_view name, double* out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_number()) return Fail(PathOf(name), "a number", *value);
  *out = value->get<double>();
}

void ObjectReader::Read(std::string_view name, std::map<std::string, std::string>* out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_object()) return Fail(PathOf(name), "an object of strings", *value);
  out->clear();
  for (const auto& [key, each] : value->items()) {
    if (!each.is_string()) return Fail(StrCat(PathOf(name), ".", key), "a string", each);
    out->emplace(key, each.get_ref<const std::string&>());
  }
}

void ObjectReader::Read(std::string_view name, std::vector<std::string>* out) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_array()) return Fail(PathOf(name), "an array of strings", *value);
  out->clear();
  for (const json& each : *value) {
    if (!each.is_string()) {
      return Fail(StrCat(PathOf(name), "[", out->size(), "]"), "a string", each);
    }
    out->push_back(each.get_ref<const std::string&>());
  }
}

void ObjectReader::ReadEach(
    std::string_view name,
    const std::function<absl::Status(const std::string& key, ObjectReader reader)>& read) {
  const json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_object()) return Fail(PathOf(name), "an object of objects", *value);
  for (const auto& [key, each] : value->items()) {
    const std::string path = StrCat(PathOf(name), ".", key);
    if (!each.is_object()) return Fail(path, "an object", each);
    if (status_.ok()) status_ = read(key, ObjectReader(each, path));
  }
}

absl::Status ObjectReader::Done() {
  if (!status_.ok()) return status_;
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    status_ = UnknownName("field", PathOf(key), key,
                          std::vector<std::string_view>(known_.begin(), known_.end()));
    break;
  }
  return status_;
}

}  // namespace takt::api
