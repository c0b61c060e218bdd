#include "serving/batching/batch_queue.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "serving/servable.h"

namespace takt::serving {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kTimedOut = "Run() timeout exceeded while waiting in batching queue";

// The request's rows when it can share a run of `signature`, 0 when it cannot.
std::int64_t RowsToShare(const Signature& signature, const BatchSource& source) {
  const std::vector<TensorInfo>& infos = signature.inputs();
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < infos.size(); ++i) {
    const std::span<const std::int64_t> dims = source.dims(i);
    if (dims.empty() || dims[0] < 1 || source.dtype(i) != infos[i].dtype) return 0;
    if (i > 0 && dims[0] != rows) return 0;
    rows = dims[0];
    if (infos[i].unknown_rank) continue;
    if (infos[i].dims.size() != dims.size()) return 0;
    for (std::size_t d = 0; d < dims.size(); ++d) {
      if (infos[i].dims[d] >= 0 && infos[i].dims[d] != dims[d]) return 0;
    }
  }
  return rows;
}

// Whether the model says that dimension 0 of everything is the batch.
bool IsByRows(const Signature& signature) {
  auto by_rows = [](const TensorInfo& info) {
    return info.unknown_rank || (!info.dims.empty() && info.dims[0] == -1);
  };
  return !signature.inputs().empty() &&
         std::all_of(signature.inputs().begin(), signature.inputs().end(), by_rows) &&
         std::all_of(signature.outputs().begin(), signature.outputs().end(), by_rows);
}

// Puts rows of `from` dimensions into rows of `to` dimensions (as many, none smaller), and fills up
// with the first element. `unit`: how many T an element is.
template <typename T>
void PadRows(const T* in, std::span<const std::int64_t> from, T* out,
             std::span<const std::int64_t> to, std::int64_t rows, std::int64_t unit) {
  const std::int64_t in_row = ElementCount(from).value_or(0);
  const std::int64_t out_row = ElementCount(to).value_or(0);
  if (std::equal(from.begin(), from.end(), to.begin())) {
    std::copy_n(in, rows * in_row * unit, out);
    return;
  }
  if (in_row > 0) {
    for (std::int64_t i = 0; i < rows * out_row; ++i) std::copy_n(in, unit, out + i * unit);
  } else {
    std::fill_n(out, rows * out_row * unit, T{});
  }
  const std::int64_t line = from.back();  // elements that lie together in both
  if (in_row == 0) return;
  for (std::int64_t at = 0; at < rows * in_row; at += line) {
    std::int64_t place = 0;  // of the line in `to`, from its coordinates in `from`
    std::int64_t scale = to.back();
    std::int64_t rest = at % in_row / line;
    for (std::size_t d = from.size() - 1; d-- > 0;) {
      place += rest % from[d] * scale;
      rest /= from[d];
      scale *= to[d];
    }
    std::copy_n(in + at * unit, line * unit, out + (at / in_row * out_row + place) * unit);
  }
}

}  // namespace

// ---- Batch
// ---------------------------------------------------------------------------------------

void TensorSource::Fill(std::size_t input, void* out) const {
  if (tensors_[input].bytes() > 0)
    std::memcpy(out, tensors_[input].data(), tensors_[input].bytes());
}

void TensorSource::FillStrings(std::size_t input, std::string* out) const {
  std::copy(tensors_[input].strings().begin(), tensors_[input].strings().end(), out);
}

DoneClient& DoneClient::Instance() {
  static DoneClient instance;  // no state
  return instance;
}

namespace {

void TellQueueTime(const BatchEntry& entry) {
  // One that was never run waited until now.
  const Clock::time_point until = entry.started > entry.begin ? entry.started : Clock::now();
  if (entry.queue != nullptr) *entry.queue = until - entry.begin;
}

}  // namespace

void DoneClient::OnOutputs(BatchEntry& entry, const std::vector<Tensor>& outputs) {
  TellQueueTime(entry);
  if (entry.first < 0) return entry.done(outputs);
  std::vector<Tensor> mine;
  mine.reserve(outputs.size());
  for (const Tensor& output : outputs) mine.push_back(output.Slice(entry.first, entry.rows));
  entry.done(std::move(mine));
}

void DoneClient::OnError(BatchEntry& entry, const absl::Status& status) {
  TellQueueTime(entry);
  entry.done(status);
}

