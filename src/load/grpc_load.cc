#include "load/grpc_load.h"

#include <netdb.h>
#include <netinet/in.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <memory>

#include "base/socket.h"

namespace takt::load {
namespace {

using Clock = std::chrono::steady_clock;

// RFC 9113, section 6.
enum FrameType : std::uint8_t {
  kData = 0,
  kHeaders = 1,
  kReset = 3,
  kSettings = 4,
  kPing = 6,
  kGoaway = 7,
  kWindowUpdate = 8,
};
constexpr std::uint8_t kEndStream = 1;
constexpr std::uint8_t kAck = 1;
constexpr std::uint8_t kEndHeaders = 4;
constexpr std::uint8_t kPadded = 8;
constexpr std::size_t kFrameHeaderBytes = 9;
constexpr std::size_t kGrpcPrefixBytes = 5;
constexpr std::uint32_t kLargestWindow = 0x7fffffff;
constexpr std::size_t kReadBytes = 256 << 10;
constexpr std::size_t kMaxAnswerFrameBytes = 16 << 20;

void AppendFrameHeader(std::size_t length, std::uint8_t type, std::uint8_t flags,
                       std::uint32_t stream, std::string& out) {
  const char header[kFrameHeaderBytes] = {
      static_cast<char>(length >> 16), static_cast<char>(length >> 8),
      static_cast<char>(length),       static_cast<char>(type),
      static_cast<char>(flags),        static_cast<char>(stream >> 24),
      static_cast<char>(stream >> 16), static_cast<char>(stream >> 8),
      static_cast<char>(stream)};
  out.append(header, sizeof header);
}
void AppendU32(std::uint32_t value, std::string& out) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}
std::uint32_t ReadU32(const unsigned char* p) {
  return std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 | p[3];
}

struct Stream {
  std::uint32_t id = 0;
  Clock::time_point due;
  bool counted = false;
  std::string_view message;  // not sent yet, of it
  std::string_view prefix;   // gRPC's, not sent yet
  char prefix_bytes[kGrpcPrefixBytes];
  std::int64_t window = 0;
  int grpc_status = -1;
  std::string text;
  std::string answer;  // with gRPC's prefix
};

class Load;

class Connection {
 public:
  Connection(Load* load, int fd) : load_(load), fd_(fd) {}
  ~Connection() {
    if (deflater_ != nullptr) nghttp2_hd_deflate_del(deflater_);
    if (inflater_ != nullptr) nghttp2_hd_inflate_del(inflater_);
    close(fd_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool Open();
  void Ask(Clock::time_point due, bool counted, std::string_view message);
  absl::Status Read();
  absl::Status Flush();
  std::size_t active() const { return streams_.size(); }
  std::size_t allowed() const { return allowed_; }
  int fd() const { return fd_; }
  bool wants_out() const { return sent_ < out_.size(); }
  bool watching_out = false;
  Clock::time_point oldest() const {
    Clock::time_point oldest = Clock::time_point::max();
    for (const auto& stream : streams_) oldest = std::min(oldest, stream->due);
    return oldest;
  }

 private:
  void SendBody(Stream& stream);
  Stream* Find(std::uint32_t id) {
    for (auto& stream : streams_) {
      if (stream->id == id) return stream.get();
    }
    return nullptr;
  }
  absl::Status OnFrame(std::uint8_t type, std::uint8_t flags, std::uint32_t stream_id,
                       const unsigned char* payload, std::size_t size);
  absl::Status OnHeaders(Stream* stream, const unsigned char* block, std::size_t size);
  void Done(Stream* stream, int status);
  std::string_view HeaderBlock();

  Load* const load_;
  const int fd_;
  nghttp2_hd_deflater* deflater_ = nullptr;
  nghttp2_hd_inflater* inflater_ = nullptr;
  std::uint32_t next_id_ = 1;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<std::unique_ptr<Stream>> spare_;
  std::string out_;
  std::size_t sent_ = 0;
  std::string in_;
  std::string block_;    // the request's headers
  int blocks_made_ = 0;  // from the third on, all is in the table and the block stays the same
  std::int64_t window_ = 65535;
  std::int64_t initial_window_ = 65535;
  std::size_t frame_bytes_ = 16384;
  std::size_t allowed_ = 0;     // by the server's settings; none before they came
  std::uint64_t received_ = 0;  // since the last WINDOW_UPDATE
};

class Load {
 public:
  explicit Load(const GrpcLoadOptions& options) : options_(options) {}
  ~Load() {
    if (epoll_ >= 0) close(epoll_);
  }
  absl::StatusOr<LoadResult> Run();

  const GrpcLoadOptions& options() const { return options_; }
  void Answered(Stream& stream, int status) {
    if (status == 0) result_.last_answer.swap(stream.answer);
    if (!stream.counted || result_.seconds > 0) return;  // not, or no longer

    if (status == 0) {
      const auto took = Clock::now() - stream.due;
      result_.latency.Record(took);
      second_.Record(took);
      ++result_.ok;
      return;
    }
    ++result_.errors[status];
    ++second_errors_;
    if (result_.first_error.empty()) result_.first_error = StrCat(status, ": ", stream.text);
  }
  char* read_buffer() { return read_buffer_.get(); }

 private:
  absl::StatusOr<int> Connect();
  void AskWhatIsDue(Clock::time_point now);
  void CloseSecond(Clock::time_point now, LoadProgress::Phase phase);

  const GrpcLoadOptions& options_;
  LoadResult result_;
  int epoll_ = -1;
  std::unique_ptr<char[]> read_buffer_{new char[kReadBytes]};
  std::vector<std::unique_ptr<Connection>> connections_;
  std::uint64_t asked_ = 0;
  bool stopping_ = false;
  Clock::time_point last_age_check_;
  Clock::time_point start_;       // of the load
  Clock::time_point count_from_;  // warm-up is over
  Clock::time_point end_;
  Clock::time_point next_due_;
  std::size_t turn_ = 0;  // whose turn it is, at a rate
  std::deque<Clock::time_point> late_;
  Histogram second_;
  std::uint64_t second_errors_ = 0;
  Clock::time_point second_begin_;
};

bool Connection::Open() {
  if (nghttp2_hd_deflate_new(&deflater_, 4096) != 0 || nghttp2_hd_inflate_new(&inflater_) != 0) {
    return false;
  }
  out_ = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  AppendFrameHeader(12, kSettings, 0, 0, out_);
  out_.append("\0\2", 2);  // ENABLE_PUSH
  AppendU32(0, out_);
  out_.append("\0\4", 2);  // INITIAL_WINDOW_SIZE
  AppendU32(kLargestWindow, out_);
  AppendFrameHeader(4, kWindowUpdate, 0, 0, out_);
  AppendU32(kLargestWindow - 65535, out_);
  return true;
}

std::string_view Connection::HeaderBlock() {
  if (blocks_made_ >= 3) return block_;
  const GrpcLoadOptions& options = load_->options();
  std::vector<nghttp2_nv> headers;
  auto add = [&](std::string_view name, std::string_view value) {
    nghttp2_nv nv;
    nv.name = reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data()));
    nv.value = reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data()));
    nv.namelen = name.size();
    nv.valuelen = value.size();
    nv.flags = NGHTTP2_NV_FLAG_NONE;
    headers.push_back(nv);
  };
  add(":scheme", "http");
  add(":method", "POST");
  // A path is no authority; "localhost" is what gRPC says in its place.
  add(":authority", options.target.starts_with("unix:") ? "localhost" : options.target);
  add(":path", options.method);
  add("te", "trailers");
  add("content-type", "application/grpc");
  add("user-agent", "takt-load");
  for (const auto& [name, value] : options.metadata) add(name, value);
  block_.resize(nghttp2_hd_deflate_bound(deflater_, headers.data(), headers.size()));
  const ssize_t n = nghttp2_hd_deflate_hd(deflater_, reinterpret_cast<std::uint8_t*>(block_.data()),
                                          block_.size(), headers.data(), headers.size());
  block_.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  ++blocks_made_;
  return block_;
}

