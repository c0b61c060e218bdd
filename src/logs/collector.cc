#include "logs/collector.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/fs.h"

namespace takt::logs {
namespace {

constexpr std::size_t kLinesAtOnce = 2000;
constexpr std::size_t kFileBlockBytes = 256 << 10;
constexpr auto kJoinWait = std::chrono::milliseconds(300);  // for the rest of an entry
constexpr auto kRoundInterval = std::chrono::milliseconds(500);
constexpr std::int64_t kDayUs = std::int64_t{86'400} * 1'000'000;

std::int64_t Micros(std::chrono::system_clock::time_point t) {
  return std::chrono::duration_cast<std::chrono::microseconds>(t.time_since_epoch()).count();
}

// Bytes that are no UTF-8 become U+FFFD.
std::string ValidUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<std::uint8_t>(text[i]);
    const std::size_t size = lead < 0x80           ? 1
                             : (lead >> 5) == 0x6  ? 2
                             : (lead >> 4) == 0xe  ? 3
                             : (lead >> 3) == 0x1e ? 4
                                                   : 0;
    bool good = size != 0 && i + size <= text.size() && lead != 0;
    for (std::size_t k = 1; good && k < size; ++k) {
      good = (static_cast<std::uint8_t>(text[i + k]) & 0xc0) == 0x80;
    }
    if (good) {
      out.append(text.substr(i, size));
      i += size;
    } else {
      out += "\xef\xbf\xbd";
      ++i;
    }
  }
  return out;
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

  Feed() = default;
  Feed(const Feed&) = delete;
  Feed& operator=(const Feed&) = delete;
  ~Feed() {
    if (fd >= 0) close(fd);
  }

  // Gives finished entries to the store; the last one only when it has waited for its rest.
  absl::Status Deliver(LogStore& store, bool all, std::chrono::steady_clock::time_point now) {
    if (all || joiner.WaitedEnough(now)) joiner.Finish();
    if (joiner.done().empty()) return absl::OkStatus();
    const absl::Status status = store.Append(stream, joiner.done());
    if (status.ok()) {
      joiner.done().clear();
      return status;
    }
    // Read again from what was taken: the source keeps the rest.
    joiner.Reset();
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
  for (const auto& feed : source.output) {
    while (true) {
      auto lines = runtime_.ReadLog(id, feed->cursor, kLinesAtOnce);
      if (!lines.ok()) break;  // it went between Observe and now
      for (const runtime::LogLine& line : *lines) {
        feed->joiner.Add(line.text, Micros(line.time), line.is_stderr, line.cursor, now);
        feed->cursor = line.cursor;
      }
      TAKT_RETURN_IF_ERROR(feed->Deliver(store_, false, now));
      if (lines->size() < kLinesAtOnce) break;
    }
  }
  source.dirty = false;
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

absl::Status Collector::ReadFile(Feed& feed) {
  struct stat st;
  if (fstat(feed.fd, &st) != 0) return absl::OkStatus();
  const auto size = static_cast<std::uint64_t>(st.st_size);
  if (size < feed.cursor) {  // truncated: begun anew
    feed.joiner.Finish();
    feed.cursor = 0;
  }
  const auto now = clock_.Steady();
  const std::int64_t now_us = Micros(clock_.Now());
  std::string block;
  while (feed.cursor < size) {
    block.resize(std::min<std::uint64_t>(kFileBlockBytes, size - feed.cursor));
    const ssize_t got = pread(feed.fd, block.data(), block.size(), static_cast<off_t>(feed.cursor));
    if (got <= 0) break;
    std::string_view rest(block.data(), static_cast<std::size_t>(got));
    std::size_t used = 0;
    for (auto end = rest.find('\n'); end != std::string_view::npos || rest.size() >= kMaxEntryBytes;
         end = rest.find('\n')) {
      // A line without an end is taken in pieces.
      const bool piece = end == std::string_view::npos || end > kMaxEntryBytes;
      const std::size_t length = piece ? std::min(rest.size(), kMaxEntryBytes) : end;
      const std::string line = ValidUtf8(rest.substr(0, length));
      used += length + (piece ? 0 : 1);
      const std::int64_t said = RecogniseTime(line).value_or(now_us);
      const bool plausible = said > now_us - 30 * kDayUs && said < now_us + kDayUs;
      feed.joiner.Add(line, plausible ? said : now_us, false, feed.cursor + used, now);
      rest.remove_prefix(length + (piece ? 0 : 1));
    }
    if (used == 0) break;  // an unfinished line
    feed.cursor += used;
    TAKT_RETURN_IF_ERROR(feed.Deliver(store_, false, now));
  }
  return absl::OkStatus();
}

absl::Status Collector::ReadFiles(Source& source) {
  for (const auto& [name, feed] : source.files) feed->seen = false;
  for (const auto& declared : source.logs.stores) {
    if (declared.source == "stdout" || declared.source.empty() || declared.source[0] != '/') {
      continue;
    }
    const std::string wanted = CleanPath(declared.source);
    for (const auto& [inside, here] : source.logs.mounts) {
      if (!(wanted.starts_with(inside) &&
            (wanted.size() == inside.size() || inside == "/" || wanted[inside.size()] == '/'))) {
        continue;
      }
      const std::string path = CleanPath(JoinPath(here, wanted.substr(inside.size())));
      const auto slash = path.rfind('/');
      const std::string directory = path.substr(0, slash), pattern = path.substr(slash + 1);
      const std::string shown_directory = wanted.substr(0, wanted.rfind('/'));
      auto names = ListDir(directory);
      if (!names.ok()) break;
      for (const std::string& name : *names) {
        if (fnmatch(pattern.c_str(), name.c_str(), FNM_PERIOD) != 0) continue;
        TAKT_RETURN_IF_ERROR(
            FindFile(source, declared, JoinPath(shown_directory, name), JoinPath(directory, name)));
      }
      break;
    }
  }
  for (auto it = source.files.begin(); it != source.files.end();) {
    Feed& feed = *it->second;
    TAKT_RETURN_IF_ERROR(ReadFile(feed));
    if (feed.seen) {
      ++it;
    } else {  // rotated away or deleted, and read to its end
      TAKT_RETURN_IF_ERROR(feed.Deliver(store_, true, clock_.Steady()));
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
      source.final = ended && !source.dirty;
    }
    if (source.gone && source.final) {
      it = sources_.erase(it);
    } else {
      ++it;
    }
  }
  return first;
}

}  // namespace takt::logs
