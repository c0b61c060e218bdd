#include "serving/lifecycle/model_storage.h"

#include <vector>

#include "base/fs.h"
#include "serving/lifecycle/version_policy.h"

namespace takt::serving {

absl::StatusOr<std::map<std::int64_t, std::string>> FileModelStorage::ListVersions(
    const std::string& base_path) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(base_path));
  std::map<std::int64_t, std::string> versions;
  for (const std::string& name : names) {
    const std::optional<std::int64_t> version = ParseVersion(name);
    if (!version.has_value()) continue;
    const std::string path = JoinPath(base_path, name);
    if (IsDirectory(path)) versions.emplace(*version, path);
  }
  return versions;
}

absl::StatusOr<VersionFingerprint> FileModelStorage::Fingerprint(const std::string& version_path) {
  return FingerprintVersion(version_path);
}

absl::Status FileModelStorage::CheckComplete(const std::string& version_path) {
  return CheckVersionComplete(version_path);
}

absl::StatusOr<std::string> FileModelStorage::Localize(const std::string& version_path) {
  return version_path;
}

}  // namespace takt::serving