absl::Status Batch::Allocate(Input& input, std::int64_t capacity) {
  input.row_elements = ElementCount(input.row_dims).value_or(0);
  input.row_bytes = static_cast<std::size_t>(input.row_elements) * DataTypeSize(input.dtype);
  if (input.dtype == DataType::kString) return absl::OkStatus();
  const std::size_t bytes = std::max<std::size_t>(input.row_bytes * capacity, 1);
  char* data = static_cast<char*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64));
  if (data == nullptr) {
    return absl::ResourceExhaustedError(StrCat("no memory for a batch of ", bytes, " bytes"));
  }
  input.data = std::shared_ptr<char>(data, std::free);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Batch>> Batch::Open(const BatchSource& source, std::size_t inputs,
                                                   std::int64_t capacity, bool pads) {
  auto batch = std::make_unique<Batch>();
  batch->capacity_ = capacity;
  batch->pads_ = pads;
  for (std::size_t i = 0; i < inputs; ++i) {
    Input input;
    input.dtype = source.dtype(i);
    const std::span<const std::int64_t> dims = source.dims(i);
    input.row_dims.assign(dims.begin() + 1, dims.end());
    TAKT_RETURN_IF_ERROR(Allocate(input, capacity));
    batch->inputs_.push_back(std::move(input));
  }
  return batch;
}

absl::Status Batch::MakeRoom(const BatchSource& source) {
  if (!pads_) return absl::OkStatus();
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    Input& input = inputs_[i];
    const std::span<const std::int64_t> dims = source.dims(i).subspan(1);
    Input larger;
    larger.dtype = input.dtype;
    larger.row_dims = input.row_dims;
    for (std::size_t d = 0; d < dims.size(); ++d) {
      larger.row_dims[d] = std::max(larger.row_dims[d], dims[d]);
    }
    if (larger.row_dims == input.row_dims) continue;
    TAKT_RETURN_IF_ERROR(Allocate(larger, capacity_));
    // What was padded already has its own first element behind it, so it is padded further.
    const auto unit = static_cast<std::int64_t>(DataTypeSize(input.dtype));
    larger.strings.resize(input.dtype == DataType::kString ? rows_ * larger.row_elements : 0);
    for (const BatchEntry& entry : entries_) {
      if (input.dtype == DataType::kString) {
        PadRows(input.strings.data() + entry.first * input.row_elements, input.row_dims,
                larger.strings.data() + entry.first * larger.row_elements, larger.row_dims,
                entry.rows, 1);
      } else {
        PadRows(input.data.get() + entry.first * input.row_elements * unit, input.row_dims,
                larger.data.get() + entry.first * larger.row_elements * unit, larger.row_dims,
                entry.rows, unit);
      }
    }
    input = std::move(larger);
  }
  return absl::OkStatus();
}

bool Batch::Fits(const BatchSource& source, std::int64_t rows) const {
  if (rows_ + rows > capacity_) return false;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const std::span<const std::int64_t> dims = source.dims(i).subspan(1);
    const Dims& own = inputs_[i].row_dims;
    if (!pads_) {
      if (!std::equal(dims.begin(), dims.end(), own.begin(), own.end())) return false;
      continue;
    }
    if (dims.size() != own.size()) return false;
    std::size_t bytes = std::max<std::size_t>(DataTypeSize(inputs_[i].dtype), 1) *
                        static_cast<std::size_t>(rows_ + rows);
    bool same = true;
    for (std::size_t d = 0; d < dims.size(); ++d) {
      same = same && dims[d] == own[d];
      const auto most = static_cast<std::size_t>(std::max(dims[d], own[d]));
      if (__builtin_mul_overflow(bytes, most, &bytes)) return false;
    }
    if (!same && bytes > kMaxPaddedBytes) return false;
  }
  return true;
}

void Batch::AddPadded(Input& input, const BatchSource& source, std::size_t at, std::int64_t rows) {
  const std::span<const std::int64_t> dims = source.dims(at).subspan(1);
  const std::int64_t elements = rows * ElementCount(dims).value_or(0);
  if (input.dtype == DataType::kString) {
    std::vector<std::string> own(static_cast<std::size_t>(elements));
    source.FillStrings(at, own.data());
    PadRows<std::string>(own.data(), dims, input.strings.data() + rows_ * input.row_elements,
                         input.row_dims, rows, 1);
    return;
  }
  const auto unit = static_cast<std::int64_t>(DataTypeSize(input.dtype));
  std::string own(static_cast<std::size_t>(elements * unit), '\0');
  source.Fill(at, own.data());
  PadRows<char>(own.data(), dims, input.data.get() + rows_ * input.row_elements * unit,
                input.row_dims, rows, unit);
}

