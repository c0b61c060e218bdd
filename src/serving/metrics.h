// Counts and latencies of requests, as Prometheus reads them: under TensorFlow Serving's names, so
// that dashboards carry over, and per version and signature with queue and compute apart.
//
// Recording is on the request path: each thread writes its own shard and waits for nobody but a
// scrape.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace takt::serving {

// What a request was, once it is answered.
struct RequestSample {
  std::string_view model;
  std::int64_t version = 0;     // 0 = none was found
  std::string_view signature;   // "" = none was found
  std::string_view api;         // "predict", "classify", "regress", "multi-inference"
  std::string_view entrypoint;  // "GRPC", "REST"
  absl::StatusCode code = absl::StatusCode::kOk;
  std::chrono::nanoseconds latency{0};
  std::chrono::nanoseconds queue{0};
};

// Beyond this many different label sets on one thread, new ones are counted under the model
// "other": names come from whoever sends requests.
inline constexpr std::size_t kMaxMetricSeries = 2000;
// Of them, those of models that nobody serves: they must not take the place of the others.
inline constexpr std::size_t kMaxUnknownMetricSeries = 500;

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void Record(const RequestSample& sample);  // any thread
  // A version's load: count and latency by model and status.
  void RecordLoad(std::string_view model, const absl::Status& status,
                  std::chrono::nanoseconds took);

  // A value read at each scrape: name with labels as written, help, type ("gauge", "counter").
  struct Gauge {
    std::string name;
    std::string type;
    std::string help;
    std::function<std::vector<std::pair<std::string, double>>()> read;  // (labels, value)
  };
  void AddGauge(Gauge gauge);  // before the first scrape

  // The whole exposition, text format 0.0.4.
  std::string Expose() const;

 private:
  struct Shard;
  Shard& MyShard();

  const std::uint64_t id_;  // tells this object's shards from those of one that is gone
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Shard>> shards_;
  std::vector<Gauge> gauges_;
  struct LoadSeries;
  std::unique_ptr<LoadSeries> loads_;
};

}  // namespace takt::serving
