// What all of a gRPC server's connections share, and what those of one loop do. Of the server's
// inside.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "net/buffer_pool.h"
#include "net/event_loop.h"
#include "net/grpc_call.h"
#include "net/grpc_server.h"
#include "net/http2_session.h"

namespace takt::net {

class GrpcServerConnection;

inline constexpr std::size_t kGrpcReadBufferBytes = 256 << 10;

// What a plain HTTP/1.1 GET may ask for.
struct GrpcPlainPage {
  std::string content_type;
  std::function<void(GrpcServer::PlainAnswer)> ask;
};

// Constant once the server listens, but for what its last members say. Any thread.
struct GrpcCore {
  const GrpcMethod* Find(std::string_view path) const {
    auto found = methods.find(path);
    return found == methods.end() ? nullptr : &found->second;
  }
  void Changed() {
    std::lock_guard lock(mutex);
    changed.notify_all();
  }

  GrpcServerOptions options;
  std::map<std::string, GrpcMethod, std::less<>> methods;
  std::map<std::string, GrpcPlainPage, std::less<>> pages;
  const std::shared_ptr<BufferPool> buffers = BufferPool::Create();
  std::atomic<bool> draining{false};
  // Whoever waits for calls or connections to end.
  std::mutex mutex;
  std::condition_variable changed;
};

// What one loop has of the server. On the loop's thread, but for PushFinished and the counters.
struct GrpcShard {
  GrpcShard(GrpcCore* core, EventLoop* loop);
  ~GrpcShard();

  GrpcServerCall* NewCall();
  void Recycle(GrpcServerCall* call);
  // From another thread: the call is finished.
  void PushFinished(GrpcServerCall* call);
  // The holder of `call` has let go of it.
  void Ended(GrpcServerCall* call);
  void Adopt(std::unique_ptr<GrpcServerConnection> connection);

  GrpcCore* const core;
  EventLoop* const loop;
  std::unique_ptr<char[]> read_buffer;
  Http2OutputPool outputs;
  std::size_t reserved_bytes = 0;  // buffers of messages that are not complete
  std::map<GrpcServerConnection*, std::unique_ptr<GrpcServerConnection>> connections;
  EventLoop::TimerId sweep_timer = 0;
  // Written on the loop's thread only.
  std::atomic<std::uint64_t> calls{0};
  std::atomic<std::uint64_t> in_flight{0};
  std::atomic<std::uint64_t> connection_count{0};

 private:
  void TakeFinished();
  void Sweep();

  std::vector<GrpcServerCall*> free_calls_;
  std::atomic<GrpcServerCall*> finished_{nullptr};
  bool sweeping_ = false;
};

// For counters with one writer.
inline void Add(std::atomic<std::uint64_t>& counter, std::int64_t by) {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

}  // namespace takt::net
