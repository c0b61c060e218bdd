// Who is told of alerts: webhooks (Alertmanager's JSON, DingTalk's robots) and e-mail. Kept in the
// AlertFile with their passwords, and with what they have not got yet. Thread-safe; each receiver
// has a thread of its own (delivery.h).
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "operate/alert_file.h"
#include "operate/alerts.h"
#include "operate/delivery.h"
#include "operate/messages.h"

namespace takt::operate {

inline constexpr std::size_t kMaxReceivers = 20;
inline constexpr std::size_t kMaxRecipients = 50;      // of one e-mail receiver
inline constexpr std::size_t kMaxReceiverText = 2000;  // bytes of any of its texts

struct Receiver {
  std::string name;  // unique; letters, digits, '_', '-' and '.'
  enum class Kind { kAlertmanager, kDingTalk, kEmail };
  Kind kind = Kind::kAlertmanager;
  std::string url;                         // of a webhook, http(s)
  std::string secret;                      // DingTalk: signs each message where not empty
  MailRoute mail;                          // of e-mail
  Language language = Language::kEnglish;  // of DingTalk and e-mail
  Severity least_severity = Severity::kInfo;
  bool send_resolved = true;  // tell what is over too
  bool enabled = true;
  bool fixed = false;  // from the command line: cannot be changed
};
const char* KindName(Receiver::Kind kind);  // "alertmanager", "dingtalk", "email"
std::optional<Receiver::Kind> KindFromName(std::string_view name);
const char* SecurityName(MailRoute::Security security);  // "none", "starttls", "tls"
std::optional<MailRoute::Security> SecurityFromName(std::string_view name);
// INVALID_ARGUMENT naming the field, what was expected, and what came.
absl::Status CheckReceiver(const Receiver& receiver);
// The URL without what may be a secret: "https://host/robot/send?...".
std::string ShownUrl(const std::string& url);
// DingTalk's signed URL: `url` with timestamp and sign (HMAC-SHA-256 of "timestamp\nsecret").
std::string SignedDingTalkUrl(const std::string& url, const std::string& secret,
                              std::int64_t now_ms);

class Receivers {
 public:
  // `fixed` are there beside those that `file` remembers.
  static absl::StatusOr<std::unique_ptr<Receivers>> Open(AlertFile& file,
                                                         std::vector<Receiver> fixed,
                                                         const Clock& clock);

  void Tell(const std::vector<Alert>& fired, const std::vector<Alert>& resolved);

  struct View {
    Receiver receiver;
    Delivery::State state;
  };
  std::vector<View> List() const;  // by name
  std::optional<Receiver> Get(const std::string& name) const;
  // Makes or replaces. INVALID_ARGUMENT, RESOURCE_EXHAUSTED at the limit, FAILED_PRECONDITION for
  // a fixed one. What waits for it is sent to its new place.
  absl::Status Put(Receiver receiver);
  absl::Status Remove(const std::string& name);  // NOT_FOUND, FAILED_PRECONDITION
  // Sends a message that says it is a test, now and once, from this thread: as PostJson, SendMail.
  absl::Status Test(const Receiver& receiver) const;

 private:
  struct Entry {
    Receiver receiver;
    std::unique_ptr<Delivery> delivery;
  };
  Receivers(AlertFile& file, const Clock& clock) : file_(file), clock_(clock) {}
  absl::StatusOr<std::unique_ptr<Delivery>> Begin(const Receiver& receiver);

  AlertFile& file_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // under mutex_
};

}  // namespace takt::operate