void Connection::Ask(Clock::time_point due, bool counted, std::string_view message) {
  std::unique_ptr<Stream> stream;
  if (spare_.empty()) {
    stream = std::make_unique<Stream>();
  } else {
    stream = std::move(spare_.back());
    spare_.pop_back();
  }
  stream->id = next_id_;
  next_id_ += 2;
  stream->due = due;
  stream->counted = counted;
  stream->message = message;
  stream->window = initial_window_;
  stream->grpc_status = -1;
  stream->text.clear();
  stream->answer.clear();
  const std::size_t n = message.size();
  const char prefix[kGrpcPrefixBytes] = {0, static_cast<char>(n >> 24), static_cast<char>(n >> 16),
                                         static_cast<char>(n >> 8), static_cast<char>(n)};
  std::memcpy(stream->prefix_bytes, prefix, sizeof prefix);
  stream->prefix = {stream->prefix_bytes, sizeof prefix};
  const std::string_view block = HeaderBlock();
  AppendFrameHeader(block.size(), kHeaders, kEndHeaders, stream->id, out_);
  out_.append(block);
  SendBody(*stream);
  streams_.push_back(std::move(stream));
}

void Connection::SendBody(Stream& stream) {
  while (!stream.prefix.empty() || !stream.message.empty()) {
    const std::size_t left = stream.prefix.size() + stream.message.size();
    const auto room =
        static_cast<std::size_t>(std::max<std::int64_t>(std::min(window_, stream.window), 0));
    const std::size_t n = std::min({left, room, frame_bytes_});
    if (n == 0 || (n < kGrpcPrefixBytes && n < left)) return;  // until the window opens
    AppendFrameHeader(n, kData, n == left ? kEndStream : 0, stream.id, out_);
    out_.append(stream.prefix);
    const std::size_t of_message = n - stream.prefix.size();
    stream.prefix = {};
    out_.append(stream.message.substr(0, of_message));
    stream.message.remove_prefix(of_message);
    window_ -= static_cast<std::int64_t>(n);
    stream.window -= static_cast<std::int64_t>(n);
  }
}

