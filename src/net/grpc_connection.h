// One connection of a gRPC server: its socket and TLS, the messages of its calls, their answers,
// and plain HTTP/1.1 GETs. The frames are Http2Session's. Of the server's inside; on its loop's
// thread.
#pragma once

#include <openssl/ssl.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/event_loop.h"
#include "net/grpc_call.h"
#include "net/grpc_shard.h"
#include "net/http2_session.h"

namespace takt::net {

class GrpcServerConnection final : public EventLoop::FdHandler,
                                   public EventLoop::TurnEnd,
                                   private Http2Owner {
 public:
  using Clock = std::chrono::steady_clock;

  // Takes the descriptor and `ssl` (null: no TLS).
  GrpcServerConnection(GrpcShard* shard, int fd, std::string peer, SSL* ssl);
  ~GrpcServerConnection() override;
  // False: it cannot be.
  bool Open();

  void OnEvents(std::uint32_t events) override;
  void OnTurnEnd() override;

  // The answer of `call` is to be sent, or goes on. The call may be recycled then.
  void Submit(GrpcServerCall* call);
  void StartDrain();
  // Closes and deletes, now when it can, else at the end of the turn.
  void Close();
  // The sweep: false when the connection has lost its right to exist.
  bool IsAlive(Clock::time_point now);
  const std::string& peer() const { return peer_; }

 private:
  // Http2Owner.
  Http2Stream& OnRequest() override;
  void OnHeader(Http2Stream& stream, const HeaderField& field) override;
  bool KeepHead(Http2Stream& stream, std::size_t slot) override;
  void OnSameHead(Http2Stream& stream, std::size_t slot) override;
  void OnHeaders(Http2Stream& stream) override;
  void OnData(Http2Stream& stream, std::string_view data) override;
  void OnEnd(Http2Stream& stream) override;
  void OnClosed(Http2Stream& stream) override;
  void OnWritable(Http2Stream& stream) override;

  void AddMetadata(GrpcServerCall* call, std::string_view name, std::string_view value);
  bool BeginMessage(GrpcServerCall* call);
  // Room in the call's buffer for the first `bytes` of its message. False: there is no memory.
  bool MakeRoom(GrpcServerCall* call, std::size_t bytes);
  void MessageDone(GrpcServerCall* call);
  absl::StatusOr<std::string_view> Plain(GrpcServerCall* call, std::string_view message);
  void KeepBorrowed();
  // The stream of `call` is closed.
  void Detach(GrpcServerCall* call);
  // Ends a call that no handler has (or will have). The call may be recycled then.
  void Refuse(GrpcServerCall* call, absl::Status status);
  void RefuseHttp(GrpcServerCall* call, const char* status);

  static std::span<const HpackEncoder::Field> AnswerFields();
  // As much of the answer as may be written now.
  void Answer(GrpcServerCall* call);
  // False: that was all of it.
  bool AnswerHeaders(GrpcServerCall* call);
  void AppendStatus(const absl::Status& status);
  void AppendResponseMetadata(GrpcServerCall* call);
  // Frames a unary message. Whether it was compressed.
  bool FrameResponse(GrpcServerCall* call);

  bool Handshake();
  // A peer that begins like an HTTP/1.1 GET. False: close the connection.
  bool ReceivePlain(std::string_view bytes);
  void AnswerPlain(std::string_view status, std::string_view content_type, std::string_view body);
  ssize_t ReadSome(char* out, std::size_t size);
  ssize_t WriteSome(std::string_view data);
  void WantWrite() { shard_->loop->AtTurnEnd(this, EventLoop::Phase::kWrite); }
  std::string_view Unsent() const;
  bool Flush();

  GrpcShard* const shard_;
  const int fd_;
  const std::string peer_;
  SSL* const ssl_;
  Http2Session session_;
  bool handshaken_;
  // Which protocol it is shows in the first byte. Where nothing but HTTP/2 is spoken, it is known
  // from the start, and so our settings need not wait for the peer.
  enum class Protocol { kUnknown, kHttp2, kPlain } protocol_;
  std::string plain_head_;
  bool plain_answered_ = false;
  std::string plain_answer_;
  std::size_t plain_sent_ = 0;
  std::shared_ptr<GrpcServerConnection*> self_;  // of a plain one, which answers come back to
  bool in_receive_ = false;
  bool closing_ = false;
  bool draining_ = false;
  bool want_out_ = false;  // EPOLLOUT is watched
  std::vector<GrpcServerCall*> borrowed_;
  const GrpcMethod* last_method_ = nullptr;
  // What the session has in its slots: a head that can be served and has no metadata.
  struct Head {
    const GrpcMethod* target = nullptr;
    GrpcCompression compression = GrpcCompression::kIdentity;
    std::optional<std::chrono::nanoseconds> timeout;
  };
  std::array<Head, kHttp2KeptHeads> heads_;
  Clock::time_point opened_;
  Clock::time_point last_active_;
  Clock::time_point drain_since_;
  Clock::time_point window_since_;   // of slow_peer_timeout
  std::size_t window_received_ = 0;  // bytes since then
  std::size_t window_sent_ = 0;
};

}  // namespace takt::net
