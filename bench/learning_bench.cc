// A million points of training events: reading them, and opening the curve.
// Usage: learning_bench [--json FILE]
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "base/fs.h"
#include "base/tfrecord.h"
#include "bench/report.h"
#include "learning/store.h"

namespace takt {
namespace {

// An Event with one scalar, as TensorFlow writes it.
std::string ScalarEvent(double wall, std::int64_t step, std::string_view tag, float value) {
  const auto bytes = [](std::string& out, int field, std::string_view data) {
    out.push_back(static_cast<char>(field << 3 | 2));
    out.push_back(static_cast<char>(data.size()));
    out.append(data);
  };
  std::string v, summary, event;
  bytes(v, 1, tag);
  v.push_back(0x15);
  v.append(reinterpret_cast<const char*>(&value), 4);
  bytes(summary, 1, v);
  event.push_back(0x09);
  event.append(reinterpret_cast<const char*>(&wall), 8);
  event.push_back(0x10);
  for (auto rest = static_cast<std::uint64_t>(step);; rest >>= 7) {
    event.push_back(static_cast<char>((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0)));
    if (rest <= 0x7f) break;
  }
  bytes(event, 5, summary);
  return event;
}

void DieUnless(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

int Main(int argc, char** argv) {
  bench::Report report(argc, argv);
  constexpr int kPoints = 1'000'000;
  TempDir dir;
  DieUnless(MakeDirs(dir.path() + "/events"));
  std::string file;
  for (int i = 0; i < kPoints; ++i) {
    AppendTfRecord(ScalarEvent(1.8e9 + i, i, "loss", 1.0F / (1 + static_cast<float>(i))), file);
  }
  std::ofstream(dir.path() + "/events/events.out.tfevents.1.host", std::ios::binary) << file;
  auto store = learning::LearningStore::Open(dir.path() + "/learning.db");
  DieUnless(store.status());
  bench::StopWatch scan;
  DieUnless((*store)->Scan({"a", "s", dir.path() + "/events"}).status());
  report.Add("reading events", kPoints / scan.seconds(), "events/s");
  double best = 1e9, worst = 0;
  std::size_t chosen = 0;
  for (int round = 0; round < 5; ++round) {
    bench::StopWatch watch;
    auto curve = (*store)->Curve("a", "s", "", "loss", {});
    DieUnless(curve.status());
    const auto smoothed = learning::Smooth(*curve, 0.6);
    chosen = learning::Choose(*curve, 1500).size();
    best = std::min(best, watch.seconds());
    worst = std::max(worst, watch.seconds());
  }
  report.Add("points drawn", static_cast<double>(chosen), "");
  report.Add("a curve of a million points, best of 5", best * 1e3, "ms");
  report.Add("a curve of a million points, worst of 5", worst * 1e3, "ms");
  return 0;
}

}  // namespace
}  // namespace takt

int main(int argc, char** argv) { return takt::Main(argc, argv); }
