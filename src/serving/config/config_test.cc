#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serving/config/files.h"
#include "serving/config/flags.h"

namespace takt::serving {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

std::string Message(const absl::Status& status) { return std::string(ToStd(status.message())); }

TEST(Flags, DefaultsAreTheOriginals) {
  const std::string usage = FlagsUsage();
  for (const char* flag : {"port=8500",
                           "grpc_socket_path=\"\"",
                           "grpc_channel_arguments=\"\"",
                           "rest_api_port=0",
                           "rest_api_timeout_in_ms=30000",
                           "rest_api_enable_cors_support=false",
                           "use_alts_credentials=false",
                           "ssl_config_file=\"\"",
                           "enable_grpc_healthcheck_service=false",
                           "enable_profiler=true",
                           "model_name=\"default\"",
                           "model_base_path=\"\"",
                           "model_config_file=\"\"",
                           "model_config_file_poll_wait_seconds=0",
                           "allow_version_labels_for_unavailable_models=false",
                           "saved_model_tags=\"serve\"",
                           "num_load_threads=0",
                           "num_unload_threads=0",
                           "max_num_load_retries=5",
                           "load_retry_interval_micros=60000000",
                           "file_system_poll_wait_seconds=1",
                           "flush_filesystem_caches=true",
                           "enable_model_warmup=true",
                           "num_request_iterations_for_warmup=0",
                           "remove_unused_fields_from_bundle_metagraph=true",
                           "enable_batching=false",
                           "batching_parameters_file=\"\"",
                           "enable_per_model_batching_parameters=false",
                           "tensorflow_session_parallelism=0",
                           "tensorflow_intra_op_parallelism=0",
                           "tensorflow_inter_op_parallelism=0",
                           "tensorflow_session_config_file=\"\"",
                           "platform_config_file=\"\"",
                           "per_process_gpu_memory_fraction=0",
                           "mixed_precision=\"\"",
                           "xla_cpu_compilation_enabled=false",
                           "xla_gpu_compilation_enabled=false",
                           "thread_pool_factory_config_file=\"\"",
                           "enable_signature_method_name_check=false",
                           "enable_serialization_as_tensor_content=false",
                           "skip_initialize_tpu=false",
                           "prefer_tflite_model=false",
                           "num_tflite_interpreters_per_pool=1",
                           "monitoring_config_file=\"\"",
                           "version=false",
                           "trial_loads=\"new\"",
                           "batching=\"auto\""}) {
    EXPECT_THAT(usage, HasSubstr(StrCat("  --", flag, "\n")));
  }
}

TEST(Flags, TheOriginalsBatchingFlagStandsInPlaceOfOurs) {
  const struct {
    std::vector<std::string> words;
    std::string_view batching;
  } cases[] = {{{"--enable_batching"}, "off"},
               {{"--enable_batching=false"}, "off"},
               {{"--enable_batching=maybe"}, "auto"},
               {{"--batching=off"}, "off"},
               {{"--batching=always"}, "always"},
               {{"--batching=auto", "--enable_batching=false"}, "auto"},
               {{"--enable_batching=true", "--batching=auto"}, "auto"}};  // the server refuses it
  for (const auto& [words, batching] : cases) {
    EXPECT_EQ(ParseFlags(words).flags.batching, batching) << words[0];
  }
}

TEST(Flags, AreReadInEveryForm) {
  const std::vector<std::string> words = {"--port=1",
                                          "--rest_api_port",
                                          "2",
                                          "--enable_batching",
                                          "--model_name=a=b",
                                          "--enable_model_warmup=false",
                                          "--per_process_gpu_memory_fraction=0.5"};
  const ParsedFlags parsed = ParseFlags(words);
  EXPECT_THAT(parsed.problems, IsEmpty());
  EXPECT_EQ(parsed.flags.port, 1);
  EXPECT_EQ(parsed.flags.rest_api_port, 2);
  EXPECT_TRUE(parsed.flags.enable_batching);
  EXPECT_EQ(parsed.flags.model_name, "a=b");
  EXPECT_FALSE(parsed.flags.enable_model_warmup);
  EXPECT_EQ(parsed.flags.per_process_gpu_memory_fraction, 0.5);
}

TEST(Flags, ProblemsAreNamedAndTheRestStands) {
  const std::vector<std::string> words = {"--prot=1",
                                          "word",
                                          "--port=x",
                                          "--enable_batching=maybe",
                                          "--grpc_max_threads=9",
                                          "--rest_api_port=5",
                                          "--model_name"};
  const ParsedFlags parsed = ParseFlags(words);
  EXPECT_THAT(parsed.problems,
              ElementsAre("unknown flag --prot; did you mean --port?", "not a flag: word",
                          "--port: expected a whole number, got \"x\"",
                          "--enable_batching: expected true or false, got \"maybe\"",
                          "--model_name needs a value"));
  EXPECT_THAT(parsed.without_meaning, ElementsAre(HasSubstr("--grpc_max_threads")));
  EXPECT_EQ(parsed.flags.rest_api_port, 5);
  EXPECT_THAT(FlagsUsage(), HasSubstr("--port=8500"));
}

TEST(ChannelArguments, AreKeysAndValues) {
  EXPECT_THAT(ParseChannelArguments("a=1,b.c=x=y").value(),
              ElementsAre(Pair("a", "1"), Pair("b.c", "x=y")));
  EXPECT_THAT(ParseChannelArguments("").value(), IsEmpty());
  EXPECT_THAT(Message(ParseChannelArguments("a=1,b").status()), HasSubstr("got \"b\""));
}

absl::StatusOr<std::vector<ModelConfig>> Models(std::string_view text) {
  TAKT_ASSIGN_OR_RETURN(const auto config, ParseModelServerConfig(text));
  return ModelsFromConfig(config);
}

TEST(ModelConfigFile, IsReadWhole) {
  const auto models = Models(R"(model_config_list {
    config {
      name: "a" base_path: "/m/a" model_platform: "tensorflow"
      model_version_policy { specific { versions: 3 versions: 5 } }
      version_labels { key: "stable" value: 3 }
      logging_config {
        log_collector_config { type: "" filename_prefix: "/logs/a" }
        sampling_config { sampling_rate: 0.25 }
      }
    }
    config { name: "b" base_path: "s3://bucket/b" model_type: TENSORFLOW
             model_version_policy { latest { num_versions: 2 } } }
    config { name: "c" base_path: "/m/c" model_platform: "tensorflow"
             model_version_policy { all {} } }
  })");
  ASSERT_TRUE(models.ok()) << models.status();
  ASSERT_EQ(models->size(), 3);
  const ModelConfig& a = (*models)[0];
  EXPECT_EQ(a.policy.kind, VersionPolicy::Kind::kSpecific);
  EXPECT_THAT(a.policy.specific, ElementsAre(3, 5));
  EXPECT_THAT(a.labels, ElementsAre(Pair("stable", 3)));
  EXPECT_EQ(a.request_log.filename_prefix, "/logs/a");
  EXPECT_EQ(a.request_log.sampling_rate, 0.25);
  EXPECT_EQ((*models)[1].policy.num_versions, 2);
  EXPECT_EQ((*models)[2].policy.kind, VersionPolicy::Kind::kAll);
}

