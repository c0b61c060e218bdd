#include "runtime/shim/log_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace takt::runtime::shim {
namespace {

std::string SegmentName(std::uint64_t start) {
  char name[40];
  std::snprintf(name, sizeof(name), "%s%020llu", kLogPrefix,
                static_cast<unsigned long long>(start));
  return name;
}

void AppendFrame(std::string& out, std::int64_t now_ns, std::uint8_t flags,
                 const std::string& text) {
  FrameHeader header;
  header.text_bytes = static_cast<std::uint32_t>(text.size());
  header.flags = flags;
  header.check = FrameHeader::Check(header.text_bytes, header.flags);
  header.time_ns = now_ns;
  const auto total = static_cast<std::uint32_t>(text.size() + kFrameOverhead);
  out.append(reinterpret_cast<const char*>(&header), sizeof(header));
  out.append(text);
  out.append(reinterpret_cast<const char*>(&total), sizeof(total));
}

}  // namespace

LogWriter::LogWriter(int directory_fd, std::uint64_t max_bytes)
    : directory_fd_(directory_fd), max_bytes_(max_bytes) {}

LogWriter::~LogWriter() {
  if (fd_ >= 0) close(fd_);
}

void LogWriter::Append(std::int64_t now_ns, bool is_stderr, const char* data, std::size_t size) {
  Stream& stream = streams_[is_stderr];
  while (size > 0) {
    const char* newline = static_cast<const char*>(std::memchr(data, '\n', size));
    const std::size_t span = newline ? static_cast<std::size_t>(newline - data) : size;
    Span(stream, is_stderr, now_ns, data, span);
    if (!newline) break;
    // A progress bar's last state may have been written already.
    if (stream.shown.empty() || stream.partial != stream.shown) {
      Frame(now_ns, is_stderr, stream.partial);
    }
    stream.partial.clear();
    stream.overwritten.clear();
    stream.shown.clear();
    stream.carriage_return = false;
    data += span + 1;
    size -= span + 1;
  }
  Write(now_ns);
}

// A piece of a line, without newlines.
void LogWriter::Span(Stream& stream, bool is_stderr, std::int64_t now_ns, const char* data,
                     std::size_t size) {
  while (size > 0) {
    const char* cr = static_cast<const char*>(std::memchr(data, '\r', size));
    std::size_t piece = cr ? static_cast<std::size_t>(cr - data) : size;
    if (piece > 0 && stream.carriage_return) {
      stream.overwritten.swap(stream.partial);
      stream.partial.clear();
      stream.carriage_return = false;
    }
    if (cr) stream.carriage_return = true;
    const std::size_t consumed = piece + (cr ? 1 : 0);
    const char* from = data;
    while (stream.partial.size() + piece > kMaxLineBytes) {
      const std::size_t fits = kMaxLineBytes - stream.partial.size();
      stream.partial.append(from, fits);
      Frame(now_ns, is_stderr, stream.partial, kGoesOn);
      stream.partial.clear();
      from += fits;
      piece -= fits;
    }
    stream.partial.append(from, piece);
    data += consumed;
    size -= consumed;
  }
}

bool LogWriter::HasProgress() const {
  for (const Stream& s : streams_) {
    if (!s.overwritten.empty() || (s.carriage_return && s.partial != s.shown)) return true;
  }
  return false;
}

void LogWriter::ShowProgress(std::int64_t now_ns) {
  for (int i = 0; i < 2; ++i) {
    Stream& s = streams_[i];
    const std::string& newest = s.carriage_return ? s.partial : s.overwritten;
    if (!newest.empty() && newest != s.shown) {
      Frame(now_ns, i == 1, newest);
      s.shown = newest;
    }
    s.overwritten.clear();
  }
  Write(now_ns);
}

void LogWriter::Finish(std::int64_t now_ns) {
  for (int i = 0; i < 2; ++i) {
    Stream& s = streams_[i];
    if (!s.partial.empty() && s.partial != s.shown) Frame(now_ns, i == 1, s.partial);
    s = Stream();
  }
  Write(now_ns);
  if (fd_ >= 0) fdatasync(fd_);
}

void LogWriter::Frame(std::int64_t now_ns, bool is_stderr, const std::string& text,
                      std::uint8_t flags) {
  if (is_stderr) flags |= kStandardError;
  AppendFrame(pending_, now_ns, flags, text);
  ++pending_lines_;
  if (is_stderr && !text.empty()) last_error_line_ = text.substr(0, 300);
  if (pending_.size() >= std::min<std::uint64_t>(kMaxLineBytes, max_bytes_ / kLogSegments)) {
    Write(now_ns);
  }
}

void LogWriter::Write(std::int64_t now_ns) {
  if (pending_.empty() && lost_ == 0) return;
  if (lost_ > 0) {
    std::string notice;
    AppendFrame(
        notice, now_ns, kStandardError,
        "takt: " + std::to_string(lost_) + " lines were lost here: " + std::strerror(lost_error_));
    if (WriteOut(notice)) lost_ = 0;
  }
  if (lost_ > 0 || !WriteOut(pending_)) lost_ += pending_lines_;
  pending_.clear();
  pending_lines_ = 0;
}

// All of it or nothing.
bool LogWriter::WriteOut(const std::string& bytes) {
  if (bytes.empty()) return true;
  if (fd_ < 0 || segments_.back().size >= max_bytes_ / kLogSegments) {
    if (!OpenSegment()) {
      lost_error_ = errno;
      return false;
    }
  }
  Segment& segment = segments_.back();
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = write(fd_, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      lost_error_ = n == 0 ? EIO : errno;
      if (done > 0 && ftruncate(fd_, static_cast<off_t>(segment.size)) != 0) {
        // The torn frame stays at the end of this segment; readers skip it.
        close(fd_);
        fd_ = -1;
        end_ += done;
      }
      return false;
    }
    done += static_cast<std::size_t>(n);
  }
  segment.size += bytes.size();
  end_ += bytes.size();
  return true;
}

bool LogWriter::OpenSegment() {
  // Room first: the limit holds at every moment, up to one segment.
  while (segments_.size() >= static_cast<std::size_t>(kLogSegments)) {
    unlinkat(directory_fd_, SegmentName(segments_.front().start).c_str(), 0);
    segments_.pop_front();
  }
  const int fd = openat(directory_fd_, SegmentName(end_).c_str(),
                        O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
  segments_.push_back({end_, 0});
  return true;
}

}  // namespace takt::runtime::shim
