// Batching over a fake engine that says which rows each run had.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "serving/engine/fake_engine.h"
#include "serving/servable.h"

namespace takt::serving {
namespace {

using Outputs = absl::StatusOr<std::vector<Tensor>>;

Tensor Floats(Dims dims, float value) {
  Tensor tensor = Tensor::Allocate(DataType::kFloat, std::move(dims)).value();
  std::fill_n(static_cast<float*>(tensor.mutable_data()), tensor.elements(), value);
  return tensor;
}

class BatchingTest : public testing::Test {
 protected:
  void SetUp() override { loops_ = net::EventLoopPool::Start(1).value(); }
  void TearDown() override {
    Release();
    workers_.Stop();
    servable_.reset();
  }

  void Make(const std::optional<BatchingOptions>& batching) {
    FakeModel model;
    const TensorInfo x{"x", "x:0", DataType::kFloat, false, {-1, -1}};
    const TensorInfo s{"s", "s:0", DataType::kString, false, {-1}};
    // Doubles; a row of NaN is an error of the whole run.
    model.signatures.push_back({{"serving_default",
                                 "tensorflow/serving/predict",
                                 {x},
                                 {{"y", "y:0", x.dtype, false, x.dims}}},
                                [this](std::span<const Tensor> in) -> Outputs {
                                  Seen(in[0].dims()[0]);
                                  TAKT_ASSIGN_OR_RETURN(
                                      Tensor y, Tensor::Allocate(DataType::kFloat, in[0].dims()));
                                  for (std::int64_t i = 0; i < y.elements(); ++i) {
                                    const float value = in[0].as<float>()[i];
                                    if (value != value)
                                      return absl::InvalidArgumentError("not a number");
                                    static_cast<float*>(y.mutable_data())[i] = 2 * value;
                                  }
                                  return std::vector<Tensor>{y};
                                }});
    model.signatures.push_back({{"sum",
                                 "tensorflow/serving/predict",
                                 {{"x", "z:0", x.dtype, false, x.dims}},
                                 {{"y", "sum:0", x.dtype, true, {}}}},
                                [this](std::span<const Tensor> in) -> Outputs {
                                  Seen(in[0].dims()[0]);
                                  float sum = 0;
                                  for (std::int64_t i = 0; i < in[0].elements(); ++i)
                                    sum += in[0].as<float>()[i];
                                  return std::vector<Tensor>{Floats({}, sum)};
                                }});
    model.signatures.push_back(
        {{"text", "tensorflow/serving/predict", {s}, {{"t", "t:0", s.dtype, false, s.dims}}},
         [this](std::span<const Tensor> in) -> Outputs {
           Seen(in[0].dims()[0]);
           return std::vector<Tensor>{in[0]};
         }});
    for (auto& [def, function] : model.signatures) def.why_rows_may_depend = why_rows_may_depend_;
    Servable::Options options;
    options.name = "m";
    options.version = 1;
    options.batching = batching;
    servable_ = Servable::Create(std::make_unique<FakeSession>(model), options, &workers_).value();
  }
  void Seen(std::int64_t rows) {
    std::unique_lock lock(mutex_);
    runs_.push_back(rows);
    changed_.notify_all();
    changed_.wait(lock, [this] { return !hold_; });
    const std::size_t nth = runs_.size();
    lock.unlock();
    if (on_run_) on_run_(nth);
  }
  // Runs begin, but do not go on until Release.
  void Hold() {
    std::lock_guard lock(mutex_);
    hold_ = true;
  }
  void Release() {
    std::lock_guard lock(mutex_);
    hold_ = false;
    changed_.notify_all();
  }
  std::vector<std::int64_t> runs() {
    std::lock_guard lock(mutex_);
    return runs_;
  }
  void WaitForRuns(std::size_t count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(20), [&] { return runs_.size() >= count; }));
  }

