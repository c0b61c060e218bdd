// Which function answers which request of the public API. Routes are added while the API is built,
// then it is only read: any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "net/http_server.h"

namespace takt::api {

inline constexpr std::string_view kApiPrefix = "/api/v1";

// One request under way.
class Call {
 public:
  Call(const net::HttpRequest& request, const std::shared_ptr<net::HttpResponder>& responder)
      : request_(request), responder_(responder) {}

  const net::HttpRequest& request() const { return request_; }
  // For answers that go on: StartStream, then return Reply::Streaming().
  const std::shared_ptr<net::HttpResponder>& responder() const { return responder_; }
  // The value of the pattern's n-th {placeholder}.
  const std::string& path(std::size_t n) const { return path_values_[n]; }

  std::string_view Query(std::string_view name) const { return request_.Query(name); }
  bool HasQuery(std::string_view name) const;
  // `fallback` where it is absent; INVALID_ARGUMENT naming the parameter.
  absl::StatusOr<bool> QueryBool(std::string_view name, bool fallback) const;
  absl::StatusOr<std::int64_t> QueryInt(std::string_view name, std::int64_t fallback,
                                        std::int64_t least, std::int64_t most) const;

 private:
  friend class Router;
  const net::HttpRequest& request_;
  const std::shared_ptr<net::HttpResponder>& responder_;
  std::vector<std::string> path_values_;
};

struct Reply {
  int status = 200;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  bool streaming = false;
  std::string content_type = "application/json";
  static Reply Streaming() {
    return {.status = 0, .body = "", .headers = {}, .streaming = true, .content_type = ""};
  }
  static Reply Json(std::string body, int status = 200) {
    Reply reply;
    reply.status = status;
    reply.body = std::move(body);
    return reply;
  }
};

using RouteHandler = std::function<absl::StatusOr<Reply>(Call& call)>;

struct Route {
  std::string method;              // GET also answers HEAD
  std::string pattern;             // "/apps/{name}/logs", under kApiPrefix
  std::vector<std::string> query;  // the parameters that it knows; others are refused
  RouteHandler handler;
};

class Router {
 public:
  void Add(std::string method, std::string pattern, std::vector<std::string> query,
           RouteHandler handler);
  const std::vector<Route>& routes() const { return routes_; }

  // Finds the route of request.path (which begins with kApiPrefix) and answers. Errors become
  // {code, message, details}; an unknown path is NOT_FOUND, a wrong method 405 with Allow.
  void Answer(const net::HttpRequest& request,
              const std::shared_ptr<net::HttpResponder>& responder) const;

 private:
  std::vector<Route> routes_;
};

}  // namespace takt::api
