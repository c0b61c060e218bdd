#include "net/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace takt::net {
namespace {

constexpr int kMaxEventsPerTurn = 256;
constexpr int kMaxWaitMs = 60'000;

thread_local EventLoop* current_loop = nullptr;

}  // namespace

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create() {
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd < 0) return ErrnoStatus(errno, "epoll_create1");
  const int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd < 0) {
    absl::Status status = ErrnoStatus(errno, "eventfd");
    close(epoll_fd);
    return status;
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;  // null = the wake-up
  if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event) != 0) {
    absl::Status status = ErrnoStatus(errno, "epoll_ctl");
    close(event_fd);
    close(epoll_fd);
    return status;
  }
  return std::unique_ptr<EventLoop>(new EventLoop(epoll_fd, event_fd));
}

EventLoop::EventLoop(int epoll_fd, int event_fd)
    : epoll_fd_(epoll_fd), event_fd_(event_fd), now_(std::chrono::steady_clock::now()) {}

EventLoop::~EventLoop() {
  close(event_fd_);
  close(epoll_fd_);
}

EventLoop* EventLoop::Current() { return current_loop; }

void EventLoop::Post(Task task) {
  {
    std::lock_guard lock(posted_mutex_);
    posted_.push_back(std::move(task));
  }
  if (!wake_pending_.exchange(true)) {
    const std::uint64_t one = 1;
    // Fails only when the counter is full, and then the loop wakes anyway.
    [[maybe_unused]] const ssize_t n = write(event_fd_, &one, sizeof one);
  }
}

void EventLoop::Stop() {
  stop_.store(true);
  Post([] {});
}

absl::Status EventLoop::Watch(int fd, std::uint32_t epoll_events, FdHandler* handler) {
  epoll_event event{};
  event.events = epoll_events;
  event.data.ptr = handler;
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) return ErrnoStatus(errno, "epoll_ctl");
  return absl::OkStatus();
}

absl::Status EventLoop::Rewatch(int fd, std::uint32_t epoll_events, FdHandler* handler) {
  epoll_event event{};
  event.events = epoll_events;
  event.data.ptr = handler;
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event) != 0) return ErrnoStatus(errno, "epoll_ctl");
  return absl::OkStatus();
}

void EventLoop::Unwatch(int fd, FdHandler* handler) {
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
  std::replace(turn_handlers_.begin(), turn_handlers_.end(), handler,
               static_cast<FdHandler*>(nullptr));
}

EventLoop::TimerId EventLoop::After(std::chrono::nanoseconds delay, Task task) {
  const TimerId id = next_timer_++;
  timers_.push({std::chrono::steady_clock::now() + delay, id});
  timer_tasks_.emplace(id, std::move(task));
  return id;
}

void EventLoop::Cancel(TimerId timer) { timer_tasks_.erase(timer); }

void EventLoop::AtTurnEnd(TurnEnd* work, Phase phase) {
  if (work->scheduled_) return;
  work->scheduled_ = true;
  turn_ends_[static_cast<int>(phase)].push_back(work);
}

void EventLoop::NotAtTurnEnd(TurnEnd* work) {
  if (!work->scheduled_) return;
  work->scheduled_ = false;
  for (auto& list : turn_ends_) {
    std::replace(list.begin(), list.end(), work, static_cast<TurnEnd*>(nullptr));
  }
}

void EventLoop::Schedule(Work* work) {
  if (work->scheduled_) return;
  work->scheduled_ = true;
  work_.push_back(work);
}

bool EventLoop::HasTimeForWork() {
  if (!work_.empty()) return false;
  if (work_until_.has_value()) return std::chrono::steady_clock::now() < *work_until_;
  work_until_ = now_ + kMaxWorkOfATurn;
  return true;
}

bool EventLoop::ReadsOn() const {
  if (!work_left_.has_value()) return false;
  const auto now = std::chrono::steady_clock::now();
  return now - now_ > kLongReading && now - *work_left_ < kMaxWorkPause;
}

