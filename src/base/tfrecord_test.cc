#include "base/tfrecord.h"

#include <gtest/gtest.h>

namespace takt {
namespace {

// RFC 3720, appendix B.4.
TEST(Crc32c, GivesThePublishedValues) {
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising;
  for (int i = 0; i < 32; ++i) rising.push_back(static_cast<char>(i));
  EXPECT_EQ(Crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
}

TEST(TfRecord, ReadsWhatWasWritten) {
  std::string file;
  AppendTfRecord("hello", file);
  AppendTfRecord("", file);
  auto first = ReadTfRecord(file, 100);
  ASSERT_EQ(first.state, TfRecordState::kRecord);
  EXPECT_EQ(first.data, "hello");
  auto second = ReadTfRecord(std::string_view(file).substr(first.size), 100);
  ASSERT_EQ(second.state, TfRecordState::kRecord);
  EXPECT_EQ(second.data, "");
}

TEST(TfRecord, EveryTornTailIsIncomplete) {
  std::string file;
  AppendTfRecord("hello", file);
  for (std::size_t n = 0; n < file.size(); ++n) {
    EXPECT_EQ(ReadTfRecord(file.substr(0, n), 100).state, TfRecordState::kIncomplete) << n;
  }
}

TEST(TfRecord, EveryFlippedByteIsFound) {
  std::string file;
  AppendTfRecord("hello", file);
  for (std::size_t n = 0; n < file.size(); ++n) {
    std::string damaged = file;
    damaged[n] = static_cast<char>(damaged[n] ^ 0x40);
    const auto result = ReadTfRecord(damaged, 100);
    EXPECT_EQ(result.state, TfRecordState::kCorrupt) << n;
    EXPECT_EQ(result.size, n < kTfRecordHeaderBytes ? 0 : file.size()) << n;
  }
}

TEST(TfRecord, ARecordOverTheLimitCanBeSkipped) {
  std::string file;
  AppendTfRecord("hello", file);
  const auto result = ReadTfRecord(file, 4);
  EXPECT_EQ(result.state, TfRecordState::kTooLarge);
  EXPECT_EQ(result.size, file.size());
}

// A reader that skips such a record would stand still, or go back.
TEST(TfRecord, ALengthThatNoFileCanHaveIsDamage) {
  for (const std::uint64_t length : {~std::uint64_t{0}, ~std::uint64_t{0} - 15,
                                     ~std::uint64_t{0} - 16, std::uint64_t{1} << 63}) {
    std::string header(reinterpret_cast<const char*>(&length), sizeof length);
    const std::uint32_t crc = Crc32c(header);
    const std::uint32_t masked = ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
    header.append(reinterpret_cast<const char*>(&masked), sizeof masked);
    const auto result = ReadTfRecord(header, 100);
    EXPECT_EQ(result.state, TfRecordState::kCorrupt) << length;
    EXPECT_EQ(result.size, 0U) << length;
  }
}

}  // namespace
}  // namespace takt
