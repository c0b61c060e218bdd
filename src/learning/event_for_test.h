// Writes what a training program writes, for tests: one value of one step.
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

// Appends a tensorflow.Event with one value; `step` below 128, `tag` below 100 bytes, `fields`
// those of Summary.Value after the tag: the two together below 120 bytes.
inline void AppendEvent(double wall_time, int step, const std::string& tag,
                        const std::string& fields, std::string& file) {
  using internal::Bytes;
  using internal::Fixed;
  AppendTfRecord(Fixed(1, 1, wall_time) +
                     std::string{static_cast<char>(2 << 3), static_cast<char>(step)} +
                     Bytes(5, Bytes(1, Bytes(1, tag) + fields)),
                 file);
}
inline void AppendScalarEvent(double wall_time, int step, const std::string& tag, float value,
                              std::string& file) {
  AppendEvent(wall_time, step, tag, internal::Fixed(2, 5, value), file);
}
// `encoded` below 90 bytes.
inline void AppendImageEvent(double wall_time, int step, const std::string& tag,
                             const std::string& encoded, std::string& file) {
  AppendEvent(wall_time, step, tag, internal::Bytes(4, internal::Bytes(4, encoded)), file);
}
// Of two buckets: up to 0, and from there up to 1.
inline void AppendHistogramEvent(double wall_time, int step, const std::string& tag, double below,
                                 double above, std::string& file) {
  const auto two = [](double a, double b) {
    return std::string(reinterpret_cast<const char*>(&a), sizeof a) +
           std::string(reinterpret_cast<const char*>(&b), sizeof b);
  };
  AppendEvent(
      wall_time, step, tag,
      internal::Bytes(5, internal::Fixed(1, 1, -1.0) + internal::Fixed(2, 1, 1.0) +
                             internal::Bytes(6, two(0, 1)) + internal::Bytes(7, two(below, above))),
      file);
}

}  // namespace takt::learning
