// Labels of the Container Service (aliyun.*) and ours (takt.*) -> what they mean for a service.
// Internal to this room.
#pragma once

#include <string>
#include <vector>

#include "template/app_spec.h"
#include "template/node.h"
#include "template/report.h"

namespace takt::templates {

// Reads every label of the canonical mapping `labels` into `service`; what a runtime may lack goes
// to `features`. `path` is that of the labels. Values that a label cannot have are errors, aliyun
// labels that are not known are warnings, takt ones errors.
void ApplyLabels(const Node& labels, const std::string& path, ServiceSpec& service,
                 std::vector<FeatureUse>& features, Report& report);

// Placement directives of the environment: constraint:group==1, affinity:service!=db,
// reschedule:on-node-failure, availability:az==3.
void ApplyPlacement(const std::vector<Node>& directives, const std::string& path,
                    ServiceSpec& service, std::vector<FeatureUse>& features, Report& report);

}  // namespace takt::templates
