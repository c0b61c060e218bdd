#include "operate/delivery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "net/http_server.h"

namespace takt::operate {
namespace {

using namespace std::chrono_literals;

using Stop = const std::atomic<bool>*;

// What a delivery keeps, as a file would.
struct Box {
  std::mutex mutex;
  std::map<std::int64_t, std::string> letters;
  std::int64_t last = 0;

  Delivery::Options Options(std::function<absl::Status(const std::string&, Stop)> send) {
    Delivery::Options options;
    options.send = std::move(send);
    options.keep = [this](const std::string& body) {
      const std::lock_guard lock(mutex);
      letters[++last] = body;
      return last;
    };
    options.forget = [this](std::int64_t id) {
      const std::lock_guard lock(mutex);
      letters.erase(id);
    };
    options.first_pause = options.most_pause = 1ms;
    return options;
  }
};

// Waits until the delivery has done so much.
void Await(const Delivery& delivery, std::size_t delivered, std::size_t given_up) {
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (std::chrono::steady_clock::now() < deadline) {
    const Delivery::State state = delivery.state();
    if (state.delivered >= delivered && state.given_up >= given_up && state.waiting == 0) return;
    std::this_thread::yield();
  }
  FAIL() << "nothing was done in time";
}

TEST(Delivery, TriesAgainUntilTheReceiverAnswers) {
  Box box;
  std::atomic<int> calls = 0;
  Delivery delivery(box.Options([&](const std::string&, Stop) {
    return ++calls < 30 ? absl::UnavailableError("down") : absl::OkStatus();
  }));
  delivery.Send("{}");
  Await(delivery, 1, 0);
  EXPECT_EQ(calls, 30);
  EXPECT_EQ(delivery.state().last_error, "");
  EXPECT_TRUE(box.letters.empty());
}

TEST(Delivery, GivesUpAfterSoManyAttemptsAndGoesOnWithTheNext) {
  for (const auto& [status, most] :
       {std::pair(absl::InvalidArgumentError("refused"), kMaxRefusedAttempts),
        std::pair(absl::UnavailableError("down"), kMaxUnansweredAttempts)}) {
    Box box;
    std::atomic<int> calls = 0;
    Delivery delivery(box.Options([&, status = status](const std::string& body, Stop) {
      if (body == "second") return absl::OkStatus();
      ++calls;
      return status;
    }));
    delivery.Send("first");
    delivery.Send("second");
    Await(delivery, 1, 1);
    EXPECT_EQ(calls, most);
    EXPECT_TRUE(box.letters.empty());
  }
}

TEST(Delivery, AReceiverThatIsFarBehindLosesTheOldest) {
  Box box;
  std::promise<void> entered, go;
  auto gate = go.get_future().share();
  std::atomic<bool> first = true;
  Delivery delivery(box.Options([&](const std::string&, Stop) {
    if (first.exchange(false)) entered.set_value();
    gate.wait();
    return absl::OkStatus();
  }));
  delivery.Send("under way");
  entered.get_future().wait();
  for (std::size_t i = 1; i < kMaxWaitingLetters + 3; ++i) delivery.Send("x");
  EXPECT_EQ(delivery.state().given_up, 3u);
  EXPECT_EQ(delivery.state().waiting, kMaxWaitingLetters);
  go.set_value();
  Await(delivery, kMaxWaitingLetters, 3);
  EXPECT_TRUE(box.letters.empty());
}

TEST(Delivery, WhatIsNotDeliveredAtTheEndIsKeptForTheNext) {
  Box box;
  {
    std::promise<void> entered;
    std::atomic<bool> first = true;
    Delivery delivery(box.Options([&](const std::string&, Stop stop) {
      if (first.exchange(false)) entered.set_value();
      while (!*stop) std::this_thread::yield();  // a receiver that hangs is broken off
      return absl::UnavailableError("hangs");
    }));
    delivery.Send("one");
    delivery.Send("two");
    entered.get_future().wait();
  }
  std::vector<std::string> got;
  Delivery::Options options = box.Options([&](const std::string& body, Stop) {
    got.push_back(body);
    return absl::OkStatus();
  });
  for (const auto& [id, body] : box.letters) options.waiting.push_back({id, body});
  Delivery delivery(std::move(options));
  Await(delivery, 2, 0);
  EXPECT_THAT(got, testing::ElementsAre("one", "two"));
}

TEST(PostJson, SendsToARealServerAndTakesOnlySuccess) {
  std::vector<std::string> bodies;
  auto server =
      net::HttpServer::Start({}, [&](const net::HttpRequest& request, const auto& responder) {
        bodies.push_back(request.body + " " + std::string(request.Header("content-type")));
        responder->Send({.status = request.path == "/ok"     ? 200
                                   : request.path == "/busy" ? 429
                                   : request.path == "/bad"  ? 500
                                                             : 404});
      });
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string base = "http://127.0.0.1:" + std::to_string((*server)->port());
  EXPECT_TRUE(PostJson(base + "/ok", R"({"a":1})").ok());
  EXPECT_EQ(PostJson(base + "/bad", "{}").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(PostJson(base + "/busy", "{}").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(PostJson(base + "/gone?token=x", "{}"),
            absl::InvalidArgumentError(base + "/gone: HTTP 404"));
  EXPECT_EQ(PostJson("file:///etc/passwd", "{}").code(), absl::StatusCode::kUnavailable);
  (*server)->Stop(0);
  EXPECT_EQ(bodies.at(0), R"({"a":1} application/json)");
}

}  // namespace
}  // namespace takt::operate
