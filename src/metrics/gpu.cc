#include "metrics/gpu.h"

#include <dlfcn.h>

#include <condition_variable>
#include <cstdio>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace takt::metrics {
namespace {

// NVML's stable interface, as its documentation has it (docs.nvidia.com/deploy/nvml-api).
using NvmlReturn = int;
using NvmlDevice = struct NvmlDeviceTag*;
constexpr NvmlReturn kSuccess = 0, kInsufficientSize = 7;
constexpr unsigned kTemperatureOfGpu = 0;
constexpr unsigned long long kNotAvailable = ~0ULL;
struct NvmlUtilization {
  unsigned gpu, memory;  // percent
};
struct NvmlMemory {
  unsigned long long total, free, used;
};
struct NvmlProcess {
  unsigned pid;
  unsigned long long used_memory;
  unsigned gpu_instance, compute_instance;
};

class Nvml {
 public:
  // Null where the library, one of its functions, or the driver is not there; `why` says it.
  static std::unique_ptr<Nvml> Load(const std::string& library, std::string& why) {
    void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) return nullptr;        // no GPU here: nothing to say
    auto nvml = std::unique_ptr<Nvml>(new Nvml);  // the library stays: it may have threads
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(handle, name));
      if (function == nullptr && why.empty()) why = library + " has no " + name;
    };
    find(nvml->init, "nvmlInit_v2");
    find(nvml->error, "nvmlErrorString");
    find(nvml->count, "nvmlDeviceGetCount_v2");
    find(nvml->device, "nvmlDeviceGetHandleByIndex_v2");
    find(nvml->name, "nvmlDeviceGetName");
    find(nvml->utilization, "nvmlDeviceGetUtilizationRates");
    find(nvml->memory, "nvmlDeviceGetMemoryInfo");
    find(nvml->temperature, "nvmlDeviceGetTemperature");
    find(nvml->power, "nvmlDeviceGetPowerUsage");
    find(nvml->processes, "nvmlDeviceGetComputeRunningProcesses_v3");
    if (!why.empty()) return nullptr;
    if (const NvmlReturn code = nvml->init(); code != kSuccess) {
      why = library + ": " + nvml->error(code);
      return nullptr;
    }
    return nvml;
  }

  NvmlReturn (*init)() = nullptr;
  const char* (*error)(NvmlReturn) = nullptr;
  NvmlReturn (*count)(unsigned*) = nullptr;
  NvmlReturn (*device)(unsigned, NvmlDevice*) = nullptr;
  NvmlReturn (*name)(NvmlDevice, char*, unsigned) = nullptr;
  NvmlReturn (*utilization)(NvmlDevice, NvmlUtilization*) = nullptr;
  NvmlReturn (*memory)(NvmlDevice, NvmlMemory*) = nullptr;
  NvmlReturn (*temperature)(NvmlDevice, unsigned, unsigned*) = nullptr;
  NvmlReturn (*power)(NvmlDevice, unsigned*) = nullptr;
  NvmlReturn (*processes)(NvmlDevice, unsigned*, NvmlProcess*) = nullptr;

 private:
  Nvml() = default;
};

std::string ProductOf(const Nvml& nvml, NvmlDevice device) {
  char name[96] = "";
  if (nvml.name(device, name, sizeof name) != kSuccess) return "";
  name[sizeof name - 1] = '\0';
  return name;
}

std::vector<GpuProcess> ProcessesOf(const Nvml& nvml, NvmlDevice device, const std::string& gpu) {
  std::vector<NvmlProcess> found(64);
  while (true) {
    auto count = static_cast<unsigned>(found.size());
    const NvmlReturn code = nvml.processes(device, &count, found.data());
    if (code == kInsufficientSize && count > found.size() && count <= kMaxGpuProcesses) {
      found.resize(std::min(count * 2, kMaxGpuProcesses));
      continue;
    }
    if (code != kSuccess) return {};
    found.resize(std::min<std::size_t>(count, found.size()));
    break;
  }
  std::vector<GpuProcess> processes;
  for (const NvmlProcess& process : found) {
    if (process.used_memory == kNotAvailable) continue;
    processes.push_back({process.pid, gpu, process.used_memory});
  }
  return processes;
}