  struct Ask {
    std::vector<Tensor> inputs;
    std::string signature;
    std::optional<std::chrono::steady_clock::time_point> deadline;
  };
  // Asks all of them in one turn of the loop. Answers() waits for them.
  void Send(std::vector<Ask> asks) {
    const std::size_t base = answers_.size();
    {
      std::lock_guard lock(mutex_);
      answers_.resize(base + asks.size());
    }
    loops_->loops()[0]->Post([this, base, asks = std::move(asks)]() mutable {
      for (std::size_t i = 0; i < asks.size(); ++i) {
        RunRequest request;
        request.signature = servable_->FindSignature(asks[i].signature);
        request.inputs = std::move(asks[i].inputs);
        request.deadline = asks[i].deadline;
        servable_->Run(std::move(request), [this, at = base + i](Outputs outputs) {
          std::lock_guard lock(mutex_);
          answers_[at] = std::move(outputs);
          changed_.notify_all();
        });
      }
    });
  }
  std::vector<std::optional<Outputs>> TakeAnswers() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      return std::all_of(answers_.begin(), answers_.end(), [](auto& a) { return a.has_value(); });
    }));
    return std::exchange(answers_, {});
  }
  // Errors among the answers so far, at least `count`.
  std::vector<absl::Status> WaitForRefusals(std::size_t count) {
    std::unique_lock lock(mutex_);
    std::vector<absl::Status> refused;
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] {
      refused.clear();
      for (const auto& answer : answers_) {
        if (answer.has_value() && !answer->ok()) refused.push_back(answer->status());
      }
      return refused.size() >= count;
    }));
    return refused;
  }
  // The first element of each answer, or its error.
  std::vector<std::string> Answers() {
    std::vector<std::string> texts;
    for (auto& answer : TakeAnswers()) {
      if (!answer.has_value()) {
        texts.push_back("none");
      } else if (!answer->ok()) {
        texts.push_back(std::string(answer->status().message()));
      } else {
        const Tensor& y = (**answer)[0];
        texts.push_back(
            StrCat(ShapeText(y.dims()), " ",
                   y.dtype() == DataType::kString ? y.strings()[0] : StrCat(y.as<float>()[0])));
      }
    }
    return texts;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string why_rows_may_depend_;  // of the models that Make makes
  bool hold_ = false;
  std::function<void(std::size_t nth)> on_run_;  // set while nothing runs
  std::vector<std::int64_t> runs_;
  std::vector<std::optional<Outputs>> answers_;
  WorkerPool workers_{2};
  std::unique_ptr<net::EventLoopPool> loops_;
  std::shared_ptr<Servable> servable_;
};

BatchingOptions Automatic() {
  BatchingOptions options;
  options.automatic = true;
  options.latency_target = std::chrono::seconds(100);  // a sanitizer's run is no run to measure
  return options;
}

// A run tells what runs take; until then a run is one request.
#define TAKT_WARM_UP()                   \
  Send({{{Floats({1, 2}, 1)}, "", {}}}); \
  ASSERT_EQ(Answers()[0], "[1,2] 2");    \
  runs_.clear()

TEST_F(BatchingTest, AutomaticWhatComesTogetherRunsTogether) {
  Make(Automatic());
  TAKT_WARM_UP();
  Send({{{Floats({1, 2}, 1)}, "", {}},
        {{Floats({3, 2}, 2)}, "", {}},
        {{Floats({2, 2}, 3)}, "", {}}});
  EXPECT_EQ(Answers(), (std::vector<std::string>{"[1,2] 2", "[3,2] 4", "[2,2] 6"}));
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{6}));
}

TEST_F(BatchingTest, AutomaticDependentRowsAreRunWithTheirOwnRequestsOnly) {
  why_rows_may_depend_ = "Mean";
  Make(Automatic());
  TAKT_WARM_UP();
  Send({{{Floats({1, 2}, 1)}, "", {}},
        {{Floats({3, 2}, 2)}, "", {}},
        {{Floats({2, 2}, 3)}, "", {}}});
  EXPECT_EQ(Answers(), (std::vector<std::string>{"[1,2] 2", "[3,2] 4", "[2,2] 6"}));
  EXPECT_EQ(runs().size(), 3U);
}

TEST_F(BatchingTest, AutomaticDependentRowsShareARunWhereNoProofIsWanted) {
  why_rows_may_depend_ = "Mean";
  BatchingOptions options = Automatic();
  options.needs_proof = false;
  Make(options);
  TAKT_WARM_UP();
  Send({{{Floats({1, 2}, 1)}, "", {}}, {{Floats({3, 2}, 2)}, "", {}}});
  EXPECT_EQ(Answers(), (std::vector<std::string>{"[1,2] 2", "[3,2] 4"}));
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{4}));
}

TEST_F(BatchingTest, AutomaticALoneRequestIsNeitherPaddedNorKept) {
  Make(Automatic());
  TAKT_WARM_UP();
  for (int i = 0; i < 3; ++i) {
    Send({{{Floats({1, 2}, 1)}, "", {}}});
    EXPECT_EQ(Answers()[0], "[1,2] 2");
  }
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{1, 1, 1}));
}

