// Errors of the public API: a Status, and with it what a program can use, as JSON.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "api/json_writer.h"
#include "base/status.h"
#include "net/http_server.h"

namespace takt::api {

// `status` with details, which `write` adds to an object as fields. OK stays OK.
absl::Status WithDetails(absl::Status status, const std::function<void(JsonWriter&)>& write);
// `status`, to be answered with another HTTP status than its code has.
absl::Status WithHttpStatus(absl::Status status, int http_status);

// INVALID_ARGUMENT: `unknown field "templat": did you mean template?`. `shown` is the name with its
// path.
absl::Status UnknownName(std::string_view what, std::string_view shown, std::string_view name,
                         const std::vector<std::string_view>& known);

// {code, message, details}.
net::HttpResponse ErrorResponse(const absl::Status& status);
// What the HTTP server itself refuses, in the same form.
net::HttpResponse ErrorResponseForHttp(int http_status, const std::string& message);

}  // namespace takt::api