absl::Status Connection::Flush() {
  while (sent_ < out_.size()) {
    const ssize_t n = send(fd_, out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return absl::OkStatus();
      return absl::UnavailableError(StrCat("send: ", std::strerror(errno)));
    }
    sent_ += static_cast<std::size_t>(n);
  }
  out_.clear();
  sent_ = 0;
  return absl::OkStatus();
}

absl::Status Connection::Read() {
  char* const buffer = load_->read_buffer();
  const ssize_t got = recv(fd_, buffer, kReadBytes, 0);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return absl::OkStatus();
    return absl::UnavailableError(StrCat("recv: ", std::strerror(errno)));
  }
  if (got == 0) return absl::UnavailableError("the server closed the connection");
  const char* at = buffer;
  std::size_t left = static_cast<std::size_t>(got);
  if (!in_.empty()) {
    in_.append(buffer, left);
    at = in_.data();
    left = in_.size();
  }
  while (left >= kFrameHeaderBytes) {
    const auto* header = reinterpret_cast<const unsigned char*>(at);
    const std::size_t size = std::size_t{header[0]} << 16 | std::size_t{header[1]} << 8 | header[2];
    if (size > kMaxAnswerFrameBytes) return absl::InternalError("the server speaks no HTTP/2");
    if (left < kFrameHeaderBytes + size) break;
    TAKT_RETURN_IF_ERROR(OnFrame(header[3], header[4], ReadU32(header + 5) & 0x7fffffff,
                                 header + kFrameHeaderBytes, size));
    at += kFrameHeaderBytes + size;
    left -= kFrameHeaderBytes + size;
  }
  if (in_.empty()) {
    in_.assign(at, left);
  } else {
    in_.erase(0, in_.size() - left);
  }
  return absl::OkStatus();
}

