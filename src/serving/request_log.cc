#include "serving/request_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <random>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/fs.h"
#include "base/tfrecord.h"
#include "serving/log.h"

namespace takt::serving {

struct RequestLog::File {
  int fd = -1;
  std::string path;
  std::size_t bytes = 0;
  int number = 0;
  bool failing = false;  // said once
  ~File() {
    if (fd >= 0) close(fd);
  }
};

RequestLog::RequestLog() : targets_(std::make_shared<const Targets>()) {
  writer_ = std::thread([this] { Loop(); });
}

RequestLog::~RequestLog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  writer_.join();
}

void RequestLog::Configure(const std::vector<ModelConfig>& models) {
  auto targets = std::make_shared<Targets>();
  for (const ModelConfig& model : models) {
    if (model.request_log.filename_prefix.empty() || model.request_log.sampling_rate <= 0) continue;
    (*targets)[model.name] = {model.request_log.filename_prefix, model.request_log.sampling_rate};
  }
  any_ = !targets->empty();
  const std::lock_guard lock(targets_mutex_);
  targets_ = std::move(targets);
}

std::shared_ptr<const RequestLog::Targets> RequestLog::CurrentTargets() const {
  const std::lock_guard lock(targets_mutex_);
  return targets_;
}

bool RequestLog::Wants(std::string_view model) {
  if (!any_.load(std::memory_order_relaxed)) return false;
  const std::shared_ptr<const Targets> targets = CurrentTargets();
  const auto it = targets->find(model);
  if (it == targets->end()) return false;
  thread_local std::minstd_rand random(std::random_device{}());
  return std::uniform_real_distribution<double>(0, 1)(random) < it->second.rate;
}

void RequestLog::Add(std::string_view model, std::int64_t version,
                     tensorflow::serving::PredictionLog log) {
  Entry entry;
  entry.model = std::string(model);
  entry.version = version;
  entry.bytes = log.ByteSizeLong();
  entry.log = std::move(log);
  Queue(std::move(entry));
}

void RequestLog::AddPredict(std::string_view model, std::int64_t version, std::string request,
                            std::string response) {
  Entry entry;
  entry.model = std::string(model);
  entry.version = version;
  entry.bytes = request.size() + response.size();
  entry.request = std::move(request);
  entry.response = std::move(response);
  Queue(std::move(entry));
}

void RequestLog::Queue(Entry entry) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_ || queued_bytes_ + entry.bytes > kMaxRequestLogQueueBytes) {
      dropped_.fetch_add(1);
      return;
    }
    queued_bytes_ += entry.bytes;
    queue_.push_back(std::move(entry));
  }
  wake_.notify_one();
}

void RequestLog::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    Entry entry = std::move(queue_.front());
    queue_.pop_front();
    queued_bytes_ -= entry.bytes;
    lock.unlock();
    const absl::Status status = Write(entry);
    if (status.ok()) {
      written_.fetch_add(1);
    } else {
      dropped_.fetch_add(1);
    }
    lock.lock();
  }
}

absl::Status RequestLog::Write(Entry& entry) {
  const std::shared_ptr<const Targets> targets = CurrentTargets();
  const auto target = targets->find(entry.model);
  if (target == targets->end()) return absl::NotFoundError("not logged any more");
  std::unique_ptr<File>& file = files_[target->second.prefix];
  if (file == nullptr) file = std::make_unique<File>();
  if (!entry.request.empty()) {
    tensorflow::serving::PredictLog* predict = entry.log.mutable_predict_log();
    if (!predict->mutable_request()->ParseFromString(entry.request) ||
        !predict->mutable_response()->ParseFromString(entry.response)) {
      return absl::InternalError("a logged request does not parse");
    }
  }
  auto* metadata = entry.log.mutable_log_metadata();
  metadata->mutable_model_spec()->set_name(entry.model);
  metadata->mutable_model_spec()->mutable_version()->set_value(entry.version);
  metadata->mutable_sampling_config()->set_sampling_rate(target->second.rate);
  std::string record;
  AppendTfRecord(entry.log.SerializeAsString(), record);

  if (file->fd >= 0 && file->bytes + record.size() > kMaxRequestLogFileBytes) {
    close(file->fd);
    file->fd = -1;
  }
  if (file->fd < 0) {
    const std::string time = absl::FormatTime("%Y%m%dT%H%M%SZ", absl::Now(), absl::UTCTimeZone());
    file->path =
        StrCat(target->second.prefix, "-", time, "-", getpid(), "-", file->number++, ".tfrecord");
    file->bytes = 0;
    file->fd = open(file->path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  }
  absl::Status status;
  if (file->fd < 0) {
    status = ErrnoStatus(errno, StrCat("open ", file->path));
  } else if (write(file->fd, record.data(), record.size()) != static_cast<ssize_t>(record.size())) {
    status = ErrnoStatus(errno, StrCat("write ", file->path));
  } else {
    file->bytes += record.size();
  }
  if (!status.ok() && !file->failing) {
    Log(LogLevel::kError, StrCat("request log: ", ToStd(status.message())));
  }
  file->failing = !status.ok();
  return status;
}

}  // namespace takt::serving
