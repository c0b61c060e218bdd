#include "net/grpc_server.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "absl/strings/escaping.h"
#include "base/socket.h"
#include "net/buffer_pool.h"
#include "net/grpc_wire.h"

namespace takt::net {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kReadBufferBytes = 256 << 10;
// As long as a turn has not taken longer, a connection that has more than a buffer is read again.
constexpr std::chrono::milliseconds kMaxReadingOfATurn{2};
constexpr std::size_t kWriteChunkBytes = 256 << 10;
constexpr std::size_t kFramingBytes = 5;  // compressed flag, length
constexpr std::size_t kMaxRecycledResponseBytes = 64 << 10;
// So many unused calls keep the memory of their answers; the rest of a burst gives it back.
constexpr std::size_t kWarmCalls = 512;
constexpr std::int32_t kStreamWindowBytes = 4 << 20;
constexpr std::int32_t kConnectionWindowBytes = 32 << 20;
constexpr std::uint32_t kFrameBytes = 1 << 20;
// Answers shorter than this are not worth compressing.
constexpr std::size_t kMinCompressedBytes = 1024;
// A peer in the middle of a request must send at least this much in slow_peer_timeout.
constexpr std::size_t kMinSlowPeerBytes = 4096;

class Connection;
class Server;
struct Shard;

// Refers to text that outlives the call of nghttp2 (all of its text when `fixed`).
nghttp2_nv MakeNv(std::string_view name, std::string_view value, bool fixed = true) {
  nghttp2_nv nv;
  nv.name = reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data()));
  nv.value = reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data()));
  nv.namelen = name.size();
  nv.valuelen = value.size();
  nv.flags =
      fixed ? NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE : NGHTTP2_NV_FLAG_NONE;
  return nv;
}
// "0" to "16", which live for ever.
std::string_view GrpcStatusText(absl::StatusCode code) {
  constexpr std::string_view kTexts[] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                         "9", "10", "11", "12", "13", "14", "15", "16"};
  const auto at = static_cast<std::size_t>(GrpcStatusFor(code));
  return at < std::size(kTexts) ? kTexts[at] : kTexts[static_cast<int>(absl::StatusCode::kUnknown)];
}
nghttp2_nv CopyNv(std::string_view name, std::string_view value) {
  return MakeNv(name, value, false);
}

struct Method {
  std::string path;
  GrpcHandler handler;
  GrpcStreamFactory stream_factory;
  std::function<std::size_t(std::string_view)> place;
};

// What a plain HTTP/1.1 GET may ask for.
struct PlainPage {
  std::string content_type;
  std::function<void(GrpcServer::PlainAnswer)> ask;
};

class Call final : public GrpcCall {
 public:
  explicit Call(Shard* shard);
  void RetainBody() override;
  std::pair<std::shared_ptr<const void>, std::string_view> ShareBody() override;
  std::size_t request_bytes() const override { return message_bytes; }
  bool body_is_shared() const override { return buffer != nullptr; }
  std::string peer() const override;
  void Write(std::string_view message) override;
  void Finish(const absl::Status& status) override;
  void Abandon() override;

  // Makes a used call like new.
  void Reset(std::size_t keep_response_bytes);
  void SetBody(std::string_view body) { body_ = body; }
  void SetMethod(std::string_view method) { method_ = method; }
  void SetDeadline(Clock::time_point deadline) { deadline_ = deadline; }
  void SetCancelled() { cancelled_.store(true, std::memory_order_relaxed); }
  std::vector<std::pair<std::string, std::string>>& mutable_metadata() { return metadata_; }
  std::vector<std::pair<std::string, std::string>>& response_metadata() {
    return response_metadata_;
  }
  const absl::Status& status() const { return status_; }

  Shard* const shard;
  // On the loop's thread only, from here on.
  Connection* connection = nullptr;  // null once the stream is closed
  std::int32_t stream_id = 0;
  Call* previous = nullptr;  // of the connection's open streams
  Call* next = nullptr;
  const Method* target = nullptr;
  std::unique_ptr<GrpcStream> stream;  // of a streamed method
  std::size_t header_bytes = 0;
  std::string_view method_name;  // HTTP's
  bool is_post = false;
  bool is_grpc = false;
  bool bad_path = false;
  GrpcCompression request_compression = GrpcCompression::kIdentity;
  std::string unknown_encoding;
  std::string own_path;

  // The message that is being received.
  unsigned char prefix[kFramingBytes];
  std::size_t prefix_bytes = 0;
  std::size_t message_bytes = 0;   // by its prefix
  std::size_t received_bytes = 0;  // of message_bytes
  std::size_t capacity = 0;        // of `buffer`, behind its pad; counted in the shard's reserve
  std::size_t pad = 0;             // before the message in `buffer`
  bool message_compressed = false;
  bool message_complete = false;
  bool borrowed = false;  // body_ lies in the loop's read buffer
  bool dropping = false;  // answered already; the rest of the request is thrown away
  std::shared_ptr<char> buffer;
  char* buffer_data = nullptr;  // in `buffer`: where the message begins
  std::string inflated;

  // The answer.
  bool held = false;       // somebody has the GrpcCallPtr
  bool submitted = false;  // headers are on their way
  bool finished = false;
  std::size_t sent_bytes = 0;  // of response_
  Call* next_finished = nullptr;

 private:
  friend class Connection;
  friend struct Shard;
  absl::Status status_;
};

// Memory for nghttp2 on one loop's thread: freed blocks of small sizes are kept in lists and given
// out again. A stream takes a dozen blocks, and with a hundred streams open malloc's own cache of
// seven a size is soon empty.
class LoopMemory {
 public:
  LoopMemory() {
    functions_.mem_user_data = this;
    functions_.malloc = [](std::size_t size, void* self) {
      return static_cast<LoopMemory*>(self)->Allocate(size);
    };
    functions_.free = [](void* block, void* self) { static_cast<LoopMemory*>(self)->Free(block); };
    functions_.calloc = [](std::size_t count, std::size_t size, void* self) -> void* {
      std::size_t bytes;
      if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
      void* block = static_cast<LoopMemory*>(self)->Allocate(bytes);
      return block == nullptr ? nullptr : std::memset(block, 0, bytes);
    };
    functions_.realloc = [](void* block, std::size_t size, void* self) {
      return static_cast<LoopMemory*>(self)->Reallocate(block, size);
    };
  }
  ~LoopMemory() {
    for (Block*& list : free_) {
      while (list != nullptr) std::free(std::exchange(list, list->next));
    }
  }
  LoopMemory(const LoopMemory&) = delete;
  LoopMemory& operator=(const LoopMemory&) = delete;
  nghttp2_mem* nghttp2() { return &functions_; }

 private:
  static constexpr std::size_t kStep = 64;
  static constexpr std::size_t kSizes = 33;      // beyond 2 KiB: malloc's
  static constexpr std::size_t kMaxFree = 4096;  // blocks kept of a size
  union alignas(16) Block {
    std::size_t size_class;  // of a block in use
    Block* next;             // of a free one
  };

