#include "logs/forward.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/fs.h"
#include "base/gzip.h"
#include "base/proto_wire.h"

namespace takt::logs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Json = nlohmann::json;
using namespace std::chrono_literals;

// A receiver of Loki's pushes that answers as a test tells it.
class FakeReceiver {
 public:
  absl::StatusOr<net::PostReply> Post(const net::PostRequest& request) {
    const std::lock_guard lock(mutex_);
    ++requests_;
    headers_ = request.headers;
    absl::StatusOr<net::PostReply> answer = answer_(requests_);
    if (!answer.ok() || answer->status / 100 != 2) return answer;
    const Json body = Json::parse(Gunzip(request.body, 16 << 20).value());
    for (const Json& stream : body["streams"]) {
      for (const Json& value : stream["values"]) texts_.push_back(value[1]);
    }
    return answer;
  }
  void Answer(std::function<absl::StatusOr<net::PostReply>(int request)> answer) {
    const std::lock_guard lock(mutex_);
    answer_ = std::move(answer);
  }
  std::vector<std::string> texts() {
    const std::lock_guard lock(mutex_);
    return texts_;
  }
  int requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  std::vector<std::pair<std::string, std::string>> headers() {
    const std::lock_guard lock(mutex_);
    return headers_;
  }

 private:
  std::mutex mutex_;
  std::function<absl::StatusOr<net::PostReply>(int)> answer_ = [](int) {
    return net::PostReply{.status = 204};
  };
  std::vector<std::string> texts_;
  std::vector<std::pair<std::string, std::string>> headers_;
  int requests_ = 0;
};

class ForwardTest : public testing::Test {
 protected:
  ForwardTest() { Open(); }

