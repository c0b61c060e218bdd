// Threads for answers that may take long: a search through all logs must not hold an event loop.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "api/router.h"

namespace takt::api {

inline constexpr std::size_t kMaxWaitingQuestions = 64;  // beyond: RESOURCE_EXHAUSTED

class Workers {
 public:
  explicit Workers(int threads);
  ~Workers();  // what waits is answered UNAVAILABLE

  // Answers `call` from a worker with what `work` returns. `work` must not use the call.
  // A streaming reply says that it has answered through the responder itself.
  absl::StatusOr<Reply> Answer(Call& call, std::function<absl::StatusOr<Reply>()> work);

 private:
  struct Job {
    std::shared_ptr<net::HttpResponder> responder;
    std::function<absl::StatusOr<Reply>()> work;
  };
  void Run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace takt::api
