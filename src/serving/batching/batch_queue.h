// The queue of one signature, through which all of its runs go: requests that may share a run put
// their rows straight into the tensors of an open batch, and each is answered from its rows of the
// outputs; any other is a batch of its own, whose inputs stay where they are. Who would wait too
// long is refused when it comes.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "base/status.h"
#include "net/event_loop.h"
#include "net/grpc_server.h"
#include "serving/batching/batching.h"
#include "serving/engine/engine.h"

namespace takt::serving {

class Servable;
class Signature;

// Requests of one queue that wait for a run; beyond: UNAVAILABLE.
inline constexpr std::int64_t kMaxQueuedRequests = 16384;
// What their inputs take; beyond: UNAVAILABLE, unless nothing waits.
inline constexpr std::size_t kMaxQueuedBytes = std::size_t{1} << 30;
// Where so many wait already, the next is taken only if its run is expected within kMaxQueueWait;
// else UNAVAILABLE. Fewer are what clients that wait for their answers bring by themselves, however
// slow the model is. Longer a request need not stand in a queue to keep the machine busy.
inline constexpr std::int64_t kMaxUntimedRequests = 512;
inline constexpr std::chrono::milliseconds kMaxQueueWait{50};
// Bytes that the inputs of one automatic batch take at most.
inline constexpr std::size_t kMaxBatchBytes = 16 << 20;
// An input that padding would make larger than this in one batch begins another batch.
inline constexpr std::size_t kMaxPaddedBytes = 256 << 20;

// One request's inputs, wherever they lie.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual DataType dtype(std::size_t input) const = 0;
  virtual std::span<const std::int64_t> dims(std::size_t input) const = 0;
  // Copies: numbers, or strings.
  virtual void Fill(std::size_t input, void* out) const = 0;
  virtual void FillStrings(std::size_t input, std::string* out) const = 0;
  // A tensor that outlives the source.
  virtual absl::StatusOr<Tensor> Keep(std::size_t input) const = 0;
  // Keep copies no bytes, or only few of them.
  virtual bool KeepsInPlace() const = 0;
};

struct BatchEntry;

// Who asked.
class BatchClient {
 public:
  virtual ~BatchClient() = default;
  // The answer of `entry`: rows [entry.first, entry.first + entry.rows) of `outputs`, or all of
  // them when entry.first is -1; then they may be moved from. Once for each entry, on any thread.
  virtual void OnOutputs(BatchEntry& entry, std::vector<Tensor>& outputs) = 0;
  virtual void OnError(BatchEntry& entry, const absl::Status& status) = 0;
};

struct BatchEntry {
  BatchClient* client = nullptr;
  net::GrpcCallPtr call;                                          // of Predict
  std::function<void(absl::StatusOr<std::vector<Tensor>>)> done;  // of Servable::Run
  const Servable* servable = nullptr;
  const Signature* signature = nullptr;
  const Session::Plan* plan = nullptr;  // of RunTogether, kept by `done`; null = signature's
  absl::InlinedVector<std::uint16_t, 4> chosen;  // outputs that are wanted, ascending; none = all
  std::optional<std::chrono::steady_clock::time_point> deadline;
  std::chrono::steady_clock::time_point begin;    // when the request came
  std::chrono::steady_clock::time_point started;  // when its run began; epoch = it never did
  std::int64_t first = -1;
  std::int64_t rows = 0;
  std::unique_ptr<std::string> logged_request;  // of a sampled Predict
  // Where `done`'s caller wants to read how long it waited for its run; null = nowhere.
  std::shared_ptr<std::chrono::nanoseconds> queue;

  bool IsDead(std::chrono::steady_clock::time_point now) const {
    return (deadline.has_value() && *deadline <= now) || (call && call->cancelled());
  }
};

// The inputs of a RunRequest.
class TensorSource final : public BatchSource {
 public:
  explicit TensorSource(const std::vector<Tensor>& tensors) : tensors_(tensors) {}
  DataType dtype(std::size_t input) const override { return tensors_[input].dtype(); }
  std::span<const std::int64_t> dims(std::size_t input) const override {
    return tensors_[input].dims();
  }
  void Fill(std::size_t input, void* out) const override;
  void FillStrings(std::size_t input, std::string* out) const override;
  absl::StatusOr<Tensor> Keep(std::size_t input) const override { return tensors_[input]; }
  bool KeepsInPlace() const override { return true; }

