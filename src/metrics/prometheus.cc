#include "metrics/prometheus.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/str.h"

namespace takt::metrics {
namespace {

bool IsNameByte(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == ':';
}

void SkipBlanks(std::string_view& rest) {
  while (!rest.empty() && (rest[0] == ' ' || rest[0] == '\t')) rest.remove_prefix(1);
}

std::string_view TakeName(std::string_view& rest) {
  std::size_t n = 0;
  while (n < rest.size() && IsNameByte(rest[n])) ++n;
  const std::string_view name = rest.substr(0, n);
  rest.remove_prefix(n);
  return name;
}

// {a="x",b="y"}; false where it is malformed.
bool TakeLabels(std::string_view& rest, Labels& labels) {
  rest.remove_prefix(1);
  while (true) {
    SkipBlanks(rest);
    if (rest.empty()) return false;
    if (rest[0] == '}') {
      rest.remove_prefix(1);
      return true;
    }
    const std::string_view name = TakeName(rest);
    SkipBlanks(rest);
    if (name.empty() || rest.empty() || rest[0] != '=') return false;
    rest.remove_prefix(1);
    SkipBlanks(rest);
    if (rest.empty() || rest[0] != '"') return false;
    rest.remove_prefix(1);
    std::string value;
    while (!rest.empty() && rest[0] != '"') {
      if (rest[0] == '\\' && rest.size() > 1) {
        rest.remove_prefix(1);
        value.push_back(rest[0] == 'n' ? '\n' : rest[0]);
      } else {
        value.push_back(rest[0]);
      }
      rest.remove_prefix(1);
    }
    if (rest.empty()) return false;
    rest.remove_prefix(1);
    labels.emplace_back(std::string(name), std::move(value));
    SkipBlanks(rest);
    if (!rest.empty() && rest[0] == ',') rest.remove_prefix(1);
  }
}

bool ParseValue(std::string_view text, double& value) {
  if (text == "+Inf" || text == "Inf") {
    value = std::numeric_limits<double>::infinity();
  } else if (text == "-Inf") {
    value = -std::numeric_limits<double>::infinity();
  } else if (text == "NaN") {
    value = std::nan("");
  } else {
    return absl::SimpleAtod(ToAbsl(text), &value);
  }
  return true;
}

std::string FormatValue(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  // The shortest text that reads back as the same number.
  char text[32];
  return std::string(text, std::to_chars(text, text + sizeof text, value).ptr);
}

void AppendEscaped(std::string_view value, std::string& out) {
  for (const char c : value) {
    if (c == '\\' || c == '"') out.push_back('\\');
    if (c == '\n') {
      out += "\\n";
    } else {
      out.push_back(c);
    }
  }
}

}  // namespace

absl::StatusOr<Exposition> ParseExposition(std::string_view text) {
  Exposition result;
  std::map<std::string, std::string, std::less<>> types;
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const auto end = text.find('\n');
    std::string_view rest = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (!rest.empty() && rest.back() == '\r') rest.remove_suffix(1);
    SkipBlanks(rest);
    if (rest.empty()) continue;
    if (rest[0] == '#') {
      rest.remove_prefix(1);
      SkipBlanks(rest);
      if (!rest.starts_with("TYPE ")) continue;
      rest.remove_prefix(5);
      SkipBlanks(rest);
      const std::string_view name = TakeName(rest);
      SkipBlanks(rest);
      types[std::string(name)] = std::string(rest);
      continue;
    }
    Figure figure;
    figure.name = TakeName(rest);
    SkipBlanks(rest);
    if (figure.name.empty() ||
        (!rest.empty() && rest[0] == '{' && !TakeLabels(rest, figure.labels))) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": expected a metric name and labels"));
    }
    SkipBlanks(rest);
    if (!ParseValue(rest.substr(0, rest.find_first_of(" \t")), figure.value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": expected a number after ", figure.name));
    }
    std::size_t bytes = figure.name.size();
    for (const auto& [name, value] : figure.labels) bytes += name.size() + value.size();
    if (result.figures.size() >= kMaxScrapedFigures || bytes > kMaxFigureBytes) {
      ++result.dropped;
      continue;
    }
    std::sort(figure.labels.begin(), figure.labels.end());
    const auto type_of = [&types](std::string_view name) {
      const auto it = types.find(name);
      return it == types.end() ? std::string_view() : std::string_view(it->second);
    };
    if (type_of(figure.name) == "counter") figure.type = Type::kCounter;
    for (const std::string_view suffix : {"_bucket", "_sum", "_count", "_total"}) {
      if (!figure.name.ends_with(suffix)) continue;
      const std::string_view base =
          std::string_view(figure.name).substr(0, figure.name.size() - suffix.size());
      const std::string_view type = type_of(base);
      if (type == "histogram" || type == "summary" || type == "counter") {
        figure.type = Type::kCounter;
      }
    }
    result.figures.push_back(std::move(figure));
  }
  return result;
}

std::string WriteExposition(const std::vector<Figure>& figures) {
  std::string out;
  const std::string* last = nullptr;
  for (const Figure& figure : figures) {
    if (last == nullptr || *last != figure.name) {
      const std::string_view help = HelpOf(figure.name);
      if (!help.empty()) {
        absl::StrAppend(&out, "# HELP ", figure.name, " ", ToAbsl(help), "\n");
      }
      absl::StrAppend(&out, "# TYPE ", figure.name,
                      figure.type == Type::kCounter ? " counter\n" : " gauge\n");
    }
    last = &figure.name;
    out += figure.name;
    if (!figure.labels.empty()) {
      out.push_back('{');
      bool first = true;
      for (const auto& [name, value] : figure.labels) {
        absl::StrAppend(&out, first ? "" : ",", name, "=\"");
        AppendEscaped(value, out);
        out.push_back('"');
        first = false;
      }
      out.push_back('}');
    }
    absl::StrAppend(&out, " ", FormatValue(figure.value), "\n");
  }
  return out;
}

}  // namespace takt::metrics
