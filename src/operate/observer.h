// Sees what the line does: brings logs, samples and training events of every app into their stores.
// It changes nothing about an app but the number of instances of a service that asks for scaling;
// what is seen is asked of the stores themselves.
//
// Threads: the log collector's, one that samples and reads training events, one that scrapes
// (a target that hangs delays nobody else). All end in the destructor.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mounts.h"
#include "base/status.h"
#include "learning/store.h"
#include "line/line.h"
#include "logs/collector.h"
#include "logs/forward.h"
#include "logs/searches.h"
#include "logs/store.h"
#include "metrics/gpu.h"
#include "metrics/node.h"
#include "metrics/prometheus.h"
#include "metrics/store.h"
#include "operate/directories.h"
#include "operate/doctor.h"
#include "operate/runs.h"
#include "operate/scaler.h"
#include "runtime/runtime.h"
#include "storage/volumes.h"

namespace takt::operate {

inline constexpr std::chrono::seconds kSampleInterval{5};
inline constexpr std::chrono::seconds kLearningInterval{2};  // of an app that is running
inline constexpr std::chrono::seconds kDiagnoseInterval{10};
inline constexpr std::chrono::milliseconds kScrapeTimeout{2000};
inline constexpr std::size_t kScrapeThreads = 4;  // so many targets may hang and harm nobody
// Between attempts at a target that does not answer; it begins with kSampleInterval.
inline constexpr std::chrono::seconds kMaxScrapePause{30};

// The instance that started the process `pid`, itself or by way of others: `instances` by the pid
// of their first process, `parent` gives a process's parent (0: unknown). "" where none did.
std::string InstanceOf(std::int64_t pid, const std::map<std::int64_t, std::string>& instances,
                       const std::function<std::int64_t(std::int64_t)>& parent);

struct ObserverOptions {
  std::string data_dir;
  std::string nvml;  // the library that GPUs are asked through; "": the usual one
  std::vector<logs::Forward> forwards;  // where the command line sends log entries on to
};

class Observer {
 public:
  // Opens logs.db, forward.db, searches.db, metrics.db, learning.db and runs.db in the data
  // directory; one that is damaged is set aside under a name that says so, and begun anew.
  // Everything given must outlive it.
  static absl::StatusOr<std::unique_ptr<Observer>> Open(ObserverOptions options, line::Line& line,
                                                        runtime::Runtime& runtime,
                                                        storage::VolumeStore& volumes,
                                                        const Clock& clock);
  ~Observer();

  void OnLogGrew(const std::string& instance);  // the runtime's log listener

  logs::LogStore& logs() { return *logs_; }
  logs::SavedSearches& searches() { return *searches_; }
  logs::Forwarder& forwarder() { return *forwarder_; }
  metrics::MetricStore& metrics() { return *metrics_; }
  learning::LearningStore& learning() { return *learning_; }
  Runs& runs() { return *runs_; }

  // Everything that is sampled, now: what /metrics answers.
  std::vector<metrics::Figure> Figures();

 private:
  // Outlives the observer in the line's listener.
  struct Ears {
    std::mutex mutex;
    Observer* observer = nullptr;
  };
  using Address = std::pair<std::string, std::uint16_t>;
  struct Target {
    std::string app, service, instance, path;
    std::vector<Address> addresses;  // any of them may answer
    std::chrono::system_clock::time_point started;
  };
  // What is known of a target by asking it.
  struct Known {
    Address answered;  // the address that answered last
    std::chrono::system_clock::time_point answered_at;
    std::chrono::steady_clock::time_point not_before;
    std::chrono::steady_clock::duration pause{0};
    bool up = false;  // it answered the last time
  };
  Observer(const std::string& data_dir, line::Line& line, runtime::Runtime& runtime,
           storage::VolumeStore& volumes, const Clock& clock);
  void OnLineChanged(const std::string& app);
  logs::ServiceLogs LogsOf(const std::string& app, const std::string& service);
  void SampleLoop();
  void Sample();
  void ReadLearning(const std::string& app);
  void Diagnose();
  void ScaleServices();
  void ScrapeLoop();
  std::vector<Target> Targets();
  absl::StatusOr<metrics::Exposition> Ask(const Target& target, Known& known);
  bool Scrape(const Target& target, Known& known);
  // `since`: when counters that are seen for the first time were zero; none = nobody knows.
  void Store(const std::vector<metrics::Figure>& figures,
             std::optional<std::chrono::system_clock::time_point> since = std::nullopt);
  bool WaitUntil(std::chrono::steady_clock::time_point time);  // false: it is ending

  const std::string data_dir_;
  line::Line& line_;
  runtime::Runtime& runtime_;
  storage::VolumeStore& volumes_;
  const Clock& clock_;
  std::shared_ptr<Ears> ears_ = std::make_shared<Ears>();
  std::unique_ptr<logs::LogStore> logs_;
  std::unique_ptr<logs::SavedSearches> searches_;
  std::unique_ptr<logs::Forwarder> forwarder_;
  std::unique_ptr<metrics::MetricStore> metrics_;
  std::unique_ptr<learning::LearningStore> learning_;
  std::unique_ptr<Runs> runs_;
  std::unique_ptr<metrics::GpuReader> gpus_;
  std::unique_ptr<logs::Collector> collector_;
  std::chrono::steady_clock::time_point last_sample_;  // the sampling thread's
  Doctor doctor_;                                      // the sampling thread's
  std::unique_ptr<Scaler> scaler_;                     // the sampling thread's

  std::mutex mutex_;
  std::condition_variable wake_;
  std::set<std::string> changed_;  // apps; under mutex_
  std::set<std::string> known_;    // apps that were there; under mutex_
  bool stop_ = false;              // under mutex_
  std::atomic<std::uint64_t> scrapes_failed_{0};
  std::map<std::pair<std::string, std::string>, double>
      station_seconds_;                      // (station, state); under mutex_
  std::vector<metrics::Figure> targets_up_;  // of the last round; under mutex_
  std::thread sampler_, scraper_;
};

// What GET /metrics answers: the observer's figures and this process's own.
std::string Exposition(Observer& observer);

}  // namespace takt::operate
