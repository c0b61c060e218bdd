// Files, with every error as a Status that names the path. Thread-safe: no state.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace takt {

// The whole file. RESOURCE_EXHAUSTED when it is larger than `max_bytes`, NOT_FOUND when absent,
// INVALID_ARGUMENT when it is a directory.
absl::StatusOr<std::string> ReadFile(const std::string& path, std::size_t max_bytes);
// Writes beside `path`, syncs, renames: a reader sees the old file or the whole new one, and the
// new one is on the disk when this returns.
absl::Status WriteFileAtomic(const std::string& path, std::string_view content, int mode = 0644);
// The same without waiting for the disk, which takes milliseconds: for what is worth nothing after
// the machine went down. It survives this process's death.
absl::Status WriteFileWhole(const std::string& path, std::string_view content, int mode = 0644);
// Creates the directory and its missing parents. OK when it exists.
absl::Status MakeDirs(const std::string& path, int mode = 0755);
// Names (not paths) in a directory, sorted, without "." and "..".
absl::StatusOr<std::vector<std::string>> ListDir(const std::string& path);
// Removes a file or a whole tree. OK when there is none. Never follows links.
absl::Status RemoveAll(const std::string& path);
bool Exists(const std::string& path);
bool IsDirectory(const std::string& path);
// `a` and `b` with exactly one slash between; `b` when `a` is empty.
std::string JoinPath(std::string_view a, std::string_view b);
// Lexically normal, absolute or relative as given: "/a/./b/../c/" -> "/a/c".
std::string CleanPath(std::string_view path);
// Removes the directory tree when it goes out of scope. For tests and temporary work.
class TempDir {
 public:
  // A fresh directory under TMPDIR (or /tmp); ends the process when none can be made.
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace takt
