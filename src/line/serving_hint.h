// Why a model server finds no version: it was given a directory whose versions lie one level
// below. The decision is a pure function of a listing; reading the listing is apart.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "line/spec.h"

namespace takt::line {

// The directory that a serving service takes for its model's versions, as its command says
// (--model_base_path=X or --model_base_path X) and where that lies. nullopt when it says none or it
// lies in no volume.
struct ServedDirectory {
  std::string base_path;     // in the instance: "/mnist_model"
  std::string volume;        // its volume
  std::string subdirectory;  // of the volume: what the mount has already, and the path below it
  bool is_mount = false;     // the base path is the mount itself, so a volume option can move it
};
std::optional<ServedDirectory> FindServedDirectory(const runtime::ServiceSpec& spec,
                                                   const std::vector<MountSource>& sources);

// The directories in a directory, each with the names of the directories in it.
using Listing = std::map<std::string, std::set<std::string>>;
inline constexpr std::size_t kMaxListed = 1000;  // at each level; beyond is not looked at
// Of a directory on this machine; empty when there is none.
Listing ListTwoLevels(const std::string& path);

struct ServingHint {
  std::string message;       // "no version under /mnist_model; found 1 under ...: did you ...?"
  std::string subdirectory;  // the one that holds versions; empty where there is none
};
// nullopt when the directory holds a version. A version is a directory named by a number.
std::optional<ServingHint> FindServingHint(const std::string& base_path, const Listing& listing);

}  // namespace takt::line
