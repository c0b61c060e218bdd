// The Open Inference Protocol, version 2 (KServe, Triton): tensors in its three forms (JSON, binary
// after JSON, protobuf) and what a request asks for. Pure; v2_api.h answers.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "serving/api/json.h"
#include "serving/api/open_inference.pb.h"
#include "serving/engine/engine.h"
#include "serving/servable.h"

namespace takt::serving {

// "FP32", "BYTES", ...; "" for a type that the protocol does not have.
std::string_view V2DataType(DataType dtype);
DataType DataTypeFromV2(std::string_view name);  // kInvalid for an unknown one

struct V2Input {
  std::string name;
  Tensor tensor;
};
struct V2Output {
  std::string name;
  bool binary = false;
};
struct V2Request {
  std::string id;
  std::string signature;  // parameter "signature_name"; "" = serving_default
  std::vector<V2Input> inputs;
  std::vector<V2Output> outputs;  // none = all
  bool binary_by_default = false;
};

// `json_bytes`: length of the JSON part, the rest is binary; nothing = all of it is JSON.
// INVALID_ARGUMENT naming the input and what was expected.
absl::StatusOr<V2Request> V2RequestFromHttp(std::string_view body,
                                            std::optional<std::size_t> json_bytes);
absl::StatusOr<V2Request> V2RequestFromProto(const inference::ModelInferRequest& request);

// The inputs in the signature's order; one that is left out has its default. INVALID_ARGUMENT for a
// missing, unknown or doubled name, or another type than the signature's.
absl::StatusOr<std::vector<Tensor>> V2Inputs(const Signature& signature, const V2Request& request);
// Which outputs are wanted, by index, in the order asked. INVALID_ARGUMENT for an unknown name.
absl::StatusOr<std::vector<std::size_t>> V2Outputs(const Signature& signature,
                                                   const V2Request& request);

struct V2HttpAnswer {
  std::string body;
  std::size_t json_bytes = 0;  // equals body.size() when nothing is binary
};
absl::StatusOr<V2HttpAnswer> V2AnswerForHttp(const Servable& servable, const Signature& signature,
                                             const V2Request& request,
                                             const std::vector<std::size_t>& wanted,
                                             const std::vector<Tensor>& tensors);
absl::StatusOr<inference::ModelInferResponse> V2AnswerForProto(
    const Servable& servable, const Signature& signature, const V2Request& request,
    const std::vector<std::size_t>& wanted, const std::vector<Tensor>& tensors);

}  // namespace takt::serving
