#include <gtest/gtest.h>

#include <mutex>

#include "base/fs.h"
#include "load/grpc_load.h"
#include "load/histogram.h"
#include "net/grpc_server.h"

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

class GrpcLoadTest : public testing::Test {
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
  GrpcLoadOptions options_;
  std::unique_ptr<net::EventLoopPool> loops_;
  std::unique_ptr<net::GrpcServer> server_;
};

TEST_F(GrpcLoadTest, AsksAsOftenAsItWasTold) {
  options_.connections = 3;
  options_.streams = 9;  // more than the server allows
  options_.max_calls = 1000;
  auto result = RunGrpcLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 1000U);
  EXPECT_EQ(result->latency.count(), 1000U);
  EXPECT_EQ(result->last_answer.substr(5), "hello");
  EXPECT_EQ(server_->stats().calls, 1000U);
}

TEST_F(GrpcLoadTest, ALocalSocketIsATargetToo) {
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
  auto result = RunGrpcLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 10U) << result->first_error;
}

TEST_F(GrpcLoadTest, LargeMessagesWaitForTheWindow) {
  message_.assign(9 << 20, 'm');
  options_.streams = 4;
  options_.max_calls = 12;
  auto result = RunGrpcLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 12U);
  EXPECT_EQ(result->last_answer.size(), message_.size() + 5);
}

TEST_F(GrpcLoadTest, FailuresAreCountedByCode) {
  options_.method = "/t.T/Third";
  options_.max_calls = 30;
  auto result = RunGrpcLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 20U);
  EXPECT_EQ(result->errors.at(5), 10U);
  EXPECT_EQ(result->first_error, "5: a third");
}

TEST_F(GrpcLoadTest, ARateIsKept) {
  options_.rate = 2000;
  options_.streams = 4;
  options_.max_calls = 500;
  const auto begin = std::chrono::steady_clock::now();
  auto result = RunGrpcLoad(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->ok, 500U);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(249));
}

TEST_F(GrpcLoadTest, AServerThatIsNotThereIsNamed) {
  options_.target = "127.0.0.1:1";
  options_.connect_timeout = std::chrono::milliseconds(1);
  const absl::Status status = RunGrpcLoad(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("127.0.0.1:1"), std::string::npos);
  options_.connections = kMaxLoadConnections + 1;
  EXPECT_EQ(RunGrpcLoad(options_).status().code(), absl::StatusCode::kInvalidArgument);
  options_.connections = 1;
  options_.streams = kMaxLoadStreams + 1;
  EXPECT_EQ(RunGrpcLoad(options_).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace takt::load
