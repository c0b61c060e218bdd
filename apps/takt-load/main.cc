// takt-load: asks a model server and says what the answers took.
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/fs.h"
#include "load/grpc_load.h"
#include "plot.h"
#include "requests.h"

namespace takt {
namespace {

// CPU seconds that the process has used, all of its threads; nothing when there is none such.
std::optional<double> CpuSecondsOf(int pid) {
  clockid_t clock;
  timespec t;
  if (pid <= 0 || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0) {
    return std::nullopt;
  }
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

struct Flags {
  load::GrpcLoadOptions load;
  double duration_s = 5;
  double warm_up_s = 1;
  std::string request_file;
  std::string replay_file;
  std::string model;
  std::string signature = "serving_default";
  std::int64_t rows = 1;
  std::string plot_file;
  std::string json_file;
  int server_pid = 0;
};

double Micros(std::chrono::nanoseconds ns) { return static_cast<double>(ns.count()) / 1000; }

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Asks a model server and says what the answers took.");
  app.add_option("--target", flags.load.target, "HOST:PORT or unix:PATH")->required();
  auto* from = app.add_option_group("requests", "what to ask, one of");
  from->add_option("--request", flags.request_file,
                   "file: a PredictRequest, as JSON where the name ends in .json");
  from->add_option("--replay", flags.replay_file,
                   "file: the Predict requests of a log (TFRecords of PredictionLog), in turn");
  from->add_option("--model", flags.model, "random values of the shapes that this model says");
  from->require_option(1);
  app.add_option("--signature", flags.signature, "with --model");
  app.add_option("--rows", flags.rows, "with --model: the batch dimension")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000}));
  app.add_option("--plot", flags.plot_file, "write latency over time there, as SVG");
  app.add_option("--method", flags.load.method, "gRPC method");
  app.add_option("-c,--connections", flags.load.connections, "connections");
  app.add_option("-s,--streams", flags.load.streams, "calls at once on each connection");
  app.add_option("-r,--rate", flags.load.rate, "calls a second; 0: as fast as answers come");
  app.add_option("-d,--duration", flags.duration_s, "seconds that count");
  app.add_option("--warm-up", flags.warm_up_s, "seconds before, that do not");
  app.add_option("--server-pid", flags.server_pid, "report this process's CPU time too");
  app.add_option("--json", flags.json_file, "write the figures there");
  CLI11_PARSE(app, argc, argv);

  const auto requests = !flags.request_file.empty()  ? RequestFromFile(flags.request_file)
                        : !flags.replay_file.empty() ? RequestsFromLog(flags.replay_file)
                                                     : RandomRequest(flags.load.target, flags.model,
                                                                     flags.signature, flags.rows);
  if (!requests.ok()) {
    std::fprintf(stderr, "takt-load: %s\n", std::string(requests.status().message()).c_str());
    return ExitCodeFor(requests.status().code());
  }
  const auto seconds = [](double s) {
    return std::chrono::nanoseconds(static_cast<std::int64_t>(s * 1e9));
  };
  flags.load.duration = seconds(flags.duration_s);
  flags.load.warm_up = seconds(flags.warm_up_s);
  flags.load.message = [&](std::uint64_t n) {
    return std::string_view((*requests)[n % requests->size()]);
  };
  std::vector<PlotPoint> points;
  const bool live = isatty(STDERR_FILENO) != 0;
  std::optional<double> cpu_begin;
  std::optional<double> cpu_end;
  flags.load.progress = [&](const load::LoadProgress& progress) {
    using Phase = load::LoadProgress::Phase;
    if (progress.phase == Phase::kBegin) cpu_begin = CpuSecondsOf(flags.server_pid);
    if (progress.phase == Phase::kEnd) cpu_end = CpuSecondsOf(flags.server_pid);
    if (progress.phase == Phase::kBegin) return;
    if (progress.last.calls > 0 && progress.last_answer.size() >= 5) {
      points.push_back({progress.last, VersionOf(progress.last_answer.substr(5))});
    }
    if (!live) return;
    std::fprintf(stderr, "\r%5.0f s  %9llu answers  p50 %.0f us  p99 %.0f us  errors %llu   ",
                 progress.last.at_seconds, static_cast<unsigned long long>(progress.last.calls),
                 progress.last.p50_us, progress.last.p99_us,
                 static_cast<unsigned long long>(progress.last.errors));
  };
  auto result = load::RunGrpcLoad(flags.load);
  if (live) std::fprintf(stderr, "\n");
  if (!result.ok()) {
    std::fprintf(stderr, "takt-load: %s\n", std::string(result.status().message()).c_str());
    return ExitCodeFor(result.status().code());
  }
  const auto& latency = result->latency;
  nlohmann::json out = {
      {"target", flags.load.target},
      {"connections", flags.load.connections},
      {"streams", flags.load.streams},
      {"rate", flags.load.rate},
      {"seconds", result->seconds},
      {"ok", result->ok},
      {"per_second", static_cast<double>(result->ok) / result->seconds},
      {"latency_us",
       {{"mean", Micros(latency.mean())},
        {"p50", Micros(latency.Percentile(50))},
        {"p90", Micros(latency.Percentile(90))},
        {"p99", Micros(latency.Percentile(99))},
        {"p99.9", Micros(latency.Percentile(99.9))},
        {"max", Micros(latency.max())}}},
      {"client_cpu_us_per_request",
       result->ok == 0 ? 0 : result->client_cpu_seconds / static_cast<double>(result->ok) * 1e6},
      {"answer_bytes", result->last_answer.size() < 5 ? 0 : result->last_answer.size() - 5},
  };
  out["errors"] = nlohmann::json::object();
  std::uint64_t failed = 0;
  for (const auto& [code, count] : result->errors) {
    out["errors"][std::string(CodeName(static_cast<absl::StatusCode>(code)))] = count;
    failed += count;
  }
  if (failed > 0) out["first_error"] = result->first_error;
  for (const auto& second : result->by_second) {
    out["by_second"].push_back({{"at", second.at_seconds},
                                {"calls", second.calls},
                                {"errors", second.errors},
                                {"p50_us", second.p50_us},
                                {"p99_us", second.p99_us}});
  }
  if (cpu_begin.has_value() && cpu_end.has_value() && result->ok > 0) {
    out["server_cpu_us_per_request"] =
        (*cpu_end - *cpu_begin) / static_cast<double>(result->ok) * 1e6;
  }
  std::printf("%llu answers in %.1f s: %.0f a second\n",
              static_cast<unsigned long long>(result->ok), result->seconds,
              static_cast<double>(result->ok) / result->seconds);
  std::printf("latency us: mean %.0f  p50 %.0f  p90 %.0f  p99 %.0f  p99.9 %.0f  max %.0f\n",
              Micros(latency.mean()), Micros(latency.Percentile(50)),
              Micros(latency.Percentile(90)), Micros(latency.Percentile(99)),
              Micros(latency.Percentile(99.9)), Micros(latency.max()));
  if (out.contains("server_cpu_us_per_request")) {
    std::printf("server CPU: %.2f us a request\n", out["server_cpu_us_per_request"].get<double>());
  }
  if (failed > 0) {
    std::printf("failed: %llu, the first with %s\n", static_cast<unsigned long long>(failed),
                result->first_error.c_str());
  }
  if (!flags.json_file.empty()) {
    const absl::Status written = WriteFileAtomic(flags.json_file, out.dump(1) + "\n");
    if (!written.ok()) {
      std::fprintf(stderr, "takt-load: %s\n", std::string(written.message()).c_str());
      return ExitCodeFor(written.code());
    }
  }
  if (!flags.plot_file.empty()) {
    const absl::Status written = WriteFileAtomic(flags.plot_file, PlotSvg(points));
    if (!written.ok()) {
      std::fprintf(stderr, "takt-load: %s\n", std::string(written.message()).c_str());
      return ExitCodeFor(written.code());
    }
  }
  return failed > 0 ? 1 : 0;
}

}  // namespace
}  // namespace takt

int main(int argc, char** argv) { return takt::Main(argc, argv); }