  void* Allocate(std::size_t size) {
    const std::size_t size_class = (size + kStep - 1) / kStep;
    if (size_class >= kSizes) return Fresh(size, kSizes);
    Block* block = free_[size_class];
    if (block == nullptr) return Fresh(size_class * kStep, size_class);
    free_[size_class] = block->next;
    --count_[size_class];
    block->size_class = size_class;
    return block + 1;
  }
  static void* Fresh(std::size_t size, std::size_t size_class) {
    auto* block = static_cast<Block*>(std::malloc(sizeof(Block) + size));
    if (block == nullptr) return nullptr;
    block->size_class = size_class;
    return block + 1;
  }
  void Free(void* memory) {
    if (memory == nullptr) return;
    Block* block = static_cast<Block*>(memory) - 1;
    const std::size_t size_class = block->size_class;
    if (size_class >= kSizes || count_[size_class] >= kMaxFree) return std::free(block);
    block->next = free_[size_class];
    free_[size_class] = block;
    ++count_[size_class];
  }
  void* Reallocate(void* memory, std::size_t size) {
    if (memory == nullptr) return Allocate(size);
    Block* block = static_cast<Block*>(memory) - 1;
    if (block->size_class >= kSizes && size >= kSizes * kStep) {
      auto* moved = static_cast<Block*>(std::realloc(block, sizeof(Block) + size));
      return moved == nullptr ? nullptr : moved + 1;
    }
    const std::size_t had = block->size_class * kStep;
    if (block->size_class < kSizes && size <= had) return memory;
    void* fresh = Allocate(size);
    if (fresh == nullptr) return nullptr;
    // From malloc's sizes to ours only when it shrinks.
    std::memcpy(fresh, memory, block->size_class < kSizes ? had : size);
    Free(memory);
    return fresh;
  }

  nghttp2_mem functions_{};
  std::array<Block*, kSizes> free_{};
  std::array<std::size_t, kSizes> count_{};
};

// What one loop has of the server.
struct Shard {
  Shard(Server* server, EventLoop* loop)
      : server(server), loop(loop), read_buffer(new char[kReadBufferBytes]) {}
  ~Shard() {
    for (Call* call : free_calls) delete call;
  }

  Call* NewCall() {
    if (free_calls.empty()) return new Call(this);
    Call* call = free_calls.back();
    free_calls.pop_back();
    return call;
  }
  void Recycle(Call* call) {
    call->Reset(free_calls.size() < kWarmCalls ? kMaxRecycledResponseBytes : 0);
    free_calls.push_back(call);
  }
  // From another thread: the call is finished.
  void PushFinished(Call* call) {
    Call* head = finished.load(std::memory_order_relaxed);
    do {
      call->next_finished = head;
    } while (!finished.compare_exchange_weak(head, call, std::memory_order_release,
                                             std::memory_order_relaxed));
    if (head == nullptr) loop->Post([this] { TakeFinished(); });
  }
  void TakeFinished();
  void Ended(Call* call);
  void Sweep();

  Server* const server;
  EventLoop* const loop;
  LoopMemory memory;
  std::unique_ptr<char[]> read_buffer;
  std::vector<Call*> free_calls;
  std::size_t reserved_bytes = 0;  // buffers of messages that are not complete
  std::atomic<Call*> finished{nullptr};
  std::map<Connection*, std::unique_ptr<Connection>> connections;
  bool sweeping = false;
  EventLoop::TimerId sweep_timer = 0;
  // Written on the loop's thread only.
  std::atomic<std::uint64_t> calls{0};
  std::atomic<std::uint64_t> in_flight{0};
  std::atomic<std::uint64_t> connection_count{0};
};

