// A load of unary gRPC calls or of HTTP requests, and what they took. One thread, which busies
// itself with nothing but frames, so that on a shared machine the server's figures are the
// server's.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "load/histogram.h"

namespace takt::load {

inline constexpr int kMaxLoadConnections = 10000;
inline constexpr int kMaxLoadStreams = 10000;

enum class LoadProtocol {
  kGrpc,  // unary calls of `method`
  kHttp,  // HTTP/1.1 with keep-alive; a message is a whole request, its head included
};

struct LoadOptions {
  LoadProtocol protocol = LoadProtocol::kGrpc;
  std::string target;  // "127.0.0.1:8500", "unix:/path"
  std::string method = "/tensorflow.serving.PredictionService/Predict";
  int connections = 1;
  int streams = 1;  // calls at once on each connection; HTTP: 1
  // Calls a second; 0 = closed loop: each stream asks again as soon as it has its answer. With a
  // rate, calls are due at even times, and a call's latency counts from when it was due, also when
  // all streams were busy then (coordinated omission corrected).
  double rate = 0;
  std::chrono::nanoseconds warm_up{0};  // not counted
  std::chrono::nanoseconds duration = std::chrono::seconds(5);
  std::uint64_t max_calls = 0;  // 0 = by duration only; counts warm-up too
  // The n-th call's message; the bytes must stay valid until the load ends.
  std::function<std::string_view(std::uint64_t n)> message;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::chrono::nanoseconds connect_timeout = std::chrono::seconds(10);
  // Of a single answer; beyond, the load ends with DEADLINE_EXCEEDED.
  std::chrono::nanoseconds answer_timeout = std::chrono::seconds(60);
  // Called about once a second, and at the begin and the end of the counted time.
  std::function<void(const struct LoadProgress&)> progress;
};

struct LoadSecond {
  double at_seconds = 0;  // since the counted time began
  std::uint64_t calls = 0;
  std::uint64_t errors = 0;
  double p50_us = 0;
  double p99_us = 0;
};

struct LoadProgress {
  enum class Phase { kBegin, kRunning, kEnd } phase;
  LoadSecond last;
  std::string_view last_answer;  // as LoadResult::last_answer; valid during the call
};

struct LoadResult {
  std::uint64_t ok = 0;
  // OK answers that came within the counted time, whenever their calls were due: of a server that
  // is asked for more than it can do, what it does.
  std::uint64_t answered = 0;
  std::map<int, std::uint64_t> errors;  // by gRPC status code, or HTTP's beyond 299
  std::string first_error;              // "14: unavailable ...", "503: {...}"
  double seconds = 0;                   // of the counted time
  Histogram latency;                    // of answers that are OK
  Histogram refusal_latency;            // of the others
  std::string last_answer;              // the last one that is OK: the message, or the body
  double client_cpu_seconds = 0;
  std::vector<LoadSecond> by_second;
};

// UNAVAILABLE when the target cannot be reached or closes; INVALID_ARGUMENT for options beyond the
// limits above. Calls that fail are counted, not an error.
absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options);

}  // namespace takt::load
