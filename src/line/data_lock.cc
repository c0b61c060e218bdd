#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "base/fs.h"
#include "line/line.h"

namespace takt::line {

absl::StatusOr<std::unique_ptr<DataLock>> DataLock::Take(const std::string& data_dir) {
  TAKT_RETURN_IF_ERROR(MakeDirs(data_dir, 0700));
  std::string path = JoinPath(data_dir, "takt.lock");
  int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, StrCat("open ", path));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    int error_number = errno;
    char owner[32] = {};
    ssize_t got = ::pread(fd, owner, sizeof owner - 1, 0);
    ::close(fd);
    if (error_number != EWOULDBLOCK) return ErrnoStatus(error_number, StrCat("lock ", path));
    return absl::FailedPreconditionError(
        StrCat("the data directory ", data_dir, " is in use by another daemon",
               got > 0 ? StrCat(" (process ", owner, ")") : "",
               "; end that one, or give this one a data directory of its own"));
  }
  // The owner's number is for people only: the lock itself ends with the process.
  std::string pid = StrCat(::getpid());
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, pid.data(), pid.size(), 0) < 0) {
    int error_number = errno;
    ::close(fd);
    return ErrnoStatus(error_number, StrCat("write ", path));
  }
  return std::unique_ptr<DataLock>(new DataLock(fd));
}

DataLock::~DataLock() { ::close(fd_); }

}  // namespace takt::line
