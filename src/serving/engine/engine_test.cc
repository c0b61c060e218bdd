// TensorFlow itself, on the models of tests/serving/models.py.
#include <gtest/gtest.h>

#include "serving/engine/exported_models_for_test.h"

namespace takt::serving {
namespace {

class EngineTest : public OnTensorflow {
 protected:
  static void SetUpTestSuite() { SetUpOn("models.py"); }
  static std::unique_ptr<Session> Load(const std::string& model) {
    auto session = engine_->Load({StrCat(directory_->path(), "/", model), {"serve"}});
    EXPECT_TRUE(session.ok()) << session.status();
    return session.ok() ? *std::move(session) : nullptr;
  }
  static const SignatureDef* Find(const Session& session, std::string_view name) {
    for (const SignatureDef& def : session.signatures()) {
      if (def.name == name) return &def;
    }
    return nullptr;
  }
  static absl::StatusOr<std::vector<Tensor>> RunSignature(Session& session, std::string_view name,
                                                          std::vector<Tensor> inputs) {
    const SignatureDef* def = Find(session, name);
    if (def == nullptr) return absl::NotFoundError("no signature");
    std::vector<std::string> feeds;
    std::vector<std::string> fetches;
    for (const TensorInfo& info : def->inputs) feeds.push_back(info.tensor_name);
    for (const TensorInfo& info : def->outputs) fetches.push_back(info.tensor_name);
    TAKT_ASSIGN_OR_RETURN(auto plan, session.Prepare(feeds, fetches));
    return session.Run(*plan, inputs, {});
  }
};

TEST_F(EngineTest, AModelTellsItsSignatures) {
  auto session = Load("half/00000001");
  ASSERT_NE(session, nullptr);
  const SignatureDef* def = Find(*session, "classify");
  ASSERT_NE(def, nullptr);
  EXPECT_EQ(def->method_name, "tensorflow/serving/classify");
  ASSERT_EQ(def->inputs.size(), 1U);
  EXPECT_EQ(def->inputs[0].alias, "inputs");
  EXPECT_EQ(def->inputs[0].dtype, DataType::kString);
  EXPECT_EQ(def->inputs[0].dims, (Dims{-1}));
  ASSERT_EQ(def->outputs.size(), 2U);
  EXPECT_EQ(def->outputs[0].alias, "classes");
  EXPECT_EQ(def->outputs[1].alias, "scores");
  EXPECT_EQ(session->serialized_signatures().size(), session->signatures().size());
}

TEST_F(EngineTest, NumbersRunInPlace) {
  auto session = Load("half/00000002");
  ASSERT_NE(session, nullptr);
  Tensor x = Tensor::Allocate(DataType::kFloat, {3}).value();
  for (int i = 0; i < 3; ++i) static_cast<float*>(x.mutable_data())[i] = static_cast<float>(i);
  auto outputs = RunSignature(*session, "serving_default", {x});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  ASSERT_EQ(outputs->size(), 1U);
  EXPECT_EQ((*outputs)[0].dims(), (Dims{3}));
  EXPECT_FLOAT_EQ((*outputs)[0].as<float>()[2], 4.0F);
}

TEST_F(EngineTest, StringsGoInAndComeOut) {
  auto session = Load("multi/1");
  ASSERT_NE(session, nullptr);
  const std::string large(100000, 'q');
  for (int round = 0; round < 3; ++round) {
    auto outputs = RunSignature(*session, "text",
                                {Tensor::FromStrings({3}, {"abc", std::string("\0x", 2), large})});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    // length, raw_bytes, upper
    EXPECT_EQ((*outputs)[0].as<std::int32_t>()[1], 2);
    EXPECT_EQ((*outputs)[1].strings()[1], std::string("\0x", 2));
    EXPECT_EQ((*outputs)[2].strings()[0], "ABC");
    EXPECT_EQ((*outputs)[2].strings()[2], std::string(100000, 'Q'));
  }
}

TEST_F(EngineTest, EveryTypeIsTheIdentityOfItself) {
  auto session = Load("types/1");
  ASSERT_NE(session, nullptr);
  int types = 0;
  for (const SignatureDef& def : session->signatures()) {
    if (def.inputs.empty() || def.inputs[0].dtype == DataType::kString) continue;
    const DataType dtype = def.inputs[0].dtype;
    Tensor x = Tensor::Allocate(dtype, {1, 2}).value();
    auto* bytes = static_cast<unsigned char*>(x.mutable_data());
    for (std::size_t i = 0; i < x.bytes(); ++i) bytes[i] = i % 2;
    auto outputs = RunSignature(*session, def.name, {x});
    ASSERT_TRUE(outputs.ok()) << def.name << ": " << outputs.status();
    EXPECT_EQ((*outputs)[0].dtype(), dtype) << def.name;
    ASSERT_EQ((*outputs)[0].bytes(), x.bytes()) << def.name;
    EXPECT_EQ(std::memcmp((*outputs)[0].data(), x.data(), x.bytes()), 0) << def.name;
    ++types;
  }
  EXPECT_EQ(types, 14);
}

TEST_F(EngineTest, TheEnginesErrorsAreKept) {
  auto session = Load("half/00000001");
  ASSERT_NE(session, nullptr);
  auto outputs =
      RunSignature(*session, "serving_default", {Tensor::Allocate(DataType::kInt32, {1}).value()});
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(outputs.status().message(), "Expects arg[0] to be float but int32 is provided");
  EXPECT_EQ(session->Prepare({"nothing:0"}, {}).status().message(),
            "the graph has no tensor \"nothing:0\"");
  EXPECT_EQ(session->Prepare({"flat:7"}, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(engine_->Load({directory_->path() + "/nothing", {"serve"}}).ok());
  EXPECT_FALSE(engine_->Load({directory_->path() + "/half/00000001", {"other"}}).ok());
}

TEST_F(EngineTest, ADeadlineThatPassedStopsTheRun) {
  auto session = Load("half/00000001");
  ASSERT_NE(session, nullptr);
  auto plan = session->Prepare({"flat:0"}, {"y_flat:0"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const Tensor x = Tensor::Allocate(DataType::kFloat, {1}).value();
  RunOptions options;
  options.deadline = std::chrono::steady_clock::now() - std::chrono::seconds(1);
  EXPECT_EQ(session->Run(**plan, std::span(&x, 1), options).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(Engine, ALibraryThatIsNotThereIsNamed) {
  EngineOptions options;
  options.library_directory = "/nowhere";
  const absl::Status status = MakeTensorflowEngine(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("/nowhere/libtensorflow_framework.so.2"), std::string::npos);
}

}  // namespace
}  // namespace takt::serving
