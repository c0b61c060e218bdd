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

// As protobuf's own parser reads them.
TEST(ProtoReader, PassesGroupsByAndDropsBitsThatDoNotFit) {
  const struct {
    const char* what;
    string_view bytes;
    std::uint64_t number;  // field 2's
  } kCases[] = {
      {"a group", string_view("\x0b\x10\x07\x0c\x10\x05", 6), 5},
      {"a group in a group", string_view("\x0b\x13\x14\x0c\x10\x05", 6), 5},
      {"a tag over 32 bits", string_view("\x90\x80\x80\x80\x30\x05", 6), 5},
      {"a varint over 64 bits", "\x10\x81\x80\x80\x80\x80\x80\x80\x80\x80\x02", 1},
  };
  for (const auto& c : kCases) {
    ProtoReader r(c.bytes);
    ASSERT_TRUE(r.Next()) << c.what;
    EXPECT_EQ(r.field(), 2u) << c.what;
    EXPECT_EQ(r.Varint(), c.number) << c.what;
    EXPECT_FALSE(r.Next()) << c.what;
    EXPECT_TRUE(r.ok()) << c.what;
  }
}

TEST(ProtoReader, MalformedInputEndsWithoutOk) {
  std::string deep(kMaxProtoGroupDepth + 1, '\x0b');
  deep.append(kMaxProtoGroupDepth + 1, '\x0c');
  const struct {
    const char* what;
    string_view bytes;
  } kCases[] = {
      {"a tag without a value", string_view("\x08", 1)},
      {"a truncated varint", string_view("\x08\xff", 2)},
      {"a varint of eleven bytes", "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
      {"a length past the end",
       "\x1a\x05"
       "ab"},
      {"a length of 4 GiB", "\x1a\xff\xff\xff\xff\x0f"},
      {"a truncated fixed64",
       "\x11"
       "abc"},
      {"a group without its end", string_view("\x0b\x08\x01", 3)},
      {"a group that ends as another", string_view("\x0b\x14", 2)},
      {"the end of no group", "\x0c"},
      {"a group that is cut off in a field", string_view("\x0b\x08", 2)},
      {"groups too deep", deep},
      {"a tag of six bytes", string_view("\x88\x80\x80\x80\x80\0\1", 7)},
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
