// Where models' versions lie. One implementation for directories; object stores join behind the
// same four questions, and tests inject faults here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "base/status.h"
#include "serving/lifecycle/version_files.h"

namespace takt::serving {

// All functions may be called from any thread and may block as long as the storage does.
class ModelStorage {
 public:
  virtual ~ModelStorage() = default;
  // Each version under the base path with its own path. NOT_FOUND and the like when the base path
  // cannot be listed; an empty map when it holds no version.
  virtual absl::StatusOr<std::map<std::int64_t, std::string>> ListVersions(
      const std::string& base_path) = 0;
  virtual absl::StatusOr<VersionFingerprint> Fingerprint(const std::string& version_path) = 0;
  virtual absl::Status CheckComplete(const std::string& version_path) = 0;
  // A directory on this machine from which the version can be loaded.
  virtual absl::StatusOr<std::string> Localize(const std::string& version_path) = 0;
};

class FileModelStorage final : public ModelStorage {
 public:
  // Where two names stand for one version ("1" and "001"), the first in sorted order.
  absl::StatusOr<std::map<std::int64_t, std::string>> ListVersions(
      const std::string& base_path) override;
  absl::StatusOr<VersionFingerprint> Fingerprint(const std::string& version_path) override;
  absl::Status CheckComplete(const std::string& version_path) override;
  absl::StatusOr<std::string> Localize(const std::string& version_path) override;
};

// Base paths that begin with `scheme` ("s3://") go to one storage, all others to the other.
class StorageByScheme final : public ModelStorage {
 public:
  StorageByScheme(std::string scheme, ModelStorage& with_scheme, ModelStorage& others)
      : scheme_(std::move(scheme)), with_scheme_(with_scheme), others_(others) {}
  absl::StatusOr<std::map<std::int64_t, std::string>> ListVersions(
      const std::string& base_path) override {
    return For(base_path).ListVersions(base_path);
  }
  absl::StatusOr<VersionFingerprint> Fingerprint(const std::string& version_path) override {
    return For(version_path).Fingerprint(version_path);
  }
  absl::Status CheckComplete(const std::string& version_path) override {
    return For(version_path).CheckComplete(version_path);
  }
  absl::StatusOr<std::string> Localize(const std::string& version_path) override {
    return For(version_path).Localize(version_path);
  }

 private:
  ModelStorage& For(const std::string& path) {
    return path.starts_with(scheme_) ? with_scheme_ : others_;
  }
  const std::string scheme_;
  ModelStorage& with_scheme_;
  ModelStorage& others_;
};

}  // namespace takt::serving