void Add(std::atomic<std::uint64_t>& counter, std::int64_t by) {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

class Connection final : public EventLoop::FdHandler, public EventLoop::TurnEnd {
 public:
  Connection(Shard* shard, int fd, std::string peer, SSL* ssl);
  ~Connection() override;
  // False: close it.
  bool Open();

  void OnEvents(std::uint32_t events) override;
  void OnTurnEnd() override;

  // The answer of `call` is to be sent, or goes on.
  void Submit(Call* call);
  void WantWrite() { shard_->loop->AtTurnEnd(this, EventLoop::Phase::kWrite); }
  void StartDrain();
  // Closes and deletes, now when it can, else at the end of the turn.
  void Close();
  // The sweep: false when the connection has lost its right to exist.
  bool IsAlive(Clock::time_point now);
  const std::string& peer() const { return peer_; }
  nghttp2_session* session() const { return session_; }

  // nghttp2's callbacks.
  int OnBeginHeaders(const nghttp2_frame* frame);
  int OnHeader(const nghttp2_frame* frame, std::string_view name, std::string_view value);
  int OnBeginFrame(const nghttp2_frame_hd* hd);
  int OnFrame(const nghttp2_frame* frame);
  int OnData(std::int32_t stream_id, const char* data, std::size_t size);
  bool OnStreamClose(std::int32_t stream_id, std::uint32_t error);
  ssize_t ReadAnswer(Call* call, std::uint8_t* out, std::size_t size, std::uint32_t* flags);

 private:
  Call* CallOf(std::int32_t stream_id) {
    // One request's frames mostly come in a row.
    if (stream_id == last_stream_) return last_call_;
    last_stream_ = stream_id;
    last_call_ = static_cast<Call*>(nghttp2_session_get_stream_user_data(session_, stream_id));
    return last_call_;
  }
  void HeadersDone(Call* call);
  void Dispatch(Call* call);
  // Takes bytes of the request's body.
  void Receive(Call* call, const char* data, std::size_t size);
  bool BeginMessage(Call* call);
  // Room in the call's buffer for the first `bytes` of its message. False: there is no memory.
  bool MakeRoom(Call* call, std::size_t bytes);
  void MessageDone(Call* call);
  absl::StatusOr<std::string_view> Plain(Call* call, std::string_view message);
  // One more frame that makes work and carries none. False: too many, the connection ends.
  bool CountIdleFrame();
  void KeepBorrowed();
  // The stream of `call` is closed.
  void Detach(Call* call);
  // Ends a call that no handler has (or will have).
  void Refuse(Call* call, absl::Status status);
  void RefuseHttp(Call* call, const char* status);
  bool Handshake();
  // A peer that begins like an HTTP/1.1 GET. False: close the connection.
  bool ReceivePlain(std::string_view bytes);
  void AnswerPlain(std::string_view status, std::string_view content_type, std::string_view body);
  ssize_t ReadSome(char* out, std::size_t size);
  ssize_t WriteSome(const char* data, std::size_t size);
  bool Flush();

  Shard* const shard_;
  const int fd_;
  const std::string peer_;
  SSL* const ssl_;
  nghttp2_session* session_ = nullptr;
  bool handshaken_;
  // Which protocol it is shows in the first byte. Where nothing but HTTP/2 is spoken, it is known
  // from the start, and so our settings need not wait for the peer.
  enum class Protocol { kUnknown, kHttp2, kPlain } protocol_;
  std::string plain_head_;
  bool plain_answered_ = false;
  std::shared_ptr<Connection*> self_;  // of a plain connection, which answers come back to
  bool in_receive_ = false;
  bool closing_ = false;
  bool draining_ = false;
  bool want_out_ = false;  // EPOLLOUT is watched
  Call* open_calls_ = nullptr;
  std::size_t open_count_ = 0;
  std::vector<Call*> borrowed_;
  std::string pending_;  // written by nghttp2, not yet taken by the socket
  std::size_t pending_sent_ = 0;
  const Method* last_method_ = nullptr;
  std::int32_t last_stream_ = -1;
  std::int32_t reset_by_peer_ = -1;  // the stream that the peer reset last
  Call* last_call_ = nullptr;
  int idle_frames_ = 0;
  Clock::time_point idle_frames_since_;
  Clock::time_point opened_;
  Clock::time_point last_active_;
  Clock::time_point drain_since_;
  Clock::time_point window_since_;   // of slow_peer_timeout
  std::size_t window_received_ = 0;  // bytes since then
  std::size_t window_sent_ = 0;
};

class Acceptor final : public EventLoop::FdHandler {
 public:
  Acceptor(Server* server, int fd, bool unix_socket)
      : server_(server), fd_(fd), unix_(unix_socket) {}
  ~Acceptor() override { close(fd_); }
  void OnEvents(std::uint32_t events) override;
  int fd() const { return fd_; }

 private:
  Server* const server_;
  const int fd_;
  const bool unix_;
};

class Server final : public GrpcServer {
 public:
  Server(GrpcServerOptions options, std::vector<EventLoop*> loops);
  ~Server() override;
  void Handle(std::string method, GrpcHandler handler) override {
    MethodAt(method).handler = std::move(handler);
  }
  void HandleStream(std::string method, GrpcStreamFactory factory) override {
    MethodAt(method).stream_factory = std::move(factory);
  }
  void PlaceBodiesOf(std::string_view method,
                     std::function<std::size_t(std::string_view)> offset) override {
    MethodAt(std::string(method)).place = std::move(offset);
  }
  void HandleGet(std::string path, std::string content_type,
                 std::function<void(PlainAnswer)> ask) override {
    pages_[std::move(path)] = {std::move(content_type), std::move(ask)};
  }
  absl::Status Start() override;
  std::uint16_t port() const override { return port_; }
  const std::vector<EventLoop*>& loops() const override { return loops_; }
  GrpcServerStats stats() const override;
  std::uint64_t Drain(std::chrono::milliseconds limit) override;

  const GrpcServerOptions& options() const { return options_; }
  const Method* Find(std::string_view path) const {
    auto found = methods_.find(path);
    return found == methods_.end() ? nullptr : &found->second;
  }
  const std::map<std::string, PlainPage, std::less<>>& pages() const { return pages_; }
  void Accepted(int fd, std::string peer);
  nghttp2_session_callbacks* callbacks() const { return callbacks_; }
  nghttp2_option* nghttp2_options() const { return nghttp2_options_; }
  const std::shared_ptr<BufferPool>& buffers() const { return buffers_; }
  bool draining() const { return draining_.load(std::memory_order_relaxed); }
  void Changed() {
    std::lock_guard lock(mutex_);
    changed_.notify_all();
  }

 private:
  Method& MethodAt(const std::string& path) {
    Method& method = methods_[path];
    method.path = path;
    return method;
  }
  absl::Status ListenTcp();
  absl::Status ListenUnix();
  void StopAccepting();
  void OnEveryLoop(const std::function<void(Shard&)>& work);

  const GrpcServerOptions options_;
  const std::vector<EventLoop*> loops_;
  std::map<std::string, Method, std::less<>> methods_;
  std::map<std::string, PlainPage, std::less<>> pages_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<std::unique_ptr<Acceptor>> acceptors_;
  nghttp2_session_callbacks* callbacks_ = nullptr;
  nghttp2_option* nghttp2_options_ = nullptr;
  std::shared_ptr<BufferPool> buffers_ = BufferPool::Create();
  std::shared_ptr<SSL_CTX> tls_;
  std::uint16_t port_ = 0;
  std::atomic<bool> draining_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
};

// ---- Call
// ----------------------------------------------------------------------------------------

Call::Call(Shard* shard) : shard(shard) {
  loop_ = shard->loop;
  response_.assign(kFramingBytes, '\0');
}

void Call::Reset(std::size_t keep_response_bytes) {
  method_ = {};
  body_ = {};
  deadline_.reset();
  cancelled_.store(false, std::memory_order_relaxed);
  metadata_.clear();
  response_metadata_.clear();
  if (response_.capacity() > keep_response_bytes) std::string().swap(response_);
  response_.assign(kFramingBytes, '\0');
  connection = nullptr;
  previous = next = nullptr;
  target = nullptr;
  stream.reset();
  header_bytes = 0;
  is_post = is_grpc = bad_path = false;
  request_compression = GrpcCompression::kIdentity;
  unknown_encoding.clear();
  prefix_bytes = message_bytes = received_bytes = pad = 0;
  shard->reserved_bytes -= std::exchange(capacity, 0);
  message_compressed = message_complete = borrowed = dropping = false;
  buffer.reset();
  buffer_data = nullptr;
  if (!inflated.empty()) std::string().swap(inflated);
  held = submitted = finished = false;
  sent_bytes = 0;
  next_finished = nullptr;
  status_ = absl::OkStatus();
}

void Call::RetainBody() {
  if (!borrowed) return;
  borrowed = false;
  buffer = shard->server->buffers()->Get(std::max<std::size_t>(body_.size(), 1));
  if (buffer == nullptr) std::abort();  // a few kilobytes are not there: nothing can go on
  std::memcpy(buffer.get(), body_.data(), body_.size());
  body_ = {buffer.get(), body_.size()};
}

std::pair<std::shared_ptr<const void>, std::string_view> Call::ShareBody() {
  RetainBody();
  if (buffer == nullptr) {  // inflated
    auto kept = std::make_shared<std::string>(std::move(inflated));
    body_ = *kept;
    return {kept, body_};
  }
  return {buffer, body_};
}

std::string Call::peer() const { return connection == nullptr ? "" : connection->peer(); }

void Call::Write(std::string_view message) {
  std::string framed(kFramingBytes, '\0');
  WriteGrpcPrefix(false, message.size(), framed.data());
  framed.append(message);
  auto send = [this, framed = std::move(framed)] {
    if (connection == nullptr) return;
    if (sent_bytes == response_.size()) {
      response_.clear();
      sent_bytes = 0;
    }
    response_.append(framed);
    connection->Submit(this);
  };
  if (loop_->InLoop()) return send();
  // The call outlives this task: its holder's Finish is posted behind it.
  loop_->Post(std::move(send));
}

void Call::Finish(const absl::Status& status) {
  if (!status.ok()) status_ = status;
  if (loop_->InLoop()) {
    shard->Ended(this);
  } else if (target->stream_factory) {
    loop_->Post([this] { shard->Ended(this); });  // behind its messages
  } else {
    shard->PushFinished(this);
  }
}

void Call::Abandon() { Finish(absl::InternalError("the server gave no answer")); }

void Shard::TakeFinished() {
  Call* list = finished.exchange(nullptr, std::memory_order_acquire);
  Call* in_order = nullptr;
  while (list != nullptr) {
    Call* call = list;
    list = call->next_finished;
    call->next_finished = in_order;
    in_order = call;
  }
  while (in_order != nullptr) {
    Call* call = in_order;
    in_order = call->next_finished;
    Ended(call);
  }
}

void Shard::Ended(Call* call) {
  call->finished = true;
  call->held = false;
  Add(in_flight, -1);
  if (call->connection == nullptr) {
    Recycle(call);
    if (server->draining()) server->Changed();
    return;
  }
  call->connection->Submit(call);
}

// ---- Connection: reading
// --------------------------------------------------------------------------

Connection::Connection(Shard* shard, int fd, std::string peer, SSL* ssl)
    : shard_(shard),
      fd_(fd),
      peer_(std::move(peer)),
      ssl_(ssl),
      handshaken_(ssl == nullptr),
      protocol_(ssl == nullptr && !shard->server->pages().empty() ? Protocol::kUnknown
                                                                  : Protocol::kHttp2) {
  opened_ = last_active_ = window_since_ = idle_frames_since_ = Clock::now();
}

Connection::~Connection() {
  shard_->loop->NotAtTurnEnd(this);
  shard_->loop->Unwatch(fd_, this);
  while (open_calls_ != nullptr) {
    Call* call = open_calls_;
    open_calls_ = call->next;
    Detach(call);
  }
  if (session_ != nullptr) nghttp2_session_del(session_);
  if (ssl_ != nullptr) SSL_free(ssl_);
  close(fd_);
  shard_->connection_count.fetch_sub(1, std::memory_order_relaxed);
  if (shard_->server->draining()) shard_->server->Changed();
}

bool Connection::Open() {
  if (nghttp2_session_server_new3(&session_, shard_->server->callbacks(), this,
                                  shard_->server->nghttp2_options(),
                                  shard_->memory.nghttp2()) != 0) {
    return false;
  }
  const nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, shard_->server->options().max_concurrent_streams},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindowBytes},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, kFrameBytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kMaxGrpcHeaderBytes},
      {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
  };
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings, std::size(settings));
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindowBytes);
  if (!shard_->loop->Watch(fd_, EPOLLIN | EPOLLRDHUP, this).ok()) return false;
  if (handshaken_) WantWrite();
  return true;
}

