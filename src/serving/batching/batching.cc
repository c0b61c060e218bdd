#include "serving/batching/batching.h"

#include <algorithm>

namespace takt::serving {

absl::Status Validate(const BatchingOptions& options) {
  if (options.max_batch_size < 1) {
    return absl::InvalidArgumentError(
        StrCat("max_batch_size must be positive; was ", options.max_batch_size));
  }
  if (options.automatic) {
    if (options.latency_target.count() < 1) {
      return absl::InvalidArgumentError(
          "the latency target of automatic batching must be positive");
    }
    return absl::OkStatus();
  }
  if (options.batch_timeout.count() < 0) {
    return absl::InvalidArgumentError(
        StrCat("batch_timeout_micros must be non-negative; was ", options.batch_timeout.count()));
  }
  if (options.max_enqueued_batches < 1) {
    return absl::InvalidArgumentError(
        StrCat("max_enqueued_batches must be positive; was ", options.max_enqueued_batches));
  }
  if (options.num_batch_threads < 0) {
    return absl::InvalidArgumentError(
        StrCat("num_batch_threads must be positive; was ", options.num_batch_threads));
  }
  const std::int64_t largest_run =
      options.enable_large_batch_splitting && options.max_execution_batch_size > 0
          ? options.max_execution_batch_size
          : options.max_batch_size;
  if (options.max_execution_batch_size > options.max_batch_size) {
    return absl::InvalidArgumentError(
        StrCat("max_execution_batch_size (", options.max_execution_batch_size,
               ") must not exceed max_batch_size (", options.max_batch_size, ")"));
  }
  const auto& sizes = options.allowed_batch_sizes;
  if (sizes.empty()) return absl::OkStatus();
  if (sizes.front() < 1 ||
      std::adjacent_find(sizes.begin(), sizes.end(), std::greater_equal<>()) != sizes.end()) {
    return absl::InvalidArgumentError(
        "allowed_batch_sizes entries must be positive and monotonically increasing");
  }
  if (sizes.back() != largest_run) {
    return absl::InvalidArgumentError(
        StrCat("Last entry in allowed_batch_sizes must match max_batch_size; last entry was ",
               sizes.back(), "; expected ", largest_run));
  }
  return absl::OkStatus();
}

WorkerPool::WorkerPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

void WorkerPool::Stop() {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stop_, true)) return;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Run(std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    if (!stop_) {
      queue_.push_back(std::move(work));
      wake_.notify_one();
      return;
    }
  }
  work();
}

void WorkerPool::RunAfter(std::chrono::nanoseconds delay, std::function<void()> work) {
  {
    std::lock_guard lock(mutex_);
    if (stop_) return;  // its time will not come
    timed_.push_back({std::chrono::steady_clock::now() + delay, std::move(work)});
    std::push_heap(timed_.begin(), timed_.end(),
                   [](const Timed& a, const Timed& b) { return a.when > b.when; });
  }
  wake_.notify_one();
}

void WorkerPool::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (!timed_.empty() && (stop_ || timed_.front().when <= std::chrono::steady_clock::now())) {
      std::pop_heap(timed_.begin(), timed_.end(),
                    [](const Timed& a, const Timed& b) { return a.when > b.when; });
      queue_.push_back(std::move(timed_.back().work));
      timed_.pop_back();
    }
    if (queue_.empty()) {
      if (stop_) return;
      if (timed_.empty()) {
        wake_.wait(lock);
      } else {
        // A copy: while this thread waits the list may move.
        const auto next = timed_.front().when;
        wake_.wait_until(lock, next);
      }
      continue;
    }
    std::function<void()> work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
}

}  // namespace takt::serving
