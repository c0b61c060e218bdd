// takt check FILE: what is wrong with a template, its parameters, and what it says when its
// variables are in place. Starts nothing and asks no daemon.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/fs.h"
#include "base/status.h"
#include "base/text.h"
#include "commands.h"
#include "table.h"
#include "template/template.h"

namespace takt::cli {
namespace {

using nlohmann::ordered_json;

struct CheckOptions {
  std::string file;
  std::string name = "app";
  std::vector<std::string> sets;
  bool resolved = false;
  bool json = false;
};

absl::StatusOr<std::string> ReadTemplate(const std::string& file) {
  if (file == "-") {
    std::string text(std::istreambuf_iterator<char>(std::cin), {});
    return text;
  }
  auto text = ReadFile(file, templates::kMaxTemplateBytes);
  if (text.ok() || text.status().code() != absl::StatusCode::kResourceExhausted) return text;
  return absl::InvalidArgumentError(
      StrCat(file, ":1:1: expected at most ", templates::kMaxTemplateBytes, " bytes"));
}

absl::StatusOr<std::string> DirectoryOf(const std::string& file) {
  std::string path = file;
  if (!path.starts_with('/')) {
    std::unique_ptr<char, decltype(&free)> current(::getcwd(nullptr, 0), &free);
    if (current == nullptr) return ErrnoStatus(errno, "current directory");
    path = JoinPath(current.get(), path);
  }
  path = CleanPath(path);
  const std::size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string_view TypeName(templates::ParameterType type) {
  switch (type) {
    case templates::ParameterType::kInteger:
      return "integer";
    case templates::ParameterType::kNumber:
      return "number";
    case templates::ParameterType::kPath:
      return "path";
    case templates::ParameterType::kEndpoint:
      return "endpoint";
    case templates::ParameterType::kText:
      break;
  }
  return "text";
}

ordered_json ToJson(const templates::LoadResult& result) {
  ordered_json parameters = ordered_json::array();
  for (const auto& parameter : result.parameters) {
    ordered_json uses = ordered_json::array();
    for (const auto& use : parameter.uses) {
      uses.push_back({{"path", use.path}, {"line", use.line}, {"column", use.column}});
    }
    ordered_json row = {{"name", parameter.name}, {"type", TypeName(parameter.type)}};
    if (parameter.default_value.has_value()) row["default"] = *parameter.default_value;
    row["required"] = parameter.required;
    if (!parameter.message.empty()) row["message"] = parameter.message;
    row["uses"] = std::move(uses);
    parameters.push_back(std::move(row));
  }
  ordered_json issues = ordered_json::array();
  for (const auto& issue : result.issues) {
    issues.push_back(
        {{"severity", issue.severity == templates::Issue::Severity::kError ? "error" : "warning"},
         {"file", issue.file},
         {"line", issue.line},
         {"column", issue.column},
         {"path", issue.path},
         {"message", issue.message},
         {"suggestion", issue.suggestion}});
  }
  return {
      {"valid", result.ok()}, {"parameters", std::move(parameters)}, {"issues", std::move(issues)}};
}

void PrintParameters(const templates::LoadResult& result) {
  if (result.parameters.empty()) {
    std::cout << "no parameters\n";
    return;
  }
  std::vector<std::vector<std::string>> rows{{"PARAMETER", "TYPE", "DEFAULT", "REQUIRED", "USED"}};
  for (const auto& parameter : result.parameters) {
    std::string used;
    if (!parameter.uses.empty()) {
      const auto& use = parameter.uses.front();
      used = StrCat(use.path, " (line ", use.line, ")");
      if (parameter.uses.size() > 1) used += StrCat(" and ", parameter.uses.size() - 1, " more");
    }
    rows.push_back({parameter.name, std::string(TypeName(parameter.type)),
                    parameter.default_value.value_or(""), parameter.required ? "yes" : "no", used});
  }
  std::cout << FormatTable(rows);
}

void WarnOfUnusedValues(const templates::LoadOptions& options,
                        const templates::LoadResult& result) {
  std::vector<std::string_view> names;
  for (const auto& parameter : result.parameters) names.push_back(parameter.name);
  for (const auto& [name, value] : options.values) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const auto near = NearMiss(name, names);
    std::cerr << "warning: --set " << name << ": the template has no such parameter"
              << (near ? StrCat(" (did you mean ", *near, "?)") : "") << "\n";
  }
}

absl::Status RunCheck(const CheckOptions& check) {
  templates::LoadOptions options;
  options.file_name = check.file;
  options.project_name = check.name;
  options.allow_files = true;
  for (const std::string& set : check.sets) {
    const std::size_t equals = set.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return absl::InvalidArgumentError(StrCat("--set: expected NAME=VALUE, got \"", set, "\""));
    }
    options.values[set.substr(0, equals)] = set.substr(equals + 1);
  }
  TAKT_ASSIGN_OR_RETURN(options.project_dir, DirectoryOf(check.file));
  TAKT_ASSIGN_OR_RETURN(const std::string text, ReadTemplate(check.file));

  const templates::LoadResult result = templates::LoadTemplate(text, options);
  if (result.ok()) WarnOfUnusedValues(options, result);
  if (check.json && !check.resolved) {
    std::cout << ToJson(result).dump(2) << "\n";
  } else {
    for (const auto& issue : result.issues) {
      if (issue.severity == templates::Issue::Severity::kWarning) {
        std::cerr << issue.ToString() << "\n";
      }
    }
    if (result.ok() && check.resolved) std::cout << result.canonical_json;
    if (!check.resolved) PrintParameters(result);
  }
  return result.status();
}

}  // namespace

void AddCheckCommand(CLI::App& app, int* exit_code) {
  auto options = std::make_shared<CheckOptions>();
  CLI::App* command =
      app.add_subcommand("check", "Check a template and list its parameters; starts nothing");
  command->add_option("FILE", options->file, "the template; - reads standard input")->required();
  command->add_option("--set", options->sets, "a parameter's value, NAME=VALUE; may be repeated")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  command->add_option("--name", options->name, "the app's name, which volumes and networks carry")
      ->capture_default_str();
  command->add_flag("--resolved", options->resolved,
                    "print the template with its values in place, as canonical JSON");
  command->add_flag("--json", options->json, "print parameters and issues as JSON");
  command->callback([options, exit_code] {
    const absl::Status status = RunCheck(*options);
    if (!status.ok()) std::cerr << ToStd(status.message()) << "\n";
    *exit_code = status.ok() ? 0 : ExitCodeFor(status.code());
  });
}

}  // namespace takt::cli
