// Which versions model servers answer for, by their own word: their REST status is asked every
// kServedInterval, where a port of theirs answers it, and their metrics say it else. What changes
// is told as an event of the app, so that the switch from one version to the next is a moment on
// its time axis.
//
// Threads: one that asks, ended by the destructor; every function may be called from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "line/line.h"
#include "metrics/store.h"
#include "storage/volumes.h"

namespace takt::operate {

inline constexpr std::chrono::seconds kServedInterval{1};
inline constexpr std::chrono::seconds kMaxServedPause{30};  // for one that does not answer
inline constexpr std::chrono::milliseconds kServedTimeout{1000};
inline constexpr std::size_t kMaxStatusBytes = 1 << 20;

using Versions = std::set<std::int64_t>;

// The versions that are AVAILABLE in the answer to GET /v1/models/NAME. INVALID_ARGUMENT when it
// is none.
absl::StatusOr<Versions> ParseModelStatus(std::string_view body);

// What to tell of a model whose versions were `before` and are `after` now: a sentence each.
std::vector<std::string> ServedChanges(const std::string& model, const Versions& before,
                                       const Versions& after);

class Served {
 public:
  // Records an event: app, message.
  using Record = std::function<void(const std::string& app, const std::string& message)>;
  // Everything given must outlive it.
  Served(line::Line& line, storage::VolumeStore& volumes, metrics::MetricStore& metrics,
         const Clock& clock, Record record);
  ~Served();

  // The versions of the model that `app`'s `service` calls `model` that it answers for now; nullopt
  // when it does not say.
  std::optional<Versions> Of(const std::string& app, const std::string& service,
                             const std::string& model) const;

 private:
  using Key = std::tuple<std::string, std::string, std::string>;  // app, service, model
  struct Instance {
    std::string host;
    std::uint16_t port = 0;  // that answered last; 0 = none yet
    std::chrono::steady_clock::time_point not_before{};
    std::chrono::steady_clock::duration pause{0};
  };
  void Look();
  void Run();

  line::Line& line_;
  storage::VolumeStore& volumes_;
  metrics::MetricStore& metrics_;
  const Clock& clock_;
  const Record record_;
  const std::chrono::system_clock::time_point begun_;
  std::map<std::string, Instance> instances_;  // the thread's
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::map<Key, Versions> known_;  // under mutex_
  bool stop_ = false;              // under mutex_
  std::thread thread_;
};

}  // namespace takt::operate
