#include <gtest/gtest.h>

#include <mutex>

#include "base/fs.h"
#include "load/histogram.h"
#include "load/load.h"
#include "net/grpc_server.h"
#include "net/http_server.h"

namespace takt::load {
namespace {

using std::chrono::nanoseconds;

TEST(Histogram, PercentilesAreWithinAThousandth) {
  Histogram histogram;
  for (int i = 1; i <= 100000; ++i) histogram.Record(nanoseconds(i * 1000LL));
  for (double percent : {1.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
    const double want = percent * 1000 * 1000;
    EXPECT_NEAR(static_cast<double>(histogram.Percentile(percent).count()), want, want / 1000);
  }
  EXPECT_EQ(histogram.max(), nanoseconds(100'000'000));
  EXPECT_EQ(histogram.count(), 100000U);
}

TEST(Histogram, HoldsNothingAndTheExtremes) {
  Histogram histogram;
  EXPECT_EQ(histogram.Percentile(99).count(), 0);
  histogram.Record(nanoseconds(0));
  histogram.Record(nanoseconds(-5));
  histogram.Record(std::chrono::hours(1000));
  EXPECT_EQ(histogram.Percentile(50).count(), 0);
  EXPECT_EQ(histogram.count(), 3U);
}

class LoadTest : public testing::Test {
 protected:
  void SetUp() override {
    loops_ = net::EventLoopPool::Start(1).value();
    net::GrpcServerOptions options;
    options.host = "127.0.0.1";
    options.max_concurrent_streams = 4;
    server_ = net::GrpcServer::Create(options, loops_->loops());
    server_->Handle("/t.T/Echo", [](net::GrpcCallPtr call) {
      call->response().append(call->body());
      call.Finish(absl::OkStatus());
    });
    server_->Handle("/t.T/Third", [this](net::GrpcCallPtr call) {
      call.Finish(++calls_ % 3 == 0 ? absl::NotFoundError("a third") : absl::OkStatus());
    });
    ASSERT_TRUE(server_->Start().ok());
    options_.target = StrCat("127.0.0.1:", server_->port());
    options_.method = "/t.T/Echo";
    options_.message = [this](std::uint64_t) { return std::string_view(message_); };
    options_.duration = std::chrono::seconds(60);
  }
  std::string message_ = "hello";
  int calls_ = 0;
  LoadOptions options_;
  std::unique_ptr<net::EventLoopPool> loops_;
  std::unique_ptr<net::GrpcServer> server_;
};

TEST_F(LoadTest, AsksAsOftenAsItWasTold) {
  options_.connections = 3;
  options_.streams = 9;  // more than the server allows
  options_.max_calls = 1000;
  auto result = RunLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 1000U);
  EXPECT_EQ(result->latency.count(), 1000U);
  EXPECT_EQ(result->answered, 1000U);
  EXPECT_EQ(result->last_answer, "hello");
  EXPECT_EQ(server_->stats().calls, 1000U);
}

TEST_F(LoadTest, ALocalSocketIsATargetToo) {
  TempDir dir;
  net::GrpcServerOptions options;
  options.host = "127.0.0.1";
  options.unix_socket_path = dir.path() + "/socket";
  auto server = net::GrpcServer::Create(options, loops_->loops());
  server->Handle("/t.T/Echo", [](net::GrpcCallPtr call) {
    call->response().append(call->body());
    call.Finish(absl::OkStatus());
  });
  ASSERT_TRUE(server->Start().ok());
  options_.target = "unix:" + options.unix_socket_path;
  options_.max_calls = 10;
  auto result = RunLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 10U) << result->first_error;
}

TEST_F(LoadTest, LargeMessagesWaitForTheWindow) {
  message_.assign(9 << 20, 'm');
  options_.streams = 4;
  options_.max_calls = 12;
  auto result = RunLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 12U);
  EXPECT_EQ(result->last_answer.size(), message_.size());
}

TEST_F(LoadTest, FailuresAreCountedByCode) {
  options_.method = "/t.T/Third";
  options_.max_calls = 30;
  auto result = RunLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 20U);
  EXPECT_EQ(result->errors.at(5), 10U);
  EXPECT_EQ(result->first_error, "5: a third");
}

TEST_F(LoadTest, ARateIsKept) {
  options_.rate = 2000;
  options_.streams = 4;
  options_.max_calls = 500;
  const auto begin = std::chrono::steady_clock::now();
  auto result = RunLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 500U);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(249));
}

TEST_F(LoadTest, HttpRequestsAreAskedAndTheirFailuresCounted) {
  net::HttpServerOptions options;
  int calls = 0;
  const auto server =
      net::HttpServer::Start(options, [&](net::HttpRequest request,
                                          std::shared_ptr<net::HttpResponder> responder) {
        ++calls;
        if (request.path == "/chunks") {
          responder->StartStream({});
          for (const char c : request.body) responder->Write({&c, 1});
          return responder->Finish();
        }
        net::HttpResponse response;
        response.status = request.path == "/third" && calls % 3 == 0 ? 503 : 200;
        response.body = response.status == 200 ? request.body : "too much";
        responder->Send(std::move(response));
      }).value();
  options_.target = StrCat("127.0.0.1:", server->port());
  options_.protocol = LoadProtocol::kHttp;
  options_.max_calls = 30;
  const auto ask = [&](std::string_view path, const std::string& body, int connections) {
    options_.connections = connections;
    message_ = StrCat("POST ", path, " HTTP/1.1\r\nHost: h\r\nContent-Length: ", body.size(),
                      "\r\n\r\n", body);
    auto result = RunLoad(options_);
    EXPECT_TRUE(result.ok()) << result.status();
    return *std::move(result);
  };
  LoadResult result = ask("/third", "hello", 1);
  EXPECT_EQ(result.ok, 20U);
  EXPECT_EQ(result.errors.at(503), 10U);
  EXPECT_EQ(result.first_error, "503: too much");
  EXPECT_EQ(result.last_answer, "hello");
  const std::string large(3 << 20, 'l');
  result = ask("/echo", large, 3);
  EXPECT_EQ(result.ok, 30U);
  EXPECT_EQ(result.last_answer, large);
  result = ask("/chunks", "chunk by chunk", 2);
  EXPECT_EQ(result.ok, 30U);
  EXPECT_EQ(result.last_answer, "chunk by chunk");
  EXPECT_EQ(ask("/echo", "", 1).ok, 30U);
  options_.streams = 2;
  EXPECT_EQ(RunLoad(options_).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LoadTest, AServerThatIsNotThereIsNamed) {
  options_.target = "127.0.0.1:1";
  options_.connect_timeout = std::chrono::milliseconds(1);
  const absl::Status status = RunLoad(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("127.0.0.1:1"), std::string::npos);
  options_.connections = kMaxLoadConnections + 1;
  EXPECT_EQ(RunLoad(options_).status().code(), absl::StatusCode::kInvalidArgument);
  options_.connections = 1;
  options_.streams = kMaxLoadStreams + 1;
  EXPECT_EQ(RunLoad(options_).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace takt::load
