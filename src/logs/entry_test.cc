#include "logs/entry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace takt::logs {
namespace {

using testing::ElementsAre;
using testing::Pair;

TEST(RecogniseLevel, KnowsTheUsualForms) {
  const struct {
    const char* text;
    const char* level;
  } kCases[] = {
      {"2026-11-24 20:00:00,123 ERROR worker: lost connection", "error"},
      {"2026-11-24 20:00:00.123456: W tensorflow/core/x.cc:11] slow", "warn"},
      {"E1124 20:00:00.123456   123 server.cc:44] failed", "error"},
      {"I1124 20:00:00.123456   123 server.cc:44] ready", "info"},
      {R"({"time":"...","level":"warn","msg":"x"})", "warn"},
      {R"({"severity": "CRITICAL", "message": "x"})", "fatal"},
      {"time=2026 lvl=dbug level=debug msg=hello", "debug"},
      {"warning: unused variable", "warn"},
      {"[error] 31#31: *1 open() failed", "error"},
      {"[WARN] low disk", "warn"},
      {"Traceback (most recent call last):", "error"},
      {"INFO:root:starting", "info"},
      {"the error of the mean is 0.5", "unknown"},
      {"no information here", "unknown"},
      {"step 100: loss 0.25", "unknown"},
      {"", "unknown"},
  };
  for (const auto& c : kCases) EXPECT_STREQ(LevelName(RecogniseLevel(c.text)), c.level) << c.text;
}

TEST(RecogniseTime, ReadsTheUsualForms) {
  const std::int64_t base = 1'795'550'400'000'000;  // 2026-11-24T20:00:00Z
  EXPECT_EQ(RecogniseTime("2026-11-24T20:00:00Z x"), base);
  EXPECT_EQ(RecogniseTime("2026-11-24T20:00:00.25Z x"), base + 250'000);
  EXPECT_EQ(RecogniseTime("[2026-11-24T22:30:00+02:30] x"), base);
  EXPECT_EQ(RecogniseTime("2026-11-24 12:00:00,5-0800 x"), base + 500'000);
  for (const char* none :
       {"", "hello", "2026-13-24T20:00:00Z", "2026-11-24", "20:00:00 x", "2026-11-24x20:00:00"}) {
    EXPECT_FALSE(RecogniseTime(none).has_value()) << none;
  }
}

std::vector<std::pair<std::string, std::string>> Fields(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> list;
  VisitFields(text, [&](std::string_view name, std::string_view value) {
    list.emplace_back(name, value);
    return true;
  });
  return list;
}

TEST(VisitFields, ReadsJsonWithNestedMembers) {
  EXPECT_THAT(
      Fields(R"({"a": 1, "b": {"c": "x y", "d": true}, "e": null})"),
      ElementsAre(Pair("a", "1"), Pair("b.c", "x y"), Pair("b.d", "true"), Pair("e", "null")));
}

TEST(VisitFields, ReadsKeysAndValues) {
  EXPECT_THAT(Fields(R"(step=5 lr=0.01, msg="two words" --flag=on (n=3) =x a= )"),
              ElementsAre(Pair("step", "5"), Pair("lr", "0.01"), Pair("msg", "two words"),
                          Pair("flag", "on"), Pair("n", "3"), Pair("a", "")));
}

TEST(VisitFields, TakesBrokenJsonAsText) {
  EXPECT_THAT(Fields(R"({"a": 1, step=3)"), ElementsAre(Pair("step", "3")));
}

// Joins lines as the collector does.
std::vector<std::string> Join(const std::vector<std::string>& lines) {
  std::vector<std::string> entries;
  for (const std::string& line : lines) {
    if (!entries.empty() && Continues(entries.back(), line)) {
      entries.back() += "\n" + line;
    } else {
      entries.push_back(line);
    }
  }
  return entries;
}

TEST(Continues, KeepsATracebackTogether) {
  EXPECT_THAT(Join({"step 1", "Traceback (most recent call last):", "  File \"a.py\", line 1",
                    "    f()", "ValueError: bad", "step 2"}),
              ElementsAre("step 1",
                          "Traceback (most recent call last):\n  File \"a.py\", line 1\n    "
                          "f()\nValueError: bad",
                          "step 2"));
  EXPECT_THAT(Join({"java.lang.IllegalState: x", "\tat a.B.c(B.java:1)", "Caused by: y", "\tat d.E",
                    "... 3 more", "next"}),
              ElementsAre(testing::StartsWith("java.lang"), "next"));
}

TEST(Continues, LeavesOrdinaryLinesApart) {
  EXPECT_EQ(Join({"a", "b", "", "c"}).size(), 4u);
  EXPECT_EQ(Join({"  indented from the start", "  and again"}).size(), 2u);
}

TEST(CollapseCarriageReturns, ShowsTheLastState) {
  EXPECT_EQ(CollapseCarriageReturns("10%\r20%\r100%"), "100%");
  EXPECT_EQ(CollapseCarriageReturns("10%\r20%\r"), "20%");
  EXPECT_EQ(CollapseCarriageReturns("plain\r"), "plain");
  EXPECT_EQ(CollapseCarriageReturns("\r\r"), "");
}

}  // namespace
}  // namespace takt::logs
