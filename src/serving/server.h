// The model server as a whole: built from flags, serving until it is drained. main() is a few lines
// around it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "serving/config/flags.h"
#include "serving/engine/engine.h"

namespace takt::serving {

inline constexpr std::size_t kMaxRestBodyBytes = std::size_t{512} << 20;

class ModelServer {
 public:
  // Reads the configuration files, loads the engine (or takes `engine`, for tests), waits until
  // each model has tried its first load, then opens the ports. An error leaves nothing behind.
  static absl::StatusOr<std::unique_ptr<ModelServer>> Start(
      const Flags& flags, std::unique_ptr<Engine> engine = nullptr);
  virtual ~ModelServer() = default;
  virtual std::uint16_t grpc_port() const = 0;
  virtual std::uint16_t rest_port() const = 0;  // 0 = no REST
  // Readiness falls, nothing new is accepted, requests in flight end (at most
  // --drain_timeout_ms). Blocks. Once.
  virtual void Drain() = 0;
};

// Loads and warms up the version in `flags.trial_load_of` as a server with these flags would.
absl::Status TryLoad(const Flags& flags);

}  // namespace takt::serving
