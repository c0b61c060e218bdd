// HPACK against its RFC and against nghttp2, which knows nothing of this code.
#include "net/hpack.h"

#include <gtest/gtest.h>

#include <random>

#include "base/str.h"
#include "net/http2_frames_for_test.h"

namespace takt::net {
namespace {

std::string Hex(std::string_view digits) {
  std::string bytes;
  int half = -1;
  for (char c : digits) {
    if (c == ' ') continue;
    const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
    if (half < 0) {
      half = digit;
    } else {
      bytes.push_back(static_cast<char>(half << 4 | digit));
      half = -1;
    }
  }
  return bytes;
}

using frames::Decode;

TEST(HpackDecoder, ReadsTheRequestsOfTheRfc) {  // RFC 7541, C.4
  HpackDecoder decoder;
  EXPECT_EQ(Decode(decoder, Hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")),
            ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n");
  EXPECT_EQ(decoder.table_bytes(), 57U);
  EXPECT_EQ(Decode(decoder, Hex("8286 84be 5886 a8eb 1064 9cbf")),
            ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n"
            "cache-control: no-cache\n");
  EXPECT_EQ(decoder.table_bytes(), 110U);
  EXPECT_EQ(Decode(decoder, Hex("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf")),
            ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n"
            "custom-key: custom-value\n");
  EXPECT_EQ(decoder.table_bytes(), 164U);
}

TEST(HpackDecoder, WhatBreaksTheRulesIsAnError) {
  struct Case {
    const char* what;
    std::string_view hex;
    bool good = false;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"an index of nothing", "80"},
           {"an index behind the tables", "be"},
           {"an index that ends too early", "ff"},
           {"an index without end", "ff ff ff ff ff ff ff ff ff ff 01"},
           {"a name behind the tables", "7e 01 61"},
           {"a literal without its name", "40"},
           {"a literal without its value", "40 01 61"},
           {"a value that ends too early", "40 01 61 02 62"},
           {"a length without end", "40 7f ff ff ff ff ff ff 0f"},
           {"the largest table", "3f e1 1f", true},
           {"a table that is larger", "3f e2 1f"},
           {"a size behind a field", "82 20"},
           {"two sizes before the fields", "20 3f e1 1f 82", true},
           {"a letter, padded", "00 81 1f 01 62", true},
           {"padded with a byte too much", "00 82 1f ff 01 62"},
           {"padded with zeros", "00 81 18 01 62"},
           {"the end of the string, spelled out", "00 84 ff ff ff ff 01 62"},
           {"a code that has no end", "00 82 ff fe 01 62"},
       }) {
    HpackDecoder decoder;
    EXPECT_EQ(Decode(decoder, Hex(c.hex)).ends_with("malformed"), !c.good) << c.what;
  }
}

TEST(HpackDecoder, AFieldLargerThanTheTableEmptiesIt) {
  HpackDecoder decoder;
  const auto literal = [](std::string_view name, std::string_view value) {
    std::string block = frames::Header(name, value);
    block[0] = 0x40;
    return block;
  };
  Decode(decoder, literal("a", "b"));
  EXPECT_EQ(decoder.table_bytes(), 34U);
  const std::string large(kMaxHpackTableBytes, 'x');
  EXPECT_EQ(Decode(decoder, literal("a", large)), StrCat("a: ", large, "\n"));
  EXPECT_EQ(decoder.table_bytes(), 0U);
  EXPECT_EQ(Decode(decoder, Hex("be")), "malformed");
}

// Fields that cost nothing but their entry must not make the table grow for ever either.
TEST(HpackDecoder, EmptyFieldsFillNoMoreThanTheTable) {
  HpackDecoder decoder;
  for (int i = 0; i < 100000; ++i) {
    ASSERT_EQ(Decode(decoder, Hex("40 00 00")), ": \n");
    ASSERT_LE(decoder.table_bytes(), kMaxHpackTableBytes);
  }
  EXPECT_EQ(Decode(decoder, Hex("be")), ": \n");
}

TEST(HpackDecoder, ReadsWhateverNghttp2Writes) {
  for (std::uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::size_t limit) { return random() % limit; };
    nghttp2_hd_deflater* deflater = nullptr;
    ASSERT_EQ(nghttp2_hd_deflate_new(&deflater, kMaxHpackTableBytes), 0);
    HpackDecoder decoder;
    for (int round = 0; round < 300; ++round) {
      if (below(20) == 0) {
        nghttp2_hd_deflate_change_table_size(deflater, below(kMaxHpackTableBytes + 1));
      }
      std::vector<std::pair<std::string, std::string>> fields;
      std::string expected;
      for (std::size_t count = below(12); count > 0; --count) {
        constexpr const char* kNames[] = {
            ":path",        ":authority", "content-type", "user-agent",
            "grpc-timeout", "x",          "x-bin",        "te"};
        std::string name = kNames[below(std::size(kNames))];
        if (below(4) == 0) name += std::to_string(below(40));
        std::string value(below(below(10) == 0 ? 3000 : 30), '\0');
        const bool any = below(3) == 0;
        for (char& c : value) c = static_cast<char>(any ? below(256) : 'a' + below(3));
        expected += StrCat(name, ": ", value, "\n");
        fields.emplace_back(std::move(name), std::move(value));
      }
      std::vector<nghttp2_nv> nvs;
      nvs.reserve(fields.size());
      for (auto& [name, value] : fields) {
        nvs.push_back({reinterpret_cast<std::uint8_t*>(name.data()),
                       reinterpret_cast<std::uint8_t*>(value.data()), name.size(), value.size(),
                       static_cast<std::uint8_t>(below(5) == 0 ? NGHTTP2_NV_FLAG_NO_INDEX
                                                               : NGHTTP2_NV_FLAG_NONE)});
      }
      std::string block(nghttp2_hd_deflate_bound(deflater, nvs.data(), nvs.size()), '\0');
      const ssize_t n =
          nghttp2_hd_deflate_hd(deflater, reinterpret_cast<std::uint8_t*>(block.data()),
                                block.size(), nvs.data(), nvs.size());
      ASSERT_GE(n, 0);
      block.resize(static_cast<std::size_t>(n));
      ASSERT_EQ(Decode(decoder, block), expected) << "seed " << seed << " round " << round;
      ASSERT_EQ(decoder.table_bytes(), nghttp2_hd_deflate_get_dynamic_table_size(deflater));
    }
    nghttp2_hd_deflate_del(deflater);
  }
}

TEST(HeaderKind, IsWhatARequestMayHave) {
  using enum HeaderKind;
  struct Case {
    std::string_view name;
    std::string_view value;
    HeaderKind kind;
  };
  for (const Case& c : std::initializer_list<Case>{
           {":path", "/", kPath},
           {":method", "POST", kMethod},
           {":scheme", "http", kScheme},
           {":authority", "", kAuthority},
           {":status", "200", kMalformed},
           {":protocol", "websocket", kMalformed},
           {"te", "trailers", kIgnored},
           {"te", "gzip", kMalformed},
           {"connection", "close", kMalformed},
           {"keep-alive", "1", kMalformed},
           {"proxy-connection", "close", kMalformed},
           {"transfer-encoding", "chunked", kMalformed},
           {"upgrade", "h2c", kMalformed},
           {"", "x", kMalformed},
           {"Key", "x", kMalformed},
           {"a b", "x", kMalformed},
           {"a:", "x", kMalformed},
           {"key", std::string_view("a\0b", 3), kMalformed},
           {"key", "a\nb", kMalformed},
           {"key", "a\rb", kMalformed},
           {"key", "\xc3\xa4 \t", kMetadata},
           {"x-y_z.1", "", kMetadata},
           {"user-agent", "x", kIgnored},
           {"grpc-accept-encoding", "gzip", kIgnored},
           {"grpc-timeout", "1S", kGrpcTimeout},
           {"grpc-encoding", "gzip", kGrpcEncoding},
           {"content-type", "application/grpc", kContentType},
           {"content-length", "1", kContentLength},
       }) {
    EXPECT_EQ(KindOfHeader(c.name, c.value), c.kind) << c.name << ": " << c.value;
  }
}

constexpr HpackEncoder::Field kFixed[] = {
    {"content-type", "application/grpc"}, {"grpc-status", "0"}, {"grpc-status", "14"}};

std::string Encode(HpackEncoder& encoder) {
  std::string block;
  encoder.Begin(block);
  encoder.Status("200", block);
  for (std::size_t i = 0; i < std::size(kFixed); ++i) encoder.Fixed(i, block);
  encoder.Literal("grpc-message", "no", block);
  return block;
}
constexpr std::string_view kEncoded =
    ":status: 200\ncontent-type: application/grpc\ngrpc-status: 0\ngrpc-status: 14\n"
    "grpc-message: no\n";

TEST(HpackEncoder, AFixedFieldIsAByteFromTheSecondTimeOn) {
  HpackEncoder encoder(kFixed);
  frames::Inflater inflater;
  EXPECT_EQ(inflater.Inflate(Encode(encoder)), kEncoded);
  for (int i = 0; i < 3; ++i) {
    const std::string block = Encode(encoder);
    EXPECT_EQ(block.size(), 4 + 1 + 13 + 3U) << "indexed fields, and the literal";
    EXPECT_EQ(inflater.Inflate(block), kEncoded);
  }
  std::string other;
  encoder.Begin(other);
  encoder.Status("405", other);
  EXPECT_EQ(inflater.Inflate(other), ":status: 405\n");
}

TEST(HpackEncoder, KeepsToWhateverTableThePeerHas) {
  // 60 bytes take the content type, 104 also the status 0, and 149 all of it.
  for (std::uint32_t first : {0U, 59U, 60U, 104U, 4096U, 65536U}) {
    for (std::uint32_t second : {0U, 60U, 149U, 4096U, 0xffffffffU}) {
      HpackEncoder encoder(kFixed);
      frames::Inflater inflater;
      for (std::uint32_t size : {first, second, first, second}) {
        encoder.SetTableLimit(size);
        inflater.SetTableSize(size);
        for (int i = 0; i < 3; ++i) {
          ASSERT_EQ(inflater.Inflate(Encode(encoder)), kEncoded) << first << ' ' << second;
        }
      }
      // Twice between two blocks: the smaller one counts, too.
      for (std::uint32_t size : {first, second, 4096U}) {
        encoder.SetTableLimit(size);
        inflater.SetTableSize(size);
      }
      ASSERT_EQ(inflater.Inflate(Encode(encoder)), kEncoded) << first << ' ' << second;
    }
  }
}

}  // namespace
}  // namespace takt::net
