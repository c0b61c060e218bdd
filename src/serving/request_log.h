// Samples of requests with their answers, as TFRecord files of tensorflow.serving.PredictionLog:
// what warm-up files are made of and what a release is replayed against.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/status.h"
#include "serving/lifecycle/manager.h"
#include "tensorflow_serving/apis/prediction_log.pb.h"

namespace takt::serving {

inline constexpr std::size_t kMaxRequestLogQueueBytes = std::size_t{64} << 20;
inline constexpr std::size_t kMaxRequestLogFileBytes = std::size_t{256} << 20;

// Files are named PREFIX-<UTC time>-<pid>-<number>.tfrecord; a new one begins when one is full.
// What does not fit in the queue is dropped and counted: logging never holds up a request.
class RequestLog {
 public:
  RequestLog();
  ~RequestLog();  // writes what is queued

  void Configure(const std::vector<ModelConfig>& models);  // any thread
  // True for the part of requests that the model's rate asks for. Any thread; cheap.
  bool Wants(std::string_view model);
  void Add(std::string_view model, std::int64_t version, tensorflow::serving::PredictionLog log);
  // The same for a Predict that is still in wire form.
  void AddPredict(std::string_view model, std::int64_t version, std::string request,
                  std::string response);

  std::uint64_t written() const { return written_.load(); }
  std::uint64_t dropped() const { return dropped_.load(); }

 private:
  struct Target {
    std::string prefix;
    double rate = 0;
  };
  using Targets = std::map<std::string, Target, std::less<>>;
  struct Entry {
    std::string model;
    std::int64_t version = 0;
    tensorflow::serving::PredictionLog log;
    std::string request;  // of a Predict in wire form
    std::string response;
    std::size_t bytes = 0;
  };
  struct File;

  std::shared_ptr<const Targets> CurrentTargets() const;
  void Queue(Entry entry);
  void Loop();
  absl::Status Write(Entry& entry);

  mutable std::mutex targets_mutex_;
  std::shared_ptr<const Targets> targets_;
  std::atomic<bool> any_{false};
  std::atomic<std::uint64_t> written_{0};
  std::atomic<std::uint64_t> dropped_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Entry> queue_;
  std::size_t queued_bytes_ = 0;
  bool stop_ = false;
  std::map<std::string, std::unique_ptr<File>> files_;  // by prefix; the writer's
  std::thread writer_;
};

}  // namespace takt::serving
