#include "operate/webhook.h"

#include <curl/curl.h>

#include <cstdio>
#include <memory>

#include "base/str.h"

namespace takt::operate {
namespace {

std::size_t Discard(char*, std::size_t size, std::size_t count, void*) { return size * count; }

}  // namespace

absl::Status PostJson(const std::string& url, const std::string& body) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 curl_easy_cleanup);
  if (ready != CURLE_OK || curl == nullptr) return absl::InternalError("libcurl does not start");
  const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(
      curl_slist_append(nullptr, "Content-Type: application/json"), curl_slist_free_all);
  char error[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, body.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, Discard);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, long{kWebhookTimeoutMs});
  curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, error);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code != CURLE_OK) {
    return absl::UnavailableError(
        StrCat(url, ": ", *error != '\0' ? error : curl_easy_strerror(code)));
  }
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (status / 100 != 2) return absl::UnavailableError(StrCat(url, ": HTTP ", status));
  return absl::OkStatus();
}

Webhook::Webhook(Post post, std::chrono::milliseconds first_pause)
    : post_(std::move(post)), first_pause_(first_pause), thread_([this] { Run(); }) {}

Webhook::~Webhook() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Webhook::Send(std::string body) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= kMaxWaitingPosts) {
      waiting_.pop_front();
      ++given_up_;
      std::fprintf(stderr,
                   "takt: warning: the alert receiver is behind: an old alert is not sent\n");
    }
    waiting_.push_back(std::move(body));
  }
  wake_.notify_all();
}

std::size_t Webhook::given_up() const {
  const std::lock_guard lock(mutex_);
  return given_up_;
}

void Webhook::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (stop_) return;
    const std::string body = std::move(waiting_.front());
    waiting_.pop_front();
    auto pause = first_pause_;
    for (int attempt = 1;; ++attempt) {
      lock.unlock();
      const absl::Status status = post_(body);
      lock.lock();
      if (status.ok() || stop_) break;
      if (attempt == kMaxWebhookAttempts) {
        ++given_up_;
        std::fprintf(stderr, "takt: warning: an alert could not be sent: %s\n",
                     std::string(status.message()).c_str());
        break;
      }
      if (wake_.wait_for(lock, pause, [this] { return stop_; })) return;
      pause *= 2;
    }
  }
}

}  // namespace takt::operate
