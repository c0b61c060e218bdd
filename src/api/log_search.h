// Routes to the central logs: search, histogram, context, live search, export, what is stored, and
// the searches that were saved, the places that entries are sent on to. All given must outlive the
// router.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "api/router.h"
#include "api/workers.h"
#include "logs/forward.h"
#include "logs/searches.h"
#include "logs/store.h"

namespace takt::api {

inline constexpr std::chrono::seconds kMaxQuestionTime{5};  // then: what was found, complete: false
inline constexpr std::size_t kMaxExportPieceBytes = 64 << 10;     // waiting for a client, at most
inline constexpr std::size_t kMaxFollowBacklogBytes = 128 << 10;  // then entries are skipped

// Sends what a query finds from now on to a client of GET /stream: `entries` with {entries,
// skipped}, pushed as they come. A client that is behind gets no more until it has caught up, so
// that its changes come through; `skipped` says how many were left out before, which GET /logs
// still finds. Any thread.
class LiveSearches {
 public:
  explicit LiveSearches(logs::LogStore& store) : store_(store) {}
  // Where there is no room for one more, the client is told by `entries_refused` {message}.
  void Add(const std::shared_ptr<net::HttpResponder>& client,
           std::shared_ptr<const logs::Query> query);

 private:
  struct Client {
    std::shared_ptr<net::HttpResponder> responder;
    logs::LogStore::Tail tail;
  };

  logs::LogStore& store_;
  std::mutex mutex_;
  std::vector<Client> clients_;  // guarded by mutex_
};

// An export holds a thread of `exporters` as long as its client takes; searches have their own.
void AddLogSearchRoutes(Router& router, logs::LogStore& store, Workers& workers,
                        Workers& exporters);
// `changed` is called after each change of the list.
void AddSavedSearchRoutes(Router& router, logs::SavedSearches& searches,
                          const std::function<void()>& changed);
void AddLogForwardRoutes(Router& router, logs::Forwarder& forwarder, Workers& workers);

}  // namespace takt::api
