// What runs models. The rest of the server sees this interface only; TensorFlow stops behind it.
// All of it may be used from any thread at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "serving/engine/tensor.h"

namespace takt::serving {

// One input or output of a signature, as the model declares it.
struct TensorInfo {
  std::string alias;        // what requests call it
  std::string tensor_name;  // "x:0" in the graph
  DataType dtype = DataType::kInvalid;
  bool unknown_rank = false;
  Dims dims;                  // -1 = any
  std::string default_value;  // of an input that may be left out: TensorProto; "" = there is none
};

struct SignatureDef {
  std::string name;
  std::string method_name;          // "tensorflow/serving/predict"
  std::vector<TensorInfo> inputs;   // by alias, sorted
  std::vector<TensorInfo> outputs;  // by alias, sorted
  // Why a row of an output may depend on more than its own row of the inputs; "" = it is proven
  // that none does (see row_independence.h), so that requests of strangers may share a run.
  std::string why_rows_may_depend;
};

struct LoadOptions {
  std::string directory;  // holds saved_model.pb
  std::vector<std::string> tags = {"serve"};
};

inline constexpr std::uint64_t kSmallModelBytes = 8 << 20;

struct EngineOptions {
  // The directory that holds libtensorflow_cc.so.2; "" = found from the program's own place
  // (../lib/takt/venv/...), then from TAKT_TENSORFLOW_DIR.
  std::string library_directory;
  // 0 = by the first model that is loaded: one thread when its variables have at most
  // kSmallModelBytes, else one for each core. Small operations lose more by being handed to a
  // second thread than they win, and requests run side by side anyway. (TensorFlow has one pool a
  // process: it cannot be chosen by model.)
  int intra_op_parallelism = 0;
  int inter_op_parallelism = 0;
  std::string
      session_config;  // serialised tensorflow.ConfigProto that the two above are merged into
};

struct RunOptions {
  std::optional<std::chrono::steady_clock::time_point> deadline;
};

// A loaded model, ready to run. Destruction frees its memory.
class Session {
 public:
  virtual ~Session() = default;
  // By name, sorted.
  virtual const std::vector<SignatureDef>& signatures() const = 0;
  // The signature_def map's bytes as in MetaGraphDef, for GetModelMetadata: each entry
  // (name, serialised tensorflow.SignatureDef).
  virtual const std::vector<std::pair<std::string, std::string>>& serialized_signatures() const = 0;

  // Resolves names once; what it returns is used with Run and lives as long as the session.
  // INVALID_ARGUMENT naming a tensor that the graph does not have.
  class Plan {
   public:
    virtual ~Plan() = default;
  };
  virtual absl::StatusOr<std::unique_ptr<Plan>> Prepare(std::vector<std::string> feeds,
                                                        std::vector<std::string> fetches) = 0;
  // Runs on the calling thread, as far as the engine can. `inputs` in the order of the feeds; the
  // answer in the order of the fetches. Bytes of aligned inputs are used in place.
  // Errors are the engine's own; DEADLINE_EXCEEDED when options.deadline passed.
  virtual absl::StatusOr<std::vector<Tensor>> Run(const Plan& plan, std::span<const Tensor> inputs,
                                                  const RunOptions& options) = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string version() const = 0;  // "2.21.0"
  // Blocks while the graph is read, variables are restored and initialisers run. Errors are the
  // engine's own, with the directory in the message.
  virtual absl::StatusOr<std::unique_ptr<Session>> Load(const LoadOptions& options) = 0;
};

// TensorFlow through its C API, loaded at run time. UNAVAILABLE naming the path when the library
// cannot be loaded. One a process is enough; costs a quarter of a second.
absl::StatusOr<std::unique_ptr<Engine>> MakeTensorflowEngine(const EngineOptions& options);

}  // namespace takt::serving
