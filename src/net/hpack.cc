#include "net/hpack.h"

#include <algorithm>

namespace takt::net {
namespace {

constexpr std::size_t kEntryOverhead = 32;  // RFC 7541, section 4.1
constexpr std::size_t kMaxTableEntries = kMaxHpackTableBytes / kEntryOverhead;
constexpr std::size_t kStaticEntries = 61;
constexpr std::uint32_t kStatus200 = 8;
// Text that was decoded and is longer than this is not worth keeping the room for.
constexpr std::size_t kKeptScratchBytes = 4096;

struct StaticEntry {
  std::string_view name;
  std::string_view value;
};

// RFC 7541, appendix A.
constexpr StaticEntry kStatic[kStaticEntries] = {{":authority", ""},
                                                 {":method", "GET"},
                                                 {":method", "POST"},
                                                 {":path", "/"},
                                                 {":path", "/index.html"},
                                                 {":scheme", "http"},
                                                 {":scheme", "https"},
                                                 {":status", "200"},
                                                 {":status", "204"},
                                                 {":status", "206"},
                                                 {":status", "304"},
                                                 {":status", "400"},
                                                 {":status", "404"},
                                                 {":status", "500"},
                                                 {"accept-charset", ""},
                                                 {"accept-encoding", "gzip, deflate"},
                                                 {"accept-language", ""},
                                                 {"accept-ranges", ""},
                                                 {"accept", ""},
                                                 {"access-control-allow-origin", ""},
                                                 {"age", ""},
                                                 {"allow", ""},
                                                 {"authorization", ""},
                                                 {"cache-control", ""},
                                                 {"content-disposition", ""},
                                                 {"content-encoding", ""},
                                                 {"content-language", ""},
                                                 {"content-length", ""},
                                                 {"content-location", ""},
                                                 {"content-range", ""},
                                                 {"content-type", ""},
                                                 {"cookie", ""},
                                                 {"date", ""},
                                                 {"etag", ""},
                                                 {"expect", ""},
                                                 {"expires", ""},
                                                 {"from", ""},
                                                 {"host", ""},
                                                 {"if-match", ""},
                                                 {"if-modified-since", ""},
                                                 {"if-none-match", ""},
                                                 {"if-range", ""},
                                                 {"if-unmodified-since", ""},
                                                 {"last-modified", ""},
                                                 {"link", ""},
                                                 {"location", ""},
                                                 {"max-forwards", ""},
                                                 {"proxy-authenticate", ""},
                                                 {"proxy-authorization", ""},
                                                 {"range", ""},
                                                 {"referer", ""},
                                                 {"refresh", ""},
                                                 {"retry-after", ""},
                                                 {"server", ""},
                                                 {"set-cookie", ""},
                                                 {"strict-transport-security", ""},
                                                 {"transfer-encoding", ""},
                                                 {"user-agent", ""},
                                                 {"vary", ""},
                                                 {"via", ""},
                                                 {"www-authenticate", ""}};

// RFC 7541, appendix B: the bits of each symbol's code, the last one is the end of the string. The
// code is canonical: codes of one length are in the order of their symbols, and behind the shorter
// ones.
constexpr int kSymbols = 257;
constexpr int kEndOfString = 256;
constexpr int kMinCodeBits = 5;
constexpr int kMaxCodeBits = 30;
constexpr std::uint8_t kCodeBits[kSymbols] = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, 8,  6,  6,  6,
    5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8,  15, 6,  12, 10, 13, 6,  7,  7,  7,  7,  7,  7,
    7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8,  13, 19, 13, 14, 6,
    15, 5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,  6,  7,  6,  5,  5,  6,  7,  7,
    7,  7,  7,  15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30};

struct HuffmanCode {
  // The codes of `bits` bits are first[bits] and the next count[bits] - 1 ones; their symbols begin
  // at symbols[begin[bits]].
  std::uint32_t first[kMaxCodeBits + 1];
  std::uint16_t count[kMaxCodeBits + 1];
  std::uint16_t begin[kMaxCodeBits + 1];
  std::uint16_t symbols[kSymbols];
  // By the next eight bits: symbol and length of a code that is not longer; length 0 where it is.
  struct Short {
    std::uint8_t symbol;
    std::uint8_t bits;
  } shorts[256];
};

constexpr HuffmanCode MakeHuffmanCode() {
  HuffmanCode code{};
  std::uint32_t next = 0;
  std::uint16_t at = 0;
  for (int bits = 1; bits <= kMaxCodeBits; ++bits) {
    next <<= 1;
    code.first[bits] = next;
    code.begin[bits] = at;
    for (int symbol = 0; symbol < kSymbols; ++symbol) {
      if (kCodeBits[symbol] != bits) continue;
      if (bits <= 8) {
        for (std::uint32_t rest = 0; rest < (1U << (8 - bits)); ++rest) {
          code.shorts[(next << (8 - bits)) + rest] = {static_cast<std::uint8_t>(symbol),
                                                      static_cast<std::uint8_t>(bits)};
        }
      }
      code.symbols[at++] = static_cast<std::uint16_t>(symbol);
      ++code.count[bits];
      ++next;
    }
  }
  return code;
}
constexpr HuffmanCode kHuffman = MakeHuffmanCode();

// RFC 9110's token characters without capital letters (RFC 9113, section 8.2.1).
constexpr std::array<bool, 256> MakeNameCharacters() {
  std::array<bool, 256> good{};
  for (char c = 'a'; c <= 'z'; ++c) good[static_cast<unsigned char>(c)] = true;
  for (char c = '0'; c <= '9'; ++c) good[static_cast<unsigned char>(c)] = true;
  for (char c : std::string_view("!#$%&'*+-.^_`|~")) good[static_cast<unsigned char>(c)] = true;
  return good;
}
constexpr std::array<bool, 256> kNameCharacters = MakeNameCharacters();

bool IsName(std::string_view name) {
  return !name.empty() &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) { return kNameCharacters[c]; });
}
bool IsValue(std::string_view value) {
  return std::none_of(value.begin(), value.end(),
                      [](char c) { return c == '\0' || c == '\r' || c == '\n'; });
}

