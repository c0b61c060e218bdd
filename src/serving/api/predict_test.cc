// Predict, asked by a stock grpc++ client over a fake engine. The same over TensorFlow: the vectors
// in tests/.
#include "serving/api/predict.h"

#include <google/protobuf/text_format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "serving/api/tensor_wire.h"
#include "serving/engine/fake_engine.h"
#include "tensorflow_serving/apis/prediction_service.grpc.pb.h"

namespace takt::serving {
namespace {

namespace tf = tensorflow;
using tf::serving::PredictRequest;
using tf::serving::PredictResponse;

TensorInfo Info(const std::string& alias, DataType dtype, Dims dims) {
  return {alias, alias + ":0", dtype, false, std::move(dims)};
}

FakeModel Model() {
  FakeModel model;
  model.signatures.push_back(
      {{"serving_default",
        "tensorflow/serving/predict",
        {Info("x", DataType::kFloat, {-1})},
        {Info("y", DataType::kFloat, {-1})}},
       [](std::span<const Tensor> in) -> absl::StatusOr<std::vector<Tensor>> {
         if (in[0].dtype() != DataType::kFloat) {
           return absl::InvalidArgumentError("Expects arg[0] to be float but " +
                                             DataTypeName(in[0].dtype()) + " is provided");
         }
         TAKT_ASSIGN_OR_RETURN(Tensor y, Tensor::Allocate(DataType::kFloat, in[0].dims()));
         for (std::int64_t i = 0; i < y.elements(); ++i) {
           static_cast<float*>(y.mutable_data())[i] = in[0].as<float>()[i] / 2 + 3;
         }
         return std::vector<Tensor>{y};
       }});
  model.signatures.push_back(
      {{"two",
        "tensorflow/serving/predict",
        {Info("a", DataType::kInt64, {-1}), Info("b", DataType::kString, {-1})},
        {Info("same_a", DataType::kInt64, {-1}), Info("same_b", DataType::kString, {-1})}},
       [](std::span<const Tensor> in) -> absl::StatusOr<std::vector<Tensor>> {
         return std::vector<Tensor>(in.begin(), in.end());
       }});
  model.signatures.push_back(
      {{"any",
        "tensorflow/serving/predict",
        {{"x", "any:0", DataType::kFloat, true, {}}},
        {{"same", "any_out:0", DataType::kFloat, true, {}}}},
       [](std::span<const Tensor> in) -> absl::StatusOr<std::vector<Tensor>> {
         return std::vector<Tensor>(in.begin(), in.end());
       }});
  // x * k, where k is 3 unless the request says another.
  TensorInfo k = Info("k", DataType::kFloat, {});
  tf::TensorProto three;
  three.set_dtype(tf::DT_FLOAT);
  three.mutable_tensor_shape();
  three.add_float_val(3);
  k.default_value = three.SerializeAsString();
  model.signatures.push_back(
      {{"times",
        "tensorflow/serving/predict",
        {k, {"x", "times:0", DataType::kFloat, false, {-1}}},
        {{"y", "times_out:0", DataType::kFloat, false, {-1}}}},
       [](std::span<const Tensor> in) -> absl::StatusOr<std::vector<Tensor>> {
         TAKT_ASSIGN_OR_RETURN(Tensor y, Tensor::Allocate(DataType::kFloat, in[1].dims()));
         for (std::int64_t i = 0; i < y.elements(); ++i) {
           static_cast<float*>(y.mutable_data())[i] = in[1].as<float>()[i] * *in[0].as<float>();
         }
         return std::vector<Tensor>{y};
       }});
  model.signatures.push_back({{"other", "tensorflow/serving/other", {}, {}}, nullptr});
  return model;
}

// Four bytes of room for a number, three of them filled, and another number: the room was overrun.
TEST(WireTensor, ARunThatEndsInsideANumberIsNoTensor) {
  const std::string shape("\x12\x04\x12\x02\x08\x01", 6);
  const std::string run("\x2a\x03\x01\x02\x03", 5), number("\x2d\x01\x02\x03\x04", 5);
  const std::string type("\x08\x01", 2);
  for (const std::string& bytes : {type + shape + run + number, run + number + type + shape}) {
    WireTensor tensor;
    EXPECT_FALSE(ReadWireTensor(bytes, tensor));
  }
}

class PredictTest : public testing::Test {
 protected:
  void SetUp() override {
    loops_ = net::EventLoopPool::Start(2).value();
    net::GrpcServerOptions options;
    options.host = "127.0.0.1";
    server_ = net::GrpcServer::Create(options, loops_->loops());
    RegisterPredict(*server_, directory_, predict_, nullptr);
    ASSERT_TRUE(server_->Start().ok());
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = tf::serving::PredictionService::NewStub(grpc::CreateCustomChannel(
        StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials(), arguments));
    Publish({1, 2});
  }
  void Publish(std::vector<std::int64_t> versions) {
    auto snapshot = std::make_shared<ServableSnapshot>();
    for (std::int64_t version : versions) {
      Servable::Options options;
      options.name = "m";
      options.version = version;
      snapshot->models["m"].versions[version] =
          Servable::Create(std::make_unique<FakeSession>(Model()), options, nullptr).value();
    }
    if (!versions.empty()) snapshot->models["m"].labels["stable"] = versions.front();
    directory_.Publish(std::move(snapshot));
  }
  grpc::Status Ask(const PredictRequest& request, PredictResponse* response) {
    grpc::ClientContext context;
    return stub_->Predict(&context, request, response);
  }
  // The answer as text in one line, or "CODE: message".
  std::string Ask(const std::string& text) {
    PredictRequest request;
    if (!google::protobuf::TextFormat::ParseFromString(text, &request)) return "bad test request";
    PredictResponse response;
    const grpc::Status status = Ask(request, &response);
    if (!status.ok()) {
      return StrCat(CodeName(static_cast<absl::StatusCode>(status.error_code())), ": ",
                    status.error_message());
    }
    return response.ShortDebugString();
  }

