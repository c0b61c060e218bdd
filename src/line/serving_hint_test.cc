#include "line/serving_hint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/fs.h"

namespace takt::line {
namespace {

TEST(ServingHint, SaysWhereTheVersionsAre) {
  struct Case {
    const char* what;
    Listing listing;
    std::optional<std::string> message;
    std::string subdirectory;
  };
  const Case kCases[] = {
      {"a version is there", {{"00000001", {}}}, std::nullopt, ""},
      {"a version is there beside another folder",
       {{"1", {}}, {"mnist_model", {"00000001"}}},
       std::nullopt,
       ""},
      {"the user's case",
       {{"Minst_data", {}}, {"mnist_model", {"00000001"}}},
       "no version under /mnist_model; found 1 under /mnist_model/mnist_model: did you mean that?",
       "mnist_model"},
      {"the fuller of two",
       {{"a", {"1"}}, {"b", {"1", "2", "tmp"}}},
       "no version under /mnist_model; found 2 under /mnist_model/b: did you mean that?",
       "b"},
      {"nothing yet", {}, "no version under /mnist_model yet", ""},
      {"nothing that is a version",
       {{"v1", {"x"}}, {"1.tmp", {}}},
       "no version under /mnist_model yet",
       ""},
  };
  for (const Case& c : kCases) {
    std::optional<ServingHint> hint = FindServingHint("/mnist_model", c.listing);
    EXPECT_EQ(hint ? std::optional(hint->message) : std::nullopt, c.message) << c.what;
    EXPECT_EQ(hint ? hint->subdirectory : "", c.subdirectory) << c.what;
  }
}

TEST(ServedDirectory, IsFoundInTheCommand) {
  struct Case {
    std::vector<std::string> command;
    std::string expected;  // "volume subdirectory is_mount"
  };
  const Case kCases[] = {
      {{"server", "--model_base_path=/mnist_model"}, "m a/b 1"},
      {{"server", "--model_base_path", "/mnist_model/"}, "m a/b 1"},
      {{"server", "--model_base_path=/mnist_model/x/y"}, "m a/b/x/y 0"},
      {{"server", "--model_base_path=/mnist_model/deeper/z"}, "n z 0"},
      {{"server", "--model_base_path=/mnist_models"}, ""},
      {{"server", "--model_base_path=relative"}, ""},
      {{"server", "--model_base_path"}, ""},
      {{"server"}, ""},
  };
  for (const Case& c : kCases) {
    runtime::ServiceSpec spec;
    spec.command = c.command;
    spec.mounts = {{.volume = "m", .host_path = "", .target = "/mnist_model"},
                   {.volume = "n", .host_path = "", .target = "/mnist_model/deeper"},
                   {.volume = "", .host_path = "", .target = "/mnist_models"}};
    std::vector<MountSource> sources = {{templates::Mount::Kind::kVolume, "m", "a/b"},
                                        {templates::Mount::Kind::kVolume, "n", ""},
                                        {templates::Mount::Kind::kBind, "/x", ""}};
    auto served = FindServedDirectory(spec, sources);
    EXPECT_EQ(served ? StrCat(served->volume, " ", served->subdirectory, " ",
                              static_cast<int>(served->is_mount))
                     : "",
              c.expected)
        << c.command.back();
  }
}

TEST(Listing, HasTwoLevelsOfDirectories) {
  TempDir dir;
  for (const char* path : {"mnist_model/00000001/variables", "empty"}) {
    ASSERT_TRUE(MakeDirs(JoinPath(dir.path(), path)).ok());
  }
  ASSERT_TRUE(WriteFileAtomic(JoinPath(dir.path(), "7"), "a file is no version").ok());
  EXPECT_EQ(ListTwoLevels(dir.path()), (Listing{{"empty", {}}, {"mnist_model", {"00000001"}}}));
  EXPECT_EQ(ListTwoLevels(JoinPath(dir.path(), "no")), Listing());
}

TEST(Listing, HasALimit) {
  TempDir dir;
  for (std::size_t i = 0; i <= kMaxListed; ++i) {
    ASSERT_TRUE(MakeDirs(JoinPath(dir.path(), "d" + std::to_string(i))).ok());
  }
  EXPECT_EQ(ListTwoLevels(dir.path()).size(), kMaxListed);
}

}  // namespace
}  // namespace takt::line
