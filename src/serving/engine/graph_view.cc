#include "serving/engine/graph_view.h"

#include <algorithm>
#include <cstring>

#include "base/proto_wire.h"
#include "serving/engine/model_wire.h"

namespace takt::serving {
namespace {

// Source of the field numbers: tensorflow/core/framework/{attr_value,function,graph,node_def,
// op_def,tensor,tensor_shape}.proto, tensorflow/core/protobuf/meta_graph.proto.
constexpr std::uint32_t kAttrList = 1;
constexpr std::uint32_t kAttrString = 2;
constexpr std::uint32_t kAttrInt = 3;
constexpr std::uint32_t kAttrBool = 5;
constexpr std::uint32_t kAttrType = 6;
constexpr std::uint32_t kAttrShape = 7;
constexpr std::uint32_t kAttrTensor = 8;
constexpr std::uint32_t kAttrFunction = 10;

// Nothing where not even the rank is known.
std::optional<Dimensions> ShapeOf(std::string_view shape) {
  Dimensions dims;
  bool unknown_rank = false;
  if (!ReadShape(shape, dims, unknown_rank) || unknown_rank) return std::nullopt;
  return dims;
}

// Of a repeated number, packed or not.
bool AppendInts(const ProtoReader& r, std::vector<std::int64_t>& out) {
  if (r.type() == WireType::kVarint) {
    out.push_back(r.Int64());
    return true;
  }
  if (r.type() != WireType::kBytes) return false;
  const char* at = r.Bytes().data();
  const char* const end = at + r.Bytes().size();
  while (at != end) {
    std::uint64_t value;
    if (!ReadVarint(at, end, value)) return false;
    out.push_back(static_cast<std::int64_t>(value));
  }
  return true;
}

}  // namespace

// The value when it is the only field that is set.
std::optional<std::string_view> AttrView::Field(std::uint32_t field) const {
  ProtoReader r(bytes_);
  std::optional<std::string_view> value;
  while (r.Next()) {
    if (r.field() != field || r.type() != WireType::kBytes) return std::nullopt;
    value = r.Bytes();
  }
  return r.ok() ? value : std::nullopt;
}

std::optional<std::int64_t> AttrView::Int() const {
  ProtoReader r(bytes_);
  std::optional<std::int64_t> value;
  while (r.Next()) {
    if (r.field() != kAttrInt) return std::nullopt;
    value = r.Int64();
  }
  return r.ok() ? value : std::nullopt;
}

std::optional<bool> AttrView::Bool() const {
  ProtoReader r(bytes_);
  std::optional<bool> value;
  while (r.Next()) {
    if (r.field() != kAttrBool) return std::nullopt;
    value = r.Varint() != 0;
  }
  return r.ok() ? value : std::nullopt;
}

std::optional<DataType> AttrView::Type() const {
  ProtoReader r(bytes_);
  std::optional<DataType> value;
  while (r.Next()) {
    if (r.field() != kAttrType) return std::nullopt;
    value = static_cast<DataType>(r.Int64());
  }
  return r.ok() ? value : std::nullopt;
}

std::optional<std::string_view> AttrView::String() const { return Field(kAttrString); }
std::optional<std::string_view> AttrView::Tensor() const { return Field(kAttrTensor); }

std::optional<std::string_view> AttrView::FunctionName() const {
  const std::optional<std::string_view> function = Field(kAttrFunction);
  if (!function.has_value()) return std::nullopt;
  std::optional<std::string_view> name;
  ProtoReader r(*function);
  while (r.Next()) {
    if (r.field() == 1) name = r.Bytes();
  }
  return r.ok() ? name : std::nullopt;
}

std::optional<Dimensions> AttrView::Shape() const {
  const std::optional<std::string_view> shape = Field(kAttrShape);
  return shape.has_value() ? ShapeOf(*shape) : std::nullopt;
}

std::optional<std::vector<std::int64_t>> AttrView::Ints() const {
  const std::optional<std::string_view> list = Field(kAttrList);
  if (!list.has_value()) return std::nullopt;
  std::vector<std::int64_t> ints;
  ProtoReader r(*list);
  while (r.Next()) {
    if (r.field() != 3 || !AppendInts(r, ints)) return std::nullopt;
  }
  if (!r.ok()) return std::nullopt;
  return ints;
}

std::optional<std::vector<std::optional<Dimensions>>> AttrView::Shapes() const {
  const std::optional<std::string_view> list = Field(kAttrList);
  if (!list.has_value()) return std::nullopt;
  std::vector<std::optional<Dimensions>> shapes;
  ProtoReader r(*list);
  while (r.Next()) {
    if (r.field() != 7) return std::nullopt;
    shapes.push_back(ShapeOf(r.Bytes()));
  }
  if (!r.ok()) return std::nullopt;
  return shapes;
}

TensorView ReadTensor(std::string_view tensor_proto) {
  TensorView tensor;
  tensor.dims.emplace();  // no shape at all is a scalar's
  std::string_view content;
  std::vector<std::int64_t> ints;
  bool readable = true;
  ProtoReader r(tensor_proto);
  while (r.Next()) {
    switch (r.field()) {
      case 1:
        tensor.dtype = static_cast<DataType>(r.Int64());
        break;
      case 2:
        tensor.dims = ShapeOf(r.Bytes());
        break;
      case 4:
        content = r.Bytes();
        break;
      case 7:   // int_val
      case 10:  // int64_val
      case 11:  // bool_val
        readable = readable && AppendInts(r, ints);
        break;
      default:
        break;
    }
  }
  if (!r.ok()) return {};
  const std::optional<std::int64_t> count =
      tensor.dims.has_value() ? ElementCount(*tensor.dims) : std::nullopt;
  if (!count.has_value()) {
    tensor.dims.reset();
    return tensor;
  }
  const bool has_ints = tensor.dtype == DataType::kInt32 || tensor.dtype == DataType::kInt64 ||
                        tensor.dtype == DataType::kBool;
  if (!has_ints || !readable || *count > kMaxLiteralElements) return tensor;
  const auto wanted = static_cast<std::size_t>(*count);
  const std::size_t size = DataTypeSize(tensor.dtype);
  if (!content.empty()) {
    if (content.size() != wanted * size) return tensor;
    ints.clear();
    for (std::size_t i = 0; i < wanted; ++i) {
      const char* const at = content.data() + i * size;
      std::int64_t value = *at;  // a bool
      if (tensor.dtype == DataType::kInt64) std::memcpy(&value, at, size);
      if (tensor.dtype == DataType::kInt32) {
        std::int32_t narrow = 0;
        std::memcpy(&narrow, at, size);
        value = narrow;
      }
      ints.push_back(value);
    }
  }
  // The last value stands for those that are left out; none at all, for zeros.
  if (ints.size() > wanted) return tensor;
  ints.resize(wanted, ints.empty() ? 0 : ints.back());
  tensor.ints = std::move(ints);
  return tensor;
}

std::optional<AttrView> NodeView::Attr(std::string_view wanted) const {
  for (const auto& [key, value] : attrs) {
    if (key == wanted) return AttrView(value);
  }
  return std::nullopt;
}

bool NodesView::Add(std::string_view node_def) {
  ProtoReader r(node_def);
  while (r.Next()) {
    if (r.field() != 1) continue;
    by_name_.emplace(r.Bytes(), nodes_.size());
    nodes_.push_back(node_def);
    return true;
  }
  return false;
}

std::optional<std::size_t> NodesView::Find(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return std::nullopt;
  return found->second;
}

std::optional<NodeView> NodesView::Read(std::size_t index) const {
  NodeView node;
  ProtoReader r(nodes_[index]);
  while (r.Next()) {
    switch (r.field()) {
      case 1:
        node.name = r.Bytes();
        break;
      case 2:
        node.op = r.Bytes();
        break;
      case 3:
        node.inputs.push_back(r.Bytes());
        break;
      case 5: {
        MapEntry entry;
        if (!ReadMapEntry(r.Bytes(), entry)) return std::nullopt;
        node.attrs.emplace_back(entry.key, entry.value);
        break;
      }
      default:
        break;
    }
  }
  if (!r.ok()) return std::nullopt;
  return node;
}

namespace {

// Of OpDef, the names of inputs and outputs.
bool ReadArguments(std::string_view op_def, FunctionView& function) {
  ProtoReader r(op_def);
  while (r.Next()) {
    if (r.field() == 1) function.name = r.Bytes();
    if (r.field() != 2 && r.field() != 3) continue;
    std::string_view name;
    ProtoReader argument(r.Bytes());
    while (argument.Next()) {
      if (argument.field() == 1) name = argument.Bytes();
      // number_attr, type_list_attr: several tensors.
      if (argument.field() == 5 || argument.field() == 6) function.plain = false;
    }
    if (!argument.ok()) return false;
    (r.field() == 2 ? function.inputs : function.outputs).push_back(name);
  }
  return r.ok();
}

}  // namespace

absl::StatusOr<GraphView> GraphView::Open(std::string_view meta_graph_def) {
  GraphView graph;
  bool ok = true;
  ProtoReader meta(meta_graph_def);
  while (ok && meta.Next()) {
    if (meta.field() != 2) continue;
    ProtoReader r(meta.Bytes());
    while (ok && r.Next()) {
      if (r.field() == 1) ok = graph.nodes_.Add(r.Bytes());
      if (r.field() != 2) continue;
      ProtoReader library(r.Bytes());
      while (ok && library.Next()) {
        if (library.field() != 1) continue;
        FunctionView named;
        ProtoReader function(library.Bytes());
        while (function.Next() && named.name.empty()) {
          if (function.field() == 1) ok = ok && ReadArguments(function.Bytes(), named);
        }
        graph.functions_.emplace(named.name, library.Bytes());
      }
      ok = ok && library.ok();
    }
    ok = ok && r.ok();
  }
  if (!ok || !meta.ok()) {
    return absl::InvalidArgumentError("the model's MetaGraphDef does not parse");
  }
  return graph;
}

const FunctionView* GraphView::Function(std::string_view name) {
  if (const auto it = read_.find(name); it != read_.end()) return it->second.get();
  const auto found = functions_.find(name);
  if (found == functions_.end()) return nullptr;
  auto function = std::make_unique<FunctionView>();
  bool ok = true;
  ProtoReader r(found->second);
  while (ok && r.Next()) {
    MapEntry entry;
    switch (r.field()) {
      case 1:
        ok = ReadArguments(r.Bytes(), *function);
        break;
      case 3:
        ok = function->nodes.Add(r.Bytes());
        break;
      case 4:
        ok = ReadMapEntry(r.Bytes(), entry);
        function->returns.emplace(entry.key, entry.value);
        break;
      case 6:
        ok = ReadMapEntry(r.Bytes(), entry);
        function->control_returns.push_back(entry.value);
        break;
      default:
        break;
    }
  }
  if (!ok || !r.ok()) function = nullptr;
  return read_.emplace(found->first, std::move(function)).first->second.get();
}

}  // namespace takt::serving
