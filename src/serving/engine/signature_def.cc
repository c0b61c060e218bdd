#include "serving/engine/signature_def.h"

#include <algorithm>

#include "base/proto_wire.h"
#include "serving/engine/model_wire.h"

namespace takt::serving {
namespace {

// Source of the field numbers: tensorflow/core/protobuf/meta_graph.proto.
bool ReadTensorInfo(const MapEntry& entry, TensorInfo& info) {
  info.alias = entry.key;
  ProtoReader r(entry.value);
  while (r.Next()) {
    const bool is_bytes = r.type() == WireType::kBytes;
    if (r.field() == 1 && is_bytes) info.tensor_name = r.Bytes();
    if (r.field() == 2 && r.type() == WireType::kVarint) {
      info.dtype = static_cast<DataType>(r.Int64());
    }
    if (r.field() == 3 && is_bytes && !ReadShape(r.Bytes(), info.dims, info.unknown_rank))
      return false;
  }
  return r.ok();
}

bool ReadSignature(const MapEntry& entry, SignatureDef& signature) {
  signature.name = entry.key;
  std::vector<MapEntry> defaults;
  ProtoReader r(entry.value);
  while (r.Next()) {
    if (r.type() != WireType::kBytes) continue;
    if (r.field() == 3) signature.method_name = r.Bytes();
    if (r.field() == 4 && !ReadMapEntry(r.Bytes(), defaults.emplace_back())) return false;
    if (r.field() != 1 && r.field() != 2) continue;
    MapEntry tensor;
    TensorInfo info;
    if (!ReadMapEntry(r.Bytes(), tensor) || !ReadTensorInfo(tensor, info)) return false;
    (r.field() == 1 ? signature.inputs : signature.outputs).push_back(std::move(info));
  }
  auto by_alias = [](const TensorInfo& a, const TensorInfo& b) { return a.alias < b.alias; };
  std::sort(signature.inputs.begin(), signature.inputs.end(), by_alias);
  std::sort(signature.outputs.begin(), signature.outputs.end(), by_alias);
  for (const MapEntry& value : defaults) {
    for (TensorInfo& input : signature.inputs) {
      if (input.alias == value.key) input.default_value = value.value;
    }
  }
  return r.ok();
}

}  // namespace

absl::StatusOr<ParsedSignatures> ParseSignatures(std::string_view meta_graph_def) {
  ParsedSignatures parsed;
  ProtoReader r(meta_graph_def);
  bool ok = true;
  while (ok && r.Next()) {
    if (r.field() != 5 || r.type() != WireType::kBytes) continue;
    MapEntry entry;
    SignatureDef signature;
    ok = ReadMapEntry(r.Bytes(), entry) && ReadSignature(entry, signature);
    if (!ok) break;
    parsed.signatures.push_back(std::move(signature));
    parsed.serialized.emplace_back(entry.key, entry.value);
  }
  if (!ok || !r.ok()) {
    return absl::InvalidArgumentError("the model's MetaGraphDef does not parse");
  }
  std::sort(parsed.signatures.begin(), parsed.signatures.end(),
            [](const SignatureDef& a, const SignatureDef& b) { return a.name < b.name; });
  std::sort(parsed.serialized.begin(), parsed.serialized.end());
  return parsed;
}

}  // namespace takt::serving
