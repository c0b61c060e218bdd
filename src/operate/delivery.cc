#include "operate/delivery.h"

#include <curl/curl.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>

#include "base/str.h"
#include "net/post.h"

namespace takt::operate {
namespace {

using Curl = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using CurlList = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

int IsToStop(void* stop, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto* flag = static_cast<const std::atomic<bool>*>(stop);
  return flag != nullptr && *flag ? 1 : 0;
}

struct Reader {
  std::string_view rest;
  static std::size_t Read(char* to, std::size_t size, std::size_t count, void* self) {
    auto* reader = static_cast<Reader*>(self);
    const std::size_t n = std::min(size * count, reader->rest.size());
    std::memcpy(to, reader->rest.data(), n);
    reader->rest.remove_prefix(n);
    return n;
  }
};

}  // namespace

absl::Status PostJson(const std::string& url, const std::string& body,
                      const std::atomic<bool>* stop) {
  TAKT_ASSIGN_OR_RETURN(const net::PostReply reply,
                        net::Post({.url = url,
                                   .body = body,
                                   .headers = {{"Content-Type", "application/json"}},
                                   .timeout = kPostTimeout,
                                   .stop = stop}));
  if (reply.status / 100 == 2) return absl::OkStatus();
  const std::string message = StrCat(net::ShownUrl(url), ": HTTP ", reply.status);
  constexpr int kRequestTimeout = 408, kTooManyRequests = 429;
  return reply.status / 100 == 5 || reply.status == kRequestTimeout ||
                 reply.status == kTooManyRequests
             ? absl::UnavailableError(message)
             : absl::InvalidArgumentError(message);
}

absl::Status SendMail(const MailRoute& route, const std::string& mail,
                      const std::atomic<bool>* stop) {
  char error[CURL_ERROR_SIZE] = "";
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  const Curl curl(curl_easy_init(), curl_easy_cleanup);
  if (ready != CURLE_OK || curl == nullptr) return absl::InternalError("libcurl does not start");
  curl_slist* list = nullptr;
  for (const std::string& to : route.to) {
    list = curl_slist_append(list, StrCat("<", to, ">").c_str());
  }
  const CurlList recipients(list, curl_slist_free_all);
  const bool tls = route.security == MailRoute::Security::kTls;
  const std::string url = StrCat(tls ? "smtps://" : "smtp://", route.server);
  const std::string from = StrCat("<", route.from, ">");
  Reader reader{mail};
  curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "smtp,smtps");
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, long{kMailTimeoutMs});
  curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, IsToStop);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, stop);
  curl_easy_setopt(
      curl.get(), CURLOPT_USE_SSL,
      long{route.security == MailRoute::Security::kNone ? CURLUSESSL_NONE : CURLUSESSL_ALL});
  if (!route.ca_file.empty()) {
    curl_easy_setopt(curl.get(), CURLOPT_CAINFO, route.ca_file.c_str());
  }
  if (!route.user.empty()) {
    curl_easy_setopt(curl.get(), CURLOPT_USERNAME, route.user.c_str());
    curl_easy_setopt(curl.get(), CURLOPT_PASSWORD, route.password.c_str());
  }
  curl_easy_setopt(curl.get(), CURLOPT_MAIL_FROM, from.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_MAIL_RCPT, recipients.get());
  curl_easy_setopt(curl.get(), CURLOPT_UPLOAD, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_READFUNCTION, Reader::Read);
  curl_easy_setopt(curl.get(), CURLOPT_READDATA, &reader);
  const CURLcode code = curl_easy_perform(curl.get());
  if (code == CURLE_OK) return absl::OkStatus();
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  const std::string message =
      StrCat(route.server, ": ", *error != '\0' ? error : curl_easy_strerror(code));
  const bool refused = status / 100 == 5 || code == CURLE_LOGIN_DENIED ||
                       code == CURLE_USE_SSL_FAILED || code == CURLE_PEER_FAILED_VERIFICATION;
  return refused ? absl::InvalidArgumentError(message) : absl::UnavailableError(message);
}

Delivery::Delivery(Options options)
    : options_(std::move(options)),
      waiting_(options_.waiting.begin(), options_.waiting.end()),
      thread_([this] { Run(); }) {}

Delivery::~Delivery() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Delivery::Send(std::string body) {
  Letter letter{options_.keep(body), std::move(body)};
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() >= kMaxWaitingLetters) {
      GiveUp(waiting_.front(), "the receiver is too far behind");
      waiting_.pop_front();
      ++dropped_;
    }
    waiting_.push_back(std::move(letter));
  }
  wake_.notify_all();
}

Delivery::State Delivery::state() const {
  const std::lock_guard lock(mutex_);
  State state = state_;
  state.waiting = waiting_.size();
  return state;
}

void Delivery::GiveUp(const Letter& letter, const std::string& why) {
  ++state_.given_up;
  options_.forget(letter.id);
  std::fprintf(stderr, "takt: warning: an alert could not be sent: %s\n", why.c_str());
}

void Delivery::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    auto pause = options_.first_pause;
    const std::uint64_t dropped = dropped_;  // changes when the letter made room for a newer one
    for (int attempt = 1, refused = 0; !stop_ && dropped == dropped_; ++attempt) {
      const Letter letter = waiting_.front();
      lock.unlock();
      const absl::Status status = options_.send(letter.body, &stop_);
      lock.lock();
      if (stop_) return;
      state_.last_error = std::string(status.message());
      if (absl::IsInvalidArgument(status)) ++refused;
      const bool over = refused == kMaxRefusedAttempts || attempt == kMaxUnansweredAttempts;
      if (status.ok()) {
        ++state_.delivered;
        if (dropped == dropped_) {
          options_.forget(letter.id);
          waiting_.pop_front();
        }
        break;
      }
      if (dropped != dropped_) break;
      if (over) {
        GiveUp(letter, state_.last_error);
        waiting_.pop_front();
        break;
      }
      wake_.wait_for(lock, pause, [this] { return stop_.load(); });
      pause = std::min(pause * 2, options_.most_pause);
    }
    if (stop_) return;
  }
}

}  // namespace takt::operate
