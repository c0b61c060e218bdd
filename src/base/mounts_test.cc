#include "base/mounts.h"

#include <gtest/gtest.h>

namespace takt {
namespace {

TEST(HostPath, FindsTheMountThatHoldsAPath) {
  const Mounts mounts = {{"/data", "/v/data"}, {"/data/deep", "/v/deep"}, {"/model", "/m"}};
  const struct {
    const char *inside, *here;
  } kCases[] = {
      {"/data/a/b", "/v/data/a/b"},
      {"/data", "/v/data"},
      {"/data/deep/x", "/v/deep/x"},
      {"/data/deeper", "/v/data/deeper"},
      {"/model/../data/x", "/v/data/x"},
      {"/other", ""},
      {"relative", ""},
      {"", ""},
  };
  for (const auto& c : kCases) EXPECT_EQ(HostPath(mounts, c.inside), c.here) << c.inside;
  EXPECT_EQ(HostPath({{"/", "/root"}}, "/a/b"), "/root/a/b");
}

}  // namespace
}  // namespace takt