absl::Status Connection::OnFrame(std::uint8_t type, std::uint8_t flags, std::uint32_t stream_id,
                                 const unsigned char* payload, std::size_t size) {
  switch (type) {
    case kData: {
      received_ += size;
      if (received_ > kLargestWindow / 2) {
        AppendFrameHeader(4, kWindowUpdate, 0, 0, out_);
        AppendU32(static_cast<std::uint32_t>(received_), out_);
        received_ = 0;
      }
      Stream* stream = Find(stream_id);
      if (stream == nullptr) return absl::OkStatus();
      stream->answer.append(reinterpret_cast<const char*>(payload), size);
      if ((flags & kEndStream) != 0) Done(stream, stream->grpc_status);
      return absl::OkStatus();
    }
    case kHeaders: {
      if ((flags & kEndHeaders) == 0 || (flags & kPadded) != 0) {
        return absl::UnimplementedError("answers with continued or padded headers");
      }
      Stream* stream = Find(stream_id);
      TAKT_RETURN_IF_ERROR(OnHeaders(stream, payload, size));
      if (stream != nullptr && (flags & kEndStream) != 0) Done(stream, stream->grpc_status);
      return absl::OkStatus();
    }
    case kReset:
      if (Stream* stream = Find(stream_id); stream != nullptr) {
        stream->text = StrCat("reset ", size >= 4 ? ReadU32(payload) : 0);
        Done(stream, static_cast<int>(absl::StatusCode::kUnavailable));
      }
      return absl::OkStatus();
    case kSettings: {
      if ((flags & kAck) != 0) return absl::OkStatus();
      if (allowed_ == 0) allowed_ = kLargestWindow;
      for (std::size_t i = 0; i + 6 <= size; i += 6) {
        const int id = payload[i] << 8 | payload[i + 1];
        const std::uint32_t value = ReadU32(payload + i + 2);
        if (id == 3) allowed_ = value;
        if (id == 4) {
          for (auto& stream : streams_) stream->window += value - initial_window_;
          initial_window_ = value;
        }
        if (id == 5) frame_bytes_ = value;
      }
      AppendFrameHeader(0, kSettings, kAck, 0, out_);
      for (auto& stream : streams_) SendBody(*stream);
      return absl::OkStatus();
    }
    case kPing:
      if ((flags & kAck) != 0 || size != 8) return absl::OkStatus();
      AppendFrameHeader(8, kPing, kAck, 0, out_);
      out_.append(reinterpret_cast<const char*>(payload), 8);
      return absl::OkStatus();
    case kGoaway:
      return absl::UnavailableError("the server goes away");
    case kWindowUpdate: {
      if (size != 4) return absl::OkStatus();
      const std::uint32_t more = ReadU32(payload) & kLargestWindow;
      if (stream_id == 0) {
        window_ += more;
        for (auto& stream : streams_) SendBody(*stream);
      } else if (Stream* stream = Find(stream_id); stream != nullptr) {
        stream->window += more;
        SendBody(*stream);
      }
      return absl::OkStatus();
    }
    default:
      return absl::OkStatus();
  }
}

absl::Status Connection::OnHeaders(Stream* stream, const unsigned char* block, std::size_t size) {
  std::string text;
  while (true) {
    nghttp2_nv nv;
    int flags = 0;
    const ssize_t used = nghttp2_hd_inflate_hd2(inflater_, &nv, &flags, block, size, 1);
    if (used < 0) return absl::InternalError("the server's headers do not inflate");
    block += used;
    size -= static_cast<std::size_t>(used);
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0 && stream != nullptr) {
      const std::string_view name(reinterpret_cast<char*>(nv.name), nv.namelen);
      const std::string_view value(reinterpret_cast<char*>(nv.value), nv.valuelen);
      if (name == "grpc-status") stream->grpc_status = std::atoi(std::string(value).c_str());
      if (name == "grpc-message") stream->text = value;
      if (name == ":status" && value != "200") stream->text = StrCat("HTTP ", value);
    }
    if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
      nghttp2_hd_inflate_end_headers(inflater_);
      return absl::OkStatus();
    }
    if (used == 0 && (flags & NGHTTP2_HD_INFLATE_EMIT) == 0) return absl::OkStatus();
  }
}

void Connection::Done(Stream* stream, int status) {
  load_->Answered(*stream, status < 0 ? static_cast<int>(absl::StatusCode::kUnknown) : status);
  for (auto& slot : streams_) {
    if (slot.get() != stream) continue;
    spare_.push_back(std::move(slot));
    if (&slot != &streams_.back()) slot = std::move(streams_.back());
    streams_.pop_back();
    return;
  }
}

