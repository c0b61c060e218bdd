// Where a path inside an instance lies on this machine. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace takt {

// (path in the instance, path here), of the mounts that lie on this machine.
using Mounts = std::vector<std::pair<std::string, std::string>>;

// `path` by the mount with the longest target that holds it; "" when none does, or when it is no
// absolute path.
std::string HostPath(const Mounts& mounts, std::string_view path);

}  // namespace takt
