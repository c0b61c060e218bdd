#include "operate/served.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace takt::operate {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ParseModelStatus, OnlyWhatIsAvailableServes) {
  const auto versions = ParseModelStatus(R"({"model_version_status": [
      {"version": "3", "state": "LOADING", "status": {}},
      {"version": "2", "state": "AVAILABLE", "status": {}},
      {"version": "1", "state": "END", "status": {}}]})");
  ASSERT_TRUE(versions.ok()) << versions.status();
  EXPECT_THAT(*versions, ElementsAre(2));
}

TEST(ParseModelStatus, WhatIsNoStatusIsRefused) {
  for (const char* body : {"", "404", "{", "[]", "{\"error\": \"Not found\"}",
                           "{\"model_version_status\": {}}", "<html></html>"}) {
    EXPECT_EQ(ParseModelStatus(body).status().code(), absl::StatusCode::kInvalidArgument) << body;
  }
  // Members of other types than expected are passed by.
  const auto odd = ParseModelStatus(
      R"({"model_version_status": [1, {"version": 2, "state": "AVAILABLE"}, {"state": 3}]})");
  ASSERT_TRUE(odd.ok());
  EXPECT_THAT(*odd, IsEmpty());
}

TEST(ServedChanges, OneSentenceForASwitch) {
  const struct {
    Versions before, after;
    std::vector<std::string> told;
  } kCases[] = {
      {{}, {}, {}},
      {{}, {1}, {"model \"m\": version 1 serves now"}},
      {{1}, {1}, {}},
      {{1}, {1, 2}, {"model \"m\": version 2 serves now, before it 1"}},
      {{1, 2}, {2}, {}},
      {{1}, {2}, {"model \"m\": version 2 serves now, before it 1"}},
      {{2}, {1}, {"model \"m\": version 1 serves now, before it 2"}},
      {{}, {1, 2}, {"model \"m\": versions 1, 2 serve now"}},
      {{2}, {}, {"model \"m\": no version serves any more"}},
  };
  for (const auto& row : kCases) EXPECT_EQ(ServedChanges("m", row.before, row.after), row.told);
}

}  // namespace
}  // namespace takt::operate
