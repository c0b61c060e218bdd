// Classify, Regress and MultiInference over models that answer what a test wants.
#include "serving/api/inference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "serving/engine/fake_engine.h"
#include "tensorflow/core/example/example.pb.h"

namespace takt::serving {
namespace {

namespace tfs = tensorflow::serving;
using testing::HasSubstr;
using testing::StartsWith;

TensorInfo Info(const char* alias, DataType dtype) {
  TensorInfo info;
  info.alias = alias;
  info.tensor_name = StrCat(alias, ":0");
  info.dtype = dtype;
  return info;
}

Tensor Floats(Dims dims) {
  Tensor tensor = Tensor::Allocate(DataType::kFloat, std::move(dims)).value();
  for (std::int64_t i = 0; i < tensor.elements(); ++i) {
    static_cast<float*>(tensor.mutable_data())[i] = static_cast<float>(i) / 2;
  }
  return tensor;
}

// A servable whose signatures give these outputs, whatever they are asked.
struct FakeOutputs {
  std::string name;
  std::vector<std::pair<const char*, Tensor>> outputs;
  const char* input = "inputs";
};
std::shared_ptr<Servable> Make(std::vector<FakeOutputs> signatures) {
  FakeModel model;
  std::sort(signatures.begin(), signatures.end(),
            [](const FakeOutputs& a, const FakeOutputs& b) { return a.name < b.name; });
  for (const FakeOutputs& s : signatures) {
    SignatureDef def;
    def.name = s.name;
    def.inputs = {Info(s.input, DataType::kString)};
    std::vector<Tensor> values;
    for (const auto& [alias, tensor] : s.outputs) {
      def.outputs.push_back(Info(alias, tensor.dtype()));
      values.push_back(tensor);
    }
    model.signatures.emplace_back(
        def, [values](std::span<const Tensor>) -> absl::StatusOr<std::vector<Tensor>> {
          return values;
        });
  }
  Servable::Options options;
  options.name = "m";
  options.version = 3;
  return Servable::Create(std::make_unique<FakeSession>(model), options, nullptr).value();
}

tfs::Input TwoExamples() {
  tfs::Input input;
  input.mutable_example_list()->add_examples();
  input.mutable_example_list()->add_examples();
  return input;
}

template <typename Result, typename Start>
absl::StatusOr<Result> Await(const Start& start) {
  std::promise<absl::StatusOr<Result>> done;
  start([&](absl::StatusOr<Result> result) { done.set_value(std::move(result)); });
  return done.get_future().get();
}

absl::StatusOr<tfs::ClassificationResult> Classify(const std::shared_ptr<Servable>& servable,
                                                   const tfs::Input& input) {
  return Await<tfs::ClassificationResult>(
      [&](auto done) { RunClassify(servable, "s", input, {}, InferenceTerms(), std::move(done)); });
}
absl::StatusOr<tfs::RegressionResult> Regress(const std::shared_ptr<Servable>& servable,
                                              const tfs::Input& input) {
  return Await<tfs::RegressionResult>(
      [&](auto done) { RunRegress(servable, "s", input, {}, InferenceTerms(), std::move(done)); });
}

TEST(Classify, EachOutputThatDoesNotFitIsNamed) {
  const Tensor names = Tensor::FromStrings({2, 2}, {"a", "b", "a", "b"});
  const std::pair<std::vector<std::pair<const char*, Tensor>>, const char*> cases[] = {
      {{{"scores", Floats({4})}}, "Expected Tensor shape: [batch_size num_classes] but got [4]"},
      {{{"scores", Floats({3, 2})}}, "Expected scores output batch size of 2. Got: 3"},
      {{{"classes", Floats({2, 2})}}, "Expected classes Tensor of DT_STRING. Got: DT_FLOAT"},
      {{{"scores", names}}, "Expected scores Tensor of DT_FLOAT. Got: DT_STRING"},
      {{{"classes", names}, {"scores", Floats({2, 3})}},
       "Tensors class and score should match in dim_size(1). Got 2 vs. 3"},
      {{{"other", names}}, "Expected classification signature outputs to contain at least one of"},
      {{{"a", names}, {"b", names}, {"c", names}}, "Expected one or two output Tensors, found 3"},
  };
  for (const auto& [outputs, says] : cases) {
    const auto result = Classify(Make({{"s", outputs}}), TwoExamples());
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << says;
    EXPECT_THAT(std::string(ToStd(result.status().message())), StartsWith(says));
  }
  const auto result =
      Classify(Make({{"s", {{"classes", names}, {"scores", Floats({2, 2})}}}}), TwoExamples());
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->classifications(1).classes(1).label(), "b");
  EXPECT_EQ(result->classifications(1).classes(1).score(), 1.5f);
}

TEST(Regress, EachOutputThatDoesNotFitIsNamed) {
  const std::pair<std::vector<std::pair<const char*, Tensor>>, const char*> cases[] = {
      {{{"outputs", Floats({2, 2})}},
       "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [2,2]"},
      {{{"outputs", Floats({3})}}, "Input batch size did not match output batch size: 2 vs. 3"},
      {{{"outputs", Tensor::FromStrings({2}, {"a", "b"})}},
       "Expected output Tensor of DT_FLOAT.  Got: DT_STRING"},
      {{{"other", Floats({2})}}, "No regression outputs found in SignatureDef: "},
      {{{"a", Floats({2})}, {"b", Floats({2})}}, "Expected one output Tensor."},
  };
  for (const auto& [outputs, says] : cases) {
    const auto result = Regress(Make({{"s", outputs}}), TwoExamples());
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument) << says;
    EXPECT_THAT(std::string(ToStd(result.status().message())), StartsWith(says));
  }
  EXPECT_EQ(
      Regress(Make({{"s", {{"outputs", Floats({2, 1})}}}}), TwoExamples())->regressions(1).value(),
      0.5f);
  EXPECT_EQ(Regress(Make({{"s", {{"outputs", Floats({2})}}}}), {}).status().message(),
            "Input is empty.");
  EXPECT_THAT(
      std::string(ToStd(Regress(Make({{"s", {{"outputs", Floats({2})}}, "x"}}), TwoExamples())
                            .status()
                            .message())),
      HasSubstr("No regression inputs found in SignatureDef: "));
}

