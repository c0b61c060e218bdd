// PredictionService/Predict: wire bytes in, wire bytes out, with no message object between.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>

#include "net/grpc_server.h"
#include "serving/servable.h"

namespace takt::serving {

// No protobuf implementation reads a message that has more bytes. RESOURCE_EXHAUSTED beyond.
inline constexpr std::size_t kMaxAnswerBytes = std::numeric_limits<std::int32_t>::max();

struct PredictOptions {
  bool outputs_as_tensor_content = false;  // --enable_serialization_as_tensor_content
  bool check_method_name = false;          // --enable_signature_method_name_check
  std::size_t max_answer_bytes = kMaxAnswerBytes;
};

// What a finished Predict was, for metrics and request logs. Called on the thread that answers;
// must be quick. Views are valid during the call.
struct PredictRecord {
  std::string_view model;
  std::int64_t version = 0;
  std::string_view signature;
  absl::StatusCode code = absl::StatusCode::kOk;
  std::chrono::nanoseconds latency{0};  // from the request's last byte to its answer
  std::chrono::nanoseconds queue{0};    // of it, waiting for a run
  std::size_t request_bytes = 0;
};
class PredictObserver {
 public:
  virtual ~PredictObserver() = default;
  virtual void OnPredict(const PredictRecord& record) = 0;
  // Sampling of whole requests. When true, OnRequestLog follows with request and answer as
  // serialised messages.
  virtual bool WantsLog(std::string_view model) = 0;
  virtual void OnRequestLog(std::string_view model, std::int64_t version, std::string_view request,
                            std::string_view response) = 0;
};

// Registers Predict with the server, which must not outlive `directory` and `observer` (may be
// null).
void RegisterPredict(net::GrpcServer& server, const ServableDirectory& directory,
                     PredictOptions options, PredictObserver* observer);

}  // namespace takt::serving
