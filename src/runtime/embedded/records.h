// What the embedded runtime remembers on disk, as JSON: a service's record and an instance's.
#pragma once

#include <string>

#include "base/status.h"
#include "runtime/supervisor.h"

namespace takt::runtime {

std::string ServiceToJson(const ServiceRecord& record);
// DATA_LOSS saying what is wrong.
absl::StatusOr<ServiceRecord> ServiceFromJson(const std::string& text);

std::string InstanceToJson(const InstanceRecord& record);
absl::StatusOr<InstanceRecord> InstanceFromJson(const std::string& text);

}  // namespace takt::runtime
