// How an instance sees files: as bubblewrap arguments that build its mount tree, or, where
// namespaces are not allowed, as a translation of its paths to this machine's. Reads the file
// system (what the root holds), changes nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"

namespace takt::runtime {

// One thing laid into an instance's tree.
struct Placement {
  enum class Kind { kBind, kReadOnlyBind, kDeviceBind, kTmpfs, kLink, kDirectory };
  Kind kind = Kind::kBind;
  std::string source{};     // host path, or the link's content
  std::uint64_t bytes = 0;  // kTmpfs: its limit, 0 = none
  int mode = 0755;          // kTmpfs, kDirectory
};

// A directory of the root, with so many entries at most, can get a new entry for a mount.
inline constexpr std::size_t kMaxOpenedEntries = 1024;

struct Tree {
  std::string root = "/";                       // read-only base of the tree
  std::map<std::string, Placement> placements;  // by absolute path in the instance
  bool read_only = false;  // the rest, made of memory, cannot be written either
};

// Arguments of bubblewrap that make the tree. The root appears entry by entry on a fresh tmpfs, so
// that mount points can be made anywhere; /proc, /dev and a private /tmp are there unless placed.
// INVALID_ARGUMENT for a path that cannot be laid.
absl::StatusOr<std::vector<std::string>> BuildTree(const Tree& tree);

// `path` with the links of `root` followed in all but its last part: "/var/run/x" -> "/run/x".
std::string ResolveIn(const std::string& root, const std::string& path);

// Replaces paths of the instance by paths of the host in a word of a command or the value of a
// variable: "--base=/model/1" with {"/model", "/data/v"} -> "--base=/data/v/1". A path counts where
// it stands alone: not inside a longer path or name.
std::string TranslatePaths(const std::string& text,
                           const std::map<std::string, std::string>& host_paths);

// Replaces names of services by their first address, where a port follows:
// "--server=serving:9000" -> "--server=127.64.0.1:9000".
std::string TranslateNames(const std::string& text,
                           const std::map<std::string, std::vector<std::string>>& addresses);

}  // namespace takt::runtime