TEST(ModelConfigFile, EachMistakeIsNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"model_config_list { config { name: 5 } }",
       "Error parsing text-format tensorflow.serving.ModelServerConfig: line 1, column "},
      {R"(model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow" }
                              config { name: "a" base_path: "/b" model_platform: "tensorflow" } })",
       "Illegal to list model a multiple times in config list"},
      {R"(model_config_list { config { base_path: "/a" model_platform: "tensorflow" } })",
       "has no name"},
      {R"(model_config_list { config { name: "a" model_platform: "tensorflow" } })",
       "Expected model a to have an absolute path or URI; got base_path()="},
      {R"(model_config_list { config { name: "a" base_path: "/a" } })",
       "Illegal setting neither model_type(deprecated) nor model_platform."},
      {R"(model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow"
                                       model_type: TENSORFLOW } })",
       "Illegal setting both model_type(deprecated) and model_platform."},
      {R"(model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow"
                                       model_version_policy { specific {} } } })",
       "names no version"},
      {R"(model_config_list { config { name: "a" base_path: "/a" model_platform: "tensorflow"
           logging_config { sampling_config { sampling_rate: 1.5 } } } })",
       "sampling_rate must be in [0, 1], got 1.5"},
  };
  for (const auto& [text, says] : cases) {
    const auto models = Models(text);
    EXPECT_EQ(models.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(Message(models.status()), HasSubstr(says)) << text;
  }
}

TEST(ModelConfigFile, OnlyTensorflowIsAPlatform) {
  const auto models = Models(
      R"(model_config_list { config { name: "a" base_path: "/a" model_platform: "caffe" } })");
  EXPECT_EQ(models.status(),
            absl::FailedPreconditionError("PlatformConfigMap has no entry for platform caffe"));
}

TEST(ModelConfigFile, TooManyModelsAreRefused) {
  std::string text = "model_config_list {";
  for (int i = 0; i <= kMaxModels; ++i) {
    text += StrCat("config { name: \"", i, "\" base_path: \"/m\" model_platform: \"tensorflow\" }");
  }
  EXPECT_THAT(Message(Models(text + "}").status()), HasSubstr("at most 10000 models, got 10001"));
}

