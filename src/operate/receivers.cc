#include "operate/receivers.h"

#include <openssl/hmac.h>

#include <algorithm>
#include <cstdio>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "base/ids.h"
#include "base/str.h"
#include "nlohmann/json.hpp"

namespace takt::operate {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kReceiver = "receiver";
constexpr std::pair<const char*, Receiver::Kind> kKinds[] = {
    {"alertmanager", Receiver::Kind::kAlertmanager},
    {"dingtalk", Receiver::Kind::kDingTalk},
    {"email", Receiver::Kind::kEmail},
};
constexpr std::pair<const char*, MailRoute::Security> kSecurities[] = {
    {"none", MailRoute::Security::kNone},
    {"starttls", MailRoute::Security::kStartTls},
    {"tls", MailRoute::Security::kTls},
};

template <typename Table, typename Value>
const char* NameIn(const Table& table, Value value) {
  for (const auto& [name, each] : table) {
    if (each == value) return name;
  }
  return "";
}

template <typename Table>
auto FindIn(const Table& table, std::string_view name)
    -> std::optional<decltype(std::begin(table)->second)> {
  for (const auto& [known, value] : table) {
    if (known == name) return value;
  }
  return std::nullopt;
}

std::string Encode(const Receiver& r) {
  return Json{{"kind", KindName(r.kind)},
              {"url", r.url},
              {"secret", r.secret},
              {"server", r.mail.server},
              {"security", SecurityName(r.mail.security)},
              {"user", r.mail.user},
              {"password", r.mail.password},
              {"from", r.mail.from},
              {"to", r.mail.to},
              {"ca_file", r.mail.ca_file},
              {"chinese", r.language == Language::kChinese},
              {"least_severity", SeverityName(r.least_severity)},
              {"send_resolved", r.send_resolved},
              {"enabled", r.enabled}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<Receiver> Decode(const std::string& name, const std::string& text) {
  Receiver r{.name = name};
  try {  // nlohmann reports by exceptions; they end here
    const Json json = Json::parse(text);
    const auto kind = KindFromName(json.at("kind").get<std::string>());
    const auto security = SecurityFromName(json.at("security").get<std::string>());
    const auto severity = SeverityFromName(json.at("least_severity").get<std::string>());
    if (!kind || !security || !severity) return absl::DataLossError("of a kind that is not known");
    r.kind = *kind;
    r.url = json.at("url");
    r.secret = json.at("secret");
    r.mail = {.server = json.at("server"),
              .security = *security,
              .user = json.at("user"),
              .password = json.at("password"),
              .from = json.at("from"),
              .to = json.at("to").get<std::vector<std::string>>(),
              .ca_file = json.at("ca_file")};
    r.language = json.at("chinese").get<bool>() ? Language::kChinese : Language::kEnglish;
    r.least_severity = *severity;
    r.send_resolved = json.at("send_resolved");
    r.enabled = json.at("enabled");
  } catch (const Json::exception& error) {
    return absl::DataLossError(error.what());
  }
  TAKT_RETURN_IF_ERROR(CheckReceiver(r));
  return r;
}

// local@domain, of what can stand in a header and between < and > as it is.
bool IsMailAddress(const std::string& text) {
  const auto at = text.rfind('@');
  return at != std::string::npos && at > 0 && at + 1 < text.size() && text.size() <= 254 &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isgraph(c) && c != '<' && c != '>' && c != ',' && c != '"';
         });
}

bool IsHostAndPort(const std::string& text) {
  const auto colon = text.rfind(':');
  int port = 0;
  return colon != std::string::npos && colon > 0 &&
         absl::SimpleAtoi(text.substr(colon + 1), &port) && port > 0 && port <= 65535 &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == ':' || c == '[' ||
                  c == ']' || c == '_';
         });
}

// What the receiver gets of these alerts; "" when nothing is for it.
std::string BodyFor(const Receiver& receiver, const std::vector<Alert>& alerts,
                    const Clock& clock) {
  std::vector<Alert> wanted;
  for (const Alert& alert : alerts) {
    const bool over = alert.resolved != std::chrono::system_clock::time_point{};
    if (alert.severity < receiver.least_severity || (over && !receiver.send_resolved)) continue;
    wanted.push_back(alert);
  }
  if (wanted.empty()) return "";
  switch (receiver.kind) {
    case Receiver::Kind::kAlertmanager:
      return AlertmanagerBody(wanted);
    case Receiver::Kind::kDingTalk:
      return DingTalkBody(wanted, receiver.language);
    case Receiver::Kind::kEmail:
      return MailText(wanted, receiver.language, receiver.mail.from, receiver.mail.to, clock.Now());
  }
  return "";
}

