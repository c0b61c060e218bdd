#include <gtest/gtest.h>

#include "base/fs.h"
#include "base/tfrecord.h"
#include "plot.h"
#include "requests.h"
#include "tensorflow_serving/apis/predict.pb.h"
#include "tensorflow_serving/apis/prediction_log.pb.h"

namespace takt {
namespace {

std::string TfRecordOf(const std::string& data) {
  std::string record;
  AppendTfRecord(data, record);
  return record;
}

TEST(TaktLoad, ARequestAsJsonOrAsItsBytes) {
  TempDir dir;
  const std::string json = dir.path() + "/r.json";
  ASSERT_TRUE(WriteFileAtomic(json, R"({"model_spec": {"name": "m"}, "inputs": {"x":
      {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "2"}]}, "float_val": [1, 2.5]}}})")
                  .ok());
  auto requests = RequestFromFile(json);
  ASSERT_TRUE(requests.ok()) << requests.status();
  tensorflow::serving::PredictRequest request;
  ASSERT_TRUE(request.ParseFromString(requests->at(0)));
  EXPECT_EQ(request.inputs().at("x").float_val(1), 2.5F);

  const std::string binary = dir.path() + "/r.bin";
  ASSERT_TRUE(WriteFileAtomic(binary, requests->at(0)).ok());
  EXPECT_EQ(RequestFromFile(binary).value(), *requests);

  ASSERT_TRUE(WriteFileAtomic(json, R"({"inputs": 5})").ok());
  EXPECT_EQ(RequestFromFile(json).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RequestFromFile(dir.path() + "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST(TaktLoad, ALogsPredictRequestsInTheirOrder) {
  TempDir dir;
  const std::string path = dir.path() + "/log";
  std::string log;
  for (const char* name : {"a", "b"}) {
    tensorflow::serving::PredictionLog entry;
    entry.mutable_predict_log()->mutable_request()->mutable_model_spec()->set_name(name);
    log += TfRecordOf(entry.SerializeAsString());
  }
  tensorflow::serving::PredictionLog other;
  other.mutable_classify_log();
  log += TfRecordOf(other.SerializeAsString());
  ASSERT_TRUE(WriteFileAtomic(path, log).ok());
  auto requests = RequestsFromLog(path);
  ASSERT_TRUE(requests.ok()) << requests.status();
  ASSERT_EQ(requests->size(), 2U);
  tensorflow::serving::PredictRequest request;
  ASSERT_TRUE(request.ParseFromString(requests->at(1)));
  EXPECT_EQ(request.model_spec().name(), "b");

  ASSERT_TRUE(WriteFileAtomic(path, log.substr(0, log.size() - 3)).ok());
  EXPECT_EQ(RequestsFromLog(path).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(WriteFileAtomic(path, TfRecordOf(other.SerializeAsString())).ok());
  EXPECT_EQ(RequestsFromLog(path).status().message(), path + ": holds no Predict requests");
}

TEST(TaktLoad, ARequestAsTheRestApiTakesIt) {
  const auto body = [](const tensorflow::serving::PredictRequest& request) {
    const auto http = AsHttp("h:1", {request.SerializeAsString()});
    return http.ok() ? http->front().substr(http->front().find("\r\n\r\n") + 4)
                     : std::string(ToStd(http.status().message()));
  };
  tensorflow::serving::PredictRequest request;
  request.mutable_model_spec()->set_name("m");
  request.mutable_model_spec()->mutable_version()->set_value(3);
  auto& x = (*request.mutable_inputs())["x"];
  x.set_dtype(tensorflow::DT_FLOAT);
  for (const int size : {2, 2}) x.mutable_tensor_shape()->add_dim()->set_size(size);
  for (const float value : {1.0F, 0.1F}) x.add_float_val(value);  // the last one is repeated
  EXPECT_TRUE(AsHttp("h:1", {request.SerializeAsString()})
                  ->front()
                  .starts_with("POST /v1/models/m/versions/3:predict HTTP/1.1\r\nHost: h:1\r\n"));
  EXPECT_EQ(body(request), "{\"instances\": [[1, 0.1], [0.1, 0.1]]}");

  auto& text = (*request.mutable_inputs())["text"];
  text.set_dtype(tensorflow::DT_STRING);
  text.mutable_tensor_shape()->add_dim()->set_size(2);
  text.add_string_val("plain");
  text.add_string_val("\xff");
  x.clear_float_val();
  x.mutable_tensor_shape()->mutable_dim()->DeleteSubrange(1, 1);
  x.set_tensor_content(std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  request.mutable_model_spec()->set_signature_name("s");
  const std::string both = body(request);
  EXPECT_NE(both.find("{\"signature_name\": \"s\", \"inputs\": {"), std::string::npos) << both;
  EXPECT_NE(both.find("\"x\": [1, 2]"), std::string::npos) << both;
  EXPECT_NE(both.find("\"text\": [\"plain\", {\"b64\": \"/w==\"}]"), std::string::npos) << both;

  x.set_dtype(tensorflow::DT_COMPLEX64);
  EXPECT_EQ(body(request), "no JSON form of DT_COMPLEX64");
  x.set_dtype(tensorflow::DT_FLOAT);
  x.mutable_tensor_shape()->mutable_dim(0)->set_size(kMaxJsonValues + 1);
  EXPECT_NE(body(request).find("a tensor of more than"), std::string::npos);
}

TEST(TaktLoad, ThePlotMarksWhereAnotherVersionAnswers) {
  tensorflow::serving::PredictResponse response;
  response.mutable_model_spec()->mutable_version()->set_value(7);
  EXPECT_EQ(VersionOf(response.SerializeAsString()), 7);
  EXPECT_FALSE(VersionOf("").has_value());
  std::vector<PlotPoint> points;
  for (int i = 1; i <= 4; ++i) {
    points.push_back({{static_cast<double>(i), 100, 0, 50.0 * i, 900.0 * i}, i < 3 ? 1 : 2});
  }
  const std::string svg = PlotSvg(points);
  EXPECT_TRUE(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find(">version 2<"), std::string::npos);
  EXPECT_EQ(svg.find(">version 1<"), std::string::npos);
  EXPECT_TRUE(PlotSvg({}).ends_with("</svg>\n"));
}

}  // namespace
}  // namespace takt