  // What a daemon does that starts; `kill` leaves what the one before had in memory.
  void Open(std::vector<Forward> fixed = {}) {
    forwarder_.reset();
    store_.reset();
    store_ = LogStore::Open(options_, clock_).value();
    auto forwarder = Forwarder::Open(
        dir_.path() + "/forward.db", std::move(fixed), *store_, clock_,
        [this](const net::PostRequest& request) { return receiver_.Post(request); },
        [this](const std::string& message, bool) {
          const std::lock_guard lock(said_mutex_);
          said_.push_back(message);
        },
        {.first_pause = 1ms, .max_pause = 10ms, .batch_age = 1ms});
    ASSERT_TRUE(forwarder.ok()) << forwarder.status();
    forwarder_ = *std::move(forwarder);
  }
  void Log(const std::vector<std::string>& texts, const std::string& app = "train",
           Level level = Level::kInfo) {
    const auto stream = store_->Stream({.app = app, .service = "main", .instance = app + "-1"}, 2);
    ASSERT_TRUE(stream.ok());
    std::vector<Entry> entries;
    for (const std::string& text : texts) {
      ++position_;
      entries.push_back({static_cast<std::int64_t>(position_), level, false, text, position_});
    }
    ASSERT_TRUE(store_->Append(*stream, entries).ok());
    ASSERT_TRUE(store_->Flush().ok());
  }
  template <typename Condition>
  bool Eventually(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (!condition() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    return condition();
  }
  ForwardState State(const std::string& name = "central") {
    for (const auto& view : forwarder_->List()) {
      if (view.forward.name == name) return view.state;
    }
    ADD_FAILURE() << "no forward " << name;
    return {};
  }
  std::vector<std::string> said() {
    const std::lock_guard lock(said_mutex_);
    return said_;
  }
  static Forward Central() {
    Forward forward;
    forward.name = "central";
    forward.url = "http://127.0.0.1:3100";
    return forward;
  }

  TempDir dir_;
  FakeClock clock_;
  StoreOptions options_{.path = dir_.path() + "/logs.db"};
  FakeReceiver receiver_;
  std::uint64_t position_ = 0;
  std::mutex said_mutex_;
  std::vector<std::string> said_;
  std::unique_ptr<LogStore> store_;
  std::unique_ptr<Forwarder> forwarder_;
};

TEST_F(ForwardTest, SendsWhatComesFromNowOnOrAllThatIsKept) {
  Log({"before"});
  ASSERT_TRUE(forwarder_->Put(Central(), false).ok());
  Log({"one", "two"});
  ASSERT_TRUE(Eventually([&] { return receiver_.texts().size() >= 2; }));
  EXPECT_THAT(receiver_.texts(), ElementsAre("one", "two"));
  Forward all = Central();
  all.name = "all";
  ASSERT_TRUE(forwarder_->Put(all, true).ok());
  ASSERT_TRUE(Eventually([&] { return receiver_.texts().size() >= 5; }));
  EXPECT_THAT(receiver_.texts(), ElementsAre("one", "two", "before", "one", "two"));
  EXPECT_TRUE(Eventually([&] { return State("all").sent_entries == 3; }));
  EXPECT_EQ(State("all").behind_entries, 0u);
}

TEST_F(ForwardTest, SendsOnlyWhatTheQueryTakesAndPassesTheRest) {
  Forward forward = Central();
  forward.query = "level>=warn not noise";
  forward.headers = {{"X-Scope-OrgID", "tenant"}};
  ASSERT_TRUE(forwarder_->Put(forward, false).ok());
  Log({"quiet"});
  Log({"bad", "noise"}, "train", Level::kError);
  ASSERT_TRUE(Eventually([&] { return State().sent_entries == 1; }));
  EXPECT_THAT(receiver_.texts(), ElementsAre("bad"));
  EXPECT_THAT(receiver_.headers(), testing::Contains(testing::Pair("X-Scope-OrgID", "tenant")));
  EXPECT_TRUE(Eventually([&] { return State().behind_entries == 0; }));
}

TEST_F(ForwardTest, AReceiverThatIsDownGetsEverythingOnceItIsBack) {
  receiver_.Answer([](int) { return absl::UnavailableError("connection refused"); });
  ASSERT_TRUE(forwarder_->Put(Central(), false).ok());
  std::vector<std::string> expected;
  for (int i = 0; i < 100; ++i) {
    expected.push_back("line " + std::to_string(i));
    Log({expected.back()});
  }
  ASSERT_TRUE(Eventually([&] { return !said().empty(); }));
  EXPECT_THAT(said()[0], HasSubstr("connection refused"));
  clock_.Advance(1h);
  const ForwardState down = State();
  EXPECT_TRUE(down.failing);
  EXPECT_EQ(down.behind_entries, 100u);
  EXPECT_GE(down.lag, 1h);
  EXPECT_GE(down.failed_attempts, 3u);
  receiver_.Answer(
      [](int request) { return net::PostReply{.status = request % 2 == 0 ? 503 : 204}; });
  ASSERT_TRUE(Eventually([&] { return State().behind_entries == 0; }));
  EXPECT_EQ(receiver_.texts(), expected);
  EXPECT_FALSE(State().failing);
  EXPECT_THAT(said().back(), HasSubstr("it works again"));
}

TEST_F(ForwardTest, ADaemonThatDiesBetweenSendingAndRememberingSendsAgain) {
  ASSERT_TRUE(forwarder_->Put(Central(), false).ok());
  Log({"one"});
  ASSERT_TRUE(Eventually([&] { return State().sent_entries == 1; }));
  // The receiver takes the batch, but the daemon hears of it no more.
  std::atomic<bool> hanging = false;
  receiver_.Answer([&](int) -> absl::StatusOr<net::PostReply> {
    hanging = true;
    return absl::CancelledError("given up: ending");
  });
  Log({"two", "three"});
  ASSERT_TRUE(Eventually([&] { return hanging.load(); }));
  receiver_.Answer([](int) { return net::PostReply{.status = 204}; });
  Open();
  ASSERT_TRUE(Eventually([&] { return receiver_.texts().size() >= 3; }));
  EXPECT_THAT(receiver_.texts(), ElementsAre("one", "two", "three"));
  Log({"four"});
  ASSERT_TRUE(Eventually([&] { return State().behind_entries == 0; }));
  EXPECT_THAT(receiver_.texts(), ElementsAre("one", "two", "three", "four"));
}

TEST_F(ForwardTest, WhatTheReceiverRefusesIsCountedAndNotSentAgain) {
  receiver_.Answer([](int) { return net::PostReply{.status = 400, .body = "too old \x1b"}; });
  ASSERT_TRUE(forwarder_->Put(Central(), false).ok());
  Log({"one", "two"});
  ASSERT_TRUE(Eventually([&] { return State().refused_entries == 2; }));
  EXPECT_THAT(State().last_error, HasSubstr("HTTP 400 too old"));
  EXPECT_EQ(State().behind_entries, 0u);
  receiver_.Answer([](int) { return net::PostReply{.status = 204}; });
  Log({"three"});
  ASSERT_TRUE(Eventually([&] { return State().sent_entries == 1; }));
  EXPECT_THAT(receiver_.texts(), ElementsAre("three"));
}

TEST_F(ForwardTest, AWrongPasswordLosesNothing) {
  receiver_.Answer([](int) { return net::PostReply{.status = 401}; });
  ASSERT_TRUE(forwarder_->Put(Central(), false).ok());
  Log({"one"});
  ASSERT_TRUE(Eventually([&] { return State().failed_attempts >= 2; }));
  EXPECT_EQ(State().refused_entries, 0u);
  receiver_.Answer([](int) { return net::PostReply{.status = 204}; });
  Forward changed = Central();
  changed.headers = {{"Authorization", "Bearer right"}};
  ASSERT_TRUE(forwarder_->Put(changed, false).ok());
  ASSERT_TRUE(Eventually([&] { return State().sent_entries == 1; }));
}

TEST_F(ForwardTest, WaitsAsLongAsTheReceiverAsks) {
  receiver_.Answer([](int request) {
    return request == 1 ? net::PostReply{.status = 429, .retry_after = 1s}
                        : net::PostReply{.status = 204};
  });
  ASSERT_TRUE(forwarder_->Put(Central(), false).ok());
  const auto begin = std::chrono::steady_clock::now();
  Log({"one"});
  ASSERT_TRUE(Eventually([&] { return State().sent_entries == 1; }));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, 1s);
  EXPECT_EQ(receiver_.requests(), 2);
}

