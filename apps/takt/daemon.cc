// takt daemon: builds the rooms, connects them, and waits for a signal.
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "api/alerts.h"
#include "api/api.h"
#include "api/errors.h"
#include "api/learning.h"
#include "api/log_search.h"
#include "api/operate.h"
#include "api/runs.h"
#include "api/tensorboard.h"
#include "api/workers.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/ids.h"
#include "client.h"
#include "commands.h"
#include "console/console_files.h"
#include "line/line.h"
#include "net/http_server.h"
#include "net/tcp.h"
#include "operate/alarm.h"
#include "operate/observer.h"
#include "operate/served.h"
#include "operate/tensorboard.h"
#include "runtime/embedded/embedded_runtime.h"
#include "storage/volumes.h"

namespace takt::cli {
namespace {

constexpr int kHttpThreads = 2;      // a call that waits for the disk must not hold up a stream
constexpr int kQuestionThreads = 2;  // for searches and charts
constexpr int kExportThreads = 2;    // each as slow as its client
constexpr int kDrainMs = 3000;
constexpr std::size_t kTokenLength = 40;
constexpr std::size_t kMinTokenLength = 16;
constexpr std::size_t kMaxTokenBytes = 4096;

struct DaemonOptions {
  std::string data_dir;
  std::string listen = "127.0.0.1:8080";
  std::string token_file;
  std::string runtime = "embedded";
  bool no_token = false;
  std::vector<std::string> alert_webhooks, alert_dingtalk;
  std::string nvml;
  std::vector<std::string> log_loki, log_otlp;
};

// /var/lib/takt for root, else where the user's programs keep their data.
std::string DefaultDataDir() {
  if (geteuid() == 0) return "/var/lib/takt";
  const char* data = std::getenv("XDG_DATA_HOME");
  const char* home = std::getenv("HOME");
  if (data != nullptr && *data == '/') return JoinPath(data, "takt");
  return JoinPath(home == nullptr ? "/tmp" : home, ".local/share/takt");
}

absl::StatusOr<std::string> AbsoluteDirectory(const std::string& path) {
  TAKT_RETURN_IF_ERROR(MakeDirs(path, 0750));
  const std::unique_ptr<char, decltype(&std::free)> real(realpath(path.c_str(), nullptr),
                                                         std::free);
  if (real == nullptr) return ErrnoStatus(errno, path);
  return std::string(real.get());
}

// The token in the file; a file that is not there is made, with a token of its own.
absl::StatusOr<std::string> ReadToken(const std::string& path) {
  if (!Exists(path)) {
    const std::string token = RandomId(kTokenLength);
    TAKT_RETURN_IF_ERROR(WriteFileAtomic(path, token + "\n", 0600));
    std::fprintf(stderr, "takt: wrote a new token to %s\n", path.c_str());
    return token;
  }
  TAKT_ASSIGN_OR_RETURN(std::string token, ReadFile(path, kMaxTokenBytes));
  absl::StripAsciiWhitespace(&token);
  for (const char c : token) {
    if (c <= ' ' || c >= 127 || c == ';' || c == ',' || c == '"') {
      return absl::InvalidArgumentError(
          StrCat(path, ": a token is letters, digits and -._~, in one line"));
    }
  }
  if (token.size() < kMinTokenLength) {
    return absl::InvalidArgumentError(StrCat(path, ": expected a token of at least ",
                                             kMinTokenLength, " characters, got ", token.size()));
  }
  struct stat about {};
  if (stat(path.c_str(), &about) == 0 && (about.st_mode & 077) != 0) {
    std::fprintf(stderr, "takt: warning: %s can be read by others; chmod 600 it\n", path.c_str());
  }
  return token;
}

// Blocks the signals that end the daemon, in this thread and all it starts, and waits for one.
class EndSignal {
 public:
  EndSignal() {
    sigemptyset(&signals_);
    for (const int each : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals_, each);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }
  void Wait() const {
    int signal = 0;
    sigwait(&signals_, &signal);
  }

