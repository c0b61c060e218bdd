// One HTTP request on its way to its answer; what /v1 and /v2 share.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/gzip.h"
#include "net/http_server.h"
#include "serving/api/context.h"
#include "serving/api/json.h"
#include "serving/api/rest_api.h"

namespace takt::serving {

// Shared by the callbacks that finish it. Not thread-safe: one holder at a time writes.
struct Exchange {
  Exchange(ServingContext& in, const RestOptions& with, std::shared_ptr<net::HttpResponder> to)
      : context(in), options(with), responder(std::move(to)) {}

  ServingContext& context;
  const RestOptions& options;
  std::shared_ptr<net::HttpResponder> responder;
  bool gzip = false;
  bool cors = false;
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  // For metrics; empty `api` = not counted.
  std::string_view api;
  std::string model;
  std::int64_t version = 0;
  std::string signature;
  std::chrono::nanoseconds queue{0};

  // `queue` of an exchange, kept with it.
  static std::shared_ptr<std::chrono::nanoseconds> QueueOf(const std::shared_ptr<Exchange>& of) {
    return {of, &of->queue};
  }
  Deadline deadline() const { return begin + options.timeout; }

  void Count(absl::StatusCode code) const {
    if (api.empty()) return;
    RequestSample sample;
    sample.model = model;
    sample.version = version;
    sample.signature = signature;
    sample.api = api;
    sample.entrypoint = "REST";
    sample.code = code;
    sample.latency = std::chrono::steady_clock::now() - begin;
    sample.queue = queue;
    context.metrics.Record(sample);
  }

  void SendBody(int status, std::string body, std::string content_type = "application/json",
                std::vector<std::pair<std::string, std::string>> headers = {}) const {
    net::HttpResponse response;
    response.headers = std::move(headers);
    response.status = status;
    response.content_type = std::move(content_type);
    if (cors) {
      response.headers.emplace_back("Access-Control-Allow-Origin", "*");
    }
    if (gzip && body.size() >= kMinDeflatedAnswerBytes) {
      body = Gzip(body);
      response.headers.emplace_back("Content-Encoding", "gzip");
      response.headers.emplace_back("Vary", "Accept-Encoding");
    }
    response.body = std::move(body);
    responder->Send(std::move(response));
  }

  void Finish(const absl::StatusOr<std::string>& answer) const {
    Count(answer.status().code());
    if (answer.ok()) {
      SendBody(200, *answer);
    } else {
      SendBody(HttpStatusFor(answer.status().code()), JsonError(ToStd(answer.status().message())));
    }
  }
};
using ExchangePtr = std::shared_ptr<Exchange>;

}  // namespace takt::serving
