#include "api/guard.h"

#include <arpa/inet.h>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "api/errors.h"

namespace takt::api {
namespace {

// "[::1]:8080" -> "::1", "a:8080" -> "a".
std::string HostOf(std::string_view authority) {
  if (!authority.empty() && authority.front() == '[') {
    return std::string(authority.substr(1, authority.find(']') - 1));
  }
  return std::string(authority.substr(0, authority.find(':')));
}

bool IsAddress(const std::string& host) {
  unsigned char buffer[sizeof(in6_addr)];
  return inet_pton(AF_INET, host.c_str(), buffer) == 1 ||
         inet_pton(AF_INET6, host.c_str(), buffer) == 1;
}

std::string_view Cookie(const net::HttpRequest& request, std::string_view name) {
  std::string_view rest = request.Header("cookie");
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(';'), rest.size());
    std::string_view pair = rest.substr(0, end);
    while (!pair.empty() && pair.front() == ' ') pair.remove_prefix(1);
    if (pair.size() > name.size() && pair.substr(0, name.size()) == name &&
        pair[name.size()] == '=') {
      return pair.substr(name.size() + 1);
    }
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return {};
}

}  // namespace

absl::Status CheckHost(const net::HttpRequest& request, std::string_view machine_name) {
  const std::string host = HostOf(request.Header("host"));
  if (IsAddress(host) || absl::EqualsIgnoreCase(host, "localhost") ||
      absl::EndsWithIgnoreCase(host, ".localhost") ||
      absl::EqualsIgnoreCase(host, ToAbsl(machine_name))) {
    return absl::OkStatus();
  }
  return WithHttpStatus(absl::PermissionDeniedError(
                            StrCat("host \"", host, "\" is not a name of this daemon; use an ",
                                   "address, localhost or ", machine_name)),
                        421);
}

absl::Status CheckOrigin(const net::HttpRequest& request, Bodies bodies) {
  if (request.method == "GET" || request.method == "HEAD" || request.method == "OPTIONS") {
    return absl::OkStatus();
  }
  const std::string_view origin = request.Header("origin");
  const std::string_view site = request.Header("sec-fetch-site");
  const std::string own = StrCat("://", request.Header("host"));
  const bool same =
      origin.empty() || origin == StrCat("http", own) || origin == StrCat("https", own);
  if (!same || (!site.empty() && site != "same-origin" && site != "none")) {
    return absl::PermissionDeniedError(StrCat(
        "a page of another origin (", origin.empty() ? site : origin, ") may change nothing"));
  }
  const std::string_view type = request.Header("content-type");
  if (bodies == Bodies::kJson && !request.body.empty() &&
      !absl::StartsWithIgnoreCase(ToAbsl(type), "application/json")) {
    return WithHttpStatus(absl::InvalidArgumentError(StrCat(
                              "content-type: expected application/json, got \"", type, "\"")),
                          415);
  }
  return absl::OkStatus();
}

bool EqualSecrets(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char different = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    different = static_cast<unsigned char>(different | (a[i] ^ b[i]));
  }
  return different == 0;
}

absl::Status CheckToken(const net::HttpRequest& request, std::string_view token) {
  const std::string_view header = request.Header("authorization");
  const std::string_view given =
      header.substr(0, 7) == "Bearer " ? header.substr(7) : Cookie(request, "takt_token");
  if (EqualSecrets(given, token)) return absl::OkStatus();
  return absl::UnauthenticatedError(given.empty()
                                        ? "this daemon wants a token: Authorization: Bearer TOKEN"
                                        : "the token is not this daemon's");
}

}  // namespace takt::api
