#include "digits.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/fs.h"

namespace takt::mnist {
namespace {

// Runs `python3 SCRIPT WORK_DIR`; what it printed on stdout.
absl::StatusOr<std::string> RunScript(const std::string& script, const std::string& work_dir) {
  int ends[2];
  if (pipe(ends) != 0) return ErrnoStatus(errno, "pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  const char* argv[] = {"python3", script.c_str(), work_dir.c_str(), nullptr};
  pid_t pid = 0;
  const int failed =
      posix_spawnp(&pid, argv[0], &actions, nullptr, const_cast<char* const*>(argv), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (failed != 0) {
    close(ends[0]);
    return ErrnoStatus(failed, "python3, which finds the digits");
  }
  std::string output;
  std::array<char, 4096> buffer;
  ssize_t got = 0;
  while ((got = read(ends[0], buffer.data(), buffer.size())) > 0 || (got < 0 && errno == EINTR)) {
    if (got > 0) output.append(buffer.data(), static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return absl::NotFoundError(StrCat(script, " found no digits (see above)"));
  }
  return output;
}

// Plain or gzip'd; zlib reads both.
absl::StatusOr<std::string> ReadMaybeCompressed(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return ErrnoStatus(errno, StrCat("open ", path));
  std::string content;
  std::array<char, 1 << 16> buffer;
  int got = 0;
  while ((got = gzread(file, buffer.data(), buffer.size())) > 0) {
    content.append(buffer.data(), static_cast<std::size_t>(got));
    if (content.size() > kMaxDigitFileBytes) break;
  }
  int code = Z_OK;
  const std::string message = gzerror(file, &code);
  gzclose(file);
  if (content.size() > kMaxDigitFileBytes) {
    return absl::ResourceExhaustedError(StrCat(path, ": more than ", kMaxDigitFileBytes, " bytes"));
  }
  if (got < 0) return absl::DataLossError(StrCat(path, ": ", message));
  return content;
}

// The body of an IDX file of bytes whose items have `item_bytes` each
// (http://yann.lecun.com/exdb/mnist: two zeros, type 8, rank, then big-endian sizes).
absl::StatusOr<std::string> ReadIdx(const std::string& directory, const std::string& name,
                                    std::size_t item_bytes) {
  std::string path = JoinPath(directory, name);
  if (!Exists(path)) path += ".gz";
  TAKT_ASSIGN_OR_RETURN(std::string content, ReadMaybeCompressed(path));
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(content[i]); };
  if (content.size() < 8 || byte(0) != 0 || byte(1) != 0 || byte(2) != 8 || byte(3) == 0 ||
      content.size() < 4 + 4 * std::size_t{byte(3)}) {
    return absl::DataLossError(StrCat(path, ": not an IDX file of bytes"));
  }
  const std::size_t header = 4 + 4 * std::size_t{byte(3)};
  std::uint64_t count = 0, item = 1;
  for (std::size_t i = 4; i < header; i += 4) {
    const std::uint64_t size = std::uint64_t{byte(i)} << 24 | std::uint64_t{byte(i + 1)} << 16 |
                               std::uint64_t{byte(i + 2)} << 8 | byte(i + 3);
    if (i == 4) {
      count = size;
    } else {
      item *= size;
    }
  }
  if (item != item_bytes || content.size() - header != count * item) {
    return absl::DataLossError(StrCat(path, ": expected items of ", item_bytes, " bytes, got ",
                                      count, " of ", item, " in ", content.size() - header,
                                      " bytes"));
  }
  return content.substr(header);
}

}  // namespace

absl::StatusOr<Digits> LoadTestDigits(const std::string& script, const std::string& work_dir) {
  TAKT_ASSIGN_OR_RETURN(const std::string output, RunScript(script, work_dir));
  const auto answer = nlohmann::json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object() || !answer.contains("directory") || !answer["directory"].is_string() ||
      !answer.contains("source") || !answer["source"].is_string()) {
    return absl::InternalError(StrCat(script, ": expected {directory, source}, got ", output));
  }
  const std::string directory = answer["directory"].get<std::string>();
  TAKT_ASSIGN_OR_RETURN(const std::string images,
                        ReadIdx(directory, "t10k-images-idx3-ubyte", kPixels));
  TAKT_ASSIGN_OR_RETURN(const std::string labels, ReadIdx(directory, "t10k-labels-idx1-ubyte", 1));
  if (images.size() != labels.size() * kPixels || labels.empty()) {
    return absl::DataLossError(
        StrCat(directory, ": ", images.size() / kPixels, " images but ", labels.size(), " labels"));
  }
  return Digits{{images.begin(), images.end()},
                {labels.begin(), labels.end()},
                answer["source"].get<std::string>()};
}

}  // namespace takt::mnist
