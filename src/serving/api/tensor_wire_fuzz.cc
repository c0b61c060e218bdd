// Any bytes as a TensorProto: what the wire reader makes of them is what protobuf makes of them,
// and what is written can be read.
#include <google/protobuf/stubs/logging.h>

#include <cstring>

#include "base/fuzz_for_test.h"
#include "serving/api/tensor_wire.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace {

using takt::Require;
using takt::serving::DataType;
using takt::serving::Tensor;
using takt::serving::WireTensor;

// Element `i` as its field says, the last value repeated.
template <typename Field>
auto At(const Field& field, std::int64_t i) {
  using Value = std::decay_t<decltype(field[0])>;
  if (field.size() == 0) return Value();
  return field[static_cast<int>(std::min<std::int64_t>(i, field.size() - 1))];
}

template <typename T, typename Field>
void Compare(const Tensor& tensor, const Field& field) {
  for (std::int64_t i = 0; i < tensor.elements(); ++i) {
    const T want = static_cast<T>(At(field, i));
    Require(std::memcmp(&want, tensor.as<T>() + i, sizeof(T)) == 0,
            "a value is as protobuf has it");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  [[maybe_unused]] static auto* const log = google::protobuf::SetLogHandler(nullptr);
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  Require(takt::serving::LargeValuesOffset(bytes) <= size, "an offset lies within the bytes");

  WireTensor wire;
  const bool read = takt::serving::ReadWireTensor(bytes, wire);
  tensorflow::TensorProto proto;
  const bool parsed = proto.ParseFromArray(data, static_cast<int>(size));
  if (!read || !takt::serving::CheckWireTensor(wire).ok()) return 0;
  if (wire.elements > 1 << 16) return 0;
  auto tensor = takt::serving::TensorFromWire(wire, nullptr);
  Require(tensor.ok(), "a checked tensor can be made");
  Require(tensor->elements() == wire.elements, "a tensor has its elements");

  if (parsed && proto.tensor_content().empty() &&
      proto.dtype() == static_cast<int>(tensor->dtype())) {
    Require(
        proto.tensor_shape().dim_size() == tensor->rank() || proto.tensor_shape().unknown_rank(),
        "a tensor has its rank");
    switch (tensor->dtype()) {
      case DataType::kFloat:
        Compare<float>(*tensor, proto.float_val());
        break;
      case DataType::kDouble:
        Compare<double>(*tensor, proto.double_val());
        break;
      case DataType::kInt32:
        Compare<std::int32_t>(*tensor, proto.int_val());
        break;
      case DataType::kInt64:
        Compare<std::int64_t>(*tensor, proto.int64_val());
        break;
      case DataType::kUint8:
        Compare<std::uint8_t>(*tensor, proto.int_val());
        break;
      case DataType::kBool:
        Compare<bool>(*tensor, proto.bool_val());
        break;
      case DataType::kHalf:
        Compare<std::uint16_t>(*tensor, proto.half_val());
        break;
      case DataType::kString:
        for (std::int64_t i = 0; i < tensor->elements(); ++i) {
          Require(tensor->strings()[static_cast<std::size_t>(i)] ==
                      (proto.string_val_size() == 0 ? "" : At(proto.string_val(), i)),
                  "a string is as protobuf has it");
        }
        break;
      default:
        break;
    }
  }

  for (const bool as_content : {false, true}) {
    std::string written;
    takt::serving::AppendTensorProto(*tensor, -1, 0, as_content, written);
    WireTensor again;
    again.dtype = DataType::kInvalid;
    Require(takt::serving::ReadWireTensor(written, again) &&
                takt::serving::CheckWireTensor(again).ok() && again.elements == wire.elements,
            "what is written can be read");
    auto copy = takt::serving::TensorFromWire(again, nullptr);
    Require(copy.ok(), "what is written is a tensor");
    if (tensor->dtype() == DataType::kString) {
      Require(copy->strings() == tensor->strings(), "strings survive");
    } else if (tensor->dtype() == DataType::kBool) {
      for (std::int64_t i = 0; i < tensor->elements(); ++i) {
        Require((tensor->as<char>()[i] != 0) == (copy->as<char>()[i] != 0), "truth survives");
      }
    } else if (tensor->bytes() > 0) {
      Require(std::memcmp(copy->data(), tensor->data(), tensor->bytes()) == 0, "numbers survive");
    }
  }
  return 0;
}
