// The quick way for the bodies that clients send all day: simdjson reads numbers straight into the
// batch tensor, with no document between. It takes only what it is sure of; everything else (an
// error, NaN, an empty list, an unknown member, a number at the edge of its type) is left to
// rest_codec.h, which knows the original's every message. So there are two readers and one truth: a
// test sends each body through both.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "serving/api/rest_codec.h"

namespace takt::serving {

struct FastPredict {
  std::string signature_name;  // as in the body, "" when absent
  RestInputs inputs;
};

// `find`: the inputs of a signature by its name ("" = default), null when there is none. `body` may
// grow in capacity, not in content. Nothing when the exact reader must decide.
std::optional<FastPredict> ReadPredictFast(
    std::string* body,
    const std::function<const std::vector<TensorInfo>*(std::string_view name)>& find);

}  // namespace takt::serving
