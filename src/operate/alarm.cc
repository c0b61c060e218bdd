#include "operate/alarm.h"

#include "base/fs.h"
#include "operate/set_aside.h"

namespace takt::operate {
namespace {

std::string AppOf(const Alert& alert) {
  for (const auto& [name, value] : alert.labels) {
    if (name == "app") return value;
  }
  return "";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Alarm>> Alarm::Open(const std::string& data_dir,
                                                   std::vector<Receiver> fixed,
                                                   metrics::MetricStore& store, const Clock& clock,
                                                   Record record) {
  std::unique_ptr<Alarm> self(new Alarm(std::move(record)));
  const std::string path = JoinPath(data_dir, "alerts.db");
  TAKT_ASSIGN_OR_RETURN(self->file_,
                        OpenOrSetAside(path, clock, [&] { return AlertFile::Open(path); }));
  TAKT_ASSIGN_OR_RETURN(self->receivers_, Receivers::Open(*self->file_, std::move(fixed), clock));
  TAKT_ASSIGN_OR_RETURN(self->alerts_,
                        Alerts::Open(*self->file_, store, clock,
                                     [alarm = self.get()](const auto& fired, const auto& resolved) {
                                       alarm->Tell(fired, resolved);
                                     }));
  self->thread_ = std::thread([alarm = self.get()] { alarm->Run(); });
  return self;
}

Alarm::~Alarm() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Alarm::Tell(const std::vector<Alert>& fired, const std::vector<Alert>& resolved) {
  for (const Alert& alert : fired) {
    record_(AppOf(alert), alert.summary,
            alert.severity == Severity::kCritical  ? "error"
            : alert.severity == Severity::kWarning ? "warning"
                                                   : "info");
  }
  for (const Alert& alert : resolved) record_(AppOf(alert), "over: " + alert.summary, "info");
  receivers_->Tell(fired, resolved);
}

void Alarm::Run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kEvaluationInterval, [this] { return stop_; })) {
    lock.unlock();
    alerts_->Evaluate();
    lock.lock();
  }
}

}  // namespace takt::operate