TEST_F(ForwardTest, ABatchThatIsTooLargeGoesInPieces) {
  receiver_.Answer([](int) { return net::PostReply{.status = 413}; });
  std::vector<std::string> texts;
  texts.reserve(100);
  for (int i = 0; i < 100; ++i) texts.push_back("line " + std::to_string(i));
  Log(texts);
  std::atomic<int> refused = 0;
  receiver_.Answer([&](int request) {
    const bool too_large = request <= 3;
    refused += too_large ? 1 : 0;
    return net::PostReply{.status = too_large ? 413 : 204};
  });
  ASSERT_TRUE(forwarder_->Put(Central(), true).ok());
  ASSERT_TRUE(Eventually([&] { return State().sent_entries == 100; }));
  EXPECT_EQ(refused, 3);
  EXPECT_EQ(receiver_.texts(), texts);
  EXPECT_EQ(State().refused_entries, 0u);
}

TEST_F(ForwardTest, CountsWhatRetentionTakesBeforeItWasSent) {
  receiver_.Answer([](int) { return absl::UnavailableError("down"); });
  ASSERT_TRUE(forwarder_->Put(Central(), false).ok());
  Log({"one", "two"});
  Open();  // so that the chunk is closed
  Log({"three"}, "other");
  clock_.Advance(1h * 24 * 3);
  ASSERT_TRUE(store_->Tend().ok());
  ASSERT_TRUE(Eventually([&] { return State().removed_entries == 3; }));
  clock_.Advance(2min);
  ASSERT_TRUE(Eventually([&] {
    for (const std::string& each : said()) {
      if (each.find("3 log entries were removed") != std::string::npos) return true;
    }
    return false;
  })) << testing::PrintToString(said())
      << State().removed_entries;
}

TEST_F(ForwardTest, AReceiverThatHangsDelaysNobodyElse) {
  std::atomic<bool> release = false;
  std::atomic<int> quick = 0;
  auto forwarder = Forwarder::Open(
      dir_.path() + "/other.db", {}, *store_, clock_,
      [&](const net::PostRequest& request) -> absl::StatusOr<net::PostReply> {
        if (request.url.find("slow") == std::string::npos) {
          ++quick;
          return net::PostReply{.status = 204};
        }
        while (!release && !*request.stop) std::this_thread::yield();
        return absl::CancelledError("stopped");
      },
      [](const auto&, bool) {}, {.first_pause = 1ms, .max_pause = 10ms, .batch_age = 1ms});
  ASSERT_TRUE(forwarder.ok());
  Forward slow = Central(), other = Central();
  slow.name = "slow";
  slow.url = "http://slow.example";
  ASSERT_TRUE((*forwarder)->Put(slow, false).ok());
  ASSERT_TRUE((*forwarder)->Put(other, false).ok());
  Log({"one"});
  EXPECT_TRUE(Eventually([&] { return quick > 0; }));
  forwarder->reset();  // and does not hang
}

