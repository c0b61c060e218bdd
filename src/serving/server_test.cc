// The whole server over a fake engine, asked by stock grpc++ stubs: each call's answer and errors.
#include "serving/server.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "base/fs.h"
#include "serving/engine/fake_engine.h"
#include "tensorflow/core/protobuf/saved_model.pb.h"
#include "tensorflow_serving/apis/model_service.grpc.pb.h"
#include "tensorflow_serving/apis/prediction_service.grpc.pb.h"

namespace takt::serving {
namespace {

namespace tfs = tensorflow::serving;
using testing::HasSubstr;

// y = x + version
FakeModel Model(int version) {
  FakeModel model;
  model.signatures.push_back(
      {{"serving_default",
        "tensorflow/serving/predict",
        {{"x", "x:0", DataType::kFloat, false, {-1}}},
        {{"y", "y:0", DataType::kFloat, false, {-1}}}},
       [version](std::span<const Tensor> in) -> absl::StatusOr<std::vector<Tensor>> {
         TAKT_ASSIGN_OR_RETURN(Tensor y, Tensor::Allocate(DataType::kFloat, in[0].dims()));
         for (std::int64_t i = 0; i < y.elements(); ++i) {
           static_cast<float*>(y.mutable_data())[i] =
               in[0].as<float>()[i] + static_cast<float>(version);
         }
         return std::vector<Tensor>{y};
       }});
  return model;
}

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto engine = std::make_unique<FakeEngine>();
    for (const int version : {1, 2}) {
      const std::string directory = StrCat(base_.path(), "/m/", version);
      ASSERT_TRUE(MakeDirs(directory).ok());
      tensorflow::SavedModel model;
      auto* node = model.add_meta_graphs()->mutable_graph_def()->add_node();
      node->set_name("x");
      node->set_op("Placeholder");
      ASSERT_TRUE(WriteFileAtomic(directory + "/saved_model.pb", model.SerializeAsString()).ok());
      engine->Put(directory, Model(version));
    }
    Flags flags;
    flags.host = "127.0.0.1";
    flags.port = 0;
    flags.model_name = "m";
    flags.model_base_path = base_.path() + "/m";
    auto server = ModelServer::Start(flags, std::move(engine));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto channel = grpc::CreateChannel(StrCat("127.0.0.1:", server_->grpc_port()),
                                       grpc::InsecureChannelCredentials());
    predictions_ = tfs::PredictionService::NewStub(channel);
    models_ = tfs::ModelService::NewStub(channel);
  }

  // Asks by `call` what the text says: the answer as text in one line, or "CODE: message".
  template <typename Request, typename Response, typename Stub>
  static std::string Ask(Stub& stub,
                         grpc::Status (Stub::*call)(grpc::ClientContext*, const Request&,
                                                    Response*),
                         const std::string& text) {
    Request request;
    if (!google::protobuf::TextFormat::ParseFromString(text, &request)) return "bad test request";
    grpc::ClientContext context;
    Response response;
    const grpc::Status status = (stub.*call)(&context, request, &response);
    if (!status.ok()) {
      return StrCat(CodeName(static_cast<absl::StatusCode>(status.error_code())), ": ",
                    status.error_message());
    }
    return response.ShortDebugString();
  }
  std::string Predict(const std::string& text) {
    return Ask(*predictions_, &tfs::PredictionService::Stub::Predict, text);
  }
  std::string Metadata(const std::string& text) {
    return Ask(*predictions_, &tfs::PredictionService::Stub::GetModelMetadata, text);
  }
  std::string Status(const std::string& text) {
    return Ask(*models_, &tfs::ModelService::Stub::GetModelStatus, text);
  }
  std::string Reload(const std::string& text) {
    return Ask(*models_, &tfs::ModelService::Stub::HandleReloadConfigRequest, text);
  }

  TempDir base_;
  std::unique_ptr<ModelServer> server_;
  std::unique_ptr<tfs::PredictionService::Stub> predictions_;
  std::unique_ptr<tfs::ModelService::Stub> models_;
};

constexpr char kX[] = R"( inputs { key: "x" value { dtype: DT_FLOAT float_val: 5 } })";

TEST_F(ServerTest, AStockClientOfCppGetsAnswersAndErrors) {
  EXPECT_THAT(Predict(R"(model_spec { name: "m" })" + std::string(kX)), HasSubstr("float_val: 7"));
  EXPECT_EQ(Predict(kX), "INVALID_ARGUMENT: Missing ModelSpec");
  EXPECT_EQ(Predict(R"(model_spec { name: "m" version { value: 9 } })" + std::string(kX)),
            "NOT_FOUND: Servable not found for request: Specific(m, 9)");
  EXPECT_THAT(Metadata(R"(model_spec { name: "m" } metadata_field: "signature_def")"),
              HasSubstr(R"(model_spec { name: "m" version { value: 2 } })"));
  EXPECT_EQ(Metadata(R"(model_spec { name: "m" } metadata_field: "other")"),
            "INVALID_ARGUMENT: Metadata field other is not supported");
  EXPECT_THAT(Status(R"(model_spec { name: "m" })"),
              HasSubstr("model_version_status { version: 2 state: AVAILABLE status { } }"));
  EXPECT_EQ(Status(R"(model_spec { name: "no" })"),
            "NOT_FOUND: Could not find any versions of model no");
  EXPECT_EQ(Ask(*predictions_, &tfs::PredictionService::Stub::Classify,
                R"(model_spec { name: "m" signature_name: "no" })"),
            "INVALID_ARGUMENT: No signature was found with the name: no");
  EXPECT_EQ(
      Ask(*predictions_, &tfs::PredictionService::Stub::Regress, R"(model_spec { name: "no" })"),
      "NOT_FOUND: Servable not found for request: Latest(no)");
  EXPECT_EQ(Ask(*predictions_, &tfs::PredictionService::Stub::MultiInference, ""),
            "INVALID_ARGUMENT: ModelSpec has no name specified.");
}

TEST_F(ServerTest, AStockClientOfCppReloads) {
  EXPECT_THAT(Reload(""), HasSubstr("INVALID_ARGUMENT: ServerModelConfig type not supported"));
  const std::string config = StrCat(
      R"(config { model_config_list { config { name: "n" model_platform: "tensorflow" base_path: ")",
      base_.path(), R"(/m" model_version_policy { specific { versions: 1 } } } } })");
  EXPECT_EQ(Reload(config), "status { }");
  EXPECT_THAT(Predict(R"(model_spec { name: "n" })" + std::string(kX)), HasSubstr("float_val: 6"));
  EXPECT_EQ(Predict(R"(model_spec { name: "m" })" + std::string(kX)),
            "NOT_FOUND: Servable not found for request: Latest(m)");
}

}  // namespace
}  // namespace takt::serving
