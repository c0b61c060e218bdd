// From a version's directory to a servable that has answered its warm-up requests.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "serving/batching/batching.h"
#include "serving/engine/engine.h"
#include "serving/lifecycle/manager.h"
#include "serving/metrics.h"

namespace takt::serving {

inline constexpr char kWarmupFile[] = "assets.extra/tf_serving_warmup_requests";
inline constexpr char kBatchingFile[] = "batching_params.pbtxt";
inline constexpr std::size_t kMaxWarmupRequests = 1000;
inline constexpr std::size_t kMaxWarmupBytes = std::size_t{1} << 30;

struct LoaderOptions {
  std::vector<std::string> tags = {"serve"};
  std::optional<BatchingOptions> batching;
  bool per_model_batching = false;  // a version's own kBatchingFile wins
  bool warmup = true;
  int warmup_iterations = 1;
};

// All of them must outlive the function that is returned. A failed warm-up request fails the load.
LoadServable MakeLoader(Engine& engine, WorkerPool& workers, Metrics& metrics,
                        LoaderOptions options);

// Replays the version's warm-up requests, past every queue. OK when it has none.
// INVALID_ARGUMENT for more than kMaxWarmupRequests; DATA_LOSS for a damaged file; else the error
// of the request that failed, with its number.
absl::Status WarmUp(const std::shared_ptr<Servable>& servable, const std::string& directory,
                    int iterations);

}  // namespace takt::serving
