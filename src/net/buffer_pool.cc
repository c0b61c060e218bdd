#include "net/buffer_pool.h"

#include <bit>
#include <cstdlib>

namespace takt::net {

BufferPool::~BufferPool() {
  for (const Free& buffer : free_) std::free(buffer.data);
}

std::shared_ptr<char> BufferPool::Get(std::size_t bytes) {
  // Steps of an eighth, so that buffers are found again and little is wasted.
  const std::size_t step = std::max<std::size_t>(std::bit_floor(bytes) / 8, 4096);
  const std::size_t capacity = (bytes + step - 1) / step * step;
  char* data = nullptr;
  {
    std::lock_guard lock(mutex_);
    for (std::size_t i = free_.size(); i-- > 0;) {
      if (free_[i].capacity != capacity) continue;
      data = free_[i].data;
      free_[i] = free_.back();
      free_.pop_back();
      free_bytes_ -= capacity;
      break;
    }
  }
  if (data == nullptr) data = static_cast<char*>(std::aligned_alloc(64, capacity));
  if (data == nullptr) return nullptr;
  return {data, [pool = shared_from_this(), capacity](char* p) { pool->Return(p, capacity); }};
}

void BufferPool::Return(char* data, std::size_t capacity) {
  {
    std::lock_guard lock(mutex_);
    if (free_bytes_ + capacity <= kMaxPooledBytes) {
      free_.push_back({data, capacity});
      free_bytes_ += capacity;
      return;
    }
  }
  std::free(data);
}

}  // namespace takt::net