TEST_F(ForwardTest, RefusesWhatIsNoForward) {
  const auto refused = [&](const std::function<void(Forward&)>& change) {
    Forward forward = Central();
    change(forward);
    return absl::IsInvalidArgument(forwarder_->Put(forward, false));
  };
  EXPECT_TRUE(refused([](Forward& f) { f.name = "a b"; }));
  EXPECT_TRUE(refused([](Forward& f) { f.url = "ftp://host/x"; }));
  EXPECT_TRUE(refused([](Forward& f) { f.url = "nothing"; }));
  EXPECT_TRUE(refused([](Forward& f) { f.url += std::string(kMaxForwardTextBytes, 'x'); }));
  EXPECT_TRUE(refused([](Forward& f) { f.query = "level>="; }));
  EXPECT_TRUE(refused([](Forward& f) { f.headers["Bad Name"] = "x"; }));
  EXPECT_TRUE(refused([](Forward& f) { f.headers["A"] = "x\r\nB: y"; }));
  EXPECT_TRUE(refused([](Forward& f) {
    for (std::size_t i = 0; i <= kMaxForwardHeaders; ++i) f.headers["H" + std::to_string(i)] = "x";
  }));
  EXPECT_THAT(forwarder_->List(), IsEmpty());
  for (std::size_t i = 0; i < kMaxForwards; ++i) {
    Forward forward = Central();
    forward.name = "f" + std::to_string(i);
    ASSERT_TRUE(forwarder_->Put(forward, false).ok());
  }
  EXPECT_TRUE(absl::IsResourceExhausted(forwarder_->Put(Central(), false)));
  EXPECT_TRUE(forwarder_->Remove("f0").ok());
  EXPECT_TRUE(absl::IsNotFound(forwarder_->Remove("f0")));
  EXPECT_TRUE(forwarder_->Put(Central(), false).ok());
}

TEST_F(ForwardTest, OnesFromTheCommandLineStandAsLongAsItNamesThem) {
  Forward fixed = Central();
  Open({fixed});
  Log({"one"});
  ASSERT_TRUE(Eventually([&] { return State().sent_entries == 1; }));
  EXPECT_EQ(forwarder_->Get("central")->url, "http://127.0.0.1:3100/loki/api/v1/push");
  EXPECT_TRUE(absl::IsFailedPrecondition(forwarder_->Put(Central(), false)));
  EXPECT_TRUE(absl::IsFailedPrecondition(forwarder_->Remove("central")));
  Open();
  EXPECT_THAT(forwarder_->List(), IsEmpty());
  EXPECT_THAT(*store_->Readers(), IsEmpty());
}

TEST(ForwardBody, LokiGetsOneStreamForEachInstanceAndLevel) {
  const StreamKey a{.app = "a", .service = "s", .instance = "i"};
  const auto body = MakeForwardBody(ForwardKind::kLoki,
                                    {{{1, 0}, a, {1'000'001, Level::kInfo, false, "x"}},
                                     {{1, 1}, a, {1'000'002, Level::kError, true, "y\xff"}},
                                     {{1, 2}, a, {1'000'003, Level::kInfo, false, "z\n\x1b"}}},
                                    0);
  EXPECT_EQ(body.content_type, "application/json");
  EXPECT_EQ(Json::parse(body.bytes), Json::parse(R"({"streams": [
    {"stream": {"app": "a", "service": "s", "instance": "i", "level": "info"},
     "values": [["1000001000", "x"], ["1000003000", "z\n\u001b"]]},
    {"stream": {"app": "a", "service": "s", "instance": "i", "level": "error"},
     "values": [["1000002000", "y\ufffd"]]}]})"));
}

TEST(ForwardBody, OtlpGetsOneResourceForEachRunOfAStream) {
  const StreamKey a{.app = "a", .service = "s", .instance = "i"}, b{.app = "b", .service = "t"};
  const auto body = MakeForwardBody(ForwardKind::kOtlp,
                                    {{{1, 0}, a, {1'000'001, Level::kInfo, false, "x"}},
                                     {{1, 1}, a, {1'000'002, Level::kUnknown, true, "y"}},
                                     {{2, 0}, b, {1'000'003, Level::kFatal, false, "z"}}},
                                    0);
  EXPECT_EQ(body.content_type, "application/x-protobuf");
  std::vector<std::vector<std::string>> resources;
  for (ProtoReader request(body.bytes); request.Next();) {
    ASSERT_EQ(request.field(), 1u);
    resources.emplace_back();
    for (ProtoReader resource_logs(request.Bytes()); resource_logs.Next();) {
      if (resource_logs.field() != 2) continue;
      for (ProtoReader scope_logs(resource_logs.Bytes()); scope_logs.Next();) {
        if (scope_logs.field() != 2) continue;
        for (ProtoReader record(scope_logs.Bytes()); record.Next();) {
          if (record.field() != 5) continue;
          for (ProtoReader any(record.Bytes()); any.Next();) {
            resources.back().emplace_back(any.Bytes());
          }
        }
      }
    }
  }
  EXPECT_THAT(resources, ElementsAre(ElementsAre("x", "y"), ElementsAre("z")));
}

}  // namespace
}  // namespace takt::logs
