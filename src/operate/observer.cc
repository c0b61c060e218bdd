#include "operate/observer.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <tuple>

#include "absl/strings/numbers.h"
#include "base/fs.h"
#include "metrics/process.h"
#include "net/http_client.h"
#include "operate/set_aside.h"

namespace takt::operate {
namespace {

constexpr const char* kServingMetricsPath = "/monitoring/prometheus/metrics";

void Warn(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "takt: warning: %s\n", std::string(status.message()).c_str());
}

// The parent of a process, from /proc; 0 where it is gone.
std::int64_t ParentOf(std::int64_t pid) {
  constexpr std::size_t kMaxStatBytes = 4096;
  const auto stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"), kMaxStatBytes);
  if (!stat.ok()) return 0;
  // "pid (name) state parent ...", where the name may hold anything.
  const auto name_end = stat->rfind(") ");
  std::int64_t parent = 0;
  if (name_end == std::string::npos || stat->size() < name_end + 4) return 0;
  const std::string_view rest = std::string_view(*stat).substr(name_end + 4);
  return absl::SimpleAtoi(ToAbsl(rest.substr(0, rest.find(' '))), &parent) ? parent : 0;
}

// Which station of the line a service is at, and how it stands there.
std::pair<std::string, std::string> StationOf(const line::ServiceView& service) {
  return {service.role.empty() ? "other" : service.role, line::AppStateName(service.state)};
}

bool IsLive(const runtime::InstanceStatus& instance) {
  return instance.state == runtime::InstanceState::kRunning ||
         instance.state == runtime::InstanceState::kStarting;
}

// How the places stand that log entries are sent on to.
void AddForwardFigures(logs::Forwarder& forwarder, std::vector<metrics::Figure>& figures) {
  struct Row {
    const char* name;
    metrics::Type type;
    double (*value)(const logs::ForwardState&);
  };
  constexpr auto kCounter = metrics::Type::kCounter;
  constexpr auto kGauge = metrics::Type::kGauge;
  using State = const logs::ForwardState&;
  static constexpr Row kRows[] = {
      {"takt_log_forward_sent_entries_total", kCounter,
       [](State s) { return static_cast<double>(s.sent_entries); }},
      {"takt_log_forward_refused_entries_total", kCounter,
       [](State s) { return static_cast<double>(s.refused_entries); }},
      {"takt_log_forward_removed_entries_total", kCounter,
       [](State s) { return static_cast<double>(s.removed_entries); }},
      {"takt_log_forward_failed_attempts_total", kCounter,
       [](State s) { return static_cast<double>(s.failed_attempts); }},
      {"takt_log_forward_behind_entries", kGauge,
       [](State s) { return static_cast<double>(s.behind_entries); }},
      {"takt_log_forward_lag_seconds", kGauge,
       [](State s) { return static_cast<double>(s.lag.count()); }},
  };
  const auto views = forwarder.List();
  for (const Row& row : kRows) {
    for (const auto& [forward, state] : views) {
      figures.push_back({row.name, {{"forward", forward.name}}, row.type, row.value(state)});
    }
  }
}

}  // namespace

std::string InstanceOf(std::int64_t pid, const std::map<std::int64_t, std::string>& instances,
                       const std::function<std::int64_t(std::int64_t)>& parent) {
  constexpr int kMaxGenerations = 64;
  for (int i = 0; i < kMaxGenerations && pid > 1; ++i, pid = parent(pid)) {
    const auto it = instances.find(pid);
    if (it != instances.end()) return it->second;
  }
  return "";
}

Observer::Observer(const std::string& data_dir, line::Line& line, runtime::Runtime& runtime,
                   storage::VolumeStore& volumes, const Clock& clock)
    : data_dir_(data_dir), line_(line), runtime_(runtime), volumes_(volumes), clock_(clock) {}

