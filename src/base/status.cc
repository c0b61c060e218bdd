#include "base/status.h"

#include <cerrno>
#include <cstring>

namespace takt {
namespace {

using absl::StatusCode;

struct Row {
  StatusCode code;
  std::string_view name;
  int http;
  int exit_code;
};

constexpr Row kTable[] = {
    {StatusCode::kOk, "OK", 200, 0},
    {StatusCode::kCancelled, "CANCELLED", 499, 1},
    {StatusCode::kUnknown, "UNKNOWN", 500, 1},
    {StatusCode::kInvalidArgument, "INVALID_ARGUMENT", 400, 2},
    {StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED", 504, 5},
    {StatusCode::kNotFound, "NOT_FOUND", 404, 3},
    {StatusCode::kAlreadyExists, "ALREADY_EXISTS", 409, 4},
    {StatusCode::kPermissionDenied, "PERMISSION_DENIED", 403, 1},
    {StatusCode::kResourceExhausted, "RESOURCE_EXHAUSTED", 429, 1},
    {StatusCode::kFailedPrecondition, "FAILED_PRECONDITION", 400, 4},
    {StatusCode::kAborted, "ABORTED", 409, 4},
    {StatusCode::kOutOfRange, "OUT_OF_RANGE", 400, 2},
    {StatusCode::kUnimplemented, "UNIMPLEMENTED", 501, 1},
    {StatusCode::kInternal, "INTERNAL", 500, 1},
    {StatusCode::kUnavailable, "UNAVAILABLE", 503, 5},
    {StatusCode::kDataLoss, "DATA_LOSS", 500, 1},
    {StatusCode::kUnauthenticated, "UNAUTHENTICATED", 401, 1},
};

const Row& RowFor(StatusCode code) {
  for (const Row& row : kTable) {
    if (row.code == code) return row;
  }
  return kTable[2];
}

}  // namespace

int HttpStatusFor(StatusCode code) { return RowFor(code).http; }
int ExitCodeFor(StatusCode code) { return RowFor(code).exit_code; }
std::string_view CodeName(StatusCode code) { return RowFor(code).name; }

StatusCode CodeFromName(std::string_view name) {
  for (const Row& row : kTable) {
    if (row.name == name) return row.code;
  }
  return StatusCode::kUnknown;
}

absl::Status Annotate(const absl::Status& status, std::string_view prefix) {
  if (status.ok()) return status;
  return absl::Status(status.code(), StrCat(prefix, ": ", status.message()));
}

absl::Status ErrnoStatus(int error_number, std::string_view what) {
  return absl::ErrnoToStatus(error_number, ToAbsl(what));
}

}  // namespace takt
