// The log's two sides: what the shim writes, the daemon reads.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <random>

#include "base/fs.h"
#include "runtime/embedded/log_reader.h"
#include "runtime/shim/log_writer.h"

namespace takt::runtime {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class LogTest : public testing::Test {
 protected:
  LogTest() : fd_(open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}
  ~LogTest() override { close(fd_); }

  std::vector<LogLine> All(std::uint64_t cursor = 0, std::size_t max = 1'000'000) {
    const auto lines = ReadLogLines(dir_.path(), "i", cursor, max);
    EXPECT_TRUE(lines.ok()) << lines.status();
    return *lines;
  }
  std::vector<std::string> Texts(std::uint64_t cursor = 0) {
    std::vector<std::string> texts;
    for (const LogLine& line : All(cursor)) texts.push_back(line.text);
    return texts;
  }
  void Append(shim::LogWriter& log, const std::string& text, bool is_stderr = false) {
    log.Append(++time_, is_stderr, text.data(), text.size());
  }
  std::vector<std::string> Segments() {
    auto names = ListDir(dir_.path());
    EXPECT_TRUE(names.ok());
    return *names;
  }
  std::uint64_t BytesOnDisk() {
    std::uint64_t sum = 0;
    for (const std::string& name : Segments()) {
      struct stat info {};
      if (stat(JoinPath(dir_.path(), name).c_str(), &info) == 0) {
        sum += static_cast<std::uint64_t>(info.st_size);
      }
    }
    return sum;
  }

