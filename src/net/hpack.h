// HPACK (RFC 7541) as a server needs it: the fields of requests out of a connection's header
// blocks, and the few fields of its answers into them. No HTTP/2 framing, no policy. Not
// thread-safe: one decoder and one encoder for each connection.
//
// What a field means to the server is found once, when it enters the dynamic table: a request whose
// fields are all in the table, as from the second one on, costs some nanoseconds a field. That is
// also why this is not nghttp2's inflater, which hands out text only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace takt::net {

// The dynamic table, on either side: HTTP/2's default, and we ask for no other.
inline constexpr std::size_t kMaxHpackTableBytes = 4096;

// What a field of a request is to the server.
enum class HeaderKind : std::uint8_t {
  kMetadata,   // any other name
  kMalformed,  // no request may have it (RFC 9113, section 8.2 and 8.3)
  kIgnored,    // te, user-agent, other names of gRPC's own
  kMethod,
  kScheme,
  kPath,
  kAuthority,
  kContentLength,
  kContentType,
  kGrpcTimeout,
  kGrpcEncoding,
};
HeaderKind KindOfHeader(std::string_view name, std::string_view value);

struct HeaderField {
  std::string_view name;
  std::string_view value;
  HeaderKind kind;
};

class HpackDecoder {
 public:
  // The next header block, whole; it must stay until its last Next.
  void Begin(std::string_view block);
  enum class Step { kField, kEnd, kError };
  // The next field of the block; its text is valid until the next call. kError: the block breaks
  // the rules, and nothing can be decoded any more (COMPRESSION_ERROR).
  Step Next(HeaderField* field);
  // Another number for whatever changes the dynamic table: blocks of the same bytes say the same as
  // long as it stays.
  std::uint64_t table_version() const { return table_version_; }
  // Of the dynamic table, as RFC 7541 counts them (for tests).
  std::size_t table_bytes() const { return table_bytes_; }

 private:
  struct Entry {
    std::uint64_t at;  // of its text, counted from the first byte that was ever added
    std::uint32_t name_bytes;
    std::uint32_t value_bytes;
    HeaderKind kind;
  };

  bool Integer(int prefix_bits, std::uint32_t* value);
  bool String(std::string& scratch, std::string_view* text);
  bool Lookup(std::uint32_t index, HeaderField* field) const;
  void Insert(HeaderField* field);
  void Evict(std::size_t limit);

  const unsigned char* at_ = nullptr;
  const unsigned char* end_ = nullptr;
  bool fields_seen_ = false;
  std::size_t limit_ = kMaxHpackTableBytes;
  std::size_t table_bytes_ = 0;
  std::uint64_t table_version_ = 0;
  // Oldest first. What was evicted is cut off from time to time.
  std::vector<Entry> entries_;
  std::size_t first_entry_ = 0;
  std::string text_;
  std::uint64_t text_at_ = 0;  // of text_[0]
  std::string name_scratch_;
  std::string value_scratch_;
};

class HpackEncoder {
 public:
  struct Field {
    std::string_view name;
    std::string_view value;
  };
  static constexpr std::size_t kMaxFixedFields = 32;

  // `fixed`: the fields that come in answer after answer, at most kMaxFixedFields and together
  // smaller than the table. Each is put into the peer's table when it comes first, and is one byte
  // from then on. Outlives the encoder.
  explicit HpackEncoder(std::span<const Field> fixed) : fixed_(fixed) {}
  // The peer's SETTINGS_HEADER_TABLE_SIZE.
  void SetTableLimit(std::uint32_t bytes);

  // A header block: Begin, then its fields. They are appended.
  void Begin(std::string& block);
  void Status(std::string_view code, std::string& block);  // ":status"
  void Fixed(std::size_t field, std::string& block);
  void Literal(std::string_view name, std::string_view value, std::string& block);

 private:
  const std::span<const Field> fixed_;
  std::size_t limit_ = kMaxHpackTableBytes;
  std::size_t used_ = 0;
  bool limit_changed_ = false;
  std::uint32_t inserted_ = 0;
  std::array<std::uint32_t, kMaxFixedFields>
      position_{};  // of the insertion, from 1; 0 = not there
};

// Appends what `coded` says in HPACK's Huffman code. False: it is no such text.
bool HuffmanDecode(std::string_view coded, std::string& text);

}  // namespace takt::net
