// The log store under ten million lines: how fast they come in, what they weigh, how soon a text
// is found. Usage: logs_bench [--lines N] [--json FILE]
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

#include "absl/strings/str_format.h"
#include "base/fs.h"
#include "bench/report.h"
#include "logs/collector.h"
#include "logs/store.h"
#include "runtime/fake/fake_runtime.h"

namespace takt {
namespace {

// Lines as services write them: training steps, requests, a warning now and then.
class Lines {
 public:
  std::string Next() {
    const std::uint32_t r = random_();
    ++count_;
    switch (r % 8) {
      case 0:
      case 1:
      case 2:
        return absl::StrFormat(
            "2026-11-24 20:%02d:%02d,%03d INFO trainer: step=%d loss=%.5f accuracy=%.4f "
            "examples/s=%d",
            count_ / 3600 % 60, count_ / 60 % 60, r % 1000, count_, 1.0 / (1 + r % 997),
            (r % 10000) / 1e4, 4000 + r % 500);
      case 3:
      case 4:
      case 5:
        return absl::StrFormat(
            R"({"ts":"2026-11-24T20:00:%02dZ","level":"info","msg":"request","method":"POST",)"
            R"("path":"/v1/models/mnist:predict","status":200,"ms":%.2f,"id":"%08x"})",
            count_ % 60, (r % 5000) / 100.0, r);
      case 6:
        return absl::StrFormat("I1124 20:00:00.%06d   %d server.cc:%d] connection from 10.0.%d.%d",
                               r % 1000000, 100 + r % 10, r % 400, r % 256, r / 256 % 256);
      default:
        return absl::StrFormat("2026-11-24 20:00:00 WARNING cache: evicted %d entries of shard %d",
                               r % 4096, r % 16);
    }
  }