void Connection::Close() {
  closing_ = true;
  if (!in_receive_) shard_->connections.erase(this);  // deletes this
}

ssize_t Connection::ReadSome(char* out, std::size_t size) {
  if (ssl_ == nullptr) {
    const ssize_t n = recv(fd_, out, size, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    return n == 0 ? -1 : n;
  }
  std::size_t total = 0;
  while (total < size) {
    const int n = SSL_read(ssl_, out + total, static_cast<int>(size - total));
    if (n > 0) {
      total += n;
      continue;
    }
    const int error = SSL_get_error(ssl_, n);
    ERR_clear_error();
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) break;
    return total > 0 ? static_cast<ssize_t>(total) : -1;
  }
  return static_cast<ssize_t>(total);
}

ssize_t Connection::WriteSome(const char* data, std::size_t size) {
  if (ssl_ == nullptr) {
    const ssize_t n = send(fd_, data, size, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    return n;
  }
  const int n = SSL_write(ssl_, data, static_cast<int>(std::min<std::size_t>(size, 1 << 30)));
  if (n > 0) return n;
  const int error = SSL_get_error(ssl_, n);
  ERR_clear_error();
  return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

bool Connection::Handshake() {
  const int n = SSL_accept(ssl_);
  if (n == 1) {
    const unsigned char* protocol = nullptr;
    unsigned length = 0;
    SSL_get0_alpn_selected(ssl_, &protocol, &length);
    if (length != 2 || std::memcmp(protocol, "h2", 2) != 0) return false;
    handshaken_ = true;
    WantWrite();
    return true;
  }
  const int error = SSL_get_error(ssl_, n);
  ERR_clear_error();
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return false;
  want_out_ = error == SSL_ERROR_WANT_WRITE;
  return shard_->loop->Rewatch(fd_, EPOLLIN | EPOLLRDHUP | (want_out_ ? EPOLLOUT : 0U), this).ok();
}

void Connection::OnEvents(std::uint32_t events) {
  if (!handshaken_) {
    if (!Handshake()) return Close();
    if (!handshaken_) return;
  }
  if ((events & EPOLLOUT) != 0) WantWrite();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) == 0) return;
  bool more = false;
  do {
    const ssize_t got = ReadSome(shard_->read_buffer.get(), kReadBufferBytes);
    if (got < 0) return Close();
    if (got == 0) return;
    last_active_ = shard_->loop->now();
    window_received_ += got;
    if (protocol_ == Protocol::kUnknown) {
      const bool get = shard_->read_buffer[0] == 'G';  // HTTP/2 begins with "PRI * HTTP/2.0"
      protocol_ = get ? Protocol::kPlain : Protocol::kHttp2;
    }
    if (protocol_ == Protocol::kPlain) {
      if (!ReceivePlain({shard_->read_buffer.get(), static_cast<std::size_t>(got)})) Close();
      return;
    }
    in_receive_ = true;
    const ssize_t used = nghttp2_session_mem_recv(
        session_, reinterpret_cast<const std::uint8_t*>(shard_->read_buffer.get()), got);
    KeepBorrowed();
    in_receive_ = false;
    if (used < 0 || closing_) {
      // What nghttp2 has to say about it (GOAWAY) still goes out, if the socket takes it.
      Flush();
      return Close();
    }
    WantWrite();
    // What TLS has decrypted and not yet handed over, epoll does not report. A full buffer: where
    // much waits it is better known here than in the kernel, so that it can be refused.
    more = (ssl_ != nullptr && SSL_pending(ssl_) > 0) ||
           (static_cast<std::size_t>(got) == kReadBufferBytes &&
            Clock::now() - shard_->loop->now() < kMaxReadingOfATurn);
  } while (more);
}

bool Connection::ReceivePlain(std::string_view bytes) {
  if (self_ != nullptr || plain_answered_) return true;  // one request a connection
  plain_head_.append(bytes.substr(0, kMaxPlainGetBytes + 1 - plain_head_.size()));
  if (plain_head_.size() > kMaxPlainGetBytes) return false;
  if (plain_head_.find("\r\n\r\n") == std::string::npos) return true;
  const std::string_view line = std::string_view(plain_head_).substr(0, plain_head_.find("\r\n"));
  const std::size_t path_end = line.rfind(' ');
  if (!line.starts_with("GET /") || path_end < 5 ||
      !line.substr(path_end).starts_with(" HTTP/1.")) {
    return false;
  }
  std::string_view path = line.substr(4, path_end - 4);
  path = path.substr(0, path.find('?'));
  const auto page = shard_->server->pages().find(path);
  if (page == shard_->server->pages().end()) {
    AnswerPlain("404 Not Found", "text/plain",
                "This port speaks gRPC. Over HTTP/1.1 it answers only with its metrics.\n");
    return true;
  }
  self_ = std::make_shared<Connection*>(this);
  page->second.ask([loop = shard_->loop, self = std::weak_ptr(self_),
                    content_type = page->second.content_type](std::string body) {
    loop->Post([self, content_type, body = std::move(body)] {
      if (const auto connection = self.lock()) {
        (*connection)->AnswerPlain("200 OK", content_type, body);
      }
    });
  });
  return true;
}

void Connection::AnswerPlain(std::string_view status, std::string_view content_type,
                             std::string_view body) {
  plain_answered_ = true;
  pending_ = StrCat("HTTP/1.1 ", status, "\r\nContent-Type: ", content_type,
                    "\r\nContent-Length: ", body.size(), "\r\nConnection: close\r\n\r\n", body);
  pending_sent_ = 0;
  WantWrite();
}

int Connection::OnBeginHeaders(const nghttp2_frame* frame) {
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  Call* call = shard_->NewCall();
  call->connection = this;
  call->stream_id = frame->hd.stream_id;
  call->next = open_calls_;
  if (open_calls_ != nullptr) open_calls_->previous = call;
  open_calls_ = call;
  ++open_count_;
  nghttp2_session_set_stream_user_data(session_, frame->hd.stream_id, call);
  last_stream_ = frame->hd.stream_id;
  last_call_ = call;
  return 0;
}

int Connection::OnHeader(const nghttp2_frame* frame, std::string_view name,
                         std::string_view value) {
  Call* call = CallOf(frame->hd.stream_id);
  if (call == nullptr) return 0;
  call->header_bytes += name.size() + value.size() + 32;  // RFC 9113, section 6.5.2
  if (call->header_bytes > kMaxGrpcHeaderBytes) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  switch (name.size()) {
    case 5:
      if (name == ":path") {
        if (last_method_ != nullptr && last_method_->path == value) {
          call->target = last_method_;
        } else if (const Method* method = shard_->server->Find(value); method != nullptr) {
          call->target = last_method_ = method;
        } else {
          call->own_path = value;
        }
        return 0;
      }
      break;
    case 7:
      if (name == ":method") {
        call->is_post = value == "POST";
        return 0;
      }
      if (name == ":scheme") return 0;
      break;
    case 10:
      if (name == ":authority" || name == "user-agent") return 0;
      break;
    case 12:
      if (name == "content-type") {
        call->is_grpc = IsGrpcContentType(value);
        return 0;
      }
      if (name == "grpc-timeout") {
        if (auto timeout = ParseGrpcTimeout(value); timeout.has_value()) {
          call->SetDeadline(shard_->loop->now() + *timeout);
        }
        return 0;
      }
      break;
    case 13:
      if (name == "grpc-encoding") {
        if (auto known = ParseGrpcCompression(value); known.has_value()) {
          call->request_compression = *known;
        } else {
          call->unknown_encoding = value;
        }
        return 0;
      }
      break;
    default:
      break;
  }
  if (name.empty() || name[0] == ':' || name == "te" || name == "content-length" ||
      name.starts_with("grpc-")) {
    return 0;
  }
  std::string text(value);
  if (name.ends_with("-bin")) {
    std::string decoded;
    if (!absl::Base64Unescape(text, &decoded)) return 0;
    text = std::move(decoded);
  }
  call->mutable_metadata().emplace_back(std::string(name), std::move(text));
  return 0;
}

