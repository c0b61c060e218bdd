#include "base/fs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/ids.h"

namespace takt {
namespace {

namespace stdfs = std::filesystem;

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status FromCode(const std::error_code& code, std::string_view what) {
  if (!code) return absl::OkStatus();
  return ErrnoStatus(code.value(), what);
}

absl::Status SyncParent(const std::string& path) {
  std::string parent = stdfs::path(path).parent_path().string();
  Fd dir(::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir.get() < 0) return ErrnoStatus(errno, StrCat("open ", parent));
  ::fsync(dir.get());  // Some file systems refuse to sync a directory; the rename is done.
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, std::size_t max_bytes) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return ErrnoStatus(errno, StrCat("open ", path));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, StrCat("stat ", path));
  if (S_ISDIR(info.st_mode)) {
    return absl::InvalidArgumentError(StrCat(path, ": expected a file, got a directory"));
  }
  std::string content;
  if (S_ISREG(info.st_mode)) content.reserve(std::min<std::size_t>(info.st_size, max_bytes));
  char buffer[1 << 16];
  while (true) {
    ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, StrCat("read ", path));
    if (got == 0) return content;
    if (content.size() + got > max_bytes) {
      return absl::ResourceExhaustedError(
          StrCat(path, ": larger than the limit of ", max_bytes, " bytes"));
    }
    content.append(buffer, got);
  }
}

namespace {

absl::Status WriteBeside(const std::string& path, std::string_view content, int mode, bool sync) {
  std::string temporary = StrCat(path, ".tmp-", RandomId(8));
  {
    Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
    if (fd.get() < 0) return ErrnoStatus(errno, StrCat("create ", temporary));
    std::string_view rest = content;
    while (!rest.empty()) {
      ssize_t put = ::write(fd.get(), rest.data(), rest.size());
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) {
        int error_number = errno;
        ::unlink(temporary.c_str());
        return ErrnoStatus(error_number, StrCat("write ", path));
      }
      rest.remove_prefix(put);
    }
    if (sync && ::fsync(fd.get()) != 0) {
      int error_number = errno;
      ::unlink(temporary.c_str());
      return ErrnoStatus(error_number, StrCat("sync ", path));
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    int error_number = errno;
    ::unlink(temporary.c_str());
    return ErrnoStatus(error_number, StrCat("rename to ", path));
  }
  return sync ? SyncParent(path) : absl::OkStatus();
}

}  // namespace

absl::Status WriteFileAtomic(const std::string& path, std::string_view content, int mode) {
  return WriteBeside(path, content, mode, true);
}

absl::Status WriteFileWhole(const std::string& path, std::string_view content, int mode) {
  return WriteBeside(path, content, mode, false);
}

absl::Status MakeDirs(const std::string& path, int mode) {
  std::error_code code;
  if (stdfs::is_directory(path, code)) return absl::OkStatus();
  std::string parent = stdfs::path(path).parent_path().string();
  if (!parent.empty() && parent != path) TAKT_RETURN_IF_ERROR(MakeDirs(parent, mode));
  if (::mkdir(path.c_str(), mode) != 0 && !(errno == EEXIST && IsDirectory(path))) {
    return ErrnoStatus(errno, StrCat("create directory ", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListDir(const std::string& path) {
  std::error_code code;
  stdfs::directory_iterator it(path, code);
  std::vector<std::string> names;
  for (; !code && it != stdfs::directory_iterator(); it.increment(code)) {
    names.push_back(it->path().filename().string());
  }
  TAKT_RETURN_IF_ERROR(FromCode(code, StrCat("list ", path)));
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status RemoveAll(const std::string& path) {
  std::error_code code;
  stdfs::remove_all(path, code);
  return FromCode(code, StrCat("remove ", path));
}

bool Exists(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

std::string JoinPath(std::string_view a, std::string_view b) {
  if (a.empty()) return std::string(b);
  while (!a.empty() && a.back() == '/') a.remove_suffix(1);
  while (!b.empty() && b.front() == '/') b.remove_prefix(1);
  return StrCat(a, "/", b);
}

std::string CleanPath(std::string_view path) {
  std::string normal = stdfs::path(path).lexically_normal().string();
  while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  return normal;
}

TempDir::TempDir() {
  const char* base = std::getenv("TMPDIR");
  std::string pattern = JoinPath(base != nullptr && *base != '\0' ? base : "/tmp", "takt-XXXXXX");
  if (::mkdtemp(pattern.data()) == nullptr) {
    std::perror("cannot make a temporary directory");
    std::abort();
  }
  path_ = pattern;
}

TempDir::~TempDir() {
  // A destructor has nobody to tell; what stays behind lies in the temporary directory.
  RemoveAll(path_).IgnoreError();
}

}  // namespace takt