void Batch::Add(const BatchSource& source, std::int64_t rows, BatchEntry entry) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    Input& input = inputs_[i];
    if (input.dtype == DataType::kString) {
      input.strings.resize(static_cast<std::size_t>((rows_ + rows) * input.row_elements));
    }
    const std::span<const std::int64_t> dims = source.dims(i).subspan(1);
    if (pads_ && !std::equal(dims.begin(), dims.end(), input.row_dims.begin())) {
      AddPadded(input, source, i, rows);
    } else if (input.dtype == DataType::kString) {
      source.FillStrings(i, input.strings.data() + rows_ * input.row_elements);
    } else {
      source.Fill(i, input.data.get() + static_cast<std::size_t>(rows_) * input.row_bytes);
    }
  }
  entry.first = rows_;
  entry.rows = rows;
  rows_ += rows;
  entries_.push_back(std::move(entry));
}

bool Batch::Reuse() {
  entries_.clear();
  rows_ = 0;
  servable.reset();
  for (Input& input : inputs_) {
    input.strings.clear();
    if (input.data != nullptr && input.data.use_count() > 1) return false;
  }
  return true;
}

void Batch::DropDead(Clock::time_point now) {
  std::int64_t rows = 0;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    BatchEntry& entry = entries_[i];
    if (entry.IsDead(now)) {
      entry.client->OnError(entry, entry.call && entry.call->cancelled()
                                       ? absl::CancelledError("CANCELLED")
                                       : absl::ResourceExhaustedError(ToAbsl(kTimedOut)));
      continue;
    }
    if (entry.first != rows) {
      for (Input& input : inputs_) {
        if (input.dtype == DataType::kString) {
          auto from = input.strings.begin() + entry.first * input.row_elements;
          std::move(from, from + entry.rows * input.row_elements,
                    input.strings.begin() + rows * input.row_elements);
        } else {
          std::memmove(input.data.get() + static_cast<std::size_t>(rows) * input.row_bytes,
                       input.data.get() + static_cast<std::size_t>(entry.first) * input.row_bytes,
                       static_cast<std::size_t>(entry.rows) * input.row_bytes);
        }
      }
      entry.first = rows;
    }
    rows += entry.rows;
    if (kept != i) entries_[kept] = std::move(entry);
    ++kept;
  }
  entries_.resize(kept);
  rows_ = rows;
}

Tensor Batch::RowsOf(const Input& input, std::int64_t first, std::int64_t rows) const {
  Dims dims;
  dims.push_back(rows);
  dims.insert(dims.end(), input.row_dims.begin(), input.row_dims.end());
  if (input.dtype == DataType::kString) {
    auto from = input.strings.begin() + first * input.row_elements;
    return Tensor::FromStrings(std::move(dims), {from, from + rows * input.row_elements});
  }
  return Tensor::Wrap(input.dtype, std::move(dims), input.data,
                      input.data.get() + static_cast<std::size_t>(first) * input.row_bytes,
                      static_cast<std::size_t>(rows) * input.row_bytes);
}

