#include "serving/lifecycle/loader.h"

#include <future>

#include "base/fs.h"
#include "base/tfrecord.h"
#include "serving/api/inference.h"
#include "serving/api/tensor_proto.h"
#include "serving/config/files.h"
#include "serving/log.h"
#include "tensorflow_serving/apis/prediction_log.pb.h"

namespace takt::serving {
namespace {

namespace tfs = tensorflow::serving;

absl::Status ReplayPredict(const Servable& servable, const tfs::PredictRequest& request) {
  const Signature* signature = servable.FindSignature(request.model_spec().signature_name());
  if (signature == nullptr) {
    return absl::FailedPreconditionError(
        StrCat("Serving signature key \"", request.model_spec().signature_name(), "\" not found."));
  }
  std::vector<Tensor> inputs;
  for (const TensorInfo& info : signature->inputs()) {
    const auto it = request.inputs().find(info.alias);
    if (it == request.inputs().end() && info.default_value.empty()) {
      return absl::InvalidArgumentError(StrCat("input \"", info.alias, "\" is missing"));
    }
    TAKT_ASSIGN_OR_RETURN(Tensor tensor, it == request.inputs().end()
                                             ? TensorFromBytes(info.default_value)
                                             : TensorFromProto(it->second));
    inputs.push_back(std::move(tensor));
  }
  return servable.RunNow(*signature, inputs, RunOptions{}).status();
}

template <typename Result, typename Start>
absl::Status Await(const Start& start) {
  std::promise<absl::Status> done;
  start([&done](absl::StatusOr<Result> result) { done.set_value(result.status()); });
  return done.get_future().get();
}

absl::Status Replay(const std::shared_ptr<Servable>& servable, const tfs::PredictionLog& log) {
  const InferenceOptions options;
  switch (log.log_type_case()) {
    case tfs::PredictionLog::kPredictLog:
      return ReplayPredict(*servable, log.predict_log().request());
    case tfs::PredictionLog::kClassifyLog: {
      const tfs::ClassificationRequest& request = log.classify_log().request();
      return Await<tfs::ClassificationResult>([&](auto done) {
        RunClassify(servable, request.model_spec().signature_name(), request.input(), options,
                    InferenceTerms(), std::move(done));
      });
    }
    case tfs::PredictionLog::kRegressLog: {
      const tfs::RegressionRequest& request = log.regress_log().request();
      return Await<tfs::RegressionResult>([&](auto done) {
        RunRegress(servable, request.model_spec().signature_name(), request.input(), options,
                   InferenceTerms(), std::move(done));
      });
    }
    case tfs::PredictionLog::kMultiInferenceLog:
      return Await<tfs::MultiInferenceResponse>([&](auto done) {
        RunMultiInference(servable, log.multi_inference_log().request(), options, std::nullopt,
                          std::move(done));
      });
    default:
      return absl::UnimplementedError(
          "expected a predict, classify, regress or multi-inference log");
  }
}

}  // namespace

absl::Status WarmUp(const std::shared_ptr<Servable>& servable, const std::string& directory,
                    int iterations) {
  const std::string path = JoinPath(directory, kWarmupFile);
  if (!Exists(path)) return absl::OkStatus();
  TAKT_ASSIGN_OR_RETURN(const std::string content, ReadFile(path, kMaxWarmupBytes));
  std::string_view rest = content;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const TfRecordResult record = ReadTfRecord(rest, kMaxWarmupBytes);
    tfs::PredictionLog log;
    if (record.state != TfRecordState::kRecord ||
        !log.ParseFromArray(record.data.data(), static_cast<int>(record.data.size()))) {
      return absl::DataLossError(StrCat(path, ": record ", number, " is damaged"));
    }
    if (number > kMaxWarmupRequests) {
      return absl::InvalidArgumentError(
          StrCat(path, ": more than ", kMaxWarmupRequests, " warm-up requests"));
    }
    for (int i = 0; i < std::max(1, iterations); ++i) {
      TAKT_RETURN_IF_ERROR(Annotate(Replay(servable, log), StrCat("warm-up request ", number)));
    }
    rest.remove_prefix(record.size);
  }
  return absl::OkStatus();
}

namespace {

// What automatic batching does with signatures of which nothing is proven. One without inputs (an
// initialiser) has nothing that could be shared.
void LogUnproven(const Servable& servable, const BatchingOptions& batching) {
  for (const auto& signature : servable.signatures()) {
    const std::string& why = signature->def().why_rows_may_depend;
    if (why.empty() || signature->inputs().empty()) continue;
    Log(LogLevel::kInfo,
        StrCat("model \"", servable.name(), "\" version ", servable.version(), ", signature \"",
               signature->name(),
               "\": ", batching.needs_proof ? "requests run one by one" : "requests run together",
               ", and it is not proven that rows do not depend on each other: ", why));
  }
}

}  // namespace

LoadServable MakeLoader(Engine& engine, WorkerPool& workers, Metrics& metrics,
                        LoaderOptions options) {
  return [&engine, &workers, &metrics, options = std::move(options)](
             const ModelConfig& model, std::int64_t version,
             const std::string& directory) -> absl::StatusOr<std::shared_ptr<Servable>> {
    const auto begin = std::chrono::steady_clock::now();
    const auto load = [&]() -> absl::StatusOr<std::shared_ptr<Servable>> {
      Servable::Options servable_options;
      servable_options.name = model.name;
      servable_options.version = version;
      servable_options.batching = options.batching;
      const std::string batching_path = JoinPath(directory, kBatchingFile);
      if (options.per_model_batching && Exists(batching_path)) {
        TAKT_ASSIGN_OR_RETURN(const std::string text, ReadFile(batching_path, kMaxConfigBytes));
        absl::StatusOr<BatchingOptions> own = ParseBatchingParameters(text);
        if (!own.ok()) return Annotate(own.status(), batching_path);
        servable_options.batching = *std::move(own);
      }
      const std::optional<BatchingOptions> batching = servable_options.batching;
      LoadOptions load_options;
      load_options.directory = directory;
      load_options.tags = options.tags;
      TAKT_ASSIGN_OR_RETURN(std::unique_ptr<Session> session, engine.Load(load_options));
      TAKT_ASSIGN_OR_RETURN(
          std::shared_ptr<Servable> servable,
          Servable::Create(std::move(session), std::move(servable_options), &workers));
      if (batching.has_value() && batching->automatic) LogUnproven(*servable, *batching);
      if (options.warmup) {
        servable->RunOnZeros();
        TAKT_RETURN_IF_ERROR(WarmUp(servable, directory, options.warmup_iterations));
      }
      return servable;
    };
    absl::StatusOr<std::shared_ptr<Servable>> servable = load();
    metrics.RecordLoad(model.name, servable.status(), std::chrono::steady_clock::now() - begin);
    return servable;
  };
}

}  // namespace takt::serving