TEST_F(BatchingTest, AutomaticEachShapeHasItsOwnBatch) {
  Make(Automatic());
  TAKT_WARM_UP();
  Send({{{Floats({1, 2}, 1)}, "", {}},
        {{Floats({1, 3}, 2)}, "", {}},
        {{Floats({1, 2}, 3)}, "", {}},
        {{Floats({2}, 4)}, "", {}},
        {{Floats({0, 2}, 0)}, "", {}}});
  const auto answers = Answers();
  EXPECT_EQ(answers[0], "[1,2] 2");
  EXPECT_EQ(answers[1], "[1,3] 4");
  EXPECT_EQ(answers[2], "[1,2] 6");
  EXPECT_EQ(answers[3], "[2] 8");
  auto seen = runs();
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (std::vector<std::int64_t>{0, 1, 2, 2}));
}

TEST_F(BatchingTest, OneRequestsValuesFailNoOthers) {
  Make(Automatic());
  TAKT_WARM_UP();
  Send({{{Floats({1, 2}, 1)}, "", {}},
        {{Floats({1, 2}, std::nanf(""))}, "", {}},
        {{Floats({1, 2}, 3)}, "", {}}});
  EXPECT_EQ(Answers(), (std::vector<std::string>{"[1,2] 2", "not a number", "[1,2] 6"}));
}

TEST_F(BatchingTest, OutputsThatAreNotByRowsAreFoundOut) {
  Make(Automatic());
  TAKT_WARM_UP();
  for (int round = 0; round < 2; ++round) {
    Send({{{Floats({1, 2}, 1)}, "sum", {}}, {{Floats({2, 2}, 1)}, "sum", {}}});
    EXPECT_EQ(Answers(), (std::vector<std::string>{"[] 2", "[] 4"}));
  }
}

TEST_F(BatchingTest, StringsBatchToo) {
  Make(Automatic());
  TAKT_WARM_UP();
  Send({{{Tensor::FromStrings({1}, {"warm"})}, "text", {}}});
  Answers();
  runs_.clear();
  Send({{{Tensor::FromStrings({2}, {"a", "b"})}, "text", {}},
        {{Tensor::FromStrings({1}, {"c"})}, "text", {}}});
  EXPECT_EQ(Answers(), (std::vector<std::string>{"[2] a", "[1] c"}));
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{3}));
}

TEST_F(BatchingTest, AutomaticBatchesGrowWhileWorkersAreBusy) {
  Make(Automatic());
  // Never run before, so runs are taken to be long and go to the two workers.
  Hold();
  Send({{{Floats({1, 2}, 1)}, "", {}}});
  WaitForRuns(1);
  Send({{{Floats({1, 2}, 1)}, "", {}}});
  WaitForRuns(2);
  for (int i = 0; i < 3; ++i) Send({{{Floats({1, 2}, 1)}, "", {}}});
  Release();
  EXPECT_EQ(Answers().size(), 5U);
  std::int64_t rows = 0;
  for (std::int64_t r : runs()) rows += r;
  EXPECT_EQ(rows, 5);
}

// Every way in which a request comes to be a run of its own.
struct OneByOne {
  std::string name;
  std::optional<BatchingOptions> batching;
  std::string why_rows_may_depend = "";
  Dims dims = {1, 2};
};

void PrintTo(const OneByOne& one, std::ostream* out) { *out << one.name; }

void WorkFor(std::chrono::nanoseconds time) {
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - begin <= time) std::this_thread::yield();
}

class OverloadTest : public BatchingTest, public testing::WithParamInterface<OneByOne> {
 protected:
  void MakeIt() {
    why_rows_may_depend_ = GetParam().why_rows_may_depend;
    Make(GetParam().batching);
  }
  // Until its runs are known to be quick.
  void MakeQuick() {
    MakeIt();
    for (int i = 0; i < 20; ++i) {
      Send({One()});
      ASSERT_TRUE(TakeAnswers()[0]->ok());
    }
    runs_.clear();
  }
  // A model of which a run takes 30 ms at least, one request each, on two workers; both are busy
  // until Release.
  void MakeSlowAndHold() {
    MakeIt();
    Hold();
    Send({One()});
    WaitForRuns(1);
    WorkFor(std::chrono::milliseconds(30));
    Release();
    TakeAnswers();
    Hold();
    Send({One(), One()});
    WaitForRuns(3);
  }
  Ask One(std::optional<std::chrono::steady_clock::time_point> deadline = {}) {
    return {{Floats(GetParam().dims, 1)}, "", deadline};
  }
};

