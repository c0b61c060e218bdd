#include "operate/alarm.h"

namespace takt::operate {
namespace {

constexpr std::chrono::seconds kFirstPause{2};

std::string AppOf(const Alert& alert) {
  for (const auto& [name, value] : alert.labels) {
    if (name == "app") return value;
  }
  return "";
}

}  // namespace

Alarm::Alarm(const AlarmOptions& options, metrics::MetricStore& store, const Clock& clock,
             Record record)
    : record_(std::move(record)),
      alerts_(store, clock,
              [this](const auto& fired, const auto& resolved) { Tell(fired, resolved); }) {
  for (const auto& [urls, dingtalk] :
       {std::pair(&options.alertmanager_urls, false), std::pair(&options.dingtalk_urls, true)}) {
    for (const std::string& url : *urls) {
      webhooks_.emplace_back(
          std::make_unique<Webhook>([url](const std::string& body) { return PostJson(url, body); },
                                    kFirstPause),
          dingtalk);
    }
  }
  thread_ = std::thread([this] { Run(); });
}

Alarm::~Alarm() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Alarm::Tell(const std::vector<Alert>& fired, const std::vector<Alert>& resolved) {
  for (const Alert& alert : fired) {
    record_(AppOf(alert), alert.summary,
            alert.severity == Severity::kCritical  ? "error"
            : alert.severity == Severity::kWarning ? "warning"
                                                   : "info");
  }
  for (const Alert& alert : resolved) record_(AppOf(alert), "over: " + alert.summary, "info");
  std::vector<Alert> all = fired;
  all.insert(all.end(), resolved.begin(), resolved.end());
  for (const auto& [webhook, dingtalk] : webhooks_) {
    webhook->Send(dingtalk ? DingTalkBody(all) : AlertmanagerBody(all));
  }
}

void Alarm::Run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kEvaluationInterval, [this] { return stop_; })) {
    lock.unlock();
    alerts_.Evaluate();
    lock.lock();
  }
}

}  // namespace takt::operate
