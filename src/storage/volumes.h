// Volumes: named storage that apps share. A local volume is a directory of the daemon's own
// (<data>/volumes/<name>) or an existing one (option `device`). It mounts nothing itself.
#pragma once

#include <cstddef>
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

inline constexpr std::size_t kMaxVolumes = 1000;
inline constexpr std::size_t kMaxSubdirectoryBytes = 1024;

// INVALID_ARGUMENT for what cannot be a subdirectory of a volume: absolute, "..", too long.
absl::Status CheckSubdirectory(const std::string& volume, const std::string& subdirectory);

// Thread-safe. One store at a time may write to a data directory (the line's lock sees to that).
class VolumeStore {
 public:
  // `data_dir`/volumes/<name> are the directories, `data_dir`/volumes/.records/<name>.json the
  // records, written atomically. A record that cannot be read harms nothing else: calls that name
  // its volume answer DATA_LOSS with the file, which is kept. `runtime_name` is for messages.
  static absl::StatusOr<std::unique_ptr<VolumeStore>> Open(
      const std::string& data_dir, const std::string& runtime_name = "embedded");
  virtual ~VolumeStore() = default;
  // ALREADY_EXISTS, INVALID_ARGUMENT for a bad name ("../x") or option, UNIMPLEMENTED for a driver
  // that this runtime has not, NOT_FOUND when `device` is not there, RESOURCE_EXHAUSTED beyond
  // kMaxVolumes. A directory that is there already without a record is taken over as it is.
  virtual absl::StatusOr<Volume> Create(const std::string& name, const std::string& driver,
                                        const std::map<std::string, std::string>& options) = 0;
  virtual absl::StatusOr<Volume> Get(const std::string& name) = 0;  // NOT_FOUND
  virtual std::vector<Volume> List() = 0;                           // by name
  // Deletes the record and, for a directory of the daemon's own, its content.
  virtual absl::Status Remove(const std::string& name) = 0;
  // OK when the volume can be used now; otherwise why not: "/data/nas is not mounted", which is
  // also said of a device that was a mount point when the volume was made and is none now.
  virtual absl::Status Ready(const std::string& name) = 0;
  // The directory of `subdirectory` in the volume, made when missing; without links. "" is the
  // volume's root. INVALID_ARGUMENT when it leaves the volume, by ".." or by a link; what Ready
  // answers when the volume cannot be used.
  virtual absl::StatusOr<std::string> Resolve(const std::string& name,
                                              const std::string& subdirectory) = 0;
};

}  // namespace takt::storage
