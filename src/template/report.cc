#include "template/report.h"

#include <algorithm>

#include "base/str.h"

namespace takt::templates {

std::string Path::ToString() const {
  if (is_root()) return "";
  std::string text = parent_->ToString();
  if (is_index()) {
    text += StrCat("[", index_, "]");
    return text;
  }
  if (!text.empty()) text += '.';
  text += key_;
  return text;
}

void Report::Error(Mark mark, std::string path, std::string message, std::string suggestion) {
  ++errors_;
  Add(Issue::Severity::kError, mark, std::move(path), std::move(message), std::move(suggestion));
}

void Report::Warn(Mark mark, std::string path, std::string message, std::string suggestion) {
  Add(Issue::Severity::kWarning, mark, std::move(path), std::move(message), std::move(suggestion));
}

void Report::Add(Issue::Severity severity, Mark mark, std::string path, std::string message,
                 std::string suggestion) {
  const auto same = [&](const Issue& issue) {
    return issue.severity == severity && issue.line == mark.line && issue.column == mark.column &&
           issue.message == message;
  };
  if (issues_->size() > kMaxIssues || std::any_of(issues_->begin(), issues_->end(), same)) return;
  if (issues_->size() == kMaxIssues) {
    severity = has_error() ? Issue::Severity::kError : Issue::Severity::kWarning;
    path.clear();
    suggestion.clear();
    message = StrCat("and more: only the first ", kMaxIssues, " are listed");
  }
  issues_->push_back({severity, file_, mark.line, mark.column, std::move(path), std::move(message),
                      std::move(suggestion)});
}

}  // namespace takt::templates