 private:
  const std::vector<Tensor>& tensors_;
};

// Hands an answer to `done` of its entry.
class DoneClient final : public BatchClient {
 public:
  static DoneClient& Instance();
  void OnOutputs(BatchEntry& entry, std::vector<Tensor>& outputs) override;
  void OnError(BatchEntry& entry, const absl::Status& status) override;
};

class BatchQueue {
 public:
  virtual ~BatchQueue() = default;
  // Takes `entry` when the answer is OK; its client has been told already, or will be. The caller
  // keeps the servable, and with it the queue, until Join returns.
  // Refused: UNAVAILABLE when the queue is full, RESOURCE_EXHAUSTED when the run would end after
  // the entry's deadline, INVALID_ARGUMENT for more rows than a batch may have.
  virtual absl::Status Join(Servable& servable, const BatchSource& source, BatchEntry& entry) = 0;
};

// `batching`: null = each request is a run of its own. `workers` may be null but for TensorFlow
// Serving's parameters: then every run is on its loop. All three must outlive the queue.
std::unique_ptr<BatchQueue> MakeBatchQueue(const BatchingOptions* batching,
                                           const Signature& signature, WorkerPool* workers);

// What is run at once: inputs of several requests side by side, or one request's as they are.
class Batch {
 public:
  // Makes an empty batch one for rows like those of `source`; `capacity` rows. With `pads`, rows
  // whose dimensions differ fit too: the batch takes the largest of each, and every request's rows
  // are filled up with the first element of its input, as TensorFlow Serving does.
  // RESOURCE_EXHAUSTED when the memory is not there.
  absl::Status Open(const BatchSource& source, std::size_t inputs, std::int64_t capacity,
                    bool pads = false);
  // RESOURCE_EXHAUSTED when the memory is not there for rows as large as `source`'s. To be called
  // before Add where the batch pads.
  absl::Status MakeRoom(const BatchSource& source);
  // Makes an empty batch one of one request, whatever its inputs' shapes. Takes `entry` when the
  // answer is OK.
  absl::Status Hold(const BatchSource& source, std::size_t inputs, BatchEntry& entry);
  // Whether `source`'s rows have this batch's types and shapes, and there is room.
  bool Fits(const BatchSource& source, std::int64_t rows) const;
  void Add(const BatchSource& source, std::int64_t rows, BatchEntry entry);
  // Empties it, keeping its memory; false when somebody else still uses that.
  bool Reuse();

  std::int64_t rows() const { return rows_; }
  // Rows that there is room for; 0 = it holds a request as it is.
  std::int64_t capacity() const { return capacity_; }
  // Of all inputs, in memory of its own or not; strings not counted.
  std::size_t bytes() const { return bytes_; }
  bool empty() const { return entries_.empty(); }
  std::vector<BatchEntry>& entries() { return entries_; }

  // Tells the entries that wait no longer, those whose deadline has passed by `expired`, and closes
  // the gaps that they leave.
  void DropDead(std::chrono::steady_clock::time_point now, const absl::Status& expired);
  // Runs and answers every entry. `padded_rows` >= rows(): copies of the first row fill up.
  // False when the outputs are not by rows: then each request was run alone, as it is when the run
  // of many fails, so that one request's values fail no other's.
  bool Run(const Servable& servable, const Signature& signature, std::int64_t padded_rows);

  std::shared_ptr<Servable> servable;  // kept while it waits and runs
  std::chrono::steady_clock::time_point opened;
  std::int64_t row_ns = 0;  // what a row adds to the wait of those behind it; 0 = not known

 private:
  struct Input {
    DataType dtype;
    Dims row_dims;
    std::size_t row_bytes;
    std::int64_t row_elements;
    std::shared_ptr<char> data;
    std::vector<std::string> strings;
  };
  static absl::Status Allocate(Input& input, std::int64_t capacity);
  void AddPadded(Input& input, const BatchSource& source, std::size_t at, std::int64_t rows);
  Tensor RowsOf(const Input& input, std::int64_t first, std::int64_t rows) const;
  void RunEachAlone(const Servable& servable, const Signature& signature);

  std::vector<Input> inputs_;
  std::vector<Tensor> tensors_;  // of a run; without inputs_ one request's as they came
  std::int64_t capacity_ = 0;
  std::size_t bytes_ = 0;
  bool pads_ = false;
  std::int64_t rows_ = 0;
  std::vector<BatchEntry> entries_;
};

}  // namespace takt::serving
