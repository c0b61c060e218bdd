// Files of KEY=VALUE lines, as `env_file` and `label_file` name them. Internal to this room.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace takt::templates {

// Lines KEY=VALUE or KEY: VALUE, after an optional `export`; # starts a comment, at the start of a
// line or after a space. 'single' quotes hold text as it is; "double" ones and bare values have
// $VAR and ${VAR...} replaced, by `values` first, then by earlier lines; double ones also escapes.
// A quoted value may go over lines. A bare KEY takes its value of `values`, or is left out.
// With `raw`, a value is everything after the equals sign. INVALID_ARGUMENT with the line.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseEnvFile(
    std::string_view text, bool raw, const std::map<std::string, std::string>& values);

}  // namespace takt::templates
