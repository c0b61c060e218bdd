#include "metrics/chunk.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

namespace takt::metrics {
namespace {

std::vector<Sample> Series(const std::function<double(int)>& value, int n = 240) {
  std::vector<Sample> samples;
  for (int i = 0; i < n; ++i) samples.push_back({1'800'000'000'000 + i * 5000, value(i)});
  return samples;
}

TEST(Chunk, EverySampleComesBackBitForBit) {
  std::mt19937_64 random(3);
  const std::vector<std::vector<Sample>> kCases = {
      {},
      Series([](int) { return 0.0; }),
      Series([](int i) { return i * 0.01; }),
      Series([](int i) { return i % 2 == 0 ? -0.0 : 0.0; }),
      Series([](int i) { return 1.0 / (1 + i); }),
      Series([](int i) { return i == 7 ? std::numeric_limits<double>::infinity() : 1.0; }),
      Series([](int i) { return i % 3 == 0 ? 1e300 : 1e-300; }),
      Series([&](int) { return std::bit_cast<double>(random() >> 2); }),
      Series([](int i) { return 9e15 + i; }),
      Series([](int i) { return i == 0 ? 0.1 : 1e15; }),
      {{-5, 1}, {0, 2}, {1'000'000'000'000'000, 3}},
  };
  for (std::size_t c = 0; c < kCases.size(); ++c) {
    std::vector<Sample> back;
    ASSERT_TRUE(DecodeSamples(EncodeSamples(kCases[c]), back).ok()) << c;
    ASSERT_EQ(back.size(), kCases[c].size()) << c;
    for (std::size_t i = 0; i < back.size(); ++i) {
      EXPECT_EQ(back[i].time_ms, kCases[c][i].time_ms) << c;
      EXPECT_EQ(std::bit_cast<std::uint64_t>(back[i].value),
                std::bit_cast<std::uint64_t>(kCases[c][i].value))
          << c << " " << i;
    }
  }
}

TEST(Chunk, WindowsComeBack) {
  std::vector<Window> windows;
  for (int i = 0; i < 100; ++i) AddSample({i * 5000, std::sin(i)}, 60'000, windows);
  std::vector<Window> back;
  ASSERT_TRUE(DecodeWindows(EncodeWindows(windows), back).ok());
  EXPECT_EQ(back, windows);
}

TEST(Chunk, WindowsOfWindowsAreThoseOfTheSamples) {
  std::vector<Window> minutes, direct, stepwise;
  for (int i = 0; i < 5000; ++i) {
    const Sample s{i * 5000, static_cast<double>(i * 7919 % 1000)};
    AddSample(s, 60'000, minutes);
    AddSample(s, 3'600'000, direct);
  }
  for (const Window& w : minutes) AddWindow(w, 3'600'000, stepwise);
  EXPECT_EQ(stepwise, direct);
}

TEST(Chunk, DamagedBytesAreDataLossAndNothingWorse) {
  const std::string samples = EncodeSamples(Series([](int i) { return i * 1.5; }));
  std::mt19937 random(5);
  for (int round = 0; round < 3000; ++round) {
    std::string bad = samples;
    if (random() % 3 == 0) bad.resize(random() % bad.size());
    if (!bad.empty()) bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
    std::vector<Sample> back;
    DecodeSamples(bad, back).IgnoreError();
    std::vector<Window> windows;
    DecodeWindows(bad, windows).IgnoreError();
  }
  std::vector<Sample> back;
  EXPECT_EQ(DecodeSamples("", back).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeSamples("\x02", back).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace takt::metrics