absl::Status SendOnce(const Receiver& receiver, const std::string& body, const Clock& clock,
                      const std::atomic<bool>* stop) {
  if (receiver.kind == Receiver::Kind::kEmail) return SendMail(receiver.mail, body, stop);
  if (receiver.secret.empty()) return PostJson(receiver.url, body, stop);
  const auto now_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(clock.Now().time_since_epoch());
  return PostJson(SignedDingTalkUrl(receiver.url, receiver.secret, now_ms.count()), body, stop);
}

void Warn(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "takt: warning: %s\n", std::string(status.message()).c_str());
}

}  // namespace

const char* KindName(Receiver::Kind kind) { return NameIn(kKinds, kind); }
std::optional<Receiver::Kind> KindFromName(std::string_view name) { return FindIn(kKinds, name); }
const char* SecurityName(MailRoute::Security security) { return NameIn(kSecurities, security); }
std::optional<MailRoute::Security> SecurityFromName(std::string_view name) {
  return FindIn(kSecurities, name);
}

std::string ShownUrl(const std::string& url) {
  // A name and password before the host are as secret as what follows the question mark.
  const auto question = url.find('?');
  std::string shown = question == std::string::npos ? url : StrCat(url.substr(0, question), "?...");
  const auto scheme = shown.find("://");
  if (scheme == std::string::npos) return shown;
  const auto host = scheme + 3;
  const auto at = shown.substr(0, shown.find('/', host)).rfind('@');
  if (at != std::string::npos && at >= host) shown.replace(host, at - host, "...");
  return shown;
}

