#include "logs/forward.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "base/gzip.h"
#include "base/ids.h"
#include "base/proto_wire.h"
#include "base/text.h"

namespace takt::logs {
namespace {

using std::chrono::milliseconds;

constexpr int kFailuresBeforeSaid = 3;  // a receiver that restarts is no news
constexpr std::chrono::minutes kRemovedSaidInterval{1};
constexpr std::size_t kShownReplyBytes = 200;

constexpr const char* kSchema = R"(
CREATE TABLE IF NOT EXISTS forward(
  name TEXT PRIMARY KEY, kind TEXT NOT NULL, url TEXT NOT NULL, query TEXT NOT NULL,
  enabled INTEGER NOT NULL, fixed INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS header(
  forward TEXT NOT NULL REFERENCES forward(name) ON DELETE CASCADE, name TEXT NOT NULL,
  value TEXT NOT NULL, PRIMARY KEY(forward, name)) WITHOUT ROWID;
)";

std::int64_t Micros(std::chrono::system_clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
}

// Of an ExportLogsServiceResponse: partial_success (1) { rejected_log_records (1) }.
std::uint64_t RejectedRecords(std::string_view response) {
  for (ProtoReader outer(response); outer.Next();) {
    if (outer.field() != 1) continue;
    for (ProtoReader inner(outer.Bytes()); inner.Next();) {
      if (inner.field() == 1) return inner.Varint();
    }
  }
  return 0;
}

// Whether the answer is about what was sent, so that sending it again is of no use. The others are
// about the receiver or how it was set up, and pass.
bool IsRefusal(int status) {
  if (status / 100 != 4) return false;
  for (const int passing : {401, 403, 404, 405, 407, 408, 425, 429}) {
    if (status == passing) return false;
  }
  return true;
}

absl::Status CheckForward(Forward& forward) {
  if (!IsValidName(forward.name)) {
    return absl::InvalidArgumentError(
        StrCat("name of a forward: expected letters, digits, '_', '-' and '.', got \"",
               forward.name, "\""));
  }
  if (forward.url.size() > kMaxForwardTextBytes) {
    return absl::InvalidArgumentError(
        StrCat("url: expected at most ", kMaxForwardTextBytes, " bytes"));
  }
  TAKT_ASSIGN_OR_RETURN(
      forward.url,
      net::CheckPostUrl(forward.url,
                        forward.kind == ForwardKind::kLoki ? "/loki/api/v1/push" : "/v1/logs"));
  TAKT_RETURN_IF_ERROR(Annotate(Query::Parse(forward.query).status(), "query"));
  if (forward.headers.size() > kMaxForwardHeaders) {
    return absl::InvalidArgumentError(
        StrCat("headers: expected at most ", kMaxForwardHeaders, ", got ", forward.headers.size()));
  }
  for (const auto& [name, value] : forward.headers) {
    const auto is_word = [](char c) {
      return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
    };
    const auto is_printed = [](char c) {
      return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
    };
    if (name.empty() || !std::all_of(name.begin(), name.end(), is_word) ||
        !std::all_of(value.begin(), value.end(), is_printed) ||
        name.size() + value.size() > kMaxForwardTextBytes) {
      return absl::InvalidArgumentError(
          StrCat("headers: expected a header's name and a value in one line, got \"",
                 name.substr(0, 60), "\""));
    }
  }
  return absl::OkStatus();
}

}  // namespace

const char* ForwardKindName(ForwardKind kind) {
  return kind == ForwardKind::kLoki ? "loki" : "otlp";
}

std::optional<ForwardKind> ForwardKindFromName(std::string_view name) {
  for (const ForwardKind kind : {ForwardKind::kLoki, ForwardKind::kOtlp}) {
    if (name == ForwardKindName(kind)) return kind;
  }
  return std::nullopt;
}

// Sends for one forward until it is destroyed.
class Forwarder::Worker {
 public:
  Worker(Forwarder& owner, const Forward& forward) : owner_(owner), name_(forward.name) {
    Change(forward);
    if (const auto reader = owner.store_.StateOfReader(name_); reader.ok()) {
      removed_said_ = reader->removed_entries;
    }
    removed_looked_at_ = owner.clock_.Steady();
    thread_ = std::thread([this] { Run(); });
  }
  ~Worker() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  void Change(const Forward& forward) {
    auto query = Query::Parse(forward.query);  // it was checked
    {
      const std::lock_guard lock(mutex_);
      forward_ = forward;
      if (query.ok()) query_ = std::make_shared<const Query>(std::move(*query));
      changed_ = true;
    }
    wake_.notify_all();
  }
  Forward forward() const {
    const std::lock_guard lock(mutex_);
    return forward_;
  }
  ForwardState state() const {
    ForwardState state;
    {
      const std::lock_guard lock(mutex_);
      state = state_;
    }
    const auto reader = owner_.store_.StateOfReader(name_);
    if (!reader.ok()) return state;
    state.removed_entries = reader->removed_entries;
    state.behind_entries = reader->behind_entries;
    if (reader->behind_entries > 0) {
      state.lag = std::chrono::seconds(std::max<std::int64_t>(
          0, (Micros(owner_.clock_.Now()) - reader->oldest_unread_us) / 1'000'000));
    }
    return state;
  }