absl::StatusOr<std::unique_ptr<Observer>> Observer::Open(ObserverOptions options, line::Line& line,
                                                         runtime::Runtime& runtime,
                                                         storage::VolumeStore& volumes,
                                                         const Clock& clock) {
  std::unique_ptr<Observer> self(new Observer(options.data_dir, line, runtime, volumes, clock));
  const auto path = [&](const char* name) { return JoinPath(options.data_dir, name); };
  TAKT_ASSIGN_OR_RETURN(self->logs_, OpenOrSetAside(path("logs.db"), clock, [&] {
                          return logs::LogStore::Open({.path = path("logs.db")}, clock);
                        }));
  TAKT_ASSIGN_OR_RETURN(
      self->forwarder_, OpenOrSetAside(path("forward.db"), clock, [&] {
        return logs::Forwarder::Open(
            path("forward.db"), options.forwards, *self->logs_, clock, net::Post,
            [&line](const std::string& message, bool warning) {
              Warn(line.AddEvent("", "logs", message, warning ? "warning" : "info"));
            });
      }));
  TAKT_ASSIGN_OR_RETURN(self->searches_, OpenOrSetAside(path("searches.db"), clock, [&] {
                          return logs::SavedSearches::Open(path("searches.db"), clock);
                        }));
  TAKT_ASSIGN_OR_RETURN(self->metrics_, OpenOrSetAside(path("metrics.db"), clock, [&] {
                          return metrics::MetricStore::Open(path("metrics.db"), clock);
                        }));
  TAKT_ASSIGN_OR_RETURN(self->learning_, OpenOrSetAside(path("learning.db"), clock, [&] {
                          return learning::LearningStore::Open(path("learning.db"));
                        }));
  TAKT_ASSIGN_OR_RETURN(self->runs_, OpenOrSetAside(path("runs.db"), clock,
                                                    [&] { return Runs::Open(path("runs.db")); }));
  self->gpus_ = options.nvml.empty() ? std::make_unique<metrics::GpuReader>()
                                     : std::make_unique<metrics::GpuReader>(options.nvml);
  self->scaler_ = std::make_unique<Scaler>(
      *self->metrics_, clock,
      [&line](const std::string& app, const std::string& service, int instances,
              const std::string& why) { return line.Scale(app, service, instances, why); });
  self->collector_ = std::make_unique<logs::Collector>(
      runtime, *self->logs_,
      [observer = self.get()](const std::string& app, const std::string& service) {
        return observer->LogsOf(app, service);
      },
      clock);
  for (const line::App& app : line.List()) {
    self->changed_.insert(app.name);
    self->known_.insert(app.name);
  }
  TAKT_ASSIGN_OR_RETURN(const std::vector<Run> running, self->runs_->Running());
  for (const Run& run : running) {  // the last daemon died between the app's end and ours
    if (!self->known_.contains(run.app)) Warn(self->runs_->Removed(run.app, clock.Now()));
  }
  self->ears_->observer = self.get();
  line.AddListener([ears = self->ears_](const std::string& app) {
    const std::lock_guard lock(ears->mutex);
    if (ears->observer != nullptr) ears->observer->OnLineChanged(app);
  });
  self->collector_->Start();
  self->sampler_ = std::thread([observer = self.get()] { observer->SampleLoop(); });
  self->scraper_ = std::thread([observer = self.get()] { observer->ScrapeLoop(); });
  return self;
}

Observer::~Observer() {
  {
    const std::lock_guard lock(ears_->mutex);
    ears_->observer = nullptr;
  }
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread* thread : {&sampler_, &scraper_}) {
    if (thread->joinable()) thread->join();
  }
  if (collector_ != nullptr) collector_->Stop();
}

void Observer::OnLogGrew(const std::string& instance) { collector_->OnLogGrew(instance); }

void Observer::OnLineChanged(const std::string& app) {
  collector_->OnStateChanged();
  if (app.empty()) return;
  const std::lock_guard lock(mutex_);
  changed_.insert(app);
}

logs::ServiceLogs Observer::LogsOf(const std::string& app_name, const std::string& service) {
  logs::ServiceLogs result;
  const auto app = line_.Get(app_name);
  if (!app.ok()) return result;
  for (const line::ServiceView& view : app->services) {
    if (view.spec.name != service) continue;
    for (const templates::LogStore& store : view.spec.log_stores) {
      result.stores.push_back({store.name, store.source, store.ttl_days});
    }
    result.mounts = MountsOf(view.spec, volumes_);
  }
  return result;
}

bool Observer::WaitUntil(std::chrono::steady_clock::time_point time) {
  std::unique_lock lock(mutex_);
  while (!stop_ && clock_.Steady() < time) wake_.wait_for(lock, time - clock_.Steady());
  return !stop_;
}

