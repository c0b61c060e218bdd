// The image catalogue: what an image name of a template means on this machine, which pulls nothing.
// Entries come from <prefix>/share/takt/images.json (shipped) and <data_dir>/images.json (the
// user's, which come first); both are read again when they change. The format is in
// docs/images.md. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "runtime/runtime.h"

namespace takt::runtime {

struct ImageProgram {
  std::string path;  // as commands name it: an absolute path, or a bare name
  std::string file;  // absolute, on this machine
  std::string role;  // of a command that starts it; empty = the image's
};

struct Image {
  std::vector<std::string> names;  // exact or globs, without regard to case
  std::string role;                // "training", "serving", "client" or ""
  std::string root = "host";       // "host", or the absolute directory that is its root
  std::vector<ImageProgram> programs;
  std::vector<std::string> path;              // absolute directories that come first in PATH
  std::map<std::string, std::string> mounts;  // path in the instance -> absolute path, read-only
  std::optional<std::vector<std::string>> entrypoint, command;
  std::map<std::string, std::string> environment;
  // Variables that instances get from the daemon's own environment, where it has them. A directory
  // that one names is visible at its own path, read-only.
  std::vector<std::string> inherit;
  std::string working_dir, user;
  std::string source;     // file that defines it
  std::string canonical;  // the entry as written, for the digest
};

inline constexpr std::size_t kMaxCatalogueBytes = 1 << 20;

class ImageCatalogue {
 public:
  // `prefix`: relative paths of entries start here.
  ImageCatalogue(std::string prefix, const std::string& data_dir);

  // NOT_FOUND with how to add it; FAILED_PRECONDITION when a file of it is missing or a catalogue
  // file is wrong, with where.
  absl::StatusOr<Image> Find(const std::string& name);
  // "sha256:..." over the entry and the content of what it lays.
  absl::StatusOr<std::string> Digest(const Image& image);
  // All entries, in the order in which they are tried.
  absl::StatusOr<std::vector<Image>> List();

  const std::string& user_file() const { return user_file_; }

 private:
  struct Source {
    std::string path;
    std::int64_t stamp = -1;  // modification time, ns; 0 = no such file
    absl::Status status;
    std::vector<Image> images;
  };
  absl::Status Reload(Source& source);

  std::string prefix_, user_file_;
  std::mutex mutex_;
  Source sources_[2];
  std::map<std::string, std::string> file_digests_;  // "path size mtime" -> digest
};

// The program among `image`'s that `argument` names, or null. Absolute paths without regard to
// case.
const ImageProgram* FindProgram(const Image& image, const std::string& argument);

// The entries of one file's text; `where` for messages. Pure.
absl::StatusOr<std::vector<Image>> ParseImages(const std::string& text, const std::string& where,
                                               const std::string& prefix);
// Whether the image called `name` is one of `pattern`. Pure.
bool ImageMatches(const std::string& pattern, const std::string& name);

}  // namespace takt::runtime
