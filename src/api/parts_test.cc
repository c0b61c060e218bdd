// The API's small parts, without a server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/guard.h"
#include "api/json_writer.h"
#include "api/logs.h"
#include "nlohmann/json.hpp"

namespace takt::api {
namespace {

TEST(JsonWriter, WritesWhatAParserReadsBack) {
  std::string text;
  JsonWriter w(&text);
  w.BeginObject()
      .Field("text", "a\"\\\n\r\t\x01/é")
      .Field("number", -3)
      .Field("real", 0.25)
      .Field("infinite", 1.0 / 0.0)
      .Field("yes", true)
      .Field("none", std::optional<int>())
      .Field("list", std::vector<std::string>{"a", "b"})
      .Field("map", std::map<std::string, std::string>{{"k", "v"}})
      .Key("empty")
      .BeginArray()
      .EndArray()
      .EndObject();
  const nlohmann::json parsed = nlohmann::json::parse(text);
  EXPECT_EQ(parsed["text"], "a\"\\\n\r\t\x01/é");
  EXPECT_EQ(parsed["number"], -3);
  EXPECT_EQ(parsed["real"], 0.25);
  EXPECT_TRUE(parsed["infinite"].is_null());
  EXPECT_EQ(parsed["yes"], true);
  EXPECT_TRUE(parsed["none"].is_null());
  EXPECT_EQ(parsed["list"].size(), 2u);
  EXPECT_EQ(parsed["map"]["k"], "v");
  EXPECT_TRUE(parsed["empty"].empty());
}

TEST(JsonWriter, ReplacesWhatIsNotUtf8) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\xff"
       "b",
       "a\xef\xbf\xbd"
       "b"},
      {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},                  // overlong
      {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},  // surrogate
      {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
      {"\xe4\xb8", "\xef\xbf\xbd\xef\xbf\xbd"},                          // cut
      {"\xe4\xb8\xad\xf0\x9f\x98\x80", "\xe4\xb8\xad\xf0\x9f\x98\x80"},  // valid
  };
  for (const auto& [text, expected] : cases) {
    std::string out;
    JsonWriter(&out).Value(text);
    EXPECT_EQ(nlohmann::json::parse(out), expected);
  }
}

net::HttpRequest Request(std::vector<std::pair<std::string, std::string>> headers) {
  net::HttpRequest request;
  request.method = "GET";
  request.headers = std::move(headers);
  return request;
}

TEST(Guard, TakesOnlyHostsThatNobodyElseCanBind) {
  for (const char* host : {"127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "10.1.2.3:80", "localhost",
                           "LOCALHOST:1", "a.localhost:8080", "box:8080", "BOX"}) {
    EXPECT_TRUE(CheckHost(Request({{"host", host}}), "box").ok()) << host;
  }
  for (const char* host : {"evil.example", "evil.example:8080", "127.0.0.1.evil.example",
                           "localhost.evil.example", "", "[evil]", "notlocalhost"}) {
    EXPECT_EQ(CheckHost(Request({{"host", host}}), "box").code(),
              absl::StatusCode::kPermissionDenied)
        << host;
  }
}

TEST(LogCursor, IsReadBackAsWritten) {
  const LogCursor cursor = {{"a-main-0-x:1", 5}, {"b", 0}};
  EXPECT_EQ(ParseLogCursor(FormatLogCursor(cursor)).value(), cursor);
  EXPECT_TRUE(ParseLogCursor("")->empty());
  for (const char* bad : {"a", ":1", "a:x", "a:-1", "a:1,b", "a:99999999999999999999"}) {
    EXPECT_FALSE(ParseLogCursor(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace takt::api
