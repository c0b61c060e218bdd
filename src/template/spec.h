// The canonical form -> AppSpec. Internal to this room.
#pragma once

#include "template/canonical.h"
#include "template/node.h"
#include "template/report.h"
#include "template/template.h"

namespace takt::templates {

// `root` is what Complete has made, `completed` what it returned. Services whose profiles are not
// on are left out. Everything that a field or label asks for is either in the result or among its
// features, so that a runtime that lacks it refuses it by name; what has no effect anywhere is a
// warning.
AppSpec BuildSpec(const Node& root, const Completed& completed, const LoadOptions& options,
                  Report& report);

}  // namespace takt::templates
