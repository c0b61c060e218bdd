#include "base/mounts.h"

#include "base/fs.h"

namespace takt {

std::string HostPath(const Mounts& mounts, std::string_view path) {
  if (path.empty() || path[0] != '/') return "";
  const std::string clean = CleanPath(path);
  const std::pair<std::string, std::string>* best = nullptr;
  for (const auto& mount : mounts) {
    const std::string& target = mount.first;
    const bool holds = clean == target || target == "/" ||
                       (clean.starts_with(target) && clean[target.size()] == '/');
    if (holds && (best == nullptr || target.size() > best->first.size())) best = &mount;
  }
  if (best == nullptr) return "";
  return CleanPath(
      JoinPath(best->second, clean.substr(best->first == "/" ? 1 : best->first.size())));
}

}  // namespace takt