BatchingOptions AutomaticOf(std::int64_t rows) {
  BatchingOptions options = Automatic();
  options.max_batch_size = rows;
  return options;
}

INSTANTIATE_TEST_SUITE_P(
    , OverloadTest,
    testing::Values(OneByOne{"WithoutBatching", std::nullopt},
                    OneByOne{"BatchesOfOne", AutomaticOf(1)},
                    OneByOne{"DependentRows", Automatic(), "Mean"},
                    OneByOne{"ShapesThatShareNoRun", Automatic(), "", {1}},
                    OneByOne{"ShapesThatShareNoRunByParameters", BatchingOptions(), "", {1}}),
    [](const auto& info) { return info.param.name; });

// Nobody's run has ended when those who are too many hear it: a refusal does not wait.
TEST_P(OverloadTest, WhoWouldWaitTooLongIsRefusedAtOnceAndTheOthersAreServed) {
  MakeSlowAndHold();
  constexpr std::size_t kTooMany = 30;
  Send(std::vector<Ask>(kMaxUntimedRequests + kTooMany, One()));
  const std::vector<absl::Status> refused = WaitForRefusals(kTooMany);
  EXPECT_EQ(refused.size(), kTooMany);
  for (const absl::Status& status : refused) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_NE(status.message().find("512 requests wait"), std::string::npos) << status;
  }
  Release();
  std::size_t served = 0;
  for (const auto& answer : TakeAnswers()) served += answer->ok() ? 1 : 0;
  EXPECT_EQ(served, 2U + kMaxUntimedRequests);
}

TEST_P(OverloadTest, WhoseDeadlineComesBeforeItsRunIsRefusedAtOnce) {
  MakeSlowAndHold();
  const auto now = std::chrono::steady_clock::now();
  Send({One(now + std::chrono::seconds(100)), One(now + std::chrono::seconds(100))});
  Send(std::vector<Ask>(4, One()));
  Send({One(now + std::chrono::milliseconds(1)), One(now + std::chrono::seconds(100))});
  const std::vector<absl::Status> refused = WaitForRefusals(1);
  ASSERT_EQ(refused.size(), 1U);
  EXPECT_EQ(refused[0].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused[0].message().find("its run would end after its deadline"), std::string::npos)
      << refused[0];
  Release();
  EXPECT_EQ(TakeAnswers().size(), 10U);
}

