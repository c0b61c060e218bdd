// The command line of tensorflow_model_server: every flag of the original with its default, and
// ours. Pure: parses words into a struct.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace takt::serving {

struct Flags {
  // Network.
  std::int64_t port = 8500;
  std::string grpc_socket_path;
  std::string grpc_channel_arguments;
  std::int64_t grpc_max_threads = 0;  // 0 = 4 for each core, as the original's default
  std::int64_t rest_api_port = 0;
  std::int64_t rest_api_num_threads = 0;
  std::int64_t rest_api_timeout_in_ms = 30000;
  bool rest_api_enable_cors_support = false;
  bool use_alts_credentials = false;
  std::string ssl_config_file;
  bool enable_grpc_healthcheck_service = false;
  bool enable_profiler = true;
  // Models.
  std::string model_name = "default";
  std::string model_base_path;
  std::string model_config_file;
  std::int64_t model_config_file_poll_wait_seconds = 0;
  bool allow_version_labels_for_unavailable_models = false;
  std::string saved_model_tags = "serve";
  // Lifecycle.
  std::int64_t num_load_threads = 0;
  std::int64_t num_unload_threads = 0;
  std::int64_t max_num_load_retries = 5;
  std::int64_t load_retry_interval_micros = 60000000;
  std::int64_t file_system_poll_wait_seconds = 1;
  bool flush_filesystem_caches = true;
  bool enable_model_warmup = true;
  std::int64_t num_request_iterations_for_warmup = 0;
  bool remove_unused_fields_from_bundle_metagraph = true;
  // Batching.
  bool enable_batching = false;
  std::string batching_parameters_file;
  bool enable_per_model_batching_parameters = false;
  // TensorFlow.
  std::int64_t tensorflow_session_parallelism = 0;
  std::int64_t tensorflow_intra_op_parallelism = 0;
  std::int64_t tensorflow_inter_op_parallelism = 0;
  std::string tensorflow_session_config_file;
  std::string platform_config_file;
  double per_process_gpu_memory_fraction = 0;
  std::string mixed_precision;
  bool xla_cpu_compilation_enabled = false;
  bool xla_gpu_compilation_enabled = false;
  std::string thread_pool_factory_config_file;
  bool enable_signature_method_name_check = false;
  bool enable_serialization_as_tensor_content = false;
  bool skip_initialize_tpu = false;
  // TensorFlow Lite.
  bool prefer_tflite_model = false;
  std::int64_t num_tflite_pools = 1;
  std::int64_t num_tflite_interpreters_per_pool = 1;
  // Other.
  std::string monitoring_config_file;
  bool version = false;
  // Ours.
  std::string host = "0.0.0.0";
  std::int64_t drain_timeout_ms = 30000;
  std::int64_t event_loop_threads = 0;  // 0 = one for each core
  // off | auto | always. ParseFlags makes it "off" where only enable_batching is given, whatever
  // its value: then that says whether requests are batched, as in the original.
  std::string batching = "auto";
  std::int64_t batching_latency_target_micros = 10000;
  std::string trial_loads = "new";  // off | new | all
  std::string trial_load_of;
};

struct ParsedFlags {
  Flags flags;
  // Words that are no flag of ours, or whose value does not parse, each with the reason: the caller
  // prints them and the usage, and goes on.
  std::vector<std::string> problems;
  // Flags that were given and have no meaning here, each with why.
  std::vector<std::string> without_meaning;
};

// `words` without the program's name. Accepts --name=value, --name value, and --name for switches.
ParsedFlags ParseFlags(std::span<const std::string> words);

// One paragraph a flag: name, default, what it does.
std::string FlagsUsage();

// "key=value,key=value" of --grpc_channel_arguments. INVALID_ARGUMENT naming the part.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseChannelArguments(
    std::string_view text);

}  // namespace takt::serving
