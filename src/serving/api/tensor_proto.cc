#include "serving/api/tensor_proto.h"

#include "serving/api/tensor_wire.h"

namespace takt::serving {

absl::StatusOr<Tensor> TensorFromProto(const tensorflow::TensorProto& proto) {
  return TensorFromBytes(proto.SerializeAsString());
}

absl::StatusOr<Tensor> TensorFromBytes(std::string_view proto) {
  WireTensor wire;
  absl::Status status =
      ReadWireTensor(proto, wire) ? CheckWireTensor(wire) : absl::InvalidArgumentError("");
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
