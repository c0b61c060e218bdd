// The REST API of TensorFlow Serving (/v1/models/...), monitoring, and V2 (v2_api.h) on one HTTP
// handler. Predictions may be answered later, from the thread that ran the batch.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "net/http_server.h"
#include "serving/api/context.h"

namespace takt::serving {

inline constexpr std::size_t kMaxInflatedBodyBytes = std::size_t{100} << 20;  // beyond: 400
// Answers smaller than this are not worth compressing.
inline constexpr std::size_t kMinDeflatedAnswerBytes = 1024;

struct RestOptions {
  std::chrono::milliseconds timeout{30000};
  bool cors = false;
  bool prometheus = false;
  std::string prometheus_path = "/monitoring/prometheus/metrics";
};

// What a path of /v1/models asks for; pure, for tests.
struct RestRoute {
  enum class Kind { kMalformed, kPredict, kClassify, kRegress, kStatus, kMetadata };
  Kind kind = Kind::kMalformed;
  std::string model;
  std::string version;  // digits, "" when absent
  std::string label;
};
RestRoute RouteRest(std::string_view method, std::string_view target);

class RestApi {
 public:
  // `context` must outlive it and every answer under way.
  RestApi(RestOptions options, ServingContext& context);
  // Any thread.
  void Handle(net::HttpRequest request, std::shared_ptr<net::HttpResponder> responder);

 private:
  const RestOptions options_;
  ServingContext& context_;
};

}  // namespace takt::serving
