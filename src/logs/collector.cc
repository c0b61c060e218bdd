#include "logs/collector.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/fs.h"
#include "base/text.h"

namespace takt::logs {
namespace {

constexpr std::size_t kLinesAtOnce = 2000;
constexpr std::size_t kFileBlockBytes = 256 << 10;
constexpr int kRoundsAtOnce = 16;  // of one source; then it is the others' turn
constexpr auto kJoinWait = std::chrono::milliseconds(300);  // for the rest of an entry
constexpr auto kRoundInterval = std::chrono::milliseconds(500);
constexpr std::int64_t kDayUs = std::int64_t{86'400} * 1'000'000;

constexpr const char* kGoesOnMark = " [takt: the line goes on]";
constexpr std::uint64_t kDroppedSaidBytes = 64
                                            << 20;  // of a line that does not end: then it is said

std::int64_t Micros(std::chrono::system_clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
}

// Joins lines into entries; see Continues.
class Joiner {
 public:
  void Add(std::string_view raw, std::int64_t time_us, bool is_stderr, std::uint64_t position,
           std::chrono::steady_clock::time_point now) {
    const std::string_view text = CollapseCarriageReturns(raw);
    if (open_ && last_.is_stderr == is_stderr && lines_ < kMaxEntryLines &&
        last_.text.size() + text.size() < kMaxEntryBytes && Continues(last_.text, text)) {
      last_.text += '\n';
      last_.text += text;
      last_.position = position;
      ++lines_;
      since_ = now;
      return;
    }
    Finish();
    last_ = {time_us, Level::kUnknown, is_stderr, std::string(text), position};
    open_ = true;
    lines_ = 1;
    since_ = now;
  }
  // An entry of ours, between what the source says.
  void Say(std::string text, std::int64_t time_us, bool is_stderr, std::uint64_t position) {
    Finish();
    done_.push_back({time_us, Level::kWarn, is_stderr, std::move(text), position});
  }
  void Finish() {
    if (!open_) return;
    last_.level = RecogniseLevel(last_.text);
    done_.push_back(std::move(last_));
    open_ = false;
  }
  bool Waiting() const { return open_; }
  bool WaitedEnough(std::chrono::steady_clock::time_point now) const {
    return open_ && now - since_ >= kJoinWait;
  }
  std::vector<Entry>& done() { return done_; }
  // Forgets everything: the source is read again from where the store stands.
  void Reset() {
    done_.clear();
    open_ = false;
  }

 private:
  std::vector<Entry> done_;
  Entry last_;
  bool open_ = false;
  std::size_t lines_ = 0;
  std::chrono::steady_clock::time_point since_;
};

}  // namespace

// One source of lines on its way into one stream.
struct Collector::Feed {
  std::int64_t stream = 0;
  std::uint64_t cursor = 0;  // how far the source was read
  Joiner joiner;
  int fd = -1;        // of a followed file: kept, so that a rotated one is read to its end
  bool seen = false;  // its path still leads to it
  bool more = false;  // there was more to read than is read at once
  struct LongLine {
    std::size_t pieces = 0;           // kept so far; 0 = no long line is under way
    std::uint64_t dropped_bytes = 0;  // not yet said
  };
  LongLine long_lines[2];  // of stdout and of stderr

  Feed() = default;
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;
  ~Feed() {
    if (fd >= 0) close(fd);
  }

  // A line, or a piece of one that is too long for an entry: its first kMaxLinePieces are kept,
  // each with a mark, the rest is counted and said.
  void Take(std::string_view text, std::int64_t time_us, bool is_stderr, std::uint64_t position,
            bool goes_on, std::chrono::steady_clock::time_point now) {
    LongLine& line = long_lines[is_stderr ? 1 : 0];
    if (line.pieces == 0 && !goes_on) {
      joiner.Add(text, time_us, is_stderr, position, now);
      return;
    }
    if (text.empty()) {  // the line ended with the piece before
    } else if (line.pieces < kMaxLinePieces) {
      ++line.pieces;
      joiner.Finish();
      joiner.Add(goes_on ? absl::StrCat(ToAbsl(text), kGoesOnMark) : std::string(text), time_us,
                 is_stderr, position, now);
    } else {
      line.dropped_bytes += text.size();
    }
    if (line.dropped_bytes > (goes_on ? kDroppedSaidBytes : 0)) {
      SayDropped(line, time_us, is_stderr, position);
    }
    if (!goes_on) line = LongLine();
  }

