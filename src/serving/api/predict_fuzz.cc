// Any bytes as a PredictRequest, answered by a model that gives back what it is given: what is
// answered is what protobuf reads out of the request, and what is refused is no valid request.
#include <google/protobuf/stubs/logging.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <semaphore>
#include <string>
#include <string_view>

#include "base/fuzz_for_test.h"
#include "serving/api/predict.h"
#include "serving/api/tensor_proto.h"
#include "serving/engine/fake_engine.h"
#include "tensorflow_serving/apis/predict.pb.h"

namespace takt::serving {
namespace {

namespace tfs = tensorflow::serving;

// Larger tensors are as good as small ones, and slow.
constexpr std::int64_t kMaxElements = 4096;

// Holds the request and keeps the answer.
class Call final : public net::GrpcCall {
 public:
  Call(std::string request, net::EventLoop* loop) : request_(std::move(request)) {
    body_ = request_;
    method_ = "/tensorflow.serving.PredictionService/Predict";
    loop_ = loop;
  }
  void RetainBody() override {}
  std::pair<std::shared_ptr<const void>, std::string_view> ShareBody() override {
    return {std::shared_ptr<const void>(std::shared_ptr<const void>(), this), body_};
  }
  std::size_t request_bytes() const override { return request_.size(); }
  bool body_is_shared() const override { return false; }
  std::string peer() const override { return "unix:"; }
  void Write(std::string_view) override { Require(false, "Predict is no stream"); }

  const std::optional<absl::Status>& status() const { return status_; }

 private:
  void Finish(const absl::Status& status) override {
    Require(!status_.has_value(), "a request is answered once");
    status_ = status;
  }
  void Abandon() override { Require(false, "a request is answered"); }

  const std::string request_;
  std::optional<absl::Status> status_;
};

// Takes what RegisterPredict registers.
class Registry final : public net::GrpcServer {
 public:
  explicit Registry(std::vector<net::EventLoop*> loops) : loops_(std::move(loops)) {}
  void Handle(std::string, net::GrpcHandler handler) override { handler_ = std::move(handler); }
  void HandleStream(std::string, net::GrpcStreamFactory) override {}
  void PlaceBodiesOf(std::string_view, std::function<std::size_t(std::string_view)>) override {}
  void HandleGet(std::string, std::string, std::function<void(PlainAnswer)>) override {}
  absl::Status Start() override { return absl::OkStatus(); }
  std::uint16_t port() const override { return 0; }
  const std::vector<net::EventLoop*>& loops() const override { return loops_; }
  net::GrpcServerStats stats() const override { return {}; }
  std::uint64_t Drain(std::chrono::milliseconds) override { return 0; }

  const net::GrpcHandler& handler() const { return handler_; }