// One round over all GPUs. Nullopt where not even their number is known.
std::optional<GpuReading> Read(const Nvml& nvml, std::map<std::string, double>& errors) {
  unsigned count = 0;
  if (nvml.count(&count) != kSuccess) return std::nullopt;
  GpuReading reading;
  for (unsigned i = 0; i < std::min(count, kMaxGpus); ++i) {
    const std::string gpu = std::to_string(i);
    NvmlDevice device = nullptr;
    NvmlUtilization utilization{};
    NvmlMemory memory{};
    unsigned celsius = 0, milliwatts = 0;
    const bool there = nvml.device(i, &device) == kSuccess;
    if (there) {
      const Labels labels = {{"gpu", gpu}, {"product", ProductOf(nvml, device)}};
      const auto gauge = [&](const char* name, double value) {
        reading.figures.push_back({name, labels, Type::kGauge, value});
      };
      if (nvml.utilization(device, &utilization) == kSuccess) {
        gauge("takt_gpu_utilization_ratio", utilization.gpu / 100.0);
      }
      if (nvml.memory(device, &memory) == kSuccess) {
        gauge("takt_gpu_memory_used_bytes", static_cast<double>(memory.used));
        gauge("takt_gpu_memory_total_bytes", static_cast<double>(memory.total));
      } else {
        ++errors[gpu];  // every GPU has memory: this one is ill
      }
      if (nvml.temperature(device, kTemperatureOfGpu, &celsius) == kSuccess) {
        gauge("takt_gpu_temperature_celsius", celsius);
      }
      if (nvml.power(device, &milliwatts) == kSuccess) {
        gauge("takt_gpu_power_watts", milliwatts / 1000.0);
      }
      for (GpuProcess& process : ProcessesOf(nvml, device, gpu)) {
        reading.processes.push_back(std::move(process));
      }
    } else {
      ++errors[gpu];
    }
    if (const auto it = errors.find(gpu); it != errors.end()) {
      reading.figures.push_back(
          {"takt_gpu_read_errors_total", {{"gpu", gpu}}, Type::kCounter, it->second});
    }
  }
  return reading;
}

}  // namespace

// Outlives the reader where a call into the library hangs.
struct GpuReader::State {
  std::string library;
  std::chrono::milliseconds interval, max_age, retry;
  mutable std::mutex mutex;
  std::condition_variable changed;
  bool stop = false, ended = false;  // under mutex, as all below
  GpuReading reading;
  std::chrono::steady_clock::time_point read_at{};
  std::uint64_t rounds = 0;

  // False: it is ending.
  bool Wait(std::chrono::milliseconds time) {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, time, [this] { return stop; });
    return !stop;
  }

  void Run() {
    std::unique_ptr<Nvml> nvml;
    std::string said;
    std::map<std::string, double> errors;
    do {
      if (nvml == nullptr) {
        std::string why;
        nvml = Nvml::Load(library, why);
        if (!why.empty() && why != said) {
          std::fprintf(stderr, "takt: warning: GPUs cannot be measured: %s\n", why.c_str());
          said = why;
        }
      }
      auto fresh = nvml != nullptr ? Read(*nvml, errors) : std::nullopt;
      if (!fresh) nvml.reset();  // asks for a new start, with a pause
      {
        const std::lock_guard lock(mutex);
        ++rounds;
        reading = fresh ? *std::move(fresh) : GpuReading();
        read_at = std::chrono::steady_clock::now();
      }
      changed.notify_all();
    } while (Wait(nvml != nullptr ? interval : retry));
    const std::lock_guard lock(mutex);
    ended = true;
    changed.notify_all();
  }
};

GpuReader::GpuReader(const std::string& library, std::chrono::milliseconds interval,
                     std::chrono::milliseconds max_age, std::chrono::milliseconds retry)
    : state_(std::make_shared<State>()) {
  state_->library = library;
  state_->interval = interval;
  state_->max_age = max_age;
  state_->retry = retry;
  std::thread([state = state_] { state->Run(); }).detach();
}

GpuReader::~GpuReader() {
  constexpr std::chrono::milliseconds kPatience{500};
  std::unique_lock lock(state_->mutex);
  state_->stop = true;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, kPatience, [this] { return state_->ended; });
}

GpuReading GpuReader::Latest() const {
  const std::lock_guard lock(state_->mutex);
  if (std::chrono::steady_clock::now() - state_->read_at > state_->max_age) return {};
  return state_->reading;
}

std::uint64_t GpuReader::rounds() const {
  const std::lock_guard lock(state_->mutex);
  return state_->rounds;
}

}  // namespace takt::metrics