bool Batch::Run(const Servable& servable, const Signature& signature, std::int64_t padded_rows) {
  const Clock::time_point now = Clock::now();
  for (BatchEntry& entry : entries_) entry.started = now;
  std::vector<Tensor> inputs;
  inputs.reserve(inputs_.size());
  for (Input& input : inputs_) {
    for (std::int64_t row = rows_; row < padded_rows; ++row) {
      if (input.dtype == DataType::kString) {
        input.strings.resize(static_cast<std::size_t>((row + 1) * input.row_elements));
        std::copy_n(input.strings.begin(), input.row_elements,
                    input.strings.begin() + row * input.row_elements);
      } else {
        std::memcpy(input.data.get() + static_cast<std::size_t>(row) * input.row_bytes,
                    input.data.get(), input.row_bytes);
      }
    }
    inputs.push_back(RowsOf(input, 0, padded_rows));
  }
  absl::StatusOr<std::vector<Tensor>> outputs = servable.RunNow(signature, inputs, {}, padded_rows);
  inputs.clear();
  if (!outputs.ok()) {
    if (entries_.size() == 1) {
      entries_[0].client->OnError(entries_[0], outputs.status());
    } else {
      RunEachAlone(servable, signature);
    }
    return true;
  }
  const bool by_rows = std::all_of(outputs->begin(), outputs->end(), [&](const Tensor& output) {
    return output.rank() >= 1 && output.dims()[0] == padded_rows;
  });
  if (!by_rows) {
    if (entries_.size() == 1 && padded_rows == rows_) {
      entries_[0].first = -1;
      entries_[0].client->OnOutputs(entries_[0], *outputs);
    } else {
      RunEachAlone(servable, signature);
    }
    return false;
  }
  for (BatchEntry& entry : entries_) entry.client->OnOutputs(entry, *outputs);
  return true;
}

void Batch::RunEachAlone(const Servable& servable, const Signature& signature) {
  for (BatchEntry& entry : entries_) {
    std::vector<Tensor> inputs;
    for (Input& input : inputs_) inputs.push_back(RowsOf(input, entry.first, entry.rows));
    absl::StatusOr<std::vector<Tensor>> outputs =
        servable.RunNow(signature, inputs, {entry.deadline}, entry.rows);
    entry.first = -1;
    if (outputs.ok()) {
      entry.client->OnOutputs(entry, *outputs);
    } else {
      entry.client->OnError(entry, outputs.status());
    }
  }
}

// ---- Automatic
// -----------------------------------------------------------------------------------

namespace {

constexpr std::size_t kMaxLoops = 256;
constexpr std::size_t kMaxSpareBatches = 4;
// Batches that can be joined at once: as many shapes can be collected side by side.
constexpr std::size_t kMaxOpenBatches = 16;

// Each loop collects for itself what its connections bring in a turn, and runs it at the turn's
// end, there or on a worker when runs are long. Nothing is shared between loops but the counters.
class AutomaticQueue final : public BatchQueue {
 public:
  AutomaticQueue(const BatchingOptions& options, const Signature& signature, WorkerPool* workers)
      : options_(options), signature_(signature), workers_(workers) {
    const bool proven = signature.def().why_rows_may_depend.empty();
    if ((options.needs_proof && !proven) || !IsByRows(signature)) by_rows_ = false;
  }
  ~AutomaticQueue() override {
    for (auto& slot : lanes_) delete slot.load();
  }

  absl::StatusOr<Joined> Join(Servable& servable, const BatchSource& source,
                              BatchEntry& entry) override {
    net::EventLoop* const loop = net::EventLoop::Current();
    if (loop == nullptr || !by_rows_.load(std::memory_order_relaxed)) return Joined::kRunAlone;
    const std::int64_t rows = RowsToShare(signature_, source);
    if (rows == 0) return Joined::kRunAlone;
    if (entry.call && IsBetterInPlace(*entry.call, rows)) return Joined::kRunAlone;
    Lane* lane = LaneOf(loop);
    if (lane == nullptr) return Joined::kRunAlone;
    TAKT_RETURN_IF_ERROR(Admit(*lane, entry));
    Batch* batch = lane->Find(source, rows);
    if (batch == nullptr) {
      const std::int64_t most = MostRows(source);
      if (rows > most) return Joined::kRunAlone;
      TAKT_ASSIGN_OR_RETURN(batch, lane->Open(source, most));
      batch->servable = servable.shared_from_this();
    }
    batch->Add(source, rows, std::move(entry));
    queued_.fetch_add(1, std::memory_order_relaxed);
    lane->Added(rows);
    lane->Schedule(servable);
    return Joined::kYes;
  }

  std::int64_t queued() const override { return queued_.load(std::memory_order_relaxed); }

 private:
  class Lane final : public net::EventLoop::TurnEnd {
   public:
    Lane(AutomaticQueue* queue, net::EventLoop* loop) : loop(loop), queue_(queue) {}