 private:
  std::mt19937 random_{42};
  int count_ = 0;
};

void DieUnless(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::exit(1);
}

// The whole way in: a file that the collector follows, read, checked, joined, recognised, kept.
void Follow(int total, bench::Report& report) {
  TempDir dir;
  FakeClock clock;
  runtime::FakeRuntime runtime(clock);
  runtime::ServiceSpec spec;
  spec.app = "a";
  spec.service = "s";
  spec.revision = 1;
  spec.image = "i";
  DieUnless(runtime.Deploy(spec));
  runtime.Advance(std::chrono::seconds(1));
  {
    std::ofstream file(dir.path() + "/a.log", std::ios::binary);
    Lines lines;
    for (int i = 0; i < total; ++i) file << lines.Next() << "\n";
  }
  auto store = logs::LogStore::Open({.path = dir.path() + "/logs.db"}, clock);
  DieUnless(store.status());
  logs::ServiceLogs declared;
  declared.stores = {{"files", "/var/log/a.log", 2}};
  declared.mounts = {{"/var/log", dir.path()}};
  logs::Collector collector(
      runtime, **store, [&](const auto&, const auto&) { return declared; }, clock);
  const double before = bench::CpuSeconds();
  std::uint64_t kept = 0;
  while (kept < static_cast<std::uint64_t>(total)) {
    DieUnless(collector.Step());
    clock.Advance(std::chrono::seconds(1));  // the last line has waited long enough for its rest
    DieUnless((*store)->Flush());
    auto stats = (*store)->Stats();
    DieUnless(stats.status());
    kept = stats->entries;
  }
  report.Add("in from a followed file, on one core", total / (bench::CpuSeconds() - before),
             "lines/s");
}

int Main(int argc, char** argv) {
  int total = 10'000'000;
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], "--lines") == 0) total = std::atoi(argv[i + 1]);
  }
  bench::Report report(argc, argv);
  TempDir dir;
  RealClock clock;
  const logs::StoreOptions options{.path = dir.path() + "/logs.db"};
  auto store = logs::LogStore::Open(options, clock);
  DieUnless(store.status());
  constexpr int kStreams = 20, kBatch = 500;
  const std::int64_t start_us = 1'800'000'000'000'000;
  const std::int64_t line_us = 24 * std::int64_t{3600} * 1'000'000 / total;  // a day of lines
  std::vector<std::int64_t> streams;
  for (int i = 0; i < kStreams; ++i) {
    auto id = (*store)->Stream(
        {.app = "app" + std::to_string(i), .service = "s", .instance = "i" + std::to_string(i)}, 2);
    DieUnless(id.status());
    streams.push_back(*id);
  }
  Lines lines;
  double cpu = 0;
  std::uint64_t bytes = 0;
  std::vector<logs::Entry> batch(kBatch);
  for (int at = 0; at < total; at += kBatch) {
    for (int i = 0; i < kBatch; ++i) {
      batch[i].text = lines.Next();
      batch[i].time_us = start_us + (at + i) * line_us;
      bytes += batch[i].text.size();
    }
    if (at == total / 3 / kBatch * kBatch) batch[7].text = "a needle named xylophone in it";
    const double before = bench::CpuSeconds();
    for (logs::Entry& entry : batch) entry.level = logs::RecogniseLevel(entry.text);
    DieUnless((*store)->Append(streams[at / kBatch % kStreams], batch));
    cpu += bench::CpuSeconds() - before;
  }
  const double before = bench::CpuSeconds();
  DieUnless((*store)->Flush());
  cpu += bench::CpuSeconds() - before;
  auto stats = (*store)->Stats();
  DieUnless(stats.status());
  report.Add("lines", total, "");
  report.Add("mean line", static_cast<double>(bytes) / total, "bytes");
  report.Add("in, on one core, levels recognised", total / cpu, "lines/s");
  report.Add("on disk, index included", static_cast<double>(stats->disk_bytes) / total,
             "bytes/line");
  store->reset();  // everything from the disk from here on
  store = logs::LogStore::Open(options, clock);
  DieUnless(store.status());

  const std::int64_t end_us = start_us + total * line_us;
  const auto never = std::chrono::steady_clock::time_point::max();
  const auto search = [&](const std::string& name, const std::string& text,
                          logs::SearchOptions search_options, std::size_t expected) {
    auto query = logs::Query::Parse(text);
    DieUnless(query.status());
    double best = 1e9, worst = 0;
    for (int round = 0; round < 5; ++round) {
      bench::StopWatch watch;
      auto result = (*store)->Search(*query, search_options);
      DieUnless(result.status());
      best = std::min(best, watch.seconds());
      worst = std::max(worst, watch.seconds());
      if (result->entries.size() != expected) {
        std::fprintf(stderr, "%s: expected %zu entries, got %zu\n", name.c_str(), expected,
                     result->entries.size());
        std::exit(1);
      }
    }
    report.Add(name + ", best of 5", best * 1e3, "ms");
    report.Add(name + ", worst of 5", worst * 1e3, "ms");
  };
  search("a rare substring among all", "xylophone", {}, 1);
  search("a substring that is nowhere", "\"no such words here\"", {}, 0);
  search("a regular expression, rare", "/xylo(phone|graph)/", {}, 1);
  search("the newest 500 of one app", "app=app3", {}, 500);
  search("the last hour of one app, 500 lines", "app=app3",
         {.from_us = end_us - 3'600'000'000, .to_us = end_us}, 500);
  search("the last hour of one app, warnings", "app=app3 level>=warn",
         {.from_us = end_us - 3'600'000'000, .to_us = end_us}, 500);
  const auto histogram = [&](const std::string& name, const std::string& text, std::int64_t from) {
    auto query = logs::Query::Parse(text);
    bench::StopWatch watch;
    DieUnless((*store)->Histogram(*query, from, end_us, 60, never).status());
    report.Add(name, watch.seconds() * 1e3, "ms");
  };
  histogram("histogram of all, a day", "", start_us);
  histogram("histogram of one app, the last hour", "app=app3", end_us - 3'600'000'000);
  histogram("histogram of a common word, a day", "evicted", start_us);
  Follow(std::min(total, 1'000'000), report);
  return 0;
}

}  // namespace
}  // namespace takt

int main(int argc, char** argv) { return takt::Main(argc, argv); }
