// Any bytes as a request to the daemon, through the HTTP parser to a line and stores that work:
// every request is answered, with JSON where it says so, and none by an internal error.
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <string_view>

#include "api/api.h"
#include "api/fakes_for_test.h"
#include "api/log_search.h"
#include "api/operate.h"
#include "base/fs.h"
#include "base/fuzz_for_test.h"
#include "net/http_parser.h"
#include "nlohmann/json.hpp"

namespace takt::api {
namespace {

// What is made by requests goes so often, that the fuzzer's own memory and disk stay as they are.
constexpr int kRequestsOfADaemon = 1000;

class Responder final : public net::HttpResponder {
 public:
  void Send(net::HttpResponse response) override {
    Require(!answered_.exchange(true), "a request is answered once");
    response_ = std::move(response);
    done_.release();
  }
  void StartStream(net::HttpResponse head) override {
    closed_ = true;  // the client is satisfied with the head
    Send(std::move(head));
  }
  bool Write(std::string_view) override { return false; }
  void Finish() override {}
  bool closed() const override { return closed_; }
  std::size_t backlog() const override { return 0; }

  const net::HttpResponse& Await() {
    Require(done_.try_acquire_for(std::chrono::seconds(20)), "a request is answered");
    return response_;
  }
  bool is_stream() const { return closed_; }

 private:
  std::atomic<bool> answered_{false}, closed_{false};
  net::HttpResponse response_;
  std::binary_semaphore done_{0};
};

struct Daemon {
  Daemon() {
    ApiOptions options;
    options.version = "1.2.3";
    options.data_dir = dir.path();
    api = Api::Create(options, line, runtime, *volumes, clock);
    AddLogSearchRoutes(api->router(), *log_store, workers, workers);
    AddSavedSearchRoutes(api->router(), *searches, [] {});
    AddLogForwardRoutes(api->router(), *forwarder, workers);
    AddMetricRoutes(api->router(), *metric_store, workers);
  }
  TempDir dir;
  FakeClock clock;
  LogsOnlyRuntime runtime;
  ScriptedLine line;
  std::unique_ptr<storage::VolumeStore> volumes = storage::VolumeStore::Open(dir.path()).value();
  std::unique_ptr<logs::LogStore> log_store =
      logs::LogStore::Open({.path = dir.path() + "/logs.db"}, clock).value();
  std::unique_ptr<metrics::MetricStore> metric_store =
      metrics::MetricStore::Open(dir.path() + "/metrics.db", clock).value();
  std::unique_ptr<logs::SavedSearches> searches =
      logs::SavedSearches::Open(dir.path() + "/searches.db", clock).value();
  std::unique_ptr<logs::Forwarder> forwarder =
      logs::Forwarder::Open(
          dir.path() + "/forward.db", {}, *log_store, clock,
          [](const auto&) { return absl::UnavailableError("nobody there"); },
          [](const auto&, bool) {})
          .value();
  Workers workers{1};
  std::unique_ptr<Api> api;
};

void Ask(Daemon& daemon, const net::HttpRequest& request) {
  const auto responder = std::make_shared<Responder>();
  daemon.api->Handle(request, responder);
  const net::HttpResponse& response = responder->Await();
  Require(response.status >= 200 && response.status < 600, "an answer has a status");
  Require(response.status != 500, "no request is an error of the daemon");
  if (responder->is_stream() || response.body.empty() ||
      response.content_type != "application/json") {
    return;
  }
  const auto body = nlohmann::json::parse(response.body, nullptr, false);
  Require(!body.is_discarded(), "an answer that says it is JSON is");
  if (response.status >= 400) {
    Require(body.contains("code") && body.contains("message"), "an error says what it is");
  }
}

}  // namespace
}  // namespace takt::api

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt::api;
  static std::optional<Daemon> daemon;
  static int requests = 0;
  takt::net::HttpParser parser(8192, kMaxRequestBytes);
  std::size_t used = 0;
  if (parser.Feed({reinterpret_cast<const char*>(data), size}, &used) !=
      takt::net::HttpParser::Result::kDone) {
    return 0;
  }
  if (requests++ % kRequestsOfADaemon == 0) daemon.emplace();
  Ask(*daemon, parser.request());
  return 0;
}