std::string SignedDingTalkUrl(const std::string& url, const std::string& secret,
                              std::int64_t now_ms) {
  const std::string text = StrCat(now_ms, "\n", secret);
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
  std::string sign;
  for (const char c :
       absl::Base64Escape(absl::string_view(reinterpret_cast<const char*>(digest), size))) {
    if (absl::ascii_isalnum(c)) {
      sign.push_back(c);
    } else {
      absl::StrAppendFormat(&sign, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return StrCat(url, url.find('?') == std::string::npos ? "?" : "&", "timestamp=", now_ms,
                "&sign=", sign);
}

absl::Status CheckReceiver(const Receiver& r) {
  const auto expected = [](std::string_view field, std::string_view what, std::string_view got) {
    return absl::InvalidArgumentError(StrCat(field, ": expected ", what, ", got \"", got, "\""));
  };
  if (!IsValidName(r.name)) {
    return expected("name", "1 to 63 letters, digits, '_', '-' and '.'", r.name);
  }
  for (const auto& [field, text] :
       {std::pair("url", &r.url), std::pair("secret", &r.secret),
        std::pair("server", &r.mail.server), std::pair("user", &r.mail.user),
        std::pair("password", &r.mail.password), std::pair("ca_file", &r.mail.ca_file)}) {
    if (text->size() > kMaxReceiverText) {
      return absl::InvalidArgumentError(absl::StrCat(field, ": expected at most ", kMaxReceiverText,
                                                     " bytes, got ", text->size()));
    }
    if (std::any_of(text->begin(), text->end(), [](char c) { return absl::ascii_iscntrl(c); })) {
      return absl::InvalidArgumentError(absl::StrCat(field, ": expected no control characters"));
    }
  }
  if (r.kind != Receiver::Kind::kEmail) {
    const bool http = absl::StartsWith(r.url, "http://") || absl::StartsWith(r.url, "https://");
    if (!http) return expected("url", "http://... or https://...", ShownUrl(r.url));
    return absl::OkStatus();
  }
  if (!IsHostAndPort(r.mail.server)) return expected("server", "HOST:PORT", r.mail.server);
  if (!IsMailAddress(r.mail.from)) return expected("from", "an e-mail address", r.mail.from);
  if (r.mail.to.empty() || r.mail.to.size() > kMaxRecipients) {
    return absl::InvalidArgumentError(
        absl::StrCat("to: expected 1 to ", kMaxRecipients, " addresses, got ", r.mail.to.size()));
  }
  for (const std::string& to : r.mail.to) {
    if (!IsMailAddress(to)) return expected("to", "e-mail addresses", to);
  }
  if (!r.mail.user.empty() && r.mail.security == MailRoute::Security::kNone) {
    return absl::InvalidArgumentError(
        "security: expected starttls or tls where a user is given: the password would travel in "
        "the clear");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Receivers>> Receivers::Open(AlertFile& file,
                                                           std::vector<Receiver> fixed,
                                                           const Clock& clock) {
  std::unique_ptr<Receivers> self(new Receivers(file, clock));
  TAKT_ASSIGN_OR_RETURN(const auto kept, file.All(kReceiver));
  std::vector<Receiver> all;
  for (Receiver& receiver : fixed) {
    receiver.fixed = true;
    TAKT_RETURN_IF_ERROR(CheckReceiver(receiver));
    all.push_back(std::move(receiver));
  }
  for (const auto& [name, text] : kept) {
    auto receiver = Decode(name, text);
    if (!receiver.ok()) {
      Warn(Annotate(receiver.status(),
                    StrCat("the alert receiver ", name, " cannot be read and is left out")));
      continue;
    }
    all.push_back(*std::move(receiver));
  }
  for (Receiver& receiver : all) {
    TAKT_ASSIGN_OR_RETURN(auto delivery, self->Begin(receiver));
    const std::string name = receiver.name;
    self->entries_.emplace(name, Entry{std::move(receiver), std::move(delivery)});
  }
  return self;
}

absl::StatusOr<std::unique_ptr<Delivery>> Receivers::Begin(const Receiver& receiver) {
  TAKT_ASSIGN_OR_RETURN(const auto letters, file_.Letters(receiver.name));
  Delivery::Options options;
  options.send = [this, receiver](const std::string& body, const std::atomic<bool>* stop) {
    return SendOnce(receiver, body, clock_, stop);
  };
  options.keep = [this, name = receiver.name](const std::string& body) -> std::int64_t {
    const auto id = file_.AddLetter(name, body);
    Warn(id.status());
    return id.ok() ? *id : 0;
  };
  options.forget = [this](std::int64_t id) { Warn(file_.RemoveLetter(id)); };
  for (const AlertFile::Letter& letter : letters) {
    options.waiting.push_back({letter.id, letter.body});
  }
  return std::make_unique<Delivery>(std::move(options));
}

void Receivers::Tell(const std::vector<Alert>& fired, const std::vector<Alert>& resolved) {
  std::vector<Alert> all = fired;
  all.insert(all.end(), resolved.begin(), resolved.end());
  const std::lock_guard lock(mutex_);
  for (const auto& [name, entry] : entries_) {
    if (!entry.receiver.enabled) continue;
    std::string body = BodyFor(entry.receiver, all, clock_);
    if (!body.empty()) entry.delivery->Send(std::move(body));
  }
}

std::vector<Receivers::View> Receivers::List() const {
  const std::lock_guard lock(mutex_);
  std::vector<View> views;
  for (const auto& [name, entry] : entries_) {
    views.push_back({entry.receiver, entry.delivery->state()});
  }
  return views;
}

std::optional<Receiver> Receivers::Get(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) return std::nullopt;
  return it->second.receiver;
}

absl::Status Receivers::Put(Receiver receiver) {
  TAKT_RETURN_IF_ERROR(CheckReceiver(receiver));
  receiver.fixed = false;
  const std::string name = receiver.name;
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(name);
  if (it != entries_.end() && it->second.receiver.fixed) {
    return absl::FailedPreconditionError(
        StrCat("the alert receiver ", name, " is from the daemon's command line"));
  }
  if (it == entries_.end() && entries_.size() >= kMaxReceivers) {
    return absl::ResourceExhaustedError(
        absl::StrCat("at most ", kMaxReceivers, " alert receivers; remove one"));
  }
  TAKT_RETURN_IF_ERROR(file_.Put(kReceiver, name, Encode(receiver)));
  if (it != entries_.end()) {
    const bool same_kind = it->second.receiver.kind == receiver.kind;
    entries_.erase(it);  // ends; what waits stays in the file
    if (!same_kind) TAKT_RETURN_IF_ERROR(file_.RemoveLetters(name));  // it could not read them
  }
  TAKT_ASSIGN_OR_RETURN(auto delivery, Begin(receiver));
  entries_.emplace(name, Entry{std::move(receiver), std::move(delivery)});
  return absl::OkStatus();
}

absl::Status Receivers::Remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto it = entries_.find(name);
  if (it == entries_.end()) {
    return absl::NotFoundError(StrCat("there is no alert receiver ", name));
  }
  if (it->second.receiver.fixed) {
    return absl::FailedPreconditionError(
        StrCat("the alert receiver ", name, " is from the daemon's command line"));
  }
  TAKT_RETURN_IF_ERROR(file_.Remove(kReceiver, name));
  entries_.erase(it);
  return file_.RemoveLetters(name);
}

absl::Status Receivers::Test(const Receiver& receiver) const {
  TAKT_RETURN_IF_ERROR(CheckReceiver(receiver));
  Receiver open = receiver;
  open.least_severity = Severity::kInfo;
  const Alert test{.rule = "test",
                   .severity = Severity::kInfo,
                   .firing = true,
                   .since = clock_.Now(),
                   .summary = "this is a test: alerts arrive here",
                   .summary_zh = "这是一条测试消息：告警会发送到这里"};
  return SendOnce(receiver, BodyFor(open, {test}, clock_), clock_, nullptr);
}

}  // namespace takt::operate
