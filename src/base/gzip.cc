#include "base/gzip.h"

#include <zlib.h>

#include <algorithm>

namespace takt {
namespace {
constexpr int kGzipWindow = 15 + 16;  // zlib: largest window, gzip's frame
constexpr int kFastest = 1;
}  // namespace

absl::StatusOr<std::string> Gunzip(std::string_view data, std::size_t max_bytes) {
  z_stream stream{};
  if (inflateInit2(&stream, kGzipWindow) != Z_OK) return absl::InternalError("zlib does not start");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  std::string out;
  int result = Z_OK;
  while (result == Z_OK) {
    const std::size_t old_size = out.size();
    if (old_size > max_bytes) break;
    out.resize(std::min(max_bytes + 1, std::max<std::size_t>(2 * old_size, 16384)));
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + old_size);
    stream.avail_out = static_cast<uInt>(out.size() - old_size);
    result = inflate(&stream, Z_NO_FLUSH);
    out.resize(out.size() - stream.avail_out);
    if (result == Z_OK && stream.avail_in == 0 && stream.avail_out > 0) result = Z_BUF_ERROR;
  }
  inflateEnd(&stream);
  if (out.size() > max_bytes) {
    return absl::InvalidArgumentError(
        StrCat("gzip body inflates to more than ", max_bytes, " bytes"));
  }
  if (result != Z_STREAM_END) return absl::InvalidArgumentError("body is not gzip, or cut off");
  return out;
}

std::string Gzip(std::string_view data) {
  z_stream stream{};
  std::string out;
  if (deflateInit2(&stream, kFastest, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    return out;
  }
  out.resize(deflateBound(&stream, data.size()));
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

}  // namespace takt
