#include "api/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "base/text.h"

namespace takt::api {
namespace {

constexpr absl::string_view kDetails = "takt/details";
constexpr absl::string_view kHttpStatus = "takt/http-status";

net::HttpResponse Body(int http_status, std::string_view code, std::string_view message,
                       std::string_view details) {
  net::HttpResponse response;
  response.status = http_status;
  JsonWriter w(&response.body);
  w.BeginObject().Field("code", code).Field("message", message);
  w.Key("details").Raw(details).EndObject();
  return response;
}

}  // namespace

absl::Status WithDetails(absl::Status status, const std::function<void(JsonWriter&)>& write) {
  std::string details;
  JsonWriter w(&details);
  w.BeginObject();
  write(w);
  w.EndObject();
  status.SetPayload(kDetails, absl::Cord(details));
  return status;
}

absl::Status WithHttpStatus(absl::Status status, int http_status) {
  status.SetPayload(kHttpStatus, absl::Cord(std::to_string(http_status)));
  return status;
}

absl::Status UnknownName(std::string_view what, std::string_view shown, std::string_view name,
                         const std::vector<std::string_view>& known) {
  const std::optional<std::string> near = NearMiss(name, known);
  return WithDetails(absl::InvalidArgumentError(StrCat(
                         "unknown ", what, " \"", shown, "\"",
                         near.has_value() ? StrCat(": did you mean ", *near, "?") : std::string())),
                     [&](JsonWriter& w) {
                       w.Field("field", shown);
                       if (near.has_value()) w.Field("suggestion", *near);
                     });
}

net::HttpResponse ErrorResponse(const absl::Status& status) {
  int http_status = HttpStatusFor(status.code());
  if (const auto other = status.GetPayload(kHttpStatus); other.has_value()) {
    const std::string text(*other);
    [[maybe_unused]] const bool ok = absl::SimpleAtoi(text, &http_status);
  }
  const auto details = status.GetPayload(kDetails);
  return Body(http_status, CodeName(status.code()), ToStd(status.message()),
              details.has_value() ? std::string(*details) : "{}");
}

net::HttpResponse ErrorResponseForHttp(int http_status, const std::string& message) {
  const absl::StatusCode code = http_status == 408   ? absl::StatusCode::kDeadlineExceeded
                                : http_status == 413 ? absl::StatusCode::kResourceExhausted
                                : http_status == 431 ? absl::StatusCode::kResourceExhausted
                                : http_status >= 500 ? absl::StatusCode::kUnimplemented
                                                     : absl::StatusCode::kInvalidArgument;
  return Body(http_status, CodeName(code), message, "{}");
}

}  // namespace takt::api
