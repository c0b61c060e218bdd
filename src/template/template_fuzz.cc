// Any bytes as a template: loading ends soon, and says of every error where it is.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "template/template.h"

namespace {

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using takt::templates::Issue;
  const std::string text(reinterpret_cast<const char*>(data), size);
  takt::templates::LoadOptions options;
  options.values = {{"A", "1"}, {"B", ""}, {"PORT", "80-82"}};
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