std::vector<metrics::Figure> Observer::Figures() {
  std::vector<metrics::Figure> figures = metrics::ReadNode({data_dir_});
  const metrics::GpuReading gpus = gpus_->Latest();
  figures.insert(figures.end(), gpus.figures.begin(), gpus.figures.end());
  std::map<std::int64_t, std::string> pids;          // first process -> instance
  std::map<std::string, metrics::Labels> labels_of;  // of live instances
  std::vector<metrics::Figure> cpu, memory, restarts, running, missing;
  const auto services = runtime_.Observe();
  if (services.ok()) {
    for (const runtime::ServiceStatus& service : *services) {
      int live = 0, total_restarts = 0;
      std::map<int, bool> done;  // replica -> its newest instance ended well
      for (const runtime::InstanceStatus& instance : service.instances) {
        total_restarts = std::max(total_restarts, instance.restarts);
        done[instance.replica] =
            instance.state == runtime::InstanceState::kExited && instance.exit_code == 0;
        if (!IsLive(instance)) continue;
        ++live;
        const metrics::Labels labels = {
            {"app", service.app}, {"instance", instance.id}, {"service", service.service}};
        if (instance.pid > 0) pids.emplace(instance.pid, instance.id);
        labels_of.emplace(instance.id, labels);
        cpu.push_back({"takt_instance_cpu_seconds_total", labels, metrics::Type::kCounter,
                       instance.cpu_seconds});
        if (instance.memory_bytes > 0) {  // 0: not looked at yet
          memory.push_back({"takt_instance_memory_bytes", labels, metrics::Type::kGauge,
                            static_cast<double>(instance.memory_bytes)});
        }
      }
      const metrics::Labels labels = {{"app", service.app}, {"service", service.service}};
      restarts.push_back({"takt_service_restarts_total", labels, metrics::Type::kCounter,
                          static_cast<double>(total_restarts)});
      running.push_back({"takt_service_live_instances", labels, metrics::Type::kGauge,
                         static_cast<double>(live)});
      const auto completed = std::count_if(done.begin(), done.end(),
                                           [](const auto& replica) { return replica.second; });
      missing.push_back(
          {"takt_service_missing_instances", labels, metrics::Type::kGauge,
           service.stopped
               ? 0.0
               : std::max(0.0, static_cast<double>(service.desired_replicas - live - completed))});
    }
  }
  for (auto* group : {&cpu, &memory, &restarts, &running, &missing}) {
    std::move(group->begin(), group->end(), std::back_inserter(figures));
  }
  std::map<std::pair<std::string, std::string>, double> gpu_memory;  // (instance, gpu) -> bytes
  for (const metrics::GpuProcess& process : gpus.processes) {
    const std::string instance = InstanceOf(process.pid, pids, ParentOf);
    if (instance.empty()) continue;  // somebody else's
    gpu_memory[{instance, process.gpu}] += static_cast<double>(process.memory_bytes);
  }
  for (const auto& [key, bytes] : gpu_memory) {
    metrics::Labels labels = labels_of[key.first];
    labels.insert(labels.begin() + 1, {"gpu", key.second});  // by name: app, gpu, instance, service
    figures.push_back(
        {"takt_instance_gpu_memory_bytes", std::move(labels), metrics::Type::kGauge, bytes});
  }
  std::map<std::string, int> states;
  std::map<std::pair<std::string, std::string>, int> stations;
  for (const line::App& app : line_.List()) {
    ++states[line::AppStateName(app.state)];
    for (const line::ServiceView& service : app.services) ++stations[StationOf(service)];
  }
  for (const auto& [key, count] : stations) {
    figures.push_back({"takt_station_services",
                       {{"state", key.second}, {"station", key.first}},
                       metrics::Type::kGauge,
                       static_cast<double>(count)});
  }
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, seconds] : station_seconds_) {
      figures.push_back({"takt_station_seconds_total",
                         {{"state", key.second}, {"station", key.first}},
                         metrics::Type::kCounter,
                         seconds});
    }
    figures.insert(figures.end(), targets_up_.begin(), targets_up_.end());
  }
  for (const auto& [state, count] : states) {
    figures.push_back(
        {"takt_apps", {{"state", state}}, metrics::Type::kGauge, static_cast<double>(count)});
  }
  AddForwardFigures(*forwarder_, figures);
  const auto runs = runs_->Running();
  if (runs.ok()) {
    figures.push_back(
        {"takt_runs_running", {}, metrics::Type::kGauge, static_cast<double>(runs->size())});
    for (const Run& run : *runs) {
      for (const learning::Finding& finding : run.findings) {
        if (!finding.alert) continue;
        figures.push_back({"takt_run_alerts",
                           {{"app", run.app},
                            {"kind", learning::FindingName(finding.kind)},
                            {"run", absl::StrCat(run.number)}},
                           metrics::Type::kGauge,
                           1.0});
      }
    }
  }
  const auto stats = logs_->Stats();
  if (stats.ok()) {
    figures.push_back(
        {"takt_log_entries", {}, metrics::Type::kGauge, static_cast<double>(stats->entries)});
    figures.push_back({"takt_log_dropped_entries_total",
                       {},
                       metrics::Type::kCounter,
                       static_cast<double>(stats->dropped_entries)});
    figures.push_back(
        {"takt_log_disk_bytes", {}, metrics::Type::kGauge, static_cast<double>(stats->disk_bytes)});
  }
  const metrics::MetricStats kept = metrics_->Stats();
  figures.push_back(
      {"takt_metric_series", {}, metrics::Type::kGauge, static_cast<double>(kept.series)});
  figures.push_back(
      {"takt_metric_disk_bytes", {}, metrics::Type::kGauge, static_cast<double>(kept.disk_bytes)});
  figures.push_back({"takt_metric_dropped_blocks_total",
                     {},
                     metrics::Type::kCounter,
                     static_cast<double>(kept.dropped_blocks)});
  figures.push_back({"takt_scrapes_failed_total",
                     {},
                     metrics::Type::kCounter,
                     static_cast<double>(scrapes_failed_.load())});
  return figures;
}

