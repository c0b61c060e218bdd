// What every call of the server works on, and what gRPC and REST share. All of it outlives the
// servers; all of it may be used from any thread.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "base/status.h"
#include "serving/api/inference.h"
#include "serving/batching/batching.h"
#include "serving/lifecycle/manager.h"
#include "serving/metrics.h"
#include "serving/request_log.h"
#include "serving/servable.h"
#include "tensorflow_serving/apis/get_model_metadata.pb.h"
#include "tensorflow_serving/apis/get_model_status.pb.h"
#include "tensorflow_serving/config/model_server_config.pb.h"

namespace takt::serving {

struct ServingContext {
  const ServableDirectory& directory;
  ModelManager& manager;
  Metrics& metrics;
  RequestLog& request_log;
  InferenceOptions inference;
  // Replaces the list of models; blocks until done.
  std::function<absl::Status(const tensorflow::serving::ModelServerConfig&)> reload;
  // The same with a list that was derived from manager.Models().
  std::function<absl::Status(const std::vector<ModelConfig>&)> set_models;
  // Runs what blocks, one after another; so reloads do not meet.
  WorkerPool& background;
  std::string engine_version;
  // Set once, when the server begins to drain: readiness falls.
  std::atomic<bool>& draining;

  // Every model has a version to answer with, and the server is not draining.
  bool Ready() const { return !draining.load() && manager.NotReady().empty(); }
  bool Ready(const std::string& model) const;
};

absl::StatusOr<tensorflow::serving::GetModelStatusResponse> GetModelStatus(
    const ServingContext& context, const tensorflow::serving::ModelSpec& spec);

// Puts a Predict that was asked for, in whatever form, into the model's request log. `inputs` and
// `outputs` are all of the signature's, in its order.
void LogPredict(ServingContext& context, const Servable& servable, const Signature& signature,
                const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs);

absl::StatusOr<tensorflow::serving::SignatureDefMap> SignatureDefs(const Servable& servable);
absl::StatusOr<tensorflow::serving::GetModelMetadataResponse> GetModelMetadata(
    const ServingContext& context, const tensorflow::serving::GetModelMetadataRequest& request);

}  // namespace takt::serving
