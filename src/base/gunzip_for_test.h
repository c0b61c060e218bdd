#pragma once

#include <zlib.h>

#include <string>
#include <string_view>

namespace takt {

// The first `limit` bytes of what `packed` holds; empty where it is no gzip.
inline std::string Gunzip(std::string_view packed, std::size_t limit) {
  std::string out(limit, '\0');
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) return "";
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = inflate(&stream, Z_FINISH);
  out.resize(result == Z_STREAM_END ? stream.total_out : 0);
  inflateEnd(&stream);
  return out;
}

}  // namespace takt
