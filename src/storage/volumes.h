// Volumes: named storage that apps share. Kept in the daemon's database; a local volume is a
// directory of the daemon's own (<data>/volumes/<name>) or an existing one (option `device`).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace takt::storage {

struct Volume {
  std::string name;
  std::string driver = "local";
  std::map<std::string, std::string> options;  // local: "device": an absolute directory
  std::string created_at;                      // RFC 3339
  std::string host_path;                       // where it lies on this machine
};

// Thread-safe.
class VolumeStore {
 public:
  // `data_dir`/volumes holds the directories and `data_dir`/volumes/<name>.json the records.
  static absl::StatusOr<std::unique_ptr<VolumeStore>> Open(const std::string& data_dir);
  virtual ~VolumeStore() = default;
  // ALREADY_EXISTS, INVALID_ARGUMENT for a bad name ("../x"), UNIMPLEMENTED for a driver that this
  // runtime has not, NOT_FOUND when `device` is not there.
  virtual absl::StatusOr<Volume> Create(const std::string& name, const std::string& driver,
                                        const std::map<std::string, std::string>& options) = 0;
  virtual absl::StatusOr<Volume> Get(const std::string& name) = 0;  // NOT_FOUND
  virtual std::vector<Volume> List() = 0;                           // by name
  // Deletes the record and, for a directory of the daemon's own, its content.
  virtual absl::Status Remove(const std::string& name) = 0;
  // OK when the volume can be used now; otherwise why not: "/data/nas is not mounted".
  virtual absl::Status Ready(const std::string& name) = 0;
  // The directory of `subdirectory` in the volume, made when missing. INVALID_ARGUMENT when it
  // leaves the volume, by ".." or by a link.
  virtual absl::StatusOr<std::string> Resolve(const std::string& name,
                                              const std::string& subdirectory) = 0;
};

}  // namespace takt::storage
