// What fuzzers share (cmake/fuzz.cmake).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace takt {

// Ends the process where something is broken: the input is then kept.
inline void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// What an input's first byte chooses, from 0. '0' is 0, so that seeds can be read.
inline std::size_t Choice(std::uint8_t byte, std::size_t choices) {
  return static_cast<std::uint8_t>(byte - '0') % choices;
}

}  // namespace takt
