// Where a service's directories lie on this machine. Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/mounts.h"
#include "storage/volumes.h"
#include "template/app_spec.h"

namespace takt::operate {

// Its volumes and bound directories.
Mounts MountsOf(const templates::ServiceSpec& service, storage::VolumeStore& volumes);

// Where a training service writes events: the directory of takt.learning, else all its mounts. They
// may not be there yet.
std::vector<std::string> EventDirectories(const templates::ServiceSpec& service,
                                          storage::VolumeStore& volumes);

}  // namespace takt::operate
