// The server against a stock peer, grpc++. Hostile peers are in grpc_hostile_test.cc.
#include "net/grpc_server.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <thread>

#include "base/fs.h"

namespace takt::net {
namespace {

grpc::ByteBuffer Bytes(const std::string& text) {
  grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}
std::string Text(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!buffer.Dump(&slices).ok()) return "";
  for (const auto& slice : slices) text.append(slice.begin(), slice.end());
  return text;
}

class GrpcServerTest : public testing::Test {
 protected:
  void SetUp() override {
    loops_ = EventLoopPool::Start(2).value();
    Make({});
  }
  void Make(GrpcServerOptions options) {
    options.host = "127.0.0.1";
    server_ = GrpcServer::Create(std::move(options), loops_->loops());
    server_->Handle("/t.T/Echo", [](GrpcCallPtr call) {
      call->response().append(call->body());
      call.Finish(absl::OkStatus());
    });
    server_->Handle("/t.T/Later", [this](GrpcCallPtr call) {
      call->RetainBody();
      std::lock_guard lock(mutex_);
      held_.push_back(std::move(call));
    });
    server_->Handle("/t.T/Fail", [](GrpcCallPtr call) {
      call.Finish(absl::NotFoundError(std::string(call->body())));
    });
    server_->Handle("/t.T/Drop", [](GrpcCallPtr) {});
    server_->Handle("/t.T/Metadata", [](GrpcCallPtr call) {
      for (const auto& [name, value] : call->metadata()) {
        call->response().append(name + "=" + value + ";");
      }
      call->AddResponseMetadata("served-by", "takt");
      call.Finish(absl::OkStatus());
    });
    server_->HandleStream("/t.T/Double", [] {
      struct Double : GrpcStream {
        void OnStart(GrpcCallPtr c) override { call = std::move(c); }
        void OnMessage(std::string_view message) override {
          call->Write(std::string(message) + std::string(message));
        }
        void OnHalfClose() override { call.Finish(absl::OkStatus()); }
        void OnCancel() override {
          if (call) call.Finish(absl::CancelledError(""));
        }
        GrpcCallPtr call;
      };
      return std::make_unique<Double>();
    });
  }
  void Start() {
    ASSERT_TRUE(server_->Start().ok());
    Connect("127.0.0.1:" + std::to_string(server_->port()));
  }
  void Connect(const std::string& target) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
    stub_ = std::make_unique<grpc::GenericStub>(channel_);
  }
  grpc::Status Call(const std::string& method, const std::string& request, std::string* response,
                    grpc::ClientContext* context = nullptr) {
    grpc::ClientContext own;
    if (context == nullptr) context = &own;
    grpc::ByteBuffer in = Bytes(request);
    grpc::ByteBuffer out;
    std::promise<grpc::Status> done;
    stub_->UnaryCall(context, "/t.T/" + method, {}, &in, &out,
                     [&](grpc::Status status) { done.set_value(std::move(status)); });
    grpc::Status status = done.get_future().get();
    if (response != nullptr) *response = Text(out);
    return status;
  }
  template <typename F>
  static bool Eventually(F condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::yield();
    }
    return true;
  }
  std::size_t held() {
    std::lock_guard lock(mutex_);
    return held_.size();
  }

  std::mutex mutex_;
  std::vector<GrpcCallPtr> held_;
  std::unique_ptr<EventLoopPool> loops_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::GenericStub> stub_;
};

// What a peer that sends `bytes` over TCP gets until the server closes.
std::string Exchange(std::uint16_t port, std::string_view bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string got;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    // A byte, and the rest: a head may come in pieces.
    send(fd, bytes.data(), 1, MSG_NOSIGNAL);
    send(fd, bytes.data() + 1, bytes.size() - 1, MSG_NOSIGNAL);
    char buffer[65536];
    for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;) got.append(buffer, n);
  }
  close(fd);
  return got;
}

