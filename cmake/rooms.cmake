# The rooms of src/, and for each the rooms that it may use. A room that links another one that is
# not in its row stops the configuration; one that only includes a header of it fails tests/style.
set(TAKT_ROOM_NAMES base net template runtime storage logs metrics learning serving load line operate api)

set(TAKT_ALLOWED_base "")
set(TAKT_ALLOWED_net base)
set(TAKT_ALLOWED_template base)
set(TAKT_ALLOWED_runtime base net)
set(TAKT_ALLOWED_storage base net)
set(TAKT_ALLOWED_logs base net runtime)
set(TAKT_ALLOWED_metrics base net runtime)
set(TAKT_ALLOWED_learning base)
set(TAKT_ALLOWED_serving base net)
set(TAKT_ALLOWED_load base net)
set(TAKT_ALLOWED_line base net template runtime storage logs metrics learning)
set(TAKT_ALLOWED_operate base net template runtime storage logs metrics learning line)
set(TAKT_ALLOWED_api base net template runtime storage logs metrics learning line operate)

# takt_room(NAME SOURCES a.cc ... [ROOMS base net ...] [LIBS absl::status ...])
# Defines the static library takt_NAME from sources beside the calling list file.
function(takt_room NAME)
  cmake_parse_arguments(ROOM "" "" "SOURCES;ROOMS;LIBS" ${ARGN})
  if(NOT NAME IN_LIST TAKT_ROOM_NAMES)
    message(FATAL_ERROR "room ${NAME} is not in cmake/rooms.cmake")
  endif()
  add_library(takt_${NAME} STATIC ${ROOM_SOURCES})
  target_include_directories(takt_${NAME} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(takt_${NAME} PUBLIC Threads::Threads ${ROOM_LIBS})
  foreach(other ${ROOM_ROOMS})
    if(NOT other IN_LIST TAKT_ALLOWED_${NAME})
      message(FATAL_ERROR "room ${NAME} must not use room ${other}: see cmake/rooms.cmake")
    endif()
    target_link_libraries(takt_${NAME} PUBLIC takt_${other})
  endforeach()
endfunction()

# takt_test(NAME SOURCES a_test.cc ... LIBS takt_x ... [ENV K=V ...])
# One GoogleTest binary, registered with ctest under its own name; of a sanitizer's build as
# NAME.asan or NAME.tsan.
function(takt_test NAME)
  cmake_parse_arguments(T "" "" "SOURCES;LIBS;ENV" ${ARGN})
  add_executable(${NAME} ${T_SOURCES})
  set_target_properties(${NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${NAME} PRIVATE ${T_LIBS} GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${NAME} PRIVATE TAKT_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                                             TAKT_BINARY_DIR="${CMAKE_BINARY_DIR}")
  set_property(GLOBAL APPEND PROPERTY TAKT_UNIT_TESTS ${NAME})
  if(TAKT_FUZZ)  # whose tests are the fuzzers
    return()
  endif()
  if(TAKT_SANITIZE STREQUAL "thread")
    list(APPEND T_ENV "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/tests/tsan.supp")
  endif()
  add_test(NAME ${NAME}${TAKT_TEST_SUFFIX} COMMAND ${NAME})
  set_tests_properties(${NAME}${TAKT_TEST_SUFFIX} PROPERTIES TIMEOUT 300 LABELS unit
                       ENVIRONMENT "${T_ENV}")
endfunction()