 private:
  // How one attempt ended.
  struct Outcome {
    absl::Status status;          // OK: what was read need not be sent again
    milliseconds retry_after{0};  // asked for by the receiver
    bool again_at_once = false;   // in smaller pieces
  };

  void Run() {
    milliseconds pause = owner_.timing_.first_pause;
    int failures = 0;
    std::uint64_t seen_flushes = UINT64_MAX;  // nothing seen
    while (true) {
      Forward forward;
      std::shared_ptr<const Query> query;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return stop_ || forward_.enabled; });
        if (stop_) return;
        changed_ = false;
        forward = forward_;
        query = query_;
      }
      SayWhatWasRemoved();
      const std::uint64_t flushes = owner_.store_.flushes();
      if (flushes == seen_flushes) {
        if (!Wait(owner_.timing_.batch_age)) return;
        continue;
      }
      bool more = false;
      const Outcome outcome = SendNext(forward, *query, more);
      if (outcome.again_at_once) continue;
      if (outcome.status.ok()) {
        if (failures >= kFailuresBeforeSaid) {
          owner_.say_(StrCat("log forward ", name_, ": it works again"), false);
        }
        failures = 0;
        pause = owner_.timing_.first_pause;
        if (more) continue;
        seen_flushes = flushes;
        if (!Wait(owner_.timing_.batch_age)) return;
        continue;
      }
      if (absl::IsCancelled(outcome.status)) return;  // ending
      Failed(outcome.status);
      if (++failures == kFailuresBeforeSaid) {
        owner_.say_(StrCat("log forward ", name_, " fails and is tried again; what it has not got ",
                           "waits in the log store: ", ToStd(outcome.status.message())),
                    true);
      }
      const milliseconds asked = std::min<milliseconds>(outcome.retry_after, kMaxForwardRetryAfter);
      if (!Wait(std::max(pause, asked))) return;
      pause = std::min(pause * 2, owner_.timing_.max_pause);
    }
  }

  Outcome SendNext(const Forward& forward, const Query& query, bool& more) {
    auto batch = owner_.store_.ReadNext(name_, query, batch_entries_, kMaxForwardBatchBytes);
    if (!batch.ok()) return {batch.status()};
    more = batch->more;
    if (batch->entries.empty()) return {owner_.store_.CommitRead(name_, *batch)};
    const auto count = static_cast<std::uint64_t>(batch->entries.size());
    net::PostRequest request;
    ForwardBody body = MakeForwardBody(forward.kind, batch->entries, Micros(owner_.clock_.Now()));
    request.url = forward.url;
    request.body = Gzip(body.bytes);
    request.headers = {{"Content-Type", body.content_type}, {"Content-Encoding", "gzip"}};
    request.headers.insert(request.headers.end(), forward.headers.begin(), forward.headers.end());
    request.timeout = kForwardTimeout;
    request.stop = &stop_;
    const auto reply = owner_.send_(request);
    if (!reply.ok()) return {reply.status()};
    if (reply->status / 100 == 2) {
      const std::uint64_t rejected =
          forward.kind == ForwardKind::kOtlp ? std::min(RejectedRecords(reply->body), count) : 0;
      if (absl::Status kept = owner_.store_.CommitRead(name_, *batch); !kept.ok()) return {kept};
      batch_entries_ = std::min(batch_entries_ * 2, kMaxForwardBatchEntries);
      const std::lock_guard lock(mutex_);
      state_.sent_entries += count - rejected;
      state_.refused_entries += rejected;
      ++state_.sent_batches;
      state_.last_sent_at = owner_.clock_.Now();
      state_.failing = false;
      return {};
    }
    const absl::Status status = absl::UnavailableError(
        StrCat(net::ShownUrl(forward.url), ": HTTP ", reply->status, " ",
               ValidUtf8(std::string_view(reply->body).substr(0, kShownReplyBytes))));
    if (reply->status == 413 && count > 1) {
      batch_entries_ = static_cast<std::size_t>(count / 2);
      return {.status = status, .again_at_once = true};
    }
    if (!IsRefusal(reply->status)) return {status, reply->retry_after};
    if (absl::Status kept = owner_.store_.CommitRead(name_, *batch); !kept.ok()) return {kept};
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      first = state_.refused_entries == 0;
      state_.refused_entries += count;
      state_.last_error = std::string(status.message());
      state_.last_error_at = owner_.clock_.Now();
    }
    if (first) {
      owner_.say_(StrCat("log forward ", name_, ": the receiver refused ", count,
                         " entries, which are not sent again: ", ToStd(status.message())),
                  true);
    }
    return {};
  }

  void Failed(const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    ++state_.failed_attempts;
    state_.failing = true;
    state_.last_error = std::string(status.message());
    state_.last_error_at = owner_.clock_.Now();
  }

  void SayWhatWasRemoved() {
    const auto now = owner_.clock_.Steady();
    if (now - removed_looked_at_ < kRemovedSaidInterval) return;
    const auto reader = owner_.store_.StateOfReader(name_);
    if (!reader.ok()) return;
    if (reader->removed_entries > removed_said_) {
      owner_.say_(
          StrCat("log forward ", name_, " is behind: ", reader->removed_entries - removed_said_,
                 " log entries were removed by age or size before they were sent"),
          true);
    }
    removed_looked_at_ = now;
    removed_said_ = reader->removed_entries;
  }

  // False when it is ending. A change of the configuration cuts it short.
  bool Wait(milliseconds time) {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, time, [this] { return stop_ || changed_; });
    return !stop_;
  }

  Forwarder& owner_;
  const std::string name_;
  std::size_t batch_entries_ = kMaxForwardBatchEntries;  // the thread's, as the two below
  std::chrono::steady_clock::time_point removed_looked_at_;
  std::uint64_t removed_said_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Forward forward_;  // guarded by mutex_, as all below
  std::shared_ptr<const Query> query_;
  ForwardState state_;
  bool changed_ = false;
  std::atomic<bool> stop_ = false;  // set under mutex_; read by the request under way
  std::thread thread_;
};