  void SayDropped(LongLine& line, std::int64_t time_us, bool is_stderr, std::uint64_t position) {
    joiner.Say(absl::StrCat("[takt: ", std::exchange(line.dropped_bytes, 0),
                            " bytes of this line were dropped: of one line at most ",
                            kMaxLinePieces * kMaxLineBytes, " bytes are kept]"),
               time_us, is_stderr, position);
  }
  // The source has a gap: what comes after it is another line.
  void EndLongLines(std::int64_t time_us, std::uint64_t position) {
    for (const bool is_stderr : {false, true}) {
      LongLine& line = long_lines[is_stderr ? 1 : 0];
      if (line.dropped_bytes > 0) SayDropped(line, time_us, is_stderr, position);
      line = LongLine();
    }
  }

  // Gives finished entries to the store; the last one only when it has waited for its rest.
  absl::Status Deliver(LogStore& store, bool all, std::chrono::steady_clock::time_point now) {
    if (all || joiner.WaitedEnough(now)) joiner.Finish();
    if (joiner.done().empty()) return absl::OkStatus();
    absl::Status status = store.Append(stream, joiner.done());
    if (status.ok()) {
      joiner.done().clear();
      return status;
    }
    // Read again from what was taken: the source keeps the rest.
    joiner.Reset();
    for (LongLine& line : long_lines) line = LongLine();
    cursor = store.Position(stream).value_or(0);
    return status;
  }
};

struct Collector::Source {
  StreamKey key;
  ServiceLogs logs;
  bool live = true;
  bool gone = false;                                   // the runtime no longer has it
  bool dirty = true;                                   // something may be unread
  bool unread_files = false;                           // more was there than is read at once
  bool final = false;                                  // ended, and everything was read
  std::vector<std::unique_ptr<Feed>> output;           // of stdout and stderr, one for each store
  std::map<std::string, std::unique_ptr<Feed>> files;  // by "store path inode"
};

Collector::Collector(runtime::Runtime& runtime, LogStore& store, Lookup lookup, const Clock& clock)
    : runtime_(runtime), store_(store), lookup_(std::move(lookup)), clock_(clock) {}

Collector::~Collector() { Stop(); }

void Collector::Start() {
  thread_ = std::thread([this] { Loop(); });
}

void Collector::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Collector::OnLogGrew(const std::string& instance) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = grown_.empty();
    grown_.insert(instance);
  }
  if (first) wake_.notify_all();
}

void Collector::OnStateChanged() {
  {
    const std::lock_guard lock(mutex_);
    state_changed_ = true;
  }
  wake_.notify_all();
}

void Collector::Loop() {
  absl::Status last;
  while (true) {
    absl::Status status = Step();
    status.Update(store_.Tend());
    if (!status.ok() && status != last) {
      std::fprintf(stderr, "logs: %s\n", std::string(status.message()).c_str());
    }
    last = status;
    std::unique_lock lock(mutex_);
    if (stop_) return;
    if (status.ok() && more_) continue;
    // A failing store is not asked again at once; otherwise whatever comes wakes the loop.
    if (status.ok()) {
      wake_.wait_for(lock, kRoundInterval,
                     [this] { return stop_ || state_changed_ || !grown_.empty(); });
    } else {
      wake_.wait_for(lock, kRoundInterval, [this] { return stop_; });
    }
  }
}

absl::Status Collector::Observe() {
  TAKT_ASSIGN_OR_RETURN(const std::vector<runtime::ServiceStatus> services, runtime_.Observe());
  for (auto& [id, source] : sources_) source->gone = true;
  for (const runtime::ServiceStatus& service : services) {
    std::unique_ptr<ServiceLogs> logs;
    for (const runtime::InstanceStatus& instance : service.instances) {
      std::unique_ptr<Source>& source = sources_[instance.id];
      if (source == nullptr) {
        if (logs == nullptr) {
          logs = std::make_unique<ServiceLogs>(lookup_(service.app, service.service));
        }
        source = std::make_unique<Source>();
        source->key.app = service.app;
        source->key.service = service.service;
        source->key.instance = instance.id;
        source->key.node = instance.node;
        source->key.revision = instance.revision;
        source->logs = *logs;
        std::vector<ServiceLogs::Declared> stores;
        for (const auto& declared : logs->stores) {
          if (declared.source == "stdout") stores.push_back(declared);
        }
        if (stores.empty()) stores.push_back({"stdout", "stdout", kDefaultTtlDays});
        for (const auto& declared : stores) {
          auto feed = std::make_unique<Feed>();
          StreamKey key = source->key;
          key.store = declared.store;
          TAKT_ASSIGN_OR_RETURN(feed->stream, store_.Stream(key, declared.ttl_days));
          TAKT_ASSIGN_OR_RETURN(feed->cursor, store_.Position(feed->stream));
          source->output.push_back(std::move(feed));
        }
      }
      source->gone = false;
      const bool live = instance.state != runtime::InstanceState::kExited;
      if (source->live && !live) source->dirty = true;
      source->live = live;
    }
  }
  return absl::OkStatus();
}

