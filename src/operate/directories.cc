#include "operate/directories.h"

#include "base/fs.h"

namespace takt::operate {

Mounts MountsOf(const templates::ServiceSpec& service, storage::VolumeStore& volumes) {
  Mounts mounts;
  for (const templates::Mount& mount : service.mounts) {
    if (mount.kind == templates::Mount::Kind::kBind) {
      mounts.emplace_back(CleanPath(mount.target), mount.source);
    } else if (mount.kind == templates::Mount::Kind::kVolume && !mount.source.empty()) {
      const auto path = volumes.Resolve(mount.source, mount.subdirectory);
      if (path.ok()) mounts.emplace_back(CleanPath(mount.target), *path);
    }
  }
  return mounts;
}

std::vector<std::string> EventDirectories(const templates::ServiceSpec& service,
                                          storage::VolumeStore& volumes) {
  const Mounts mounts = MountsOf(service, volumes);
  std::vector<std::string> directories;
  if (!service.learning.empty()) {
    directories.push_back(HostPath(mounts, service.learning));
  } else {  // wherever event files lie on its volumes
    for (const auto& [inside, here] : mounts) directories.push_back(here);
  }
  std::erase(directories, "");
  return directories;
}

}  // namespace takt::operate