void Observer::Store(const std::vector<metrics::Figure>& figures,
                     std::optional<std::chrono::system_clock::time_point> since) {
  // All samples of a round have one time, a whole interval: charts line up, and times pack well.
  const auto rounded = [](std::chrono::system_clock::time_point time) {
    const auto interval = std::chrono::milliseconds(kSampleInterval).count();
    return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count() /
           interval * interval;
  };
  const std::int64_t now = rounded(clock_.Now());
  std::vector<metrics::MetricStore::Point> points, zeros;
  points.reserve(figures.size());
  for (const metrics::Figure& figure : figures) {
    bool fresh = false;
    const auto id = metrics_->Series(figure.name, figure.labels, figure.type, &fresh);
    if (!id.ok()) continue;
    points.push_back({*id, figure.value});
    if (fresh && since && figure.type == metrics::Type::kCounter) zeros.push_back({*id, 0});
  }
  // Without this, what was counted before a counter was first seen would be in no increase.
  if (!zeros.empty() && rounded(*since) > 0 && rounded(*since) < now)
    metrics_->Append(rounded(*since), zeros);
  metrics_->Append(now, points);
}

void Observer::Sample() {
  // What is seen now counts since the last look; a machine that slept was at no station.
  const auto now = clock_.Steady();
  const auto since = std::min<std::chrono::steady_clock::duration>(
      now - std::exchange(last_sample_, now), 2 * kSampleInterval);
  const std::vector<line::App> apps = line_.List();
  {
    const std::lock_guard lock(mutex_);
    for (const line::App& app : apps) {
      for (const line::ServiceView& service : app.services) {
        station_seconds_[StationOf(service)] += std::chrono::duration<double>(since).count();
      }
    }
  }
  Store(Figures());
}

void Observer::ReadLearning(const std::string& name) {
  const auto app = line_.Get(name);
  if (!app.ok()) {
    bool was_there = false;
    {
      const std::lock_guard lock(mutex_);
      was_there = known_.erase(name) != 0;
    }
    // Logs stay until their days are over: they tell why it went. Curves belong to the app.
    if (was_there && absl::IsNotFound(app.status())) {
      learning_->RemoveApp(name).IgnoreError();
      Warn(runs_->Removed(name, clock_.Now()));
    }
    return;
  }
  Warn(Annotate(runs_->Observe(*app, volumes_, clock_.Now()), StrCat("runs of ", name)));
  for (const line::ServiceView& service : app->services) {
    if (service.role != "training") continue;
    for (const std::string& directory : EventDirectories(service.spec, volumes_)) {
      const auto report = learning_->Scan({name, service.spec.name, directory});
      if (!report.ok()) continue;  // not there yet
      for (const std::string& problem : report->problems) {
        std::fprintf(stderr, "takt: warning: training events of %s: %s\n", name.c_str(),
                     problem.c_str());
      }
    }
  }
  const bool running =
      std::any_of(app->services.begin(), app->services.end(), [](const line::ServiceView& service) {
        return service.role == "training" &&
               std::any_of(service.instances.begin(), service.instances.end(), IsLive);
      });
  const std::lock_guard lock(mutex_);
  known_.insert(name);
  if (running) changed_.insert(name);  // look again: it goes on writing
}

