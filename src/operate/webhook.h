// Posts to whoever wants to hear of alerts, over HTTP or HTTPS (libcurl), from a thread of its own,
// so that a receiver that hangs delays nothing. What cannot be delivered is tried again with
// growing pauses, and given up after kMaxWebhookAttempts.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "base/status.h"

namespace takt::operate {

inline constexpr std::size_t kMaxWaitingPosts = 100;  // beyond: the oldest is given up, and said
inline constexpr int kMaxWebhookAttempts = 5;
inline constexpr int kWebhookTimeoutMs = 10'000;

// Sends `body` as JSON once. UNAVAILABLE for any answer but 2xx.
absl::Status PostJson(const std::string& url, const std::string& body);

class Webhook {
 public:
  // `post` is PostJson but in tests; `pause` waits between attempts and is cut short at the end.
  using Post = std::function<absl::Status(const std::string& body)>;
  Webhook(Post post, std::chrono::milliseconds first_pause);
  ~Webhook();  // what is under way is finished, what waits is given up
  void Send(std::string body);
  std::size_t given_up() const;

 private:
  void Run();

  const Post post_;
  const std::chrono::milliseconds first_pause_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::string> waiting_;  // under mutex_, as all below
  std::size_t given_up_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace takt::operate