tfs::MultiInferenceRequest Tasks(std::vector<std::pair<const char*, const char*>> tasks) {
  tfs::MultiInferenceRequest request;
  *request.mutable_input() = TwoExamples();
  for (const auto& [signature, method] : tasks) {
    tfs::InferenceTask* task = request.add_tasks();
    task->mutable_model_spec()->set_name("m");
    task->mutable_model_spec()->set_signature_name(signature);
    task->set_method_name(StrCat("tensorflow/serving/", method));
  }
  return request;
}

TEST(MultiInference, AnswersEachTaskOrRefusesThemAll) {
  const auto servable = Make({{"c", {{"scores", Floats({2, 2})}}},
                              {"r", {{"outputs", Floats({2})}}},
                              {"z", {{"outputs", Floats({2})}}, "x"}});
  const auto run = [&](const tfs::MultiInferenceRequest& request) {
    return Await<tfs::MultiInferenceResponse>([&](auto done) {
      RunMultiInference(servable, request, {}, std::nullopt, std::move(done));
    });
  };
  const auto both = run(Tasks({{"r", "regress"}, {"c", "classify"}}));
  ASSERT_TRUE(both.ok()) << both.status();
  ASSERT_EQ(both->results_size(), 2);
  EXPECT_EQ(both->results(0).regression_result().regressions_size(), 2);
  EXPECT_EQ(both->results(1).classification_result().classifications_size(), 2);
  EXPECT_EQ(both->results(1).model_spec().signature_name(), "c");
  EXPECT_EQ(both->results(1).model_spec().version().value(), 3);
  EXPECT_EQ(static_cast<const FakeSession&>(servable->session()).runs(), 1);
  ASSERT_TRUE(run(Tasks({{"c", "classify"}, {"r", "regress"}})).ok());
  EXPECT_EQ(static_cast<const FakeSession&>(servable->session()).runs(), 2);

  // More combinations than have their plan kept.
  const auto many = Make({{"a", {{"outputs", Floats({2})}}},
                          {"b", {{"outputs", Floats({2})}}},
                          {"c", {{"outputs", Floats({2})}}},
                          {"d", {{"outputs", Floats({2})}}},
                          {"e", {{"outputs", Floats({2})}}}});
  std::vector<std::pair<const char*, const char*>> order = {
      {"a", "regress"}, {"b", "regress"}, {"c", "regress"}, {"d", "regress"}, {"e", "regress"}};
  std::size_t combinations = 0;
  do {
    const auto response = Await<tfs::MultiInferenceResponse>([&](auto done) {
      RunMultiInference(many, Tasks(order), {}, std::nullopt, std::move(done));
    });
    ASSERT_TRUE(response.ok()) << response.status();
    ASSERT_EQ(response->results_size(), 5);
    EXPECT_EQ(response->results(4).model_spec().signature_name(), order[4].first);
    ++combinations;
  } while (std::next_permutation(order.begin(), order.end(), [](const auto& x, const auto& y) {
    return std::string_view(x.first) < std::string_view(y.first);
  }));
  EXPECT_GT(combinations, kMaxJointPlans);

  const std::pair<tfs::MultiInferenceRequest, const char*> cases[] = {
      {Tasks({{"r", "regress"}, {"r", "regress"}}), "Duplicate evaluation of signature: r"},
      {Tasks({{"none", "regress"}}), "Requested signature not found in model graph: none"},
      {Tasks({{"r", "predict"}}), "Unsupported signature method_name: tensorflow/serving/predict"},
      {Tasks({{"r", "regress"}, {"z", "regress"}}), "No regression inputs found"},
  };
  for (const auto& [request, says] : cases) {
    EXPECT_THAT(std::string(ToStd(run(request).status().message())), StartsWith(says));
  }
  tfs::MultiInferenceRequest two_models = Tasks({{"r", "regress"}, {"c", "classify"}});
  two_models.mutable_tasks(1)->mutable_model_spec()->set_name("n");
  EXPECT_THAT(std::string(ToStd(run(two_models).status().message())),
              StartsWith("All ModelSpecs in a MultiInferenceRequest"));
}

}  // namespace
}  // namespace takt::serving