int Connection::OnBeginFrame(const nghttp2_frame_hd* hd) {
  switch (hd->type) {
    case NGHTTP2_DATA:
      if (hd->length > 0 || (hd->flags & NGHTTP2_FLAG_END_STREAM) != 0) return 0;
      break;
    case NGHTTP2_RST_STREAM:
    case NGHTTP2_PING:
    case NGHTTP2_SETTINGS:
    case NGHTTP2_PRIORITY:
    case NGHTTP2_CONTINUATION:
      break;
    default:
      return 0;
  }
  return CountIdleFrame() ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

bool Connection::CountIdleFrame() {
  if (shard_->loop->now() - idle_frames_since_ > std::chrono::seconds(1)) {
    idle_frames_since_ = shard_->loop->now();
    idle_frames_ = 0;
  }
  if (++idle_frames_ <= kMaxGrpcIdleFramesPerSecond) return true;
  nghttp2_session_terminate_session(session_, NGHTTP2_ENHANCE_YOUR_CALM);
  closing_ = true;
  return false;
}

int Connection::OnFrame(const nghttp2_frame* frame) {
  const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  switch (frame->hd.type) {
    case NGHTTP2_HEADERS: {
      Call* call = CallOf(frame->hd.stream_id);
      if (call == nullptr) return 0;
      if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) HeadersDone(call);
      if (end) Dispatch(call);
      return 0;
    }
    case NGHTTP2_DATA: {
      if (!end) return 0;
      if (Call* call = CallOf(frame->hd.stream_id); call != nullptr) Dispatch(call);
      return 0;
    }
    case NGHTTP2_RST_STREAM:
      reset_by_peer_ = frame->hd.stream_id;
      return 0;
    case NGHTTP2_PING:
      // Our own ping of a drain came back: no request can be on its way with a higher id.
      if (draining_ && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
        nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                              nullptr, 0);
      }
      return 0;
    default:
      return 0;
  }
}

void Connection::HeadersDone(Call* call) {
  Add(shard_->calls, 1);
  if (!call->is_post) return RefuseHttp(call, "405");
  if (!call->is_grpc) return RefuseHttp(call, "415");
  if (call->target == nullptr) {
    return Refuse(call,
                  absl::UnimplementedError(StrCat("unknown method \"", call->own_path, "\"")));
  }
  if (!call->unknown_encoding.empty()) {
    return Refuse(call, absl::UnimplementedError(StrCat("grpc-encoding \"", call->unknown_encoding,
                                                        "\" is not one of ", kGrpcAcceptEncoding)));
  }
  call->SetMethod(call->target->path);
  if (!call->target->stream_factory) return;
  call->stream = call->target->stream_factory();
  call->response_.clear();
  call->held = true;
  Add(shard_->in_flight, 1);
  call->stream->OnStart(GrpcCallPtr(call));
}

int Connection::OnData(std::int32_t stream_id, const char* data, std::size_t size) {
  if (Call* call = CallOf(stream_id); call != nullptr) Receive(call, data, size);
  return 0;
}

void Connection::Receive(Call* call, const char* data, std::size_t size) {
  while (size > 0 && !call->dropping) {
    if (call->message_complete) {
      return Refuse(call, absl::InternalError("a unary call has more than one request message"));
    }
    if (call->prefix_bytes < kFramingBytes) {
      const std::size_t n = std::min(size, kFramingBytes - call->prefix_bytes);
      std::memcpy(call->prefix + call->prefix_bytes, data, n);
      call->prefix_bytes += n;
      data += n;
      size -= n;
      if (call->prefix_bytes < kFramingBytes) return;
      if (!BeginMessage(call)) return;
      if (call->message_bytes == 0) {
        MessageDone(call);
        continue;
      }
      if (size >= call->message_bytes) {
        call->SetBody({data, call->message_bytes});
        call->borrowed = true;
        data += call->message_bytes;
        size -= call->message_bytes;
        if (!call->target->stream_factory) borrowed_.push_back(call);
        MessageDone(call);
        continue;
      }
    }
    // It comes in pieces: into a buffer of its own, laid so that its large field is aligned.
    if (size == 0) return;
    if (call->received_bytes == 0 && call->target->place && !call->message_compressed) {
      call->pad = (64 - call->target->place({data, size}) % 64) % 64;
    }
    const std::size_t n = std::min(size, call->message_bytes - call->received_bytes);
    if (call->received_bytes + n > call->capacity && !MakeRoom(call, call->received_bytes + n)) {
      return Refuse(call, absl::ResourceExhaustedError(StrCat("no memory for a message of ",
                                                              call->message_bytes, " bytes")));
    }
    std::memcpy(call->buffer_data + call->received_bytes, data, n);
    call->received_bytes += n;
    data += n;
    size -= n;
    if (call->received_bytes == call->message_bytes) {
      call->SetBody({call->buffer_data, call->message_bytes});
      MessageDone(call);
    }
  }
}

bool Connection::MakeRoom(Call* call, std::size_t bytes) {
  constexpr std::size_t kFirstBytes = 64 << 10;
  std::size_t capacity = call->message_bytes;
  shard_->reserved_bytes -= call->capacity;
  if (shard_->reserved_bytes + capacity > kMaxGrpcReservedBytes) {
    capacity = std::min(capacity, std::max({bytes, 2 * call->capacity, kFirstBytes}));
  }
  std::shared_ptr<char> larger = shard_->server->buffers()->Get(capacity + call->pad);
  if (larger != nullptr && call->received_bytes > 0) {
    std::memcpy(larger.get() + call->pad, call->buffer_data, call->received_bytes);
  }
  call->capacity = larger == nullptr ? 0 : capacity;
  shard_->reserved_bytes += call->capacity;
  call->buffer = std::move(larger);
  call->buffer_data = call->buffer == nullptr ? nullptr : call->buffer.get() + call->pad;
  return call->buffer != nullptr;
}

bool Connection::BeginMessage(Call* call) {
  if (call->prefix[0] > 1) {
    Refuse(call, absl::InternalError(StrCat("message flags ", static_cast<int>(call->prefix[0]),
                                            " are not 0 or 1")));
    return false;
  }
  call->message_compressed = call->prefix[0] == 1;
  call->message_bytes = ReadBigEndian32(call->prefix + 1);
  const std::size_t most = shard_->server->options().max_message_bytes;
  if (call->message_bytes > most) {
    Refuse(call, absl::ResourceExhaustedError(StrCat("Received message larger than max (",
                                                     call->message_bytes, " vs. ", most, ")")));
    return false;
  }
  if (call->message_compressed && call->request_compression == GrpcCompression::kIdentity) {
    Refuse(call, absl::InternalError("a compressed message without grpc-encoding"));
    return false;
  }
  return true;
}

absl::StatusOr<std::string_view> Connection::Plain(Call* call, std::string_view message) {
  if (!call->message_compressed) return message;
  TAKT_ASSIGN_OR_RETURN(call->inflated, GrpcInflate(call->request_compression, message,
                                                    shard_->server->options().max_message_bytes,
                                                    kMaxGrpcInflationRatio));
  return call->inflated;
}

