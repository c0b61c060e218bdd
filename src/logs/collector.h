// Brings what instances say into the log store: their stdout and stderr through the runtime, and
// the files that log stores declare. Lines that belong together become one entry, progress bars
// their last state; level and (for files) time are read off the line.
//
// It remembers nothing itself: the store knows how far each source was read. When the store takes
// no more (a full disk), sources wait where they are.
//
// Threads: Start makes one; OnLogGrew and OnStateChanged may be called from any. Step is for tests,
// instead of Start.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mounts.h"
#include "base/status.h"
#include "logs/store.h"
#include "runtime/runtime.h"

namespace takt::logs {

inline constexpr int kDefaultTtlDays = 7;           // of output that no label speaks of
inline constexpr std::size_t kMaxEntryLines = 200;  // joined into one entry; then a new one begins
// Of a line longer than kMaxLineBytes so many pieces are kept, an entry each; the rest is counted.
inline constexpr std::size_t kMaxLineBytes = 64 << 10;
inline constexpr std::size_t kMaxLinePieces = 16;
inline constexpr std::size_t kMaxFollowedFiles = 200;  // of one service; further ones are not read

// What a service's labels say about its logs.
struct ServiceLogs {
  struct Declared {
    std::string store;
    std::string source;  // "stdout", or an absolute path or glob (last segment) in the instance
    int ttl_days = 2;
  };
  std::vector<Declared> stores;
  // Where paths of the instance lie on this machine.
  Mounts mounts;
};

class Collector {
 public:
  using Lookup = std::function<ServiceLogs(const std::string& app, const std::string& service)>;
  Collector(runtime::Runtime& runtime, LogStore& store, Lookup lookup, const Clock& clock);
  ~Collector();  // stops

  void Start();
  void Stop();  // reads what is there, then ends the thread
  void OnLogGrew(const std::string& instance);
  void OnStateChanged();

  // Reads what has come. OK also when a source was slow; the first error of the store otherwise.
  absl::Status Step();

 private:
  struct Feed;
  struct Source;
  void Loop();
  absl::Status Observe();
  absl::Status ReadInstance(const std::string& id, Source& source);
  absl::Status ReadFiles(Source& source);
  absl::Status FindFile(Source& source, const ServiceLogs::Declared& declared,
                        const std::string& shown, const std::string& path);
  // `ended`: nobody writes it any more, so a last line without an end is one.
  absl::Status ReadFile(Feed& feed, bool ended);
  // Gives finished entries to the store; the last one only when it has waited for its rest.
  absl::Status Deliver(Source& source, bool all);

  runtime::Runtime& runtime_;
  LogStore& store_;
  const Lookup lookup_;
  const Clock& clock_;
  std::map<std::string, std::unique_ptr<Source>> sources_;  // by instance; the loop's alone
  bool more_ = false;  // Step left something unread; the loop's alone

  std::mutex mutex_;
  std::condition_variable wake_;
  std::set<std::string> grown_;  // under mutex_
  bool state_changed_ = true;    // under mutex_
  bool stop_ = false;            // under mutex_
  std::thread thread_;
};

}  // namespace takt::logs
