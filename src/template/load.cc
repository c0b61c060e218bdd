#include "template/template.h"

#include <algorithm>
#include <utility>

#include "base/str.h"
#include "template/interpolate.h"
#include "template/report.h"
#include "template/yaml.h"

namespace takt::templates {

std::string Issue::ToString() const {
  std::string text = file;
  if (line > 0) text += StrCat(":", line, ":", column);
  text += ": ";
  if (severity == Severity::kWarning) text += "warning: ";
  if (!path.empty()) text += StrCat(path, ": ");
  text += message;
  if (!suggestion.empty()) text += StrCat(" (", suggestion, ")");
  return text;
}

bool LoadResult::ok() const {
  return std::none_of(issues.begin(), issues.end(),
                      [](const Issue& issue) { return issue.severity == Issue::Severity::kError; });
}

absl::Status LoadResult::status() const {
  std::string text;
  for (const Issue& issue : issues) {
    if (issue.severity != Issue::Severity::kError) continue;
    if (!text.empty()) text += '\n';
    text += issue.ToString();
  }
  return text.empty() ? absl::OkStatus() : absl::InvalidArgumentError(text);
}

LoadResult LoadTemplate(std::string_view text, const LoadOptions& options) {
  LoadResult result;
  Report report(options.file_name, &result.issues);
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  std::vector<Node> documents = ParseYaml(text, report);
  if (report.has_error()) return result;
  Interpolator interpolator(text, options.values, options.project_name, report);
  for (Node& document : documents) interpolator.Apply(document);
  result.parameters = interpolator.TakeParameters();
  return result;
}

}  // namespace takt::templates