    void Added(std::int64_t rows) {
      ++requests_;
      rows_ += rows;
    }
    std::int64_t requests() const { return requests_; }
    // What is here will have been run after so long, as far as runs were measured.
    std::chrono::nanoseconds ExpectedWait() const {
      return std::chrono::nanoseconds(
          static_cast<std::int64_t>(row_ns_ * static_cast<double>(rows_)));
    }

    // The servable, and with it this lane, lives until the turn's end.
    void Schedule(Servable& servable) {
      if (keep_ == nullptr) keep_ = servable.shared_from_this();
      loop->AtTurnEnd(this, net::EventLoop::Phase::kWork);
    }

    Batch* Find(const BatchSource& source, std::int64_t rows) {
      for (auto batch = waiting_.rbegin(); batch != waiting_.rend(); ++batch) {
        if ((*batch)->Fits(source, rows)) return batch->get();
        if (static_cast<std::size_t>(batch - waiting_.rbegin()) + 1 == kMaxOpenBatches) break;
      }
      return nullptr;
    }
    absl::StatusOr<Batch*> Open(const BatchSource& source, std::int64_t capacity) {
      row_ns_ = queue_->RowNs(capacity);
      for (std::size_t i = spare_.size(); i-- > 0;) {
        if (spare_[i]->capacity() != capacity || !spare_[i]->Fits(source, 1)) continue;
        waiting_.push_back(std::move(spare_[i]));
        spare_.erase(spare_.begin() + static_cast<std::ptrdiff_t>(i));
        return waiting_.back().get();
      }
      TAKT_ASSIGN_OR_RETURN(std::unique_ptr<Batch> batch,
                            Batch::Open(source, queue_->signature_.inputs().size(), capacity));
      waiting_.push_back(std::move(batch));
      return waiting_.back().get();
    }

    void OnTurnEnd() override {
      const std::shared_ptr<Servable> keep = std::move(keep_);
      const Clock::time_point begin = Clock::now();
      while (!waiting_.empty()) {
        const bool elsewhere = queue_->RunsElsewhere(waiting_.front()->rows());
        // What runs already leaves no worker: the batch grows until one is free.
        if (elsewhere && running_ >= queue_->workers_->threads()) return;
        std::unique_ptr<Batch> batch = std::move(waiting_.front());
        waiting_.pop_front();
        const auto requests = static_cast<std::int64_t>(batch->entries().size());
        queue_->queued_.fetch_sub(requests, std::memory_order_relaxed);
        requests_ -= requests;
        rows_ -= batch->rows();
        if (!elsewhere) {
          queue_->RunBatch(*batch);
          Spare(std::move(batch));
          if (waiting_.empty() || Clock::now() - begin < kMaxRunsOfATurn) continue;
          // The sockets have their turn, so that what they hold is taken or refused; then on.
          loop->Post([this, keep] { Schedule(*keep); });
          return;
        }
        ++running_;
        queue_->workers_->Run([this, shared = std::shared_ptr<Batch>(std::move(batch))] {
          queue_->RunBatch(*shared);
          loop->Post([this, shared] {
            --running_;
            Schedule(*shared->servable);
          });
        });
      }
    }

    net::EventLoop* const loop;

   private:
    void Spare(std::unique_ptr<Batch> batch) {
      if (batch->Reuse() && spare_.size() < kMaxSpareBatches) spare_.push_back(std::move(batch));
    }

    AutomaticQueue* const queue_;
    std::shared_ptr<Servable> keep_;
    std::deque<std::unique_ptr<Batch>> waiting_;
    std::vector<std::unique_ptr<Batch>> spare_;
    int running_ = 0;            // on workers
    std::int64_t requests_ = 0;  // in waiting_
    std::int64_t rows_ = 0;      // of them
    double row_ns_ = 0;          // what a row costs in a batch as the last one that was opened
  };

