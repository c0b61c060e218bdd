// Large buffers, 64-byte aligned, kept warm: a fresh megabyte costs more in page faults than in
// copying.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace takt::net {

inline constexpr std::size_t kMaxPooledBytes = 64 << 20;

// Thread-safe.
class BufferPool : public std::enable_shared_from_this<BufferPool> {
 public:
  static std::shared_ptr<BufferPool> Create() {
    return std::shared_ptr<BufferPool>(new BufferPool);
  }
  ~BufferPool();
  // At least `bytes`; null when the memory is not there. Goes back to the pool with the last owner,
  // and outlives it.
  std::shared_ptr<char> Get(std::size_t bytes);

 private:
  struct Free {
    char* data;
    std::size_t capacity;
  };
  BufferPool() = default;
  void Return(char* data, std::size_t capacity);

  std::mutex mutex_;
  std::vector<Free> free_;
  std::size_t free_bytes_ = 0;
};

}  // namespace takt::net