HeaderKind KindOfName(std::string_view name, std::string_view value) {
  if (name.starts_with(':')) {
    if (name == ":path") return HeaderKind::kPath;
    if (name == ":method") return HeaderKind::kMethod;
    if (name == ":scheme") return HeaderKind::kScheme;
    if (name == ":authority") return HeaderKind::kAuthority;
    return HeaderKind::kMalformed;
  }
  if (!IsName(name)) return HeaderKind::kMalformed;
  switch (name.size()) {
    case 2:
      if (name == "te") {
        return value == "trailers" ? HeaderKind::kIgnored : HeaderKind::kMalformed;
      }
      break;
    case 7:
      if (name == "upgrade") return HeaderKind::kMalformed;
      break;
    case 10:
      if (name == "user-agent") return HeaderKind::kIgnored;
      if (name == "connection" || name == "keep-alive") return HeaderKind::kMalformed;
      break;
    case 12:
      if (name == "content-type") return HeaderKind::kContentType;
      if (name == "grpc-timeout") return HeaderKind::kGrpcTimeout;
      break;
    case 13:
      if (name == "grpc-encoding") return HeaderKind::kGrpcEncoding;
      break;
    case 14:
      if (name == "content-length") return HeaderKind::kContentLength;
      break;
    case 16:
      if (name == "proxy-connection") return HeaderKind::kMalformed;
      break;
    case 17:
      if (name == "transfer-encoding") return HeaderKind::kMalformed;
      break;
    default:
      break;
  }
  return name.starts_with("grpc-") ? HeaderKind::kIgnored : HeaderKind::kMetadata;
}

// An integer of RFC 7541, section 5.1, behind the bits of `first`.
void AppendInteger(unsigned char first, int prefix_bits, std::size_t value, std::string& out) {
  const std::size_t most = (std::size_t{1} << prefix_bits) - 1;
  if (value < most) {
    out.push_back(static_cast<char>(first | value));
    return;
  }
  out.push_back(static_cast<char>(first | most));
  for (value -= most; value >= 128; value >>= 7) out.push_back(static_cast<char>(value | 128));
  out.push_back(static_cast<char>(value));
}
void AppendString(std::string_view text, std::string& out) {
  AppendInteger(0, 7, text.size(), out);
  out.append(text);
}

}  // namespace

HeaderKind KindOfHeader(std::string_view name, std::string_view value) {
  return IsValue(value) ? KindOfName(name, value) : HeaderKind::kMalformed;
}

