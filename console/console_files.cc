#include "console/console_files.h"

#include <algorithm>
#include <vector>

// Of console_files.S: the packed files, one behind the other.
extern "C" const char takt_console_blob[];

namespace takt::console {
namespace {

struct Row {
  std::string_view path, content_type, etag;
  std::size_t bytes, offset, packed_bytes;
};

constexpr Row kRows[] = {
#include "console_files.inc"
};

std::vector<File> MakeFiles() {
  std::vector<File> files;
  for (const Row& row : kRows) {
    files.push_back({row.path, row.content_type, row.etag, row.bytes,
                     std::string_view(takt_console_blob + row.offset, row.packed_bytes)});
  }
  return files;
}

}  // namespace

std::span<const File> Files() {
  static const std::vector<File> files = MakeFiles();
  return files;
}

const File* Find(std::string_view path) {
  const std::span<const File> files = Files();
  const auto found = std::ranges::find(files, path, &File::path);
  return found == files.end() ? nullptr : &*found;
}

}  // namespace takt::console