absl::Status Collector::ReadInstance(const std::string& id, Source& source) {
  const auto now = clock_.Steady();
  bool more = false;
  for (const auto& feed : source.output) {
    for (int round = 0;; ++round) {
      more = more || round == kRoundsAtOnce;
      if (round == kRoundsAtOnce) break;
      auto lines = runtime_.ReadLog(id, feed->cursor, kLinesAtOnce);
      if (!lines.ok() || lines->empty()) break;  // not ok: it went between Observe and now
      for (const runtime::LogLine& line : *lines) {
        const std::int64_t time_us = Micros(line.time);
        if (line.lost_bytes > 0) {
          feed->EndLongLines(time_us, feed->cursor);
          feed->joiner.Say(absl::StrCat("[takt: ", line.lost_bytes, " bytes of output are missing ",
                                        "here: the instance's log was full before they were read]"),
                           time_us, line.is_stderr, feed->cursor);
        }
        feed->Take(line.text, time_us, line.is_stderr, line.cursor, line.goes_on, now);
        feed->cursor = line.cursor;
      }
      TAKT_RETURN_IF_ERROR(feed->Deliver(store_, false, now));
    }
  }
  source.dirty = more;
  return absl::OkStatus();
}

absl::Status Collector::FindFile(Source& source, const ServiceLogs::Declared& declared,
                                 const std::string& shown, const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return absl::OkStatus();
  auto feed = std::make_unique<Feed>();
  feed->fd = fd;
  struct stat st;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return absl::OkStatus();
  const std::string name = absl::StrCat(declared.store, " ", shown, " ", st.st_ino);
  if (const auto it = source.files.find(name); it != source.files.end()) {
    it->second->seen = true;
    return absl::OkStatus();
  }
  if (source.files.size() >= kMaxFollowedFiles) return absl::OkStatus();
  StreamKey key = source.key;
  key.store = declared.store;
  key.file = shown;
  key.inode = st.st_ino;
  TAKT_ASSIGN_OR_RETURN(feed->stream, store_.Stream(key, declared.ttl_days));
  TAKT_ASSIGN_OR_RETURN(feed->cursor, store_.Position(feed->stream));
  feed->seen = true;
  source.files[name] = std::move(feed);
  return absl::OkStatus();
}

absl::Status Collector::ReadFile(Feed& feed, bool ended) {
  feed.more = false;
  struct stat st;
  if (fstat(feed.fd, &st) != 0) return absl::OkStatus();
  const auto size = static_cast<std::uint64_t>(st.st_size);
  if (size < feed.cursor) {  // truncated: begun anew
    feed.joiner.Finish();
    feed.cursor = 0;
  }
  const auto now = clock_.Steady();
  const std::int64_t now_us = Micros(clock_.Now());
  const auto take = [&](std::string_view text, std::size_t bytes, bool goes_on) {
    const std::string line = ValidUtf8(text);
    const std::int64_t said = RecogniseTime(line).value_or(now_us);
    const bool plausible = said > now_us - 30 * kDayUs && said < now_us + kDayUs;
    feed.cursor += bytes;
    feed.Take(line, plausible ? said : now_us, false, feed.cursor, goes_on, now);
  };
  std::string block;
  for (int round = 0; feed.cursor < size; ++round) {
    feed.more = round == kRoundsAtOnce;
    if (feed.more) break;
    block.resize(std::min<std::uint64_t>(kFileBlockBytes, size - feed.cursor));
    const ssize_t got = pread(feed.fd, block.data(), block.size(), static_cast<off_t>(feed.cursor));
    if (got <= 0) break;
    std::string_view rest(block.data(), static_cast<std::size_t>(got));
    const bool last_block = feed.cursor + rest.size() >= size;
    const std::uint64_t before = feed.cursor;
    while (!rest.empty()) {
      const auto end = rest.find('\n');
      std::size_t length = std::min(end, rest.size());
      if (length > kMaxLineBytes) {  // in pieces, between characters
        length = kMaxLineBytes;
        while (length > kMaxLineBytes - 4 &&
               (static_cast<std::uint8_t>(rest[length]) & 0xc0) == 0x80)
          --length;
        take(rest.substr(0, length), length, true);
      } else if (end != std::string_view::npos) {
        take(rest.substr(0, length), length + 1, false);
        ++length;
      } else if (ended && last_block) {
        take(rest, length, false);
      } else {
        break;  // an unfinished line
      }
      rest.remove_prefix(length);
    }
    if (feed.cursor == before) break;
    TAKT_RETURN_IF_ERROR(feed.Deliver(store_, false, now));
  }
  return absl::OkStatus();
}

