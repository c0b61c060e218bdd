// takt-load: asks a model server and says what the answers took.
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/fs.h"
#include "load/load.h"
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

// Seconds that the process's threads were ready to run and had no core; nothing when the kernel
// does not say.
std::optional<double> SecondsWithoutCore(const std::string& pid) {
  const std::string tasks = StrCat("/proc/", pid, "/task");
  const auto threads = ListDir(tasks);
  if (!threads.ok()) return std::nullopt;
  double seconds = 0;
  for (const std::string& thread : *threads) {
    const auto text = ReadFile(StrCat(tasks, "/", thread, "/schedstat"), 4096);
    unsigned long long ran = 0;
    unsigned long long waited = 0;
    if (text.ok() && std::sscanf(text->c_str(), "%llu %llu", &ran, &waited) == 2) {
      seconds += static_cast<double>(waited) / 1e9;
    }
  }
  return seconds;
}

// What of a machine the load and its server used.
struct Usage {
  std::optional<double> server_cpu, server_wait, own_wait;
  static Usage Now(int server_pid) {
    Usage usage{CpuSecondsOf(server_pid), std::nullopt, SecondsWithoutCore("self")};
    if (server_pid > 0) usage.server_wait = SecondsWithoutCore(std::to_string(server_pid));
    return usage;
  }
};

