#include "load/load.h"

#include <netdb.h>
#include <netinet/in.h>
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
#include "load/connection.h"

namespace takt::load {

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

absl::Status Connection::Read(char* buffer, std::size_t size) {
  const ssize_t got = recv(fd_, buffer, size, 0);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return absl::OkStatus();
    return absl::UnavailableError(StrCat("recv: ", std::strerror(errno)));
  }
  if (got == 0) return absl::UnavailableError("the server closed the connection");
  std::string_view bytes(buffer, static_cast<std::size_t>(got));
  if (!in_.empty()) {
    in_.append(bytes);
    bytes = in_;
  }
  TAKT_ASSIGN_OR_RETURN(const std::size_t done, OnBytes(bytes));
  if (in_.empty()) {
    in_.assign(bytes.substr(done));
  } else {
    in_.erase(0, done);
  }
  return absl::OkStatus();
}

namespace {

constexpr std::size_t kReadBytes = 256 << 10;

class Load {
 public:
  explicit Load(const LoadOptions& options) : options_(options) {}
  ~Load() {
    if (epoll_ >= 0) close(epoll_);
  }
  absl::StatusOr<LoadResult> Run();

 private:
  absl::StatusOr<int> Connect();
  void Answered(const Answer& answer);
  void AskWhatIsDue(Clock::time_point now);
  void CloseSecond(Clock::time_point now, LoadProgress::Phase phase);

  const LoadOptions& options_;
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

void Load::Answered(const Answer& answer) {
  if (answer.error == 0) result_.last_answer.swap(*answer.body);
  if (result_.seconds > 0) return;  // no longer
  const Clock::time_point now = Clock::now();
  if (answer.error == 0 && now >= count_from_) ++result_.answered;
  if (!answer.counted) return;
  const auto took = now - answer.due;
  if (answer.error == 0) {
    result_.latency.Record(took);
    second_.Record(took);
    ++result_.ok;
    return;
  }
  result_.refusal_latency.Record(took);
  ++result_.errors[answer.error];
  ++second_errors_;
  if (result_.first_error.empty()) result_.first_error = StrCat(answer.error, ": ", answer.text);
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
  if (options_.protocol == LoadProtocol::kHttp && options_.streams != 1) {
    return absl::InvalidArgumentError(
        StrCat("streams: 1, not ", options_.streams,
               ": a connection of HTTP/1.1 has one request at a time; ask for more connections"));
  }
  prctl(PR_SET_TIMERSLACK, 1000);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return ErrnoStatus(errno, "epoll_create1");
  for (int i = 0; i < options_.connections; ++i) {
    TAKT_ASSIGN_OR_RETURN(const int fd, Connect());
    const OnAnswer on_answer = [this](const Answer& answer) { Answered(answer); };
    connections_.push_back(options_.protocol == LoadProtocol::kHttp
                               ? MakeHttpConnection(fd, on_answer)
                               : MakeGrpcConnection(fd, options_, on_answer));
    if (connections_.back() == nullptr) return absl::ResourceExhaustedError("no memory for HPACK");
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
      TAKT_RETURN_IF_ERROR(
          static_cast<Connection*>(events[i].data.ptr)->Read(read_buffer_.get(), kReadBytes));
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

absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options) { return Load(options).Run(); }

}  // namespace takt::load
