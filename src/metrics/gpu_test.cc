#include "metrics/gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "base/fs.h"
#include "base/str.h"

namespace takt::metrics {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using namespace std::chrono_literals;

constexpr const char* kTwo =
    "gpu NVIDIA-T4 37 1000 16000 61 70500\n"
    "gpu Old - 5 10 - -\n"
    "process 0 4711 800\n";

class GpuTest : public testing::Test {
 protected:
  // One file for all: a reader of the test before may still be ending.
  static const std::string& File() {
    static const TempDir dir;
    static const std::string file = [] {
      std::string path = dir.path() + "/nvml";
      setenv("TAKT_FAKE_NVML", path.c_str(), 1);
      return path;
    }();
    return file;
  }
  static void Say(const std::string& script) { ASSERT_TRUE(WriteFileWhole(File(), script).ok()); }
  std::unique_ptr<GpuReader> Reader(std::chrono::milliseconds max_age = 1h) {
    return std::make_unique<GpuReader>(TAKT_FAKE_NVML_LIBRARY, 1ms, max_age, 1ms);
  }
  template <typename Condition>
  static void Await(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "it did not come";
      std::this_thread::yield();
    }
  }
  // A reading that was begun after this call.
  static GpuReading Next(const GpuReader& reader) {
    const std::uint64_t now = reader.rounds();
    Await([&] { return reader.rounds() >= now + 2; });
    return reader.Latest();
  }
  static std::vector<std::string> Text(const GpuReading& reading) {
    std::vector<std::string> lines;
    for (const Figure& figure : reading.figures) {
      std::string line = figure.name;
      for (const auto& [name, value] : figure.labels) line += StrCat(" ", name, "=", value);
      lines.push_back(StrCat(line, " ", figure.value));
    }
    return lines;
  }
};

TEST_F(GpuTest, SaysWhatEachGpuTellsAndLeavesOutWhatItDoesNot) {
  Say(kTwo);
  const auto reader = Reader();
  const GpuReading reading = Next(*reader);
  EXPECT_THAT(Text(reading),
              ElementsAre("takt_gpu_utilization_ratio gpu=0 product=NVIDIA-T4 0.37",
                          "takt_gpu_memory_used_bytes gpu=0 product=NVIDIA-T4 1000",
                          "takt_gpu_memory_total_bytes gpu=0 product=NVIDIA-T4 16000",
                          "takt_gpu_temperature_celsius gpu=0 product=NVIDIA-T4 61",
                          "takt_gpu_power_watts gpu=0 product=NVIDIA-T4 70.5",
                          "takt_gpu_memory_used_bytes gpu=1 product=Old 5",
                          "takt_gpu_memory_total_bytes gpu=1 product=Old 10"));
  ASSERT_THAT(reading.processes, SizeIs(1));
  EXPECT_EQ(reading.processes[0].pid, 4711);
  EXPECT_EQ(reading.processes[0].gpu, "0");
  EXPECT_EQ(reading.processes[0].memory_bytes, 800u);
}

TEST_F(GpuTest, WithoutLibraryDriverOrGpuThereIsNoSeries) {
  const GpuReader none("libthere_is_none.so", 1ms, 1h, 1ms);
  EXPECT_THAT(Next(none).figures, IsEmpty());
  const GpuReader other("libm.so.6", 1ms, 1h, 1ms);  // a library, but not this one
  EXPECT_THAT(Next(other).figures, IsEmpty());
  Say("no_driver\n");
  const auto reader = Reader();
  EXPECT_THAT(Next(*reader).figures, IsEmpty());
  Say(kTwo);  // the driver was loaded later
  Await([&] { return !reader->Latest().figures.empty(); });
  Say("");
  Await([&] { return reader->Latest().figures.empty(); });
}

TEST_F(GpuTest, ALostGpuIsCountedAndTheOthersAreMeasured) {
  Say(std::string(kTwo) + "lost 0\n");
  const auto reader = Reader();
  const auto text = Text(Next(*reader));
  ASSERT_THAT(text, SizeIs(3));
  EXPECT_THAT(text[0], testing::StartsWith("takt_gpu_read_errors_total gpu=0 "));
  EXPECT_EQ(text[1], "takt_gpu_memory_used_bytes gpu=1 product=Old 5");
}

TEST_F(GpuTest, ALibraryThatHangsMakesItUnknownAndHoldsUpNobody) {
  Say(kTwo);
  const auto reader = Reader(200ms);
  Next(*reader);
  Say("hang\n");
  Await([&] { return reader->Latest().figures.empty(); });
  Say(kTwo);
  Await([&] { return !reader->Latest().figures.empty(); });
  Say("hang\n");
  Await([&] { return reader->Latest().figures.empty(); });
  { const auto gone = Reader(); }  // ends, though its first call hangs
  Say(kTwo);
}

TEST_F(GpuTest, LimitsOfGpusAndProcesses) {
  std::string script;
  for (unsigned i = 0; i < kMaxGpus + 1; ++i) script += "gpu G 1 1 1 1 1\n";
  for (unsigned i = 0; i < kMaxGpuProcesses; ++i) script += StrCat("process 0 ", i + 1, " 5\n");
  for (unsigned i = 0; i < kMaxGpuProcesses + 1; ++i) script += StrCat("process 1 ", i + 1, " 5\n");
  Say(script);
  const auto reader = Reader();
  const GpuReading reading = Next(*reader);
  EXPECT_THAT(reading.figures, SizeIs(kMaxGpus * 5));
  EXPECT_THAT(reading.processes, SizeIs(kMaxGpuProcesses));
}

}  // namespace
}  // namespace takt::metrics
