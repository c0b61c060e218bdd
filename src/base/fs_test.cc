#include "base/fs.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

namespace takt {
namespace {

TEST(ReadFile, ReturnsWhatWasWrittenAtomically) {
  TempDir dir;
  std::string path = JoinPath(dir.path(), "a");
  ASSERT_TRUE(WriteFileAtomic(path, "one").ok());
  ASSERT_TRUE(WriteFileAtomic(path, "two").ok());
  EXPECT_EQ(ReadFile(path, 10).value(), "two");
  ASSERT_TRUE(WriteFileWhole(path, "three").ok());
  EXPECT_EQ(ReadFile(path, 10).value(), "three");
  EXPECT_EQ(ListDir(dir.path()).value(), std::vector<std::string>{"a"}) << "no temporary is left";
}

TEST(ReadFile, SaysWhyItCannot) {
  TempDir dir;
  std::string path = JoinPath(dir.path(), "a");
  EXPECT_EQ(ReadFile(path, 10).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadFile(dir.path(), 10).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(WriteFileAtomic(path, "12345").ok());
  EXPECT_EQ(ReadFile(path, 4).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(WriteFileAtomic, LeavesNothingBehindWhereItFails) {
  TempDir dir;
  std::string target = JoinPath(dir.path(), "d");
  ASSERT_TRUE(MakeDirs(JoinPath(target, "child")).ok());
  EXPECT_FALSE(WriteFileAtomic(target, "x").ok()) << "a directory is in the way";
  EXPECT_EQ(ListDir(dir.path()).value(), std::vector<std::string>{"d"});
}

TEST(RemoveAll, RemovesTreesButDoesNotFollowLinks) {
  TempDir dir;
  std::string kept = JoinPath(dir.path(), "kept");
  std::string tree = JoinPath(dir.path(), "tree");
  ASSERT_TRUE(MakeDirs(kept).ok());
  ASSERT_TRUE(WriteFileAtomic(JoinPath(kept, "f"), "x").ok());
  ASSERT_TRUE(MakeDirs(JoinPath(tree, "a/b")).ok());
  ASSERT_EQ(::symlink(kept.c_str(), JoinPath(tree, "link").c_str()), 0);
  ASSERT_TRUE(RemoveAll(tree).ok());
  EXPECT_FALSE(Exists(tree));
  EXPECT_TRUE(Exists(JoinPath(kept, "f")));
  EXPECT_TRUE(RemoveAll(tree).ok()) << "removing nothing is no error";
}

TEST(Paths, JoinAndClean) {
  EXPECT_EQ(JoinPath("/a/", "/b"), "/a/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
  EXPECT_EQ(CleanPath("/a/./b/../c/"), "/a/c");
  EXPECT_EQ(CleanPath("../x"), "../x");
}

}  // namespace
}  // namespace takt
