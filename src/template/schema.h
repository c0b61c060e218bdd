// What a compose file may hold: every field with the kinds of value that it takes and how these
// become canonical. Internal to this room.
#pragma once

#include <string_view>
#include <vector>

#include "template/node.h"
#include "template/report.h"

namespace takt::templates {

// Checks `root`, whose variables are in place, against the Compose specification, and turns it into
// the canonical long form: short forms expanded, types cast, extension fields of structs dropped
// (top-level ones stay), what says nothing dropped.
void CheckAndConvert(Node& root, Report& report);

// Names of the top-level fields, and of a service's.
const std::vector<std::string_view>& TopLevelFields();
const std::vector<std::string_view>& ServiceFields();

// "expected a text or a list, got the number 5" and where `field` may be meant: what a struct says
// to a field that it does not have.
std::string SuggestField(std::string_view field, const std::vector<std::string_view>& known);

}  // namespace takt::templates
