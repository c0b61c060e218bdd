// Who may ask. Three attacks come over a browser even to a server on loopback: a page of another
// origin that posts (CSRF), a page whose name was rebound to this address (DNS rebinding), and a
// frame around ours. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "net/http_server.h"

namespace takt::api {

// Without a token, the Host header must be an IP address, localhost or this machine's name, which
// nobody else can bind: else PERMISSION_DENIED (421).
absl::Status CheckHost(const net::HttpRequest& request, std::string_view machine_name);

// A request that changes something must not come from a page of another origin: else
// PERMISSION_DENIED. A body must be application/json: else 415.
enum class Bodies { kJson, kAny };  // kAny: of what is not the API
absl::Status CheckOrigin(const net::HttpRequest& request, Bodies bodies = Bodies::kJson);

// UNAUTHENTICATED when the request does not carry `token`.
absl::Status CheckToken(const net::HttpRequest& request, std::string_view token);

// Compares in a time that depends on the lengths only.
bool EqualSecrets(std::string_view a, std::string_view b);

}  // namespace takt::api