void Connection::MessageDone(Call* call) {
  call->message_complete = true;
  shard_->reserved_bytes -= std::exchange(call->capacity, 0);
  if (!call->target->stream_factory) return;
  absl::StatusOr<std::string_view> message = Plain(call, call->body());
  if (message.ok() && call->stream != nullptr && call->held) call->stream->OnMessage(*message);
  if (!message.ok()) Refuse(call, message.status());
  call->message_complete = call->borrowed = false;
  call->prefix_bytes = call->received_bytes = call->pad = 0;
  call->SetBody({});
  call->buffer.reset();
}

void Connection::Dispatch(Call* call) {
  if (call->dropping) return;
  if (call->target->stream_factory) {
    if (call->held) call->stream->OnHalfClose();
    return;
  }
  if (!call->message_complete) {
    const std::size_t got = call->prefix_bytes < kFramingBytes
                                ? call->prefix_bytes
                                : kFramingBytes + call->received_bytes;
    if (got == 0) return Refuse(call, absl::InternalError("the request has no message"));
    return Refuse(call, absl::InternalError(
                            StrCat("the request ends within its message, after ", got, " bytes")));
  }
  if (call->message_compressed) {
    absl::StatusOr<std::string_view> plain = Plain(call, call->body());
    if (!plain.ok()) return Refuse(call, plain.status());
    call->SetBody(*plain);
    call->borrowed = false;
    call->buffer.reset();
  }
  if (call->expired(shard_->loop->now())) {
    return Refuse(call, absl::DeadlineExceededError("Deadline Exceeded"));
  }
  call->dropping = true;  // whatever comes behind the end of the stream
  call->held = true;
  Add(shard_->in_flight, 1);
  call->target->handler(GrpcCallPtr(call));
  // The call may be answered, recycled or on another thread by now.
}

void Connection::KeepBorrowed() {
  for (Call* call : borrowed_) {
    // Calls that were dispatched have had their chance (RetainBody); those that were recycled are
    // like new.
    if (call->connection == this && call->borrowed && !call->dropping) call->RetainBody();
  }
  borrowed_.clear();
}

void Connection::Refuse(Call* call, absl::Status status) {
  call->dropping = true;
  if (call->held) {  // a streamed call: its holder learns by OnCancel
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_INTERNAL_ERROR);
    return WantWrite();
  }
  call->status_ = std::move(status);
  call->finished = true;
  Submit(call);
}

void Connection::RefuseHttp(Call* call, const char* status) {
  call->dropping = call->finished = call->submitted = true;
  const nghttp2_nv headers[] = {MakeNv(":status", status)};
  nghttp2_submit_response(session_, call->stream_id, headers, 1, nullptr);
  WantWrite();
}

bool Connection::OnStreamClose(std::int32_t stream_id, std::uint32_t error) {
  // A peer can also make us reset its streams, by frames that break a rule: as rapid as its own
  // resets, which were counted when they came.
  const bool counts = error != NGHTTP2_NO_ERROR && stream_id != reset_by_peer_;
  Call* call = CallOf(stream_id);
  last_stream_ = -1;
  if (call == nullptr) return !counts || CountIdleFrame();
  (call->previous != nullptr ? call->previous->next : open_calls_) = call->next;
  if (call->next != nullptr) call->next->previous = call->previous;
  --open_count_;
  Detach(call);
  return !counts || CountIdleFrame();
}

void Connection::Detach(Call* call) {
  call->connection = nullptr;
  if (!call->held) return shard_->Recycle(call);
  call->SetCancelled();
  // The stream lets go of the call here or later; then the call is recycled, so it is not the call
  // that owns the stream now.
  std::unique_ptr<GrpcStream> stream = std::move(call->stream);
  if (stream != nullptr) stream->OnCancel();
}

// ---- Connection: writing
// --------------------------------------------------------------------------

ssize_t ReadAnswerOf(nghttp2_session*, std::int32_t, std::uint8_t* out, std::size_t size,
                     std::uint32_t* flags, nghttp2_data_source* source, void* user_data) {
  return static_cast<Connection*>(user_data)->ReadAnswer(static_cast<Call*>(source->ptr), out, size,
                                                         flags);
}

void Connection::Submit(Call* call) {
  WantWrite();
  if (call->submitted) {
    nghttp2_session_resume_data(session_, call->stream_id);
    return;
  }
  call->submitted = true;
  std::string& response = call->response_;
  const bool unary = call->target == nullptr || !call->target->stream_factory;
  const bool has_message = unary ? call->status_.ok() : !response.empty();
  const bool plain = call->response_metadata().empty();

  if (has_message && plain && unary &&
      (call->request_compression == GrpcCompression::kIdentity ||
       response.size() < kMinCompressedBytes)) {
    // The usual answer.
    WriteGrpcPrefix(false, response.size() - kFramingBytes, response.data());
    static const nghttp2_nv kHeaders[] = {MakeNv(":status", "200"),
                                          MakeNv("content-type", "application/grpc")};
    nghttp2_data_provider provider;
    provider.source.ptr = call;
    provider.read_callback = ReadAnswerOf;
    nghttp2_submit_response(session_, call->stream_id, kHeaders, std::size(kHeaders), &provider);
    return;
  }

  if (!has_message && call->finished && plain) {
    // Refusing has to be cheap: nothing is allocated here but a text that has to be encoded.
    const std::string_view message = ToStd(call->status_.message());
    std::string encoded;
    if (message.size() > kMaxGrpcMessageText || !IsPlainGrpcMessage(message)) {
      encoded = PercentEncode(CutMessage(message, kMaxGrpcMessageText));
    }
    const nghttp2_nv headers[] = {
        MakeNv(":status", "200"), MakeNv("content-type", "application/grpc"),
        MakeNv("grpc-accept-encoding", kGrpcAcceptEncoding),
        MakeNv("grpc-status", GrpcStatusText(call->status_.code())),
        CopyNv("grpc-message", encoded.empty() ? message : std::string_view(encoded))};
    const std::size_t count = std::size(headers) - (message.empty() ? 1 : 0);
    nghttp2_submit_response(session_, call->stream_id, headers, count, nullptr);
    return;
  }

  std::vector<nghttp2_nv> headers = {MakeNv(":status", "200"),
                                     MakeNv("content-type", "application/grpc"),
                                     MakeNv("grpc-accept-encoding", kGrpcAcceptEncoding)};
  for (auto& [name, value] : call->response_metadata()) {
    if (name.ends_with("-bin")) value = absl::Base64Escape(value);
    headers.push_back(CopyNv(name, value));
  }
  if (!has_message && call->finished) {
    const std::string code = std::to_string(GrpcStatusFor(call->status_.code()));
    const std::string text =
        PercentEncode(CutMessage(ToStd(call->status_.message()), kMaxGrpcMessageText));
    headers.push_back(CopyNv("grpc-status", code));
    if (!text.empty()) headers.push_back(CopyNv("grpc-message", text));
    nghttp2_submit_response(session_, call->stream_id, headers.data(), headers.size(), nullptr);
    return;
  }
  if (unary) {
    bool compressed = false;
    if (call->request_compression != GrpcCompression::kIdentity &&
        response.size() >= kMinCompressedBytes) {
      if (auto packed = GrpcDeflate(call->request_compression,
                                    std::string_view(response).substr(kFramingBytes));
          packed.ok() && packed->size() + kFramingBytes < response.size()) {
        response.resize(kFramingBytes);
        response.append(*packed);
        compressed = true;
        headers.push_back(CopyNv("grpc-encoding", GrpcCompressionName(call->request_compression)));
      }
    }
    WriteGrpcPrefix(compressed, response.size() - kFramingBytes, response.data());
  }
  nghttp2_data_provider provider;
  provider.source.ptr = call;
  provider.read_callback = ReadAnswerOf;
  nghttp2_submit_response(session_, call->stream_id, headers.data(), headers.size(), &provider);
}

