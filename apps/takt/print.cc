#include "print.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "base/text.h"
#include "table.h"

namespace takt::cli {
namespace {

bool ColourWanted() {
  static const bool wanted = [] {
    const char* no_colour = std::getenv("NO_COLOR");
    const char* terminal = std::getenv("TERM");
    return isatty(STDOUT_FILENO) == 1 && (no_colour == nullptr || *no_colour == '\0') &&
           (terminal == nullptr || std::string_view(terminal) != "dumb");
  }();
  return wanted;
}

std::string_view Sequence(Style style) {
  switch (style) {
    case Style::kGood:
      return "\x1b[32m";
    case Style::kBusy:
      return "\x1b[33m";
    case Style::kBad:
      return "\x1b[31m";
    case Style::kDim:
      return "\x1b[2m";
    case Style::kBold:
      break;
  }
  return "\x1b[1m";
}

}  // namespace

std::string Paint(Style style, std::string_view text) {
  if (!ColourWanted() || text.empty()) return std::string(text);
  return StrCat(Sequence(style), text, "\x1b[0m");
}

std::string ForTerminal(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t length = std::max<std::size_t>(Utf8Length(text), 1);
    const auto first = static_cast<std::uint8_t>(text[0]);
    if (first == 0x1b && text.size() > 1 && text[1] == '[') {  // CSI ... m: a colour
      const auto end = text.find_first_not_of("0123456789;:", 2);
      if (end != std::string_view::npos && text[end] == 'm') {
        text.remove_prefix(end + 1);
        continue;
      }
    }
    const auto second = length > 1 ? static_cast<std::uint8_t>(text[1]) : 0;
    const auto third = length > 2 ? static_cast<std::uint8_t>(text[2]) : 0;
    const bool control = (first < 0x20 && first != '\t' && first != '\n') || first == 0x7f ||
                         (length == 1 && first >= 0x80) || (first == 0xc2 && second < 0xa0);  // C1
    const bool turns = first == 0xe2 && ((second == 0x80 && third >= 0xaa && third <= 0xae) ||
                                         (second == 0x81 && third >= 0xa6 && third <= 0xa9));
    if (control || turns) {
      for (const char c : text.substr(0, length)) {
        absl::StrAppend(&out, "\\x", absl::Hex(static_cast<std::uint8_t>(c), absl::kZeroPad2));
      }
    } else {
      out.append(text.substr(0, length));
    }
    text.remove_prefix(length);
  }
  return out;
}

std::string PaintState(std::string_view state) {
  if (state == "running" || state == "completed") return Paint(Style::kGood, state);
  if (state == "failed" || state == "degraded") return Paint(Style::kBad, state);
  if (state == "stopped" || state == "exited") return Paint(Style::kDim, state);
  return Paint(Style::kBusy, state);
}

std::string Age(const Json& time, std::chrono::system_clock::time_point now) {
  if (!time.is_string()) return "-";
  absl::Time parsed;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, time.get<std::string>(), &parsed, &error)) return "-";
  const std::int64_t seconds =
      std::max<std::int64_t>(0, absl::ToInt64Seconds(absl::FromChrono(now) - parsed));
  if (seconds < 120) return StrCat(seconds, "s");
  if (seconds < 2 * 3600) return StrCat(seconds / 60, "m");
  if (seconds < 2 * 86400) return StrCat(seconds / 3600, "h");
  return StrCat(seconds / 86400, "d");
}

std::string ChangeLine(const Json& change) {
  const std::string kind = change.at("kind"), path = change.at("path");
  const std::string before = change.value("before", ""), after = change.value("after", "");
  if (kind == "added") return Paint(Style::kGood, StrCat("+ ", path, ": ", after));
  if (kind == "removed") return Paint(Style::kBad, StrCat("- ", path, ": ", before));
  return Paint(Style::kBusy, StrCat("~ ", path, ": ", before, " -> ", after));
}

void PrintPreview(const Json& preview) {
  for (const Json& change : preview.at("changes")) std::cout << ChangeLine(change) << "\n";
  const std::string diff = preview.value("template_diff", "");
  if (!diff.empty()) {
    for (const absl::string_view line : absl::StrSplit(diff, '\n', absl::SkipEmpty())) {
      const std::string_view text = ToStd(line);
      std::cout << (text.starts_with('+')   ? Paint(Style::kGood, text)
                    : text.starts_with('-') ? Paint(Style::kBad, text)
                                            : std::string(text))
                << "\n";
    }
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& plan : preview.at("services")) {
    const std::string action = plan.at("action");
    const Json& changes = plan.at("changes");
    rows.push_back(
        {plan.at("service"),
         action == "unchanged" ? Paint(Style::kDim, action) : Paint(Style::kBold, action),
         changes.empty() ? "" : ChangeLine(changes[0])});
    for (std::size_t i = 1; i < changes.size(); ++i) {
      rows.push_back({"", "", ChangeLine(changes[i])});
    }
  }
  if (!rows.empty()) {
    rows.insert(rows.begin(), {"SERVICE", "ACTION", "BECAUSE"});
    std::cout << FormatTable(rows);
  }
}

void PrintWarnings(const Json& issues) {
  for (const Json& issue : issues) {
    if (issue.at("severity") == "warning") {
      std::cerr << issue.at("text").get<std::string>() << "\n";
    }
  }
}

absl::StatusOr<bool> Ask(std::string_view question) {
  if (isatty(STDIN_FILENO) != 1) {
    return absl::InvalidArgumentError(
        StrCat("\"", question, "\": there is no terminal to answer at; --yes says yes"));
  }
  std::cout << question << " [y/N] " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  return absl::EqualsIgnoreCase(answer, "y") || absl::EqualsIgnoreCase(answer, "yes");
}

void PrintJson(const Json& json) {
  std::cout << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

}  // namespace takt::cli
