#include "logs/chunk.h"

#include <gtest/gtest.h>

#include <random>

namespace takt::logs {
namespace {

Columns Sample() {
  Columns columns;
  columns.Append({1'000'000, Level::kInfo, false, "first"});
  columns.Append({999'000, Level::kUnknown, true, ""});  // the clock jumped back
  columns.Append({5'000'000, Level::kFatal, true, "two\nlines \xe4\xb8\xad"});
  return columns;
}

TEST(Chunk, GivesBackWhatWasPutIn) {
  const Columns columns = Sample();
  Columns back;
  ASSERT_TRUE(DecodeMeta(EncodeMeta(columns), back).ok());
  ASSERT_TRUE(DecodeText(EncodeText(columns), back).ok());
  ASSERT_EQ(back.size(), 3u);
  EXPECT_EQ(back.times_us, columns.times_us);
  EXPECT_EQ(back.Text(0), "first");
  EXPECT_EQ(back.Text(1), "");
  EXPECT_EQ(back.Text(2), "two\nlines \xe4\xb8\xad");
  EXPECT_EQ(back.LevelOf(2), Level::kFatal);
  EXPECT_TRUE(back.IsStderr(1));
  EXPECT_FALSE(back.IsStderr(0));
}

TEST(Chunk, DamagedBytesAreDataLossAndNothingWorse) {
  const std::string meta = EncodeMeta(Sample()), text = EncodeText(Sample());
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::string bad_meta = meta, bad_text = text;
    for (std::string* bytes : {&bad_meta, &bad_text}) {
      if (random() % 4 == 0) bytes->resize(random() % bytes->size());
      if (!bytes->empty()) (*bytes)[random() % bytes->size()] ^= static_cast<char>(random());
    }
    Columns back;
    if (DecodeMeta(bad_meta, back).ok()) DecodeText(bad_text, back).IgnoreError();
  }
  Columns back;
  EXPECT_EQ(DecodeMeta("no zstd", back).code(), absl::StatusCode::kDataLoss);
}

TEST(Filter, NeverDeniesWhatIsThereAndMostlyWhatIsNot) {
  std::mt19937 random(1);
  std::string text;
  std::vector<std::string> words;
  for (int i = 0; i < 20'000; ++i) {
    std::string word;
    for (int c = 0; c < 8; ++c) word.push_back(static_cast<char>('a' + random() % 26));
    if (i % 100 == 0) words.push_back(word);
    text += word + " ";
  }
  const std::string filter = BuildFilter(text);
  for (std::string word : words) {
    word[0] = static_cast<char>(word[0] - 32);  // letter case aside
    EXPECT_TRUE(MayContain(filter, NeedleHashes(word))) << word;
  }
  const std::string small = BuildFilter("step 100 loss 0.25 accuracy 0.93");
  EXPECT_LE(small.size(), 64u);
  EXPECT_FALSE(MayContain(small, NeedleHashes("connection refused")));
  EXPECT_TRUE(MayContain(small, NeedleHashes("LOSS 0.25")));
}

TEST(Filter, ANeedleOfTwoLettersPassesEverywhere) {
  EXPECT_TRUE(MayContain(BuildFilter("abc"), NeedleHashes("zz")));
}

}  // namespace
}  // namespace takt::logs