ssize_t Connection::ReadAnswer(Call* call, std::uint8_t* out, std::size_t size,
                               std::uint32_t* flags) {
  const std::size_t left = call->response_.size() - call->sent_bytes;
  const std::size_t n = std::min(left, size);
  if (n == 0 && !call->finished) return NGHTTP2_ERR_DEFERRED;
  std::memcpy(out, call->response_.data() + call->sent_bytes, n);
  call->sent_bytes += n;
  if (n == left && call->finished) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    if (call->status_.ok()) {
      static const nghttp2_nv kOk[] = {MakeNv("grpc-status", "0")};
      nghttp2_submit_trailer(session_, call->stream_id, kOk, 1);
    } else {
      const std::string code = std::to_string(GrpcStatusFor(call->status_.code()));
      const std::string text =
          PercentEncode(CutMessage(ToStd(call->status_.message()), kMaxGrpcMessageText));
      const nghttp2_nv trailers[] = {CopyNv("grpc-status", code), CopyNv("grpc-message", text)};
      nghttp2_submit_trailer(session_, call->stream_id, trailers, text.empty() ? 1 : 2);
    }
  }
  return static_cast<ssize_t>(n);
}

bool Connection::Flush() {
  thread_local std::string gathered;
  bool more = true;
  while (more) {
    if (pending_.empty()) {
      gathered.clear();
      while (gathered.size() < kWriteChunkBytes) {
        const std::uint8_t* data = nullptr;
        const ssize_t n = nghttp2_session_mem_send(session_, &data);
        if (n < 0) return false;
        if (n == 0) {
          more = false;
          break;
        }
        gathered.append(reinterpret_cast<const char*>(data), n);
      }
      if (gathered.empty()) break;
      std::size_t sent = 0;
      while (sent < gathered.size()) {
        const ssize_t n = WriteSome(gathered.data() + sent, gathered.size() - sent);
        if (n < 0) return false;
        if (n == 0) break;
        sent += n;
      }
      window_sent_ += sent;
      if (sent < gathered.size()) {
        pending_.assign(gathered, sent);
        pending_sent_ = 0;
        break;
      }
    } else {
      const ssize_t n = WriteSome(pending_.data() + pending_sent_, pending_.size() - pending_sent_);
      if (n < 0) return false;
      if (n == 0) break;
      pending_sent_ += n;
      window_sent_ += n;
      if (pending_sent_ == pending_.size()) pending_.clear();
    }
    if (protocol_ == Protocol::kPlain && pending_.empty()) break;
  }
  return true;
}

void Connection::OnTurnEnd() {
  if (!handshaken_ || protocol_ == Protocol::kUnknown) return;
  if (protocol_ == Protocol::kPlain && !plain_answered_) return;
  if (!Flush()) return Close();
  const bool want_out = !pending_.empty();
  if (want_out != want_out_) {
    want_out_ = want_out;
    if (!shard_->loop->Rewatch(fd_, EPOLLIN | EPOLLRDHUP | (want_out ? EPOLLOUT : 0U), this).ok()) {
      return Close();
    }
  }
  if (want_out) return;
  if (protocol_ == Protocol::kPlain) return Close();
  if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0) {
    return Close();
  }
}

void Connection::StartDrain() {
  if (draining_) return;
  draining_ = true;
  drain_since_ = shard_->loop->now();
  if (!handshaken_ || protocol_ != Protocol::kHttp2) return Close();
  nghttp2_submit_shutdown_notice(session_);
  nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
  WantWrite();
}

bool Connection::IsAlive(Clock::time_point now) {
  const GrpcServerOptions& options = shard_->server->options();
  if (!handshaken_ || (window_received_ == 0 && window_sent_ == 0)) {
    if (last_active_ == opened_ && now - opened_ > options.handshake_timeout) return false;
  }
  if (protocol_ == Protocol::kPlain && now - opened_ > options.handshake_timeout) return false;
  if (options.idle_timeout.count() > 0 && open_count_ == 0 && !draining_ &&
      now - last_active_ > options.idle_timeout) {
    StartDrain();
  }
  if (now - window_since_ < options.slow_peer_timeout) return true;
  const Clock::time_point since = std::exchange(window_since_, now);
  const std::size_t received = std::exchange(window_received_, 0);
  const std::size_t sent = std::exchange(window_sent_, 0);
  if (!pending_.empty() && sent == 0) return false;  // reads nothing of what waits for it
  if (draining_ && open_count_ == 0 && drain_since_ < since) return false;
  if (received >= kMinSlowPeerBytes) return true;
  for (Call* call = open_calls_; call != nullptr; call = call->next) {
    if (call->held) continue;
    if (opened_ <= since) return false;  // half a request, and hardly a byte for a whole window
  }
  return true;
}

// ---- nghttp2's callbacks, and the server
// ----------------------------------------------------------

nghttp2_session_callbacks* MakeCallbacks() {
  nghttp2_session_callbacks* callbacks = nullptr;
  if (nghttp2_session_callbacks_new(&callbacks) != 0) return nullptr;
  nghttp2_session_callbacks_set_on_begin_headers_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* connection) {
        return static_cast<Connection*>(connection)->OnBeginHeaders(frame);
      });
  nghttp2_session_callbacks_set_on_header_callback(
      callbacks,
      [](nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t n,
         const std::uint8_t* value, std::size_t v, std::uint8_t, void* connection) {
        return static_cast<Connection*>(connection)
            ->OnHeader(frame, {reinterpret_cast<const char*>(name), n},
                       {reinterpret_cast<const char*>(value), v});
      });
  nghttp2_session_callbacks_set_on_begin_frame_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame_hd* hd, void* connection) {
        return static_cast<Connection*>(connection)->OnBeginFrame(hd);
      });
  nghttp2_session_callbacks_set_on_frame_recv_callback(
      callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* connection) {
        return static_cast<Connection*>(connection)->OnFrame(frame);
      });
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
      callbacks, [](nghttp2_session*, std::uint8_t, std::int32_t stream_id,
                    const std::uint8_t* data, std::size_t size, void* connection) {
        return static_cast<Connection*>(connection)
            ->OnData(stream_id, reinterpret_cast<const char*>(data), size);
      });
  nghttp2_session_callbacks_set_on_stream_close_callback(
      callbacks,
      [](nghttp2_session*, std::int32_t stream_id, std::uint32_t error, void* connection) -> int {
        return static_cast<Connection*>(connection)->OnStreamClose(stream_id, error)
                   ? 0
                   : NGHTTP2_ERR_CALLBACK_FAILURE;
      });
  return callbacks;
}

void Acceptor::OnEvents(std::uint32_t) {
  for (int i = 0; i < 64; ++i) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    const int fd =
        accept4(fd_, reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    std::string peer = "unix:";
    if (!unix_) {
      SetForCalls(fd, reinterpret_cast<sockaddr*>(&address));
      char host[NI_MAXHOST];
      char service[NI_MAXSERV];
      if (getnameinfo(reinterpret_cast<sockaddr*>(&address), length, host, sizeof host, service,
                      sizeof service, NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        const bool v6 = std::strchr(host, ':') != nullptr;
        peer = v6 ? StrCat("[", host, "]:", service) : StrCat(host, ":", service);
      }
    }
    server_->Accepted(fd, std::move(peer));
  }
}

Server::Server(GrpcServerOptions options, std::vector<EventLoop*> loops)
    : options_(std::move(options)), loops_(std::move(loops)) {
  for (EventLoop* loop : loops_) shards_.push_back(std::make_unique<Shard>(this, loop));
}

void Server::OnEveryLoop(const std::function<void(Shard&)>& work) {
  std::atomic<std::size_t> left = shards_.size();
  for (auto& shard : shards_) {
    shard->loop->Post([&, shard = shard.get()] {
      work(*shard);
      // Under the lock, or this frame may be gone before the notification.
      std::lock_guard lock(mutex_);
      --left;
      changed_.notify_all();
    });
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return left == 0; });
}

