// One thread's epoll loop: descriptors and timers with callbacks. Everything but Wake is for the
// loop's own thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

namespace takt::runtime {

class EventLoop {
 public:
  using Time = std::chrono::steady_clock::time_point;
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls back on these epoll events of `fd`, level-triggered, until Forget. False when the kernel
  // refuses. The descriptor stays the caller's.
  bool Watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> callback);
  void Change(int fd, std::uint32_t events);
  void Forget(int fd);
  // Calls back once, at `when` or soon after. The id cancels it; never 0.
  std::uint64_t At(Time when, std::function<void()> callback);
  void Cancel(std::uint64_t timer);

  // From any thread: RunOnce returns soon.
  void Wake();
  // Waits for the next thing and calls back.
  void RunOnce();

 private:
  int epoll_, wake_;
  std::map<int, std::shared_ptr<std::function<void(std::uint32_t)>>> watches_;
  std::map<std::pair<Time, std::uint64_t>, std::function<void()>> timers_;
  std::map<std::uint64_t, Time> timer_times_;
  std::uint64_t last_timer_ = 0;
};

}  // namespace takt::runtime
