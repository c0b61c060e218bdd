// The public HTTP API of the daemon, and the console's files beside it: authentication, JSON
// bodies, OpenAPI, server-sent events. Nothing else in Takt knows JSON bodies; nothing here
// decides. Threads: Handle may be called from any thread and blocks no longer than the line does;
// two threads of its own write the streams.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/router.h"
#include "base/clock.h"
#include "line/line.h"
#include "logs/query.h"
#include "net/http_server.h"
#include "runtime/runtime.h"
#include "storage/volumes.h"

namespace takt::api {

inline constexpr std::size_t kMaxRequestBytes = 4 << 20;  // of a body; beyond: 413

// A file of the console; the views outlive the API.
struct StaticFile {
  std::string_view path;  // "index.html", "assets/index-3f2a.js"
  std::string_view content_type;
  std::string_view etag;   // without quotes
  std::size_t bytes = 0;   // unpacked
  std::string_view gzip;   // the content
  bool immutable = false;  // its name changes with its content
};

struct ApiOptions {
  std::string version;
  std::string data_dir;
  std::string listen;  // "127.0.0.1:8080"
  // What a request must carry, as a bearer token or in the cookie takt_token; "" = nothing.
  std::string token;
  std::vector<StaticFile> files;
  std::string content_security_policy;
  std::chrono::milliseconds keep_alive{15000};  // between the comments of a silent stream
};

// The OpenAPI document, as answered at /api/v1/openapi.json.
std::string_view OpenApiDocument();

class Api {
 public:
  // All must outlive it. Takes the runtime's log listener, and adds one to the line; neither hears
  // from it again once it is gone.
  static std::unique_ptr<Api> Create(ApiOptions options, line::Line& line,
                                     runtime::Runtime& runtime, storage::VolumeStore& volumes,
                                     const Clock& clock);
  virtual ~Api() = default;  // ends the streams

  // What GET /metrics (no part of /api/v1) answers, in Prometheus' text format; before the first
  // Handle. Whoever may use the API may ask.
  virtual void SetMetrics(std::function<std::string()> metrics) = 0;
  // What answers below /tensorboard/ (operate::kTensorBoardPath), for whoever may use the API;
  // before the first Handle.
  using Handler =
      std::function<void(const net::HttpRequest&, const std::shared_ptr<net::HttpResponder>&)>;
  virtual void SetTensorBoard(Handler handler) = 0;
  // Sends to a client of GET /stream also what a query finds in the logs; before the first Handle.
  using Follow = std::function<void(const std::shared_ptr<net::HttpResponder>& client,
                                    std::shared_ptr<const logs::Query> query)>;
  virtual void SetFollow(Follow follow) = 0;
  // For routes of other rooms; before the first Handle.
  virtual Router& router() = 0;
  // The handler for HttpServer.
  virtual void Handle(const net::HttpRequest& request,
                      const std::shared_ptr<net::HttpResponder>& responder) = 0;
  // The log of an instance grew: to be called from the runtime's log listener.
  virtual void OnLog(const std::string& instance) = 0;
  // Sends a message to every client of /stream: `event` is its kind, `data` JSON. Any thread.
  virtual void Broadcast(std::string_view event, std::string_view data) = 0;
};

}  // namespace takt::api
