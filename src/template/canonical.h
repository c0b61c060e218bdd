// The last steps to the Compose specification's canonical form: defaults, paths, names, what one
// part of a file says of another. Internal to this room.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "template/node.h"
#include "template/report.h"
#include "template/template.h"

namespace takt::templates {

// True for a file of version 1: no `services`, each top-level key a service.
bool IsVersion1(const Node& root);
// Turns a file of version 1 into one with `services`; fields that were renamed since get their new
// names.
void FromVersion1(Node& root);

// What the canonical form itself has no place for.
struct Completed {
  // Placement directives (constraint:..., affinity:..., reschedule:...) by service, as written.
  std::map<std::string, std::vector<Node>> placement;
  // Volumes to which the file gives a name beside their key.
  std::set<std::string> named_volumes;
  // Parameters that are no ${VAR}: a bare KEY of an environment, which may have a value, and the
  // variable that a secret or config takes its content from, which should. One for each use.
  std::vector<Parameter> named_values;
};

// Completes `root`, which CheckAndConvert has been through without an error. Placement directives
// are taken out of the environments.
Completed Complete(Node& root, const LoadOptions& options, Report& report);

// What a link says: the service, and the name that its user gives it.
std::pair<std::string_view, std::string_view> SplitLink(std::string_view link);

// The path that `path` means in a template: ~ is the home directory, what is relative starts at
// the project's directory.
std::string ResolvePath(std::string_view path, const LoadOptions& options);

// Reads a file that a template names, where the options and kMaxTemplateBytes allow it.
absl::StatusOr<std::string> ReadProjectFile(const std::string& path, const LoadOptions& options);

}  // namespace takt::templates
