// Writes what a training program writes, for tests: one scalar of one step.
#pragma once

#include <cstring>
#include <string>

#include "base/tfrecord.h"

namespace takt::learning {
namespace internal {

// Fields of the wire format (protobuf's encoding guide); short ones only.
inline std::string Bytes(int field, const std::string& content) {
  return std::string{static_cast<char>(field << 3 | 2), static_cast<char>(content.size())} +
         content;
}
template <typename T>
std::string Fixed(int field, int wire_type, T value) {
  std::string out(1, static_cast<char>(field << 3 | wire_type));
  out.resize(1 + sizeof value);
  std::memcpy(out.data() + 1, &value, sizeof value);
  return out;
}

}  // namespace internal

// Appends a tensorflow.Event with one simple_value; `step` below 128, `tag` below 100 bytes.
inline void AppendScalarEvent(double wall_time, int step, const std::string& tag, float value,
                              std::string& file) {
  using internal::Bytes;
  using internal::Fixed;
  AppendTfRecord(Fixed(1, 1, wall_time) +
                     std::string{static_cast<char>(2 << 3), static_cast<char>(step)} +
                     Bytes(5, Bytes(1, Bytes(1, tag) + Fixed(2, 5, value))),
                 file);
}

}  // namespace takt::learning