absl::StatusOr<int> Load::Connect() {
  const std::string& target = options_.target;
  const Clock::time_point end = Clock::now() + options_.connect_timeout;
  sockaddr_storage address{};
  socklen_t length = 0;
  if (target.starts_with("unix:")) {
    auto& un = reinterpret_cast<sockaddr_un&>(address);
    un.sun_family = AF_UNIX;
    if (target.size() - 5 >= sizeof un.sun_path) {
      return absl::InvalidArgumentError(StrCat("socket path of ", target, " is too long"));
    }
    std::memcpy(un.sun_path, target.data() + 5, target.size() - 5);
    length = sizeof un;
  } else {
    const std::size_t colon = target.rfind(':');
    if (colon == std::string::npos) {
      return absl::InvalidArgumentError(StrCat("target \"", target, "\" is not HOST:PORT"));
    }
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(target.substr(0, colon).c_str(), target.c_str() + colon + 1, &hints, &found) !=
        0) {
      return absl::UnavailableError(StrCat("host of ", target, " has no address"));
    }
    std::memcpy(&address, found->ai_addr, found->ai_addrlen);
    length = found->ai_addrlen;
    freeaddrinfo(found);
  }
  while (true) {
    const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return ErrnoStatus(errno, "socket");
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), length) == 0) {
      SetForCalls(fd, reinterpret_cast<sockaddr*>(&address));
      return fd;
    }
    const int error = errno;
    close(fd);
    if (Clock::now() > end) {
      return absl::UnavailableError(StrCat("connect to ", target, ": ", std::strerror(error)));
    }
    usleep(10'000);
  }
}

void Load::AskWhatIsDue(Clock::time_point now) {
  if (stopping_) return;
  auto may_ask = [&] { return options_.max_calls == 0 || asked_ < options_.max_calls; };
  auto room = [&](Connection& connection) {
    return connection.active() <
           std::min<std::size_t>(static_cast<std::size_t>(options_.streams), connection.allowed());
  };
  auto ask = [&](Connection& connection, Clock::time_point due) {
    connection.Ask(due, due >= count_from_, options_.message(asked_++));
  };
  if (options_.rate <= 0) {
    for (auto& connection : connections_) {
      while (room(*connection) && may_ask()) ask(*connection, Clock::now());
    }
    return;
  }
  const auto step = std::chrono::nanoseconds(static_cast<std::int64_t>(1e9 / options_.rate));
  for (; next_due_ <= now; next_due_ += step) late_.push_back(next_due_);
  while (!late_.empty() && may_ask()) {
    std::size_t tried = 0;
    while (tried < connections_.size() && !room(*connections_[turn_ % connections_.size()])) {
      ++turn_;
      ++tried;
    }
    if (tried == connections_.size()) return;
    ask(*connections_[turn_++ % connections_.size()], late_.front());
    late_.pop_front();
  }
}

