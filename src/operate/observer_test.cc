#include "operate/observer.h"

#include <gtest/gtest.h>

namespace takt::operate {
namespace {

TEST(InstanceOf, ClimbsFromAProcessToTheInstanceThatStartedIt) {
  const std::map<std::int64_t, std::string> instances = {{100, "a"}, {200, "b"}};
  // 300 <- 250 <- 200 <- 1; 400 <- 1; 500 and 501 are each other's parents.
  const std::map<std::int64_t, std::int64_t> parents = {{300, 250}, {250, 200}, {200, 1},  {100, 1},
                                                        {400, 1},   {500, 501}, {501, 500}};
  const auto parent = [&](std::int64_t pid) {
    const auto it = parents.find(pid);
    return it == parents.end() ? 0 : it->second;
  };
  const struct {
    std::int64_t pid;
    const char* instance;
  } kCases[] = {{100, "a"}, {200, "b"}, {250, "b"}, {300, "b"}, {400, ""},
                {500, ""},  {999, ""},  {1, ""},    {0, ""},    {-1, ""}};
  for (const auto& [pid, instance] : kCases) {
    EXPECT_EQ(InstanceOf(pid, instances, parent), instance) << pid;
  }
}

}  // namespace
}  // namespace takt::operate
