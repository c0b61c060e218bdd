#include "net/post.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>

namespace takt::net {
namespace {

using UrlHandle = std::unique_ptr<CURLU, decltype(&curl_url_cleanup)>;

UrlHandle ParseUrl(std::string_view url) {
  UrlHandle handle(curl_url(), curl_url_cleanup);
  if (handle != nullptr &&
      curl_url_set(handle.get(), CURLUPART_URL, std::string(url).c_str(), 0) != CURLUE_OK) {
    handle.reset();
  }
  return handle;
}

std::string PartOf(const UrlHandle& url, CURLUPart part) {
  char* text = nullptr;
  if (curl_url_get(url.get(), part, &text, 0) != CURLUE_OK) return "";
  std::string result(text);
  curl_free(text);
  return result;
}

std::size_t Keep(char* data, std::size_t size, std::size_t count, void* to) {
  auto& body = *static_cast<std::string*>(to);
  body.append(data, std::min(size * count, kMaxPostReplyBytes - body.size()));
  return size * count;
}

int Progress(void* stop, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return static_cast<const std::atomic<bool>*>(stop)->load() ? 1 : 0;
}

}  // namespace

absl::StatusOr<PostReply> Post(const PostRequest& request) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 curl_easy_cleanup);
  if (ready != CURLE_OK || curl == nullptr) return absl::InternalError("libcurl does not start");
  // Without "Expect: 100-continue", which some servers answer late.
  std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(
      curl_slist_append(nullptr, "Expect:"), curl_slist_free_all);
  for (const auto& [name, value] : request.headers) {
    headers.reset(curl_slist_append(headers.release(), StrCat(name, ": ", value).c_str()));
  }
  PostReply reply;
  char error[CURL_ERROR_SIZE] = "";
  CURL* const c = curl.get();
  curl_easy_setopt(c, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(c, CURLOPT_POSTFIELDS, request.body.data());
  curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, Keep);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, &reply.body);
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout.count()));
  curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error);
  if (request.stop != nullptr) {
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, Progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, const_cast<std::atomic<bool>*>(request.stop));
  }
  const CURLcode code = curl_easy_perform(c);
  if (code == CURLE_ABORTED_BY_CALLBACK) return absl::CancelledError("given up: ending");
  if (code != CURLE_OK) {
    return absl::UnavailableError(
        StrCat(ShownUrl(request.url), ": ", *error != '\0' ? error : curl_easy_strerror(code)));
  }
  long status = 0;
  curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
  reply.status = static_cast<int>(status);
  curl_off_t wait = 0;
  if (curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &wait) == CURLE_OK) {
    reply.retry_after = std::chrono::seconds(std::max<curl_off_t>(wait, 0));
  }
  return reply;
}

absl::StatusOr<std::string> CheckPostUrl(std::string_view url, std::string_view default_path) {
  const UrlHandle parsed = ParseUrl(url);
  const std::string scheme = parsed == nullptr ? "" : PartOf(parsed, CURLUPART_SCHEME);
  if ((scheme != "http" && scheme != "https") || PartOf(parsed, CURLUPART_HOST).empty()) {
    return absl::InvalidArgumentError(
        StrCat("url: expected http://HOST[:PORT][/PATH] or https://..., got \"", url, "\""));
  }
  if (PartOf(parsed, CURLUPART_PATH) == "/") {
    curl_url_set(parsed.get(), CURLUPART_PATH, std::string(default_path).c_str(), 0);
  }
  return PartOf(parsed, CURLUPART_URL);
}

std::string ShownUrl(std::string_view url) {
  const UrlHandle parsed = ParseUrl(url);
  if (parsed == nullptr) return "(no URL)";
  for (const CURLUPart part : {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY}) {
    curl_url_set(parsed.get(), part, nullptr, 0);
  }
  return PartOf(parsed, CURLUPART_URL);
}

}  // namespace takt::net
