// The signatures of a MetaGraphDef, read from its wire bytes: the graph beside them, which may be
// large, is skipped.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "serving/engine/engine.h"

namespace takt::serving {

struct ParsedSignatures {
  std::vector<SignatureDef> signatures;                         // by name
  std::vector<std::pair<std::string, std::string>> serialized;  // name, tensorflow.SignatureDef
};
// INVALID_ARGUMENT when the bytes are not a MetaGraphDef.
absl::StatusOr<ParsedSignatures> ParseSignatures(std::string_view meta_graph_def);

}  // namespace takt::serving
