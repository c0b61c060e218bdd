#include "serving/batching/batch_queue.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "serving/servable.h"

namespace takt::serving {
namespace {

using Clock = std::chrono::steady_clock;

// What a run of the request's inputs is counted as.
std::int64_t RowsOfRun(const BatchSource& source, std::size_t inputs) {
  const std::span<const std::int64_t> dims =
      inputs == 0 ? std::span<const std::int64_t>() : source.dims(0);
  return dims.empty() ? 1 : std::max<std::int64_t>(dims[0], 1);
}

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
  const Clock::time_point until =
      entry.started == Clock::time_point() ? Clock::now() : entry.started;
  if (entry.queue != nullptr) *entry.queue = until - entry.begin;
}

}  // namespace

void DoneClient::OnOutputs(BatchEntry& entry, std::vector<Tensor>& outputs) {
  TellQueueTime(entry);
  // A run cannot be stopped; what it gives after the deadline is no answer any more.
  if (entry.deadline.has_value() && *entry.deadline <= Clock::now()) {
    return entry.done(absl::DeadlineExceededError("the run took until after the deadline"));
  }
  if (entry.first < 0) return entry.done(std::move(outputs));
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

absl::Status Batch::Open(const BatchSource& source, std::size_t inputs, std::int64_t capacity,
                         bool pads) {
  inputs_.clear();
  bytes_ = 0;
  capacity_ = 0;
  for (std::size_t i = 0; i < inputs; ++i) {
    Input input;
    input.dtype = source.dtype(i);
    const std::span<const std::int64_t> dims = source.dims(i);
    input.row_dims.assign(dims.begin() + 1, dims.end());
    TAKT_RETURN_IF_ERROR(Allocate(input, capacity));
    bytes_ += input.row_bytes * static_cast<std::size_t>(capacity);
    inputs_.push_back(std::move(input));
  }
  capacity_ = capacity;
  pads_ = pads;
  return absl::OkStatus();
}

absl::Status Batch::Hold(const BatchSource& source, std::size_t inputs, BatchEntry& entry) {
  inputs_.clear();
  tensors_.clear();
  bytes_ = 0;
  capacity_ = 0;
  for (std::size_t i = 0; i < inputs; ++i) {
    TAKT_ASSIGN_OR_RETURN(Tensor input, source.Keep(i));
    bytes_ += input.bytes();
    tensors_.push_back(std::move(input));
  }
  rows_ = RowsOfRun(source, inputs);
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
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
  tensors_.clear();
  rows_ = 0;
  servable.reset();
  for (Input& input : inputs_) {
    input.strings.clear();
    if (input.data != nullptr && input.data.use_count() > 1) return false;
  }
  return true;
}

void Batch::DropDead(Clock::time_point now, const absl::Status& expired) {
  std::int64_t rows = 0;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    BatchEntry& entry = entries_[i];
    if (entry.IsDead(now)) {
      const bool cancelled = entry.call && entry.call->cancelled();
      entry.client->OnError(entry, cancelled ? absl::CancelledError("CANCELLED") : expired);
      continue;
    }
    if (capacity_ == 0) return;
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
  if (entries_[0].started == Clock::time_point()) {
    const Clock::time_point now = Clock::now();
    for (BatchEntry& entry : entries_) entry.started = now;
  }
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
    tensors_.push_back(RowsOf(input, 0, padded_rows));
  }
  BatchEntry& first = entries_[0];
  RunOptions options;
  if (entries_.size() == 1) options.deadline = first.deadline;
  absl::StatusOr<std::vector<Tensor>> outputs =
      first.plan == nullptr ? servable.RunNow(signature, tensors_, options, padded_rows)
                            : servable.RunPlan(*first.plan, tensors_, options);
  tensors_.clear();
  const bool is_alone = entries_.size() == 1 && padded_rows == rows_;
  if (!outputs.ok()) {
    if (entries_.size() == 1) {
      first.client->OnError(first, outputs.status());
    } else {
      RunEachAlone(servable, signature);
    }
    return true;
  }
  const bool by_rows = std::all_of(outputs->begin(), outputs->end(), [&](const Tensor& output) {
    return output.rank() >= 1 && output.dims()[0] == padded_rows;
  });
  if (is_alone) {
    first.first = -1;
    first.client->OnOutputs(first, *outputs);
  } else if (by_rows) {
    for (BatchEntry& entry : entries_) entry.client->OnOutputs(entry, *outputs);
  } else {
    RunEachAlone(servable, signature);
  }
  return by_rows || capacity_ == 0;
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

// ---- On the loops
// -----------------------------------------------------------------------------------

namespace {

// Batches that a loop keeps for the next requests: so many, and more that take no more bytes
// together.
constexpr std::size_t kMaxSpareBatches = 4;
constexpr std::size_t kMaxSmallSpareBatches = 2048;
constexpr std::size_t kMaxSpareBytes = 4 << 20;
// Batches that can be joined at once: as many shapes can be collected side by side.
constexpr std::size_t kMaxOpenBatches = 16;

// Each loop collects for itself what its connections bring in a turn, and runs it at the turn's
// end, there or on a worker when runs are long; what shares no run anyway is run when it comes, as
// long as nothing waits. Nothing is shared between loops but the counters.
class LoopQueue final : public BatchQueue {
 public:
  // `sharing`: automatic batching; null = no two requests share a run.
  LoopQueue(const BatchingOptions* sharing, const Signature& signature, WorkerPool* workers)
      : signature_(signature), workers_(workers) {
    if (sharing == nullptr) return;
    most_rows_ = sharing->max_batch_size;
    latency_target_ = sharing->latency_target;
    const bool proven = signature.def().why_rows_may_depend.empty();
    shares_ = (proven || !sharing->needs_proof) && IsByRows(signature);
  }
  ~LoopQueue() override {
    for (Lane* lane = lanes_.load(); lane != nullptr;) delete std::exchange(lane, lane->next);
  }

  absl::Status Join(Servable& servable, const BatchSource& source, BatchEntry& entry) override {
    net::EventLoop* const loop = net::EventLoop::Current();
    if (loop == nullptr) return JoinFromNoLoop(servable, source, entry);
    Lane& lane = LaneOf(loop);
    TAKT_RETURN_IF_ERROR(Admit(lane, source, entry));
    std::int64_t rows = entry.plan == nullptr ? RowsToShare(signature_, source) : 0;
    Batch* batch = nullptr;
    if (rows > 0 && shares_.load(std::memory_order_relaxed) &&
        !(entry.call && IsBetterInPlace(*entry.call, rows))) {
      batch = lane.Find(source, rows);
      if (batch == nullptr) {
        const std::int64_t most = MostRows(source);
        if (rows <= most) {
          TAKT_ASSIGN_OR_RETURN(batch, lane.Open(source, most));
        }
      }
      if (batch != nullptr) batch->Add(source, rows, std::move(entry));
    }
    if (batch == nullptr) {
      const bool copies = rows > 0 && !source.KeepsInPlace();
      rows = RowsOfRun(source, signature_.inputs().size());
      // One that is asked for by who receives an answer is not run within that other's run.
      if (lane.direct.empty() && !RunsElsewhere(rows) && loop->HasTimeForWork()) {
        entry.started = entry.begin;
        TAKT_RETURN_IF_ERROR(Take(lane.direct, copies, rows, source, entry));
        if (!lane.direct.Run(servable, signature_, lane.direct.rows())) shares_ = false;
        if (!lane.direct.Reuse()) lane.direct = Batch();
        return absl::OkStatus();
      }
      TAKT_ASSIGN_OR_RETURN(batch, lane.TakeOne(copies, rows, source, entry));
    }
    if (batch->servable == nullptr) batch->servable = servable.shared_from_this();
    lane.Added(*batch, rows);
    lane.Schedule(servable);
    return absl::OkStatus();
  }

 private:
  absl::Status JoinFromNoLoop(Servable& servable, const BatchSource& source, BatchEntry& entry) {
    TAKT_RETURN_IF_ERROR(AdmitBySize());
    auto batch = std::make_shared<Batch>();
    TAKT_RETURN_IF_ERROR(batch->Hold(source, signature_.inputs().size(), entry));
    batch->servable = servable.shared_from_this();
    if (!RunsElsewhere(batch->rows())) {
      RunBatch(*batch);
      return absl::OkStatus();
    }
    queued_.fetch_add(1, std::memory_order_relaxed);
    queued_bytes_.fetch_add(batch->bytes(), std::memory_order_relaxed);
    workers_->Run([this, batch] {
      queued_.fetch_sub(1, std::memory_order_relaxed);
      queued_bytes_.fetch_sub(batch->bytes(), std::memory_order_relaxed);
      RunBatch(*batch);
    });
    return absl::OkStatus();
  }

  class Lane final : public net::EventLoop::Work {
   public:
    Lane(LoopQueue* queue, net::EventLoop* loop) : loop(loop), queue_(queue) {}

    // `rows` more are in `batch`, one request's.
    void Added(const Batch& batch, std::int64_t rows) {
      ++requests_;
      wait_ns_ += batch.row_ns * rows;
      unpriced_ += batch.row_ns == 0 ? 1 : 0;
      queue_->queued_.fetch_add(1, std::memory_order_relaxed);
    }
    std::int64_t requests() const { return requests_; }
    // What is here will have been run after so long, as far as runs were measured.
    std::chrono::nanoseconds ExpectedWait() {
      if (unpriced_ > 0) Price();
      const auto runs = static_cast<double>(wait_ns_ + running_ns_);
      return std::chrono::nanoseconds(static_cast<std::int64_t>(runs * stretch_));
    }

    // The servable, and with it this lane, lives until there is nothing to do.
    void Schedule(Servable& servable) {
      if (keep_ == nullptr) keep_ = servable.shared_from_this();
      loop->Schedule(this);
    }

    Batch* Find(const BatchSource& source, std::int64_t rows) {
      for (auto batch = waiting_.rbegin(); batch != waiting_.rend(); ++batch) {
        if ((*batch)->Fits(source, rows)) return batch->get();
        if (static_cast<std::size_t>(batch - waiting_.rbegin()) + 1 == kMaxOpenBatches) break;
      }
      return nullptr;
    }
    absl::StatusOr<Batch*> Open(const BatchSource& source, std::int64_t capacity) {
      std::unique_ptr<Batch> batch = Spare(source, capacity);
      if (batch->capacity() != capacity || !batch->Fits(source, capacity)) {
        TAKT_RETURN_IF_ERROR(batch->Open(source, queue_->signature_.inputs().size(), capacity));
      }
      batch->row_ns = queue_->RowNs(capacity);
      queue_->queued_bytes_.fetch_add(batch->bytes(), std::memory_order_relaxed);
      return waiting_.emplace_back(std::move(batch)).get();
    }
    absl::StatusOr<Batch*> TakeOne(bool copies, std::int64_t rows, const BatchSource& source,
                                   BatchEntry& entry) {
      std::unique_ptr<Batch> batch = Spare(source, copies ? rows : 0);
      TAKT_RETURN_IF_ERROR(queue_->Take(*batch, copies, rows, source, entry));
      batch->row_ns = queue_->RowNs(rows);
      queue_->queued_bytes_.fetch_add(batch->bytes(), std::memory_order_relaxed);
      return waiting_.emplace_back(std::move(batch)).get();
    }

    bool DoWork(Clock::time_point until) override {
      std::shared_ptr<Servable> keep = std::move(keep_);
      const Clock::time_point begin = Clock::now();
      while (!waiting_.empty()) {
        const bool elsewhere = queue_->RunsElsewhere(waiting_.front()->rows());
        // What runs already leaves no worker: the batch grows until one is free.
        if (elsewhere && running_ >= queue_->workers_->threads()) return false;
        std::unique_ptr<Batch> batch = Take();
        if (!elsewhere) {
          queue_->RunBatch(*batch);
          Keep(std::move(batch));
          if (waiting_.empty()) break;
          const Clock::time_point now = Clock::now();
          if (now < until) continue;
          Stretch(begin, now);
          keep_ = std::move(keep);
          return true;
        }
        ++running_;
        const std::int64_t ns = batch->row_ns * batch->rows();
        running_ns_ += ns;
        queue_->workers_->Run([this, ns, shared = std::shared_ptr<Batch>(std::move(batch))] {
          queue_->RunBatch(*shared);
          loop->Post([this, ns, shared] {
            --running_;
            running_ns_ -= ns;
            Schedule(*shared->servable);
          });
        });
      }
      left_ = Clock::time_point();
      stretch_ = 1;
      return false;
    }

    net::EventLoop* const loop;
    Lane* next = nullptr;  // of the queue's lanes
    Batch direct;          // of a request that is run when it comes

   private:
    std::unique_ptr<Batch> Take() {
      std::unique_ptr<Batch> batch = std::move(waiting_.front());
      waiting_.pop_front();
      const auto requests = static_cast<std::int64_t>(batch->entries().size());
      requests_ -= requests;
      wait_ns_ -= batch->row_ns * batch->rows();
      unpriced_ -= batch->row_ns == 0 ? requests : 0;
      queue_->queued_.fetch_sub(requests, std::memory_order_relaxed);
      queue_->queued_bytes_.fetch_sub(batch->bytes(), std::memory_order_relaxed);
      return batch;
    }
    // Runs are left over at `now`; these began at `begin`. Meanwhile, and since the last ones, the
    // loop has had its sockets and the runs of others, too: a request waits for that as well.
    void Stretch(Clock::time_point begin, Clock::time_point now) {
      if (left_ == Clock::time_point()) {
        took_ns_ = ran_ns_ = 0;
      } else {
        constexpr double kKept = 31.0 / 32;  // of slices before
        took_ns_ = took_ns_ * kKept + static_cast<double>((now - left_).count());
        ran_ns_ = ran_ns_ * kKept + static_cast<double>((now - begin).count());
      }
      stretch_ = ran_ns_ > 0 ? took_ns_ / ran_ns_ : 1;
      left_ = now;
    }
    // What came before any run was measured.
    void Price() {
      for (auto& batch : waiting_) {
        if (batch->row_ns != 0) continue;
        batch->row_ns = queue_->RowNs(std::max(batch->capacity(), batch->rows()));
        if (batch->row_ns == 0) return;
        wait_ns_ += batch->row_ns * batch->rows();
        unpriced_ -= static_cast<std::int64_t>(batch->entries().size());
      }
    }
    // An empty batch, if possible one that has room for `capacity` rows like those of `source`.
    std::unique_ptr<Batch> Spare(const BatchSource& source, std::int64_t capacity) {
      if (spare_.empty()) return std::make_unique<Batch>();
      std::size_t at = spare_.size() - 1;
      const std::size_t last = spare_.size() - std::min(spare_.size(), kMaxSpareBatches);
      while (at > last &&
             (spare_[at]->capacity() != capacity || !spare_[at]->Fits(source, capacity))) {
        --at;
      }
      std::unique_ptr<Batch> batch = std::move(spare_[at]);
      spare_.erase(spare_.begin() + static_cast<std::ptrdiff_t>(at));
      spare_bytes_ -= batch->bytes();
      return batch;
    }
    void Keep(std::unique_ptr<Batch> batch) {
      if (!batch->Reuse()) return;
      const bool is_small =
          spare_.size() < kMaxSmallSpareBatches && spare_bytes_ + batch->bytes() <= kMaxSpareBytes;
      if (spare_.size() >= kMaxSpareBatches && !is_small) return;
      spare_bytes_ += batch->bytes();
      spare_.push_back(std::move(batch));
    }

    LoopQueue* const queue_;
    std::shared_ptr<Servable> keep_;
    std::deque<std::unique_ptr<Batch>> waiting_;
    std::vector<std::unique_ptr<Batch>> spare_;
    std::size_t spare_bytes_ = 0;
    int running_ = 0;              // on workers
    std::int64_t running_ns_ = 0;  // of them
    std::int64_t requests_ = 0;    // in waiting_
    std::int64_t wait_ns_ = 0;     // of them
    std::int64_t unpriced_ = 0;    // of them, those that are not in wait_ns_
    Clock::time_point left_;       // when runs were left over; epoch = none were
    double took_ns_ = 0;           // time of late from one such moment to the next
    double ran_ns_ = 0;            // of it, this lane's runs
    double stretch_ = 1;           // how much longer than its runs the lane takes
  };

  absl::Status AdmitBySize() const {
    if (queued_.load(std::memory_order_relaxed) >= kMaxQueuedRequests) {
      return absl::UnavailableError(
          StrCat("The batch scheduling queue to which this task was submitted is full; ",
                 kMaxQueuedRequests, " requests wait"));
    }
    if (queued_bytes_.load(std::memory_order_relaxed) >= kMaxQueuedBytes) {
      return absl::UnavailableError(
          StrCat("The batch scheduling queue to which this task was submitted is full; requests "
                 "of ",
                 kMaxQueuedBytes, " bytes wait"));
    }
    return absl::OkStatus();
  }
  absl::Status Admit(Lane& lane, const BatchSource& source, const BatchEntry& entry) const {
    if (entry.deadline.has_value() && *entry.deadline <= Clock::now()) {
      return absl::DeadlineExceededError("the deadline passed before the run");
    }
    TAKT_RETURN_IF_ERROR(AdmitBySize());
    // One at least is always run, so that what runs are taken to cost mends.
    if (lane.requests() == 0) return absl::OkStatus();
    if (lane.requests() < kMaxUntimedRequests && !entry.deadline.has_value()) {
      return absl::OkStatus();
    }
    const std::chrono::nanoseconds wait = lane.ExpectedWait();
    if (lane.requests() >= kMaxUntimedRequests && wait > kMaxQueueWait) return too_long_;
    if (!entry.deadline.has_value()) return absl::OkStatus();
    std::chrono::nanoseconds run =
        signature_.cost().Estimate(RowsOfRun(source, signature_.inputs().size()));
    if (run == RunCost::kUnknown) run = std::chrono::nanoseconds(0);
    return entry.begin + wait + run > *entry.deadline ? too_late_ : absl::OkStatus();
  }
  // Of a batch of so many, per row, as it adds to the wait of those behind it; 0 = not known.
  std::int64_t RowNs(std::int64_t rows) const {
    const std::chrono::nanoseconds run = signature_.cost().Estimate(rows);
    if (run == RunCost::kUnknown) return 0;
    const std::int64_t at_once = RunsElsewhere(rows) ? workers_->threads() : 1;
    return std::max<std::int64_t>(run.count() / rows / at_once, 1);
  }

  // A loop has one thread, so nobody else makes the lane of this one.
  Lane& LaneOf(net::EventLoop* loop) {
    for (Lane* lane = lanes_.load(std::memory_order_acquire); lane != nullptr; lane = lane->next) {
      if (lane->loop == loop) return *lane;
    }
    Lane* const lane = new Lane(this, loop);
    lane->next = lanes_.load(std::memory_order_relaxed);
    while (!lanes_.compare_exchange_weak(lane->next, lane, std::memory_order_acq_rel)) {
    }
    return *lane;
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
    return std::max<std::int64_t>(
        1, std::min({by_bytes, most_rows_, signature_.cost().MostRows(latency_target_)}));
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
  // Makes an empty batch one of this request. `copies`: into memory of the batch, which it may have
  // already; `rows` are then in every input.
  absl::Status Take(Batch& batch, bool copies, std::int64_t rows, const BatchSource& source,
                    BatchEntry& entry) const {
    if (!copies) return batch.Hold(source, signature_.inputs().size(), entry);
    if (batch.capacity() != rows || !batch.Fits(source, rows)) {
      TAKT_RETURN_IF_ERROR(batch.Open(source, signature_.inputs().size(), rows));
    }
    batch.Add(source, rows, std::move(entry));
    return absl::OkStatus();
  }
  void RunBatch(Batch& batch) {
    batch.DropDead(Clock::now(), expired_);
    if (batch.empty()) return;
    if (!batch.Run(*batch.servable, signature_, batch.rows())) shares_ = false;
  }

  const Signature& signature_;
  WorkerPool* const workers_;
  std::int64_t most_rows_ = 0;
  std::chrono::microseconds latency_target_{0};
  // Made once, and their texts the same each time: refusing has to be cheap.
  const absl::Status too_long_ = absl::UnavailableError(StrCat(
      "The batch scheduling queue to which this task was submitted is full; ", kMaxUntimedRequests,
      " requests wait, for more than ", kMaxQueueWait.count(), " ms of runs"));
  const absl::Status too_late_ = absl::ResourceExhaustedError(
      "its run would end after its deadline: too many requests wait before it");
  const absl::Status expired_ = absl::DeadlineExceededError("Deadline Exceeded");
  std::atomic<bool> shares_{false};  // no more once outputs turned out not to be by rows
  std::atomic<std::int64_t> queued_{0};
  std::atomic<std::size_t> queued_bytes_{0};  // of their batches
  std::atomic<Lane*> lanes_{nullptr};
};

// ---- By TensorFlow Serving's parameters
// ----------------------------------------------------------

// One queue for all threads, under a mutex that is held for as long as rows are copied.
class ParameterQueue final : public BatchQueue {
 public:
  ParameterQueue(const BatchingOptions& options, const Signature& signature, WorkerPool* workers)
      : options_(options),
        signature_(signature),
        workers_(workers),
        alone_(nullptr, signature, workers) {
    most_running_ = options.num_batch_threads > 0 ? options.num_batch_threads : workers->threads();
    run_rows_ = options.enable_large_batch_splitting && options.max_execution_batch_size > 0
                    ? options.max_execution_batch_size
                    : options.max_batch_size;
  }

  absl::Status Join(Servable& servable, const BatchSource& source, BatchEntry& entry) override {
    const bool shares = by_rows_.load(std::memory_order_relaxed) && entry.plan == nullptr;
    const std::int64_t rows = shares ? RowsToShare(signature_, source) : 0;
    if (rows == 0) return alone_.Join(servable, source, entry);
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
      auto opened = std::make_unique<Batch>();
      TAKT_RETURN_IF_ERROR(opened->Open(source, signature_.inputs().size(), PaddedRows(run_rows_),
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
    lock.unlock();
    StartRuns();
    return absl::OkStatus();
  }

 private:
  // One request in several batches; answered when its last part is.
  struct Parts {
    std::mutex mutex;
    BatchEntry entry;
    std::vector<Tensor> inputs;
    std::vector<absl::StatusOr<std::vector<Tensor>>> outputs;
    std::size_t left = 0;
  };
  absl::Status JoinInParts(Servable& servable, const BatchSource& source, std::int64_t rows,
                           BatchEntry& entry) {
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
      const absl::Status joined = Join(servable, TensorSource(slices), part);
      if (!joined.ok()) PartDone(*parts, i, joined);
    }
    return absl::OkStatus();
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
      batch->DropDead(Clock::now(), expired_);
      if (batch->empty()) continue;
      if (!batch->Run(*batch->servable, signature_, PaddedRows(batch->rows()))) by_rows_ = false;
    }
  }

  const BatchingOptions options_;
  const Signature& signature_;
  WorkerPool* const workers_;
  int most_running_;
  std::int64_t run_rows_;
  LoopQueue alone_;  // of what can share no run
  // As TensorFlow Serving says it.
  const absl::Status expired_ =
      absl::ResourceExhaustedError("Run() timeout exceeded while waiting in batching queue");
  std::atomic<bool> by_rows_{true};
  std::mutex mutex_;
  std::deque<std::unique_ptr<Batch>> waiting_;
  int starting_ = 0;  // of running_, those that have not taken a batch yet
  int running_ = 0;
};

}  // namespace

std::unique_ptr<BatchQueue> MakeBatchQueue(const BatchingOptions* batching,
                                           const Signature& signature, WorkerPool* workers) {
  if (batching == nullptr || batching->automatic) {
    return std::make_unique<LoopQueue>(batching, signature, workers);
  }
  return std::make_unique<ParameterQueue>(*batching, signature, workers);
}

}  // namespace takt::serving
