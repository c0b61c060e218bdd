// REST bodies <-> tensors and examples: TensorFlow Serving's JSON forms with its messages. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "serving/api/json.h"
#include "serving/engine/engine.h"
#include "tensorflow_serving/apis/classification.pb.h"
#include "tensorflow_serving/apis/input.pb.h"
#include "tensorflow_serving/apis/regression.pb.h"

namespace takt::serving {

enum class RestFormat {
  kRow,     // {"instances": [...]} -> {"predictions": [...]}
  kColumn,  // {"inputs": ...} -> {"outputs": ...}
};

// "signature_name" of the body, "" when absent. INVALID_ARGUMENT when the body is no object or the
// name no string.
absl::StatusOr<std::string> RestSignatureName(const JsonDocument& body);

struct RestInputs {
  RestFormat format = RestFormat::kRow;
  std::vector<Tensor> tensors;  // one for each of `inputs`, in their order
};
// `inputs`: the signature's, `signature_name` as requested ("" = default), for messages.
// An input with a default value may be left out, in all rows or in none. It is the whole tensor
// then, in rows too. A list without names is the one input that has no default.
// Numbers must fit their type; int8 300 is refused. uint16, half and bfloat16 are UNIMPLEMENTED as
// in the original (V2 carries them).
absl::StatusOr<RestInputs> RestPredictInputs(const JsonDocument& body,
                                             const std::vector<TensorInfo>& inputs,
                                             std::string_view signature_name);

// INVALID_ARGUMENT for rows that have no batch dimension or differ in it, and for types that JSON
// has no form for (complex, resources).
absl::StatusOr<std::string> RestPredictAnswer(const std::vector<TensorInfo>& outputs,
                                              const std::vector<Tensor>& tensors,
                                              RestFormat format);

// "examples" and "context" of a classify or regress body.
absl::StatusOr<tensorflow::serving::Input> RestExamples(const JsonDocument& body);
absl::StatusOr<std::string> RestClassifyAnswer(
    const tensorflow::serving::ClassificationResult& result);
absl::StatusOr<std::string> RestRegressAnswer(const tensorflow::serving::RegressionResult& result);

}  // namespace takt::serving
