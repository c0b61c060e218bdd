// HTTP/2 as a client says it, byte by byte, for tests that must be able to say it wrongly.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "net/grpc_wire.h"
#include "net/hpack.h"

namespace takt::net::frames {

inline constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum Type {
  kData,
  kHeaders,
  kPriority,
  kReset,
  kSettings,
  kPush,
  kPing,
  kGoaway,
  kWindow,
  kContinue
};
inline constexpr int kEndStream = 1;
inline constexpr int kAck = 1;
inline constexpr int kEndHeaders = 4;
inline constexpr int kPadded = 8;

inline std::string Frame(int type, int flags, std::uint32_t stream, std::string_view payload) {
  std::string frame;
  for (int shift = 16; shift >= 0; shift -= 8) {
    frame.push_back(static_cast<char>(payload.size() >> shift));
  }
  frame.push_back(static_cast<char>(type));
  frame.push_back(static_cast<char>(flags));
  for (int shift = 24; shift >= 0; shift -= 8) frame.push_back(static_cast<char>(stream >> shift));
  frame.append(payload);
  return frame;
}
inline std::string U32(std::uint32_t value) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text.push_back(static_cast<char>(value >> shift));
  return text;
}
inline std::string Setting(int id, std::uint32_t value) {
  return std::string{0, static_cast<char>(id)} + U32(value);
}
// HPACK: a literal without indexing, lengths as 7-bit prefixed integers.
inline std::string Length(std::size_t n) {
  if (n < 127) return {static_cast<char>(n)};
  std::string text(1, 127);
  n -= 127;
  for (; n >= 128; n >>= 7) text.push_back(static_cast<char>(n | 128));
  text.push_back(static_cast<char>(n));
  return text;
}
inline std::string Header(std::string_view name, std::string_view value) {
  return std::string(1, '\0') + Length(name.size()) + std::string(name) + Length(value.size()) +
         std::string(value);
}
inline std::string Block(std::string_view path = "/t.T/Echo", std::string_view method = "POST",
                         std::string_view type = "application/grpc") {
  return Header(":method", method) + Header(":scheme", "http") + Header(":path", path) +
         Header(":authority", "x") + Header("content-type", type) + Header("te", "trailers");
}

struct Seen {
  int type;
  int flags;
  std::uint32_t stream;
  std::string payload;
};

// Cuts the first frame off, when it is there whole.
inline std::optional<Seen> TakeFrame(std::string& bytes) {
  if (bytes.size() < 9) return std::nullopt;
  const auto* h = reinterpret_cast<const unsigned char*>(bytes.data());
  const std::size_t size = std::size_t{h[0]} << 16 | std::size_t{h[1]} << 8 | h[2];
  if (bytes.size() < 9 + size) return std::nullopt;
  Seen seen{h[3], h[4], ReadBigEndian32(h + 5), bytes.substr(9, size)};
  bytes.erase(0, 9 + size);
  return seen;
}
// The error code of a RST_STREAM, or of what follows a GOAWAY's last stream.
inline std::uint32_t Code(std::string_view payload) {
  return payload.size() < 4
             ? 0
             : ReadBigEndian32(reinterpret_cast<const unsigned char*>(payload.data()));
}

// Header blocks as text, "name: value\n", "malformed" behind what can be read of one that is.
class Inflater {
 public:
  Inflater() { nghttp2_hd_inflate_new(&inflater_); }
  ~Inflater() { nghttp2_hd_inflate_del(inflater_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  void SetTableSize(std::size_t bytes) { nghttp2_hd_inflate_change_table_size(inflater_, bytes); }
  std::string Inflate(std::string_view block) {
    std::string text;
    int flags = 0;
    while ((flags & NGHTTP2_HD_INFLATE_FINAL) == 0) {
      nghttp2_nv nv;
      flags = 0;
      const ssize_t used = nghttp2_hd_inflate_hd2(
          inflater_, &nv, &flags, reinterpret_cast<const std::uint8_t*>(block.data()), block.size(),
          1);
      if (used < 0) return text + "malformed";
      block.remove_prefix(static_cast<std::size_t>(used));
      if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0) continue;
      text.append(reinterpret_cast<char*>(nv.name), nv.namelen).append(": ");
      text.append(reinterpret_cast<char*>(nv.value), nv.valuelen).append("\n");
    }
    nghttp2_hd_inflate_end_headers(inflater_);
    return text;
  }

 private:
  nghttp2_hd_inflater* inflater_ = nullptr;
};

// The same by our own decoder.
inline std::string Decode(HpackDecoder& decoder, std::string_view block) {
  std::string text;
  HeaderField field;
  decoder.Begin(block);
  while (true) {
    switch (decoder.Next(&field)) {
      case HpackDecoder::Step::kField:
        text.append(field.name).append(": ").append(field.value).append("\n");
        if (field.kind != KindOfHeader(field.name, field.value)) return text + "of another kind";
        break;
      case HpackDecoder::Step::kEnd:
        return text;
      case HpackDecoder::Step::kError:
        return text + "malformed";
    }
  }
}

}  // namespace takt::net::frames
