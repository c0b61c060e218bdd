// GPUs of this machine, read through NVIDIA's NVML, which is loaded and never linked. Not a driver:
// it asks, and changes nothing.
//
// Threads: one of its own makes every call into the library, so that a library that hangs (a GPU
// that has fallen off the bus does that) delays nobody. What it said last is Latest, which may be
// called from any thread; after kMaxGpuAge it is unknown, which is no series at all.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "metrics/node.h"

namespace takt::metrics {

inline constexpr std::chrono::seconds kGpuInterval{5};
inline constexpr std::chrono::seconds kMaxGpuAge{15};
inline constexpr std::chrono::seconds kGpuRetry{60};  // where there is no library, or no driver
inline constexpr unsigned kMaxGpus = 64;              // further ones are left out
inline constexpr unsigned kMaxGpuProcesses = 1024;    // of one GPU; beyond: none of them is told

struct GpuProcess {
  std::int64_t pid = 0;  // as this process sees it
  std::string gpu;       // the label `gpu`
  std::uint64_t memory_bytes = 0;
};

struct GpuReading {
  // takt_gpu_utilization_ratio, takt_gpu_memory_used_bytes, takt_gpu_memory_total_bytes,
  // takt_gpu_temperature_celsius, takt_gpu_power_watts, all {gpu="0",product="NVIDIA ..."}; what a
  // GPU does not tell is left out. takt_gpu_read_errors_total{gpu} once a reading has failed.
  std::vector<Figure> figures;
  std::vector<GpuProcess> processes;  // whose memory use is known
};

class GpuReader {
 public:
  // `library`: a name or path for dlopen. `interval` and `retry` are shorter in tests.
  explicit GpuReader(const std::string& library = "libnvidia-ml.so.1",
                     std::chrono::milliseconds interval = kGpuInterval,
                     std::chrono::milliseconds max_age = kMaxGpuAge,
                     std::chrono::milliseconds retry = kGpuRetry);
  // Waits for a call under way only shortly: one that hangs is left behind with its thread.
  ~GpuReader();
  GpuReader(const GpuReader&) = delete;
  GpuReader& operator=(const GpuReader&) = delete;

  GpuReading Latest() const;  // empty: no GPU, or unknown
  // How often a reading was finished; for tests, which wait for the next one.
  std::uint64_t rounds() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace takt::metrics