  PredictOptions predict_;
  ServableDirectory directory_;
  std::unique_ptr<net::EventLoopPool> loops_;
  std::unique_ptr<net::GrpcServer> server_;
  std::unique_ptr<tf::serving::PredictionService::Stub> stub_;
};

constexpr char kX[] =
    R"(inputs { key: "x" value { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: [1, 2] } })";

TEST_F(PredictTest, AnswersAndErrorsAreTheStockServers) {
  const std::string spec = R"(model_spec { name: "m" } )";
  const std::string y =
      R"(outputs { key: "y" value { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 3.5 float_val: 4 } } )";
  const std::string echo2 =
      R"(model_spec { name: "m" version { value: 2 } signature_name: "serving_default" })";
  auto x = [](const std::string& tensor) {
    return R"(model_spec { name: "m" } inputs { key: "x" value { )" + tensor + " } }";
  };
  struct Case {
    std::string request;
    std::string answer;
  };
  for (
      const Case& c : std::initializer_list<Case>{
          {spec + kX, y + echo2},
          {R"(model_spec { name: "m" version { value: 1 } } )" + std::string(kX),
           y + R"(model_spec { name: "m" version { value: 1 } signature_name: "serving_default" })"},
          {R"(model_spec { name: "m" version_label: "stable" } )" + std::string(kX),
           y + R"(model_spec { name: "m" version { value: 1 } signature_name: "serving_default" })"},
          {R"(model_spec { name: "m" version_label: "none" } )" + std::string(kX),
           "INVALID_ARGUMENT: Unrecognized servable version label: none"},
          {R"(model_spec { name: "m" version { value: 7 } } )" + std::string(kX),
           "NOT_FOUND: Servable not found for request: Specific(m, 7)"},
          {R"(model_spec { name: "n" } )" + std::string(kX),
           "NOT_FOUND: Servable not found for request: Latest(n)"},
          {R"(model_spec { name: "m" signature_name: "none" } )" + std::string(kX),
           "FAILED_PRECONDITION: Serving signature key \"none\" not found."},
          {"", "INVALID_ARGUMENT: Missing ModelSpec"},
          {"model_spec {}", "INVALID_ARGUMENT: ModelSpec has no name specified."},
          {spec,
           "INVALID_ARGUMENT: input size does not match signature: 0!=1 len({}) != len({x}). Sent "
           "extra: {}. Missing but required: {x}."},
          {spec + kX + R"(inputs { key: "z" value { dtype: DT_FLOAT } })",
           "INVALID_ARGUMENT: input size does not match signature: 2!=1 len({x,z}) != len({x}). "
           "Sent extra: {z}. Missing but required: {}."},
          {spec + R"(inputs { key: "z" value { dtype: DT_FLOAT } })",
           "INVALID_ARGUMENT: Signature input alias: x(feed name: x:0) not found in request and no "
           "default value provided. Inputs expected to be in the request {z}, or default input "
           "alias set: "},
          // k is 3 where the request does not say otherwise.
          {R"(model_spec { name: "m" signature_name: "times" } )" + std::string(kX),
           R"(outputs { key: "y" value { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } )"
           R"(float_val: 3 float_val: 6 } } model_spec { name: "m" version { value: 2 } )"
           R"(signature_name: "times" })"},
          {R"(model_spec { name: "m" signature_name: "times" } )" + std::string(kX) +
               R"(inputs { key: "z" value { dtype: DT_FLOAT } })",
           "INVALID_ARGUMENT: Inputs contains invalid name. Used request inputs: x, request input: "
           "x,z"},
          {spec + kX + R"(output_filter: "y")", y + echo2},
          {spec + kX + R"(output_filter: "q")",
           "INVALID_ARGUMENT: output tensor alias not found in signature: q Outputs expected to be "
           "in the set {y}."},
          {spec + kX + R"(output_filter: "y" output_filter: "y")",
           "INVALID_ARGUMENT: duplicate output tensor alias: y"},
          // The last value repeats; none is zero; too many are cut.
          {x("dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 1"),
           R"(outputs { key: "y" value { dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 3.5 float_val: 3.5 } } )" +
               echo2},
          {x("dtype: DT_FLOAT tensor_shape { dim { size: 1 } }"),
           R"(outputs { key: "y" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 3 } } )" +
               echo2},
          {x("dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: [1, 2]"),
           R"(outputs { key: "y" value { dtype: DT_FLOAT tensor_shape { dim { size: 1 } } float_val: 3.5 } } )" +
               echo2},
          {x("dtype: DT_FLOAT tensor_shape { dim { size: 0 } }"),
           R"(outputs { key: "y" value { dtype: DT_FLOAT tensor_shape { dim { } } } } )" + echo2},
          {x(R"(dtype: DT_FLOAT tensor_shape { dim { size: 2 } } tensor_content: "\000\000\200?\000\000\000@")"),
           y + echo2},
          {x(R"(dtype: DT_FLOAT tensor_shape { dim { size: 2 } } tensor_content: "abc")"),
           "INVALID_ARGUMENT: tensor parsing error: x"},
          {x("dtype: DT_FLOAT tensor_shape { dim { size: -1 } }"),
           "INVALID_ARGUMENT: tensor parsing error: x"},
          {x("dtype: DT_FLOAT tensor_shape { unknown_rank: true }"),
           "INVALID_ARGUMENT: tensor parsing error: x"},
          {x("dtype: DT_FLOAT tensor_shape { dim { size: 4611686018427387904 } dim { size: 4 } }"),
           "INVALID_ARGUMENT: tensor parsing error: x"},
          {x("dtype: DT_FLOAT tensor_shape { dim { size: 4611686018427387904 } }"),
           "INVALID_ARGUMENT: tensor parsing error: x"},
          {x("tensor_shape { dim { size: 1 } }"), "INVALID_ARGUMENT: tensor parsing error: x"},
          {x("dtype: DT_FLOAT tensor_shape { dim { size: 100000000 } } float_val: 1"),
           "RESOURCE_EXHAUSTED: a tensor of shape [100000000] takes 400000000 bytes, but the "
           "request holds only 17; values repeat up to 67108864 bytes"},
          {x("dtype: DT_INT32 tensor_shape { dim { size: 1 } } int_val: 1"),
           "INVALID_ARGUMENT: Expects arg[0] to be float but int32 is provided"},
      }) {
    EXPECT_EQ(Ask(c.request), c.answer) << c.request;
  }
}

TEST_F(PredictTest, StringsAndIntegersGoThrough) {
  EXPECT_EQ(
      Ask(R"(model_spec { name: "m" signature_name: "two" }
             inputs { key: "b" value { dtype: DT_STRING tensor_shape { dim { size: 3 } } string_val: "one" string_val: "" } }
             inputs { key: "a" value { dtype: DT_INT64 tensor_shape { dim { size: 2 } } int64_val: -5 int64_val: 9223372036854775807 } })"),
      R"(outputs { key: "same_a" value { dtype: DT_INT64 tensor_shape { dim { size: 2 } } int64_val: -5 int64_val: 9223372036854775807 } } )"
      R"(outputs { key: "same_b" value { dtype: DT_STRING tensor_shape { dim { size: 3 } } string_val: "one" string_val: "" string_val: "" } } )"
      R"(model_spec { name: "m" version { value: 2 } signature_name: "two" })");
}

TEST_F(PredictTest, TensorsOfEverySizeKeepTheirValues) {
  for (const bool content : {false, true}) {
    for (int size : {1, 100, 4000, 4096, 8192, 20000, 65536, 300000, 3000000}) {
      PredictRequest request;
      request.mutable_model_spec()->set_name("m");
      request.mutable_model_spec()->set_signature_name("any");
      tf::TensorProto& x = (*request.mutable_inputs())["x"];
      x.set_dtype(tf::DT_FLOAT);
      x.mutable_tensor_shape()->add_dim()->set_size(size);
      std::vector<float> values(size);
      for (int i = 0; i < size; ++i) values[i] = static_cast<float>(i) * 0.25F;
      if (content) {
        x.set_tensor_content(values.data(), size * sizeof(float));
      } else {
        x.mutable_float_val()->Add(values.begin(), values.end());
      }
      PredictResponse response;
      const grpc::Status status = Ask(request, &response);
      ASSERT_TRUE(status.ok()) << status.error_message();
      const auto& got = response.outputs().at("same").float_val();
      ASSERT_EQ(got.size(), size);
      EXPECT_TRUE(std::equal(got.begin(), got.end(), values.begin())) << size;
    }
  }
}

class StrictPredictTest : public PredictTest {
 protected:
  StrictPredictTest() {
    predict_.max_answer_bytes = 200;
    predict_.check_method_name = true;
  }
};

TEST_F(StrictPredictTest, AnAnswerThatNoMessageHoldsIsRefusedAndTheNextOneIsGiven) {
  const auto ask = [&](int size) {
    return Ask(StrCat(R"(model_spec { name: "m" } inputs { key: "x" value { dtype: DT_FLOAT
                         tensor_shape { dim { size: )",
                      size, " } } float_val: 2 } }"));
  };
  EXPECT_EQ(ask(100),
            "RESOURCE_EXHAUSTED: the answer has 446 bytes, more than the 200 of a message");
  EXPECT_NE(ask(2).find("float_val: 4"), std::string::npos);
}

TEST_F(StrictPredictTest, ASignatureOfAnotherMethodIsRefused) {
  EXPECT_EQ(Ask(R"(model_spec { name: "m" signature_name: "other" })"),
            "INTERNAL: Expected prediction signature method_name to be one of "
            "{tensorflow/serving/predict, tensorflow/serving/classify, "
            "tensorflow/serving/regress}. Was: tensorflow/serving/other");
}

TEST_F(PredictTest, AVersionThatIsPublishedAnswersFromThenOn) {
  const std::string request = R"(model_spec { name: "m" } )" + std::string(kX);
  EXPECT_NE(Ask(request).find("version { value: 2 }"), std::string::npos);
  Publish({2, 3});
  EXPECT_NE(Ask(request).find("version { value: 3 }"), std::string::npos);
  Publish({});
  EXPECT_EQ(Ask(request), "NOT_FOUND: Servable not found for request: Latest(m)");
}

}  // namespace
}  // namespace takt::serving