bool HuffmanDecode(std::string_view coded, std::string& text) {
  const std::size_t begin = text.size();
  text.resize(begin + coded.size() * 8 / kMinCodeBits);
  char* out = text.data() + begin;
  std::uint64_t bits = 0;  // the lowest `count` are not yet decoded
  int count = 0;
  const auto* at = reinterpret_cast<const unsigned char*>(coded.data());
  const auto* const end = at + coded.size();
  while (true) {
    while (count <= 56 && at != end) {
      bits = bits << 8 | *at++;
      count += 8;
    }
    if (count >= 8) {
      const HuffmanCode::Short& found = kHuffman.shorts[bits >> (count - 8) & 0xff];
      if (found.bits > 0) {
        *out++ = static_cast<char>(found.symbol);
        count -= found.bits;
        continue;
      }
    }
    int length = 1;
    std::uint32_t offset = 0;
    for (; length <= std::min(count, kMaxCodeBits); ++length) {
      const auto code = static_cast<std::uint32_t>(bits >> (count - length) & ((1U << length) - 1));
      offset = code - kHuffman.first[length];
      if (code >= kHuffman.first[length] && offset < kHuffman.count[length]) break;
    }
    if (length > kMaxCodeBits) return false;
    if (length > count) {
      // The end: less than a byte, of ones.
      text.resize(static_cast<std::size_t>(out - text.data()));
      return count < 8 && (bits & ((1U << count) - 1)) == (1U << count) - 1;
    }
    const int symbol = kHuffman.symbols[kHuffman.begin[length] + offset];
    if (symbol == kEndOfString) return false;
    *out++ = static_cast<char>(symbol);
    count -= length;
  }
}

// ---- HpackDecoder
// --------------------------------------------------------------------------------

void HpackDecoder::Begin(std::string_view block) {
  at_ = reinterpret_cast<const unsigned char*>(block.data());
  end_ = at_ + block.size();
  fields_seen_ = false;
}

bool HpackDecoder::Integer(int prefix_bits, std::uint32_t* value) {
  const std::uint32_t most = (1U << prefix_bits) - 1;
  std::uint64_t sum = *at_++ & most;
  if (sum == most) {
    int shift = 0;
    unsigned char byte = 0;
    do {
      // Nothing here is larger than a header block, so 28 bits are plenty.
      if (at_ == end_ || shift > 21) return false;
      byte = *at_++;
      sum += std::uint64_t{byte & 0x7fU} << shift;
      shift += 7;
    } while ((byte & 0x80) != 0);
  }
  *value = static_cast<std::uint32_t>(sum);
  return true;
}

bool HpackDecoder::String(std::string& scratch, std::string_view* text) {
  if (at_ == end_) return false;
  const bool huffman = (*at_ & 0x80) != 0;
  std::uint32_t size = 0;
  if (!Integer(7, &size) || size > static_cast<std::size_t>(end_ - at_)) return false;
  const std::string_view coded(reinterpret_cast<const char*>(at_), size);
  at_ += size;
  if (!huffman) {
    *text = coded;
    return true;
  }
  scratch.clear();
  if (!HuffmanDecode(coded, scratch)) return false;
  *text = scratch;
  return true;
}

bool HpackDecoder::Lookup(std::uint32_t index, HeaderField* field) const {
  static const std::array<HeaderKind, kStaticEntries> kKinds = [] {
    std::array<HeaderKind, kStaticEntries> kinds{};
    for (std::size_t i = 0; i < kStaticEntries; ++i) {
      kinds[i] = KindOfHeader(kStatic[i].name, kStatic[i].value);
    }
    return kinds;
  }();
  if (index == 0) return false;
  if (index <= kStaticEntries) {
    const StaticEntry& entry = kStatic[index - 1];
    *field = {entry.name, entry.value, kKinds[index - 1]};
    return true;
  }
  index -= kStaticEntries;
  if (index > entries_.size() - first_entry_) return false;
  const Entry& entry = entries_[entries_.size() - index];
  const char* text = text_.data() + (entry.at - text_at_);
  *field = {{text, entry.name_bytes}, {text + entry.name_bytes, entry.value_bytes}, entry.kind};
  return true;
}

void HpackDecoder::Evict(std::size_t limit) {
  while (table_bytes_ > limit) {
    const Entry& oldest = entries_[first_entry_++];
    table_bytes_ -= oldest.name_bytes + oldest.value_bytes + kEntryOverhead;
  }
}