void Load::CloseSecond(Clock::time_point now, LoadProgress::Phase phase) {
  LoadProgress progress{phase, {}, result_.last_answer};
  progress.last.at_seconds = std::chrono::duration<double>(now - count_from_).count();
  progress.last.calls = second_.count();
  progress.last.errors = second_errors_;
  progress.last.p50_us = static_cast<double>(second_.Percentile(50).count()) / 1000;
  progress.last.p99_us = static_cast<double>(second_.Percentile(99).count()) / 1000;
  if (phase != LoadProgress::Phase::kBegin && second_.count() + second_errors_ > 0) {
    result_.by_second.push_back(progress.last);
  }
  second_ = Histogram();
  second_errors_ = 0;
  second_begin_ = now;
  if (options_.progress) options_.progress(progress);
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

absl::StatusOr<LoadResult> Load::Run() {
  if (options_.connections < 1 || options_.connections > kMaxLoadConnections) {
    return absl::InvalidArgumentError(
        StrCat("connections: 1 to ", kMaxLoadConnections, ", not ", options_.connections));
  }
  if (options_.streams < 1 || options_.streams > kMaxLoadStreams) {
    return absl::InvalidArgumentError(
        StrCat("streams: 1 to ", kMaxLoadStreams, ", not ", options_.streams));
  }
  prctl(PR_SET_TIMERSLACK, 1000);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return ErrnoStatus(errno, "epoll_create1");
  for (int i = 0; i < options_.connections; ++i) {
    TAKT_ASSIGN_OR_RETURN(const int fd, Connect());
    connections_.push_back(std::make_unique<Connection>(this, fd));
    if (!connections_.back()->Open()) return absl::ResourceExhaustedError("no memory for HPACK");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = connections_.back().get();
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) return ErrnoStatus(errno, "epoll_ctl");
    int flags = 1;
    if (ioctl(fd, FIONBIO, &flags) != 0) return ErrnoStatus(errno, "ioctl");
  }
  start_ = next_due_ = Clock::now();
  count_from_ = start_ + options_.warm_up;
  end_ = count_from_ + options_.duration;
  bool counting = false;
  double cpu_before = 0;
  Clock::time_point now = start_;
  std::vector<epoll_event> events(256);
  while (true) {
    if (!counting && now >= count_from_) {
      counting = true;
      cpu_before = CpuSeconds();
      CloseSecond(now, LoadProgress::Phase::kBegin);
    }
    if (!stopping_ && (now >= end_ || (options_.max_calls > 0 && asked_ >= options_.max_calls))) {
      stopping_ = true;
      if (now >= end_) {
        result_.seconds = std::chrono::duration<double>(now - count_from_).count();
        result_.client_cpu_seconds = CpuSeconds() - cpu_before;
        CloseSecond(now, LoadProgress::Phase::kEnd);
      }
    }
    AskWhatIsDue(now);
    std::size_t active = 0;
    Clock::time_point oldest = Clock::time_point::max();
    for (auto& connection : connections_) {
      TAKT_RETURN_IF_ERROR(connection->Flush());
      if (connection->wants_out() != connection->watching_out) {
        connection->watching_out = connection->wants_out();
        epoll_event event{};
        event.events = EPOLLIN | (connection->watching_out ? EPOLLOUT : 0U);
        event.data.ptr = connection.get();
        epoll_ctl(epoll_, EPOLL_CTL_MOD, connection->fd(), &event);
      }
      active += connection->active();
      if (now - last_age_check_ > std::chrono::seconds(1)) {
        oldest = std::min(oldest, connection->oldest());
      }
    }
    if (now - last_age_check_ > std::chrono::seconds(1)) {
      last_age_check_ = now;
      if (oldest != Clock::time_point::max() && now - oldest > options_.answer_timeout) {
        return absl::DeadlineExceededError(StrCat("no answer from ", options_.target));
      }
    }
    if (stopping_ && active == 0) break;
    std::chrono::nanoseconds wait = std::chrono::milliseconds(100);
    if (!stopping_) wait = std::min<std::chrono::nanoseconds>(wait, end_ - now);
    if (options_.rate > 0 && !stopping_) {
      wait = std::min<std::chrono::nanoseconds>(wait, next_due_ - Clock::now());
    }
    wait = std::max<std::chrono::nanoseconds>(wait, std::chrono::nanoseconds(0));
    const timespec timeout{wait.count() / 1'000'000'000, wait.count() % 1'000'000'000};
    const int count =
        epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
    if (count < 0 && errno != EINTR) return ErrnoStatus(errno, "epoll_pwait2");
    for (int i = 0; i < count; ++i) {
      if ((events[i].events & ~static_cast<std::uint32_t>(EPOLLOUT)) == 0) continue;
      TAKT_RETURN_IF_ERROR(static_cast<Connection*>(events[i].data.ptr)->Read());
    }
    now = Clock::now();
    if (counting && !stopping_ && now - second_begin_ >= std::chrono::seconds(1)) {
      CloseSecond(now, LoadProgress::Phase::kRunning);
    }
  }
  if (result_.seconds == 0) {  // it ended by its number of calls
    now = Clock::now();
    result_.seconds = std::chrono::duration<double>(now - count_from_).count();
    result_.client_cpu_seconds = CpuSeconds() - cpu_before;
    CloseSecond(now, LoadProgress::Phase::kEnd);
  }
  return std::move(result_);
}

}  // namespace

absl::StatusOr<LoadResult> RunGrpcLoad(const GrpcLoadOptions& options) {
  return Load(options).Run();
}

}  // namespace takt::load