  absl::Status Admit(const Lane& lane, const BatchEntry& entry) const {
    if (entry.deadline.has_value() && *entry.deadline <= Clock::now()) {
      return absl::DeadlineExceededError("the deadline passed before the run");
    }
    if (queued_.load(std::memory_order_relaxed) >= kMaxQueuedRequests) {
      return absl::UnavailableError(
          StrCat("The batch scheduling queue to which this task was submitted is full; ",
                 kMaxQueuedRequests, " requests wait"));
    }
    if (lane.requests() < kMaxUntimedRequests && !entry.deadline.has_value()) {
      return absl::OkStatus();
    }
    const std::chrono::nanoseconds wait = lane.ExpectedWait();
    if (lane.requests() >= kMaxUntimedRequests && wait > kMaxQueueWait) return too_long_;
    if (entry.deadline.has_value() && entry.begin + wait > *entry.deadline) {
      return absl::ResourceExhaustedError(
          StrCat("its run would begin after its deadline: ", lane.requests(),
                 " requests wait, for about ", wait / std::chrono::milliseconds(1), " ms of runs"));
    }
    return absl::OkStatus();
  }
  // Of a batch of so many, per row, as it adds to the wait of those behind it; 0 = not known.
  double RowNs(std::int64_t rows) const {
    const std::chrono::nanoseconds estimate = signature_.cost().Estimate(rows);
    if (estimate == RunCost::kUnknown) return 0;
    const auto run = static_cast<double>(estimate.count());
    const int at_once = RunsElsewhere(rows) ? workers_->threads() : 1;
    return run / static_cast<double>(rows) / at_once;
  }

  Lane* LaneOf(net::EventLoop* loop) {
    for (auto& slot : lanes_) {
      Lane* lane = slot.load(std::memory_order_acquire);
      if (lane != nullptr) {
        if (lane->loop == loop) return lane;
        continue;
      }
      auto fresh = std::make_unique<Lane>(this, loop);
      if (slot.compare_exchange_strong(lane, fresh.get(), std::memory_order_acq_rel)) {
        return fresh.release();
      }
      if (lane->loop == loop) return lane;
    }
    return nullptr;
  }

  // As many rows as keep a run within the latency target, as far as runs were measured.
  std::int64_t MostRows(const BatchSource& source) const {
    std::size_t row_bytes = 1;
    for (std::size_t i = 0; i < signature_.inputs().size(); ++i) {
      const auto row = source.dims(i).subspan(1);
      row_bytes += static_cast<std::size_t>(ElementCount(row).value_or(0)) *
                   std::max<std::size_t>(DataTypeSize(source.dtype(i)), 1);
    }
    const auto by_bytes = static_cast<std::int64_t>(kMaxBatchBytes / row_bytes);
    return std::max<std::int64_t>(1,
                                  std::min({by_bytes, options_.max_batch_size,
                                            signature_.cost().MostRows(options_.latency_target)}));
  }
  // Large inputs are run where they were received; in a batch they would be copied once more. That
  // pays only where a run takes much longer than the copy.
  bool IsBetterInPlace(const net::GrpcCall& call, std::int64_t rows) const {
    constexpr std::size_t kLargeBytes = 256 << 10;
    constexpr std::int64_t kCopiedBytesPerNanosecond = 4;
    if (call.request_bytes() < kLargeBytes || !call.body_is_shared()) return false;
    const auto copy_ns =
        static_cast<std::int64_t>(call.request_bytes()) / kCopiedBytesPerNanosecond;
    return signature_.cost().Estimate(rows).count() < 4 * copy_ns;
  }
  bool RunsElsewhere(std::int64_t rows) const {
    return workers_ != nullptr && signature_.cost().Estimate(rows) > RunCost::kLong;
  }
  void RunBatch(Batch& batch) {
    batch.DropDead(Clock::now());
    if (batch.empty()) return;
    if (!batch.Run(*batch.servable, signature_, batch.rows())) by_rows_ = false;
  }

  const BatchingOptions options_;
  const Signature& signature_;
  WorkerPool* const workers_;
  // Made once, and its text the same each time: refusing has to be cheap.
  const absl::Status too_long_ = absl::UnavailableError(StrCat(
      "The batch scheduling queue to which this task was submitted is full; ", kMaxUntimedRequests,
      " requests wait, for more than ", kMaxQueueWait.count(), " ms of runs"));
  std::atomic<bool> by_rows_{true};  // false: outputs turned out not to be by rows
  std::atomic<std::int64_t> queued_{0};
  std::array<std::atomic<Lane*>, kMaxLoops> lanes_{};
};

// ---- By TensorFlow Serving's parameters
// ----------------------------------------------------------

// One queue for all threads, under a mutex that is held for as long as rows are copied.
class ParameterQueue final : public BatchQueue {
 public:
  ParameterQueue(const BatchingOptions& options, const Signature& signature, WorkerPool* workers)
      : options_(options), signature_(signature), workers_(workers) {
    most_running_ = options.num_batch_threads > 0 ? options.num_batch_threads : workers->threads();
    run_rows_ = options.enable_large_batch_splitting && options.max_execution_batch_size > 0
                    ? options.max_execution_batch_size
                    : options.max_batch_size;
  }

