// A MetaGraphDef's graph and functions, looked at where they lie: nodes are found by name, and
// what a node says is read when somebody asks for it. The bytes must outlive the views.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "base/status.h"
#include "serving/engine/tensor.h"

namespace takt::serving {

// Of a shape, -1 where one is not known.
using Dimensions = std::vector<std::int64_t>;

// The value of an attribute: an AttrValue's bytes. Each getter returns nothing where the attribute
// holds something else (another type, or the name of an attribute of the function around it).
class AttrView {
 public:
  explicit AttrView(std::string_view bytes) : bytes_(bytes) {}
  std::optional<bool> Bool() const;
  std::optional<std::int64_t> Int() const;
  std::optional<std::string_view> String() const;
  std::optional<DataType> Type() const;
  std::optional<std::vector<std::int64_t>> Ints() const;
  std::optional<std::string_view> FunctionName() const;
  // Nothing where not even the rank is known.
  std::optional<Dimensions> Shape() const;
  std::optional<std::vector<std::optional<Dimensions>>> Shapes() const;
  std::optional<std::string_view> Tensor() const;  // a TensorProto

 private:
  std::optional<std::string_view> Field(std::uint32_t field) const;
  std::string_view bytes_;
};

// What TensorProto says of its tensor. Numbers are read of int32, int64 and bool, and only of
// tensors of at most kMaxLiteralElements.
inline constexpr std::int64_t kMaxLiteralElements = 1024;
struct TensorView {
  DataType dtype = DataType::kInvalid;
  std::optional<Dimensions> dims;                 // nothing: not known
  std::optional<std::vector<std::int64_t>> ints;  // flat
};
TensorView ReadTensor(std::string_view tensor_proto);

struct NodeView {
  std::string_view name;
  std::string_view op;
  absl::InlinedVector<std::string_view, 4> inputs;  // "node:1", "node:out:1", "^node"
  absl::InlinedVector<std::pair<std::string_view, std::string_view>, 8> attrs;

  std::optional<AttrView> Attr(std::string_view name) const;
};

// Nodes that see each other's names: the graph, or the body of a function.
class NodesView {
 public:
  std::size_t size() const { return nodes_.size(); }
  std::optional<std::size_t> Find(std::string_view name) const;
  // Everything that node `index` says; nothing when its bytes are no NodeDef.
  std::optional<NodeView> Read(std::size_t index) const;

 private:
  friend class GraphView;
  bool Add(std::string_view node_def);
  std::vector<std::string_view> nodes_;
  std::unordered_map<std::string_view, std::size_t> by_name_;
};

struct FunctionView {
  std::string_view name;
  NodesView nodes;
  std::vector<std::string_view> inputs;   // names of the arguments, in their order
  std::vector<std::string_view> outputs;  // names of the results, in their order
  std::unordered_map<std::string_view, std::string_view> returns;  // result: "node:out:0"
  std::vector<std::string_view> control_returns;                   // nodes that run in any case
  bool plain = true;  // each argument and result is one tensor
};

class GraphView {
 public:
  // INVALID_ARGUMENT when the bytes are not a MetaGraphDef.
  static absl::StatusOr<GraphView> Open(std::string_view meta_graph_def);
  const NodesView& nodes() const { return nodes_; }
  bool HasFunction(std::string_view name) const { return functions_.contains(name); }
  // Read at the first call; null when there is none, or its bytes are no FunctionDef. Not for
  // several threads at once.
  const FunctionView* Function(std::string_view name);

 private:
  NodesView nodes_;
  std::unordered_map<std::string_view, std::string_view> functions_;  // FunctionDef
  std::unordered_map<std::string_view, std::unique_ptr<FunctionView>> read_;
};

}  // namespace takt::serving
