#include "operate/webhook.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <vector>

#include "net/http_server.h"

namespace takt::operate {
namespace {

using namespace std::chrono_literals;

TEST(Webhook, TriesAgainUntilTheReceiverAnswers) {
  std::atomic<int> calls = 0;
  std::promise<std::string> done;
  Webhook webhook(
      [&](const std::string& body) {
        if (++calls < 3) return absl::UnavailableError("down");
        done.set_value(body);
        return absl::OkStatus();
      },
      1ms);
  webhook.Send("{}");
  EXPECT_EQ(done.get_future().get(), "{}");
  EXPECT_EQ(calls, 3);
}

TEST(Webhook, GivesUpAfterSoManyAttemptsAndGoesOnWithTheNext) {
  std::promise<void> done;
  std::atomic<int> first = 0;
  Webhook webhook(
      [&](const std::string& body) {
        if (body == "second") {
          done.set_value();
          return absl::OkStatus();
        }
        ++first;
        return absl::UnavailableError("down");
      },
      1ms);
  webhook.Send("first");
  webhook.Send("second");
  done.get_future().wait();
  EXPECT_EQ(first, kMaxWebhookAttempts);
  EXPECT_EQ(webhook.given_up(), 1u);
}

TEST(Webhook, AReceiverThatIsFarBehindLosesTheOldest) {
  std::promise<void> entered, go;
  auto gate = go.get_future().share();
  std::atomic<bool> first = true;
  Webhook webhook(
      [&](const std::string&) {
        if (first.exchange(false)) entered.set_value();
        gate.wait();
        return absl::OkStatus();
      },
      1ms);
  webhook.Send("under way");
  entered.get_future().wait();
  for (std::size_t i = 0; i < kMaxWaitingPosts + 3; ++i) webhook.Send("x");
  EXPECT_EQ(webhook.given_up(), 3u);
  go.set_value();
}

TEST(PostJson, SendsToARealServerAndTakesOnlySuccess) {
  std::vector<std::string> bodies;
  auto server = net::HttpServer::Start({}, [&](net::HttpRequest request, auto responder) {
    bodies.push_back(request.body + " " + std::string(request.Header("content-type")));
    responder->Send({.status = request.path == "/ok" ? 200 : 500});
  });
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string base = "http://127.0.0.1:" + std::to_string((*server)->port());
  EXPECT_TRUE(PostJson(base + "/ok", R"({"a":1})").ok());
  EXPECT_EQ(PostJson(base + "/bad", "{}").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(PostJson("file:///etc/passwd", "{}").code(), absl::StatusCode::kUnavailable);
  (*server)->Stop(0);
  EXPECT_THAT(bodies, testing::ElementsAre(R"({"a":1} application/json)", "{} application/json"));
}

}  // namespace
}  // namespace takt::operate
