// What GET /stream sends, a thread each: what changes anywhere (pushed, and a client that does not
// keep up is dropped), and on the same connection, where a client asks for them, the lines of an
// app's log (pulled from the log as fast as the client takes them, so nothing is lost and nothing
// piles up). For what a search finds see log_search.h.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "api/logs.h"
#include "line/line.h"
#include "net/http_server.h"
#include "runtime/runtime.h"

namespace takt::api {

inline constexpr std::size_t kMaxStreamClients = 256;    // beyond: RESOURCE_EXHAUSTED
inline constexpr std::size_t kMaxReplayedEvents = 1000;  // older ones are read by GET /events
inline constexpr std::size_t kMaxLogBacklogBytes =
    64 << 10;  // of a log client, before it is waited for
// Changes of one app within this time are told once.
inline constexpr std::chrono::milliseconds kStreamInterval{100};
inline constexpr std::chrono::milliseconds kLogStreamInterval{50};

// One message on the wire; `id` may be empty.
std::string FormatServerSentEvent(std::string_view event, std::string_view id,
                                  std::string_view data);
// The head of a stream's answer.
net::HttpResponse StreamHead();

// Begins the answer to GET /stream. Any thread.
class ChangeStream {
 public:
  ChangeStream(line::Line& line, std::chrono::milliseconds keep_alive);
  ~ChangeStream();

  void OnChange(const std::string& app);  // "" = events only
  void Broadcast(std::string_view event, std::string_view data);
  // Sends events after `after` first (0 = none), then what changes.
  absl::Status Add(const std::shared_ptr<net::HttpResponder>& client, std::int64_t after);

 private:
  void Run();
  void SendLocked(const std::string& text);

  line::Line& line_;
  const std::chrono::milliseconds keep_alive_;

  std::mutex wake_mutex_;
  std::condition_variable wake_;
  std::set<std::string> changed_;  // guarded by wake_mutex_, as the two below
  bool dirty_ = false, stop_ = false;

  std::mutex mutex_;  // taken before the line's, never inside it
  std::vector<std::shared_ptr<net::HttpResponder>> clients_;  // guarded by mutex_
  std::int64_t last_event_ = 0;                               // guarded by mutex_
  std::thread thread_;
};

// The lines of apps' logs, on streams that ChangeStream began. Any thread.
class LogStream {
 public:
  LogStream(line::Line& line, runtime::Runtime& runtime);
  ~LogStream();

  void OnChange(const std::string& app);
  void OnLog(const std::string& instance);
  // Follows the selected instances, later ones too, after `cursor`: `lines` with {lines, cursor};
  // `log_end` when the app is removed.
  void Add(const std::shared_ptr<net::HttpResponder>& client, const std::string& app,
           LogSelection selection, LogCursor cursor);

 private:
  struct Client {
    std::shared_ptr<net::HttpResponder> responder;
    std::string app;
    LogSelection selection;
    std::map<std::string, std::string> instances;
    LogCursor cursor;
    bool look_again = true;  // at which instances there are
    bool read_again = true;  // more may be there than was sent
    bool ended = false;      // its app is gone
  };
  void Run();
  void Serve(Client& client);

  line::Line& line_;
  runtime::Runtime& runtime_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::set<std::string> apps_, grown_;          // guarded by mutex_, as all below
  std::vector<std::shared_ptr<Client>> added_;  // not yet the thread's
  std::size_t count_ = 0;                       // of clients
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace takt::api
