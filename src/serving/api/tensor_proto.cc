#include "serving/api/tensor_proto.h"

#include "serving/api/tensor_wire.h"

namespace takt::serving {

absl::StatusOr<Tensor> TensorFromProto(const tensorflow::TensorProto& proto) {
  const std::string bytes = proto.SerializeAsString();
  WireTensor wire;
  absl::Status status =
      ReadWireTensor(bytes, wire) ? CheckWireTensor(wire) : absl::InvalidArgumentError("");
  if (!status.ok()) {
    return absl::Status(status.code(), StrCat("not a tensor of ", DataTypeName(wire.dtype),
                                              ShapeText(wire.dims), ": ", ToStd(status.message())));
  }
  return TensorFromWire(wire, nullptr);
}

tensorflow::TensorProto TensorToProto(const Tensor& tensor) {
  std::string bytes;
  AppendTensorProto(tensor, -1, 0, true, bytes);
  tensorflow::TensorProto proto;
  proto.ParseFromString(bytes);
  return proto;
}

}  // namespace takt::serving
