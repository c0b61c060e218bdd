// Native structs as the JSON of the public API (openapi.json says what it means).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "api/json_writer.h"
#include "api/router.h"
#include "line/line.h"
#include "metrics/store.h"
#include "operate/models.h"
#include "runtime/runtime.h"
#include "storage/volumes.h"
#include "template/template.h"

namespace takt::api {

void Write(JsonWriter& w, const runtime::InstanceStatus& instance);
void Write(JsonWriter& w, const templates::ServiceSpec& spec);
void Write(JsonWriter& w, const templates::Parameter& parameter);
void Write(JsonWriter& w, const templates::Issue& issue);
void Write(JsonWriter& w, const line::Change& change);
void Write(JsonWriter& w, const line::Event& event);
void Write(JsonWriter& w, const line::Revision& revision);
void Write(JsonWriter& w, const line::Preview& preview);
void Write(JsonWriter& w, const line::Removal& removal);

// An app as in lists, or with its configuration and the meaning of its services.
enum class AppForm { kList, kDetail };
void Write(JsonWriter& w, const line::App& app, AppForm form);

// The fields of an endpoint, into an object that is open.
void WriteEndpointFields(JsonWriter& w, const runtime::Endpoint& endpoint);

template <typename T>
void WriteArray(JsonWriter& w, std::string_view name, const std::vector<T>& values) {
  w.Key(name).BeginArray();
  for (const T& each : values) Write(w, each);
  w.EndArray();
}

template <typename... T>
std::string ToJson(const T&... value) {
  std::string out;
  JsonWriter w(&out);
  Write(w, value...);
  return out;
}

// The field "labels" of an object that is open: {name: value}.
void WriteLabels(JsonWriter& w, const metrics::Labels& labels);

// RFC 3339; null for the epoch, which means "not yet".
void WriteTime(JsonWriter& w, std::string_view name, std::chrono::system_clock::time_point time);
// Likewise, in seconds since the epoch; null where there is none.
void WriteTime(JsonWriter& w, std::string_view name, std::optional<double> seconds);
// The fields of a version of a model, into an object that is open.
void WriteVersionFields(JsonWriter& w, const operate::Version& version);

std::string Rfc3339FromUs(std::int64_t us);      // since the epoch
std::string Rfc3339FromSeconds(double seconds);  // since the epoch
// JSON has no NaN: what is not finite is written as a text.
void WriteNumber(JsonWriter& w, double value);

// The query parameter `name`, RFC 3339, in microseconds since the epoch; `fallback` where it is
// absent. INVALID_ARGUMENT naming it.
absl::StatusOr<std::int64_t> QueryTimeUs(const Call& call, std::string_view name,
                                         std::int64_t fallback);
// A finite number, likewise.
absl::StatusOr<double> QueryNumber(const Call& call, std::string_view name, double fallback);

}  // namespace takt::api
