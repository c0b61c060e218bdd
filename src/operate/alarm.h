// Evaluates the alert rules every kEvaluationInterval and tells: the line's events, the receivers.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "operate/alert_file.h"
#include "operate/alerts.h"
#include "operate/receivers.h"

namespace takt::operate {

inline constexpr std::chrono::seconds kEvaluationInterval{5};

class Alarm {
 public:
  // Records an event: app ("" = the platform), message, level.
  using Record = std::function<void(const std::string& app, const std::string& message,
                                    const std::string& level)>;
  // Keeps alerts.db in `data_dir`; a damaged one is set aside. INVALID_ARGUMENT for a `fixed`
  // receiver that cannot be one. Everything given must outlive it.
  static absl::StatusOr<std::unique_ptr<Alarm>> Open(const std::string& data_dir,
                                                     std::vector<Receiver> fixed,
                                                     metrics::MetricStore& store,
                                                     const Clock& clock, Record record);
  ~Alarm();
  Alerts& alerts() { return *alerts_; }
  Receivers& receivers() { return *receivers_; }

 private:
  explicit Alarm(Record record) : record_(std::move(record)) {}
  void Tell(const std::vector<Alert>& fired, const std::vector<Alert>& resolved);
  void Run();

  const Record record_;
  std::unique_ptr<AlertFile> file_;
  std::unique_ptr<Receivers> receivers_;
  std::unique_ptr<Alerts> alerts_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;  // under mutex_
  std::thread thread_;
};

}  // namespace takt::operate