TEST_P(OverloadTest, WhatHasExpiredIsNotRun) {
  MakeSlowAndHold();
  const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  Send({One(soon), One()});
  WorkFor(soon - std::chrono::steady_clock::now());
  Release();
  const auto answers = TakeAnswers();
  EXPECT_EQ(answers[2]->status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(answers[3]->ok());
  EXPECT_EQ(runs().size(), 4U);
}

TEST_P(OverloadTest, WhoAsksForSeveralSignaturesAtOnceIsRefusedToo) {
  MakeSlowAndHold();
  Send(std::vector<Ask>(kMaxUntimedRequests, One()));
  {
    const std::lock_guard lock(mutex_);
    answers_.emplace_back();
  }
  loops_->loops()[0]->Post([this] {
    const Signature* signature = servable_->FindSignature("");
    RunRequest request;
    request.inputs = {Floats({1, 2}, 1)};
    request.signature = signature;
    servable_->RunTogether({signature, signature}, std::move(request), [this](Outputs outputs) {
      const std::lock_guard lock(mutex_);
      answers_.back() = std::move(outputs);
      changed_.notify_all();
    });
  });
  EXPECT_EQ(WaitForRefusals(1)[0].code(), absl::StatusCode::kUnavailable);
}

TEST_P(OverloadTest, AQueueOfQuickRunsHasALimitToo) {
  MakeQuick();
  // A first run that takes up the turn, where runs begin when their requests come.
  on_run_ = [](std::size_t nth) {
    if (nth == 1) WorkFor(net::kMaxWorkOfATurn);
  };
  Send(std::vector<Ask>(kMaxQueuedRequests + 10, One()));
  std::size_t refused = 0;
  for (const auto& answer : TakeAnswers()) {
    if (answer->ok()) continue;
    ++refused;
    EXPECT_EQ(answer->status().code(), absl::StatusCode::kUnavailable);
  }
  on_run_ = nullptr;
  EXPECT_GE(refused, 1U);  // more where a busy machine makes the runs look long
}

TEST_P(OverloadTest, ALoopLooksAtItsSocketsBetweenRuns) {
  MakeQuick();
  // Runs that were quick, so they are on the loop, and are so no more.
  std::atomic<std::size_t> seen_between{0};
  on_run_ = [&](std::size_t nth) {
    if (nth == 1) loops_->loops()[0]->Post([&] { seen_between = runs().size(); });
    WorkFor(net::kMaxWorkOfATurn);
  };
  Send(std::vector<Ask>(5, One()));
  EXPECT_EQ(TakeAnswers().size(), 5U);
  on_run_ = nullptr;
  EXPECT_GE(seen_between, 1U);
  EXPECT_LT(seen_between, 5U);
}

// Many runs of one model wait; then another model is asked once.
TEST_P(OverloadTest, AModelWithALongQueueLeavesTheOthersTheirTurn) {
  MakeQuick();
  std::size_t before_other = 0;
  FakeModel model;
  const TensorInfo x{"x", "x:0", DataType::kFloat, false, {-1, -1}};
  model.signatures.push_back(
      {{"serving_default", "", {x}, {x}}, [&](std::span<const Tensor> in) -> Outputs {
         before_other = runs().size();
         return std::vector<Tensor>(in.begin(), in.end());
       }});
  const auto other = Servable::Create(std::make_unique<FakeSession>(model), {}, nullptr).value();
  std::atomic<std::size_t> asked_at{0};
  on_run_ = [&](std::size_t nth) {
    if (nth == 3) {
      asked_at = nth;
      loops_->loops()[0]->Post([&] {
        RunRequest request;
        request.inputs = {Floats({1, 2}, 1)};
        request.signature = other->FindSignature("");
        other->Run(std::move(request), [](const Outputs& outputs) { EXPECT_TRUE(outputs.ok()); });
      });
    }
    WorkFor(net::kMaxWorkSlice);
  };
  Send(std::vector<Ask>(100, One()));
  EXPECT_EQ(TakeAnswers().size(), 100U);
  on_run_ = nullptr;
  EXPECT_EQ(asked_at, 3U);
  EXPECT_GE(before_other, 3U);
  // The rest of this turn's runs, and a slice before its own.
  EXPECT_LE(before_other, 3U + net::kMaxWorkOfATurn / net::kMaxWorkSlice + 1);
}

TEST_F(BatchingTest, WithoutBatchingAnIdleLoopRunsARequestWhereItComes) {
  Make(std::nullopt);
  for (int i = 0; i < 20; ++i) {
    TAKT_WARM_UP();
  }
  // The second is asked for by who gets the answer of the first, and not run within its run.
  std::vector<std::string> events;
  std::function<void(int)> ask = [&](int left) {
    RunRequest request;
    request.inputs = {Floats({1, 2}, 1)};
    request.signature = servable_->FindSignature("");
    servable_->Run(std::move(request), [&, left](const Outputs& outputs) {
      EXPECT_TRUE(outputs.ok());
      events.push_back(StrCat("answer ", left));
      if (left > 1) ask(left - 1);
      events.push_back(StrCat("end of answer ", left));
    });
  };
  std::promise<void> done;
  loops_->loops()[0]->Post([&] {
    ask(2);
    events.push_back("asked");
    loops_->loops()[0]->Post([&] { done.set_value(); });
  });
  done.get_future().wait();
  EXPECT_EQ(events, (std::vector<std::string>{"answer 2", "end of answer 2", "asked", "answer 1",
                                              "end of answer 1"}));
}

TEST_F(BatchingTest, WhoAsksFromNoLoopIsAnsweredByAWorkerOrWhenTheRunIsShortAtOnce) {
  Make(std::nullopt);
  std::thread::id ran_by;
  for (int i = 0; i < 20; ++i) {
    std::promise<Outputs> answer;
    RunRequest request;
    request.inputs = {Floats({1, 2}, 1)};
    request.signature = servable_->FindSignature("");
    servable_->Run(std::move(request), [&](Outputs outputs) {
      ran_by = std::this_thread::get_id();
      answer.set_value(std::move(outputs));
    });
    EXPECT_TRUE(answer.get_future().get().ok());
    // Never run before, so it is taken to be long.
    if (i == 0) {
      EXPECT_NE(ran_by, std::this_thread::get_id());
    }
  }
  EXPECT_EQ(ran_by, std::this_thread::get_id());
}

TEST_F(BatchingTest, WhatIsThereAfterTheDeadlineIsNoAnswer) {
  Make(std::nullopt);
  Hold();
  const auto soon = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
  Send({{{Floats({1, 2}, 1)}, "", soon}});
  WaitForRuns(1);
  WorkFor(soon - std::chrono::steady_clock::now());
  Release();
  EXPECT_EQ(TakeAnswers()[0]->status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(BatchingTest, InputsThatWaitHaveALimitInBytes) {
  Make(std::nullopt);
  Hold();
  Send({{{Floats({1, 2}, 1)}, "", {}}, {{Floats({1, 2}, 1)}, "", {}}});
  WaitForRuns(2);
  // Two numbers of it are looked at; it says that it has a quarter of the limit.
  const Tensor two = Floats({1, 2}, 1);
  const Tensor large =
      Tensor::Wrap(two.dtype(), two.dims(), two.owner(), two.data(), kMaxQueuedBytes / 4);
  Send(std::vector<Ask>(5, {{large}, "", {}}));
  const std::vector<absl::Status> refused = WaitForRefusals(1);
  ASSERT_EQ(refused.size(), 1U);
  EXPECT_EQ(refused[0].code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(refused[0].message().find("1073741824 bytes wait"), std::string::npos) << refused[0];
  Release();
  std::size_t served = 0;
  for (const auto& answer : TakeAnswers()) served += answer->ok() ? 1 : 0;
  EXPECT_EQ(served, 6U);
}

TEST_F(BatchingTest, WhatHasExpiredIsNotRun) {
  BatchingOptions options;
  options.max_batch_size = 4;
  options.num_batch_threads = 1;
  Make(options);
  Hold();
  Send({{{Floats({1, 2}, 1)}, "", {}}});
  WaitForRuns(1);
  Send(
      {{{Floats({1, 2}, 2)}, "", std::chrono::steady_clock::now()}, {{Floats({1, 2}, 3)}, "", {}}});
  Release();
  EXPECT_EQ(Answers(),
            (std::vector<std::string>{
                "[1,2] 2", "Run() timeout exceeded while waiting in batching queue", "[1,2] 6"}));
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{1, 1}));
}

TEST_F(BatchingTest, ParametersAFullBatchRunsAtOnceAndAPartialOneAfterItsTime) {
  BatchingOptions options;
  options.max_batch_size = 4;
  options.batch_timeout = std::chrono::hours(1);
  Make(options);
  Send({{{Floats({1, 2}, 1)}, "", {}}, {{Floats({1, 2}, 2)}, "", {}}});
  Send({{{Floats({2, 2}, 3)}, "", {}}});
  EXPECT_EQ(Answers(), (std::vector<std::string>{"[1,2] 2", "[1,2] 4", "[2,2] 6"}));
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{4}));

  runs_.clear();
  options.batch_timeout = std::chrono::milliseconds(20);
  Make(options);
  Send({{{Floats({1, 2}, 1)}, "", {}}, {{Floats({1, 2}, 2)}, "", {}}});
  EXPECT_EQ(Answers().size(), 2U);
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{2}));
}

