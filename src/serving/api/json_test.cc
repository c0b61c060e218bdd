#include "serving/api/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

namespace takt::serving {
namespace {

std::string Error(std::string_view text) {
  const auto document = JsonDocument::Parse(text);
  if (document.ok()) return "OK";
  std::string message(ToStd(document.status().message()));
  return message.substr(std::string("JSON Parse error: ").size());
}

TEST(JsonParse, ErrorsSayWhatAndWhere) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"", "The document is empty"},
      {"  ", "The document is empty. at offset: 2"},
      {R"({"a": [1.0],})", "Missing a name for object member. at offset: 12"},
      {R"({a: 1})", "Missing a name for object member. at offset: 1"},
      {R"({"a" 1})", "Missing a colon after a name of object member. at offset: 5"},
      {R"({"a": 1 "b": 2})", "Missing a comma or } after an object member. at offset: 8"},
      {R"([1 2])", "Missing a comma or ] after an array element. at offset: 3"},
      {R"([1,])", "Invalid value. at offset: 3"},
      {R"([nul])", "Invalid value. at offset: 4"},
      {R"([abc])", "Invalid value. at offset: 1"},
      {R"(["abc)", "Missing a closing quotation mark in string. at offset: 5"},
      {R"(["\x"])", "Invalid escape character in string. at offset: 2"},
      {R"(["\u12g4"])", "Incorrect hex digit after \\u escape in string. at offset: 2"},
      {R"(["\ud800x"])", "The surrogate pair in string is invalid. at offset: 2"},
      {"[\"\n\"]", "Invalid encoding in string. at offset: 2"},
      {"[1e400]", "Number too big to be stored in double. at offset: 1"},
      {"[1.]", "Miss fraction part in number. at offset: 3"},
      {"[1e]", "Miss exponent in number. at offset: 3"},
      {"[-]", "Invalid value. at offset: 2"},
      {"[01]", "Missing a comma or ] after an array element. at offset: 2"},
      {"[Infinit]", "Invalid value. at offset: 8"},
      {"[1", "Missing a comma or ] after an array element. at offset: 2"},
  };
  for (const auto& [text, error] : cases) EXPECT_EQ(Error(text), error) << text;
}

TEST(JsonParse, ReadsEveryKindOfValue) {
  const auto document = JsonDocument::Parse(
      R"( {"n": null, "t": true, "f": false, "s": "a\u00e9\ud83d\ude00\n", "i": -5, )"
      R"("u": 18446744073709551615, "big": 18446744073709551616, "d": 1.5e3, "tiny": 1e-400, )"
      R"("nan": NaN, "inf": [Infinity, -Infinity, Inf], "o": {}, "a": []} ignored)");
  ASSERT_TRUE(document.ok()) << document.status();
  const JsonValue& root = document->root();
  EXPECT_EQ(root.count, 13);
  EXPECT_EQ(root.Member("n")->type, JsonValue::Type::kNull);
  EXPECT_EQ(root.Member("t")->type, JsonValue::Type::kTrue);
  EXPECT_EQ(root.Member("s")->AsString(), "a\xc3\xa9\xf0\x9f\x98\x80\n");
  EXPECT_TRUE(root.Member("i")->IsInt64());
  EXPECT_FALSE(root.Member("i")->IsUint64());
  EXPECT_FALSE(root.Member("u")->IsInt64());
  EXPECT_EQ(root.Member("u")->AsUint64(), UINT64_MAX);
  EXPECT_TRUE(root.Member("big")->IsDouble());
  EXPECT_EQ(root.Member("d")->AsDouble(), 1500);
  EXPECT_EQ(root.Member("tiny")->AsDouble(), 0);
  EXPECT_TRUE(std::isnan(root.Member("nan")->AsDouble()));
  EXPECT_EQ(root.Member("inf")->Element(1).AsDouble(), -INFINITY);
  EXPECT_EQ(root.Member("none"), nullptr);
}

