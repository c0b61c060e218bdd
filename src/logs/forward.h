// Sends the log store's entries on, to Loki's push API or to an OTLP/HTTP receiver. The store
// itself is the queue (LogStore::ReadNext): a receiver that is down for a day costs no memory and
// misses nothing that is still kept; a kill -9 at any moment sends some entries twice and none
// never. What days or size remove before it was sent is counted and said.
//
// Threads: any may call; each forward has a thread of its own, so a receiver that hangs delays
// nobody else.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/sqlite.h"
#include "base/status.h"
#include "logs/store.h"
#include "net/post.h"

namespace takt::logs {

inline constexpr std::size_t kMaxForwards = 8;
inline constexpr std::size_t kMaxForwardHeaders = 10;
inline constexpr std::size_t kMaxForwardTextBytes = 4096;          // a URL, a header
inline constexpr std::size_t kMaxForwardBatchEntries = 2000;       // of one request
inline constexpr std::size_t kMaxForwardBatchBytes = 1 << 20;      // of text in one request, about
inline constexpr std::chrono::seconds kMaxForwardBatchAge{1};      // then a batch goes as it is
inline constexpr std::chrono::seconds kForwardTimeout{15};         // of one request
inline constexpr std::chrono::seconds kFirstForwardPause{1};       // after a failure; it doubles
inline constexpr std::chrono::seconds kMaxForwardPause{60};        // up to this
inline constexpr std::chrono::seconds kMaxForwardRetryAfter{900};  // of what a receiver asks for

enum class ForwardKind { kLoki, kOtlp };
const char* ForwardKindName(ForwardKind kind);  // "loki", "otlp"
std::optional<ForwardKind> ForwardKindFromName(std::string_view name);

struct Forward {
  std::string name;  // unique; letters, digits, '_', '-' and '.'
  ForwardKind kind = ForwardKind::kLoki;
  std::string url;    // http(s); without a path: the kind's own (/loki/api/v1/push, /v1/logs)
  std::string query;  // only what matches is sent; empty = everything
  std::map<std::string, std::string> headers;  // with each request; may hold secrets
  bool enabled = true;                         // false: nothing is sent, the place is kept
  bool fixed = false;  // from the command line: cannot be changed or removed
};

struct ForwardState {
  // Since this daemon started:
  std::uint64_t sent_entries = 0, sent_batches = 0, failed_attempts = 0;
  std::uint64_t refused_entries = 0;  // the receiver will not have them: not sent again
  // Ever:
  std::uint64_t removed_entries = 0;  // by days or size before they were looked at
  std::uint64_t behind_entries = 0;   // to be looked at
  std::chrono::seconds lag{0};        // age of the oldest of those, about
  bool failing = false;               // the last attempt failed; last_error says why
  std::string last_error;             // kept when it works again
  std::chrono::system_clock::time_point last_error_at, last_sent_at;
};

// The body of a request with these entries and its Content-Type: Loki's push JSON, or an OTLP
// ExportLogsServiceRequest in protobuf. Loki's labels are app, service, instance and level; OTLP's
// resource has service.namespace (the app), service.name, service.instance.id and host.name.
struct ForwardBody {
  std::string content_type, bytes;
};
ForwardBody MakeForwardBody(ForwardKind kind, const std::vector<FoundEntry>& entries,
                            std::int64_t now_us);

// What tests make short.
struct ForwardTiming {
  std::chrono::milliseconds first_pause = kFirstForwardPause;
  std::chrono::milliseconds max_pause = kMaxForwardPause;
  std::chrono::milliseconds batch_age = kMaxForwardBatchAge;
};

class Forwarder {
 public:
  // Sends a request once; net::Post but in tests.
  using Send = std::function<absl::StatusOr<net::PostReply>(const net::PostRequest&)>;
  // Told what people should hear: a receiver fails, works again, missed entries.
  using Say = std::function<void(const std::string& message, bool warning)>;

  // Opens the database of forwards at `path` and goes on with each where it was. `fixed` are there
  // beside those that the database remembers; fixed ones of earlier that are gone are removed.
  // `store` must outlive it.
  static absl::StatusOr<std::unique_ptr<Forwarder>> Open(const std::string& path,
                                                         std::vector<Forward> fixed,
                                                         LogStore& store, const Clock& clock,
                                                         Send send, Say say,
                                                         ForwardTiming timing = {});
  ~Forwarder();  // a request under way is given up; it goes again the next time

  struct View {
    Forward forward;
    ForwardState state;
  };
  std::vector<View> List();  // by name
  absl::StatusOr<Forward> Get(const std::string& name);
  // Makes it, beginning with what comes from now on (or with everything that is kept), or changes
  // it, going on where it is. INVALID_ARGUMENT, RESOURCE_EXHAUSTED at kMaxForwards,
  // FAILED_PRECONDITION for a fixed one.
  absl::Status Put(Forward forward, bool from_start);
  absl::Status Remove(const std::string& name);  // NOT_FOUND, FAILED_PRECONDITION

 private:
  class Worker;
  Forwarder(LogStore& store, const Clock& clock, Send send, Say say, ForwardTiming timing);
  absl::Status Load(std::vector<Forward> fixed);
  absl::Status Save(const Forward& forward);

  LogStore& store_;
  const Clock& clock_;
  const Send send_;
  const Say say_;
  const ForwardTiming timing_;
  std::mutex mutex_;
  std::unique_ptr<Sqlite> db_;                              // guarded by mutex_
  std::map<std::string, std::unique_ptr<Worker>> workers_;  // by name; guarded by mutex_
};

}  // namespace takt::logs
