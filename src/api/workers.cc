#include "api/workers.h"

#include "absl/strings/str_cat.h"
#include "api/errors.h"

namespace takt::api {

Workers::Workers(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

Workers::~Workers() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  for (const Job& job : jobs_) {
    job.responder->Send(ErrorResponse(absl::UnavailableError("the daemon is ending")));
  }
}

absl::StatusOr<Reply> Workers::Answer(Call& call, std::function<absl::StatusOr<Reply>()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() >= kMaxWaitingQuestions) {
      return absl::ResourceExhaustedError(absl::StrCat(
          kMaxWaitingQuestions, " questions are waiting already: try again in a moment"));
    }
    jobs_.push_back({call.responder(), std::move(work)});
  }
  wake_.notify_one();
  return Reply::Streaming();
}

void Workers::Run() {
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
      if (stop_) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    if (job.responder->closed()) continue;  // nobody waits for it any more
    absl::StatusOr<Reply> reply = job.work();
    if (!reply.ok()) {
      job.responder->Send(ErrorResponse(reply.status()));
      continue;
    }
    if (reply->streaming) continue;
    net::HttpResponse response;
    response.status = reply->status;
    response.headers = std::move(reply->headers);
    response.content_type = std::move(reply->content_type);
    response.body = std::move(reply->body);
    job.responder->Send(std::move(response));
  }
}

}  // namespace takt::api
