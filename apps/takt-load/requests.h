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

inline constexpr std::size_t kMaxRequestFileBytes = std::size_t{2} << 30;

// A file that holds one: a PredictRequest as JSON where the name ends in ".json", else its bytes.
absl::StatusOr<Requests> RequestFromFile(const std::string& path);
// The Predict requests of a log: TFRecords of tensorflow.serving.PredictionLog, as the server and
// warm-up files have them. INVALID_ARGUMENT where it has none.
absl::StatusOr<Requests> RequestsFromLog(const std::string& path);
// One with random values, of the shapes that the server says the signature has; unknown dimensions
// are `rows` (the first) or 1.
absl::StatusOr<Requests> RandomRequest(const std::string& target, const std::string& model,
                                       const std::string& signature, std::int64_t rows);
// PredictResponse.model_spec.version of an answer; nothing when it has none.
std::optional<std::int64_t> VersionOf(std::string_view predict_response);

}  // namespace takt
