# The model server around its request path: lifecycle, configuration, REST and the other calls.
find_package(CURL REQUIRED)
set(TAKT_SERVING_PROTO_DIR ${CMAKE_BINARY_DIR}/serving_protos)
set(takt_serving_proto_sources)
foreach(stem serving/config/serving_files serving/api/health serving/api/open_inference)
  add_custom_command(
    OUTPUT ${TAKT_SERVING_PROTO_DIR}/${stem}.pb.cc ${TAKT_SERVING_PROTO_DIR}/${stem}.pb.h
    COMMAND ${CMAKE_COMMAND} -E make_directory ${TAKT_SERVING_PROTO_DIR}
    COMMAND ${TAKT_PROTOC} -I${CMAKE_SOURCE_DIR}/src --descriptor_set_in=${takt_tf_set}
            --cpp_out=${TAKT_SERVING_PROTO_DIR} ${CMAKE_SOURCE_DIR}/src/${stem}.proto
    DEPENDS ${CMAKE_SOURCE_DIR}/src/${stem}.proto ${takt_tf_set} VERBATIM)
  list(APPEND takt_serving_proto_sources ${TAKT_SERVING_PROTO_DIR}/${stem}.pb.cc)
endforeach()
add_library(takt_serving_protos STATIC ${takt_serving_proto_sources})
target_include_directories(takt_serving_protos SYSTEM PUBLIC ${TAKT_SERVING_PROTO_DIR})
target_compile_options(takt_serving_protos PRIVATE -w -O1)
target_link_libraries(takt_serving_protos PUBLIC takt_tf_protos)

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

takt_fuzz(rest_fuzz SOURCES api/rest_fuzz.cc LIBS takt_serving_edge CORPUS tests/fuzz/rest)
takt_fuzz(serving_files_fuzz SOURCES config/files_fuzz.cc LIBS takt_serving_edge
          CORPUS tests/fuzz/serving_files)
