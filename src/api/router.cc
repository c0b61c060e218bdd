#include "api/router.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "api/errors.h"

namespace takt::api {
namespace {

// The first segment of `path` ("/a/b" -> "a"), which is taken off it.
std::string_view TakeSegment(std::string_view* path) {
  path->remove_prefix(1);
  const std::string_view segment = path->substr(0, path->find('/'));
  path->remove_prefix(segment.size());
  return segment;
}

bool Matches(std::string_view pattern, std::string_view path, std::vector<std::string>* values) {
  values->clear();
  while (!pattern.empty() && !path.empty()) {
    const std::string_view wanted = TakeSegment(&pattern), got = TakeSegment(&path);
    if (!wanted.empty() && wanted.front() == '{') {
      if (got.empty()) return false;
      values->emplace_back(got);
    } else if (wanted != got) {
      return false;
    }
  }
  return pattern.empty() && path.empty();
}

bool MethodMatches(const Route& route, std::string_view method) {
  return route.method == method || (route.method == "GET" && method == "HEAD");
}

}  // namespace

bool Call::HasQuery(std::string_view name) const {
  return std::any_of(request_.query.begin(), request_.query.end(),
                     [&](const auto& each) { return each.first == name; });
}

absl::StatusOr<bool> Call::QueryBool(std::string_view name, bool fallback) const {
  if (!HasQuery(name)) return fallback;
  const std::string_view text = Query(name);
  if (text == "true" || text == "1") return true;
  if (text == "false" || text == "0") return false;
  return absl::InvalidArgumentError(
      StrCat("query parameter ", name, ": expected true or false, got \"", text, "\""));
}

absl::StatusOr<std::int64_t> Call::QueryInt(std::string_view name, std::int64_t fallback,
                                            std::int64_t least, std::int64_t most) const {
  if (!HasQuery(name)) return fallback;
  std::int64_t value = 0;
  if (!absl::SimpleAtoi(ToAbsl(Query(name)), &value) || value < least || value > most) {
    return absl::InvalidArgumentError(StrCat("query parameter ", name,
                                             ": expected an integer from ", least, " to ", most,
                                             ", got \"", Query(name), "\""));
  }
  return value;
}

void Router::Add(std::string method, std::string pattern, std::vector<std::string> query,
                 RouteHandler handler) {
  routes_.push_back({std::move(method), std::move(pattern), std::move(query), std::move(handler)});
}

void Router::Answer(const net::HttpRequest& request,
                    const std::shared_ptr<net::HttpResponder>& responder) const {
  const std::string_view path = std::string_view(request.path).substr(kApiPrefix.size());
  Call call(request, responder);
  const Route* route = nullptr;
  std::string allowed;
  for (const Route& each : routes_) {
    if (path.empty() || !Matches(each.pattern, path, &call.path_values_)) continue;
    if (MethodMatches(each, request.method)) {
      route = &each;
      break;
    }
    allowed.append(allowed.empty() ? "" : ", ").append(each.method);
  }
  if (route == nullptr) {
    if (allowed.empty()) {
      responder->Send(ErrorResponse(absl::NotFoundError(
          StrCat("no such address: ", request.path, "; see ", kApiPrefix, "/openapi.json"))));
      return;
    }
    net::HttpResponse response = ErrorResponse(
        WithHttpStatus(absl::InvalidArgumentError(StrCat(request.method, " ", request.path,
                                                         ": the methods here are ", allowed)),
                       405));
    response.headers.emplace_back("Allow", allowed);
    responder->Send(std::move(response));
    return;
  }
  absl::StatusOr<Reply> reply = Reply{};
  for (const auto& [name, value] : request.query) {
    if (std::find(route->query.begin(), route->query.end(), name) == route->query.end()) {
      reply = UnknownName("query parameter", name, name,
                          std::vector<std::string_view>(route->query.begin(), route->query.end()));
    }
  }
  if (reply.ok()) reply = route->handler(call);
  if (!reply.ok()) {
    responder->Send(ErrorResponse(reply.status()));
  } else if (!reply->streaming) {
    net::HttpResponse response;
    response.status = reply->status;
    response.content_type = std::move(reply->content_type);
    response.body = std::move(reply->body);
    response.headers = std::move(reply->headers);
    response.headers.emplace_back("Cache-Control", "no-store");
    responder->Send(std::move(response));
  }
}

}  // namespace takt::api
