// Addresses and sockets, with every error as a Status that names the address.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

struct sockaddr;

namespace takt::net {

struct ListeningSocket {
  int fd = -1;             // non-blocking; the caller closes it
  std::uint16_t port = 0;  // what the kernel chose where 0 was asked
};

// Listens at `host` (an IPv4 or IPv6 address, "localhost", or "" and "*" for all of IPv4).
// UNAVAILABLE: "127.0.0.1:8080 is in use"; PERMISSION_DENIED for a port below 1024 that is not
// allowed; INVALID_ARGUMENT for a host that is no address of this machine.
absl::StatusOr<ListeningSocket> Listen(const std::string& host, std::uint16_t port);

// A connected non-blocking socket, by `deadline`; the caller closes it. Tries every address of
// `host`. UNAVAILABLE ("connect to 127.0.0.1:9: Connection refused"), DEADLINE_EXCEEDED,
// NOT_FOUND for a name that does not resolve (which may block longer than the deadline).
absl::StatusOr<int> Connect(const std::string& host, std::uint16_t port,
                            std::chrono::steady_clock::time_point deadline);
absl::StatusOr<int> ConnectUnix(const std::string& path);

// "127.0.0.1:40000", "[::1]:40000", "unix".
std::string AddressText(const sockaddr* address);

// "HOST:PORT" or "[V6]:PORT" into its parts. INVALID_ARGUMENT says what was expected.
absl::Status SplitHostPort(std::string_view text, std::string* host, std::uint16_t* port);
// Whether the address or name can only be reached from this machine.
bool IsLoopback(std::string_view host);

}  // namespace takt::net
