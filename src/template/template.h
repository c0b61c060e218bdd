// Compose text + values -> AppSpec. The YAML library stops at this room. It never names an engine:
// what a runtime cannot do is found by comparing AppSpec::features with its Capabilities.
// Pure functions; any thread.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "template/app_spec.h"

namespace takt::templates {

// What is wrong with a template, and where. Printed as
// "FILE:LINE:COLUMN: PATH: MESSAGE", with `suggestion` ("did you mean command?") after it.
struct Issue {
  enum class Severity { kError, kWarning };
  Severity severity = Severity::kError;
  std::string file;
  int line = 0;            // 1-based; 0 = the whole file
  int column = 0;          // 1-based
  std::string path;        // "services.web.comand"; may be empty
  std::string message;     // expected what, got what
  std::string suggestion;  // may be empty
  std::string ToString() const;
};

struct LoadOptions {
  std::string file_name = "template";  // for messages
  std::string project_dir = "/app";    // what relative paths are relative to
  std::string project_name;            // app name
  std::map<std::string, std::string> values;
  bool allow_files = false;  // may env_file, configs and secrets read files below project_dir?
  bool all_profiles = true;
};

struct LoadResult {
  AppSpec spec;                       // meaningful when there is no error among the issues
  std::vector<Parameter> parameters;  // filled even where there are errors, as far as known
  std::vector<Issue> issues;
  std::string canonical_json;  // the Compose specification's canonical form
  bool ok() const;
  // INVALID_ARGUMENT with every error, a line each; OK when there is none.
  absl::Status status() const;
};

// Limits: a template may have 1 MiB of text, 64 levels, and 100,000 nodes after aliases.
inline constexpr std::size_t kMaxTemplateBytes = 1 << 20;
inline constexpr int kMaxTemplateDepth = 64;
inline constexpr std::size_t kMaxTemplateNodes = 100'000;

// Never fails as a call: what is wrong is in `issues`.
LoadResult LoadTemplate(std::string_view text, const LoadOptions& options);

}  // namespace takt::templates
