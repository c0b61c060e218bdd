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

// The sum may be the decimal that adding in floating point has just missed.
TEST(Chunk, WindowsOfEveryKindComeBack) {
  std::mt19937_64 random(7);
  double counter = 0;
  const std::vector<std::vector<Sample>> kCases = {
      Series([](int) { return 0.0; }, 2000),
      Series([&](int) { return counter += static_cast<double>(random() % 40); }, 2000),
      Series([&](int) { return static_cast<double>(random() % 10000) / 10000; }, 2000),
      Series([&](int) { return static_cast<double>(random() % 500) / 100 - 2; }, 2000),
      Series([&](int) { return static_cast<double>(random() % 100) * 4096; }, 2000),
      Series([](int i) { return 1.0 / (1 + i); }, 2000),
      Series([](int i) { return i % 2 == 0 ? -0.0 : 0.0; }, 2000),
      Series([](int i) { return i % 3 == 0 ? 1e300 : 1e-300; }, 2000),
      Series([](int i) { return i == 700 ? std::numeric_limits<double>::infinity() : 1.0; }, 2000),
      Series([](int i) { return 9e14 + i; }, 2000),
      Series([](int i) { return i % 2 == 0 ? 9e14 : -9e14; }, 2000),
      Series([&](int) { return static_cast<double>(random() % 1000) * 1e-9; }, 2000),
  };
  for (std::size_t c = 0; c < kCases.size(); ++c) {
    std::vector<Window> windows, back;
    for (const Sample& s : kCases[c]) AddSample(s, 60'000, windows);
    ASSERT_TRUE(DecodeWindows(EncodeWindows(windows), back).ok()) << c;
    ASSERT_EQ(back.size(), windows.size()) << c;
    for (std::size_t i = 0; i < back.size(); ++i) {
      const double reach = std::max(std::abs(windows[i].min), std::abs(windows[i].max)) *
                           static_cast<double>(windows[i].count);
      if (std::isfinite(reach)) {
        EXPECT_NEAR(back[i].sum, windows[i].sum, reach * 1e-14) << c;
        back[i].sum = windows[i].sum;
      }
      EXPECT_EQ(back[i], windows[i]) << c << " " << i;
    }
  }
}

TEST(Chunk, SumsOfDecimalsAreTheDecimalsThatTheyAre) {
  std::vector<Window> windows, back;
  for (int i = 0; i < 12; ++i) AddSample({i * 5000, i % 2 == 0 ? 0.1 : 0.2}, 60'000, windows);
  ASSERT_NE(windows[0].sum, 1.8);  // what floating point makes of it
  ASSERT_TRUE(DecodeWindows(EncodeWindows(windows), back).ok());
  EXPECT_EQ(back[0].sum, 1.8);
}

TEST(Chunk, IsSmall) {
  std::mt19937_64 random(9);
  double counter = 0;
  const auto samples = Series([&](int) { return counter += static_cast<double>(random() % 40); });
  EXPECT_LT(EncodeSamples(samples).size(), samples.size());  // six bits each
  std::vector<Window> windows;
  for (int i = 0; i < 2880; ++i) {
    AddSample({i * 5000, static_cast<double>(random() % 10000) / 10000}, 60'000, windows);
  }
  EXPECT_LT(EncodeWindows(windows).size(), windows.size() * 9);
}

// Written by the version before kind 3 and 4: a database of that time is read.
TEST(Chunk, WhatWasWrittenBeforeIsRead) {
  const std::string samples("\x01\x03\x10\xc0\x9f\x01\xff\x9f\x01\x00\x02\x02\x04", 13);
  std::vector<Sample> back;
  ASSERT_TRUE(DecodeSamples(samples, back).ok());
  ASSERT_EQ(back.size(), 3u);
  EXPECT_EQ(back[0], (Sample{8, 1}));
  EXPECT_EQ(back[1].value, 2);
  EXPECT_EQ(back[2].value, 4);
}

TEST(Chunk, WindowsOfWindowsAreThoseOfTheSamples) {
  std::vector<Window> minutes, direct, stepwise;
  std::vector<Sample> samples;
  for (int i = 0; i < 5000; ++i) {
    const Sample s{i * 5000, static_cast<double>(i * 7919 % 1000)};
    AddSample(s, 60'000, minutes);
    AddSample(s, 3'600'000, direct);
    samples.push_back(s);
  }
  std::vector<Window> together;
  AddSamples(samples, 3'600'000, together);
  EXPECT_EQ(together, direct);
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
  std::vector<Window> made;
  for (int i = 0; i < 2000; ++i) AddSample({i * 5000, i * 0.25}, 60'000, made);
  const std::string packed = EncodeWindows(made);
  for (int round = 0; round < 3000; ++round) {
    std::string bad = packed;
    if (random() % 3 == 0) bad.resize(random() % bad.size());
    if (!bad.empty()) bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
    std::vector<Window> windows;
    DecodeWindows(bad, windows).IgnoreError();
  }
  std::vector<Sample> back;
  EXPECT_EQ(DecodeSamples("", back).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeSamples("\x02", back).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace takt::metrics
