// Requests of the Open Inference Protocol in its three forms. What can be read can be answered, in
// JSON and in binary, and the answers hold the same values.
#include <google/protobuf/stubs/logging.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/fuzz_for_test.h"
#include "serving/api/v2_codec.h"
#include "serving/engine/fake_engine.h"

namespace takt::serving {
namespace {

constexpr DataType kTypes[] = {
    DataType::kFloat,  DataType::kBool,   DataType::kInt8,   DataType::kUint8, DataType::kInt16,
    DataType::kHalf,   DataType::kUint16, DataType::kInt32,  DataType::kInt64, DataType::kBfloat16,
    DataType::kUint32, DataType::kUint64, DataType::kDouble, DataType::kString};

// One signature a type, named as the type, from "x" to "y".
std::shared_ptr<Servable> Echo() {
  FakeModel model;
  for (const DataType dtype : kTypes) {
    const std::string name(V2DataType(dtype));
    model.signatures.push_back({{name,
                                 "tensorflow/serving/predict",
                                 {{"x", name + "_x:0", dtype, true, {}}},
                                 {{"y", name + "_y:0", dtype, true, {}}}},
                                nullptr});
  }
  Servable::Options options;
  options.name = "echo";
  options.version = 1;
  return Servable::Create(std::make_unique<FakeSession>(std::move(model)), options, nullptr)
      .value();
}

// Whether several bytes are the same in JSON: of NaN there are many, and of true.
bool HasSynonyms(DataType dtype) {
  return dtype == DataType::kFloat || dtype == DataType::kDouble || dtype == DataType::kHalf ||
         dtype == DataType::kBfloat16 || dtype == DataType::kBool;
}

void Answer(absl::StatusOr<V2Request> request) {
  static const std::shared_ptr<Servable> servable = Echo();
  if (!request.ok()) {
    Require(!request.status().message().empty(), "a refusal says why");
    return;
  }
  for (const auto& signature : servable->signatures()) {
    const auto inputs = V2Inputs(*signature, *request);
    if (!inputs.ok()) continue;
    const auto wanted = V2Outputs(*signature, *request);
    if (!wanted.ok()) return;
    const auto proto = V2AnswerForProto(*servable, *signature, *request, *wanted, *inputs);
    Require(proto.ok(), "what was read can be written");
    request->outputs.clear();
    for (const bool binary : {false, true}) {
      request->binary_by_default = binary;
      request->outputs = {{"y", binary}};
      const auto http = V2AnswerForHttp(*servable, *signature, *request, {0}, *inputs);
      Require(http.ok() && http->json_bytes <= http->body.size(), "an answer has its parts");
      const auto document =
          JsonDocument::Parse(std::string_view(http->body).substr(0, http->json_bytes));
      Require(document.ok() && document->root().IsObject(), "an answer is JSON");
      // The tensor of the answer, asked with, is the tensor that was asked with.
      std::string again(http->body);
      const std::size_t at = again.find("\"outputs\"");
      Require(at != std::string::npos, "an answer has outputs");
      again.replace(at, 9, "\"inputs\"");
      const auto read =
          V2RequestFromHttp(again, binary ? std::optional(http->json_bytes - 1) : std::nullopt);
      Require(read.ok() && read->inputs.size() == 1, "an answer can be read");
      const Tensor &a = (*inputs)[0], &b = read->inputs[0].tensor;
      Require(a.dtype() == b.dtype() && a.dims() == b.dims(), "type and shape survive");
      if (a.dtype() == DataType::kString) {
        // JSON is text: bytes that are none are replaced.
        Require(!binary || a.strings() == b.strings(), "strings survive");
      } else if (a.bytes() > 0 && (binary || !HasSynonyms(a.dtype()))) {
        Require(std::memcmp(a.data(), b.data(), a.bytes()) == 0, "bytes survive");
      }
    }
  }
}

}  // namespace
}  // namespace takt::serving

// Mode, length of the JSON part (two bytes), body.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt::serving;
  [[maybe_unused]] static auto* const log = google::protobuf::SetLogHandler(nullptr);
  if (size < 3) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 3, size - 3);
  switch (takt::Choice(data[0], 3)) {
    case 0:
      Answer(V2RequestFromHttp(body, std::nullopt));
      break;
    case 1:
      Answer(V2RequestFromHttp(body, data[1] | data[2] << 8));
      break;
    default: {
      inference::ModelInferRequest request;
      if (request.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
        Answer(V2RequestFromProto(request));
      }
      break;
    }
  }
  return 0;
}
