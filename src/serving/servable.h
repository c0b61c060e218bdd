// A loaded version of a model, and the set of all of them that the request path reads.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "serving/batching/batch_queue.h"
#include "serving/batching/batching.h"
#include "serving/batching/run_cost.h"
#include "serving/engine/engine.h"

namespace takt::serving {

inline constexpr std::string_view kDefaultSignatureName = "serving_default";
// Combinations of signatures whose joint plan a servable keeps; further ones are resolved each
// time.
inline constexpr std::size_t kMaxJointPlans = 64;

// A signature with its feeds and fetches resolved.
class Signature {
 public:
  Signature();
  ~Signature();
  const SignatureDef& def() const { return def_; }
  const std::string& name() const { return def_.name; }
  const std::vector<TensorInfo>& inputs() const { return def_.inputs; }
  bool has_defaults() const { return has_defaults_; }  // some input may be left out
  const std::vector<TensorInfo>& outputs() const { return def_.outputs; }
  // Index by alias, -1 when there is none.
  int FindInput(std::string_view alias) const;
  int FindOutput(std::string_view alias) const;
  const RunCost& cost() const { return cost_; }
  // Runs that succeeded, and their rows, padding included: rows ÷ runs is the mean batch size.
  std::uint64_t runs() const { return runs_.load(std::memory_order_relaxed); }
  std::uint64_t run_rows() const { return run_rows_.load(std::memory_order_relaxed); }
  std::uint64_t rows_proven_apart() const { return def_.why_rows_may_depend.empty() ? 1 : 0; }
  // PredictResponse.model_spec as it is on the wire, with its tag: the same for all answers.
  const std::string& answer_spec() const { return answer_spec_; }

 private:
  friend class Servable;
  SignatureDef def_;
  bool has_defaults_ = false;
  std::unique_ptr<Session::Plan> plan_;  // all inputs, all outputs
  absl::Status plan_status_;             // why there is no plan
  std::unique_ptr<BatchQueue> queue_;    // null where there is no plan
  mutable RunCost cost_;
  mutable std::atomic<std::uint64_t> runs_{0}, run_rows_{0};
  std::string answer_spec_;
};

// INTERNAL for a signature that is none of predict, classify and regress: Predict refuses such ones
// where --enable_signature_method_name_check says so.
absl::Status CheckPredictMethod(const Signature& signature);

struct RunRequest {
  const Signature* signature = nullptr;
  std::vector<Tensor> inputs;  // one each, in the order of signature->inputs()
  std::optional<std::chrono::steady_clock::time_point> deadline;
  // Where the time that it waited for its run is put before the answer comes; may be null.
  std::shared_ptr<std::chrono::nanoseconds> queue;
};
// All outputs in the order of signature->outputs(). Called once, on any thread, perhaps before Run
// returns.
using RunDone = std::function<void(absl::StatusOr<std::vector<Tensor>> outputs)>;

class Servable : public std::enable_shared_from_this<Servable> {
 public:
  struct Options {
    std::string name;
    std::int64_t version = 0;
    std::optional<BatchingOptions> batching;  // nothing = unbatched
  };
  // `workers` runs what would hold up an event loop; may be null (everything on its loop) without
  // TensorFlow Serving's batching parameters. It must outlive the servable.
  static absl::StatusOr<std::shared_ptr<Servable>> Create(std::unique_ptr<Session> session,
                                                          Options options, WorkerPool* workers);
  ~Servable();

  const std::string& name() const { return options_.name; }
  std::int64_t version() const { return options_.version; }
  const Session& session() const { return *session_; }
  // Null when there is none. `name` "" means serving_default.
  const Signature* FindSignature(std::string_view name) const;
  const std::vector<std::unique_ptr<Signature>>& signatures() const { return signatures_; }

  // Through the signature's queue. DEADLINE_EXCEEDED where the deadline has passed at the run's
  // end.
  void Run(RunRequest request, RunDone done);
  // One run for several signatures that feed the same tensors (those of the first, which
  // request.signature names): each one's outputs, one signature after the other. Through the
  // queue of the first; shares no run with other requests.
  void RunTogether(const std::vector<const Signature*>& signatures, RunRequest request,
                   RunDone done);
  // Past every queue, on the calling thread: what warm-up and queues use.
  absl::StatusOr<std::vector<Tensor>> RunNow(const Signature& signature,
                                             std::span<const Tensor> inputs,
                                             const RunOptions& options,
                                             std::int64_t rows = 1) const;
  // The same with a plan of RunTogether's. Not counted as runs of a signature.
  absl::StatusOr<std::vector<Tensor>> RunPlan(const Session::Plan& plan,
                                              std::span<const Tensor> inputs,
                                              const RunOptions& options) const;
  // Runs every signature on zeros, so that what TensorFlow builds at a first run (the executor,
  // kernels for shapes) is there before a request comes. What a model says to zeros does not
  // matter.
  void RunOnZeros() const;
  // Lets the request of `source` wait for its run; see BatchQueue::Join. What the engine said where
  // the signature cannot be run.
  absl::Status Join(const Signature& signature, const BatchSource& source, BatchEntry& entry);

 private:
  Servable() = default;
  // With `done` (and `plan`) of the entry set.
  void Join(const RunRequest& request, BatchEntry& entry);
  Options options_;
  std::unique_ptr<Session> session_;
  std::vector<std::unique_ptr<Signature>> signatures_;
  std::mutex joint_mutex_;
  std::map<std::vector<const Signature*>, std::shared_ptr<const Session::Plan>> joint_plans_;
};

// Which version answers a request.
struct ModelEntry {
  std::map<std::int64_t, std::shared_ptr<Servable>> versions;  // available ones only
  std::map<std::string, std::int64_t, std::less<>> labels;
};

// An immutable picture of everything that can answer.
struct ServableSnapshot {
  std::map<std::string, ModelEntry, std::less<>> models;

  // What a ModelSpec chooses. NOT_FOUND "Servable not found for request: Latest(mnist)" or
  // "Specific(mnist, 7)"; INVALID_ARGUMENT "Unrecognized servable version label: L",
  // "ModelSpec has no name specified.".
  absl::StatusOr<std::shared_ptr<Servable>> Find(std::string_view model,
                                                 std::optional<std::int64_t> version,
                                                 std::string_view label) const;
};

// Where the manager publishes and the request path reads. Readers never wait for a writer: they
// take the pointer to a snapshot and keep it as long as they need it; a version that left the
// picture is freed when its last request has ended.
class ServableDirectory {
 public:
  ServableDirectory() : snapshot_(std::make_shared<const ServableSnapshot>()) {}
  std::shared_ptr<const ServableSnapshot> Get() const {
    const std::lock_guard lock(mutex_);
    return snapshot_;
  }
  void Publish(std::shared_ptr<const ServableSnapshot> next) {
    {
      const std::lock_guard lock(mutex_);
      snapshot_.swap(next);
    }
    generation_.fetch_add(1, std::memory_order_release);
  }
  // Rises with every Publish. What was derived from a snapshot got after reading it holds as long
  // as it has not risen.
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  // Held for the copy or the exchange of a pointer. std::atomic<std::shared_ptr> is a spin lock
  // inside, and one whose unlocking the thread sanitizer of this compiler cannot follow.
  mutable std::mutex mutex_;
  std::shared_ptr<const ServableSnapshot> snapshot_;
  std::atomic<std::uint64_t> generation_{1};
};

}  // namespace takt::serving
