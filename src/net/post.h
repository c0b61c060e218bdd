// One POST to a server elsewhere, over HTTP or HTTPS (libcurl, whose trust in certificates is the
// system's). Any thread; blocks.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace takt::net {

struct PostRequest {
  std::string url;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // Content-Type among them
  std::chrono::milliseconds timeout{10'000};                 // of all of it
  const std::atomic<bool>* stop = nullptr;                   // true: given up within a second
};

inline constexpr std::size_t kMaxPostReplyBytes = 64 << 10;  // the rest of an answer is not kept

struct PostReply {
  int status = 0;
  std::string body;
  std::chrono::seconds retry_after{0};  // of a Retry-After header, a time or seconds; 0 = none
};

// An answer of any status is a reply; redirects are not followed. UNAVAILABLE, naming host and
// cause, where none came; CANCELLED by `stop`.
absl::StatusOr<PostReply> Post(const PostRequest& request);

// OK for an absolute http or https URL with a host; INVALID_ARGUMENT. Puts `default_path` where it
// has no path.
absl::StatusOr<std::string> CheckPostUrl(std::string_view url, std::string_view default_path);
// The URL without user, password and query, for people.
std::string ShownUrl(std::string_view url);

}  // namespace takt::net
