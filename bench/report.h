// What every measurement program shares: a stop watch, and a report as a table and as JSON.
#pragma once

#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace takt::bench {

class StopWatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// CPU seconds of this process so far, user and system.
inline double CpuSeconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Prints each figure as it comes; writes all of them where `--json FILE` asks for it.
class Report {
 public:
  Report(int argc, char** argv) {
    for (int i = 1; i + 1 < argc; ++i) {
      if (std::string(argv[i]) == "--json") path_ = argv[i + 1];
    }
  }
  ~Report() {
    if (!path_.empty()) std::ofstream(path_) << figures_.dump(2) << "\n";
  }
  void Add(const std::string& name, double value, const std::string& unit) {
    std::printf("%-56s %12.4g %s\n", name.c_str(), value, unit.c_str());
    std::fflush(stdout);
    figures_[name] = {{"value", value}, {"unit", unit}};
  }

 private:
  std::string path_;
  nlohmann::ordered_json figures_;
};

}  // namespace takt::bench
