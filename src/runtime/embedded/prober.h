// Health checks, on the runtime's event loop: one at a time per instance, at its interval, each
// with its deadline.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "runtime/embedded/event_loop.h"
#include "runtime/runtime.h"

namespace takt::runtime {

class Prober {
 public:
  using OnHealth =
      std::function<void(const std::string& instance, Health health, const std::string& why)>;
  // `shim` runs commands inside instances. All outlive it.
  Prober(EventLoop& loop, std::string shim, OnHealth on_health);
  ~Prober();
  Prober(const Prober&) = delete;
  Prober& operator=(const Prober&) = delete;

  // Checks the instance whose program is process `pid` until Remove. `address`: where "localhost"
  // is for it, where it has a loopback address of its own.
  void Add(const std::string& instance, std::int64_t pid, const HealthProbe& probe,
           const std::string& address);
  void Remove(const std::string& instance);

 private:
  struct Check;
  void Begin(Check& check);
  void BeginCommand(Check& check);
  void BeginSocket(Check& check);
  void OnSocket(Check& check, std::uint32_t events);
  void OnCommand(Check& check);
  void Finish(Check& check, const std::string& failure);
  static void Abort(EventLoop& loop, Check& check);

  EventLoop& loop_;
  std::string shim_;
  OnHealth on_health_;
  std::map<std::string, std::unique_ptr<Check>> checks_;
};

// Host, port and path of "http://127.0.0.1:8501/v1" or "host:80". False when it is neither.
bool ParseProbeUrl(const std::string& url, std::string& host, int& port, std::string& path);

}  // namespace takt::runtime
