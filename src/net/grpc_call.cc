#include "net/grpc_call.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "net/grpc_connection.h"
#include "net/grpc_shard.h"

namespace takt::net {

GrpcServerCall::GrpcServerCall(GrpcShard* shard) : shard(shard) {
  loop_ = shard->loop;
  response_.assign(kGrpcFramingBytes, '\0');
}

void GrpcServerCall::Reset(std::size_t keep_response_bytes) {
  method_ = {};
  body_ = {};
  deadline_.reset();
  cancelled_.store(false, std::memory_order_relaxed);
  metadata_.clear();
  response_metadata_.clear();
  if (response_.capacity() > keep_response_bytes) std::string().swap(response_);
  response_.assign(kGrpcFramingBytes, '\0');
  connection = nullptr;
  target = nullptr;
  stream.reset();
  is_post = is_grpc = false;
  request_compression = GrpcCompression::kIdentity;
  timeout.reset();
  unknown_encoding.clear();
  own_path.clear();
  prefix_bytes = message_bytes = received_bytes = pad = 0;
  shard->reserved_bytes -= std::exchange(capacity, 0);
  message_compressed = message_complete = borrowed = dropping = false;
  buffer.reset();
  buffer_data = nullptr;
  if (!inflated.empty()) std::string().swap(inflated);
  held = broken = submitted = finished = false;
  http_status = nullptr;
  sent_bytes = 0;
  status = absl::OkStatus();
  next_finished = nullptr;
}

void GrpcServerCall::RetainBody() {
  if (!borrowed) return;
  borrowed = false;
  buffer = shard->core->buffers->Get(std::max<std::size_t>(body_.size(), 1));
  if (buffer == nullptr) std::abort();  // a few kilobytes are not there: nothing can go on
  std::memcpy(buffer.get(), body_.data(), body_.size());
  body_ = {buffer.get(), body_.size()};
}

std::pair<std::shared_ptr<const void>, std::string_view> GrpcServerCall::ShareBody() {
  RetainBody();
  if (buffer == nullptr) {  // inflated
    auto kept = std::make_shared<std::string>(std::move(inflated));
    body_ = *kept;
    return {kept, body_};
  }
  return {buffer, body_};
}

std::string GrpcServerCall::peer() const { return connection == nullptr ? "" : connection->peer(); }

void GrpcServerCall::Write(std::string_view message) {
  std::string framed(kGrpcFramingBytes, '\0');
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

void GrpcServerCall::Finish(const absl::Status& result) {
  if (!result.ok()) status = result;
  if (loop_->InLoop()) {
    shard->Ended(this);
  } else if (is_streamed()) {
    loop_->Post([this] { shard->Ended(this); });  // behind its messages
  } else {
    shard->PushFinished(this);
  }
}

void GrpcServerCall::Abandon() { Finish(absl::InternalError("the server gave no answer")); }

}  // namespace takt::net
