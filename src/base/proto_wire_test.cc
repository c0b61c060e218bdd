#include "base/proto_wire.h"

#include <gtest/gtest.h>

#include <string>

namespace takt {
namespace {

using std::string_view;

TEST(ProtoReader, ReadsEachWireType) {
  // 1: varint 300, 2: fixed64 1.5, 3: bytes "ab", 4: fixed32 0.5f
  const std::string message(
      "\x08\xac\x02\x11\0\0\0\0\0\0\xf8\x3f\x1a\x02"
      "ab\x25\0\0\0\x3f",
      21);
  ProtoReader r(message);
  ASSERT_TRUE(r.Next());
  EXPECT_EQ(r.field(), 1u);
  EXPECT_EQ(r.Varint(), 300u);
  EXPECT_EQ(r.Bytes(), "");
  ASSERT_TRUE(r.Next());
  EXPECT_EQ(r.Double(), 1.5);
  ASSERT_TRUE(r.Next());
  EXPECT_EQ(r.Bytes(), "ab");
  ASSERT_TRUE(r.Next());
  EXPECT_EQ(r.Float(), 0.5f);
  EXPECT_FALSE(r.Next());
  EXPECT_TRUE(r.ok());
}

TEST(ProtoReader, MalformedInputEndsWithoutOk) {
  const struct {
    const char* what;
    string_view bytes;
  } kCases[] = {
      {"a tag without a value", string_view("\x08", 1)},
      {"a truncated varint", string_view("\x08\xff", 2)},
      {"a varint of eleven bytes", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
      {"a varint over 64 bits", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"},
      {"a length past the end",
       "\x1a\x05"
       "ab"},
      {"a length of 4 GiB", "\x1a\xff\xff\xff\xff\x0f"},
      {"a truncated fixed64",
       "\x11"
       "abc"},
      {"a group", "\x0b"},
      {"field number 0", string_view("\0\1", 2)},
  };
  for (const auto& c : kCases) {
    ProtoReader r(c.bytes);
    while (r.Next()) {
    }
    EXPECT_FALSE(r.ok()) << c.what;
  }
}

}  // namespace
}  // namespace takt
