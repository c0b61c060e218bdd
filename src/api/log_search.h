// Routes to the central logs: search, histogram, context, live search, export, what is stored, and
// the searches that were saved, the places that entries are sent on to. All given must outlive the
// router.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "api/router.h"
#include "api/workers.h"
#include "logs/forward.h"
#include "logs/searches.h"
#include "logs/store.h"

namespace takt::api {

inline constexpr std::chrono::seconds kMaxQuestionTime{5};  // then: what was found, complete: false
inline constexpr std::size_t kMaxExportPieceBytes = 64 << 10;  // waiting for a client, at most
inline constexpr std::size_t kMaxLiveSearches = 128;           // beyond: RESOURCE_EXHAUSTED

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

// An export holds a thread of `exporters` as long as its client takes; searches have their own.
void AddLogSearchRoutes(Router& router, logs::LogStore& store, LiveSearches& live, Workers& workers,
                        Workers& exporters);
// `changed` is called after each change of the list.
void AddSavedSearchRoutes(Router& router, logs::SavedSearches& searches,
                          std::function<void()> changed);
void AddLogForwardRoutes(Router& router, logs::Forwarder& forwarder, Workers& workers);

}  // namespace takt::api
