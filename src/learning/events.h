// What a training program wrote for TensorBoard, decoded: one record of an event file.
// Sources: tensorflow/core/util/event.proto and framework/summary.proto (field numbers), and the
// layout of TensorBoard's plugins scalars, histograms, images, text and hparams. Both the old
// summaries (simple_value, histo, image) and those of TensorFlow 2 (tensors) are understood.
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace takt::learning {

enum class Kind : std::uint8_t { kScalar = 0, kHistogram = 1, kImage = 2, kText = 3 };
const char* KindName(Kind kind);  // "scalar", ...

struct HistogramBucket {
  double left = 0, right = 0, count = 0;
  bool operator==(const HistogramBucket&) const = default;
};

// One value of one tag at one step.
struct Value {
  std::string_view tag;  // points into the record
  Kind kind = Kind::kScalar;
  double scalar = 0;
  std::vector<HistogramBucket> histogram;
  std::string_view image;              // the first image, encoded (PNG, JPEG, GIF); into the record
  std::vector<std::string_view> text;  // into the record
};

struct Event {
  double wall_time = 0;  // seconds since the epoch
  std::int64_t step = 0;
  std::vector<Value> values;
  // Hyper-parameters, where this event declares them, their values as people write them.
  std::vector<std::pair<std::string, std::string>> hyperparameters;
  std::vector<std::string> unknown_plugins;  // one entry for each value that was skipped
};

// INVALID_ARGUMENT when `record` is not an Event message. What is well-formed and unknown is
// skipped, and counted in `unknown_plugins`.
absl::StatusOr<Event> DecodeEvent(std::string_view record);

}  // namespace takt::learning
