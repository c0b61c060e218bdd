#include "net/grpc_connection.h"

#include <openssl/err.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/escaping.h"

namespace takt::net {
namespace {

// As long as a turn has not taken longer, a connection that has more than a buffer is read again.
constexpr std::chrono::milliseconds kMaxReadingOfATurn{2};
// A peer in the middle of a request must send at least this much in slow_peer_timeout.
constexpr std::size_t kMinSlowPeerBytes = 4096;

GrpcServerCall* CallOf(Http2Stream& stream) { return &static_cast<GrpcServerCall&>(stream); }

}  // namespace

GrpcServerConnection::GrpcServerConnection(GrpcShard* shard, int fd, std::string peer, SSL* ssl)
    : shard_(shard),
      fd_(fd),
      peer_(std::move(peer)),
      ssl_(ssl),
      session_({shard->core->options.max_concurrent_streams, kMaxGrpcHeaderBytes,
                kMaxGrpcIdleFramesPerSecond},
               *this, shard->outputs, AnswerFields()),
      handshaken_(ssl == nullptr),
      protocol_(!shard->core->pages.empty() ? Protocol::kUnknown : Protocol::kHttp2) {
  opened_ = last_active_ = window_since_ = Clock::now();
}

GrpcServerConnection::~GrpcServerConnection() {
  shard_->loop->NotAtTurnEnd(this);
  shard_->loop->Unwatch(fd_, this);
  session_.ForEachStream([this](Http2Stream& stream) { Detach(CallOf(stream)); });
  if (ssl_ != nullptr) SSL_free(ssl_);
  close(fd_);
  shard_->connection_count.fetch_sub(1, std::memory_order_relaxed);
  if (shard_->core->draining) shard_->core->Changed();
}

bool GrpcServerConnection::Open() {
  if (!shard_->loop->Watch(fd_, EPOLLIN | EPOLLRDHUP, this).ok()) return false;
  if (handshaken_) WantWrite();
  return true;
}

void GrpcServerConnection::Close() {
  closing_ = true;
  if (!in_receive_) shard_->connections.erase(this);  // deletes this
}

// ---- The socket
// ----------------------------------------------------------------------------------

ssize_t GrpcServerConnection::ReadSome(char* out, std::size_t size) {
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

ssize_t GrpcServerConnection::WriteSome(std::string_view data) {
  if (ssl_ == nullptr) {
    const ssize_t n = send(fd_, data.data(), data.size(), MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    return n;
  }
  const int n =
      SSL_write(ssl_, data.data(), static_cast<int>(std::min<std::size_t>(data.size(), 1 << 30)));
  if (n > 0) return n;
  const int error = SSL_get_error(ssl_, n);
  ERR_clear_error();
  return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

bool GrpcServerConnection::Handshake() {
  const int n = SSL_accept(ssl_);
  if (n == 1) {
    const unsigned char* protocol = nullptr;
    unsigned length = 0;
    SSL_get0_alpn_selected(ssl_, &protocol, &length);
    const std::string_view chosen(reinterpret_cast<const char*>(protocol), length);
    if (chosen == "h2") {
      protocol_ = Protocol::kHttp2;
    } else if (protocol_ == Protocol::kUnknown && (chosen.empty() || chosen == "http/1.1")) {
      protocol_ = Protocol::kPlain;
    } else {
      return false;
    }
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

void GrpcServerConnection::OnEvents(std::uint32_t events) {
  if (!handshaken_) {
    if (!Handshake()) return Close();
    if (!handshaken_) return;
  }
  if ((events & EPOLLOUT) != 0) WantWrite();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) == 0) return;
  bool more = false;
  do {
    const ssize_t got = ReadSome(shard_->read_buffer.get(), kGrpcReadBufferBytes);
    if (got < 0) return Close();
    if (got == 0) return;
    last_active_ = shard_->loop->now();
    window_received_ += got;
    const std::string_view bytes(shard_->read_buffer.get(), static_cast<std::size_t>(got));
    if (protocol_ == Protocol::kUnknown) {
      // HTTP/2 begins with "PRI * HTTP/2.0".
      protocol_ = bytes[0] == 'G' ? Protocol::kPlain : Protocol::kHttp2;
    }
    if (protocol_ == Protocol::kPlain) {
      if (!ReceivePlain(bytes)) Close();
      return;
    }
    in_receive_ = true;
    const bool open = session_.Receive(bytes, last_active_);
    KeepBorrowed();
    in_receive_ = false;
    if (!open || closing_) {
      // What the session has to say about it (GOAWAY) still goes out, if the socket takes it.
      Flush();
      return Close();
    }
    WantWrite();
    // What TLS has decrypted and not yet handed over, epoll does not report. A full buffer: where
    // much waits it is better known here than in the kernel, so that it can be refused.
    more = (ssl_ != nullptr && SSL_pending(ssl_) > 0) ||
           (bytes.size() == kGrpcReadBufferBytes &&
            Clock::now() - shard_->loop->now() < kMaxReadingOfATurn);
  } while (more);
}

std::string_view GrpcServerConnection::Unsent() const {
  return protocol_ == Protocol::kPlain ? std::string_view(plain_answer_).substr(plain_sent_)
                                       : session_.Output();
}

bool GrpcServerConnection::Flush() {
  while (true) {
    session_.Fill();
    const std::string_view output = Unsent();
    if (output.empty()) return true;
    const ssize_t n = WriteSome(output);
    if (n < 0) return false;
    if (n == 0) return true;
    window_sent_ += n;
    if (protocol_ == Protocol::kPlain) {
      plain_sent_ += n;
    } else {
      session_.Sent(n);
    }
  }
}

void GrpcServerConnection::OnTurnEnd() {
  if (!handshaken_ || protocol_ == Protocol::kUnknown) return;
  if (protocol_ == Protocol::kPlain && !plain_answered_) return;
  if (!Flush()) return Close();
  const bool want_out = !Unsent().empty();
  if (want_out != want_out_) {
    want_out_ = want_out;
    if (!shard_->loop->Rewatch(fd_, EPOLLIN | EPOLLRDHUP | (want_out ? EPOLLOUT : 0U), this).ok()) {
      return Close();
    }
  }
  if (want_out) return;
  if (protocol_ == Protocol::kPlain || session_.finished()) Close();
}

void GrpcServerConnection::StartDrain() {
  if (draining_) return;
  draining_ = true;
  drain_since_ = shard_->loop->now();
  if (!handshaken_ || protocol_ != Protocol::kHttp2) return Close();
  session_.StartDrain();
  WantWrite();
}

bool GrpcServerConnection::IsAlive(Clock::time_point now) {
  const GrpcServerOptions& options = shard_->core->options;
  if (!handshaken_ || (window_received_ == 0 && window_sent_ == 0)) {
    if (last_active_ == opened_ && now - opened_ > options.handshake_timeout) return false;
  }
  if (protocol_ == Protocol::kPlain && now - opened_ > options.handshake_timeout) return false;
  if (options.idle_timeout.count() > 0 && session_.stream_count() == 0 && !draining_ &&
      now - last_active_ > options.idle_timeout) {
    StartDrain();
  }
  if (now - window_since_ < options.slow_peer_timeout) return true;
  const Clock::time_point since = std::exchange(window_since_, now);
  const std::size_t received = std::exchange(window_received_, 0);
  const std::size_t sent = std::exchange(window_sent_, 0);
  if (!Unsent().empty() && sent == 0) return false;  // reads nothing of what waits for it
  if (draining_ && session_.stream_count() == 0 && drain_since_ < since) return false;
  if (received >= kMinSlowPeerBytes || opened_ > since) return true;
  // Half a request, and hardly a byte for a whole window.
  bool half = false;
  session_.ForEachStream([&](Http2Stream& stream) { half = half || !CallOf(stream)->held; });
  return !half;
}

// ---- Plain HTTP/1.1
// ------------------------------------------------------------------------------

bool GrpcServerConnection::ReceivePlain(std::string_view bytes) {
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
  const auto page = shard_->core->pages.find(path);
  if (page == shard_->core->pages.end()) {
    AnswerPlain("404 Not Found", "text/plain",
                "This port speaks gRPC. Over HTTP/1.1 it answers only with its metrics.\n");
    return true;
  }
  self_ = std::make_shared<GrpcServerConnection*>(this);
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

void GrpcServerConnection::AnswerPlain(std::string_view status, std::string_view content_type,
                                       std::string_view body) {
  plain_answered_ = true;
  plain_answer_ =
      StrCat("HTTP/1.1 ", status, "\r\nContent-Type: ", content_type,
             "\r\nContent-Length: ", body.size(), "\r\nConnection: close\r\n\r\n", body);
  plain_sent_ = 0;
  WantWrite();
}

// ---- Requests
// ------------------------------------------------------------------------------------

Http2Stream& GrpcServerConnection::OnRequest() {
  GrpcServerCall* call = shard_->NewCall();
  call->connection = this;
  return *call;
}

void GrpcServerConnection::OnHeader(Http2Stream& stream, const HeaderField& field) {
  GrpcServerCall* call = CallOf(stream);
  const std::string_view value = field.value;
  switch (field.kind) {
    case HeaderKind::kPath:
      if (last_method_ != nullptr && last_method_->path == value) {
        call->target = last_method_;
      } else if (const GrpcMethod* method = shard_->core->Find(value); method != nullptr) {
        call->target = last_method_ = method;
      } else {
        call->own_path = value;
      }
      return;
    case HeaderKind::kMethod:
      call->is_post = value == "POST";
      return;
    case HeaderKind::kContentType:
      call->is_grpc = IsGrpcContentType(value);
      return;
    case HeaderKind::kGrpcTimeout:
      call->timeout = ParseGrpcTimeout(value);
      return;
    case HeaderKind::kGrpcEncoding:
      if (auto known = ParseGrpcCompression(value); known.has_value()) {
        call->request_compression = *known;
      } else {
        call->unknown_encoding = value;
      }
      return;
    case HeaderKind::kMetadata:
      return AddMetadata(call, field.name, value);
    default:
      return;
  }
}

void GrpcServerConnection::AddMetadata(GrpcServerCall* call, std::string_view name,
                                       std::string_view value) {
  // What surrounds a value is no part of it (RFC 9110, section 5.5).
  while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
  while (value.ends_with(' ') || value.ends_with('\t')) value.remove_suffix(1);
  std::string text(value);
  if (name.ends_with("-bin")) {
    std::string decoded;
    if (!absl::Base64Unescape(text, &decoded)) return;
    text = std::move(decoded);
  }
  call->mutable_metadata().emplace_back(std::string(name), std::move(text));
}

bool GrpcServerConnection::KeepHead(Http2Stream& stream, std::size_t slot) {
  GrpcServerCall* call = CallOf(stream);
  if (!call->is_post || !call->is_grpc || call->target == nullptr || !call->metadata().empty() ||
      !call->unknown_encoding.empty()) {
    return false;
  }
  heads_[slot] = {call->target, call->request_compression, call->timeout};
  return true;
}

void GrpcServerConnection::OnSameHead(Http2Stream& stream, std::size_t slot) {
  GrpcServerCall* call = CallOf(stream);
  const Head& head = heads_[slot];
  call->is_post = call->is_grpc = true;
  call->target = head.target;
  call->request_compression = head.compression;
  call->timeout = head.timeout;
}

void GrpcServerConnection::OnHeaders(Http2Stream& stream) {
  GrpcServerCall* call = CallOf(stream);
  Add(shard_->calls, 1);
  if (call->timeout.has_value()) call->SetDeadline(shard_->loop->now() + *call->timeout);
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
  if (!call->is_streamed()) return;
  call->stream = call->target->stream_factory();
  call->response().clear();
  call->held = true;
  Add(shard_->in_flight, 1);
  call->stream->OnStart(GrpcCallPtr(call));
}

void GrpcServerConnection::OnData(Http2Stream& stream, std::string_view bytes) {
  GrpcServerCall* call = CallOf(stream);
  const char* data = bytes.data();
  std::size_t size = bytes.size();
  while (size > 0 && !call->dropping) {
    if (call->message_complete) {
      return Refuse(call, absl::InternalError("a unary call has more than one request message"));
    }
    if (call->prefix_bytes < kGrpcFramingBytes) {
      const std::size_t n = std::min(size, kGrpcFramingBytes - call->prefix_bytes);
      std::memcpy(call->prefix + call->prefix_bytes, data, n);
      call->prefix_bytes += n;
      data += n;
      size -= n;
      if (call->prefix_bytes < kGrpcFramingBytes) return;
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
        if (!call->is_streamed()) borrowed_.push_back(call);
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

bool GrpcServerConnection::MakeRoom(GrpcServerCall* call, std::size_t bytes) {
  constexpr std::size_t kFirstBytes = 64 << 10;
  std::size_t capacity = call->message_bytes;
  shard_->reserved_bytes -= call->capacity;
  if (shard_->reserved_bytes + capacity > kMaxGrpcReservedBytes) {
    capacity = std::min(capacity, std::max({bytes, 2 * call->capacity, kFirstBytes}));
  }
  std::shared_ptr<char> larger = shard_->core->buffers->Get(capacity + call->pad);
  if (larger != nullptr && call->received_bytes > 0) {
    std::memcpy(larger.get() + call->pad, call->buffer_data, call->received_bytes);
  }
  call->capacity = larger == nullptr ? 0 : capacity;
  shard_->reserved_bytes += call->capacity;
  call->buffer = std::move(larger);
  call->buffer_data = call->buffer == nullptr ? nullptr : call->buffer.get() + call->pad;
  return call->buffer != nullptr;
}

bool GrpcServerConnection::BeginMessage(GrpcServerCall* call) {
  if (call->prefix[0] > 1) {
    Refuse(call, absl::InternalError(StrCat("message flags ", static_cast<int>(call->prefix[0]),
                                            " are not 0 or 1")));
    return false;
  }
  call->message_compressed = call->prefix[0] == 1;
  call->message_bytes = ReadBigEndian32(call->prefix + 1);
  const std::size_t most = shard_->core->options.max_message_bytes;
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

absl::StatusOr<std::string_view> GrpcServerConnection::Plain(GrpcServerCall* call,
                                                             std::string_view message) {
  if (!call->message_compressed) return message;
  TAKT_ASSIGN_OR_RETURN(
      call->inflated, GrpcInflate(call->request_compression, message,
                                  shard_->core->options.max_message_bytes, kMaxGrpcInflationRatio));
  return call->inflated;
}

void GrpcServerConnection::MessageDone(GrpcServerCall* call) {
  call->message_complete = true;
  shard_->reserved_bytes -= std::exchange(call->capacity, 0);
  if (!call->is_streamed()) return;
  absl::StatusOr<std::string_view> message = Plain(call, call->body());
  if (message.ok() && call->stream != nullptr && call->held) call->stream->OnMessage(*message);
  if (!message.ok()) Refuse(call, message.status());
  call->message_complete = call->borrowed = false;
  call->prefix_bytes = call->received_bytes = call->pad = 0;
  call->SetBody({});
  call->buffer.reset();
}

void GrpcServerConnection::OnEnd(Http2Stream& stream) {
  GrpcServerCall* call = CallOf(stream);
  if (call->dropping) return;
  if (call->is_streamed()) {
    if (call->held) call->stream->OnHalfClose();
    return;
  }
  if (!call->message_complete) {
    const std::size_t got = call->prefix_bytes < kGrpcFramingBytes
                                ? call->prefix_bytes
                                : kGrpcFramingBytes + call->received_bytes;
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

void GrpcServerConnection::KeepBorrowed() {
  for (GrpcServerCall* call : borrowed_) {
    // Calls that were dispatched have had their chance (RetainBody); those that were recycled are
    // like new.
    if (call->connection == this && call->borrowed && !call->dropping) call->RetainBody();
  }
  borrowed_.clear();
}

void GrpcServerConnection::Refuse(GrpcServerCall* call, absl::Status status) {
  call->dropping = true;
  if (call->held) {  // a streamed call: its holder learns by OnCancel
    call->broken = true;
  } else {
    call->status = std::move(status);
    call->finished = true;
    if (call->is_streamed()) call->response().clear();
  }
  Submit(call);
}

void GrpcServerConnection::RefuseHttp(GrpcServerCall* call, const char* status) {
  call->dropping = call->finished = true;
  call->http_status = status;
  Submit(call);
}

void GrpcServerConnection::OnClosed(Http2Stream& stream) { Detach(CallOf(stream)); }

void GrpcServerConnection::Detach(GrpcServerCall* call) {
  call->connection = nullptr;
  if (!call->held) return shard_->Recycle(call);
  call->SetCancelled();
  // The stream lets go of the call here or later; then the call is recycled, so it is not the call
  // that owns the stream now.
  std::unique_ptr<GrpcStream> stream = std::move(call->stream);
  if (stream != nullptr) stream->OnCancel();
}

}  // namespace takt::net