// Answers of the REST API do not say which version gave them: this asks for it, twice a second.
class VersionWatch {
 public:
  VersionWatch(std::string target, std::string model)
      : thread_([this, target = std::move(target), model = std::move(model)] {
          std::unique_lock lock(mutex_);
          while (!stop_) {
            lock.unlock();
            const auto version = AvailableVersion(target, model);
            lock.lock();
            version_ = version;
            wake_.wait_for(lock, std::chrono::milliseconds(500), [this] { return stop_; });
          }
        }) {}
  ~VersionWatch() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  std::optional<std::int64_t> version() const {
    const std::lock_guard lock(mutex_);
    return version_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::optional<std::int64_t> version_;
  std::thread thread_;
};

struct Flags {
  load::LoadOptions load;
  bool rest = false;
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
  int timeout_ms = 0;
};

double Micros(std::chrono::nanoseconds ns) { return static_cast<double>(ns.count()) / 1000; }

// What is asked, in the form that the protocol sends, and of which model.
absl::StatusOr<Requests> RequestsOf(const Flags& flags, std::string* model) {
  const Server server{flags.load.target, flags.rest};
  *model = flags.model;
  if (flags.rest && !flags.request_file.empty()) {
    TAKT_ASSIGN_OR_RETURN(const bool body, IsRestBody(flags.request_file));
    if (body && flags.model.empty()) {
      return absl::InvalidArgumentError(
          StrCat(flags.request_file, " does not say which model is asked: add --model"));
    }
    if (body) return HttpRequestFromFile(server.target, flags.model, flags.request_file);
  }
  absl::StatusOr<Requests> requests =
      !flags.request_file.empty()  ? RequestFromFile(flags.request_file)
      : !flags.replay_file.empty() ? RequestsFromLog(flags.replay_file)
      : !flags.model.empty()
          ? RandomRequest(server, flags.model, flags.signature, flags.rows)
          : absl::InvalidArgumentError("what to ask: --request, --replay or --model");
  if (!requests.ok()) return requests;
  *model = ModelOf(requests->front());
  return flags.rest ? AsHttp(server.target, *requests) : requests;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Asks a model server and says what the answers took.");
  app.add_option("--target", flags.load.target, "HOST:PORT or unix:PATH")->required();
  app.add_flag("--rest", flags.rest, "ask the REST API, by HTTP/1.1; the target is its port");
  auto* file = app.add_option("--request", flags.request_file,
                              "file: a PredictRequest, as JSON where the name ends in .json; with "
                              "--rest also a body, asked of --model");
  auto* log = app.add_option("--replay", flags.replay_file,
                             "file: the Predict requests of a log (TFRecords of PredictionLog), "
                             "in turn");
  file->excludes(log);
  app.add_option("--model", flags.model,
                 "without a file: random values of the shapes that this model says");
  app.add_option("--signature", flags.signature, "with --model");
  app.add_option("--rows", flags.rows, "with --model: the batch dimension")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000}));
  app.add_option("--plot", flags.plot_file, "write latency over time there, as SVG");
  app.add_option("--method", flags.load.method, "gRPC method");
  app.add_option("-c,--connections", flags.load.connections, "connections");
  app.add_option("-s,--streams", flags.load.streams, "calls at once on each connection");
  app.add_option("-r,--rate", flags.load.rate, "calls a second; 0: as fast as answers come");
  app.add_option("-d,--duration", flags.duration_s, "seconds that count");
  app.add_option("--timeout-ms", flags.timeout_ms, "gRPC: deadline of each call; 0: none")
      ->check(CLI::Range(0, 10'000'000));
  app.add_option("--warm-up", flags.warm_up_s, "seconds before, that do not");
  app.add_option("--server-pid", flags.server_pid, "report this process's CPU time too");
  app.add_option("--json", flags.json_file, "write the figures there");
  CLI11_PARSE(app, argc, argv);

  if (flags.rest) flags.load.protocol = load::LoadProtocol::kHttp;
  std::string model;
  const absl::StatusOr<Requests> requests = RequestsOf(flags, &model);
  if (!requests.ok()) {
    std::fprintf(stderr, "takt-load: %s\n", std::string(requests.status().message()).c_str());
    return ExitCodeFor(requests.status().code());
  }
  const auto seconds = [](double s) {
    return std::chrono::nanoseconds(static_cast<std::int64_t>(s * 1e9));
  };
  flags.load.duration = seconds(flags.duration_s);
  flags.load.warm_up = seconds(flags.warm_up_s);
  if (flags.timeout_ms > 0) {
    flags.load.metadata.emplace_back("grpc-timeout", StrCat(flags.timeout_ms, "m"));
  }
  flags.load.message = [&](std::uint64_t n) {
    return std::string_view((*requests)[n % requests->size()]);
  };
  std::vector<PlotPoint> points;
  const bool live = isatty(STDERR_FILENO) != 0;
  std::optional<VersionWatch> versions;
  if (flags.rest && !flags.plot_file.empty()) versions.emplace(flags.load.target, model);
  Usage begin;
  Usage end;
  flags.load.progress = [&](const load::LoadProgress& progress) {
    using Phase = load::LoadProgress::Phase;
    if (progress.phase == Phase::kBegin) {
      begin = Usage::Now(flags.server_pid);
      return;
    }
    if (progress.phase == Phase::kEnd) end = Usage::Now(flags.server_pid);
    if (progress.last.calls > 0) {
      points.push_back({progress.last, versions.has_value() ? versions->version()
                                                            : VersionOf(progress.last_answer)});
    }
    if (!live) return;
    std::fprintf(stderr, "\r%5.0f s  %9llu answers  p50 %.0f us  p99 %.0f us  errors %llu   ",
                 progress.last.at_seconds, static_cast<unsigned long long>(progress.last.calls),
                 progress.last.p50_us, progress.last.p99_us,
                 static_cast<unsigned long long>(progress.last.errors));
  };
  auto result = load::RunLoad(flags.load);
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
      {"answered_per_second", static_cast<double>(result->answered) / result->seconds},
      {"latency_us",
       {{"mean", Micros(latency.mean())},
        {"p50", Micros(latency.Percentile(50))},
        {"p90", Micros(latency.Percentile(90))},
        {"p99", Micros(latency.Percentile(99))},
        {"p99.9", Micros(latency.Percentile(99.9))},
        {"max", Micros(latency.max())}}},
      {"client_cpu_us_per_request",
       result->ok == 0 ? 0 : result->client_cpu_seconds / static_cast<double>(result->ok) * 1e6},
      {"answer_bytes", result->last_answer.size()},
  };
  out["errors"] = nlohmann::json::object();
  std::uint64_t failed = 0;
  for (const auto& [code, count] : result->errors) {
    const std::string name = flags.rest
                                 ? std::to_string(code)
                                 : std::string(CodeName(static_cast<absl::StatusCode>(code)));
    out["errors"][name] = count;
    failed += count;
  }
  if (failed > 0) {
    out["first_error"] = result->first_error;
    out["error_latency_us"] = {{"p50", Micros(result->refusal_latency.Percentile(50))},
                               {"p99", Micros(result->refusal_latency.Percentile(99))},
                               {"max", Micros(result->refusal_latency.max())}};
  }
  for (const auto& second : result->by_second) {
    out["by_second"].push_back({{"at", second.at_seconds},
                                {"calls", second.calls},
                                {"errors", second.errors},
                                {"p50_us", second.p50_us},
                                {"p99_us", second.p99_us}});
  }
  if (begin.server_cpu.has_value() && end.server_cpu.has_value() && result->ok > 0) {
    out["server_cpu_us_per_request"] =
        (*end.server_cpu - *begin.server_cpu) / static_cast<double>(result->ok) * 1e6;
  }
  // Latencies of a machine on which others compute say little; this says whether they did.
  if (begin.own_wait.has_value() && end.own_wait.has_value()) {
    out["client_without_core"] = (*end.own_wait - *begin.own_wait) / result->seconds;
  }
  if (begin.server_wait.has_value() && end.server_wait.has_value()) {
    out["server_without_core"] = (*end.server_wait - *begin.server_wait) / result->seconds;
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
  if (out.contains("server_without_core") && out.contains("client_without_core")) {
    std::printf("of each second ready to run but without a core: server %.1f ms, client %.1f ms\n",
                out["server_without_core"].get<double>() * 1000,
                out["client_without_core"].get<double>() * 1000);
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
