// Any bytes as a template, and as a file of variables: loading ends soon, and says of every error
// where it is.
#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "base/fuzz_for_test.h"
#include "template/env_file.h"
#include "template/template.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using takt::Require;
  using takt::templates::Issue;
  const std::string text(reinterpret_cast<const char*>(data), size);
  takt::templates::LoadOptions options;
  options.values = {{"A", "1"}, {"B", ""}, {"PORT", "80-82"}};
  for (const bool raw : {false, true}) {
    const auto variables = takt::templates::ParseEnvFile(text, raw, options.values);
    Require(variables.ok() || !variables.status().message().empty(), "a refusal says why");
    for (std::size_t i = 0; variables.ok() && i < variables->size(); ++i) {
      Require(!(*variables)[i].first.empty(), "a variable has a name");
    }
  }
  const takt::templates::LoadResult result = takt::templates::LoadTemplate(text, options);

  const auto lines = std::count(text.begin(), text.end(), '\n') + 2;
  bool any_error = false;
  for (const Issue& issue : result.issues) {
    Require(issue.line >= 0 && issue.line <= lines, "an issue lies within the text");
    Require(!issue.message.empty(), "an issue says something");
    any_error |= issue.severity == Issue::Severity::kError;
  }
  Require(result.ok() != any_error, "ok means no error");
  for (const auto& parameter : result.parameters) {
    Require(!parameter.name.empty() && !parameter.uses.empty(), "a parameter is used somewhere");
  }
  if (result.ok()) {
    const auto model = nlohmann::json::parse(result.canonical_json, nullptr, false);
    Require(model.is_object(), "the canonical form is JSON");
    for (const auto& service : result.spec.services) {
      Require(model["services"].contains(service.name), "a service is in the canonical form");
    }
    for (const auto& [name, volume] : result.spec.volumes) {
      Require(volume.actual_name.find('/') == std::string::npos, "a volume's name is no path");
    }
  }
  return 0;
}
