// The files that a model server reads and others write: configuration as text, the index of a
// version's variables.
#include <cstdint>
#include <string_view>

#include "serving/config/files.h"
#include "serving/lifecycle/version_files.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt::serving;  // NOLINT(google-build-using-namespace)
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0: {
      const auto config = ParseModelServerConfig(text);
      if (config.ok()) static_cast<void>(ModelsFromConfig(*config));
      break;
    }
    case 1:
      static_cast<void>(ParseBatchingParameters(text));
      static_cast<void>(ParsePlatformConfig(text));
      break;
    case 2:
      static_cast<void>(ParseMonitoringConfig(text));
      static_cast<void>(ParseSslConfig(text));
      break;
    default:
      static_cast<void>(ShardSizesOfIndex(text));
      break;
  }
  return 0;
}
