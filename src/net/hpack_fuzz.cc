// Any header blocks: our decoder says what nghttp2's says, field by field, and fails where it
// fails.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "net/hpack.h"
#include "net/http2_frames_for_test.h"

// Blocks, each behind its length in a byte.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt::net;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  HpackDecoder decoder;
  frames::Inflater inflater;
  while (!rest.empty()) {
    const std::size_t n = static_cast<unsigned char>(rest[0]);
    const std::string block(rest.substr(1, n));  // exactly so long, for the sanitizers
    rest.remove_prefix(std::min(rest.size(), n + 1));
    const std::string ours = frames::Decode(decoder, block);
    const std::string theirs = inflater.Inflate(block);
    if (ours != theirs) {
      std::fprintf(stderr, "broken: ours\n%s\nnghttp2\n%s\n", ours.c_str(), theirs.c_str());
      std::abort();
    }
    if (ours.ends_with("malformed")) break;
  }
  return 0;
}
