// The digits that the client asks the server about.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace takt::mnist {

inline constexpr std::size_t kPixels = 784;                   // 28 x 28
inline constexpr std::size_t kMaxDigitFileBytes = 128 << 20;  // uncompressed

struct Digits {
  std::vector<std::uint8_t> pixels;  // [size, 784], row-major, 0..255
  std::vector<std::uint8_t> labels;  // [size], 0..9
  std::string source;                // where they came from, for people
  std::size_t size() const { return labels.size(); }
};

// The test digits. Where they come from (and fetching them) is mnist_data.py's, which lies in
// `script`; it is run with `work_dir` and says on stderr what it does.
absl::StatusOr<Digits> LoadTestDigits(const std::string& script, const std::string& work_dir);

}  // namespace takt::mnist