  absl::StatusOr<Joined> Join(Servable& servable, const BatchSource& source,
                              BatchEntry& entry) override {
    if (!by_rows_.load(std::memory_order_relaxed)) return Joined::kRunAlone;
    const std::int64_t rows = RowsToShare(signature_, source);
    if (rows == 0) return Joined::kRunAlone;
    if (rows > options_.max_batch_size) {
      return absl::InvalidArgumentError(StrCat("Task size ", rows,
                                               " is larger than maximum input batch size ",
                                               options_.max_batch_size));
    }
    if (rows > run_rows_) return JoinInParts(servable, source, rows, entry);
    std::unique_lock lock(mutex_);
    Batch* batch = nullptr;
    for (auto& open : waiting_) {
      if (open->Fits(source, rows)) {
        batch = open.get();
        break;
      }
    }
    if (batch == nullptr) {
      if (static_cast<std::int64_t>(waiting_.size()) >= options_.max_enqueued_batches) {
        return absl::UnavailableError(
            StrCat("The batch scheduling queue to which this task was submitted is full; "
                   "currently ",
                   waiting_.size(), " batches enqueued and max_enqueued_batches is ",
                   options_.max_enqueued_batches));
      }
      TAKT_ASSIGN_OR_RETURN(std::unique_ptr<Batch> opened,
                            Batch::Open(source, signature_.inputs().size(), PaddedRows(run_rows_),
                                        options_.pad_variable_length_inputs));
      opened->servable = servable.shared_from_this();
      opened->opened = Clock::now();
      batch = opened.get();
      const std::shared_ptr<Servable> opened_servable = batch->servable;
      waiting_.push_back(std::move(opened));
      if (options_.batch_timeout.count() > 0) {
        workers_->RunAfter(options_.batch_timeout, [this, keep = opened_servable] { StartRuns(); });
      }
    }
    TAKT_RETURN_IF_ERROR(batch->MakeRoom(source));
    batch->Add(source, rows, std::move(entry));
    ++queued_;
    lock.unlock();
    StartRuns();
    return Joined::kYes;
  }

  std::int64_t queued() const override { return queued_; }

 private:
  // One request in several batches; answered when its last part is.
  struct Parts {
    std::mutex mutex;
    BatchEntry entry;
    std::vector<Tensor> inputs;
    std::vector<absl::StatusOr<std::vector<Tensor>>> outputs;
    std::size_t left = 0;
  };
  absl::StatusOr<Joined> JoinInParts(Servable& servable, const BatchSource& source,
                                     std::int64_t rows, BatchEntry& entry) {
    auto parts = std::make_shared<Parts>();
    for (std::size_t i = 0; i < signature_.inputs().size(); ++i) {
      const std::span<const std::int64_t> dims = source.dims(i);
      TAKT_ASSIGN_OR_RETURN(Tensor input,
                            Tensor::Allocate(source.dtype(i), Dims(dims.begin(), dims.end())));
      if (input.dtype() == DataType::kString) {
        source.FillStrings(i, input.mutable_strings().data());
      } else {
        source.Fill(i, input.mutable_data());
      }
      parts->inputs.push_back(std::move(input));
    }
    const auto count = static_cast<std::size_t>((rows + run_rows_ - 1) / run_rows_);
    parts->entry = std::move(entry);
    parts->outputs.resize(count);
    parts->left = count;
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t first = static_cast<std::int64_t>(i) * run_rows_;
      std::vector<Tensor> slices;
      for (const Tensor& input : parts->inputs) {
        slices.push_back(input.Slice(first, std::min(run_rows_, rows - first)));
      }
      BatchEntry part;
      part.client = &DoneClient::Instance();
      part.signature = &signature_;
      part.deadline = parts->entry.deadline;
      part.begin = parts->entry.begin;
      if (i == 0) part.queue = std::move(parts->entry.queue);  // until its first part runs
      part.done = [parts, i](absl::StatusOr<std::vector<Tensor>> outputs) {
        PartDone(*parts, i, std::move(outputs));
      };
      auto joined = Join(servable, TensorSource(slices), part);
      if (!joined.ok()) PartDone(*parts, i, joined.status());
      // Cannot be batched after all: the outputs of an earlier part have shown it.
      if (joined.ok() && *joined == Joined::kRunAlone) {
        PartDone(*parts, i, servable.RunNow(signature_, slices, {}, slices[0].dims()[0]));
      }
    }
    return Joined::kYes;
  }
  static void PartDone(Parts& parts, std::size_t i, absl::StatusOr<std::vector<Tensor>> outputs) {
    {
      std::lock_guard lock(parts.mutex);
      parts.outputs[i] = std::move(outputs);
      if (--parts.left > 0) return;
    }
    BatchEntry& entry = parts.entry;
    entry.first = -1;
    std::vector<Tensor> whole;
    for (const auto& part : parts.outputs) {
      if (!part.ok()) return entry.client->OnError(entry, part.status());
    }
    for (std::size_t output = 0; output < parts.outputs[0]->size(); ++output) {
      std::vector<Tensor> pieces;
      for (const auto& part : parts.outputs) pieces.push_back((*part)[output]);
      absl::StatusOr<Tensor> joined = Tensor::Concat(pieces);
      if (!joined.ok()) return entry.client->OnError(entry, joined.status());
      whole.push_back(*std::move(joined));
    }
    entry.client->OnOutputs(entry, whole);
  }

