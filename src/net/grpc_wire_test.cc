#include "net/grpc_wire.h"

#include <gtest/gtest.h>

namespace takt::net {
namespace {

using std::chrono::nanoseconds;

TEST(GrpcWire, ATimeoutIsAtMostEightDigitsAndAUnit) {
  struct Case {
    std::string_view text;
    std::optional<std::int64_t> ns;
  };
  for (const Case& c : std::initializer_list<Case>{{"1n", 1},
                                                   {"20u", 20'000},
                                                   {"100m", 100'000'000},
                                                   {"3S", 3'000'000'000},
                                                   {"2M", 120'000'000'000},
                                                   {"1H", 3'600'000'000'000},
                                                   {"0m", 0},
                                                   {"99999999H", 365LL * 24 * 3'600'000'000'000},
                                                   {"123456789m", std::nullopt},
                                                   {"m", std::nullopt},
                                                   {"", std::nullopt},
                                                   {"-1m", std::nullopt},
                                                   {"1.5S", std::nullopt},
                                                   {"10x", std::nullopt}}) {
    const auto got = ParseGrpcTimeout(c.text);
    EXPECT_EQ(got.has_value(), c.ns.has_value()) << c.text;
    if (got.has_value() && c.ns.has_value()) {
      EXPECT_EQ(got->count(), *c.ns) << c.text;
    }
  }
}

TEST(GrpcWire, AMessageIsPercentEncodedAndCut) {
  EXPECT_EQ(PercentEncode("100% \n\xc3\xa4"), "100%25 %0A%C3%A4");
  EXPECT_EQ(CutMessage("abcdef", 6), "abcdef");
  EXPECT_EQ(CutMessage("abcdefg", 6), "abcdef...TRUNCATED");
}

TEST(GrpcWire, WhatIsDeflatedInflates) {
  std::string text;
  for (int i = 0; i < 10000; ++i) text += std::to_string(i);
  for (GrpcCompression how : {GrpcCompression::kGzip, GrpcCompression::kDeflate}) {
    auto packed = GrpcDeflate(how, text);
    ASSERT_TRUE(packed.ok());
    EXPECT_LT(packed->size(), text.size());
    EXPECT_EQ(GrpcInflate(how, *packed, 1 << 20, 1000).value(), text);
    EXPECT_EQ(GrpcInflate(how, *packed, text.size(), 1000).value(), text);
    EXPECT_EQ(GrpcInflate(how, *packed, text.size() - 1, 1000).status().code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(
        GrpcInflate(how, packed->substr(0, packed->size() / 2), 1 << 20, 1000).status().code(),
        absl::StatusCode::kInternal);
    EXPECT_EQ(GrpcInflate(how, *packed + "x", 1 << 20, 1000).status().code(),
              absl::StatusCode::kInternal);
  }
}

TEST(GrpcWire, ABombStopsAtItsRatio) {
  auto packed = GrpcDeflate(GrpcCompression::kGzip, std::string(64 << 20, 'a'));
  ASSERT_TRUE(packed.ok());
  EXPECT_EQ(GrpcInflate(GrpcCompression::kGzip, *packed, 1 << 30, 100).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(GrpcWire, ContentTypes) {
  for (std::string_view yes :
       {"application/grpc", "application/grpc+proto", "application/grpc;charset=x"}) {
    EXPECT_TRUE(IsGrpcContentType(yes)) << yes;
  }
  for (std::string_view no : {"application/grpc-web", "application/json", ""}) {
    EXPECT_FALSE(IsGrpcContentType(no)) << no;
  }
}

}  // namespace
}  // namespace takt::net
