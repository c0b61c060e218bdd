# The model server around its request path: lifecycle, configuration, REST and the other calls.
find_package(CURL REQUIRED)

add_library(takt_serving_edge STATIC
  api/context.cc
  api/grpc_services.cc
  api/inference.cc
  api/json.cc
  api/rest_api.cc
  api/rest_codec.cc
  api/tensor_proto.cc
  api/v2_api.cc
  api/v2_codec.cc
  config/files.cc
  config/flags.cc
  lifecycle/loader.cc
  lifecycle/manager.cc
  lifecycle/model_storage.cc
  lifecycle/s3_storage.cc
  lifecycle/trial_load.cc
  lifecycle/version_files.cc
  lifecycle/version_policy.cc
  log.cc
  metrics.cc
  request_log.cc
  server.cc)
target_link_libraries(takt_serving_edge PUBLIC takt_serving takt_serving_protos takt_tf_protos
                      nlohmann_json::nlohmann_json ZLIB::ZLIB CURL::libcurl)

takt_test(serving_lifecycle_test
          SOURCES lifecycle/manager_test.cc lifecycle/version_files_test.cc
                  lifecycle/version_policy_test.cc
          LIBS takt_serving_edge)
takt_test(serving_edge_test SOURCES api/inference_test.cc api/json_test.cc api/rest_test.cc config/config_test.cc
          LIBS takt_serving_edge)

takt_test(serving_server_test SOURCES server_test.cc LIBS takt_serving_edge takt_tf_grpc)

takt_fuzz(v2_fuzz SOURCES api/v2_fuzz.cc LIBS takt_serving_edge CORPUS tests/fuzz/v2)
takt_fuzz(rest_fuzz SOURCES api/rest_fuzz.cc LIBS takt_serving_edge CORPUS tests/fuzz/rest)
takt_fuzz(serving_files_fuzz SOURCES config/files_fuzz.cc LIBS takt_serving_edge
          CORPUS tests/fuzz/serving_files)
