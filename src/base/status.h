// Errors: absl::Status everywhere, and the one table that maps its codes to HTTP, gRPC and exit
// codes. Nothing of ours throws; a library that throws is wrapped at one place each.
#pragma once

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/str.h"

namespace takt {

// HTTP status for a code; the mapping of google.rpc.Code, with FAILED_PRECONDITION as 400.
int HttpStatusFor(absl::StatusCode code);
// gRPC's status numbers equal absl's.
inline int GrpcStatusFor(absl::StatusCode code) { return static_cast<int>(code); }
// Process exit code: 0 ok, 2 the caller's input is wrong, 3 not found, 4 conflict with what is
// there, 5 cannot be reached or timed out, 1 anything else.
int ExitCodeFor(absl::StatusCode code);
// The code's upper-case name, as in error bodies: "INVALID_ARGUMENT".
std::string_view CodeName(absl::StatusCode code);
// Inverse of CodeName; kUnknown for a name that is not in the table.
absl::StatusCode CodeFromName(std::string_view name);

// The same code with "PREFIX: " before the message. OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view prefix);
// Status for the errno left by a system call: "open /a/b: No such file or directory".
absl::Status ErrnoStatus(int error_number, std::string_view what);

}  // namespace takt

#define TAKT_CONCAT_INNER(a, b) a##b
#define TAKT_CONCAT(a, b) TAKT_CONCAT_INNER(a, b)

#define TAKT_RETURN_IF_ERROR(expr)                                                \
  do {                                                                            \
    if (absl::Status takt_status = (expr); !takt_status.ok()) return takt_status; \
  } while (0)

#define TAKT_ASSIGN_OR_RETURN(lhs, expr) \
  TAKT_ASSIGN_OR_RETURN_IMPL(TAKT_CONCAT(takt_result_, __LINE__), lhs, expr)
#define TAKT_ASSIGN_OR_RETURN_IMPL(result, lhs, expr)  \
  auto result = (expr);                                \
  if (!result.ok()) return std::move(result).status(); \
  lhs = std::move(result).value()