Forwarder::Forwarder(LogStore& store, const Clock& clock, Send send, Say say, ForwardTiming timing)
    : store_(store), clock_(clock), send_(std::move(send)), say_(std::move(say)), timing_(timing) {}

Forwarder::~Forwarder() = default;

absl::StatusOr<std::unique_ptr<Forwarder>> Forwarder::Open(const std::string& path,
                                                           std::vector<Forward> fixed,
                                                           LogStore& store, const Clock& clock,
                                                           Send send, Say say,
                                                           ForwardTiming timing) {
  std::unique_ptr<Forwarder> self(
      new Forwarder(store, clock, std::move(send), std::move(say), timing));
  TAKT_ASSIGN_OR_RETURN(self->db_, Sqlite::Open(path, {}));
  TAKT_RETURN_IF_ERROR(self->db_->Script(kSchema));
  const std::lock_guard lock(self->mutex_);
  TAKT_RETURN_IF_ERROR(self->Load(std::move(fixed)));
  return self;
}

absl::Status Forwarder::Load(std::vector<Forward> fixed) {
  std::map<std::string, Forward> known;
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                          db_->Query("SELECT name, kind, url, query, enabled, fixed FROM forward"));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) break;
      Forward forward;
      forward.name = rows.Text(0);
      forward.kind = ForwardKindFromName(rows.Text(1)).value_or(ForwardKind::kLoki);
      forward.url = rows.Text(2);
      forward.query = rows.Text(3);
      forward.enabled = rows.Int(4) != 0;
      forward.fixed = rows.Int(5) != 0;
      known[forward.name] = std::move(forward);
    }
  }
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query("SELECT forward, name, value FROM header"));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) break;
      known[std::string(rows.Text(0))].headers[std::string(rows.Text(1))] = rows.Text(2);
    }
  }
  for (const auto& [name, forward] : known) {
    const bool gone =
        forward.fixed && std::none_of(fixed.begin(), fixed.end(),
                                      [&n = name](const auto& f) { return f.name == n; });
    if (gone)
      TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM forward WHERE name=?", {std::string_view(name)}));
  }
  std::erase_if(known, [&](const auto& each) {
    return each.second.fixed || std::any_of(fixed.begin(), fixed.end(),
                                            [&](const auto& f) { return f.name == each.first; });
  });
  for (Forward& forward : fixed) {
    forward.fixed = true;
    TAKT_RETURN_IF_ERROR(CheckForward(forward));
    TAKT_RETURN_IF_ERROR(Save(forward));
    known[forward.name] = forward;
  }
  if (known.size() > kMaxForwards) {
    return absl::ResourceExhaustedError(StrCat(
        "there are ", known.size(), " log forwards, at most ", kMaxForwards, " are allowed"));
  }
  // A reader whose forward was never saved goes; a forward whose place was lost with a damaged log
  // store begins with what the new one holds.
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::string> readers, store_.Readers());
  for (const std::string& reader : readers) {
    if (!known.contains(reader)) TAKT_RETURN_IF_ERROR(store_.RemoveReader(reader));
  }
  for (const auto& [name, forward] : known) {
    if (std::find(readers.begin(), readers.end(), name) == readers.end()) {
      TAKT_RETURN_IF_ERROR(store_.AddReader(name, true));
    }
    workers_[name] = std::make_unique<Worker>(*this, forward);
  }
  return absl::OkStatus();
}

