#include "logs/entry.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <ctime>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "base/str.h"
#include "nlohmann/json.hpp"

namespace takt::logs {
namespace {

constexpr std::size_t kHeadBytes = 160;       // where a level is looked for
constexpr std::size_t kMaxJsonBytes = 16384;  // longer lines are not parsed as JSON

bool IsWordByte(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// `count` digits at `at`, or -1.
int Digits(std::string_view text, std::size_t at, int count) {
  if (text.size() < at + static_cast<std::size_t>(count)) return -1;
  int value = 0;
  for (int i = 0; i < count; ++i) {
    const char c = text[at + static_cast<std::size_t>(i)];
    if (!IsDigit(c)) return -1;
    value = value * 10 + (c - '0');
  }
  return value;
}

std::optional<Level> LevelFromLetter(char c) {
  switch (c) {
    case 'T':
      return Level::kTrace;
    case 'D':
      return Level::kDebug;
    case 'I':
      return Level::kInfo;
    case 'W':
      return Level::kWarn;
    case 'E':
      return Level::kError;
    case 'F':
      return Level::kFatal;
    default:
      return std::nullopt;
  }
}

struct NamedLevel {
  std::string_view name;
  Level level;
};
constexpr NamedLevel kNames[] = {
    {"trace", Level::kTrace},    {"debug", Level::kDebug}, {"info", Level::kInfo},
    {"notice", Level::kInfo},    {"warn", Level::kWarn},   {"warning", Level::kWarn},
    {"error", Level::kError},    {"err", Level::kError},   {"fatal", Level::kFatal},
    {"critical", Level::kFatal}, {"panic", Level::kFatal}, {"emerg", Level::kFatal},
    {"alert", Level::kFatal},    {"crit", Level::kFatal},  {"unknown", Level::kUnknown},
    {"verbose", Level::kTrace},
};

// A word that stands for a level in running text: upper case, or in lower or mixed case directly
// before ':' or ']' ("warning: ...", "[error]"), or after a level key.
bool StandsForLevel(std::string_view head, std::size_t begin, std::size_t end) {
  const std::string_view word = head.substr(begin, end - begin);
  if (std::all_of(word.begin(), word.end(), absl::ascii_isupper)) return true;
  const char after = end < head.size() ? head[end] : ' ';
  if (after == ']' || (after == ':' && begin < 40)) return true;
  // level=warn, "level":"warn", "severity": "warn"
  std::size_t at = begin;
  while (at > 0 && (head[at - 1] == '"' || head[at - 1] == ' ' || head[at - 1] == ':' ||
                    head[at - 1] == '=' || head[at - 1] == '\'')) {
    --at;
  }
  if (at == begin) return false;
  const std::string_view key = head.substr(0, at);
  for (const std::string_view name : {"level", "lvl", "severity", "levelname"}) {
    if (key.size() >= name.size() &&
        absl::EqualsIgnoreCase(ToAbsl(key.substr(key.size() - name.size())), ToAbsl(name))) {
      return true;
    }
  }
  return false;
}

void VisitJson(const nlohmann::json& value, const std::string& prefix, bool& go_on,
               const std::function<bool(std::string_view, std::string_view)>& visit) {
  for (auto it = value.begin(); go_on && it != value.end(); ++it) {
    const std::string name = prefix.empty() ? it.key() : prefix + "." + it.key();
    if (it->is_object()) {
      VisitJson(*it, name, go_on, visit);
    } else if (it->is_string()) {
      go_on = visit(name, it->get_ref<const std::string&>());
    } else {
      go_on = visit(name, it->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
    }
  }
}

}  // namespace

const char* LevelName(Level level) {
  constexpr const char* kNamesOf[] = {"unknown", "trace", "debug", "info",
                                      "warn",    "error", "fatal"};
  return kNamesOf[static_cast<int>(level)];
}

std::optional<Level> LevelFromName(std::string_view name) {
  if (name.size() == 1) return LevelFromLetter(absl::ascii_toupper(name[0]));
  for (const NamedLevel& n : kNames) {
    if (absl::EqualsIgnoreCase(ToAbsl(n.name), ToAbsl(name))) return n.level;
  }
  return std::nullopt;
}

Level RecogniseLevel(std::string_view text) {
  const std::string_view head = text.substr(0, kHeadBytes);
  // glog: "E1124 20:00:00.123456 ..."
  if (head.size() > 5 && Digits(head, 1, 4) >= 0 && head[5] == ' ') {
    if (const auto level = LevelFromLetter(head[0])) return *level;
  }
  // TensorFlow: "2026-11-24 20:00:00.123456: W tensorflow/..."
  if (head.size() > 30 && IsDigit(head[0])) {
    const auto colon = head.find(": ", 19);
    if (colon != std::string_view::npos && colon < 32 && colon + 3 < head.size() &&
        head[colon + 3] == ' ') {
      if (const auto level = LevelFromLetter(head[colon + 2])) return *level;
    }
  }
  if (head.starts_with("Traceback (most recent call last)")) return Level::kError;
  for (std::size_t i = 0; i < head.size();) {
    if (!IsWordByte(head[i])) {
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < head.size() && IsWordByte(head[end])) ++end;
    const std::size_t length = end - i;
    if (length >= 3 && length <= 8) {
      if (const auto level = LevelFromName(head.substr(i, length));
          level && *level != Level::kUnknown && StandsForLevel(head, i, end)) {
        return *level;
      }
    }
    i = end;
  }
  return Level::kUnknown;
}

std::optional<std::int64_t> RecogniseTime(std::string_view text) {
  if (!text.empty() && text[0] == '[') text.remove_prefix(1);
  const int year = Digits(text, 0, 4), month = Digits(text, 5, 2), day = Digits(text, 8, 2);
  const int hour = Digits(text, 11, 2), minute = Digits(text, 14, 2), second = Digits(text, 17, 2);
  if (year < 1970 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 ||
      minute < 0 || minute > 59 || second < 0 || second > 60 || text[4] != '-' || text[7] != '-' ||
      (text[10] != 'T' && text[10] != ' ') || text[13] != ':' || text[16] != ':') {
    return std::nullopt;
  }
  std::size_t at = 19;
  std::int64_t micros = 0;
  if (at < text.size() && (text[at] == '.' || text[at] == ',')) {
    std::int64_t unit = 100'000;
    for (++at; at < text.size() && IsDigit(text[at]); ++at) {
      micros += unit * (text[at] - '0');
      unit /= 10;
    }
  }
  std::tm tm{};
  tm.tm_year = year - 1900;
  tm.tm_mon = month - 1;
  tm.tm_mday = day;
  tm.tm_hour = hour;
  tm.tm_min = minute;
  tm.tm_sec = second;
  tm.tm_isdst = -1;
  std::int64_t seconds = 0;
  const char zone = at < text.size() ? text[at] : ' ';
  if (zone == 'Z') {
    seconds = timegm(&tm);
  } else if ((zone == '+' || zone == '-') && Digits(text, at + 1, 2) >= 0) {
    const std::size_t minutes_at = at + 3 + (at + 3 < text.size() && text[at + 3] == ':' ? 1 : 0);
    const int offset = Digits(text, at + 1, 2) * 60 + std::max(0, Digits(text, minutes_at, 2));
    seconds = timegm(&tm) - (zone == '+' ? 60L : -60L) * offset;
  } else {
    seconds = std::mktime(&tm);
  }
  return seconds * 1'000'000 + micros;
}

void VisitFields(std::string_view text,
                 const std::function<bool(std::string_view, std::string_view)>& visit) {
  const auto brace = text.find_first_not_of(" \t");
  if (brace != std::string_view::npos && text[brace] == '{' && text.size() <= kMaxJsonBytes) {
    const auto value = nlohmann::json::parse(text.substr(brace), nullptr, false);
    if (value.is_object()) {
      bool go_on = true;
      VisitJson(value, "", go_on, visit);
      return;
    }
  }
  for (std::size_t equal = text.find('='); equal != std::string_view::npos;
       equal = text.find('=', equal + 1)) {
    std::size_t begin = equal;
    while (begin > 0 && (IsWordByte(text[begin - 1]) || text[begin - 1] == '.' ||
                         text[begin - 1] == '-' || text[begin - 1] == '/')) {
      --begin;
    }
    while (begin < equal && (text[begin] == '-' || text[begin] == '/')) ++begin;  // --flag=value
    if (begin == equal) continue;
    std::string_view value = text.substr(equal + 1);
    if (!value.empty() && (value[0] == '"' || value[0] == '\'')) {
      const auto close = value.find(value[0], 1);
      value = close == std::string_view::npos ? value.substr(1) : value.substr(1, close - 1);
    } else {
      value = value.substr(0, value.find_first_of(" \t\n,;)]}"));
    }
    if (!visit(text.substr(begin, equal - begin), value)) return;
  }
}

bool Continues(std::string_view before, std::string_view text) {
  if (text.empty()) return false;
  const bool traceback = absl::StrContains(ToAbsl(before), "Traceback (most recent call last)");
  if (text[0] == ' ' || text[0] == '\t') {
    // Indented text belongs to what began it, if that was no indented line by itself.
    return !before.empty() && before[0] != ' ' && before[0] != '\t';
  }
  if (text.starts_with("Caused by:") || text.starts_with("... ")) return true;
  if (traceback) {
    // The last line of a traceback ("ValueError: ...") follows an indented one.
    const auto last = before.rfind('\n');
    const bool after_frames = last != std::string_view::npos && last + 1 < before.size() &&
                              (before[last + 1] == ' ' || before[last + 1] == '\t');
    if (after_frames) return true;
    return text.starts_with("During handling of the above") ||
           text.starts_with("The above exception was") ||
           text.starts_with("Traceback (most recent call last)");
  }
  return false;
}

std::string_view CollapseCarriageReturns(std::string_view text) {
  while (!text.empty() && text.back() == '\r') text.remove_suffix(1);
  const auto last = text.rfind('\r');
  return last == std::string_view::npos ? text : text.substr(last + 1);
}

}  // namespace takt::logs
