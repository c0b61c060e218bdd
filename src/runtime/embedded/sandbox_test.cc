#include "runtime/embedded/sandbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_join.h"
#include "base/fs.h"

namespace takt::runtime {
namespace {

using testing::HasSubstr;
using testing::Not;

class TreeTest : public testing::Test {
 protected:
  TreeTest() {
    for (const char* d : {"usr/bin", "etc", "data/x", "run"}) {
      EXPECT_TRUE(MakeDirs(JoinPath(root_.path(), d)).ok());
    }
    EXPECT_TRUE(WriteFileAtomic(JoinPath(root_.path(), "etc/hosts"), "").ok());
    EXPECT_EQ(symlink("usr/bin", JoinPath(root_.path(), "bin").c_str()), 0);
    EXPECT_TRUE(MakeDirs(JoinPath(root_.path(), "var")).ok());
    EXPECT_EQ(symlink("/run", JoinPath(root_.path(), "var/run").c_str()), 0);
    tree_.root = root_.path();
  }
  // The arguments in one line, "R" for the root.
  std::string Build() {
    const auto arguments = BuildTree(tree_);
    if (!arguments.ok()) return std::string(arguments.status().message());
    std::string text = absl::StrJoin(*arguments, " ");
    for (std::size_t at; (at = text.find(root_.path())) != std::string::npos;) {
      text.replace(at, root_.path().size(), "R");
    }
    return text;
  }
  void Bind(const std::string& target) {
    tree_.placements[target] = {.kind = Placement::Kind::kBind, .source = root_.path()};
  }

  TempDir root_;
  Tree tree_;
};

TEST_F(TreeTest, ShowsTheRootReadOnlyOnFreshGround) {
  const std::string text = Build();
  EXPECT_THAT(text, HasSubstr("--tmpfs / "));
  EXPECT_THAT(text, HasSubstr("--symlink usr/bin /bin"));
  EXPECT_THAT(text, HasSubstr("--ro-bind-try R/usr /usr"));
  EXPECT_THAT(text, HasSubstr("--proc /proc"));
  EXPECT_THAT(text, HasSubstr("--dev /dev"));
  EXPECT_THAT(text, HasSubstr("--perms 1777 --tmpfs /tmp"));
  EXPECT_THAT(text, Not(HasSubstr("remount-ro")));
}

TEST_F(TreeTest, AReadOnlyRootCannotBeWrittenAnywhere) {
  tree_.read_only = true;
  EXPECT_THAT(Build(), HasSubstr("--remount-ro /"));
  EXPECT_THAT(Build(), Not(HasSubstr("--tmpfs /tmp")));
}

TEST_F(TreeTest, AMountPointThatTheRootLacksIsMadeBesideItsEntries) {
  Bind("/models");
  EXPECT_THAT(Build(), HasSubstr("--bind R /models"));
  Bind("/data/new/deep");
  const std::string text = Build();
  EXPECT_THAT(text, HasSubstr("--dir /data --ro-bind-try R/data/x /data/x --dir /data/new "
                              "--bind R /data/new/deep"));
}

TEST_F(TreeTest, AMountPointThatTheRootHasIsUsed) {
  Bind("/data/x");
  EXPECT_THAT(Build(), HasSubstr("--ro-bind R/data /data --bind R /data/x"));
}

TEST_F(TreeTest, LinksOnTheWayAreFollowed) {
  Bind("/var/run/thing");
  EXPECT_THAT(Build(), HasSubstr("--bind R /run/thing"));
  EXPECT_EQ(ResolveIn(root_.path(), "/bin/x"), "/usr/bin/x");
  EXPECT_EQ(ResolveIn(root_.path(), "/bin"), "/bin") << "the last part may be replaced itself";
  EXPECT_EQ(ResolveIn(root_.path(), "/a/../../b"), "/b");
  ASSERT_EQ(symlink("loop", JoinPath(root_.path(), "loop").c_str()), 0);
  EXPECT_EQ(ResolveIn(root_.path(), "/loop/x"), "/loop/x");
}

TEST_F(TreeTest, MountsLieInMounts) {
  Bind("/m");
  tree_.placements["/m/cache"] = {.kind = Placement::Kind::kTmpfs, .bytes = 4096};
  EXPECT_THAT(Build(), HasSubstr("--bind R /m --perms 0755 --size 4096 --tmpfs /m/cache"));
}

TEST_F(TreeTest, PathsThatAreNoneAreRefused) {
  for (const std::string& path : {std::string(""), std::string("/"), std::string("a/b"),
                                  std::string("/.."), std::string("/a\0b", 4)}) {
    Tree tree;
    tree.placements[path] = {.kind = Placement::Kind::kBind, .source = "/usr"};
    EXPECT_EQ(BuildTree(tree).status().code(), absl::StatusCode::kInvalidArgument) << path;
  }
}

TEST_F(TreeTest, ADirectoryWithTooManyEntriesIsNotOpened) {
  for (std::size_t n = 0; n <= kMaxOpenedEntries; ++n) {
    ASSERT_TRUE(WriteFileWhole(JoinPath(root_.path(), StrCat("data/f", n)), "", 0644).ok());
  }
  Bind("/data/new");
  EXPECT_THAT(Build(), HasSubstr("nothing can be mounted in /data"));
  tree_.placements.clear();
  Bind("/data/x");
  EXPECT_THAT(Build(), HasSubstr("--bind R /data/x"));
}

TEST(TranslateTest, WholePathsAreReplacedTheLongestFirst) {
  const std::map<std::string, std::string> paths = {
      {"/model", "/v/m"}, {"/model/cache", "/c"}, {"/x.py", "/share/x.py"}};
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"/model", "/v/m"},
      {"/model/1", "/v/m/1"},
      {"/models", "/models"},
      {"/model.old", "/model.old"},
      {"/model/cache/y", "/c/y"},
      {"/model/cached", "/v/m/cached"},
      {"--base=/model", "--base=/v/m"},
      {"--base=/model/", "--base=/v/m/"},
      {"a:/model:/model/cache:b", "a:/v/m:/c:b"},
      {"python /x.py /model", "python /share/x.py /v/m"},
      {"/data/model", "/data/model"},
      {"./model", "./model"},
      {"http://host/model", "http://host/model"},
      {"cd '/model' && ls", "cd '/v/m' && ls"},
      {"", ""},
  };
  for (const auto& [in, out] : cases) EXPECT_EQ(TranslatePaths(in, paths), out) << in;
}

TEST(TranslateTest, NamesWithAPortBecomeAddresses) {
  const std::map<std::string, std::vector<std::string>> names = {{"serving", {"127.64.0.1"}},
                                                                 {"db", {"127.0.0.1"}}};
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"serving:9000", "127.64.0.1:9000"},
      {"--server=serving:9000", "--server=127.64.0.1:9000"},
      {"http://db:80/serving:x", "http://127.0.0.1:80/serving:x"},
      {"my-serving:9000", "my-serving:9000"},
      {"serving.example.com:9000", "serving.example.com:9000"},
      {"serving", "serving"},
      {"serving:", "serving:"},
      {"a,serving:1,db:2", "a,127.64.0.1:1,127.0.0.1:2"},
  };
  for (const auto& [in, out] : cases) EXPECT_EQ(TranslateNames(in, names), out) << in;
}

}  // namespace
}  // namespace takt::runtime