 private:
  sigset_t signals_;
};

// Receivers that the command line names: webhook-1, ..., dingtalk-1, ...
std::vector<operate::Receiver> ReceiversOf(const DaemonOptions& options) {
  std::vector<operate::Receiver> receivers;
  using Kind = operate::Receiver::Kind;
  for (const auto& [prefix, urls, kind] :
       {std::tuple("webhook-", &options.alert_webhooks, Kind::kAlertmanager),
        std::tuple("dingtalk-", &options.alert_dingtalk, Kind::kDingTalk)}) {
    for (std::size_t i = 0; i < urls->size(); ++i) {
      receivers.push_back({.name = absl::StrCat(prefix, i + 1), .kind = kind, .url = (*urls)[i]});
    }
  }
  return receivers;
}

// Log forwards that the command line names: loki-1, ..., otlp-1, ...
std::vector<logs::Forward> ForwardsOf(const DaemonOptions& options) {
  std::vector<logs::Forward> forwards;
  using Kind = logs::ForwardKind;
  for (const auto& [urls, kind] :
       {std::pair(&options.log_loki, Kind::kLoki), std::pair(&options.log_otlp, Kind::kOtlp)}) {
    for (std::size_t i = 0; i < urls->size(); ++i) {
      forwards.push_back({.name = StrCat(logs::ForwardKindName(kind), "-", i + 1),
                          .kind = kind,
                          .url = (*urls)[i]});
    }
  }
  return forwards;
}

absl::Status RunDaemon(const DaemonOptions& options) {
  // Two arenas serve these few threads as well as eight for each core, in a fraction of the memory.
  mallopt(M_ARENA_MAX, 2);
  const EndSignal end;
  signal(SIGPIPE, SIG_IGN);
  if (options.runtime != "embedded") {
    return absl::InvalidArgumentError(
        StrCat("--runtime: expected embedded, got \"", options.runtime, "\""));
  }
  net::HttpServerOptions http;
  TAKT_RETURN_IF_ERROR(
      Annotate(net::SplitHostPort(options.listen, &http.host, &http.port), "--listen"));
  const std::string host = http.host.empty() || http.host == "*" ? "0.0.0.0" : http.host;
  std::string token;
  if (!options.token_file.empty()) {
    TAKT_ASSIGN_OR_RETURN(token, ReadToken(options.token_file));
  } else if (!net::IsLoopback(host) && !options.no_token) {
    return absl::InvalidArgumentError(StrCat(
        "--listen ", options.listen, " is open to the network, where whoever reaches it could ",
        "run programs here: give --token-file FILE (made when missing), or --no-token"));
  }

  // The port first, the directory second: a daemon that cannot have both touches nothing.
  std::atomic<api::Api*> ready = nullptr;
  http.threads = kHttpThreads;
  http.max_body_bytes = api::kMaxRequestBytes;
  http.error_response = api::ErrorResponseForHttp;
  auto started =
      net::HttpServer::Start(http, [&ready](const net::HttpRequest& request,
                                            const std::shared_ptr<net::HttpResponder>& responder) {
        api::Api* const api = ready.load();
        if (api != nullptr) return api->Handle(request, responder);
        responder->Send(api::ErrorResponse(absl::UnavailableError("the daemon is starting")));
      });
  if (absl::IsUnavailable(started.status())) {  // somebody else is there: a conflict
    return absl::AlreadyExistsError(
        StrCat(ToStd(started.status().message()), "; choose another address with --listen"));
  }
  TAKT_RETURN_IF_ERROR(started.status());
  const std::unique_ptr<net::HttpServer> server = *std::move(started);
  const std::string address = StrCat(
      host.find(':') == std::string::npos ? host : StrCat("[", host, "]"), ":", server->port());

  const RealClock clock;
  TAKT_ASSIGN_OR_RETURN(
      const std::string data_dir,
      AbsoluteDirectory(options.data_dir.empty() ? DefaultDataDir() : options.data_dir));
  TAKT_ASSIGN_OR_RETURN(const auto lock, line::DataLock::Take(data_dir));
  TAKT_ASSIGN_OR_RETURN(const auto volumes, storage::VolumeStore::Open(data_dir));
  TAKT_ASSIGN_OR_RETURN(const auto runtime,
                        runtime::EmbeddedRuntime::Open({.data_dir = data_dir}, clock));
  TAKT_ASSIGN_OR_RETURN(
      const auto line,
      line::Line::Open({.data_dir = data_dir, .lock = lock.get()}, *runtime, *volumes, clock));
  api::ApiOptions api_options;
  api_options.version = TAKT_VERSION;
  api_options.data_dir = data_dir;
  api_options.listen = address;
  api_options.token = token;
  api_options.content_security_policy = console::kContentSecurityPolicy;
  for (const console::File& file : console::Files()) {
    api_options.files.push_back(
        {file.path, file.content_type, file.etag, file.bytes, file.gzip, file.immutable()});
  }
  const auto api = api::Api::Create(std::move(api_options), *line, *runtime, *volumes, clock);
  TAKT_ASSIGN_OR_RETURN(
      const auto observer,
      operate::Observer::Open(
          {.data_dir = data_dir, .nvml = options.nvml, .forwards = ForwardsOf(options)}, *line,
          *runtime, *volumes, clock));
  api::Workers workers(kQuestionThreads);
  api::LiveSearches live(observer->logs());
  api->SetFollow([&live](const auto& client, auto query) { live.Add(client, std::move(query)); });
  api::Workers exporters(kExportThreads);
  api::AddLogSearchRoutes(api->router(), observer->logs(), workers, exporters);
  api::AddSavedSearchRoutes(api->router(), observer->searches(),
                            [&api] { api->Broadcast("searches", "{}"); });
  api::AddLogForwardRoutes(api->router(), observer->forwarder(), workers);
  api::AddMetricRoutes(api->router(), observer->metrics(), workers);
  api::AddLearningRoutes(api->router(), observer->learning(), observer->runs(), workers);
  const operate::Served served(*line, *volumes, observer->metrics(), clock,
                               [&line](const std::string& app, const std::string& message) {
                                 line->AddEvent(app, "serves", message, "info").IgnoreError();
                               });
  api::AddRunRoutes(
      api->router(), observer->runs(), observer->learning(),
      [&served](const std::string& app, const std::string& service, const std::string& model) {
        return served.Of(app, service, model);
      },
      *line, *volumes, workers);
  TAKT_ASSIGN_OR_RETURN(
      const auto alarm,
      operate::Alarm::Open(
          data_dir, ReceiversOf(options), observer->metrics(), clock,
          [&line](const std::string& app, const std::string& message, const std::string& level) {
            const absl::Status status = line->AddEvent(app, "alert", message, level);
            if (!status.ok()) {
              std::fprintf(stderr, "takt: warning: %s\n", std::string(status.message()).c_str());
            }
          }));
  api::AddAlertRoutes(api->router(), alarm->alerts(), alarm->receivers(), workers, clock);
  operate::TensorBoards tensorboards({.data_dir = data_dir}, *line, *volumes, clock);
  api::TensorBoardProxy tensorboard(tensorboards);
  api->SetTensorBoard([&tensorboard](const auto& request, const auto& responder) {
    tensorboard.Handle(request, responder);
  });
  api->SetMetrics([&observer] { return operate::Exposition(*observer); });
  runtime->SetLogListener([&api, &observer](const std::string& instance) {
    api->OnLog(instance);
    observer->OnLogGrew(instance);
  });
  ready = api.get();

  const runtime::Capabilities capabilities = runtime->capabilities();
  std::printf("takt %s, runtime %s, data in %s\nhttp://%s\n", TAKT_VERSION,
              capabilities.name.c_str(), data_dir.c_str(), address.c_str());
  std::fflush(stdout);
  for (const std::string& warning : capabilities.warnings) {
    std::fprintf(stderr, "takt: warning: %s\n", warning.c_str());
  }
  end.Wait();
  std::fprintf(stderr, "takt: ending; instances go on\n");
  server->Stop(kDrainMs);
  runtime->SetLogListener(nullptr);
  return absl::OkStatus();
}

}  // namespace

void AddDaemonCommand(CLI::App& app, int* exit_code) {
  auto options = std::make_shared<DaemonOptions>();
  CLI::App* command =
      app.add_subcommand("daemon", "Run the daemon: line, API and console, in the foreground");
  command->add_option("--data-dir", options->data_dir,
                      "Directory for everything it keeps [" + DefaultDataDir() + "]");
  command->add_option("--listen", options->listen, "Address and port; port 0 takes any free one")
      ->capture_default_str();
  command->add_option("--token-file", options->token_file,
                      "File with the token that every request must carry; made when missing");
  command->add_flag("--no-token", options->no_token,
                    "Listen beyond loopback without a token, open to everybody who reaches it");
  command->add_option("--runtime", options->runtime, "Where instances run")->capture_default_str();
  command->add_option("--alert-webhook", options->alert_webhooks,
                      "URL that gets alerts in Alertmanager's JSON; may be given several times");
  command->add_option("--alert-dingtalk", options->alert_dingtalk,
                      "URL of a DingTalk robot that gets alerts as text");
  command
      ->add_option("--nvml", options->nvml,
                   "NVIDIA's management library, for GPUs [libnvidia-ml.so.1]")
      ->envname("TAKT_NVML");
  command->add_option("--log-loki", options->log_loki,
                      "URL of a Loki that all log entries are sent on to (see takt forward)");
  command->add_option("--log-otlp", options->log_otlp, "The same for a receiver of OTLP over HTTP");
  command->callback([options, exit_code] { Finish(RunDaemon(*options), exit_code); });
}

}  // namespace takt::cli
