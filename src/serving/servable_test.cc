#include "serving/servable.h"

#include <gtest/gtest.h>

namespace takt::serving {
namespace {

TEST(ServableDirectory, ReadersKeepWhatTheyRead) {
  ServableDirectory directory;
  const std::uint64_t before = directory.generation();
  auto old = directory.Get();
  EXPECT_TRUE(old->models.empty());
  auto next = std::make_shared<ServableSnapshot>();
  next->models["m"];
  directory.Publish(next);
  EXPECT_GT(directory.generation(), before);
  EXPECT_TRUE(old->models.empty());
  EXPECT_EQ(directory.Get()->models.count("m"), 1U);
}

}  // namespace
}  // namespace takt::serving
