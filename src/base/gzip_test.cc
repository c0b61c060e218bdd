#include "base/gzip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/str.h"

namespace takt {
namespace {

TEST(Gzip, GoesBothWaysAndIsBounded) {
  const std::string text(100000, 'x');
  const std::string packed = Gzip(text);
  EXPECT_LT(packed.size(), 1000);
  EXPECT_EQ(Gunzip(packed, text.size()).value(), text);
  EXPECT_THAT(std::string(ToStd(Gunzip(packed, text.size() - 1).status().message())),
              testing::HasSubstr("inflates to more than 99999 bytes"));
  EXPECT_FALSE(Gunzip(packed.substr(0, packed.size() / 2), text.size()).ok());
  EXPECT_FALSE(Gunzip("not gzip", 100).ok());
  EXPECT_FALSE(Gunzip("", 100).ok());
}

}  // namespace
}  // namespace takt
