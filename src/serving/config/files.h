// The configuration files of tensorflow_model_server, in protobuf text format. Each function takes
// the file's text; none touches the disk or keeps anything.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "net/grpc_server.h"
#include "serving/batching/batching.h"
#include "serving/lifecycle/manager.h"
#include "tensorflow_serving/config/model_server_config.pb.h"

namespace takt::serving {

inline constexpr std::size_t kMaxConfigBytes = std::size_t{16} << 20;
inline constexpr int kMaxModels = 10000;

// INVALID_ARGUMENT "Error parsing text-format tensorflow.serving.ModelServerConfig: " with line,
// column and reason.
absl::StatusOr<tensorflow::serving::ModelServerConfig> ParseModelServerConfig(
    std::string_view text);

// Checks the list as the original does, with its messages. INVALID_ARGUMENT for a name twice, no
// platform (FAILED_PRECONDITION for one that is not TensorFlow), a path that is neither absolute
// nor a URI, a policy that picks nothing.
absl::StatusOr<std::vector<ModelConfig>> ModelsFromConfig(
    const tensorflow::serving::ModelServerConfig& config);

// One of --batching_parameters_file or <version>/batching_params.pbtxt.
absl::StatusOr<BatchingOptions> ParseBatchingParameters(std::string_view text);

struct MonitoringOptions {
  bool prometheus = false;
  std::string path = "/monitoring/prometheus/metrics";
};
absl::StatusOr<MonitoringOptions> ParseMonitoringConfig(std::string_view text);

// --platform_config_file: what it says of the platform "tensorflow".
struct PlatformOptions {
  std::optional<BatchingOptions> batching;
  std::string session_config;     // tensorflow.ConfigProto, serialised
  std::vector<std::string> tags;  // none = the flag's
  bool warmup = false;
  int warmup_iterations = 0;            // 0 = once
  std::vector<std::string> no_meaning;  // what else it says
};
// FAILED_PRECONDITION, as the original has it, when it has no entry for "tensorflow".
absl::StatusOr<PlatformOptions> ParsePlatformConfig(std::string_view text);

absl::StatusOr<net::TlsOptions> ParseSslConfig(std::string_view text);

}  // namespace takt::serving