absl::Status Forwarder::Save(const Forward& forward) {
  auto transaction = SqlTransaction::Begin(*db_);
  TAKT_RETURN_IF_ERROR(transaction.status());
  const std::string_view name = forward.name;
  TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM header WHERE forward=?", {name}));
  TAKT_RETURN_IF_ERROR(db_->Run("INSERT OR REPLACE INTO forward VALUES(?,?,?,?,?,?)",
                                {name, std::string_view(ForwardKindName(forward.kind)),
                                 std::string_view(forward.url), std::string_view(forward.query),
                                 std::int64_t{forward.enabled}, std::int64_t{forward.fixed}}));
  for (const auto& [header, value] : forward.headers) {
    TAKT_RETURN_IF_ERROR(db_->Run("INSERT INTO header VALUES(?,?,?)",
                                  {name, std::string_view(header), std::string_view(value)}));
  }
  return transaction->Commit();
}

std::vector<Forwarder::View> Forwarder::List() {
  const std::lock_guard lock(mutex_);
  std::vector<View> list;
  for (const auto& [name, worker] : workers_) list.push_back({worker->forward(), worker->state()});
  return list;
}

absl::StatusOr<Forward> Forwarder::Get(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto found = workers_.find(name);
  if (found == workers_.end()) {
    return absl::NotFoundError(StrCat("there is no log forward \"", name, "\""));
  }
  return found->second->forward();
}

absl::Status Forwarder::Put(Forward forward, bool from_start) {
  TAKT_RETURN_IF_ERROR(CheckForward(forward));
  forward.fixed = false;
  const std::lock_guard lock(mutex_);
  const auto found = workers_.find(forward.name);
  if (found != workers_.end()) {
    if (found->second->forward().fixed) {
      return absl::FailedPreconditionError(
          StrCat("log forward ", forward.name, " is set by the daemon's command line"));
    }
    TAKT_RETURN_IF_ERROR(Save(forward));
    found->second->Change(forward);
    return absl::OkStatus();
  }
  if (workers_.size() >= kMaxForwards) {
    return absl::ResourceExhaustedError(
        StrCat("there are ", kMaxForwards, " log forwards, the most allowed: remove one"));
  }
  TAKT_RETURN_IF_ERROR(store_.AddReader(forward.name, from_start));
  if (absl::Status saved = Save(forward); !saved.ok()) {
    store_.RemoveReader(forward.name).IgnoreError();
    return saved;
  }
  workers_[forward.name] = std::make_unique<Worker>(*this, forward);
  return absl::OkStatus();
}

absl::Status Forwarder::Remove(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto found = workers_.find(name);
  if (found == workers_.end()) {
    return absl::NotFoundError(StrCat("there is no log forward \"", name, "\""));
  }
  if (found->second->forward().fixed) {
    return absl::FailedPreconditionError(
        StrCat("log forward ", name, " is set by the daemon's command line"));
  }
  TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM forward WHERE name=?", {std::string_view(name)}));
  workers_.erase(found);
  return store_.RemoveReader(name);
}

}  // namespace takt::logs
