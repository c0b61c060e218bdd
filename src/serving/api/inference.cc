#include "serving/api/inference.h"

#include <set>
#include <utility>

#include "tensorflow/core/example/example.pb.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"

namespace takt::serving {
namespace {

namespace tfs = tensorflow::serving;

constexpr std::string_view kClassifyMethod = "tensorflow/serving/classify";
constexpr std::string_view kRegressMethod = "tensorflow/serving/regress";

// The signature as protobuf's debug text, which the original puts into its messages: with the mark
// that its newer protobuf begins such text with.
std::string DebugText(const Servable& servable, const Signature& signature) {
  for (const auto& [name, bytes] : servable.session().serialized_signatures()) {
    if (name != signature.name()) continue;
    tensorflow::SignatureDef def;
    if (def.ParseFromString(bytes)) return StrCat("goo.gle/debugproto   \n", def.DebugString());
  }
  return "";
}

absl::Status CheckMethod(const Signature& signature, std::string_view what,
                         std::string_view expected, const InferenceOptions& options) {
  if (!options.check_method_name || signature.def().method_name == expected) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(StrCat("Expected ", what, " signature method_name to be ",
                                           expected, ". Was: ", signature.def().method_name));
}

absl::Status CheckClassify(const Servable& servable, const Signature& signature,
                           const InferenceOptions& options) {
  TAKT_RETURN_IF_ERROR(CheckMethod(signature, "classification", kClassifyMethod, options));
  if (signature.inputs().size() != 1) {
    return absl::InvalidArgumentError("Expected one input Tensor.");
  }
  if (signature.outputs().empty() || signature.outputs().size() > 2) {
    return absl::InvalidArgumentError(
        StrCat("Expected one or two output Tensors, found ", signature.outputs().size()));
  }
  if (signature.FindInput("inputs") < 0) {
    return absl::InvalidArgumentError(
        StrCat("No classification inputs found in SignatureDef: ", DebugText(servable, signature)));
  }
  if (signature.FindOutput("classes") < 0 && signature.FindOutput("scores") < 0) {
    return absl::InvalidArgumentError(
        StrCat("Expected classification signature outputs to contain at least one of \"classes\" "
               "or \"scores\". Signature was: ",
               DebugText(servable, signature)));
  }
  return absl::OkStatus();
}

absl::Status CheckRegress(const Servable& servable, const Signature& signature,
                          const InferenceOptions& options) {
  TAKT_RETURN_IF_ERROR(CheckMethod(signature, "regression", kRegressMethod, options));
  if (signature.inputs().size() != 1) {
    return absl::InvalidArgumentError("Expected one input Tensor.");
  }
  if (signature.outputs().size() != 1) {
    return absl::InvalidArgumentError("Expected one output Tensor.");
  }
  if (signature.FindInput("inputs") < 0) {
    return absl::InvalidArgumentError(
        StrCat("No regression inputs found in SignatureDef: ", DebugText(servable, signature)));
  }
  if (signature.FindOutput("outputs") < 0) {
    return absl::InvalidArgumentError(
        StrCat("No regression outputs found in SignatureDef: ", DebugText(servable, signature)));
  }
  return absl::OkStatus();
}

// [examples] string: each example serialised, with the context's features merged in.
absl::StatusOr<Tensor> ExamplesTensor(const tfs::Input& input) {
  std::vector<std::string> rows;
  if (input.kind_case() == tfs::Input::kExampleList) {
    for (const tensorflow::Example& example : input.example_list().examples()) {
      rows.push_back(example.SerializeAsString());
    }
  } else if (input.kind_case() == tfs::Input::kExampleListWithContext) {
    const tfs::ExampleListWithContext& list = input.example_list_with_context();
    // Concatenated messages merge: the example's own features win over the context's.
    const std::string context = list.context().SerializeAsString();
    for (const tensorflow::Example& example : list.examples()) {
      rows.push_back(context + example.SerializeAsString());
    }
  }
  if (rows.empty()) return absl::InvalidArgumentError("Input is empty.");
  const auto count = static_cast<std::int64_t>(rows.size());
  return Tensor::FromStrings({count}, std::move(rows));
}

// `spaces`: how many the original puts before "Got".
absl::Status CheckDtype(const Tensor& tensor, DataType expected, std::string_view what,
                        std::string_view spaces) {
  if (tensor.dtype() == expected) return absl::OkStatus();
  const auto name = [](DataType dtype) {
    return tensorflow::DataType_Name(static_cast<tensorflow::DataType>(dtype));
  };
  return absl::InvalidArgumentError(StrCat("Expected ", what, " Tensor of ", name(expected), ".",
                                           spaces, "Got: ", name(tensor.dtype())));
}

absl::StatusOr<tfs::ClassificationResult> ClassifyResult(const Signature& signature,
                                                         const std::vector<Tensor>& outputs,
                                                         std::int64_t examples) {
  const int classes_at = signature.FindOutput("classes");
  const int scores_at = signature.FindOutput("scores");
  const Tensor* classes = classes_at < 0 ? nullptr : &outputs[static_cast<std::size_t>(classes_at)];
  const Tensor* scores = scores_at < 0 ? nullptr : &outputs[static_cast<std::size_t>(scores_at)];
  for (const Tensor* tensor : {classes, scores}) {
    if (tensor == nullptr) continue;
    if (tensor->rank() != 2) {
      return absl::InvalidArgumentError(StrCat(
          "Expected Tensor shape: [batch_size num_classes] but got ", ShapeText(tensor->dims())));
    }
    if (tensor->dims()[0] != examples) {
      return absl::InvalidArgumentError(
          StrCat("Expected ", tensor == classes ? "classes" : "scores", " output batch size of ",
                 examples, ". Got: ", tensor->dims()[0]));
    }
  }
  if (classes != nullptr)
    TAKT_RETURN_IF_ERROR(CheckDtype(*classes, DataType::kString, "classes", " "));
  if (scores != nullptr) TAKT_RETURN_IF_ERROR(CheckDtype(*scores, DataType::kFloat, "scores", " "));
  if (classes != nullptr && scores != nullptr && classes->dims()[1] != scores->dims()[1]) {
    return absl::InvalidArgumentError(
        StrCat("Tensors class and score should match in dim_size(1). Got ", classes->dims()[1],
               " vs. ", scores->dims()[1]));
  }
  if (classes == nullptr && scores == nullptr) {
    return absl::InternalError("the signature has neither classes nor scores");
  }
  const std::int64_t width = (classes != nullptr ? classes : scores)->dims()[1];
  tfs::ClassificationResult result;
  for (std::int64_t row = 0; row < examples; ++row) {
    tfs::Classifications* one = result.add_classifications();
    for (std::int64_t c = 0; c < width; ++c) {
      const auto at = static_cast<std::size_t>(row * width + c);
      tfs::Class* out = one->add_classes();
      if (classes != nullptr) out->set_label(classes->strings()[at]);
      if (scores != nullptr) out->set_score(scores->as<float>()[at]);
    }
  }
  return result;
}

absl::StatusOr<tfs::RegressionResult> RegressResult(const Signature& signature,
                                                    const std::vector<Tensor>& outputs,
                                                    std::int64_t examples) {
  const Tensor& output = outputs[static_cast<std::size_t>(signature.FindOutput("outputs"))];
  if (output.rank() != 1 && !(output.rank() == 2 && output.dims()[1] == 1)) {
    return absl::InvalidArgumentError(
        StrCat("Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got ",
               ShapeText(output.dims())));
  }
  if (output.dims()[0] != examples) {
    return absl::InvalidArgumentError(StrCat(
        "Input batch size did not match output batch size: ", examples, " vs. ", output.dims()[0]));
  }
  TAKT_RETURN_IF_ERROR(CheckDtype(output, DataType::kFloat, "output", "  "));
  tfs::RegressionResult result;
  for (std::int64_t row = 0; row < examples; ++row) {
    result.add_regressions()->set_value(output.as<float>()[row]);
  }
  return result;
}

using Check = absl::Status (*)(const Servable&, const Signature&, const InferenceOptions&);

absl::StatusOr<const Signature*> CheckedSignature(const Servable& servable, std::string_view name,
                                                  Check check, const InferenceOptions& options) {
  const Signature* signature = servable.FindSignature(name);
  if (signature == nullptr) {
    return absl::InvalidArgumentError(StrCat("No signature was found with the name: ",
                                             name.empty() ? kDefaultSignatureName : name));
  }
  TAKT_RETURN_IF_ERROR(check(servable, *signature, options));
  return signature;
}

template <typename Result>
void RunExamples(std::shared_ptr<Servable> servable, std::string_view name, const tfs::Input& input,
                 const InferenceOptions& options, InferenceTerms terms, Check check,
                 absl::StatusOr<Result> (*convert)(const Signature&, const std::vector<Tensor>&,
                                                   std::int64_t),
                 InferenceDone<Result> done) {
  const absl::StatusOr<const Signature*> signature =
      CheckedSignature(*servable, name, check, options);
  if (!signature.ok()) return done(signature.status());
  absl::StatusOr<Tensor> examples = ExamplesTensor(input);
  if (!examples.ok()) return done(examples.status());
  const std::int64_t count = examples->elements();
  RunRequest request;
  request.signature = *signature;
  request.inputs.push_back(*std::move(examples));
  request.deadline = terms.deadline;
  request.queue = std::move(terms.queue);
  Servable& runs = *servable;
  runs.Run(std::move(request),
           [servable = std::move(servable), signature = *signature, count, convert,
            done = std::move(done)](absl::StatusOr<std::vector<Tensor>> outputs) {
             if (!outputs.ok()) return done(outputs.status());
             done(convert(*signature, *outputs, count));
           });
}

// Everything that can be refused is refused before the first run, in the original's order.
absl::Status CheckTasks(const Servable& servable, const tfs::MultiInferenceRequest& request,
                        const InferenceOptions& options) {
  std::set<std::string> seen;
  std::string input_tensor;
  for (const tfs::InferenceTask& task : request.tasks()) {
    if (task.model_spec().name().empty()) {
      return absl::InvalidArgumentError("Found ModelSpec with an empty model name.");
    }
    if (task.model_spec().name() != request.tasks(0).model_spec().name()) {
      return absl::InvalidArgumentError(
          "All ModelSpecs in a MultiInferenceRequest must access the same model name.");
    }
    const std::string& asked = task.model_spec().signature_name();
    const std::string name = asked.empty() ? std::string(kDefaultSignatureName) : asked;
    if (!seen.insert(name).second) {
      return absl::InvalidArgumentError(StrCat("Duplicate evaluation of signature: ", name));
    }
    const Signature* signature = servable.FindSignature(name);
    if (signature == nullptr) {
      return absl::InvalidArgumentError(
          StrCat("Requested signature not found in model graph: ", name));
    }
    if (task.method_name() == kClassifyMethod) {
      TAKT_RETURN_IF_ERROR(CheckClassify(servable, *signature, options));
    } else if (task.method_name() == kRegressMethod) {
      TAKT_RETURN_IF_ERROR(CheckRegress(servable, *signature, options));
    } else {
      return absl::UnimplementedError(
          StrCat("Unsupported signature method_name: ", task.method_name()));
    }
    const std::string& tensor = signature->inputs().front().tensor_name;
    if (!input_tensor.empty() && input_tensor != tensor) {
      return absl::InvalidArgumentError("Input tensor must be the same for all Signatures.");
    }
    input_tensor = tensor;
  }
  return absl::OkStatus();
}

absl::StatusOr<tfs::MultiInferenceResponse> MultiResponse(
    const Servable& servable, const tfs::MultiInferenceRequest& request,
    const std::vector<const Signature*>& signatures, std::vector<Tensor> outputs,
    std::int64_t examples) {
  tfs::MultiInferenceResponse response;
  auto next = outputs.begin();
  for (int i = 0; i < request.tasks_size(); ++i) {
    const Signature& signature = *signatures[static_cast<std::size_t>(i)];
    const auto end = next + static_cast<std::ptrdiff_t>(signature.outputs().size());
    const std::vector<Tensor> own(next, end);
    next = end;
    tfs::InferenceResult* out = response.add_results();
    *out->mutable_model_spec() = EchoSpec(servable, signature.name());
    if (request.tasks(i).method_name() == kClassifyMethod) {
      TAKT_ASSIGN_OR_RETURN(*out->mutable_classification_result(),
                            ClassifyResult(signature, own, examples));
    } else {
      TAKT_ASSIGN_OR_RETURN(*out->mutable_regression_result(),
                            RegressResult(signature, own, examples));
    }
  }
  return response;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Servable>> FindServable(const ServableSnapshot& snapshot,
                                                       const tfs::ModelSpec& spec) {
  std::optional<std::int64_t> version;
  if (spec.has_version()) version = spec.version().value();
  return snapshot.Find(spec.name(), version, spec.version_label());
}

tfs::ModelSpec EchoSpec(const Servable& servable, std::string_view signature) {
  tfs::ModelSpec spec;
  spec.set_name(servable.name());
  spec.mutable_version()->set_value(servable.version());
  spec.set_signature_name(std::string(signature.empty() ? kDefaultSignatureName : signature));
  return spec;
}

void RunClassify(std::shared_ptr<Servable> servable, std::string_view signature,
                 const tfs::Input& input, const InferenceOptions& options, InferenceTerms terms,
                 InferenceDone<tfs::ClassificationResult> done) {
  RunExamples<tfs::ClassificationResult>(std::move(servable), signature, input, options,
                                         std::move(terms), CheckClassify, ClassifyResult,
                                         std::move(done));
}

void RunRegress(std::shared_ptr<Servable> servable, std::string_view signature,
                const tfs::Input& input, const InferenceOptions& options, InferenceTerms terms,
                InferenceDone<tfs::RegressionResult> done) {
  RunExamples<tfs::RegressionResult>(std::move(servable), signature, input, options,
                                     std::move(terms), CheckRegress, RegressResult,
                                     std::move(done));
}

void RunMultiInference(std::shared_ptr<Servable> servable,
                       const tfs::MultiInferenceRequest& request, const InferenceOptions& options,
                       Deadline deadline, InferenceDone<tfs::MultiInferenceResponse> done) {
  if (const absl::Status checked = CheckTasks(*servable, request, options); !checked.ok()) {
    return done(checked);
  }
  if (request.tasks().empty()) return done(tfs::MultiInferenceResponse());
  absl::StatusOr<Tensor> examples = ExamplesTensor(request.input());
  if (!examples.ok()) return done(examples.status());
  const std::int64_t count = examples->elements();
  std::vector<const Signature*> signatures;
  for (const tfs::InferenceTask& task : request.tasks()) {
    signatures.push_back(servable->FindSignature(task.model_spec().signature_name()));
  }
  RunRequest run;
  run.signature = signatures.front();
  run.inputs.push_back(*std::move(examples));
  run.deadline = deadline;
  Servable& runs = *servable;
  runs.RunTogether(
      signatures, std::move(run),
      [servable = std::move(servable), request, signatures, count,
       done = std::move(done)](absl::StatusOr<std::vector<Tensor>> outputs) {
        if (!outputs.ok()) return done(outputs.status());
        done(MultiResponse(*servable, request, signatures, *std::move(outputs), count));
      });
}

}  // namespace takt::serving
