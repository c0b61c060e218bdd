// YAML text -> nodes. The YAML library stops here. Internal to this room.
#pragma once

#include <string_view>
#include <vector>

#include "template/node.h"
#include "template/report.h"

namespace takt::templates {

// The documents of `text`, with aliases replaced by copies and `<<` merged. Limits of template.h
// hold while reading, so that a text of a few lines cannot grow without bound. Empty with an error
// in `report` when the text is no YAML.
std::vector<Node> ParseYaml(std::string_view text, Report& report);

// True for UTF-8 without NUL characters: what may stand in a value.
bool IsText(std::string_view text);

// A plain (unquoted) scalar by the rules of YAML 1.2's core schema, with octal 0440 and 1_000 as
// compose files have them.
Node ResolvePlain(std::string_view text, Mark mark);

}  // namespace takt::templates
