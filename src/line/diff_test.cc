#include "line/diff.h"

#include <gtest/gtest.h>

namespace takt::line {
namespace {

std::string Numbers(int from, int to) {
  std::string text;
  for (int i = from; i <= to; ++i) text += std::to_string(i) + "\n";
  return text;
}

TEST(UnifiedDiff, IsWhatPatchReads) {
  struct Case {
    const char* what;
    std::string before, after, body;
  };
  const Case kCases[] = {
      {"nothing differs", "a\n", "a\n", ""},
      {"one line changed", "a\nb\nc\n", "a\nx\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"},
      {"all is new", "", "a\nb\n", "@@ -0,0 +1,2 @@\n+a\n+b\n"},
      {"all is gone", "a\n", "", "@@ -1 +0,0 @@\n-a\n"},
      {"added at the end", "a\n", "a\nb\n", "@@ -1 +1,2 @@\n a\n+b\n"},
      {"added at the start", "b\n", "a\nb\n", "@@ -1 +1,2 @@\n+a\n b\n"},
      {"the last newline", "a", "a\n", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"},
      {"context of three lines", Numbers(1, 9), Numbers(1, 4) + Numbers(6, 9),
       "@@ -2,7 +2,6 @@\n 2\n 3\n 4\n-5\n 6\n 7\n 8\n"},
      {"near changes share a hunk", Numbers(1, 9), "x\n" + Numbers(2, 7) + "y\n9\n",
       "@@ -1,9 +1,9 @@\n-1\n+x\n 2\n 3\n 4\n 5\n 6\n 7\n-8\n+y\n 9\n"},
      {"far changes do not", Numbers(1, 10), "x\n" + Numbers(2, 8) + "y\n10\n",
       "@@ -1,4 +1,4 @@\n-1\n+x\n 2\n 3\n 4\n@@ -6,5 +6,5 @@\n 6\n 7\n 8\n-9\n+y\n 10\n"},
      {"a moved line", "a\nb\nc\n", "b\nc\na\n", "@@ -1,3 +1,3 @@\n-a\n b\n c\n+a\n"},
  };
  for (const Case& c : kCases) {
    std::string expected = c.body.empty() ? "" : "--- old\n+++ new\n" + c.body;
    EXPECT_EQ(UnifiedDiff(c.before, c.after, "old", "new"), expected) << c.what;
  }
}

TEST(UnifiedDiff, BeyondItsLimitReplacesTheWhole) {
  std::string before = Numbers(1, kMaxDiffEdits), after = Numbers(5001, 5000 + kMaxDiffEdits);
  std::string diff = UnifiedDiff(before, after, "old", "new");
  EXPECT_NE(diff.find("@@ -1,1000 +1,1000 @@\n-1\n-2\n"), std::string::npos);
  EXPECT_NE(diff.find("-1000\n+5001\n"), std::string::npos);
}

std::string Text(const std::vector<Change>& changes) {
  std::string text;
  for (const Change& change : changes) {
    text += std::string(change.kind == Change::Kind::kAdded     ? "+"
                        : change.kind == Change::Kind::kRemoved ? "-"
                                                                : "~") +
            change.path + " " + change.before + ">" + change.after + "\n";
  }
  return text;
}

TEST(DiffFlat, NamesPaths) {
  EXPECT_EQ(
      Text(DiffFlat({{"a", "1"}, {"b", "2"}, {"c", "3"}}, {{"c", "3"}, {"a", "x"}, {"d", ""}})),
      "~a 1>x\n+d >\n-b 2>\n");
  EXPECT_EQ(Text(DiffFlat({{"a", "1"}}, {{"a", "1"}})), "");
}

TEST(DiffConfigurations, NamesValuesVolumesAndTheTemplate) {
  Configuration before, after;
  before.template_text = "a\nb\n";
  before.values = {{"VERSION", "1"}, {"GONE", "x"}};
  after.template_text = "a\nb\nc\n";
  after.values = {{"VERSION", "2"}};
  after.volume_options["m"].subdirectory = "mnist_model";
  after.volume_options["n"];
  EXPECT_EQ(Text(DiffConfigurations(before, after)),
            "~values.VERSION 1>2\n+volumes.m.subdirectory >mnist_model\n-values.GONE x>\n"
            "~template 2 lines>3 lines\n");
  EXPECT_EQ(Text(DiffConfigurations({}, {})), "");
}

}  // namespace
}  // namespace takt::line
