#include "net/grpc_shard.h"

#include "net/grpc_connection.h"

namespace takt::net {
namespace {

constexpr std::size_t kMaxRecycledResponseBytes = 64 << 10;
// So many unused calls keep the memory of their answers; the rest of a burst gives it back.
constexpr std::size_t kWarmCalls = 512;

}  // namespace

GrpcShard::GrpcShard(GrpcCore* core, EventLoop* loop)
    : core(core), loop(loop), read_buffer(new char[kGrpcReadBufferBytes]) {}

GrpcShard::~GrpcShard() {
  for (GrpcServerCall* call : free_calls_) delete call;
}

GrpcServerCall* GrpcShard::NewCall() {
  if (free_calls_.empty()) return new GrpcServerCall(this);
  GrpcServerCall* call = free_calls_.back();
  free_calls_.pop_back();
  return call;
}

void GrpcShard::Recycle(GrpcServerCall* call) {
  call->Reset(free_calls_.size() < kWarmCalls ? kMaxRecycledResponseBytes : 0);
  free_calls_.push_back(call);
}

void GrpcShard::PushFinished(GrpcServerCall* call) {
  GrpcServerCall* head = finished_.load(std::memory_order_relaxed);
  do {
    call->next_finished = head;
  } while (!finished_.compare_exchange_weak(head, call, std::memory_order_release,
                                            std::memory_order_relaxed));
  if (head == nullptr) loop->Post([this] { TakeFinished(); });
}

void GrpcShard::TakeFinished() {
  GrpcServerCall* list = finished_.exchange(nullptr, std::memory_order_acquire);
  GrpcServerCall* in_order = nullptr;
  while (list != nullptr) {
    GrpcServerCall* call = list;
    list = call->next_finished;
    call->next_finished = in_order;
    in_order = call;
  }
  while (in_order != nullptr) {
    GrpcServerCall* call = in_order;
    in_order = call->next_finished;
    Ended(call);
  }
}

void GrpcShard::Ended(GrpcServerCall* call) {
  call->finished = true;
  call->held = false;
  Add(in_flight, -1);
  if (call->connection == nullptr) {
    Recycle(call);
    if (core->draining) core->Changed();
    return;
  }
  call->connection->Submit(call);
}

void GrpcShard::Adopt(std::unique_ptr<GrpcServerConnection> connection) {
  GrpcServerConnection* key = connection.get();
  if (core->draining || !connection->Open()) return;
  connections.emplace(key, std::move(connection));
  if (sweeping_) return;
  sweeping_ = true;
  sweep_timer = loop->After(std::chrono::seconds(1), [this] { Sweep(); });
}

void GrpcShard::Sweep() {
  const auto now = loop->now();
  std::vector<GrpcServerConnection*> dead;
  for (auto& [connection, owned] : connections) {
    if (!connection->IsAlive(now)) dead.push_back(connection);
  }
  for (GrpcServerConnection* connection : dead) connection->Close();
  sweeping_ = !connections.empty();
  if (sweeping_) sweep_timer = loop->After(std::chrono::seconds(1), [this] { Sweep(); });
}

}  // namespace takt::net