  std::int64_t PaddedRows(std::int64_t rows) const {
    auto size = std::lower_bound(options_.allowed_batch_sizes.begin(),
                                 options_.allowed_batch_sizes.end(), rows);
    return size == options_.allowed_batch_sizes.end() ? rows : *size;
  }
  // With the mutex held.
  bool IsReady(std::size_t i, Clock::time_point now) const {
    // Only the last one may still grow.
    return i + 1 < waiting_.size() || waiting_[i]->rows() >= run_rows_ ||
           now - waiting_[i]->opened >= options_.batch_timeout;
  }
  // Starts a runner for each batch whose time has come, as far as threads may run. A batch can be
  // joined until its runner takes it.
  void StartRuns() {
    std::lock_guard lock(mutex_);
    const Clock::time_point now = Clock::now();
    int ready = 0;
    for (std::size_t i = 0; i < waiting_.size(); ++i) ready += IsReady(i, now) ? 1 : 0;
    while (starting_ < ready && running_ < most_running_) {
      ++starting_;
      ++running_;
      workers_->Run([this, keep = waiting_.front()->servable] { RunReady(); });
    }
  }
  void RunReady() {
    bool first = true;
    while (true) {
      std::unique_ptr<Batch> batch;
      {
        std::lock_guard lock(mutex_);
        // Read with the mutex held: by an older time a batch that was just opened is not ready
        // yet, and nobody would come for it.
        const Clock::time_point now = Clock::now();
        if (std::exchange(first, false)) --starting_;
        for (std::size_t i = 0; i < waiting_.size() && batch == nullptr; ++i) {
          if (!IsReady(i, now)) continue;
          batch = std::move(waiting_[i]);
          waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
        }
        if (batch == nullptr) {
          --running_;
          return;
        }
      }
      queued_ -= static_cast<std::int64_t>(batch->entries().size());
      batch->DropDead(Clock::now());
      if (batch->empty()) continue;
      if (!batch->Run(*batch->servable, signature_, PaddedRows(batch->rows()))) by_rows_ = false;
    }
  }

  const BatchingOptions options_;
  const Signature& signature_;
  WorkerPool* const workers_;
  int most_running_;
  std::int64_t run_rows_;
  std::atomic<bool> by_rows_{true};
  std::atomic<std::int64_t> queued_{0};
  std::mutex mutex_;
  std::deque<std::unique_ptr<Batch>> waiting_;
  int starting_ = 0;  // of running_, those that have not taken a batch yet
  int running_ = 0;
};

}  // namespace

std::unique_ptr<BatchQueue> MakeBatchQueue(const BatchingOptions& options,
                                           const Signature& signature, WorkerPool* workers) {
  if (options.automatic) return std::make_unique<AutomaticQueue>(options, signature, workers);
  return std::make_unique<ParameterQueue>(options, signature, workers);
}

}  // namespace takt::serving
