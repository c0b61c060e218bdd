// Routes to what was seen: log search, metrics, learning. Each Add... adds the routes of one room
// to a router; all must outlive it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "api/json_writer.h"
#include "api/router.h"
#include "api/workers.h"
#include "learning/store.h"
#include "logs/store.h"
#include "metrics/store.h"
#include "operate/runs.h"

namespace takt::api {

inline constexpr std::size_t kMaxCurvePoints = 1500;        // of one series
inline constexpr std::chrono::seconds kMaxQuestionTime{5};  // then: what was found, complete: false
inline constexpr std::size_t kMaxExportEntries = 1'000'000;

inline constexpr std::size_t kMaxLiveSearches = 128;  // beyond: RESOURCE_EXHAUSTED

// GET /logs/stream: what matches from now on, pushed as it comes. A client that does not keep up
// is dropped by its backlog's limit. Any thread; one of its own keeps silent streams alive.
class LiveSearches {
 public:
  LiveSearches(logs::LogStore& store, std::chrono::milliseconds keep_alive);
  ~LiveSearches();  // ends the streams
  absl::Status Add(const std::shared_ptr<net::HttpResponder>& client,
                   std::shared_ptr<const logs::Query> query);

 private:
  struct Client {
    std::shared_ptr<net::HttpResponder> responder;
    logs::LogStore::Tail tail;
  };
  void Run();

  logs::LogStore& store_;
  const std::chrono::milliseconds keep_alive_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Client> clients_;  // guarded by mutex_
  bool stop_ = false;            // guarded by mutex_
  std::thread thread_;
};

void AddLogSearchRoutes(Router& router, logs::LogStore& store, LiveSearches& live,
                        Workers& workers);
void AddMetricRoutes(Router& router, metrics::MetricStore& store, Workers& workers);
// `runs` tells the time window that run=N means.
void AddLearningRoutes(Router& router, learning::LearningStore& store, operate::Runs& runs,
                       Workers& workers);

std::string Rfc3339FromSeconds(double seconds);  // since the epoch
// JSON has no NaN: what is not finite is written as a text.
void WriteNumber(JsonWriter& w, double value);

}  // namespace takt::api