// A runner that goes home just as the next request comes must not leave it behind.
TEST_F(BatchingTest, ParametersNoRequestOfManyInARowIsForgotten) {
  constexpr int kChains = 4, kLength = 20000;
  Make(BatchingOptions());
  int answered = 0;
  std::function<void(int)> ask = [&](int left) {
    RunRequest request;
    request.inputs = {Floats({1, 2}, 1)};
    request.signature = servable_->FindSignature("");
    servable_->Run(std::move(request), [&, left](const Outputs& outputs) {
      {
        std::lock_guard lock(mutex_);
        answered += outputs.ok() ? 1 : 0;
        changed_.notify_all();
      }
      if (left > 1) loops_->loops()[0]->Post([&ask, left] { ask(left - 1); });
    });
  };
  for (int i = 0; i < kChains; ++i) loops_->loops()[0]->Post([&ask] { ask(kLength); });
  std::unique_lock lock(mutex_);
  EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] {
    return answered == kChains * kLength;
  })) << answered;
}

TEST_F(BatchingTest, ParametersAllowedSizesPad) {
  BatchingOptions options;
  options.max_batch_size = 8;
  options.allowed_batch_sizes = {4, 8};
  options.batch_timeout = std::chrono::milliseconds(1);
  Make(options);
  Send({{{Floats({3, 2}, 1)}, "", {}}, {{Floats({2, 2}, 2)}, "", {}}});
  EXPECT_EQ(Answers(), (std::vector<std::string>{"[3,2] 2", "[2,2] 4"}));
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{8}));
}