void Observer::Diagnose() {
  const auto running = runs_->Running();
  if (!running.ok()) return Warn(running.status());
  const double now = std::chrono::duration<double>(clock_.Now().time_since_epoch()).count();
  doctor_.Keep(*running);
  for (const Run& run : *running) {
    const auto app = line_.Get(run.app);
    if (!app.ok()) continue;
    bool expects_events = false;
    for (const line::ServiceView& service : app->services) {
      if (service.spec.name == run.service) expects_events = !service.spec.learning.empty();
    }
    const auto findings = doctor_.Examine(run, expects_events, *learning_, now);
    if (!findings.ok()) {
      Warn(findings.status());
      continue;
    }
    const auto fresh = runs_->SetFindings(run.app, run.number, *findings);
    if (!fresh.ok()) continue;  // the run has just gone
    for (const learning::Finding& finding : *fresh) {
      Warn(line_.AddEvent(run.app, "learning", StrCat("run ", run.number, ": ", finding.message),
                          finding.alert ? "warning" : "info"));
    }
  }
}

void Observer::ScaleServices() {
  const std::vector<line::App> apps = line_.List();
  const bool any = std::any_of(apps.begin(), apps.end(), [](const line::App& app) {
    return std::any_of(app.services.begin(), app.services.end(),
                       [](const line::ServiceView& s) { return s.spec.scaling.has_value(); });
  });
  if (!any) return;
  Scaler::Machine machine{.cores = static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN))};
  const auto total =
      metrics_->Newest("takt_node_memory_bytes", {{"kind", metrics::Matcher::Op::kEqual, "total"}},
                       std::chrono::milliseconds(std::chrono::minutes(1)).count());
  if (!total.empty()) machine.memory_bytes = total[0].sample.value;
  scaler_->Step(apps, machine);
}

void Observer::SampleLoop() {
  last_sample_ = clock_.Steady();
  auto next_sample = last_sample_, next_learning = next_sample;
  auto next_diagnosis = next_sample + kDiagnoseInterval;
  auto next_scaling = next_sample + kScaleInterval;
  do {
    const auto now = clock_.Steady();
    if (now >= next_sample) {
      Sample();
      next_sample = now + kSampleInterval;
    }
    if (now >= next_learning) {
      std::set<std::string> apps;
      {
        const std::lock_guard lock(mutex_);
        apps.swap(changed_);
      }
      for (const std::string& app : apps) ReadLearning(app);
      next_learning = now + kLearningInterval;
    }
    if (now >= next_diagnosis) {
      Diagnose();
      next_diagnosis = now + kDiagnoseInterval;
    }
    if (now >= next_scaling) {
      ScaleServices();
      next_scaling = now + kScaleInterval;
    }
    Warn(metrics_->Tend());
  } while (
      WaitUntil(std::min({next_sample, next_learning, clock_.Steady() + std::chrono::seconds(1)})));
}

// A service says where with the label takt.metrics: PORT/PATH. A model server has a usual path, on
// its REST port and, ours, on its gRPC port too; which port is which, its answers tell.
std::vector<Observer::Target> Observer::Targets() {
  std::vector<Target> targets;
  for (const line::App& app : line_.List()) {
    for (const line::ServiceView& service : app.services) {
      std::uint16_t port = 0;  // 0 = any
      std::string path;
      const auto label = service.spec.labels.find("takt.metrics");
      if (label != service.spec.labels.end()) {
        const auto slash = label->second.find('/');
        int number = 0;
        if (!absl::SimpleAtoi(label->second.substr(0, slash), &number) || number <= 0 ||
            number > 65535) {
          continue;
        }
        port = static_cast<std::uint16_t>(number);
        path = slash == std::string::npos ? "/metrics" : label->second.substr(slash);
      } else if (service.role == "serving") {
        path = kServingMetricsPath;
      } else {
        continue;
      }
      for (const runtime::InstanceStatus& instance : service.instances) {
        if (!IsLive(instance)) continue;
        Target target{app.name, service.spec.name, instance.id, path, {}, instance.started};
        for (const runtime::Endpoint& endpoint : instance.endpoints) {
          if ((port != 0 && endpoint.target != port) || endpoint.protocol != "tcp") continue;
          target.addresses.emplace_back(endpoint.host, endpoint.port);
        }
        if (!target.addresses.empty()) targets.push_back(std::move(target));
      }
    }
  }
  return targets;
}

