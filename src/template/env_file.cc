#include "template/env_file.h"

#include <algorithm>
#include <map>

#include "base/str.h"
#include "template/interpolate.h"

namespace takt::templates {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

std::string_view Trim(std::string_view text) {
  const std::size_t from = text.find_first_not_of(" \t\r");
  if (from == std::string_view::npos) return "";
  return text.substr(from, text.find_last_not_of(" \t\r") - from + 1);
}

// The value of a double-quoted text: \n, \t, \r, \", \\; \$ stays for the variables to see.
std::string Unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    switch (text[++i]) {
      case 'n':
        out += '\n';
        break;
      case 't':
        out += '\t';
        break;
      case 'r':
        out += '\r';
        break;
      case '$':
        out += "$$";
        break;
      case '"':
      case '\\':
        out += text[i];
        break;
      default:
        out += '\\';
        out += text[i];
    }
  }
  return out;
}

class Reader {
 public:
  Reader(std::string_view text, bool raw, const std::map<std::string, std::string>& values)
      : text_(text), raw_(raw), values_(values), known_(values) {}

  absl::StatusOr<Pairs> Read() {
    while (at_ < text_.size()) {
      ++line_;
      const std::size_t end = std::min(text_.find('\n', at_), text_.size());
      std::string_view line = Trim(text_.substr(at_, end - at_));
      at_ = end + 1;
      if (line.empty() || line[0] == '#') continue;
      if (line.starts_with("export ")) line = Trim(line.substr(7));
      const std::size_t separator = line.find_first_of(raw_ ? "=" : "=:");
      const std::string key(Trim(line.substr(0, separator)));
      if (key.empty() || key.find_first_of(" \t\"'") != std::string::npos) {
        return Fail(StrCat("expected KEY=VALUE, got \"", line, "\""));
      }
      if (separator == std::string_view::npos) {
        if (const auto found = values_.find(key); found != values_.end()) Add(key, found->second);
        continue;
      }
      const std::string_view value = Trim(line.substr(separator + 1));
      if (raw_) {
        Add(key, std::string(value));
      } else if (!value.empty() && (value[0] == '"' || value[0] == '\'')) {
        TAKT_RETURN_IF_ERROR(AddQuoted(key, static_cast<std::size_t>(value.data() - text_.data())));
      } else {
        std::string_view bare = value;
        const std::size_t comment = std::min(bare.find(" #"), bare.find("\t#"));
        TAKT_RETURN_IF_ERROR(AddExpanded(key, Trim(bare.substr(0, comment))));
      }
    }
    return std::move(pairs_);
  }

 private:
  absl::Status Fail(const std::string& message) const {
    return absl::InvalidArgumentError(StrCat("line ", line_, ": ", message));
  }

  // A quoted value that starts at `start` of the text and may go over lines.
  absl::Status AddQuoted(const std::string& key, std::size_t start) {
    const char quote = text_[start];
    std::size_t end = start + 1;
    while (end < text_.size() && text_[end] != quote) {
      end += quote == '"' && text_[end] == '\\' ? 2 : 1;
    }
    if (end >= text_.size()) return Fail(StrCat("the quote of ", key, " stays open"));
    const std::string_view inner = text_.substr(start + 1, end - start - 1);
    line_ += static_cast<int>(std::count(inner.begin(), inner.end(), '\n'));
    at_ = std::min(text_.find('\n', end), text_.size()) + 1;
    if (quote == '\'') {
      Add(key, std::string(inner));
      return absl::OkStatus();
    }
    return AddExpanded(key, Unescape(inner));
  }

  absl::Status AddExpanded(const std::string& key, std::string_view value) {
    if (value.find('$') == std::string_view::npos) {
      Add(key, std::string(value));
      return absl::OkStatus();
    }
    std::vector<Issue> issues;
    Report report("", &issues);
    Interpolator interpolator(value, known_, "", report);
    Node node = Node::String(std::string(value), {1, 1, 0});
    interpolator.Apply(node);
    if (report.has_error()) return Fail(StrCat(key, ": ", issues.front().message));
    Add(key, std::move(node.text));
    return absl::OkStatus();
  }

  void Add(const std::string& key, std::string value) {
    if (!values_.contains(key)) known_[key] = value;
    pairs_.emplace_back(key, std::move(value));
  }

  std::string_view text_;
  bool raw_;
  const std::map<std::string, std::string>& values_;
  std::size_t at_ = 0;
  int line_ = 0;
  std::map<std::string, std::string> known_;
  Pairs pairs_;
};

}  // namespace

absl::StatusOr<Pairs> ParseEnvFile(std::string_view text, bool raw,
                                   const std::map<std::string, std::string>& values) {
  return Reader(text, raw, values).Read();
}

}  // namespace takt::templates
