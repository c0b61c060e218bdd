#include "base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <utility>

namespace takt {
namespace {

using absl::StatusCode;

TEST(StatusTable, MapsEachCodeToHttpGrpcAndExit) {
  const std::pair<StatusCode, int> http[] = {
      {StatusCode::kOk, 200},
      {StatusCode::kCancelled, 499},
      {StatusCode::kUnknown, 500},
      {StatusCode::kInvalidArgument, 400},
      {StatusCode::kDeadlineExceeded, 504},
      {StatusCode::kNotFound, 404},
      {StatusCode::kAlreadyExists, 409},
      {StatusCode::kPermissionDenied, 403},
      {StatusCode::kResourceExhausted, 429},
      {StatusCode::kFailedPrecondition, 400},
      {StatusCode::kAborted, 409},
      {StatusCode::kOutOfRange, 400},
      {StatusCode::kUnimplemented, 501},
      {StatusCode::kInternal, 500},
      {StatusCode::kUnavailable, 503},
      {StatusCode::kDataLoss, 500},
      {StatusCode::kUnauthenticated, 401},
  };
  for (const auto& [code, status] : http) EXPECT_EQ(HttpStatusFor(code), status) << CodeName(code);
  EXPECT_EQ(GrpcStatusFor(StatusCode::kUnavailable), 14);
  EXPECT_EQ(ExitCodeFor(StatusCode::kOk), 0);
  EXPECT_EQ(ExitCodeFor(StatusCode::kInvalidArgument), 2);
  EXPECT_EQ(ExitCodeFor(StatusCode::kUnavailable), 5);
}

TEST(StatusTable, NamesAndCodesAreInverse) {
  for (int i = 0; i <= 16; ++i) {
    auto code = static_cast<StatusCode>(i);
    EXPECT_EQ(CodeFromName(CodeName(code)), code);
  }
  EXPECT_EQ(CodeFromName("NO_SUCH_CODE"), StatusCode::kUnknown);
}

TEST(Annotate, KeepsTheCodeAndPrefixesTheMessage) {
  EXPECT_EQ(Annotate(absl::NotFoundError("app x"), "show"), absl::NotFoundError("show: app x"));
  EXPECT_TRUE(Annotate(absl::OkStatus(), "show").ok());
}

TEST(ErrnoStatus, SaysWhatFailedAndWhy) {
  absl::Status status = ErrnoStatus(ENOENT, "open /a");
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_NE(status.message().find("open /a"), std::string_view::npos);
}

}  // namespace
}  // namespace takt
