// One epoll loop on one thread: file descriptors, timers, tasks from other threads, and work that
// is collected during a turn and done at its end. No product logic.
//
// A turn is: wait for events, handle each, do the turn's share of what work there is, run the
// turn-end tasks. What arrived together is thereby seen together, which is what batching and the
// writing of answers live on.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <queue>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/status.h"

namespace takt::net {

// Work on an event loop before it looks at its sockets again: as long does a refusal wait. Longer
// would leave more of an overloaded loop to the work, but requests in the sockets, where nobody
// refuses them, for seconds.
inline constexpr std::chrono::milliseconds kMaxWorkOfATurn{5};
// Of it, what one Work has before the others have theirs.
inline constexpr std::chrono::milliseconds kMaxWorkSlice{1};
// While work is left over, a turn whose events took longer than the first is followed by another
// one without work, as the sockets hold more: what is to be refused is found and told. But for no
// longer than the second: a third of the time at least is the work's.
inline constexpr std::chrono::milliseconds kLongReading{1};
inline constexpr std::chrono::milliseconds kMaxWorkPause{10};

class EventLoop {
 public:
  using Task = std::function<void()>;
  using TimerId = std::uint64_t;

  // Receives what epoll reports for one descriptor. Owned by the caller, and alive until Unwatch.
  class FdHandler {
   public:
    virtual ~FdHandler() = default;
    virtual void OnEvents(std::uint32_t epoll_events) = 0;
  };

  // Work at the end of a turn comes in two phases, so that all answers of a turn are written
  // together: first what makes answers, then what writes them.
  enum class Phase { kWork, kWrite };
  // Called once at the end of the turn in which it was scheduled. Owned by the caller; when it dies
  // before, it must be taken back by NotAtTurnEnd.
  class TurnEnd {
   public:
    virtual ~TurnEnd() = default;
    virtual void OnTurnEnd() = 0;

   private:
    friend class EventLoop;
    bool scheduled_ = false;
  };

  // What may be more than fits into a turn. Owned by the caller, and alive as long as it is
  // scheduled.
  class Work {
   public:
    virtual ~Work() = default;
    // Does what there is until about `until`, at least one step of it. True: the rest is to be done
    // when the others have had their slices. False: it may be destroyed already.
    virtual bool DoWork(std::chrono::steady_clock::time_point until) = 0;

   private:
    friend class EventLoop;
    bool scheduled_ = false;
  };

  // RESOURCE_EXHAUSTED or INTERNAL when the system gives no epoll or event descriptor.
  static absl::StatusOr<std::unique_ptr<EventLoop>> Create();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Runs on the calling thread until Stop. Tasks posted before Stop are run.
  void Run();
  void Stop();           // any thread
  void Post(Task task);  // any thread; runs on the loop's thread, in the order of posting
  // The loop whose Run is on this thread's stack, or null.
  static EventLoop* Current();
  bool InLoop() const { return Current() == this; }

  // The rest: on the loop's thread, or before Run.
  absl::Status Watch(int fd, std::uint32_t epoll_events, FdHandler* handler);
  absl::Status Rewatch(int fd, std::uint32_t epoll_events, FdHandler* handler);
  // No event of this turn reaches `handler` after this.
  void Unwatch(int fd, FdHandler* handler);
  TimerId After(std::chrono::nanoseconds delay, Task task);
  void Cancel(TimerId timer);  // of a timer that has fired: nothing
  void AtTurnEnd(TurnEnd* work, Phase phase);
  void NotAtTurnEnd(TurnEnd* work);
  // At the end of this turn, before the phase kWrite, and of the turns after it until it is done:
  // everything scheduled has a slice in turn, for kMaxWorkOfATurn altogether.
  void Schedule(Work* work);
  // Whether work may be done here and now: nothing that was scheduled waits for it, and the turn's
  // share is not used up.
  bool HasTimeForWork();
  // The time at which this turn's events came.
  std::chrono::steady_clock::time_point now() const { return now_; }

 private:
  struct Timer {
    std::chrono::steady_clock::time_point when;
    TimerId id;
    bool operator>(const Timer& o) const { return when != o.when ? when > o.when : id > o.id; }
  };

  EventLoop(int epoll_fd, int event_fd);
  void RunPosted();
  void RunTimers();
  void RunTurnEnds();
  void RunWork();
  bool ReadsOn() const;
  int WaitMs() const;

  const int epoll_fd_;
  const int event_fd_;
  std::atomic<bool> stop_{false};
  std::mutex posted_mutex_;
  std::vector<Task> posted_;
  std::atomic<bool> wake_pending_{false};

  std::chrono::steady_clock::time_point now_;
  TimerId next_timer_ = 1;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::unordered_map<TimerId, Task> timer_tasks_;
  std::vector<TurnEnd*> turn_ends_[2];  // by phase; null = taken back
  std::vector<Work*> work_;             // the next one first
  // Until when this turn may work; nothing = it has not begun to.
  std::optional<std::chrono::steady_clock::time_point> work_until_;
  // When the last turn with work that left some over ended it; nothing = none is left over.
  std::optional<std::chrono::steady_clock::time_point> work_left_;
  std::vector<FdHandler*>
      turn_handlers_;  // of this turn's events not yet handled; null = unwatched
};

// `count` loops, each on its own thread.
class EventLoopPool {
 public:
  static absl::StatusOr<std::unique_ptr<EventLoopPool>> Start(int count);
  ~EventLoopPool();  // stops and joins
  const std::vector<EventLoop*>& loops() const { return loops_; }

 private:
  EventLoopPool() = default;
  std::vector<std::unique_ptr<EventLoop>> owned_;
  std::vector<EventLoop*> loops_;
  std::vector<std::thread> threads_;
};

}  // namespace takt::net
