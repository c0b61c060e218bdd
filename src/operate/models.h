// Which directory a training service exports its model to, which directories a model server loads
// from, and which versions lie there. Two services speak of the same model when their directories
// are the same one. Reads directories, changes nothing; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "storage/volumes.h"
#include "template/app_spec.h"

namespace takt::operate {

inline constexpr std::size_t kMaxVersions = 10'000;  // of one directory: the newest are told

struct Model {
  std::string name;       // of the label, else the directory's own
  std::string volume;     // "" for a directory of the host
  std::string path;       // below the volume, without a slash at the start; "" = its root
  std::string directory;  // on this machine
};

// From takt.model; without it, the last positional argument of the command that lies on a mount
// (a trainer's customary last argument). nullopt where there is neither.
std::optional<Model> MadeBy(const templates::ServiceSpec& service, storage::VolumeStore& volumes);

struct Loaded {
  Model model;
  std::vector<std::int64_t> versions;  // it is told to serve; empty = the newest
  std::string served_as;               // what requests call the model
};
// From --model_config_file (a config of the template, or a file on a mount), else from
// --model_base_path or MODEL_BASE_PATH with MODEL_NAME, as TensorFlow Serving reads them. What is
// on no mount is left out.
std::vector<Loaded> LoadedBy(const templates::ServiceSpec& service, storage::VolumeStore& volumes);

struct Version {
  std::int64_t number = 0;
  std::int64_t modified_ns = 0;  // since the epoch: of saved_model.pb, else of the directory
  bool complete = false;         // saved_model.pb is there
  bool operator==(const Version&) const = default;
};
// By rising number; what is no version (no number) is passed by. Empty when there is no directory.
std::vector<Version> ListVersions(const std::string& directory);

}  // namespace takt::operate
