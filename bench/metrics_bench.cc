// The metric store under ten thousand series at five seconds: CPU, bytes a sample, charts.
// Time is simulated: six hours of samples, each second tended. Usage: metrics_bench [--json FILE]
#include <cmath>
#include <cstdlib>
#include <random>

#include "base/fs.h"
#include "bench/report.h"
#include "metrics/store.h"

namespace takt {
namespace {

void DieUnless(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

int Main(int argc, char** argv) {
  bench::Report report(argc, argv);
  constexpr int kSeries = 10'000, kHours = 6;
  TempDir dir;
  FakeClock clock;
  auto store = metrics::MetricStore::Open(dir.path() + "/metrics.db", clock);
  DieUnless(store.status());
  // What instances have, in equal parts: a counter of CPU seconds, memory that moves a little,
  // a counter of requests, a rate with four digits, and what hardly ever changes.
  std::vector<metrics::MetricStore::Point> points(kSeries);
  for (int i = 0; i < kSeries; ++i) {
    const auto type = i % 5 == 0 || i % 5 == 2 ? metrics::Type::kCounter : metrics::Type::kGauge;
    auto id = (*store)->Series("m" + std::to_string(i % 5), {{"i", std::to_string(i)}}, type);
    DieUnless(id.status());
    points[i].series = *id;
  }
  std::mt19937 random(1);
  double cpu = 0;
  const auto start = clock.Now();
  const auto now_ms = [&clock] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(clock.Now().time_since_epoch())
        .count();
  };
  const int rounds = kHours * 720;
  for (int round = 0; round < rounds; ++round) {
    for (int i = 0; i < kSeries; ++i) {
      const std::uint32_t r = random();
      double& v = points[i].value;
      switch (i % 5) {
        case 0:
          v = std::round((v + (r % 500) / 100.0) * 100) / 100;
          break;
        case 1:
          if (r % 3 == 0) v = std::max(0.0, v + (static_cast<int>(r % 65) - 32) * 4096.0);
          break;
        case 2:
          v += r % 40;
          break;
        case 3:
          v = (r % 10000) / 10000.0;
          break;
        default:
          if (r % 100 == 0) v = r % 10;
      }
    }
    const double before = bench::CpuSeconds();
    (*store)->Append(now_ms(), points);
    for (int second = 0; second < 5; ++second) {
      clock.Advance(std::chrono::seconds(1));
      DieUnless((*store)->Tend());
    }
    cpu += bench::CpuSeconds() - before;
  }
  DieUnless((*store)->Flush());
  const double samples = static_cast<double>(kSeries) * rounds;
  report.Add("samples", samples, "");
  report.Add("CPU of 10,000 series at 5 s", cpu / (kHours * 3600) * 100, "% of a core");
  report.Add("on disk, index and minutes included",
             static_cast<double>((*store)->Stats().disk_bytes) / samples, "bytes/sample");
  const std::int64_t from =
      std::chrono::duration_cast<std::chrono::milliseconds>(start.time_since_epoch()).count();
  const auto chart = [&](const std::string& name, metrics::Question q) {
    double worst = 0;
    for (int round = 0; round < 5; ++round) {
      bench::StopWatch watch;
      DieUnless((*store)->Ask(q).status());
      worst = std::max(worst, watch.seconds());
    }
    report.Add(name + ", worst of 5", worst * 1e3, "ms");
  };
  const std::int64_t to = now_ms();
  chart("one series, six hours", {.name = "m1",
                                  .matchers = {{"i", metrics::Matcher::Op::kEqual, "1"}},
                                  .from_ms = from,
                                  .to_ms = to});
  chart("ten series, the last hour", {.name = "m0",
                                      .matchers = {{"i", metrics::Matcher::Op::kPrefix, "100"}},
                                      .from_ms = to - 3'600'000,
                                      .to_ms = to,
                                      .function = metrics::Function::kRate});
  chart("2,000 series added up, the last hour", {.name = "m2",
                                                 .from_ms = to - 3'600'000,
                                                 .to_ms = to,
                                                 .function = metrics::Function::kRate,
                                                 .aggregation = metrics::Aggregation::kSum});
  return 0;
}

}  // namespace
}  // namespace takt

int main(int argc, char** argv) { return takt::Main(argc, argv); }
