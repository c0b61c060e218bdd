# Fuzzers of what reads text or bytes that others wrote.
#
# takt_fuzz(NAME SOURCES a_fuzz.cc ... LIBS takt_x ... CORPUS dir ...)
# SOURCES define LLVMFuzzerTestOneInput; CORPUS are directories of seeds. Under the preset `fuzz`
# (clang) this is a libFuzzer program and a test NAME that runs it for a minute (scripts/fuzz.sh).
# In a build without sanitizers it is a unit test NAME_replay that feeds the same function with the
# seeds and some thousand mutations of them, always the same.
option(TAKT_FUZZ "Build fuzzers with libFuzzer (clang)" OFF)
if(TAKT_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

function(takt_fuzz NAME)
  cmake_parse_arguments(F "" "" "SOURCES;LIBS;CORPUS" ${ARGN})
  list(TRANSFORM F_CORPUS PREPEND ${CMAKE_SOURCE_DIR}/)
  if(TAKT_FUZZ)
    add_executable(${NAME} ${F_SOURCES})
    set_target_properties(${NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzzers)
    target_link_libraries(${NAME} PRIVATE ${F_LIBS} -fsanitize=fuzzer)
    set_property(GLOBAL APPEND PROPERTY TAKT_FUZZERS ${NAME})
    add_test(NAME ${NAME}
             COMMAND ${CMAKE_SOURCE_DIR}/scripts/fuzz.sh $<TARGET_FILE:${NAME}> ${F_CORPUS})
    # The fuzzer ends by itself, after FUZZ_SECONDS or with an input that takes too long.
    set_tests_properties(${NAME} PROPERTIES TIMEOUT 1000000 LABELS fuzz)
  elseif(NOT TAKT_SANITIZE)
    add_executable(${NAME} ${F_SOURCES} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.cc)
    set_target_properties(${NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_link_libraries(${NAME} PRIVATE ${F_LIBS})
    set_property(GLOBAL APPEND PROPERTY TAKT_UNIT_TESTS ${NAME})
    add_test(NAME ${NAME}_replay COMMAND ${NAME} ${F_CORPUS})
    set_tests_properties(${NAME}_replay PROPERTIES TIMEOUT 300 LABELS unit)
  endif()
endfunction()