absl::StatusOr<metrics::Exposition> Observer::Ask(const Target& target, Known& known) {
  // The address that answered last comes first.
  std::vector<Address> addresses = target.addresses;
  std::stable_partition(addresses.begin(), addresses.end(),
                        [&](const Address& address) { return address == known.answered; });
  absl::Status status;
  for (const Address& address : addresses) {
    net::HttpClientOptions options;
    std::tie(options.host, options.port) = address;
    options.timeout = kScrapeTimeout;
    options.max_body_bytes = metrics::kMaxScrapeBytes;
    const auto reply = net::HttpClient(options).Call({.target = target.path});
    absl::StatusOr<metrics::Exposition> exposition =
        !reply.ok()            ? absl::StatusOr<metrics::Exposition>(reply.status())
        : reply->status != 200 ? absl::UnavailableError(StrCat("HTTP ", reply->status))
                               : metrics::ParseExposition(reply->body);
    if (exposition.ok()) {
      known.answered = address;
      return exposition;
    }
    status = exposition.status();
  }
  return status;
}

bool Observer::Scrape(const Target& target, Known& known) {
  absl::StatusOr<metrics::Exposition> exposition = Ask(target, known);
  if (!exposition.ok()) {
    ++scrapes_failed_;
    return false;
  }
  for (metrics::Figure& figure : exposition->figures) {
    // Whose it is, over what it says of itself.
    std::erase_if(figure.labels, [](const auto& label) {
      return label.first == "app" || label.first == "instance" || label.first == "service";
    });
    figure.labels.emplace_back("app", target.app);
    figure.labels.emplace_back("instance", target.instance);
    figure.labels.emplace_back("service", target.service);
    std::sort(figure.labels.begin(), figure.labels.end());
  }
  Store(exposition->figures, std::max(target.started, known.answered_at));
  known.answered_at = clock_.Now();
  return true;
}

void Observer::ScrapeLoop() {
  std::map<std::string, Known> known;  // by instance
  auto next = clock_.Steady() + kSampleInterval;
  while (WaitUntil(next)) {
    next = clock_.Steady() + kSampleInterval;
    std::map<std::string, Known> still;
    const std::vector<Target> targets = Targets();
    std::vector<std::pair<const Target*, Known*>> due;
    for (const Target& target : targets) {
      Known& it = still[target.instance] = known[target.instance];
      if (clock_.Steady() >= it.not_before) due.emplace_back(&target, &it);
    }
    std::atomic<std::size_t> next_due = 0;
    const auto work = [&] {
      for (std::size_t i = next_due++; i < due.size(); i = next_due++) {
        auto& [target, it] = due[i];
        it->up = Scrape(*target, *it);
        // One that is starting answers soon; one that never does is asked ever more seldom.
        it->pause = it->up ? std::chrono::steady_clock::duration(0)
                           : std::min<std::chrono::steady_clock::duration>(
                                 kMaxScrapePause, 2 * it->pause + kSampleInterval);
        // Less a little: the next round must not miss it by the time that this one took.
        it->not_before = clock_.Steady() + it->pause - kSampleInterval / 2;
      }
    };
    std::vector<std::thread> helpers;
    for (std::size_t i = 1; i < std::min(kScrapeThreads, due.size()); ++i)
      helpers.emplace_back(work);
    work();
    for (std::thread& helper : helpers) helper.join();
    std::vector<metrics::Figure> up;
    up.reserve(targets.size());
    for (const Target& target : targets) {
      up.push_back(
          {"takt_target_up",
           {{"app", target.app}, {"instance", target.instance}, {"service", target.service}},
           metrics::Type::kGauge,
           still[target.instance].up ? 1.0 : 0.0});
    }
    {
      const std::lock_guard lock(mutex_);
      targets_up_ = std::move(up);
    }
    known.swap(still);
  }
}

std::string Exposition(Observer& observer) {
  std::vector<metrics::Figure> figures = observer.Figures();
  std::vector<metrics::Figure> own = metrics::ReadProcess();
  std::move(own.begin(), own.end(), std::back_inserter(figures));
  // The format wants the figures of one name together.
  std::stable_sort(figures.begin(), figures.end(),
                   [](const auto& a, const auto& b) { return a.name < b.name; });
  return metrics::WriteExposition(figures);
}

}  // namespace takt::operate