 private:
  const std::vector<net::EventLoop*> loops_;
  net::GrpcHandler handler_;
};

TensorInfo Info(const std::string& signature, const std::string& alias, DataType dtype) {
  return {alias, signature + "_" + alias + ":0", dtype, true, {}};
}

FakeModel Model() {
  const FakeFunction same = [](std::span<const Tensor> in) -> absl::StatusOr<std::vector<Tensor>> {
    return std::vector<Tensor>(in.begin(), in.end());
  };
  FakeModel model;
  model.signatures.push_back({{"serving_default",
                               "tensorflow/serving/predict",
                               {Info("", "x", DataType::kFloat)},
                               {Info("out", "x", DataType::kFloat)}},
                              same});
  tensorflow::TensorProto three;
  three.set_dtype(tensorflow::DT_FLOAT);
  three.add_float_val(3);
  three.mutable_tensor_shape()->add_dim()->set_size(2);
  TensorInfo k = Info("two", "k", DataType::kFloat);
  k.default_value = three.SerializeAsString();
  model.signatures.push_back(
      {{"two",
        "tensorflow/serving/predict",
        {Info("two", "a", DataType::kInt64), k},
        {Info("two_out", "a", DataType::kInt64), Info("two_out", "k", DataType::kFloat)}},
       same});
  return model;
}

struct Fixture {
  Fixture() : loops(net::EventLoopPool::Start(1).value()), registry(loops->loops()) {
    Servable::Options options;
    options.name = "m";
    options.version = 7;
    servable = Servable::Create(std::make_unique<FakeSession>(Model()), options, nullptr).value();
    auto snapshot = std::make_shared<ServableSnapshot>();
    snapshot->models["m"].versions[7] = servable;
    snapshot->models["m"].labels["stable"] = 7;
    directory.Publish(snapshot);
    RegisterPredict(registry, directory, {}, nullptr);
  }
  std::unique_ptr<net::EventLoopPool> loops;
  Registry registry;
  std::shared_ptr<Servable> servable;
  ServableDirectory directory;
  std::binary_semaphore handled{0};
};

bool SameTensor(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.dims() != b.dims()) return false;
  if (a.dtype() == DataType::kString) return a.strings() == b.strings();
  if (a.dtype() == DataType::kBool) {  // any byte but zero is true
    for (std::int64_t i = 0; i < a.elements(); ++i) {
      if ((a.as<char>()[i] != 0) != (b.as<char>()[i] != 0)) return false;
    }
    return true;
  }
  return a.bytes() == 0 || std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

// What the model must answer, by output; nothing where the request must be refused.
using Outputs = std::map<std::string, Tensor>;
std::optional<Outputs> Expected(const tfs::PredictRequest& request) {
  const tfs::ModelSpec& spec = request.model_spec();
  if (!request.has_model_spec() || spec.name() != "m") return std::nullopt;
  if (spec.has_version() && spec.version().value() != 7) return std::nullopt;
  if (!spec.version_label().empty() && spec.version_label() != "stable") return std::nullopt;
  const std::string& signature = spec.signature_name();
  const bool two = signature == "two";
  if (!two && !signature.empty() && signature != "serving_default") return std::nullopt;
  Outputs outputs;
  for (const auto& [alias, proto] : request.inputs()) {
    const auto tensor = TensorFromProto(proto);
    if (!tensor.ok()) return std::nullopt;
    if (two ? alias != "a" && alias != "k" : alias != "x") return std::nullopt;
    outputs[alias] = *tensor;
  }
  if (!outputs.contains(two ? "a" : "x")) return std::nullopt;
  if (two && !outputs.contains("k")) {
    Tensor k = Tensor::Allocate(DataType::kFloat, {2}).value();
    for (int i = 0; i < 2; ++i) static_cast<float*>(k.mutable_data())[i] = 3;
    outputs["k"] = k;
  }
  if (request.output_filter_size() > 0) {
    Outputs chosen;
    for (const std::string& alias : request.output_filter()) {
      if (!outputs.contains(alias) || chosen.contains(alias)) return std::nullopt;
      chosen[alias] = outputs[alias];
    }
    return chosen;
  }
  return outputs;
}

bool IsSmall(const tfs::PredictRequest& request) {
  for (const auto& [alias, proto] : request.inputs()) {
    std::int64_t elements = 1;
    for (const auto& dim : proto.tensor_shape().dim()) {
      if (__builtin_mul_overflow(elements, dim.size(), &elements)) return true;  // refused
    }
    if (elements > kMaxElements) return false;
  }
  return true;
}

}  // namespace
}  // namespace takt::serving

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt::serving;
  using takt::Require;
  [[maybe_unused]] static auto* const log = google::protobuf::SetLogHandler(nullptr);
  static auto* const fixture = new Fixture();

  tfs::PredictRequest request;
  const bool parsed = request.ParseFromArray(data, static_cast<int>(size));
  if (!IsSmall(request)) return 0;
  takt::net::EventLoop* const loop = fixture->loops->loops()[0];
  Call call(std::string(reinterpret_cast<const char*>(data), size), loop);
  loop->Post([&] {
    fixture->registry.handler()(takt::net::GrpcCallPtr(&call));
    fixture->handled.release();
  });
  fixture->handled.acquire();
  Require(call.status().has_value(), "without batching the answer is there at once");
  const absl::Status& status = *call.status();
  if (!parsed) return 0;  // not UTF-8, say: what is no message to protobuf may be one here

  const std::optional<Outputs> expected = Expected(request);
  Require(status.ok() == expected.has_value(), "what protobuf says is valid is answered");
  if (!status.ok()) return 0;
  tfs::PredictResponse response;
  Require(response.ParseFromString(call.response()), "an answer is a PredictResponse");
  Require(response.model_spec().name() == "m" && response.model_spec().version().value() == 7,
          "an answer says who gave it");
  Require(response.outputs_size() == static_cast<int>(expected->size()), "all outputs are there");
  for (const auto& [alias, tensor] : *expected) {
    const auto it = response.outputs().find(alias);
    Require(it != response.outputs().end(), "an output has its name");
    const auto output = TensorFromProto(it->second);
    Require(output.ok() && SameTensor(*output, tensor), "an output is what the input was");
  }
  return 0;
}
