# takt_tf_protos:      C++ messages of TensorFlow and TensorFlow Serving, for Debian's protobuf.
# takt_tf_grpc:        grpc++ client stubs of PredictionService and ModelService, for the example and
#                      the tests only: the server speaks gRPC by itself.
# takt_serving_protos: messages of src/serving/*/*.proto.
# The first two come from the definitions inside the installed Python packages
# (scripts/extract_protos.py).

# Generated code is the longest part of a build, and not what the sanitizers are to look at: their
# builds link the libraries of the release build, which they bring up to date.
if(TAKT_SANITIZE)
  set(takt_release ${CMAKE_SOURCE_DIR}/build/release)
  set(takt_proto_libraries takt_tf_protos takt_tf_grpc takt_serving_protos)
  list(TRANSFORM takt_proto_libraries REPLACE "(.+)" "${takt_release}/src/serving/lib\\1.a"
       OUTPUT_VARIABLE takt_proto_files)
  add_custom_target(release_protos
    COMMAND ${CMAKE_SOURCE_DIR}/scripts/build.sh release ${takt_proto_libraries}
    BYPRODUCTS ${takt_proto_files} VERBATIM)
  foreach(library file IN ZIP_LISTS takt_proto_libraries takt_proto_files)
    add_library(${library} STATIC IMPORTED GLOBAL)
    set_target_properties(${library} PROPERTIES IMPORTED_LOCATION ${file})
    add_dependencies(${library} release_protos)
  endforeach()
  target_include_directories(takt_tf_protos SYSTEM INTERFACE ${takt_release}/tf_protos)
  target_link_libraries(takt_tf_protos INTERFACE protobuf::libprotobuf)
  target_link_libraries(takt_tf_grpc INTERFACE takt_tf_protos PkgConfig::TAKT_GRPCXX)
  target_include_directories(takt_serving_protos SYSTEM INTERFACE ${takt_release}/serving_protos)
  target_link_libraries(takt_serving_protos INTERFACE takt_tf_protos)
  return()
endif()

set(TAKT_TF_PROTO_ROOTS
    tensorflow/core/example/example.proto
    tensorflow/core/protobuf/config.proto
    tensorflow/core/protobuf/meta_graph.proto
    tensorflow/core/protobuf/saved_model.proto
    tensorflow/core/protobuf/tensor_bundle.proto
    tensorflow/core/util/event.proto
    tensorflow_serving/apis/classification.proto
    tensorflow_serving/apis/get_model_metadata.proto
    tensorflow_serving/apis/get_model_status.proto
    tensorflow_serving/apis/inference.proto
    tensorflow_serving/apis/model_management.proto
    tensorflow_serving/apis/model_service.proto
    tensorflow_serving/apis/predict.proto
    tensorflow_serving/apis/prediction_log.proto
    tensorflow_serving/apis/prediction_service.proto
    tensorflow_serving/apis/regression.proto
    tensorflow_serving/config/model_server_config.proto
    tensorflow_serving/config/platform_config.proto)

set(TAKT_TF_PROTO_DIR ${CMAKE_BINARY_DIR}/tf_protos)
set(takt_tf_set ${TAKT_TF_PROTO_DIR}/tensorflow.descriptors)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
             ${CMAKE_SOURCE_DIR}/scripts/extract_protos.py)
file(MAKE_DIRECTORY ${TAKT_TF_PROTO_DIR})
if(NOT EXISTS ${TAKT_VENV}/bin/python)
  message(FATAL_ERROR "no Python environment at TAKT_VENV=${TAKT_VENV}: run `make setup` first")
endif()
execute_process(
  COMMAND ${TAKT_VENV}/bin/python ${CMAKE_SOURCE_DIR}/scripts/extract_protos.py ${takt_tf_set}
          ${TAKT_TF_PROTO_ROOTS}
  OUTPUT_VARIABLE takt_tf_files OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\n" ";" takt_tf_files "${takt_tf_files}")

find_program(TAKT_PROTOC protoc REQUIRED)
find_program(TAKT_GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)

set(takt_tf_sources)
set(takt_tf_headers)
foreach(file ${takt_tf_files})
  string(REGEX REPLACE "\\.proto$" "" stem ${file})
  list(APPEND takt_tf_sources ${TAKT_TF_PROTO_DIR}/${stem}.pb.cc)
  list(APPEND takt_tf_headers ${TAKT_TF_PROTO_DIR}/${stem}.pb.h)
endforeach()
add_custom_command(
  OUTPUT ${takt_tf_sources} ${takt_tf_headers}
  COMMAND ${TAKT_PROTOC} --descriptor_set_in=${takt_tf_set} --cpp_out=${TAKT_TF_PROTO_DIR}
          ${takt_tf_files}
  DEPENDS ${takt_tf_set} VERBATIM)
add_library(takt_tf_protos STATIC ${takt_tf_sources})
target_include_directories(takt_tf_protos SYSTEM PUBLIC ${TAKT_TF_PROTO_DIR})
# Generated and never on the hot path: quick to compile rather than quick to run.
target_compile_options(takt_tf_protos PRIVATE -w -O1)
target_link_libraries(takt_tf_protos PUBLIC protobuf::libprotobuf)

set(takt_tf_services tensorflow_serving/apis/prediction_service
                     tensorflow_serving/apis/model_service)
set(takt_tf_grpc_sources)
set(takt_tf_grpc_outputs)
set(takt_tf_service_files)
foreach(stem ${takt_tf_services})
  list(APPEND takt_tf_service_files ${stem}.proto)
  list(APPEND takt_tf_grpc_sources ${TAKT_TF_PROTO_DIR}/${stem}.grpc.pb.cc)
  list(APPEND takt_tf_grpc_outputs ${TAKT_TF_PROTO_DIR}/${stem}.grpc.pb.h)
endforeach()
add_custom_command(
  OUTPUT ${takt_tf_grpc_sources} ${takt_tf_grpc_outputs}
  COMMAND ${TAKT_PROTOC} --descriptor_set_in=${takt_tf_set} --grpc_out=${TAKT_TF_PROTO_DIR}
          --plugin=protoc-gen-grpc=${TAKT_GRPC_CPP_PLUGIN} ${takt_tf_service_files}
  DEPENDS ${takt_tf_set} VERBATIM)
add_library(takt_tf_grpc STATIC EXCLUDE_FROM_ALL ${takt_tf_grpc_sources})
target_compile_options(takt_tf_grpc PRIVATE -w -O1)
target_link_libraries(takt_tf_grpc PUBLIC takt_tf_protos PkgConfig::TAKT_GRPCXX)

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
