// Evaluates the alert rules every kEvaluationInterval and tells: the line's events, webhooks.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "operate/alerts.h"
#include "operate/webhook.h"

namespace takt::operate {

inline constexpr std::chrono::seconds kEvaluationInterval{15};

struct AlarmOptions {
  std::vector<std::string> alertmanager_urls;  // get Alertmanager's JSON
  std::vector<std::string> dingtalk_urls;      // get DingTalk's text message
};

class Alarm {
 public:
  // Records an event: app ("" = the platform), message, level.
  using Record = std::function<void(const std::string& app, const std::string& message,
                                    const std::string& level)>;
  Alarm(const AlarmOptions& options, metrics::MetricStore& store, const Clock& clock,
        Record record);
  ~Alarm();
  Alerts& alerts() { return alerts_; }

 private:
  void Tell(const std::vector<Alert>& fired, const std::vector<Alert>& resolved);
  void Run();

  const Record record_;
  std::vector<std::pair<std::unique_ptr<Webhook>, bool>> webhooks_;  // true: DingTalk's form
  Alerts alerts_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;  // under mutex_
  std::thread thread_;
};

}  // namespace takt::operate