// [rows, width] float32: row r is first + 10 r, first + 10 r + 1, ...
Tensor Counting(std::int64_t rows, std::int64_t width, float first) {
  Tensor tensor = Tensor::Allocate(DataType::kFloat, {rows, width}).value();
  for (std::int64_t i = 0; i < rows * width; ++i) {
    const std::int64_t row = i / width;
    static_cast<float*>(tensor.mutable_data())[i] =
        first + static_cast<float>(row * 10 + i % width);
  }
  return tensor;
}

TEST_F(BatchingTest, ParametersWithPaddingLengthsShareARunFilledUpWithTheirFirstElement) {
  BatchingOptions options;
  options.max_batch_size = 6;
  options.batch_timeout = std::chrono::minutes(10);
  options.pad_variable_length_inputs = true;
  Make(options);
  // The longest comes in the middle: what was there already grows.
  Send({{{Counting(2, 2, 1)}, "", {}},
        {{Counting(1, 4, 100)}, "", {}},
        {{Counting(1, 1, 1000)}, "", {}},
        {{Counting(2, 3, 5000)}, "", {}}});
  const std::vector<std::optional<Outputs>> answers = TakeAnswers();
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{6}));
  const std::vector<std::vector<float>> doubled = {
      {2, 4, 2, 2, 22, 24, 2, 2},
      {200, 202, 204, 206},
      {2000, 2000, 2000, 2000},
      {10000, 10002, 10004, 10000, 10020, 10022, 10024, 10000}};
  for (std::size_t i = 0; i < doubled.size(); ++i) {
    ASSERT_TRUE(answers[i]->ok()) << answers[i]->status();
    const Tensor& y = (**answers[i])[0];
    EXPECT_EQ(y.dims()[1], 4);
    EXPECT_EQ(std::vector<float>(y.as<float>(), y.as<float>() + y.elements()), doubled[i]) << i;
  }
}

TEST_F(BatchingTest, ParametersPaddingHasALimit) {
  BatchingOptions options;
  options.max_batch_size = 4;
  options.batch_timeout = std::chrono::milliseconds(1);
  options.pad_variable_length_inputs = true;
  Make(options);
  const auto longest = static_cast<std::int64_t>(kMaxPaddedBytes / sizeof(float) / 2);
  Send({{{Counting(1, 2, 1)}, "", {}}, {{Counting(1, longest + 1, 1)}, "", {}}});
  Answers();
  EXPECT_EQ(runs(), (std::vector<std::int64_t>{1, 1}));
}

TEST(PaddedBatch, KeepsEveryDimensionsCorner) {
  // [1, 2, 1, 2] and [1, 1, 2, 1] int32, and [1, 1], [1, 2] strings.
  auto numbers = [](Dims dims, std::vector<std::int32_t> values) {
    Tensor tensor = Tensor::Allocate(DataType::kInt32, std::move(dims)).value();
    std::copy(values.begin(), values.end(), static_cast<std::int32_t*>(tensor.mutable_data()));
    return tensor;
  };
  const std::vector<Tensor> first = {numbers({1, 2, 1, 2}, {1, 2, 3, 4}),
                                     Tensor::FromStrings({1, 1}, {"a"})};
  const std::vector<Tensor> second = {numbers({1, 1, 2, 1}, {7, 8}),
                                      Tensor::FromStrings({1, 2}, {"b", "c"})};
  const auto batch = std::make_unique<Batch>();
  ASSERT_TRUE(batch->Open(TensorSource(first), 2, 2, true).ok());
  FakeModel model;
  const TensorInfo n{"n", "n:0", DataType::kInt32, true, {}};
  const TensorInfo s{"s", "s:0", DataType::kString, true, {}};
  std::vector<Tensor> seen;
  model.signatures.push_back(
      {{"serving_default", "", {n, s}, {n, s}}, [&](std::span<const Tensor> in) -> Outputs {
         seen.assign(in.begin(), in.end());
         return seen;
       }});
  const auto servable = Servable::Create(std::make_unique<FakeSession>(model), {}, nullptr).value();
  for (const std::vector<Tensor>& inputs : {first, second}) {
    ASSERT_TRUE(batch->Fits(TensorSource(inputs), 1));
    ASSERT_TRUE(batch->MakeRoom(TensorSource(inputs)).ok());
    BatchEntry entry;
    entry.client = &DoneClient::Instance();
    entry.done = [](const Outputs& outputs) { EXPECT_TRUE(outputs.ok()); };
    batch->Add(TensorSource(inputs), 1, std::move(entry));
  }
  EXPECT_FALSE(batch->Fits(TensorSource({numbers({1, 2}, {1, 2}), first[1]}), 1));
  EXPECT_TRUE(batch->Run(*servable, *servable->FindSignature(""), 2));
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(seen[0].dims(), (Dims{2, 2, 2, 2}));
  EXPECT_EQ(std::vector<std::int32_t>(seen[0].as<std::int32_t>(), seen[0].as<std::int32_t>() + 16),
            (std::vector<std::int32_t>{1, 2, 1, 1, 3, 4, 1, 1, 7, 7, 8, 7, 7, 7, 7, 7}));
  EXPECT_EQ(seen[1].strings(), (std::vector<std::string>{"a", "a", "b", "c"}));
}