void HpackDecoder::Insert(HeaderField* field) {
  ++table_version_;
  const std::size_t bytes = field->name.size() + field->value.size();
  if (bytes + kEntryOverhead > limit_) return Evict(0);
  Evict(limit_ - bytes - kEntryOverhead);
  // As much that is dead as a table may have: cut it off. What that costs is then paid for.
  const std::uint64_t live =
      first_entry_ == entries_.size() ? text_at_ + text_.size() : entries_[first_entry_].at;
  if (live - text_at_ > kMaxHpackTableBytes || first_entry_ > kMaxTableEntries) {
    text_.erase(0, live - text_at_);
    text_at_ = live;
    entries_.erase(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(first_entry_));
    first_entry_ = 0;
  }
  const std::size_t at = text_.size();
  entries_.push_back({text_at_ + at, static_cast<std::uint32_t>(field->name.size()),
                      static_cast<std::uint32_t>(field->value.size()), field->kind});
  table_bytes_ += bytes + kEntryOverhead;
  text_.append(field->name).append(field->value);
  field->name = std::string_view(text_).substr(at, field->name.size());
  field->value = std::string_view(text_).substr(at + field->name.size());
}

HpackDecoder::Step HpackDecoder::Next(HeaderField* field) {
  while (at_ != end_) {
    const unsigned char first = *at_;
    std::uint32_t number = 0;
    if ((first & 0x80) != 0) {
      fields_seen_ = true;
      return Integer(7, &number) && Lookup(number, field) ? Step::kField : Step::kError;
    }
    if ((first & 0xe0) == 0x20) {
      // A new size of the table comes before the fields.
      if (fields_seen_ || !Integer(5, &number) || number > kMaxHpackTableBytes) {
        return Step::kError;
      }
      limit_ = number;
      ++table_version_;
      Evict(limit_);
      continue;
    }
    fields_seen_ = true;
    const bool indexed = (first & 0x40) != 0;
    if (!Integer(indexed ? 6 : 4, &number)) return Step::kError;
    if (number == 0) {
      if (!String(name_scratch_, &field->name)) return Step::kError;
    } else {
      if (!Lookup(number, field)) return Step::kError;
      if (number > kStaticEntries) {  // it may leave the table when this one enters
        name_scratch_.assign(field->name);
        field->name = name_scratch_;
      }
    }
    if (!String(value_scratch_, &field->value)) return Step::kError;
    field->kind = KindOfHeader(field->name, field->value);
    if (indexed) Insert(field);
    return Step::kField;
  }
  for (std::string* scratch : {&name_scratch_, &value_scratch_}) {
    if (scratch->capacity() > kKeptScratchBytes) std::string().swap(*scratch);
  }
  return Step::kEnd;
}

// ---- HpackEncoder
// --------------------------------------------------------------------------------

void HpackEncoder::SetTableLimit(std::uint32_t bytes) {
  const std::size_t limit = std::min<std::size_t>(bytes, kMaxHpackTableBytes);
  limit_changed_ = limit_changed_ || limit != limit_;
  limit_ = limit;
}

void HpackEncoder::Begin(std::string& block) {
  if (!limit_changed_) return;
  limit_changed_ = false;
  // To nothing and up again: that is right whatever sizes there were since the last block, and such
  // changes are rare.
  AppendInteger(0x20, 5, 0, block);
  if (limit_ > 0) AppendInteger(0x20, 5, limit_, block);
  used_ = 0;
  inserted_ = 0;
  position_.fill(0);
}

void HpackEncoder::Status(std::string_view code, std::string& block) {
  if (code == "200") {
    block.push_back(static_cast<char>(0x80 | kStatus200));
    return;
  }
  AppendInteger(0, 4, kStatus200, block);  // the name of that entry
  AppendString(code, block);
}

void HpackEncoder::Fixed(std::size_t i, std::string& block) {
  if (position_[i] != 0) {
    AppendInteger(0x80, 7, kStaticEntries + 1 + inserted_ - position_[i], block);
    return;
  }
  const Field& field = fixed_[i];
  const std::size_t bytes = field.name.size() + field.value.size() + kEntryOverhead;
  if (used_ + bytes > limit_) return Literal(field.name, field.value, block);
  used_ += bytes;
  position_[i] = ++inserted_;
  block.push_back(0x40);
  AppendString(field.name, block);
  AppendString(field.value, block);
}

void HpackEncoder::Literal(std::string_view name, std::string_view value, std::string& block) {
  block.push_back(0);
  AppendString(name, block);
  AppendString(value, block);
}

}  // namespace takt::net
