// Request bodies: objects whose fields are asked for by name; what was not asked for is refused.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "nlohmann/json.hpp"

namespace takt::api {

inline constexpr int kMaxJsonDepth = 32;  // beyond: INVALID_ARGUMENT

// INVALID_ARGUMENT with the position where it is no JSON, or no object. An empty body is {}.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view body);

// Reads fields of one object; the first thing that is wrong is remembered and told by Done, so the
// calls between need no checks. An absent or null field leaves its target alone.
class ObjectReader {
 public:
  explicit ObjectReader(const nlohmann::json& object, std::string path = "")
      : object_(object), path_(std::move(path)) {}

  bool Has(std::string_view name) const;
  void Require(std::string_view name);  // INVALID_ARGUMENT where it is absent
  void Read(std::string_view name, std::string* out);
  void Read(std::string_view name, bool* out);
  void Read(std::string_view name, int* out);
  void Read(std::string_view name, double* out);
  void Read(std::string_view name, std::map<std::string, std::string>* out);
  void Read(std::string_view name, std::vector<std::string>* out);
  // The object of objects `name`: `read` gets each with its key.
  void ReadEach(
      std::string_view name,
      const std::function<absl::Status(const std::string& key, ObjectReader reader)>& read);

  // INVALID_ARGUMENT naming the field: "values.VERSION: expected a string, got 1",
  // "unknown field \"templat\": did you mean template?".
  absl::Status Done();

 private:
  const nlohmann::json* Find(std::string_view name);
  void Fail(const std::string& field, std::string_view expected, const nlohmann::json& got);
  std::string PathOf(std::string_view name) const;

  const nlohmann::json& object_;
  const std::string path_;
  std::vector<std::string> known_;
  absl::Status status_;
};

}  // namespace takt::api
