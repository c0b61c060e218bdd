#include "base/text.h"

#include <gtest/gtest.h>

#include "base/ids.h"

namespace takt {
namespace {

TEST(NearMiss, FindsWhatWasMeant) {
  EXPECT_EQ(NearMiss("comand", {"image", "command", "ports"}), "command");
  EXPECT_EQ(NearMiss("Port", {"image", "command", "ports"}), "ports");
  EXPECT_EQ(NearMiss("iamge", {"image", "command"}), "image");
  EXPECT_EQ(NearMiss("zebra", {"image", "command"}), std::nullopt);
}

TEST(FormatBytes, UsesBinaryUnits) {
  EXPECT_EQ(FormatBytes(640), "640 B");
  EXPECT_EQ(FormatBytes(12 * 1024), "12 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(3ull << 30), "3 GiB");
}

TEST(IsValidName, AcceptsOneSafePathSegment) {
  EXPECT_TRUE(IsValidName("mnist_model"));
  EXPECT_TRUE(IsValidName("A1.b-c"));
  EXPECT_FALSE(IsValidName(""));
  EXPECT_FALSE(IsValidName(".."));
  EXPECT_FALSE(IsValidName("a/b"));
  EXPECT_FALSE(IsValidName(std::string(64, 'a')));
}

TEST(ValidUtf8, ReplacesWhatIsNoUtf8) {
  const std::string bad = "\xEF\xBF\xBD";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"plain", "plain"},
      {"\xe4\xb8\xad\xe6\x96\x87", "\xe4\xb8\xad\xe6\x96\x87"},
      {"\xf0\x9f\x9a\x97", "\xf0\x9f\x9a\x97"},
      {"\xc0\x80", bad + bad},            // overlong
      {"\xed\xa0\x80", bad + bad + bad},  // surrogate
      {"\xf4\x90\x80\x80", bad + bad + bad + bad},
      {"\xe4\xb8", bad + bad},  // cut off
      {"a\xffz", "a" + bad + "z"},
  };
  for (const auto& [in, out] : cases) EXPECT_EQ(ValidUtf8(in), out);
}

}  // namespace
}  // namespace takt
