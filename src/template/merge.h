// One part of a file over another: several documents, a service that extends another. Internal to
// this room.
#pragma once

#include <vector>

#include "template/node.h"
#include "template/report.h"

namespace takt::templates {

// All documents of a file as one, each over those before it, by the rules of the Compose
// specification: mappings are merged, lists appended, `!override` replaces and `!reset` removes.
Node MergeDocuments(std::vector<Node> documents, Report& report);

// Puts the base of each service with `extends` under it and drops the field, and all that is
// tagged `!reset`. A base in another file
// is an error: a template is one file.
void ApplyExtends(Node& root, Report& report);

}  // namespace takt::templates
