// Classify, Regress and MultiInference: examples in, scores out, over the signatures that
// TensorFlow's estimators export. Also what gRPC and REST share about choosing a version.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include "base/status.h"
#include "serving/servable.h"
#include "tensorflow_serving/apis/classification.pb.h"
#include "tensorflow_serving/apis/inference.pb.h"
#include "tensorflow_serving/apis/input.pb.h"
#include "tensorflow_serving/apis/model.pb.h"
#include "tensorflow_serving/apis/regression.pb.h"

namespace takt::serving {

using Deadline = std::optional<std::chrono::steady_clock::time_point>;

// The version that a ModelSpec chooses; errors as ServableSnapshot::Find.
absl::StatusOr<std::shared_ptr<Servable>> FindServable(const ServableSnapshot& snapshot,
                                                       const tensorflow::serving::ModelSpec& spec);
// Name, resolved version and signature, as answers echo them.
tensorflow::serving::ModelSpec EchoSpec(const Servable& servable, std::string_view signature);

template <typename Result>
using InferenceDone = std::function<void(absl::StatusOr<Result>)>;

struct InferenceOptions {
  bool check_method_name = false;  // --enable_signature_method_name_check
};

// Until when it may take, and where the time that it waited for a run is to be put (or null).
struct InferenceTerms {
  Deadline deadline;
  std::shared_ptr<std::chrono::nanoseconds> queue;
};

// `done` is called once, on any thread, perhaps before the function returns. The servable is kept
// until then. `signature` "" means serving_default.
void RunClassify(std::shared_ptr<Servable> servable, std::string_view signature,
                 const tensorflow::serving::Input& input, const InferenceOptions& options,
                 InferenceTerms terms,
                 InferenceDone<tensorflow::serving::ClassificationResult> done);
void RunRegress(std::shared_ptr<Servable> servable, std::string_view signature,
                const tensorflow::serving::Input& input, const InferenceOptions& options,
                InferenceTerms terms, InferenceDone<tensorflow::serving::RegressionResult> done);
// One run for all tasks.
void RunMultiInference(std::shared_ptr<Servable> servable,
                       const tensorflow::serving::MultiInferenceRequest& request,
                       const InferenceOptions& options, Deadline deadline,
                       InferenceDone<tensorflow::serving::MultiInferenceResponse> done);

}  // namespace takt::serving