absl::Status Collector::ReadFiles(Source& source) {
  for (const auto& [name, feed] : source.files) feed->seen = false;
  for (const auto& declared : source.logs.stores) {
    if (declared.source.empty() || declared.source[0] != '/') continue;
    const std::string path = HostPath(source.logs.mounts, declared.source);
    if (path.empty()) continue;
    const auto slash = path.rfind('/');
    const std::string directory = path.substr(0, slash), pattern = path.substr(slash + 1);
    const std::string wanted = CleanPath(declared.source);
    const std::string shown_directory = wanted.substr(0, wanted.rfind('/'));
    auto names = ListDir(directory);
    if (!names.ok()) continue;
    for (const std::string& name : *names) {
      if (fnmatch(pattern.c_str(), name.c_str(), FNM_PERIOD) != 0) continue;
      TAKT_RETURN_IF_ERROR(
          FindFile(source, declared, JoinPath(shown_directory, name), JoinPath(directory, name)));
    }
  }
  source.unread_files = false;
  for (auto it = source.files.begin(); it != source.files.end();) {
    Feed& feed = *it->second;
    TAKT_RETURN_IF_ERROR(ReadFile(feed, !feed.seen || !source.live || source.gone));
    source.unread_files = source.unread_files || feed.more;
    if (feed.seen || feed.more) {
      ++it;
    } else {  // rotated away or deleted, and read to its end
      TAKT_RETURN_IF_ERROR(feed.Deliver(store_, true, clock_.Steady()));
      store_.Close(feed.stream);
      it = source.files.erase(it);
    }
  }
  return absl::OkStatus();
}

absl::Status Collector::Deliver(Source& source, bool all) {
  const auto now = clock_.Steady();
  for (const auto& feed : source.output) {
    TAKT_RETURN_IF_ERROR(feed->Deliver(store_, all, now));
  }
  for (const auto& [name, feed] : source.files) {
    TAKT_RETURN_IF_ERROR(feed->Deliver(store_, all, now));
  }
  return absl::OkStatus();
}

absl::Status Collector::Step() {
  std::set<std::string> grown;
  bool state_changed = false;
  {
    const std::lock_guard lock(mutex_);
    grown.swap(grown_);
    std::swap(state_changed, state_changed_);
  }
  for (const std::string& id : grown) {
    const auto it = sources_.find(id);
    if (it == sources_.end()) {
      state_changed = true;
    } else {
      it->second->dirty = true;
    }
  }
  absl::Status first;
  more_ = false;
  if (state_changed) first.Update(Observe());
  for (auto it = sources_.begin(); it != sources_.end();) {
    const std::string& id = it->first;
    Source& source = *it->second;
    if (source.dirty) {
      source.final = false;
      first.Update(ReadInstance(id, source));
    }
    if (!source.final) {
      first.Update(ReadFiles(source));
      const bool ended = !source.live || source.gone;
      first.Update(Deliver(source, ended));
      source.final = ended && !source.dirty && !source.unread_files;
    }
    more_ = more_ || source.dirty || source.unread_files;
    if (source.gone && source.final) {
      for (const auto& feed : source.output) store_.Close(feed->stream);
      for (const auto& [name, feed] : source.files) store_.Close(feed->stream);
      it = sources_.erase(it);
    } else {
      ++it;
    }
  }
  return first;
}

}  // namespace takt::logs
