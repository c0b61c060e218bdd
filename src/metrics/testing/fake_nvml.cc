// NVML for tests: as much of its interface as Takt uses, answering what the file named by
// TAKT_FAKE_NVML says at each call:
//   gpu NAME UTILISATION USED TOTAL CELSIUS MILLIWATTS      one line a GPU; "-" = not supported
//   process GPU PID BYTES
//   lost GPU                                                 calls about it fail
//   no_driver                                                nvmlInit fails
//   hang                                                     no call returns while it says so
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kSuccess = 0, kNotSupported = 3, kInsufficientSize = 7, kDriverNotLoaded = 9,
              kGpuIsLost = 15;

struct Gpu {
  std::string name, utilization, used, total, celsius, milliwatts;
  bool lost = false;
};
struct Process {
  unsigned gpu, pid;
  unsigned long long bytes;
};
struct Script {
  std::vector<Gpu> gpus;
  std::vector<Process> processes;
  bool no_driver = false, hang = false;
};

Script Read() {
  Script script;
  std::ifstream file(std::getenv("TAKT_FAKE_NVML"));
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string kind;
    words >> kind;
    if (kind == "gpu") {
      Gpu g;
      words >> g.name >> g.utilization >> g.used >> g.total >> g.celsius >> g.milliwatts;
      script.gpus.push_back(g);
    } else if (kind == "process") {
      Process p{};
      words >> p.gpu >> p.pid >> p.bytes;
      script.processes.push_back(p);
    } else if (kind == "lost") {
      unsigned gpu = 0;
      words >> gpu;
      script.gpus.at(gpu).lost = true;
    } else if (kind == "no_driver") {
      script.no_driver = true;
    } else if (kind == "hang") {
      script.hang = true;
    }
  }
  return script;
}

// What the file says, once it does not say hang.
Script Now() {
  while (true) {
    Script script = Read();
    if (!script.hang) return script;
    std::this_thread::yield();
  }
}

// A device is one of these, by its place.
char devices[128];
std::size_t IndexOf(void* device) {
  return static_cast<std::size_t>(static_cast<char*>(device) - devices);
}

template <typename T>
int Number(void* device, std::string Gpu::*field, T* out) {
  const Script script = Now();
  const Gpu& gpu = script.gpus.at(IndexOf(device));
  if (gpu.lost) return kGpuIsLost;
  if (gpu.*field == "-") return kNotSupported;
  *out = static_cast<T>(std::stoull(gpu.*field));
  return kSuccess;
}

}  // namespace

extern "C" {

int nvmlInit_v2() { return Now().no_driver ? kDriverNotLoaded : kSuccess; }

const char* nvmlErrorString(int code) {
  return code == kDriverNotLoaded ? "Driver Not Loaded" : "Unknown Error";
}

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(Now().gpus.size());
  return kSuccess;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  const Script script = Now();
  if (script.gpus.at(index).lost) return kGpuIsLost;
  *device = &devices[index];
  return kSuccess;
}

int nvmlDeviceGetName(void* device, char* name, unsigned length) {
  const std::string text = Now().gpus.at(IndexOf(device)).name;
  std::strncpy(name, text.c_str(), length);
  return kSuccess;
}

int nvmlDeviceGetUtilizationRates(void* device, unsigned* gpu_and_memory) {
  gpu_and_memory[1] = 0;
  return Number(device, &Gpu::utilization, gpu_and_memory);
}

int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* total_free_used) {
  const int code = Number(device, &Gpu::total, &total_free_used[0]);
  return code != kSuccess ? code : Number(device, &Gpu::used, &total_free_used[2]);
}

int nvmlDeviceGetTemperature(void* device, unsigned, unsigned* celsius) {
  return Number(device, &Gpu::celsius, celsius);
}

int nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
  return Number(device, &Gpu::milliwatts, milliwatts);
}

struct NvmlProcess {
  unsigned pid;
  unsigned long long used_memory;
  unsigned gpu_instance, compute_instance;
};

int nvmlDeviceGetComputeRunningProcesses_v3(void* device, unsigned* count, NvmlProcess* out) {
  const Script script = Now();
  std::vector<NvmlProcess> found;
  for (const Process& process : script.processes) {
    if (process.gpu == IndexOf(device)) found.push_back({process.pid, process.bytes, 0, 0});
  }
  const unsigned room = *count;
  *count = static_cast<unsigned>(found.size());
  if (found.size() > room) return kInsufficientSize;
  std::copy(found.begin(), found.end(), out);
  return kSuccess;
}

}  // extern "C"
