#include "serving/config/flags.h"

#include <charconv>
#include <variant>

#include "absl/strings/str_split.h"
#include "base/text.h"

namespace takt::serving {
namespace {

using Field =
    std::variant<bool Flags::*, std::int64_t Flags::*, double Flags::*, std::string Flags::*>;

struct FlagRow {
  const char* name;
  Field field;
  const char* help;
  const char* no_meaning = nullptr;  // why giving it changes nothing here
};

const FlagRow kRows[] = {
    {"port", &Flags::port, "TCP port of gRPC; 0 = any free one"},
    {"grpc_socket_path", &Flags::grpc_socket_path, "unix socket on which gRPC listens too"},
    {"grpc_channel_arguments", &Flags::grpc_channel_arguments,
     "comma-separated key=value; grpc.max_concurrent_streams, grpc.max_connection_idle_ms and "
     "grpc.max_receive_message_length are honoured"},
    {"grpc_max_threads", &Flags::grpc_max_threads, "bound on threads of the original",
     "calls take no thread each, so there is nothing to bound"},
    {"rest_api_port", &Flags::rest_api_port, "TCP port of REST; 0 = no REST"},
    {"rest_api_num_threads", &Flags::rest_api_num_threads,
     "threads that serve REST; 0 = one for each core"},
    {"rest_api_timeout_in_ms", &Flags::rest_api_timeout_in_ms, "deadline of a REST request"},
    {"rest_api_enable_cors_support", &Flags::rest_api_enable_cors_support,
     "lets pages of other origins call REST"},
    {"use_alts_credentials", &Flags::use_alts_credentials, "Google's ALTS",
     "ALTS exists on Google's platform only; use --ssl_config_file"},
    {"ssl_config_file", &Flags::ssl_config_file,
     "SSLConfig as text: server_key, server_cert, custom_ca, client_verify; for gRPC and REST"},
    {"enable_grpc_healthcheck_service", &Flags::enable_grpc_healthcheck_service,
     "grpc.health.v1, for the server and for each model by name"},
    {"enable_profiler", &Flags::enable_profiler, "TensorFlow's profiler service",
     "the engine's C API has no profiler; use the metrics, or perf on the process"},
    {"model_name", &Flags::model_name, "name of the one model (with --model_base_path)"},
    {"model_base_path", &Flags::model_base_path,
     "directory that holds the model's versions; required without --model_config_file"},
    {"model_config_file", &Flags::model_config_file, "ModelServerConfig as text"},
    {"model_config_file_poll_wait_seconds", &Flags::model_config_file_poll_wait_seconds,
     "how often that file is read again; 0 = never"},
    {"allow_version_labels_for_unavailable_models",
     &Flags::allow_version_labels_for_unavailable_models,
     "new or unchanged labels may name versions that are not loaded"},
    {"saved_model_tags", &Flags::saved_model_tags, "comma-separated tags of the graph to load"},
    {"num_load_threads", &Flags::num_load_threads, "threads that load versions; 0 = two"},
    {"num_unload_threads", &Flags::num_unload_threads, "threads that unload versions",
     "versions are freed on the load threads"},
    {"max_num_load_retries", &Flags::max_num_load_retries, "tries after a failed load"},
    {"load_retry_interval_micros", &Flags::load_retry_interval_micros, "time between tries"},
    {"file_system_poll_wait_seconds", &Flags::file_system_poll_wait_seconds,
     "how often base paths are looked at; 0 = once, below 0 = never"},
    {"flush_filesystem_caches", &Flags::flush_filesystem_caches,
     "drops the system's file cache after the first load",
     "the system takes its cache back by itself when memory is short"},
    {"enable_model_warmup", &Flags::enable_model_warmup,
     "replays assets.extra/tf_serving_warmup_requests before a version serves"},
    {"num_request_iterations_for_warmup", &Flags::num_request_iterations_for_warmup,
     "how often each warm-up request is replayed; 0 = once"},
    {"remove_unused_fields_from_bundle_metagraph",
     &Flags::remove_unused_fields_from_bundle_metagraph, "drops the graph after loading",
     "the graph is never kept"},
    {"enable_batching", &Flags::enable_batching,
     "batches as TensorFlow Serving does, by its parameters, in place of --batching; given as "
     "false, "
     "it turns batching off"},
    {"batching_parameters_file", &Flags::batching_parameters_file,
     "BatchingParameters as text; needs --enable_batching"},
    {"enable_per_model_batching_parameters", &Flags::enable_per_model_batching_parameters,
     "a version's batching_params.pbtxt overrides the server's; needs --enable_batching"},
    {"tensorflow_session_parallelism", &Flags::tensorflow_session_parallelism,
     "sets both of the two below where they are 0"},
    {"tensorflow_intra_op_parallelism", &Flags::tensorflow_intra_op_parallelism,
     "threads within an operation; 0 = one where the first model is small, else cores"},
    {"tensorflow_inter_op_parallelism", &Flags::tensorflow_inter_op_parallelism,
     "threads over operations; 0 = cores"},
    {"tensorflow_session_config_file", &Flags::tensorflow_session_config_file,
     "tensorflow.ConfigProto as text"},
    {"platform_config_file", &Flags::platform_config_file,
     "PlatformConfigMap as text: session, batching, tags and warm-up in place of their flags"},
    {"per_process_gpu_memory_fraction", &Flags::per_process_gpu_memory_fraction,
     "part of each GPU's memory that may be taken; 0 = as needed"},
    {"mixed_precision", &Flags::mixed_precision, "automatic mixed precision: bfloat16"},
    {"xla_cpu_compilation_enabled", &Flags::xla_cpu_compilation_enabled, "XLA on CPU"},
    {"xla_gpu_compilation_enabled", &Flags::xla_gpu_compilation_enabled, "XLA on GPU"},
    {"thread_pool_factory_config_file", &Flags::thread_pool_factory_config_file,
     "custom thread pools", "runs take the thread of their event loop or batch"},
    {"enable_signature_method_name_check", &Flags::enable_signature_method_name_check,
     "Classify and Regress refuse signatures of another method"},
    {"enable_serialization_as_tensor_content", &Flags::enable_serialization_as_tensor_content,
     "outputs as tensor_content rather than typed values"},
    {"skip_initialize_tpu", &Flags::skip_initialize_tpu, "TPU start-up", "no TPU is initialised"},
    {"prefer_tflite_model", &Flags::prefer_tflite_model, "serve model.tflite where there is one",
     "SavedModels only"},
    {"num_tflite_pools", &Flags::num_tflite_pools, "TensorFlow Lite pools", "SavedModels only"},
    {"num_tflite_interpreters_per_pool", &Flags::num_tflite_interpreters_per_pool,
     "TensorFlow Lite interpreters", "SavedModels only"},
    {"monitoring_config_file", &Flags::monitoring_config_file, "MonitoringConfig as text"},
    {"version", &Flags::version, "prints the version and ends"},
    {"host", &Flags::host, "address on which the ports listen"},
    {"drain_timeout_ms", &Flags::drain_timeout_ms, "how long SIGTERM waits for requests in flight"},
    {"event_loop_threads", &Flags::event_loop_threads, "gRPC loops; 0 = one for each core"},
    {"batching", &Flags::batching,
     "auto: requests of one signature run together where the model's graph shows that their rows "
     "do "
     "not depend on each other; no waiting, batches grow with the load up to the latency target. "
     "always: also where the graph does not show it. off: each request runs alone"},
    {"batching_latency_target_micros", &Flags::batching_latency_target_micros,
     "what a run may take under --batching=auto and always"},
    {"trial_loads", &Flags::trial_loads,
     "off, all, or new: a version that comes while the server runs is loaded in a process of its "
     "own "
     "first, so that one which makes TensorFlow abort, or is too large, harms no other; takes a "
     "load's time and memory once more"},
    {"trial_load_of", &Flags::trial_load_of,
     "the version's directory, in the process that --trial_loads starts: loads it and ends"},
};

bool ParseBool(std::string_view text, bool* out) {
  for (const std::string_view yes : {"true", "True", "TRUE", "1", "yes", "t"}) {
    if (text == yes) return *out = true, true;
  }
  for (const std::string_view no : {"false", "False", "FALSE", "0", "no", "f"}) {
    if (text == no) return *out = false, true;
  }
  return false;
}

template <typename Number>
bool ParseNumber(std::string_view text, Number* out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size();
}

bool Assign(Flags* flags, const Field& field, std::string_view value) {
  struct Visitor {
    Flags* flags;
    std::string_view value;
    bool operator()(bool Flags::*f) const { return ParseBool(value, &(flags->*f)); }
    bool operator()(std::int64_t Flags::*f) const { return ParseNumber(value, &(flags->*f)); }
    bool operator()(double Flags::*f) const { return ParseNumber(value, &(flags->*f)); }
    bool operator()(std::string Flags::*f) const {
      flags->*f = std::string(value);
      return true;
    }
  };
  return std::visit(Visitor{flags, value}, field);
}

std::string_view Expected(const Field& field) {
  if (std::holds_alternative<bool Flags::*>(field)) return "true or false";
  if (std::holds_alternative<std::int64_t Flags::*>(field)) return "a whole number";
  if (std::holds_alternative<double Flags::*>(field)) return "a number";
  return "text";
}

std::string DefaultOf(const Field& field) {
  struct Visitor {
    const Flags flags;
    std::string operator()(bool Flags::*f) const { return flags.*f ? "true" : "false"; }
    std::string operator()(std::int64_t Flags::*f) const { return StrCat(flags.*f); }
    std::string operator()(double Flags::*f) const { return StrCat(flags.*f); }
    std::string operator()(std::string Flags::*f) const { return StrCat("\"", flags.*f, "\""); }
  };
  return std::visit(Visitor{}, field);
}

}  // namespace

ParsedFlags ParseFlags(std::span<const std::string> words) {
  ParsedFlags parsed;
  bool has_batching = false;
  bool has_enable_batching = false;
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string_view word = words[i];
    if (!word.starts_with("--")) {
      parsed.problems.push_back(StrCat("not a flag: ", word));
      continue;
    }
    word.remove_prefix(2);
    const std::size_t equals = word.find('=');
    const std::string_view name = word.substr(0, equals);
    const FlagRow* row = nullptr;
    for (const FlagRow& candidate : kRows) {
      if (name == candidate.name) row = &candidate;
    }
    if (row == nullptr) {
      std::vector<std::string_view> names;
      for (const FlagRow& candidate : kRows) names.emplace_back(candidate.name);
      const std::optional<std::string> near = NearMiss(name, names);
      parsed.problems.push_back(
          StrCat("unknown flag --", name,
                 near.has_value() ? StrCat("; did you mean --", *near, "?") : std::string()));
      continue;
    }
    std::string_view value;
    if (equals != std::string_view::npos) {
      value = word.substr(equals + 1);
    } else if (std::holds_alternative<bool Flags::*>(row->field)) {
      value = "true";
    } else if (i + 1 < words.size()) {
      value = words[++i];
    } else {
      parsed.problems.push_back(StrCat("--", name, " needs a value"));
      continue;
    }
    if (!Assign(&parsed.flags, row->field, value)) {
      parsed.problems.push_back(
          StrCat("--", name, ": expected ", Expected(row->field), ", got \"", value, "\""));
      continue;
    }
    has_batching = has_batching || name == "batching";
    has_enable_batching = has_enable_batching || name == "enable_batching";
    if (row->no_meaning != nullptr) {
      parsed.without_meaning.push_back(
          StrCat("--", name, " has no meaning here: ", row->no_meaning));
    }
  }
  if (has_enable_batching && !has_batching) parsed.flags.batching = "off";
  return parsed;
}

std::string FlagsUsage() {
  std::string usage = "usage: tensorflow_model_server [flags]\nFlags:\n";
  for (const FlagRow& row : kRows) {
    absl::StrAppend(&usage, "  --", row.name, "=", DefaultOf(row.field), "\n      ", row.help);
    if (row.no_meaning != nullptr)
      absl::StrAppend(&usage, " (no meaning here: ", row.no_meaning, ")");
    absl::StrAppend(&usage, "\n");
  }
  return usage;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseChannelArguments(
    std::string_view text) {
  std::vector<std::pair<std::string, std::string>> arguments;
  for (const absl::string_view part : absl::StrSplit(ToAbsl(text), ',', absl::SkipWhitespace())) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    if (part.find('=') == absl::string_view::npos || pair.first.empty()) {
      return absl::InvalidArgumentError(
          StrCat("--grpc_channel_arguments: expected key=value, got \"", part, "\""));
    }
    arguments.emplace_back(pair.first, pair.second);
  }
  return arguments;
}

}  // namespace takt::serving
