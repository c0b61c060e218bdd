// Sends messages to one receiver from a thread of its own, so that a receiver that hangs delays
// nothing: over HTTP and SMTP, with and without TLS (libcurl). What cannot be delivered is tried
// again with growing pauses: about a day where nobody answers, a few times where it is refused.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"

namespace takt::operate {

inline constexpr std::size_t kMaxWaitingLetters = 100;  // beyond: the oldest is given up, and said
inline constexpr int kMaxUnansweredAttempts = 300;      // with kMostPause between: a day
inline constexpr int kMaxRefusedAttempts = 5;
inline constexpr std::chrono::seconds kFirstPause{2};
inline constexpr std::chrono::minutes kMostPause{5};
inline constexpr std::chrono::seconds kPostTimeout{10};
inline constexpr int kMailTimeoutMs = 30'000;

// Sends `body` as JSON once. UNAVAILABLE when nobody answers, or 408, 429, 5xx: later it may go.
// INVALID_ARGUMENT for any other answer but 2xx. `stop`, when not null, ends it early.
// Messages name the address without what follows its '?'.
absl::Status PostJson(const std::string& url, const std::string& body,
                      const std::atomic<bool>* stop = nullptr);

struct MailRoute {
  std::string server;  // "mail.example.com:587"
  enum class Security { kNone, kStartTls, kTls };
  Security security = Security::kStartTls;  // kStartTls: refused where the server cannot
  std::string user, password;               // user "": no authentication
  std::string from;
  std::vector<std::string> to;
  std::string ca_file;  // "": the system's; the server's certificate is always checked
};
// Sends a whole mail (messages.h) once. UNAVAILABLE when nobody answers, at a timeout, and for 4xx;
// INVALID_ARGUMENT where the server refuses for good (5xx, a wrong password, no TLS).
absl::Status SendMail(const MailRoute& route, const std::string& mail,
                      const std::atomic<bool>* stop = nullptr);

class Delivery {
 public:
  struct Letter {
    std::int64_t id = 0;
    std::string body;
  };
  struct Options {
    // Sends once. INVALID_ARGUMENT: refused; anything else: nobody there.
    std::function<absl::Status(const std::string& body, const std::atomic<bool>* stop)> send;
    // Keep a letter before Send returns, and forget it when it is delivered or given up.
    std::function<std::int64_t(const std::string& body)> keep = [](const auto&) { return 0; };
    std::function<void(std::int64_t id)> forget = [](std::int64_t) {};
    std::vector<Letter> waiting;  // kept from before
    std::chrono::milliseconds first_pause = kFirstPause, most_pause = kMostPause;
  };
  struct State {
    std::size_t waiting = 0, delivered = 0, given_up = 0;
    std::string last_error;  // of the newest attempt; "" when it went well
  };
  explicit Delivery(Options options);
  // What is under way is broken off; what waits stays kept.
  ~Delivery();
  void Send(std::string body);
  State state() const;

 private:
  void Run();
  void GiveUp(const Letter& letter, const std::string& why);

  const Options options_;
  std::atomic<bool> stop_ = false;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Letter> waiting_;  // under mutex_, as all below; the first may be under way
  State state_;
  std::uint64_t dropped_ = 0;  // letters that made room for newer ones
  std::thread thread_;
};

}  // namespace takt::operate
