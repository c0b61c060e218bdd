# Fuzzers of what reads text or bytes that others wrote.
#
# takt_fuzz(NAME SOURCES a_fuzz.cc ... LIBS takt_x ... CORPUS dir ...)
# SOURCES define LLVMFuzzerTestOneInput; CORPUS are directories of seeds. Under the preset `fuzz`
# (clang) this is a libFuzzer program in fuzzers/, which scripts/fuzz.sh runs. Everywhere else it is
# a unit test NAME that feeds the same function with the seeds and some thousand mutations of them,
# always the same.
option(TAKT_FUZZ "Build fuzzers with libFuzzer (clang)" OFF)
if(TAKT_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link -fno-sanitize-recover=all)
endif()

function(takt_fuzz NAME)
  cmake_parse_arguments(F "" "" "SOURCES;LIBS;CORPUS" ${ARGN})
  list(TRANSFORM F_CORPUS PREPEND ${CMAKE_SOURCE_DIR}/)
  if(TAKT_FUZZ)
    add_executable(${NAME} ${F_SOURCES})
    set_target_properties(${NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzzers)
    target_link_libraries(${NAME} PRIVATE ${F_LIBS} -fsanitize=fuzzer)
    list(JOIN F_CORPUS "\n" seeds)
    file(WRITE ${CMAKE_BINARY_DIR}/fuzzers/${NAME}.seeds "${seeds}\n")
    set_property(GLOBAL APPEND PROPERTY TAKT_FUZZERS ${NAME})
  else()
    add_executable(${NAME} ${F_SOURCES} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay.cc)
    set_target_properties(${NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_link_libraries(${NAME} PRIVATE ${F_LIBS})
    add_test(NAME ${NAME} COMMAND ${NAME} ${F_CORPUS})
    set_tests_properties(${NAME} PROPERTIES TIMEOUT 300 LABELS unit)
    set_property(GLOBAL APPEND PROPERTY TAKT_UNIT_TESTS ${NAME})
  endif()
endfunction()
