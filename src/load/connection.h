// One connection of a load: turns calls into bytes and bytes into answers. A seam between the
// engine (load.cc) and the protocols; not for others.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "load/load.h"

namespace takt::load {

using Clock = std::chrono::steady_clock;

struct Answer {
  Clock::time_point due;        // of its call
  bool counted = false;         // by that call
  int error = 0;                // 0 = OK; else the protocol's code
  std::string text;             // of an error
  std::string* body = nullptr;  // the receiver may swap it
};
using OnAnswer = std::function<void(const Answer&)>;

class Connection {
 public:
  // Takes the connected socket.
  Connection(int fd, OnAnswer on_answer) : on_answer_(std::move(on_answer)), fd_(fd) {}
  virtual ~Connection() { close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  virtual void Ask(Clock::time_point due, bool counted, std::string_view message) = 0;
  virtual std::size_t active() const = 0;
  // Calls at once that the server takes.
  virtual std::size_t allowed() const = 0;
  // Of the calls under way; max() when there is none.
  virtual Clock::time_point oldest() const = 0;

  absl::Status Read(char* buffer, std::size_t size);
  absl::Status Flush();
  int fd() const { return fd_; }
  bool wants_out() const { return sent_ < out_.size(); }
  bool watching_out = false;

 protected:
  // What was received; returns how much of it is done with. The rest comes again, with more behind.
  virtual absl::StatusOr<std::size_t> OnBytes(std::string_view bytes) = 0;

  const OnAnswer on_answer_;
  std::string out_;  // to be sent

 private:
  const int fd_;
  std::size_t sent_ = 0;
  std::string in_;
};

// Null when there is no memory. `options` outlive it.
std::unique_ptr<Connection> MakeGrpcConnection(int fd, const LoadOptions& options,
                                               OnAnswer on_answer);
std::unique_ptr<Connection> MakeHttpConnection(int fd, OnAnswer on_answer);

}  // namespace takt::load
