// What a receiver of alerts reads. Pure functions.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "operate/alerts.h"

namespace takt::operate {

enum class Language { kEnglish, kChinese };

// Alertmanager's webhook body, version "4" (prometheus.io/docs/alerting/latest/configuration).
std::string AlertmanagerBody(const std::vector<Alert>& alerts);
// The text message of DingTalk's robots.
std::string DingTalkBody(const std::vector<Alert>& alerts, Language language);
// A whole mail: RFC 5322 headers with an encoded subject (RFC 2047), and a text in UTF-8 as base64,
// so that nothing in an alert can become a header or end the message. CRLF lines.
std::string MailText(const std::vector<Alert>& alerts, Language language, const std::string& from,
                     const std::vector<std::string>& to, std::chrono::system_clock::time_point now);

}  // namespace takt::operate
