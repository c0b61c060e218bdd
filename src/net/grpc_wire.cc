#include "net/grpc_wire.h"

#include <zlib.h>

#include <algorithm>

namespace takt::net {

bool IsGrpcContentType(std::string_view value) {
  constexpr std::string_view kType = "application/grpc";
  if (!value.starts_with(kType)) return false;
  return value.size() == kType.size() || value[kType.size()] == '+' || value[kType.size()] == ';';
}

std::optional<std::chrono::nanoseconds> ParseGrpcTimeout(std::string_view value) {
  if (value.size() < 2 || value.size() > 9) return std::nullopt;
  std::int64_t number = 0;
  for (char c : value.substr(0, value.size() - 1)) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + (c - '0');
  }
  std::int64_t unit = 0;
  switch (value.back()) {
    case 'H':
      unit = 3'600'000'000'000;
      break;
    case 'M':
      unit = 60'000'000'000;
      break;
    case 'S':
      unit = 1'000'000'000;
      break;
    case 'm':
      unit = 1'000'000;
      break;
    case 'u':
      unit = 1'000;
      break;
    case 'n':
      unit = 1;
      break;
    default:
      return std::nullopt;
  }
  // Longer than a year is for ever, and keeps the sum with a time point within its type.
  constexpr std::int64_t kYear = 365LL * 24 * 3'600'000'000'000;
  if (number > kYear / unit) return std::chrono::nanoseconds(kYear);
  return std::chrono::nanoseconds(number * unit);
}

std::optional<GrpcCompression> ParseGrpcCompression(std::string_view name) {
  if (name == "identity" || name.empty()) return GrpcCompression::kIdentity;
  if (name == "deflate") return GrpcCompression::kDeflate;
  if (name == "gzip") return GrpcCompression::kGzip;
  return std::nullopt;
}

std::string_view GrpcCompressionName(GrpcCompression compression) {
  switch (compression) {
    case GrpcCompression::kDeflate:
      return "deflate";
    case GrpcCompression::kGzip:
      return "gzip";
    case GrpcCompression::kIdentity:
      break;
  }
  return "identity";
}

std::uint32_t ReadBigEndian32(const unsigned char* b) {
  return std::uint32_t{b[0]} << 24 | std::uint32_t{b[1]} << 16 | std::uint32_t{b[2]} << 8 | b[3];
}

void WriteGrpcPrefix(bool compressed, std::size_t n, char* out) {
  out[0] = compressed ? 1 : 0;
  out[1] = static_cast<char>(n >> 24);
  out[2] = static_cast<char>(n >> 16);
  out[3] = static_cast<char>(n >> 8);
  out[4] = static_cast<char>(n);
}

absl::StatusOr<std::string> GrpcInflate(GrpcCompression compression, std::string_view packed,
                                        std::size_t max_bytes, std::size_t max_ratio) {
  z_stream z{};
  if (inflateInit2(&z, compression == GrpcCompression::kGzip ? 15 + 16 : 15) != Z_OK) {
    return absl::ResourceExhaustedError("no memory to inflate");
  }
  const std::size_t most =
      std::min(max_bytes, std::max(packed.size(), kInflationAllowanceBytes) * max_ratio);
  std::string plain;
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  z.avail_in = static_cast<uInt>(packed.size());
  int result = Z_OK;
  std::size_t used = 0;
  while (result == Z_OK) {
    if (used == plain.size()) {
      if (used > most) break;
      plain.resize(std::min(std::max<std::size_t>(plain.size() * 2, 4096), most + 1));
    }
    z.next_out = reinterpret_cast<Bytef*>(plain.data() + used);
    z.avail_out = static_cast<uInt>(std::min<std::size_t>(plain.size() - used, 1 << 30));
    const uInt room = z.avail_out;
    result = inflate(&z, Z_NO_FLUSH);
    used += room - z.avail_out;
  }
  const uInt left = z.avail_in;
  inflateEnd(&z);
  if (used > most) {
    return absl::ResourceExhaustedError(StrCat("a compressed message of ", packed.size(),
                                               " bytes inflates beyond ", most, " bytes"));
  }
  if (result != Z_STREAM_END || left != 0) {
    return absl::InternalError(
        StrCat("a message does not inflate as ", GrpcCompressionName(compression)));
  }
  plain.resize(used);
  return plain;
}

absl::StatusOr<std::string> GrpcDeflate(GrpcCompression compression, std::string_view plain) {
  z_stream z{};
  if (deflateInit2(&z, Z_BEST_SPEED, Z_DEFLATED,
                   compression == GrpcCompression::kGzip ? 15 + 16 : 15, 8,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    return absl::ResourceExhaustedError("no memory to deflate");
  }
  std::string packed(deflateBound(&z, plain.size()), '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  z.avail_in = static_cast<uInt>(plain.size());
  z.next_out = reinterpret_cast<Bytef*>(packed.data());
  z.avail_out = static_cast<uInt>(packed.size());
  const int result = deflate(&z, Z_FINISH);
  packed.resize(packed.size() - z.avail_out);
  deflateEnd(&z);
  if (result != Z_STREAM_END) return absl::InternalError("an answer does not deflate");
  return packed;
}

namespace {
bool IsPlain(unsigned char c) { return c >= 0x20 && c <= 0x7e && c != '%'; }
}  // namespace

bool IsPlainGrpcMessage(std::string_view text) {
  unsigned bad = 0;  // many at a time, because it does not stop
  for (unsigned char c : text) bad |= unsigned{c < 0x20} | unsigned{c > 0x7e} | unsigned{c == '%'};
  return bad == 0;
}

std::string PercentEncode(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (unsigned char c : text) {
    if (IsPlain(c)) {
      out.push_back(static_cast<char>(c));
    } else {
      out.push_back('%');
      out.push_back(kHex[c >> 4]);
      out.push_back(kHex[c & 15]);
    }
  }
  return out;
}

std::string CutMessage(std::string_view text, std::size_t most) {
  if (text.size() <= most) return std::string(text);
  return StrCat(text.substr(0, most), "...TRUNCATED");
}

}  // namespace takt::net
