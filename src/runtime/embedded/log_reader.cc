#include "runtime/embedded/log_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "base/fs.h"
#include "base/text.h"
#include "runtime/shim/protocol.h"

namespace takt::runtime {
namespace {

using shim::FrameHeader;
using shim::kFrameOverhead;

struct Segment {
  std::uint64_t start = 0;
  std::string path;
};

absl::StatusOr<std::vector<Segment>> Segments(const std::string& directory) {
  // An instance that is about to start has no directory yet.
  std::vector<Segment> segments;
  auto listed = ListDir(directory);
  if (absl::IsNotFound(listed.status())) return segments;
  TAKT_ASSIGN_OR_RETURN(const auto names, std::move(listed));
  const std::string prefix = shim::kLogPrefix;
  for (const std::string& name : names) {
    Segment segment;
    if (name.rfind(prefix, 0) != 0 ||
        !absl::SimpleAtoi(name.substr(prefix.size()), &segment.start)) {
      continue;
    }
    segment.path = JoinPath(directory, name);
    segments.push_back(std::move(segment));
  }
  return segments;  // names have equal length, so they are in order
}

class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat info {};
    if (fd_ >= 0 && fstat(fd_, &info) == 0) size_ = static_cast<std::uint64_t>(info.st_size);
  }
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::uint64_t size() const { return size_; }
  // `size` bytes at `at`, or false.
  bool Read(std::uint64_t at, char* to, std::size_t size) {
    // A window keeps system calls few.
    if (at < window_at_ || at + size > window_at_ + window_.size()) {
      window_.resize(std::max<std::size_t>(size, 131'072));
      const ssize_t n = pread(fd_, window_.data(), window_.size(), static_cast<off_t>(at));
      window_.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
      window_at_ = at;
      if (size > window_.size()) return false;
    }
    std::memcpy(to, window_.data() + (at - window_at_), size);
    return true;
  }
  // Whether a whole frame starts at `at`.
  bool Frame(std::uint64_t at, FrameHeader& header) {
    return at + kFrameOverhead <= size_ &&
           Read(at, reinterpret_cast<char*>(&header), sizeof(header)) && header.valid() &&
           at + kFrameOverhead + header.text_bytes <= size_;
  }

 private:
  int fd_;
  std::uint64_t size_ = 0, window_at_ = 0;
  std::vector<char> window_;
};

}  // namespace

absl::StatusOr<std::vector<LogLine>> ReadLogLines(const std::string& directory,
                                                  const std::string& instance, std::uint64_t cursor,
                                                  std::size_t max_lines) {
  TAKT_ASSIGN_OR_RETURN(const auto segments, Segments(directory));
  std::vector<LogLine> lines;
  std::size_t bytes = 0;
  std::uint64_t next = cursor, lost = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (i + 1 < segments.size() && segments[i + 1].start <= cursor) continue;
    // A segment may go between being listed and being opened: it is seen by the gap that it leaves.
    if (segments[i].start > next) lost += segments[i].start - next;
    next = std::max(next, segments[i].start);
    File file(segments[i].path);
    std::uint64_t at = cursor > segments[i].start ? cursor - segments[i].start : 0;
    FrameHeader header;
    while (file.Frame(at, header)) {
      if (lines.size() >= max_lines ||
          (bytes > 0 && bytes + header.text_bytes > kMaxLogAnswerBytes))
        return lines;
      std::string text(header.text_bytes, '\0');
      if (!file.Read(at + sizeof(header), text.data(), text.size())) break;
      at += kFrameOverhead + header.text_bytes;
      bytes += text.size();
      LogLine line;
      line.time = std::chrono::system_clock::time_point(
          std::chrono::duration_cast<std::chrono::system_clock::duration>(
              std::chrono::nanoseconds(header.time_ns)));
      line.instance = instance;
      line.is_stderr = (header.flags & shim::kStandardError) != 0;
      line.text = ValidUtf8(text);
      line.cursor = next = segments[i].start + at;
      line.goes_on = (header.flags & shim::kGoesOn) != 0;
      line.lost_bytes = std::exchange(lost, 0);
      lines.push_back(std::move(line));
    }
  }
  return lines;
}

absl::StatusOr<std::uint64_t> LogTail(const std::string& directory, std::size_t lines) {
  TAKT_ASSIGN_OR_RETURN(const auto segments, Segments(directory));
  std::size_t left = lines;
  std::uint64_t cursor = 0;
  bool found_end = false;
  for (auto segment = segments.rbegin(); segment != segments.rend(); ++segment) {
    File file(segment->path);
    // Backwards by the sizes behind the frames; what ends in half a frame is walked forwards once.
    std::uint64_t at = file.size();
    FrameHeader header;
    std::uint32_t total = 0;
    const auto step_back = [&] {
      return at >= kFrameOverhead &&
             file.Read(at - sizeof(total), reinterpret_cast<char*>(&total), sizeof(total)) &&
             total >= kFrameOverhead && total <= at && file.Frame(at - total, header) &&
             header.text_bytes + kFrameOverhead == total;
    };
    if (at > 0 && !step_back()) {
      for (at = 0; file.Frame(at, header);) at += kFrameOverhead + header.text_bytes;
    }
    if (!found_end) cursor = segment->start + at;
    found_end = true;
    while (left > 0 && step_back()) {
      at -= total;
      --left;
      cursor = segment->start + at;
    }
    if (left == 0) break;
  }
  return cursor;
}

}  // namespace takt::runtime