TEST_F(GrpcServerTest, AnswersAPlainGetBesideGrpc) {
  const std::string large(3 << 20, 'm');
  std::thread later;
  server_->HandleGet("/metrics", "text/plain", [&](GrpcServer::PlainAnswer answer) {
    later = std::thread([answer = std::move(answer), &large] { answer(large); });
  });
  Start();
  const std::string got = Exchange(server_->port(), "GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
  later.join();
  EXPECT_TRUE(got.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"))
      << got.substr(0, 200);
  EXPECT_TRUE(got.ends_with("\r\n\r\n" + large)) << got.size();
  EXPECT_TRUE(Exchange(server_->port(), "GET /other HTTP/1.1\r\n\r\n")
                  .starts_with("HTTP/1.1 404 Not Found\r\n"));
  std::string response;
  ASSERT_TRUE(Call("Echo", "still gRPC", &response).ok());
  EXPECT_EQ(response, "still gRPC");
}

TEST_F(GrpcServerTest, ClosesAPlainGetThatIsNone) {
  server_->HandleGet("/metrics", "text/plain",
                     [](const GrpcServer::PlainAnswer& answer) { answer(""); });
  Start();
  for (const std::string& bytes :
       {std::string("GET metrics HTTP/1.1\r\n\r\n"), std::string("GOT /metrics HTTP/1.1\r\n\r\n"),
        std::string("GET /metrics HTTP/2.0\r\n\r\n"), std::string("GET /metrics\r\n\r\n"),
        "GET /metrics HTTP/1.1\r\nA: " + std::string(kMaxPlainGetBytes, 'a')}) {
    EXPECT_EQ(Exchange(server_->port(), bytes), "") << bytes.substr(0, 40);
  }
  EXPECT_TRUE(Eventually([&] { return server_->stats().connections == 0; }));
}

TEST_F(GrpcServerTest, AScrapeWhoseAskerLeavesIsForgotten) {
  std::mutex mutex;
  GrpcServer::PlainAnswer answer;
  server_->HandleGet("/metrics", "text/plain", [&](GrpcServer::PlainAnswer given) {
    std::lock_guard lock(mutex);
    answer = std::move(given);
  });
  Start();
  std::thread asker([&] { Exchange(server_->port(), "GET /metrics HTTP/1.1\r\n\r\n"); });
  ASSERT_TRUE(Eventually([&] {
    std::lock_guard lock(mutex);
    return answer != nullptr;
  }));
  server_->Drain(std::chrono::milliseconds(0));
  asker.join();
  server_.reset();
  answer("too late");
}

TEST_F(GrpcServerTest, AnswersMessagesOfEverySize) {
  Start();
  for (std::size_t size : {0, 1, 1000, 16379, 16384, 70000, 262144, 1 << 20, (5 << 20) + 3}) {
    std::string request(size, '\0');
    for (std::size_t i = 0; i < size; ++i) request[i] = static_cast<char>(i * 31 + (i >> 8));
    std::string response;
    const grpc::Status status = Call("Echo", request, &response);
    ASSERT_TRUE(status.ok()) << size << ": " << status.error_message();
    EXPECT_EQ(response, request) << size;
  }
}

TEST_F(GrpcServerTest, ManyCallsOnManyConnectionsAtOnce) {
  Start();
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  const std::string target = "127.0.0.1:" + std::to_string(server_->port());
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      grpc::ChannelArguments arguments;
      arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      grpc::GenericStub stub(
          grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments));
      for (int round = 0; round < 20; ++round) {
        constexpr int kCalls = 20;
        std::vector<grpc::ClientContext> contexts(kCalls);
        std::vector<grpc::ByteBuffer> in(kCalls);
        std::vector<grpc::ByteBuffer> out(kCalls);
        std::vector<std::promise<grpc::Status>> done(kCalls);
        for (int i = 0; i < kCalls; ++i) {
          in[i] = Bytes(std::string(i * 997, static_cast<char>('a' + t)) + std::to_string(i));
          stub.UnaryCall(&contexts[i], "/t.T/Echo", {}, &in[i], &out[i],
                         [&done, i](grpc::Status status) { done[i].set_value(status); });
        }
        for (int i = 0; i < kCalls; ++i) {
          if (!done[i].get_future().get().ok() || Text(in[i]) != Text(out[i])) ++wrong;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(server_->stats().calls, 8U * 20 * 20);
  EXPECT_EQ(server_->stats().calls_in_flight, 0U);
}

TEST_F(GrpcServerTest, AnAnswerMayComeLaterFromAnotherThread) {
  Start();
  std::thread answerer([&] {
    ASSERT_TRUE(Eventually([&] { return held() == 1; }));
    std::lock_guard lock(mutex_);
    held_[0]->response().append("late ").append(held_[0]->body());
    held_[0].Finish(absl::OkStatus());
    held_.clear();
  });
  std::string response;
  EXPECT_TRUE(Call("Later", "answer", &response).ok());
  EXPECT_EQ(response, "late answer");
  answerer.join();
}

TEST_F(GrpcServerTest, AnErrorHasItsCodeAndMessage) {
  Start();
  grpc::Status status = Call("Fail", "100% of \xc3\xa4\n", nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "100% of \xc3\xa4\n");
  status = Call("Fail", std::string(2000, 'x'), nullptr);
  EXPECT_EQ(status.error_message(), std::string(kMaxGrpcMessageText, 'x') + "...TRUNCATED");
  EXPECT_EQ(Call("Drop", "", nullptr).error_code(), grpc::StatusCode::INTERNAL);
  status = Call("Nothing", "", nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(status.error_message(), "unknown method \"/t.T/Nothing\"");
}

TEST_F(GrpcServerTest, EveryCompressionThatAClientOffers) {
  Start();
  const std::string request(100000, 'z');
  for (auto algorithm : {GRPC_COMPRESS_GZIP, GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_NONE}) {
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    std::string response;
    const grpc::Status status = Call("Echo", request, &response, &context);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response, request);
  }
}

TEST_F(GrpcServerTest, MetadataGoesBothWays) {
  Start();
  grpc::ClientContext context;
  context.AddMetadata("user", "someone");
  context.AddMetadata("key-bin", std::string("\0\xff", 2));
  std::string response;
  EXPECT_TRUE(Call("Metadata", "", &response, &context).ok());
  EXPECT_NE(response.find("user=someone;"), std::string::npos) << response;
  EXPECT_NE(response.find(std::string("key-bin=\0\xff;", 11)), std::string::npos);
  auto found = context.GetServerInitialMetadata().find("served-by");
  ASSERT_NE(found, context.GetServerInitialMetadata().end());
  EXPECT_EQ(found->second, "takt");
}

TEST_F(GrpcServerTest, ACancelledCallIsSeenAsCancelled) {
  Start();
  grpc::ClientContext context;
  std::thread canceller([&] {
    ASSERT_TRUE(Eventually([&] { return held() == 1; }));
    context.TryCancel();
  });
  EXPECT_EQ(Call("Later", "", nullptr, &context).error_code(), grpc::StatusCode::CANCELLED);
  canceller.join();
  EXPECT_TRUE(Eventually([&] { return held_[0]->cancelled(); }));
  held_[0].Finish(absl::OkStatus());
  held_.clear();
  EXPECT_TRUE(Eventually([&] { return server_->stats().calls_in_flight == 0; }));
}

TEST_F(GrpcServerTest, TheDeadlineIsTheClients) {
  Start();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  EXPECT_EQ(Call("Later", "", nullptr, &context).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  std::lock_guard lock(mutex_);
  ASSERT_EQ(held_.size(), 1U);
  ASSERT_TRUE(held_[0]->deadline().has_value());
  EXPECT_TRUE(held_[0]->expired(std::chrono::steady_clock::now() + std::chrono::milliseconds(1)));
  held_.clear();
}

TEST_F(GrpcServerTest, AMessageBeyondTheLimitIsRefusedAndOthersGoOn) {
  GrpcServerOptions options;
  options.max_message_bytes = 1000;
  Make(std::move(options));
  Start();
  EXPECT_TRUE(Call("Echo", std::string(1000, 'x'), nullptr).ok());
  const grpc::Status status = Call("Echo", std::string(1001, 'x'), nullptr);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "Received message larger than max (1001 vs. 1000)");
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  EXPECT_EQ(Call("Echo", std::string(100000, 'x'), nullptr, &context).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Call("Echo", "after", nullptr).ok());
}

TEST_F(GrpcServerTest, StreamsAnswerWhileTheyAreAsked) {
  Start();
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto stream = stub_->PrepareCall(&context, "/t.T/Double", &queue);
  auto wait = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  stream->StartCall(nullptr);
  ASSERT_TRUE(wait());
  for (const char* text : {"a", "bc", ""}) {
    stream->Write(Bytes(text), nullptr);
    ASSERT_TRUE(wait());
    grpc::ByteBuffer answer;
    stream->Read(&answer, nullptr);
    ASSERT_TRUE(wait());
    EXPECT_EQ(Text(answer), std::string(text) + text);
  }
  stream->WritesDone(nullptr);
  ASSERT_TRUE(wait());
  grpc::Status status;
  stream->Finish(&status, nullptr);
  ASSERT_TRUE(wait());
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(GrpcServerTest, ADrainLetsWhatIsInFlightEnd) {
  Start();
  std::string response;
  std::thread client([&] { EXPECT_TRUE(Call("Later", "kept", &response).ok()); });
  ASSERT_TRUE(Eventually([&] { return held() == 1; }));
  std::thread drainer([&] { EXPECT_EQ(server_->Drain(std::chrono::seconds(20)), 0U); });
  // Nobody new gets in.
  EXPECT_TRUE(Eventually([&] {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    auto channel = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server_->port()),
                                             grpc::InsecureChannelCredentials(), arguments);
    return !channel->WaitForConnected(std::chrono::system_clock::now() +
                                      std::chrono::milliseconds(200));
  }));
  {
    std::lock_guard lock(mutex_);
    held_[0]->response().append(held_[0]->body());
    held_[0].Finish(absl::OkStatus());
  }
  client.join();
  drainer.join();
  EXPECT_EQ(response, "kept");
}

TEST_F(GrpcServerTest, AUnixSocketServesToo) {
  TempDir dir;
  GrpcServerOptions options;
  options.port = -1;
  options.unix_socket_path = dir.path() + "/s";
  Make(std::move(options));
  ASSERT_TRUE(server_->Start().ok());
  Connect("unix:" + dir.path() + "/s");
  std::string response;
  EXPECT_TRUE(Call("Echo", "hello", &response).ok());
  EXPECT_EQ(response, "hello");
}

TEST_F(GrpcServerTest, APortInUseIsNamed) {
  Start();
  GrpcServerOptions options;
  options.host = "127.0.0.1";
  options.port = server_->port();
  auto second = GrpcServer::Create(options, loops_->loops());
  const absl::Status status = second->Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), StrCat("port ", server_->port(), " is in use"));
}

}  // namespace
}  // namespace takt::net
