#include "runtime/embedded/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

namespace takt::runtime {

EventLoop::EventLoop()
    : epoll_(epoll_create1(EPOLL_CLOEXEC)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  Watch(wake_, EPOLLIN, [this](std::uint32_t) {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = read(wake_, &count, sizeof(count));
  });
}

EventLoop::~EventLoop() {
  close(wake_);
  close(epoll_);
}

bool EventLoop::Watch(int fd, std::uint32_t events, std::function<void(std::uint32_t)> callback) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) return false;
  watches_[fd] = std::make_shared<std::function<void(std::uint32_t)>>(std::move(callback));
  return true;
}

void EventLoop::Change(int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::Forget(int fd) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  watches_.erase(fd);
}

std::uint64_t EventLoop::At(Time when, std::function<void()> callback) {
  timers_[{when, ++last_timer_}] = std::move(callback);
  timer_times_[last_timer_] = when;
  return last_timer_;
}

void EventLoop::Cancel(std::uint64_t timer) {
  const auto it = timer_times_.find(timer);
  if (it == timer_times_.end()) return;
  timers_.erase({it->second, timer});
  timer_times_.erase(it);
}

void EventLoop::Wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = write(wake_, &one, sizeof(one));
}

void EventLoop::RunOnce() {
  int timeout_ms = -1;
  if (!timers_.empty()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(
        timers_.begin()->first.first - std::chrono::steady_clock::now());
    timeout_ms = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
  }
  epoll_event events[64];
  const int n = epoll_wait(epoll_, events, 64, timeout_ms);
  for (int i = 0; i < n; ++i) {
    // A callback before this one may have forgotten it.
    const auto it = watches_.find(events[i].data.fd);
    if (it == watches_.end()) continue;
    const auto callback = it->second;
    (*callback)(events[i].events);
  }
  const Time now = std::chrono::steady_clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const auto callback = std::move(timers_.begin()->second);
    timer_times_.erase(timers_.begin()->first.second);
    timers_.erase(timers_.begin());
    callback();
  }
}

}  // namespace takt::runtime
