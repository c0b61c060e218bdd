#include "logs/searches.h"

#include "base/fs.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace takt::logs {
namespace {

using std::chrono::seconds;

class SavedSearchesTest : public ::testing::Test {
 protected:
  std::unique_ptr<SavedSearches> Open() {
    return SavedSearches::Open(dir_.path() + "/searches.db", clock_).value();
  }
  TempDir dir_;
  FakeClock clock_;
};

TEST_F(SavedSearchesTest, KeepsThemByNameOverARestart) {
  ASSERT_TRUE(Open()->Put({"错误", "level>=error", seconds(3600), {}}).ok());
  ASSERT_TRUE(Open()->Put({"a", "", seconds(0), {}}).ok());
  clock_.Advance(seconds(5));
  ASSERT_TRUE(Open()->Put({"a", "app=train loss", seconds(60), {}}).ok());
  const auto list = Open()->List().value();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].name, "a");
  EXPECT_EQ(list[0].query, "app=train loss");
  EXPECT_EQ(list[0].span, seconds(60));
  EXPECT_EQ(list[0].changed_at, clock_.Now());
  EXPECT_EQ(list[1].name, "错误");
  EXPECT_TRUE(Open()->Remove("a").ok());
  EXPECT_TRUE(absl::IsNotFound(Open()->Remove("a")));
}

TEST_F(SavedSearchesTest, RefusesWhatIsNoSearchAndKeepsWhatWasThere) {
  auto searches = Open();
  ASSERT_TRUE(searches->Put({"a", "x", seconds(1), {}}).ok());
  const SavedSearch bad[] = {
      {"", "x", seconds(1), {}},
      {std::string(kMaxSearchNameBytes + 1, 'n'), "x", seconds(1), {}},
      {"a/b", "x", seconds(1), {}},
      {"a\nb", "x", seconds(1), {}},
      {" a", "x", seconds(1), {}},
      {"a", "level>=", seconds(1), {}},
      {"a", std::string(5000, 'q'), seconds(1), {}},
      {"a", "x", seconds(-1), {}},
      {"a", "x", kMaxSearchSpan + seconds(1), {}},
  };
  for (const SavedSearch& each : bad) {
    EXPECT_TRUE(absl::IsInvalidArgument(searches->Put(each).status())) << each.name;
  }
  ASSERT_EQ(searches->List()->size(), 1u);
  EXPECT_EQ(searches->List()->front().query, "x");
}

TEST_F(SavedSearchesTest, KeepsSoManyAndNoMore) {
  auto searches = Open();
  for (std::size_t i = 0; i < kMaxSavedSearches; ++i) {
    ASSERT_TRUE(searches->Put({absl::StrCat("s", i), "x", seconds(1), {}}).ok());
  }
  EXPECT_TRUE(absl::IsResourceExhausted(searches->Put({"more", "x", seconds(1), {}}).status()));
  EXPECT_TRUE(searches->Put({"s0", "y", seconds(1), {}}).ok());
}

}  // namespace
}  // namespace takt::logs
