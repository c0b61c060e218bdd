// Turns what a program writes into log frames on the disk. Loses no line while the disk takes them;
// when it does not, counts the lost ones and says so as soon as it does again. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>

#include "runtime/shim/protocol.h"

namespace takt::runtime::shim {

class LogWriter {
 public:
  // Segments go to the directory `directory_fd`, which stays the caller's. `max_bytes` at least
  // kLogSegments * 4096.
  LogWriter(int directory_fd, std::uint64_t max_bytes);
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  // Bytes as they came, all lines that end in them. Like on a terminal, what a carriage return
  // overwrites within a line is not kept.
  void Append(std::int64_t now_ns, bool is_stderr, const char* data, std::size_t size);
  // Writes the newest state of a line that is overwritten again and again (a progress bar). To be
  // called once a second while HasProgress.
  void ShowProgress(std::int64_t now_ns);
  bool HasProgress() const;
  // Writes unfinished lines, too, and waits until all is on the disk.
  void Finish(std::int64_t now_ns);

  const std::string& last_error_line() const { return last_error_line_; }

 private:
  struct Stream {
    std::string partial;           // since the last newline or overwriting
    std::string overwritten;       // newest overwritten state of the line
    std::string shown;             // state that ShowProgress wrote
    bool carriage_return = false;  // `partial` is complete, the next byte overwrites it
  };
  struct Segment {
    std::uint64_t start, size;
  };
  void Span(Stream& stream, bool is_stderr, std::int64_t now_ns, const char* data,
            std::size_t size);
  void Frame(std::int64_t now_ns, bool is_stderr, const std::string& text, std::uint8_t flags = 0);
  void Write(std::int64_t now_ns);
  bool WriteOut(const std::string& bytes);
  bool OpenSegment();

  int directory_fd_;
  std::uint64_t max_bytes_;
  int fd_ = -1;
  std::deque<Segment> segments_;
  std::uint64_t end_ = 0;  // position after the last frame
  Stream streams_[2];
  std::string pending_;
  std::uint64_t pending_lines_ = 0, lost_ = 0;
  int lost_error_ = 0;
  std::string last_error_line_;
};

}  // namespace takt::runtime::shim