TEST_F(BatchingTest, ParametersAFullQueueAndATooLargeRequestAreRefused) {
  BatchingOptions options;
  options.max_batch_size = 2;
  options.max_enqueued_batches = 1;
  options.num_batch_threads = 1;
  Make(options);
  Hold();
  Send({{{Floats({2, 2}, 1)}, "", {}}});
  WaitForRuns(1);
  Send({{{Floats({2, 2}, 2)}, "", {}},
        {{Floats({1, 2}, 3)}, "", {}},
        {{Floats({3, 2}, 4)}, "", {}}});
  EXPECT_EQ(WaitForRefusals(2).size(), 2U);
  Release();
  EXPECT_EQ(Answers(),
            (std::vector<std::string>{
                "[2,2] 2", "[2,2] 4",
                "The batch scheduling queue to which this task was submitted is full; currently 1 "
                "batches enqueued and max_enqueued_batches is 1",
                "Task size 3 is larger than maximum input batch size 2"}));
}

TEST_F(BatchingTest, ParametersALargeRequestRunsInPartsWhereThatIsAllowed) {
  BatchingOptions options;
  options.max_batch_size = 10;
  options.enable_large_batch_splitting = true;
  options.max_execution_batch_size = 4;
  Make(options);
  Tensor large = Floats({9, 2}, 0);
  for (int i = 0; i < 18; ++i) static_cast<float*>(large.mutable_data())[i] = static_cast<float>(i);
  Send({{{large}, "", {}}, {{Floats({11, 2}, 1)}, "", {}}});
  std::unique_lock lock(mutex_);
  ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] {
    return answers_[0].has_value() && answers_[1].has_value();
  }));
  ASSERT_TRUE(answers_[0]->ok()) << answers_[0]->status();
  const Tensor& y = (**answers_[0])[0];
  EXPECT_EQ(y.dims(), (Dims{9, 2}));
  for (int i = 0; i < 18; ++i) EXPECT_EQ(y.as<float>()[i], static_cast<float>(2 * i));
  for (std::int64_t rows : runs_) EXPECT_LE(rows, 4);
  EXPECT_EQ(answers_[1]->status().message(),
            "Task size 11 is larger than maximum input batch size 10");
  answers_.clear();
}

TEST(BatchingOptions, AreChecked) {
  struct Case {
    std::function<void(BatchingOptions&)> change;
    std::string message;
  };
  for (const Case& c : std::initializer_list<Case>{
           {[](BatchingOptions&) {}, ""},
           {[](BatchingOptions& o) {
              o.allowed_batch_sizes = {2, 4, 1000};
            },
            ""},
           {[](BatchingOptions& o) { o.max_batch_size = 0; },
            "max_batch_size must be positive; was 0"},
           {[](BatchingOptions& o) { o.batch_timeout = std::chrono::microseconds(-1); },
            "batch_timeout_micros must be non-negative; was -1"},
           {[](BatchingOptions& o) { o.max_enqueued_batches = 0; },
            "max_enqueued_batches must be positive; was 0"},
           {[](BatchingOptions& o) {
              o.allowed_batch_sizes = {4, 2, 1000};
            },
            "allowed_batch_sizes entries must be positive and monotonically increasing"},
           {[](BatchingOptions& o) {
              o.allowed_batch_sizes = {2, 4};
            },
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; "
            "expected 1000"}}) {
    BatchingOptions options;
    c.change(options);
    EXPECT_EQ(Validate(options).message(), c.message);
  }
}

}  // namespace
}  // namespace takt::serving
