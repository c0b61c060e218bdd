// tensorflow.TensorProto <-> Tensor, for calls that are not on the hot path (warm-up, request logs,
// V2): Predict reads and writes the wire itself.
#pragma once

#include <string_view>

#include "base/status.h"
#include "serving/engine/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace takt::serving {

// INVALID_ARGUMENT for a negative or overflowing shape, content of the wrong size, a type without
// values. A short list of values repeats its last one, an empty one is zeros.
absl::StatusOr<Tensor> TensorFromProto(const tensorflow::TensorProto& proto);
// The same of a serialised TensorProto, such as an input's default value.
absl::StatusOr<Tensor> TensorFromBytes(std::string_view proto);

// Numbers as tensor_content, strings as string_val.
tensorflow::TensorProto TensorToProto(const Tensor& tensor);

}  // namespace takt::serving