TEST(BatchingParameters, AreReadWhole) {
  const auto options = ParseBatchingParameters(R"(
    max_batch_size { value: 64 } batch_timeout_micros { value: 500 }
    max_enqueued_batches { value: 7 } num_batch_threads { value: 3 }
    thread_pool_name { value: "p" } allowed_batch_sizes: 8 allowed_batch_sizes: 64
    pad_variable_length_inputs: true enable_large_batch_splitting { value: true }
    max_execution_batch_size { value: 64 })");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->max_batch_size, 64);
  EXPECT_EQ(options->batch_timeout.count(), 500);
  EXPECT_EQ(options->max_enqueued_batches, 7);
  EXPECT_EQ(options->num_batch_threads, 3);
  EXPECT_EQ(options->thread_pool_name, "p");
  EXPECT_THAT(options->allowed_batch_sizes, ElementsAre(8, 64));
  EXPECT_TRUE(options->pad_variable_length_inputs);
  EXPECT_TRUE(options->enable_large_batch_splitting);
  EXPECT_EQ(options->max_execution_batch_size, 64);
  EXPECT_EQ(ParseBatchingParameters("").value().max_batch_size, 1000);
  EXPECT_FALSE(ParseBatchingParameters("allowed_batch_sizes: 3").ok());
}

TEST(MonitoringAndTls, AreReadAndChecked) {
  EXPECT_FALSE(ParseMonitoringConfig("").value().prometheus);
  const auto monitoring = ParseMonitoringConfig("prometheus_config { enable: true }").value();
  EXPECT_TRUE(monitoring.prometheus);
  EXPECT_EQ(monitoring.path, "/monitoring/prometheus/metrics");
  EXPECT_EQ(ParseMonitoringConfig("prometheus_config { path: '/m' }").value().path, "/m");
  EXPECT_FALSE(ParseMonitoringConfig("prometheus_config { path: 'm' }").ok());
  const auto tls =
      ParseSslConfig("server_key: 'k' server_cert: 'c' custom_ca: 'a' client_verify: true").value();
  EXPECT_EQ(tls.key_pem, "k");
  EXPECT_EQ(tls.ca_pem, "a");
  EXPECT_TRUE(tls.verify_client);
  EXPECT_FALSE(ParseSslConfig("server_key: 'k'").ok());
  EXPECT_FALSE(ParseSslConfig("server_key: 'k' server_cert: 'c' client_verify: true").ok());
}

TEST(PlatformConfigFile, IsReadForTensorflow) {
  const PlatformOptions options = ParsePlatformConfig(R"(
    platform_configs { key: "tensorflow" value { source_adapter_config {
      [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] {
        legacy_config {
          session_config { intra_op_parallelism_threads: 3 gpu_options { allow_growth: true } }
          batching_parameters { max_batch_size { value: 64 } allowed_batch_sizes: 8
                                allowed_batch_sizes: 64 }
          saved_model_tags: "serve" saved_model_tags: "gpu"
          enable_model_warmup: true model_warmup_options { num_request_iterations { value: 2 } }
          session_target: "local" enable_session_metadata: true
        } } } } }
    platform_configs { key: "other" value { } })")
                                      .value();
  ASSERT_TRUE(options.batching.has_value());
  EXPECT_EQ(options.batching->max_batch_size, 64);
  EXPECT_THAT(options.batching->allowed_batch_sizes, ElementsAre(8, 64));
  EXPECT_THAT(options.tags, ElementsAre("serve", "gpu"));
  EXPECT_TRUE(options.warmup);
  EXPECT_EQ(options.warmup_iterations, 2);
  EXPECT_FALSE(options.session_config.empty());
  EXPECT_THAT(options.no_meaning,
              ElementsAre("platform \"other\"", "session_target", "enable_session_metadata"));
}

TEST(PlatformConfigFile, WhatIsWrongIsNamed) {
  const struct {
    const char* text;
    const char* says;
  } kCases[] = {
      {"platform_configs { key: \"tensorflow\" value { sourc",
       "Error parsing text-format "
       "tensorflow.serving.PlatformConfigMap"},
      {"", "PlatformConfigMap has no entry for platform tensorflow"},
      {"platform_configs { key: \"tensorflow\" value { } }", "got \"\""},
      {"platform_configs { key: \"tensorflow\" value { source_adapter_config { "
       "[type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] { "
       "legacy_config { batching_parameters { max_batch_size { value: -1 } } } } } } }",
       "max_batch_size"},
      {"platform_configs { key: \"tensorflow\" value { source_adapter_config { "
       "[type.googleapis.com/tensorflow.serving.Other] { } } } }",
       "tensorflow.serving.Other"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(Message(ParsePlatformConfig(c.text).status()), HasSubstr(c.says)) << c.text;
  }
}

}  // namespace
}  // namespace takt::serving