void EventLoop::RunWork() {
  work_left_.reset();
  if (work_.empty()) return;
  auto now = std::chrono::steady_clock::now();
  if (!work_until_.has_value()) work_until_ = now + kMaxWorkOfATurn;
  do {
    Work* const work = work_.front();
    work_.erase(work_.begin());
    work->scheduled_ = false;
    if (work->DoWork(std::min(*work_until_, now + kMaxWorkSlice))) Schedule(work);
    if (work_.empty()) return;
    now = std::chrono::steady_clock::now();
  } while (now < *work_until_);
  work_left_ = now;
}

void EventLoop::RunPosted() {
  std::vector<Task> tasks;
  {
    std::lock_guard lock(posted_mutex_);
    tasks.swap(posted_);
  }
  for (Task& task : tasks) task();
}

void EventLoop::RunTimers() {
  while (!timers_.empty() && timers_.top().when <= now_) {
    auto found = timer_tasks_.find(timers_.top().id);
    timers_.pop();
    if (found == timer_tasks_.end()) continue;
    Task task = std::move(found->second);
    timer_tasks_.erase(found);
    task();
  }
}

void EventLoop::RunTurnEnds() {
  if (!ReadsOn()) RunWork();
  // A list may grow while it is walked; what writing brings about is done in the same turn.
  while (!turn_ends_[0].empty() || !turn_ends_[1].empty()) {
    for (auto& list : turn_ends_) {
      for (std::size_t i = 0; i < list.size(); ++i) {
        TurnEnd* work = list[i];
        if (work == nullptr) continue;
        work->scheduled_ = false;
        list[i] = nullptr;
        work->OnTurnEnd();
      }
      list.clear();
    }
  }
}

int EventLoop::WaitMs() const {
  if (!work_.empty()) return 0;
  if (timers_.empty()) return kMaxWaitMs;
  const auto delay = std::chrono::ceil<std::chrono::milliseconds>(timers_.top().when -
                                                                  std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(delay.count(), 0, kMaxWaitMs));
}

void EventLoop::Run() {
  EventLoop* const outer = std::exchange(current_loop, this);
  std::array<epoll_event, kMaxEventsPerTurn> events;
  while (!stop_.load()) {
    const int count = epoll_wait(epoll_fd_, events.data(), kMaxEventsPerTurn, WaitMs());
    now_ = std::chrono::steady_clock::now();
    work_until_.reset();
    turn_handlers_.clear();
    bool posted = false;
    for (int i = 0; i < count; ++i) {
      auto* handler = static_cast<FdHandler*>(events[i].data.ptr);
      posted |= handler == nullptr;
      turn_handlers_.push_back(handler);
    }
    for (int i = 0; i < count; ++i) {
      if (FdHandler* handler = turn_handlers_[i]; handler != nullptr) {
        handler->OnEvents(events[i].events);
      }
    }
    turn_handlers_.clear();
    if (posted) {
      std::uint64_t value;
      [[maybe_unused]] const ssize_t n = read(event_fd_, &value, sizeof value);
      wake_pending_.store(false);
      RunPosted();
    }
    RunTimers();
    RunTurnEnds();
  }
  RunPosted();
  do {
    RunTurnEnds();
  } while (!work_.empty());
  current_loop = outer;
}

absl::StatusOr<std::unique_ptr<EventLoopPool>> EventLoopPool::Start(int count) {
  std::unique_ptr<EventLoopPool> pool(new EventLoopPool);
  for (int i = 0; i < count; ++i) {
    TAKT_ASSIGN_OR_RETURN(std::unique_ptr<EventLoop> loop, EventLoop::Create());
    pool->loops_.push_back(loop.get());
    pool->owned_.push_back(std::move(loop));
  }
  for (EventLoop* loop : pool->loops_) {
    pool->threads_.emplace_back([loop] { loop->Run(); });
  }
  return pool;
}

EventLoopPool::~EventLoopPool() {
  for (EventLoop* loop : loops_) loop->Stop();
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace takt::net
