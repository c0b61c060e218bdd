#include "template/template.h"

#include <algorithm>
#include <utility>

#include "base/str.h"
#include "template/canonical.h"
#include "template/interpolate.h"
#include "template/merge.h"
#include "template/parameters.h"
#include "template/report.h"
#include "template/schema.h"
#include "template/spec.h"
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

namespace {

constexpr std::string_view kDefaultName = "app";

// Fields of the Compose specification that are not for a template of one file, each with why.
void RefuseUnsupported(const Node& root, Report& report) {
  const Path top;
  if (const Node* include = root.Find("include")) {
    report.Error(include->mark, Path(top, "include"),
                 "include is not supported: a template is one file",
                 "put what is included into this file");
  }
  if (const Node* jobs = root.Find("jobs")) {
    report.Error(jobs->mark, Path(top, "jobs"), "jobs are not supported",
                 "a service that ends by itself is a job");
  }
  const Node* services = root.Find("services");
  if (services == nullptr) return;
  for (const Entry& service : services->entries) {
    if (const Node* hook = service.value.Find("pre_start")) {
      report.Error(hook->mark, StrCat("services.", service.key, ".pre_start"),
                   "pre_start is not supported",
                   "a service with depends_on: service_completed_successfully does the same");
    }
  }
}

// Names that some fields had before they were part of the specification.
void RenameExtensions(Node& root) {
  Node* services = root.Find("services");
  if (services == nullptr) return;
  for (Entry& service : services->entries) {
    for (Entry& field : service.value.entries) {
      if (field.key == "x-develop" && service.value.Find("develop") == nullptr) {
        field.key = "develop";
      }
    }
  }
}

// A name that is a ${VAR} as well keeps what is known of that.
void AddNamedValues(const Completed& completed, std::vector<Parameter>& parameters) {
  for (const Parameter& named : completed.named_values) {
    const auto same = [&](const Parameter& parameter) { return parameter.name == named.name; };
    const auto known = std::find_if(parameters.begin(), parameters.end(), same);
    if (known != parameters.end()) {
      known->uses.push_back(named.uses.front());
      known->required |= named.required && !known->default_value.has_value();
    } else {
      parameters.push_back(named);
      parameters.back().type = GuessType(named);
    }
  }
}

void CheckVersion(Node& root, Report& report) {
  const Node* version = root.Find("version");
  if (version == nullptr) return;
  const std::string text = version->ToText();
  if (text.empty() || (text[0] != '1' && text[0] != '2' && text[0] != '3') ||
      (text.size() > 1 && text[1] != '.')) {
    report.Warn(version->mark, "version",
                StrCat("expected version 1, 2 or 3, got ", version->Describe(),
                       "; it is read as the Compose specification"));
  }
}

}  // namespace

LoadResult LoadTemplate(std::string_view text, const LoadOptions& given) {
  LoadResult result;
  Report report(given.file_name, &result.issues);
  LoadOptions options = given;
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());

  for (const auto& [name, value] : options.values) {
    if (!IsText(name) || !IsText(value)) {
      report.Error({}, "",
                   StrCat("the value of ", IsText(name) ? name : "a parameter",
                          ": expected UTF-8 text without NUL characters"));
    }
  }
  std::vector<Node> documents = ParseYaml(text, report);
  if (report.has_error()) return result;
  if (options.project_name.empty()) options.project_name = kDefaultName;

  Interpolator interpolator(text, options.values, options.project_name, report);
  for (Node& document : documents) interpolator.Apply(document);
  result.parameters = interpolator.TakeParameters();
  for (Parameter& parameter : result.parameters) parameter.type = GuessType(parameter);

  Node root = MergeDocuments(std::move(documents), report);
  const std::size_t fields = root.entries.size() - (root.Find("version") == nullptr ? 0 : 1);
  if (fields == 0 && !report.has_error()) {
    report.Error({1, 1, 0}, "", "expected a mapping with services, got an empty file");
  }
  if (report.has_error()) return result;
  if (IsVersion1(root)) FromVersion1(root);
  if (const Node* services = root.Find("services"); services != nullptr && !services->is_map()) {
    report.Error(services->mark, "services",
                 StrCat("expected a mapping of services, got ", services->Describe()));
    return result;
  }
  CheckVersion(root, report);
  RefuseUnsupported(root, report);
  RenameExtensions(root);
  ApplyExtends(root, report);
  if (report.has_error()) return result;
  CheckAndConvert(root, report);
  if (report.has_error()) return result;
  root.Erase("version");
  const std::string own_name(root.Text("name"));
  const Completed completed = Complete(root, options, report);
  AddNamedValues(completed, result.parameters);
  if (report.has_error()) return result;
  result.spec = BuildSpec(root, completed, options, report);
  result.spec.name = own_name;
  root.Erase("models");  // not part of the canonical form
  result.canonical_json = ToJson(root);
  return result;
}

}  // namespace takt::templates
