// The small formats of gRPC over HTTP/2: message prefix, timeout, percent-encoded message,
// compression. Pure functions. Source: grpc/doc/PROTOCOL-HTTP2.md.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace takt::net {

enum class GrpcCompression { kIdentity, kDeflate, kGzip };
inline constexpr std::string_view kGrpcAcceptEncoding = "identity,deflate,gzip";

// "application/grpc", alone or followed by '+' or ';'.
bool IsGrpcContentType(std::string_view value);
// "100m", at most eight digits and a unit of HMSmun. Nothing when it is none of that.
std::optional<std::chrono::nanoseconds> ParseGrpcTimeout(std::string_view value);
std::optional<GrpcCompression> ParseGrpcCompression(std::string_view name);
std::string_view GrpcCompressionName(GrpcCompression compression);

std::uint32_t ReadBigEndian32(const unsigned char* bytes);
// Five bytes at `out`.
void WriteGrpcPrefix(bool compressed, std::size_t message_bytes, char* out);

inline constexpr std::size_t kInflationAllowanceBytes = 64 << 10;
// RESOURCE_EXHAUSTED beyond `max_bytes` or when the answer is more than `max_ratio` times the input
// (inputs below kInflationAllowanceBytes count as that: padding packs well, and a few megabytes
// harm nobody); INTERNAL when the bytes do not inflate, or go on behind their end.
absl::StatusOr<std::string> GrpcInflate(GrpcCompression compression, std::string_view packed,
                                        std::size_t max_bytes, std::size_t max_ratio);
absl::StatusOr<std::string> GrpcDeflate(GrpcCompression compression, std::string_view plain);

// As grpc-message: bytes outside of printable ASCII, and '%', become %XX.
std::string PercentEncode(std::string_view text);
// Whether PercentEncode would leave it as it is.
bool IsPlainGrpcMessage(std::string_view text);
// At most `most` characters, then "...TRUNCATED".
std::string CutMessage(std::string_view text, std::size_t most);

}  // namespace takt::net
