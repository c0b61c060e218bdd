// The files that a model server reads and others write: configuration as text, the index of a
// version's variables, signatures, warm-up requests, an object store's listing.
#include <google/protobuf/stubs/logging.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/fs.h"
#include "base/fuzz_for_test.h"
#include "base/tfrecord.h"
#include "serving/config/files.h"
#include "serving/engine/fake_engine.h"
#include "serving/engine/signature_def.h"
#include "serving/lifecycle/loader.h"
#include "serving/lifecycle/s3_storage.h"
#include "serving/lifecycle/version_files.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"

namespace takt::serving {
namespace {

// What protobuf reads as a MetaGraphDef has the signatures that it reads.
void Signatures(std::string_view bytes) {
  const auto parsed = ParseSignatures(bytes);
  tensorflow::MetaGraphDef proto;
  if (!parsed.ok() || !proto.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  for (const SignatureDef& signature : parsed->signatures) {
    Require(proto.signature_def().contains(signature.name),
            "a signature is there for protobuf too");
  }
}

// Predicts, classifies and regresses: the sum of what it is given is what it says, whatever that
// means.
std::shared_ptr<Servable> Model() {
  const auto info = [](const char* alias, const char* tensor, DataType dtype) {
    return TensorInfo{alias, tensor, dtype, true, {}};
  };
  const FakeFunction scores =
      [](std::span<const Tensor> in) -> absl::StatusOr<std::vector<Tensor>> {
    const std::int64_t rows = in[0].rank() > 0 ? in[0].dims()[0] : 1;
    TAKT_ASSIGN_OR_RETURN(Tensor out, Tensor::Allocate(DataType::kFloat, {rows, 1}));
    for (std::int64_t i = 0; i < rows; ++i) static_cast<float*>(out.mutable_data())[i] = 1;
    return std::vector<Tensor>{out};
  };
  FakeModel model;
  model.signatures = {{{"serving_default",
                        "tensorflow/serving/predict",
                        {info("x", "x:0", DataType::kFloat)},
                        {info("y", "y:0", DataType::kFloat)}},
                       scores},
                      {{"classify",
                        "tensorflow/serving/classify",
                        {info("inputs", "examples:0", DataType::kString)},
                        {info("scores", "scores:0", DataType::kFloat)}},
                       scores},
                      {{"regress",
                        "tensorflow/serving/regress",
                        {info("inputs", "examples:0", DataType::kString)},
                        {info("outputs", "outputs:0", DataType::kFloat)}},
                       scores}};
  Servable::Options options;
  options.name = "m";
  options.version = 1;
  return Servable::Create(std::make_unique<FakeSession>(std::move(model)), options, nullptr)
      .value();
}

void WarmUpWith(std::string_view file) {
  static const std::shared_ptr<Servable> servable = Model();
  static const auto* const dir = new TempDir();
  const std::string path = JoinPath(dir->path(), kWarmupFile);
  static const bool made = MakeDirs(path.substr(0, path.rfind('/'))).ok();
  Require(made && WriteFileWhole(path, file).ok(), "a file can be written");
  static_cast<void>(WarmUp(servable, dir->path(), 1));
}

}  // namespace
}  // namespace takt::serving

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt::serving;  // NOLINT(google-build-using-namespace)
  [[maybe_unused]] static auto* const log = google::protobuf::SetLogHandler(nullptr);
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (takt::Choice(data[0], 8)) {
    case 0: {
      const auto config = ParseModelServerConfig(text);
      if (config.ok()) static_cast<void>(ModelsFromConfig(*config));
      break;
    }
    case 1:
      static_cast<void>(ParseBatchingParameters(text));
      static_cast<void>(ParsePlatformConfig(text));
      break;
    case 2:
      static_cast<void>(ParseMonitoringConfig(text));
      static_cast<void>(ParseSslConfig(text));
      break;
    case 3:
      static_cast<void>(ShardSizesOfIndex(text));
      break;
    case 4:
      static_cast<void>(ParseS3Listing(text));
      break;
    case 5:
      Signatures(text);
      break;
    case 6:
      WarmUpWith(text);
      break;
    default: {
      std::string file;
      takt::AppendTfRecord(text, file);
      WarmUpWith(file);
      break;
    }
  }
  return 0;
}