  TempDir dir_;
  int fd_;
  std::int64_t time_ = 1'000'000'000;
};

struct LineCase {
  const char* name;
  std::vector<std::string> pieces;
  std::vector<std::string> lines;
};

class LineTest : public LogTest, public testing::WithParamInterface<LineCase> {};

TEST_P(LineTest, BytesBecomeLines) {
  shim::LogWriter log(fd_, 1 << 20);
  for (const std::string& piece : GetParam().pieces) Append(log, piece);
  log.Finish(++time_);
  EXPECT_EQ(Texts(), GetParam().lines);
}

INSTANTIATE_TEST_SUITE_P(
    Lines, LineTest,
    testing::Values(
        LineCase{"None", {}, {}},  //
        LineCase{"One", {"a\n"}, {"a"}}, LineCase{"EmptyLines", {"\n\na\n"}, {"", "", "a"}},
        LineCase{"InPieces", {"a", "b\nc", "d\n"}, {"ab", "cd"}},
        LineCase{"UnfinishedAtTheEnd", {"a\nb"}, {"a", "b"}},
        LineCase{"DosLineEnds", {"a\r\nb\r", "\nc\r\r\n"}, {"a", "b", "c"}},
        LineCase{"OverwrittenAsOnATerminal", {"10%\r50%\r100%\ndone\n"}, {"100%", "done"}},
        LineCase{"OverwrittenInPieces", {"10", "%", "\r", "50%", "\r100%", "\n"}, {"100%"}},
        LineCase{"ProgressAtTheEnd", {"10%\r20%\r"}, {"20%"}},
        LineCase{"BytesThatAreNoText",
                 {std::string("\xff\0\xc3(\n", 5)},
                 {std::string("\xEF\xBF\xBD\0\xEF\xBF\xBD(", 8)}},
        LineCase{"Utf8InPieces", {"\xc3", "\xa4\n"}, {"\xc3\xa4"}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(LogTest, ALineBeyondItsLimitBecomesSeveral) {
  shim::LogWriter log(fd_, 1 << 20);
  Append(log, std::string(shim::kMaxLineBytes * 2 + 10, 'x') + "\n");
  log.Finish(++time_);
  Append(log, std::string(shim::kMaxLineBytes, 'y') + "\n");
  const auto lines = All();
  ASSERT_THAT(lines, SizeIs(4));
  EXPECT_EQ(lines[0].text.size(), shim::kMaxLineBytes);
  EXPECT_EQ(lines[2].text.size(), 10u);
  EXPECT_TRUE(lines[0].goes_on);
  EXPECT_TRUE(lines[1].goes_on);
  EXPECT_FALSE(lines[2].goes_on);
  EXPECT_FALSE(lines[3].goes_on);
}

TEST_F(LogTest, ProgressIsShownOncePerState) {
  shim::LogWriter log(fd_, 1 << 20);
  Append(log, "10%\r20%\r30");
  EXPECT_TRUE(log.HasProgress());
  log.ShowProgress(++time_);
  EXPECT_THAT(Texts(), ElementsAre("20%"));
  EXPECT_FALSE(log.HasProgress());
  Append(log, "%\r");
  log.ShowProgress(++time_);
  log.ShowProgress(++time_);
  Append(log, "\n");
  EXPECT_THAT(Texts(), ElementsAre("20%", "30%"));
}

TEST_F(LogTest, LinesKeepStreamAndTime) {
  shim::LogWriter log(fd_, 1 << 20);
  log.Append(5'000'000, false, "out\n", 4);
  log.Append(7'000'000, true, "err\n", 4);
  const auto lines = All();
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_FALSE(lines[0].is_stderr);
  EXPECT_TRUE(lines[1].is_stderr);
  EXPECT_EQ(lines[1].time - lines[0].time, std::chrono::milliseconds(2));
  EXPECT_EQ(log.last_error_line(), "err");
}

TEST_F(LogTest, TheOldestGoWhenTheLimitIsReachedAndCursorsStayGood) {
  constexpr std::uint64_t kMax = 32'768;
  shim::LogWriter log(fd_, kMax);
  for (int n = 0; n < 5000; ++n) Append(log, "line number " + std::to_string(n) + "\n");
  log.Finish(++time_);
  EXPECT_LE(BytesOnDisk(), kMax + 4096);
  EXPECT_GE(BytesOnDisk(), kMax / 2);
  EXPECT_LE(Segments().size(), static_cast<std::size_t>(shim::kLogSegments));
  const auto lines = All();
  EXPECT_EQ(lines.back().text, "line number 4999");
  for (std::size_t i = 1; i < lines.size(); ++i) {
    ASSERT_EQ(std::stoi(lines[i].text.substr(12)), std::stoi(lines[i - 1].text.substr(12)) + 1);
    ASSERT_EQ(lines[i].lost_bytes, 0u);
  }
  EXPECT_GT(lines[0].lost_bytes, 0u);  // of what was removed before the first one that is there
  EXPECT_EQ(All(1)[0].lost_bytes, lines[0].lost_bytes - 1);
  // From each cursor, the rest; across segments too.
  for (const std::size_t i : {std::size_t{0}, lines.size() / 2, lines.size() - 1}) {
    EXPECT_EQ(All(lines[i].cursor).size(), lines.size() - 1 - i);
  }
  for (const std::size_t n : {std::size_t{1}, std::size_t{200}, lines.size(), lines.size() + 1}) {
    const auto tail = LogTail(dir_.path(), n);
    ASSERT_TRUE(tail.ok());
    EXPECT_EQ(All(*tail).size(), std::min(n, lines.size()));
  }
}

TEST_F(LogTest, AnAnswerHasALimit) {
  shim::LogWriter log(fd_, 64 << 20);
  const std::string line = std::string(shim::kMaxLineBytes - 1, 'x') + "\n";
  for (std::size_t n = 0; n < kMaxLogAnswerBytes / shim::kMaxLineBytes + 10; ++n) {
    Append(log, line);
  }
  const auto first = All();
  EXPECT_LE(first.size() * (shim::kMaxLineBytes - 1), kMaxLogAnswerBytes);
  EXPECT_THAT(All(first.back().cursor), testing::Not(IsEmpty()));
}

// A segment that ends in half a frame, as after a power failure or while it is being written.
TEST_F(LogTest, ATornFrameHidesNothingElse) {
  shim::LogWriter log(fd_, 1 << 20);
  Append(log, "one\ntwo\nthree\n");
  log.Finish(++time_);
  const std::string path = JoinPath(dir_.path(), Segments().at(0));
  for (const int cut : {1, 5, 20}) {
    ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(3 * shim::kFrameOverhead + 11 - cut)), 0);
    EXPECT_THAT(Texts(), ElementsAre("one", "two"));
    const auto tail = LogTail(dir_.path(), 1);
    ASSERT_TRUE(tail.ok());
    EXPECT_THAT(Texts(*tail), ElementsAre("two"));
  }
}

TEST_F(LogTest, DamagedSegmentsNeitherCrashNorLoop) {
  shim::LogWriter log(fd_, 32'768);
  for (int n = 0; n < 500; ++n) Append(log, "line " + std::to_string(n) + "\n");
  log.Finish(++time_);
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const auto segments = Segments();
    const std::string path = JoinPath(dir_.path(), segments[random() % segments.size()]);
    const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    const char byte = static_cast<char>(random());
    EXPECT_EQ(pwrite(fd, &byte, 1, static_cast<off_t>(random() % 4096)), 1);
    close(fd);
    EXPECT_LE(All(random() % 40000).size(), 600u);
    EXPECT_TRUE(LogTail(dir_.path(), random() % 600).ok());
  }
}

// RLIMIT_FSIZE stands in for a full disk: writes fail, then work again.
TEST_F(LogTest, WhatAFullDiskRefusesIsCountedAndSaid) {
  signal(SIGXFSZ, SIG_IGN);
  shim::LogWriter log(fd_, 8 << 20);
  Append(log, "before\n");
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit full{40, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  Append(log, "lost one\nlost two\n");
  Append(log, "lost three\n");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  Append(log, "after\n");
  const auto texts = Texts();
  ASSERT_THAT(texts, SizeIs(3));
  EXPECT_EQ(texts[0], "before");
  EXPECT_EQ(texts[1], "takt: 3 lines were lost here: File too large");
  EXPECT_EQ(texts[2], "after");
}

}  // namespace
}  // namespace takt::runtime
