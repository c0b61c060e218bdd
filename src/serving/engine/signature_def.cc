#include "serving/engine/signature_def.h"

#include <algorithm>

#include "base/proto_wire.h"

namespace takt::serving {
namespace {

// Source of the field numbers: tensorflow/core/protobuf/meta_graph.proto, tensor_shape.proto.
struct Entry {
  std::string_view key;
  std::string_view value;
};

bool ReadEntry(std::string_view bytes, Entry& entry) {
  ProtoReader r(bytes);
  while (r.Next()) {
    if (r.type() != WireType::kBytes) continue;  // a field that nobody knows
    if (r.field() == 1) entry.key = r.Bytes();
    if (r.field() == 2) entry.value = r.Bytes();
  }
  return r.ok();
}

bool ReadShape(std::string_view bytes, TensorInfo& info) {
  ProtoReader r(bytes);
  while (r.Next()) {
    if (r.field() == 3 && r.type() == WireType::kVarint) info.unknown_rank = r.Varint() != 0;
    if (r.field() != 2 || r.type() != WireType::kBytes) continue;
    std::int64_t size = 0;
    ProtoReader dim(r.Bytes());
    while (dim.Next()) {
      if (dim.field() == 1 && dim.type() == WireType::kVarint) size = dim.Int64();
    }
    if (!dim.ok()) return false;
    info.dims.push_back(size);
  }
  return r.ok();
}

bool ReadTensorInfo(const Entry& entry, TensorInfo& info) {
  info.alias = entry.key;
  ProtoReader r(entry.value);
  while (r.Next()) {
    const bool is_bytes = r.type() == WireType::kBytes;
    if (r.field() == 1 && is_bytes) info.tensor_name = r.Bytes();
    if (r.field() == 2 && r.type() == WireType::kVarint) {
      info.dtype = static_cast<DataType>(r.Int64());
    }
    if (r.field() == 3 && is_bytes && !ReadShape(r.Bytes(), info)) return false;
  }
  return r.ok();
}

bool ReadSignature(const Entry& entry, SignatureDef& signature) {
  signature.name = entry.key;
  std::vector<Entry> defaults;
  ProtoReader r(entry.value);
  while (r.Next()) {
    if (r.type() != WireType::kBytes) continue;
    if (r.field() == 3) signature.method_name = r.Bytes();
    if (r.field() == 4 && !ReadEntry(r.Bytes(), defaults.emplace_back())) return false;
    if (r.field() != 1 && r.field() != 2) continue;
    Entry tensor;
    TensorInfo info;
    if (!ReadEntry(r.Bytes(), tensor) || !ReadTensorInfo(tensor, info)) return false;
    (r.field() == 1 ? signature.inputs : signature.outputs).push_back(std::move(info));
  }
  auto by_alias = [](const TensorInfo& a, const TensorInfo& b) { return a.alias < b.alias; };
  std::sort(signature.inputs.begin(), signature.inputs.end(), by_alias);
  std::sort(signature.outputs.begin(), signature.outputs.end(), by_alias);
  for (const Entry& value : defaults) {
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
    Entry entry;
    SignatureDef signature;
    ok = ReadEntry(r.Bytes(), entry) && ReadSignature(entry, signature);
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
