#include "base/status.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace takt {
namespace {

using absl::StatusCode;

TEST(StatusTable, MapsEachCodeToHttpGrpcAndExit) {
  EXPECT_EQ(HttpStatusFor(StatusCode::kInvalidArgument), 400);
  EXPECT_EQ(HttpStatusFor(StatusCode::kNotFound), 404);
  EXPECT_EQ(HttpStatusFor(StatusCode::kResourceExhausted), 429);
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
