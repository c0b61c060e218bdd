// Batching: requests of one signature share a run. See docs/performance.md for when it pays.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"

namespace takt::serving {

// TensorFlow Serving's BatchingParameters, and the automatic mode.
struct BatchingOptions {
  // Automatic: what arrives together runs together, nothing waits for more; batches grow with the
  // queue as far as a run stays within `latency_target`. All other fields are then ignored, but for
  // needs_proof and max_batch_size.
  bool automatic = false;
  // Automatic: requests share a run only where it is proven that rows do not depend on each other
  // (SignatureDef::why_rows_may_depend).
  bool needs_proof = true;
  std::chrono::microseconds latency_target{10000};

  std::int64_t max_batch_size = 1000;
  std::chrono::microseconds batch_timeout{0};
  std::int64_t max_enqueued_batches = 10;
  int num_batch_threads = 0;  // 0 = cores
  std::string thread_pool_name;
  std::vector<std::int64_t> allowed_batch_sizes;  // ascending, the last equals max_batch_size
  bool pad_variable_length_inputs = false;
  bool enable_large_batch_splitting = false;
  std::int64_t max_execution_batch_size = 0;  // 0 = max_batch_size
};

// INVALID_ARGUMENT naming the field, as TensorFlow Serving does at its start.
absl::Status Validate(const BatchingOptions& options);

// Threads for runs that would hold up an event loop.
class WorkerPool {
 public:
  explicit WorkerPool(int threads);
  ~WorkerPool() { Stop(); }
  // Runs what is queued, whenever it was to run, and joins. From then on Run runs on its caller. To
  // be called before the event loops end that work posts its results to.
  void Stop();
  void Run(std::function<void()> work);
  void RunAfter(std::chrono::nanoseconds delay, std::function<void()> work);
  int threads() const { return static_cast<int>(threads_.size()); }

 private:
  struct Timed {
    std::chrono::steady_clock::time_point when;
    std::function<void()> work;
  };
  void Loop();
  std::mutex mutex_;
  std::vector<Timed> timed_;  // a heap, the next one first
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

class BatchQueue;  // one signature's; see batch_queue.h

}  // namespace takt::serving
