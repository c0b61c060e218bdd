// Is a version's directory whole? A copy into shared storage is not atomic: the server must tell a
// half-copied version from a finished one without help from whoever copies.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace takt::serving {

inline constexpr std::size_t kMaxVersionFiles = 10000;
inline constexpr std::size_t kMaxGraphBytes = std::size_t{2} << 30;  // protobuf's own limit
inline constexpr std::size_t kMaxIndexBytes = std::size_t{256} << 20;

// Name of the optional manifest in a version's directory:
//   {"files": [{"path": "saved_model.pb", "bytes": 123}, ...]}
// Where there is one, the version is complete when each file that it names has its size.
inline constexpr char kManifestName[] = "manifest.json";

// What a directory looks like from outside: equal when no file in it came, went, grew or was
// rewritten. Cheap: no file is opened.
struct VersionFingerprint {
  std::string text;  // one line a file: path, size, time of change
  std::chrono::system_clock::time_point newest_change;
  bool operator==(const VersionFingerprint& other) const { return text == other.text; }
};

// NOT_FOUND when there is no such directory; RESOURCE_EXHAUSTED beyond kMaxVersionFiles;
// FAILED_PRECONDITION naming what is neither a file nor a directory. Links are followed.
absl::StatusOr<VersionFingerprint> FingerprintVersion(const std::string& path);

// OK when all files are there at their sizes: the manifest says so, or saved_model.pb parses and
// variables.index (if there is a variables directory) and every shard that it names are whole.
// FAILED_PRECONDITION says what is missing, expected and got. Reads the index and the graph, not
// the shards' content: a flipped byte in a shard shows when it is loaded.
absl::Status CheckVersionComplete(const std::string& path);

// The shards that a variables.index (its whole content) names, each with the bytes that it must
// have. FAILED_PRECONDITION for anything that is not a whole index.
absl::StatusOr<std::vector<std::uint64_t>> ShardSizesOfIndex(std::string_view file);

}  // namespace takt::serving
