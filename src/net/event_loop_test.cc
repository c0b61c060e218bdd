// How an event loop shares its turns between sockets and work.
#include "net/event_loop.h"

#include <gtest/gtest.h>

#include <string>

namespace takt::net {
namespace {

using Clock = std::chrono::steady_clock;

// Works its slice up each time, and says so.
class Worker final : public EventLoop::Work {
 public:
  Worker(char name, int slices, std::string& said) : name_(name), slices_(slices), said_(said) {}
  bool DoWork(Clock::time_point until) override {
    while (Clock::now() < until) {
    }
    said_.push_back(name_);
    return --slices_ > 0;
  }

 private:
  const char name_;
  int slices_;
  std::string& said_;
};

class EventLoopTest : public testing::Test {
 protected:
  const std::unique_ptr<EventLoop> loop_ = EventLoop::Create().value();
  std::string said_;
};

TEST_F(EventLoopTest, WorkHasItsSlicesInTurn) {
  Worker a('a', 3, said_), b('b', 1, said_), c('c', 2, said_);
  for (Worker* work : {&a, &b, &c}) loop_->Schedule(work);
  loop_->Schedule(&a);  // it is already
  loop_->Post([this] { loop_->Stop(); });
  loop_->Run();
  EXPECT_EQ(said_, "abcaca");
}

TEST_F(EventLoopTest, WhatIsPostedComesBetweenTheSlicesOfLongWork) {
  const auto most = static_cast<int>(kMaxWorkOfATurn / kMaxWorkSlice);
  Worker a('a', 10 * most, said_);
  // The first turn works; what it posts the second one sees.
  loop_->Post([&] {
    loop_->Schedule(&a);
    loop_->Post([&] {
      said_.push_back('|');
      loop_->Stop();
    });
  });
  loop_->Run();
  const std::size_t before = said_.find('|');
  EXPECT_GE(before, 1U);
  EXPECT_LE(before, static_cast<std::size_t>(most));
  EXPECT_EQ(said_.size(), 10U * static_cast<std::size_t>(most) + 1) << "Stop leaves no work";
}

TEST_F(EventLoopTest, ThereIsTimeForWorkUntilTheTurnsShareIsUsedUpOrOthersWait) {
  Worker a('a', 1, said_);
  std::vector<bool> has;
  loop_->Post([&] {
    has.push_back(loop_->HasTimeForWork());
    const auto begin = Clock::now();
    while (Clock::now() - begin < kMaxWorkOfATurn) {
    }
    has.push_back(loop_->HasTimeForWork());
    loop_->Post([&] {
      has.push_back(loop_->HasTimeForWork());
      loop_->Schedule(&a);
      has.push_back(loop_->HasTimeForWork());
      loop_->Stop();
    });
  });
  loop_->Run();
  EXPECT_EQ(has, (std::vector<bool>{true, false, true, false}));
}

// A turn of which the events took long is followed by others, but the work is not forgotten.
TEST_F(EventLoopTest, WorkIsDoneHoweverMuchComes) {
  Worker a('a', 20, said_);
  int turns = 0;
  std::function<void()> busy = [&] {
    ++turns;
    const auto begin = Clock::now();
    while (Clock::now() - begin < 2 * kLongReading) {
    }
    if (said_.size() < 20) {
      loop_->Post(busy);
    } else {
      loop_->Stop();
    }
  };
  loop_->Post([&] {
    loop_->Schedule(&a);
    loop_->Post(busy);
  });
  loop_->Run();
  EXPECT_EQ(said_, std::string(20, 'a'));
  // With each part of the work there were at most as many turns without as fit into the pause.
  EXPECT_LE(turns, (kMaxWorkPause / (2 * kLongReading) + 2) * 21);
}

}  // namespace
}  // namespace takt::net