Server::~Server() {
  draining_ = true;
  StopAccepting();
  OnEveryLoop([](Shard& shard) {
    shard.loop->Cancel(shard.sweep_timer);
    shard.connections.clear();
  });
  // Whoever still holds a call lets go of it first.
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stats().calls_in_flight == 0; });
  lock.unlock();
  OnEveryLoop([](Shard&) {});
  if (callbacks_ != nullptr) nghttp2_session_callbacks_del(callbacks_);
  if (nghttp2_options_ != nullptr) nghttp2_option_del(nghttp2_options_);
}

absl::Status Server::Start() {
  callbacks_ = MakeCallbacks();
  if (callbacks_ == nullptr || nghttp2_option_new(&nghttp2_options_) != 0) {
    return absl::ResourceExhaustedError("no memory for nghttp2");
  }
  nghttp2_option_set_no_closed_streams(nghttp2_options_, 1);
  // Not the library's own limit of 33 resets a second: clients whose deadlines pass reset, too.
  // Ours counts resets among the frames that only make work.
  nghttp2_option_set_stream_reset_rate_limit(nghttp2_options_,
                                             std::uint64_t{2} * kMaxGrpcIdleFramesPerSecond,
                                             std::uint64_t{2} * kMaxGrpcIdleFramesPerSecond);
  if (options_.tls.has_value()) {
    TAKT_ASSIGN_OR_RETURN(tls_, MakeTlsServerContext(*options_.tls, {"h2"}));
  }
  if (options_.port >= 0) TAKT_RETURN_IF_ERROR(ListenTcp());
  if (!options_.unix_socket_path.empty()) TAKT_RETURN_IF_ERROR(ListenUnix());
  EventLoop* loop = shards_.front()->loop;
  for (auto& acceptor : acceptors_) {
    loop->Post([loop, acceptor = acceptor.get()] {
      // Cannot fail but for want of kernel memory; then nothing is ever accepted, which is seen.
      [[maybe_unused]] absl::Status status = loop->Watch(acceptor->fd(), EPOLLIN, acceptor);
    });
  }
  return absl::OkStatus();
}

absl::Status Server::ListenTcp() {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port_text = std::to_string(options_.port);
  if (getaddrinfo(options_.host.empty() ? nullptr : options_.host.c_str(), port_text.c_str(),
                  &hints, &found) != 0) {
    return absl::UnavailableError(StrCat("host \"", options_.host, "\" has no address"));
  }
  std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found, freeaddrinfo);
  const int fd =
      socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, found->ai_protocol);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1024) != 0) {
    const int error = errno;
    close(fd);
    if (error == EADDRINUSE) {
      return absl::UnavailableError(StrCat("port ", port_text, " is in use"));
    }
    return absl::UnavailableError(
        StrCat("listen on ", options_.host, ":", port_text, ": ", std::strerror(error)));
  }
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  port_ = ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                              : reinterpret_cast<sockaddr_in&>(address).sin_port);
  acceptors_.push_back(std::make_unique<Acceptor>(this, fd, false));
  return absl::OkStatus();
}

absl::Status Server::ListenUnix() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string& path = options_.unix_socket_path;
  if (path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(StrCat("socket path \"", path, "\" has ", path.size(),
                                             " bytes; at most ", sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  // A socket that a dead server left behind is replaced; one that answers is not.
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool alive =
      probe >= 0 && connect(probe, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  if (probe >= 0) close(probe);
  if (!alive) unlink(path.c_str());
  if (alive || bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd, 1024) != 0) {
    const int error = alive ? EADDRINUSE : errno;
    close(fd);
    return absl::UnavailableError(StrCat("socket ", path, ": ", std::strerror(error)));
  }
  acceptors_.push_back(std::make_unique<Acceptor>(this, fd, true));
  return absl::OkStatus();
}

void Server::Accepted(int fd, std::string peer) {
  std::uint64_t total = 0;
  Shard* chosen = shards_.front().get();
  for (auto& shard : shards_) {
    const std::uint64_t count = shard->connection_count.load(std::memory_order_relaxed);
    total += count;
    if (count < chosen->connection_count.load(std::memory_order_relaxed)) chosen = shard.get();
  }
  if (draining() || total >= options_.max_connections) {
    close(fd);
    return;
  }
  SSL* ssl = nullptr;
  if (tls_ != nullptr) {
    ssl = SSL_new(tls_.get());
    if (ssl == nullptr) {
      close(fd);
      return;
    }
    SSL_set_fd(ssl, fd);
  }
  // Counted here, so that a burst of connections spreads over the loops.
  chosen->connection_count.fetch_add(1, std::memory_order_relaxed);
  auto adopt = [chosen, fd, ssl, peer = std::move(peer)] {
    auto connection = std::make_unique<Connection>(chosen, fd, peer, ssl);
    Connection* key = connection.get();
    if (!connection->Open() || chosen->server->draining()) return;
    chosen->connections.emplace(key, std::move(connection));
    if (!chosen->sweeping) {
      chosen->sweeping = true;
      chosen->sweep_timer =
          chosen->loop->After(std::chrono::seconds(1), [chosen] { chosen->Sweep(); });
    }
  };
  if (chosen->loop->InLoop()) {
    adopt();
  } else {
    chosen->loop->Post(std::move(adopt));
  }
}

void Shard::Sweep() {
  const Clock::time_point now = loop->now();
  std::vector<Connection*> dead;
  for (auto& [connection, owned] : connections) {
    if (!connection->IsAlive(now)) dead.push_back(connection);
  }
  for (Connection* connection : dead) connection->Close();
  sweeping = !connections.empty();
  if (sweeping) sweep_timer = loop->After(std::chrono::seconds(1), [this] { Sweep(); });
}

GrpcServerStats Server::stats() const {
  GrpcServerStats stats;
  for (auto& shard : shards_) {
    stats.connections += shard->connection_count.load(std::memory_order_relaxed);
    stats.calls += shard->calls.load(std::memory_order_relaxed);
    stats.calls_in_flight += shard->in_flight.load(std::memory_order_relaxed);
  }
  return stats;
}

void Server::StopAccepting() {
  if (acceptors_.empty()) return;
  OnEveryLoop([this](Shard& shard) {
    if (&shard != shards_.front().get()) return;
    for (auto& acceptor : acceptors_) shard.loop->Unwatch(acceptor->fd(), acceptor.get());
    acceptors_.clear();
  });
  if (!options_.unix_socket_path.empty()) unlink(options_.unix_socket_path.c_str());
}

std::uint64_t Server::Drain(std::chrono::milliseconds limit) {
  const Clock::time_point end = Clock::now() + limit;
  draining_ = true;
  StopAccepting();
  OnEveryLoop([](Shard& shard) {
    std::vector<Connection*> all;
    for (auto& [connection, owned] : shard.connections) all.push_back(connection);
    for (Connection* connection : all) connection->StartDrain();
  });
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, end, [&] { return stats().connections == 0; });
  lock.unlock();
  const std::uint64_t cut = stats().calls_in_flight;
  OnEveryLoop([](Shard& shard) { shard.connections.clear(); });
  return cut;
}

}  // namespace

std::unique_ptr<GrpcServer> GrpcServer::Create(GrpcServerOptions options,
                                               std::vector<EventLoop*> loops) {
  return std::make_unique<Server>(std::move(options), std::move(loops));
}

}  // namespace takt::net
