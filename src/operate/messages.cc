#include "operate/messages.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "base/ids.h"
#include "base/str.h"
#include "nlohmann/json.hpp"

namespace takt::operate {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMailLine = 76;  // of base64, RFC 2045

bool IsOver(const Alert& alert) {
  return alert.resolved != std::chrono::system_clock::time_point{};
}

const std::string& Summary(const Alert& alert, Language language) {
  return language == Language::kChinese && !alert.summary_zh.empty() ? alert.summary_zh
                                                                     : alert.summary;
}

std::string_view Word(const Alert& alert, Language language) {
  const bool zh = language == Language::kChinese;
  if (IsOver(alert)) return zh ? "已恢复" : "resolved";
  switch (alert.severity) {
    case Severity::kInfo:
      return zh ? "信息" : "info";
    case Severity::kWarning:
      return zh ? "警告" : "warning";
    case Severity::kCritical:
      return zh ? "严重" : "critical";
  }
  return "";
}

std::string Line(const Alert& alert, Language language) {
  return StrCat("[", Word(alert, language), "] ", Summary(alert, language));
}

Json LabelsOf(const Alert& alert) {
  Json labels = {{"alertname", alert.rule}, {"severity", SeverityName(alert.severity)}};
  for (const auto& [name, value] : alert.labels) labels[name] = value;
  return labels;
}

}  // namespace

std::string AlertmanagerBody(const std::vector<Alert>& alerts) {
  const bool firing =
      std::any_of(alerts.begin(), alerts.end(), [](const Alert& a) { return !IsOver(a); });
  Json body = {{"version", "4"},
               {"groupKey", "takt"},
               {"truncatedAlerts", 0},
               {"status", firing ? "firing" : "resolved"},
               {"receiver", "takt"},
               {"groupLabels", Json::object()},
               {"commonLabels", Json::object()},
               {"commonAnnotations", Json::object()},
               {"externalURL", ""},
               {"alerts", Json::array()}};
  for (const Alert& alert : alerts) {
    const bool over = IsOver(alert);
    body["alerts"].push_back(
        {{"status", over ? "resolved" : "firing"},
         {"labels", LabelsOf(alert)},
         {"annotations",
          {{"summary", alert.summary},
           {"summary_zh", Summary(alert, Language::kChinese)},
           {"value", absl::StrFormat("%.6g", alert.value)}}},
         {"startsAt", FormatRfc3339(alert.since)},
         {"endsAt", over ? FormatRfc3339(alert.resolved) : "0001-01-01T00:00:00Z"},
         {"generatorURL", ""},
         {"fingerprint", ""}});
  }
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string DingTalkBody(const std::vector<Alert>& alerts, Language language) {
  std::string text = "Takt";
  for (const Alert& alert : alerts) absl::StrAppend(&text, "\n", Line(alert, language));
  const Json body = {{"msgtype", "text"}, {"text", {{"content", text}}}};
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string MailText(const std::vector<Alert>& alerts, Language language, const std::string& from,
                     const std::vector<std::string>& to,
                     std::chrono::system_clock::time_point now) {
  const absl::Time time = absl::FromChrono(now);
  std::string subject = "Takt";
  std::string text;
  if (!alerts.empty()) subject = StrCat("Takt: ", Line(alerts[0], language));
  if (alerts.size() > 1) absl::StrAppend(&subject, " (+", alerts.size() - 1, ")");
  for (const Alert& alert : alerts) {
    absl::StrAppend(&text, Line(alert, language), "\r\n    ", alert.rule, ", ",
                    FormatRfc3339(IsOver(alert) ? alert.resolved : alert.since), "\r\n");
    for (const auto& [name, value] : alert.labels) {
      absl::StrAppend(&text, "    ", name, " = ", value, "\r\n");
    }
    absl::StrAppend(&text, "\r\n");
  }
  std::string mail =
      StrCat("Date: ", absl::FormatTime("%a, %d %b %Y %H:%M:%S +0000", time, absl::UTCTimeZone()),
             "\r\nFrom: ", from, "\r\nTo: ", absl::StrJoin(to, ", "), "\r\nMessage-ID: <",
             RandomId(24), "@takt>\r\nSubject:");
  // Encoded words of at most 75 characters; cut between characters, not within one.
  constexpr std::size_t kWordBytes = 42;
  for (std::size_t at = 0; at < subject.size();) {
    std::size_t end = std::min(at + kWordBytes, subject.size());
    while (end < subject.size() && end > at + 1 && (subject[end] & 0xC0) == 0x80) --end;
    absl::StrAppend(&mail, at == 0 ? " " : "\r\n ", "=?UTF-8?B?",
                    absl::Base64Escape(subject.substr(at, end - at)), "?=");
    at = end;
  }
  absl::StrAppend(&mail,
                  "\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
                  "Content-Transfer-Encoding: base64\r\n\r\n");
  const std::string encoded = absl::Base64Escape(text);
  for (std::size_t at = 0; at < encoded.size(); at += kMailLine) {
    absl::StrAppend(&mail, encoded.substr(at, kMailLine), "\r\n");
  }
  return mail;
}

}  // namespace takt::operate
