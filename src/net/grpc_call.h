// One call as the server has it: an HTTP/2 stream, the message that is being received, the answer.
// Of the server's inside; what users of the server see is GrpcCall.
//
// Threads: its connection's loop, but for what a GrpcCall may do elsewhere.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/grpc_server.h"
#include "net/grpc_wire.h"
#include "net/http2_session.h"

namespace takt::net {

class GrpcServerConnection;
struct GrpcShard;

inline constexpr std::size_t kGrpcFramingBytes = 5;  // compressed flag, length

struct GrpcMethod {
  std::string path;
  GrpcHandler handler;
  GrpcStreamFactory stream_factory;
  std::function<std::size_t(std::string_view)> place;
};

// Calls are used again: they belong to their shard, and are a connection's while their stream is
// open, a holder's (of the GrpcCallPtr) while `held`.
class GrpcServerCall final : public GrpcCall, public Http2Stream {
 public:
  explicit GrpcServerCall(GrpcShard* shard);
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
  void SetDeadline(std::chrono::steady_clock::time_point deadline) { deadline_ = deadline; }
  void SetCancelled() { cancelled_.store(true, std::memory_order_relaxed); }
  std::vector<std::pair<std::string, std::string>>& mutable_metadata() { return metadata_; }
  std::vector<std::pair<std::string, std::string>>& response_metadata() {
    return response_metadata_;
  }
  bool is_streamed() const { return target != nullptr && target->stream_factory != nullptr; }

  GrpcShard* const shard;
  // On the loop's thread only, from here on.
  GrpcServerConnection* connection = nullptr;  // null once the stream is closed
  const GrpcMethod* target = nullptr;
  std::unique_ptr<GrpcStream> stream;  // of a streamed method
  bool is_post = false;
  bool is_grpc = false;
  GrpcCompression request_compression = GrpcCompression::kIdentity;
  std::optional<std::chrono::nanoseconds> timeout;
  std::string unknown_encoding;
  std::string own_path;

  // The message that is being received.
  unsigned char prefix[kGrpcFramingBytes];
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
  bool broken = false;     // a streamed call that is to be reset
  bool submitted = false;  // headers are on their way
  bool finished = false;
  const char* http_status = nullptr;  // what is no gRPC is answered with that alone
  std::size_t sent_bytes = 0;         // of response_
  absl::Status status;
  GrpcServerCall* next_finished = nullptr;
};

}  // namespace takt::net
