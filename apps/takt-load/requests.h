// Where the requests of a load come from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace takt {

// Serialised PredictRequests, at least one.
using Requests = std::vector<std::string>;

// Values of a tensor that is to be written as JSON.
inline constexpr std::int64_t kMaxJsonValues = 64 << 20;
inline constexpr std::size_t kMaxRequestFileBytes = std::size_t{2} << 30;

// How the server is asked.
struct Server {
  std::string target;  // HOST:PORT
  bool rest = false;
};

// A file that holds one: a PredictRequest as JSON where the name ends in ".json", else its bytes.
absl::StatusOr<Requests> RequestFromFile(const std::string& path);
// The Predict requests of a log: TFRecords of tensorflow.serving.PredictionLog, as the server and
// warm-up files have them. INVALID_ARGUMENT where it has none.
absl::StatusOr<Requests> RequestsFromLog(const std::string& path);
// One with random values, of the shapes that the server says the signature has; unknown dimensions
// are `rows` (the first) or 1.
absl::StatusOr<Requests> RandomRequest(const Server& server, const std::string& model,
                                       const std::string& signature, std::int64_t rows);

// REST. The same as whole HTTP requests: the body in row form where there is one input with rows,
// else in column form. UNIMPLEMENTED for types that JSON has no numbers for.
absl::StatusOr<Requests> AsHttp(const std::string& target, const Requests& requests);
// A file that is a body already: asked of `model`.
absl::StatusOr<Requests> HttpRequestFromFile(const std::string& target, const std::string& model,
                                             const std::string& path);
// Whether a file named *.json holds a body of the REST API and no PredictRequest.
absl::StatusOr<bool> IsRestBody(const std::string& path);
// The highest version that the server says is available; nothing when it does not say.
std::optional<std::int64_t> AvailableVersion(const std::string& target, const std::string& model);
// The model that a serialised PredictRequest asks.
std::string ModelOf(const std::string& predict_request);
// PredictResponse.model_spec.version of an answer; nothing when it has none.
std::optional<std::int64_t> VersionOf(std::string_view predict_response);

}  // namespace takt