// A number that has much text behind it is read eight digits at a time, one near the text's end is
// not. Both must read the same, bit for bit.
TEST(JsonParse, NumbersAreTheSameWhateverComesBehindThem) {
  std::vector<std::string> numbers = {"0",
                                      "-0",
                                      "7",
                                      "-12",
                                      "12345678",
                                      "123456789",
                                      "9007199254740992",
                                      "9007199254740993",
                                      "18446744073709551615",
                                      "18446744073709551616",
                                      "-9223372036854775808",
                                      "0.0",
                                      "-0.0",
                                      "0.1",
                                      "0.142857",
                                      "0.5843137502670288",
                                      "3.14159265358979",
                                      "1.7976931348623157e308",
                                      "5e-324",
                                      "1e22",
                                      "1e23",
                                      "1E5",
                                      "1e+5",
                                      "1e-5",
                                      "123.456e-7",
                                      "0.000000000000000000000001",
                                      "123456789.123456789",
                                      "1e-400",
                                      "0.1e1",
                                      "NaN",
                                      "-Infinity",
                                      "01",
                                      "1.",
                                      "1.e5",
                                      "-",
                                      "1e",
                                      "1e+",
                                      ".5",
                                      "+1",
                                      "1a",
                                      "1e400",
                                      "1e1000",
                                      "0x10",
                                      "--1",
                                      "123456781234567812345678",
                                      "0.12345678123456781234567812345678",
                                      "1\x80",
                                      "1:",
                                      "1/"};
  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    char text[64];
    const double value =
        std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 90) - 90);
    const int digits = static_cast<int>(random() % 18);
    std::snprintf(text, sizeof text, i % 2 == 0 ? "%.*f" : "%.*e", digits,
                  i % 3 == 0 ? -value : value);
    numbers.emplace_back(text);
  }
  for (const std::string& number : numbers) {
    SCOPED_TRACE(number);
    const std::string list = "[" + number + "]";
    const std::string with_more = list + std::string(64, ' ');
    const auto plain = JsonDocument::Parse(list);
    const auto quick = JsonDocument::Parse(with_more);
    ASSERT_EQ(plain.status(), quick.status());
    if (!plain.ok()) continue;
    const JsonValue a = plain->root().Element(0);
    const JsonValue b = quick->root().Element(0);
    ASSERT_EQ(a.number, b.number);
    ASSERT_EQ(std::bit_cast<std::uint64_t>(a.real), std::bit_cast<std::uint64_t>(b.real));
    if (a.IsDouble() && std::isfinite(a.real)) {
      ASSERT_EQ(a.real, std::strtod(number.c_str(), nullptr));
    }
  }
}

TEST(JsonParse, ListsOfNumbersKeepWhichOfThemAreWhole) {
  const auto document = JsonDocument::Parse(
      R"([[1, 2], [0.5, 1e3], [1, 2.0, -3], [1, "a"], [1, 9007199254740993, 2], [1, null], [1, []]])");
  ASSERT_TRUE(document.ok()) << document.status();
  EXPECT_EQ(
      JsonText(document->root()),
      R"([[1, 2], [0.5, 1000.0], [1, 2.0, -3], [1, "a"], [1, 9007199254740993, 2], [1, null], [1, []]])");
  EXPECT_EQ(document->nodes(), 24U);
  using Packing = JsonValue::Packing;
  const Packing want[] = {Packing::kWhole, Packing::kReal, Packing::kMixed, Packing::kNone,
                          Packing::kNone,  Packing::kNone, Packing::kNone};
  for (std::size_t i = 0; i < std::size(want); ++i) {
    EXPECT_EQ(document->root().Element(i).packing, want[i]) << i;
  }
  EXPECT_EQ(Error("[1, 2 3]"), "Missing a comma or ] after an array element. at offset: 6");
  EXPECT_EQ(Error("[1, 2, ]"), "Invalid value. at offset: 7");
}

TEST(JsonParse, OnlyObjectsHaveMembers) {
  for (const char* text : {"[1, 2, 3]", "\"a\"", "5", "null", "{}"}) {
    EXPECT_EQ(JsonDocument::Parse(text)->root().Member("a"), nullptr) << text;
  }
}

TEST(JsonParse, DepthIsBounded) {
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']');
  };
  EXPECT_EQ(Error(nested(kMaxJsonDepth)), "OK");
  EXPECT_EQ(Error(nested(kMaxJsonDepth + 1)), "Nested too deeply. at offset: 512");
  EXPECT_EQ(Error(std::string(1000000, '[')), "Nested too deeply. at offset: 512");
}

TEST(JsonText, LooksAsTheOriginalsMessagesDo) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {R"({"a":[1,2],"b":{"c":"x"}})",
       "{\n    \"a\": [1, 2],\n    \"b\": {\n        \"c\": \"x\"\n    }\n}"},
      {"{}", "{}"},
      {"[1.0, 0.1, 1e-7, 1e30, 123456789012345680000.0, 0.00001]",
       "[1.0, 0.1, 1e-7, 1e30, 123456789012345680000.0, 0.00001]"},
      {R"("a\"\\\n\u0001")", R"("a\"\\\n\u0001")"},
      {"NaN", ""},
      {"[1, NaN, 2]", "[1, "},
  };
  for (const auto& [text, want] : cases) {
    EXPECT_EQ(JsonText(JsonDocument::Parse(text)->root()), want) << text;
  }
}

TEST(JsonFloats, AreTheShortestThatReadBack) {
  const std::pair<float, std::string_view> cases[] = {
      {0.1f, "0.1"},
      {1.0f, "1.0"},
      {-0.0f, "-0.0"},
      {1e-7f, "1e-07"},
      {1e30f, "1e+30"},
      {16777216.0f, "16777216.0"},
      {1.0f / 3, "0.33333334"},
      {NAN, "NaN"},
      {INFINITY, "Infinity"},
      {-INFINITY, "-Infinity"},
  };
  for (const auto& [value, want] : cases) {
    std::string out;
    AppendJsonFloat(value, &out);
    EXPECT_EQ(out, want);
  }
  std::string out;
  AppendJsonDouble(0.1, &out);
  EXPECT_EQ(out, "0.1");
}

}  // namespace
}  // namespace takt::serving
