#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "tensorflow_serving/apis/predict.pb.h"
#include "tensorflow_serving/apis/prediction_service.grpc.pb.h"

// The definitions were taken out of Python packages made for a newer protobuf: that they work with
// this one, on the wire and as stubs, is what this shows.
TEST(TensorflowProtos, MessagesAndStubsWorkWithThisProtobuf) {
  tensorflow::serving::PredictRequest request;
  request.mutable_model_spec()->set_name("mnist");
  (*request.mutable_inputs())["images"].set_dtype(tensorflow::DT_FLOAT);
  tensorflow::serving::PredictRequest parsed;
  ASSERT_TRUE(parsed.ParseFromString(request.SerializeAsString()));
  EXPECT_EQ(parsed.inputs().at("images").dtype(), tensorflow::DT_FLOAT);

  auto stub = tensorflow::serving::PredictionService::NewStub(
      grpc::CreateChannel("unix:/nonexistent.sock", grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  tensorflow::serving::PredictResponse response;
  EXPECT_EQ(stub->Predict(&context, request, &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}
