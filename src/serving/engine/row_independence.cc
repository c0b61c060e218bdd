#include "serving/engine/row_independence.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <memory>

#include "serving/engine/graph_view.h"
#include "serving/engine/row_rules.h"

namespace takt::serving {
namespace {

absl::Status No(std::string_view reason) { return absl::FailedPreconditionError(ToAbsl(reason)); }

// "node:1", "node", "node:out:1" or "^node".
struct Reference {
  std::string_view node;
  std::string_view output;  // its name in a function's body
  std::size_t index = 0;
  bool control = false;
};

std::optional<Reference> ParseReference(std::string_view text) {
  Reference reference;
  if (text.starts_with('^')) {
    reference.control = true;
    text.remove_prefix(1);
  }
  const std::size_t first = text.find(':');
  reference.node = text.substr(0, first);
  if (first == std::string_view::npos) return reference;
  const std::size_t last = text.rfind(':');
  if (last > first) reference.output = text.substr(first + 1, last - first - 1);
  const std::string_view digits = text.substr(last + 1);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), reference.index);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return reference;
}

// Numbers that go with a value belong to all of its elements.
absl::Status DropUnclearInts(Value& value) {
  if (!value.ints.has_value()) return absl::OkStatus();
  Size count = Size::Of(1);
  if (value.dims.has_value()) {
    for (const Size& size : *value.dims) count = count.Times(size);
  }
  if (value.dims.has_value() && count.is(static_cast<std::int64_t>(value.ints->size())) &&
      value.ints->size() <= static_cast<std::size_t>(kMaxLiteralElements)) {
    return absl::OkStatus();
  }
  if (value.kind == Value::Kind::kSizes) return No("computes with the number of rows");
  value.ints.reset();
  return absl::OkStatus();
}

class Proof {
 public:
  explicit Proof(GraphView& graph) : graph_(graph) {}

  absl::Status Run(const SignatureDef& signature);

 private:
  struct Node {
    enum class State { kNew, kOpen, kDone };
    State state = State::kNew;
    NodeView view;
    Outputs outputs;
  };
  // Nodes that are evaluated together: the graph, or a function's body for one call.
  struct Frame {
    Frame(const NodesView& nodes, const FunctionView* function, std::vector<Value> arguments,
          int depth)
        : nodes(nodes),
          function(function),
          arguments(std::move(arguments)),
          depth(depth),
          seen(nodes.size()) {}
    const NodesView& nodes;
    const FunctionView* const function;  // null: the graph
    const std::vector<Value> arguments;
    const int depth;
    std::vector<std::unique_ptr<Node>> seen;
    std::map<std::pair<std::size_t, std::size_t>, Value> feeds;  // by node and output

    bool IsFed(std::size_t node) const {
      const auto fed = feeds.lower_bound({node, 0});
      return fed != feeds.end() && fed->first.first == node;
    }
  };

  // The node that has to be evaluated for `reference`; nothing when it is fed or an argument.
  static absl::StatusOr<std::optional<std::size_t>> NodeOf(const Frame& frame,
                                                           const Reference& reference);
  // Null: there is no such output.
  static absl::StatusOr<const Value*> ValueOf(const Frame& frame, const Reference& reference);
  absl::StatusOr<Node*> Open(Frame& frame, std::size_t index);
  // Of a node and of all that it depends on.
  absl::Status Evaluate(Frame& frame, std::size_t root);
  absl::Status Apply(Frame& frame, Node& node);
  absl::StatusOr<Value> Fetch(Frame& frame, std::string_view text);
  absl::StatusOr<Outputs> Call(std::string_view name, std::vector<Value> arguments, int depth);
  bool FailsWhereFalse(const NodeView& branches);
  absl::StatusOr<Outputs> CallOf(const Frame& frame, const Node& node,
                                 std::span<const Value* const> inputs);

  GraphView& graph_;
  int dimensions_ = 0;
  int nodes_ = 0;
};

bool IsCall(std::string_view op) {
  return op == "PartitionedCall" || op == "StatefulPartitionedCall" || op == "If" ||
         op == "StatelessIf";
}

// Why there is no rule, of operations that people ask about.
std::string_view WithoutRule(std::string_view op) {
  if (op == "Placeholder") return "is not fed";
  if (op.find("Assign") != std::string_view::npos) return "writes a variable";
  if (op.find("Random") != std::string_view::npos) return "is random";
  if (op.find("While") != std::string_view::npos || op == "NextIteration") return "is a loop";
  return "it is not known to leave rows apart";
}

absl::StatusOr<std::optional<std::size_t>> Proof::NodeOf(const Frame& frame,
                                                         const Reference& reference) {
  if (frame.function != nullptr) {
    const auto& inputs = frame.function->inputs;
    if (std::find(inputs.begin(), inputs.end(), reference.node) != inputs.end()) {
      return std::nullopt;
    }
  }
  const std::optional<std::size_t> index = frame.nodes.Find(reference.node);
  if (!index.has_value()) return No(StrCat("there is no node \"", reference.node, "\""));
  if (!reference.control) {
    if (frame.feeds.contains({*index, reference.index})) return std::nullopt;
  } else if (frame.IsFed(*index)) {
    // A placeholder is not run where it is fed; other nodes are, for their effects.
    const std::optional<NodeView> node = frame.nodes.Read(*index);
    if (node.has_value() && node->op == "Placeholder") return std::nullopt;
  }
  return index;
}

absl::StatusOr<const Value*> Proof::ValueOf(const Frame& frame, const Reference& reference) {
  if (frame.function != nullptr) {
    const auto& inputs = frame.function->inputs;
    const auto found = std::find(inputs.begin(), inputs.end(), reference.node);
    if (found != inputs.end()) {
      if (reference.index != 0)
        return No(StrCat("argument \"", reference.node, "\" is one tensor"));
      return &frame.arguments[static_cast<std::size_t>(found - inputs.begin())];
    }
  }
  const std::size_t index = *frame.nodes.Find(reference.node);
  const auto fed = frame.feeds.find({index, reference.index});
  if (fed != frame.feeds.end()) return &fed->second;
  const Node& node = *frame.seen[index];
  const std::optional<std::size_t> number =
      reference.output.empty() ? reference.index
                               : OutputNumber(node.view, reference.output, reference.index);
  if (!number.has_value()) {
    return No(StrCat(node.view.op, " \"", node.view.name, "\": its output ", reference.output));
  }
  return *number < node.outputs.values.size() ? &node.outputs.values[*number] : &node.outputs.rest;
}

absl::StatusOr<Proof::Node*> Proof::Open(Frame& frame, std::size_t index) {
  if (frame.seen[index] == nullptr) {
    if (++nodes_ > kMaxProofNodes) {
      return No(StrCat("the graph has more than ", kMaxProofNodes, " nodes"));
    }
    std::optional<NodeView> view = frame.nodes.Read(index);
    if (!view.has_value()) return No("a node does not parse");
    frame.seen[index] = std::make_unique<Node>();
    frame.seen[index]->view = *std::move(view);
  }
  return frame.seen[index].get();
}

absl::Status Proof::Evaluate(Frame& frame, std::size_t root) {
  std::vector<std::size_t> path{root};
  while (!path.empty()) {
    TAKT_ASSIGN_OR_RETURN(Node* const node, Open(frame, path.back()));
    if (node->state == Node::State::kNew) {
      node->state = Node::State::kOpen;
      for (const std::string_view input : node->view.inputs) {
        const std::optional<Reference> reference = ParseReference(input);
        if (!reference.has_value()) return No(StrCat("input \"", input, "\" does not parse"));
        TAKT_ASSIGN_OR_RETURN(const std::optional<std::size_t> index, NodeOf(frame, *reference));
        if (!index.has_value()) continue;
        TAKT_ASSIGN_OR_RETURN(Node* const before, Open(frame, *index));
        if (before->state == Node::State::kOpen) {
          return No(StrCat(before->view.op, " \"", before->view.name, "\": is a loop"));
        }
        if (before->state == Node::State::kNew) path.push_back(*index);
      }
      continue;
    }
    path.pop_back();
    if (node->state == Node::State::kDone) continue;
    TAKT_RETURN_IF_ERROR(Apply(frame, *node));
    node->state = Node::State::kDone;
  }
  return absl::OkStatus();
}

absl::Status Proof::Apply(Frame& frame, Node& node) {
  absl::InlinedVector<const Value*, 4> inputs;
  bool dead = false;
  bool all_constant = true;
  for (const std::string_view input : node.view.inputs) {
    const std::optional<Reference> reference = ParseReference(input);
    if (reference->control) {
      TAKT_ASSIGN_OR_RETURN(const std::optional<std::size_t> index, NodeOf(frame, *reference));
      if (!index.has_value()) continue;
      const Outputs& outputs = frame.seen[*index]->outputs;
      dead = dead || outputs.rest.kind == Value::Kind::kDead;
      continue;
    }
    TAKT_ASSIGN_OR_RETURN(const Value* const value, ValueOf(frame, *reference));
    inputs.push_back(value);
    dead = dead || value->kind == Value::Kind::kDead;
    all_constant = all_constant && value->is_constant();
  }
  if (dead && node.view.op != "Merge") {
    node.outputs.rest.kind = Value::Kind::kDead;
    return absl::OkStatus();
  }
  if (IsCall(node.view.op) || graph_.HasFunction(node.view.op)) {
    TAKT_ASSIGN_OR_RETURN(node.outputs, CallOf(frame, node, inputs));
    return absl::OkStatus();
  }
  const RowRule rule = FindRowRule(node.view.op);
  absl::StatusOr<Outputs> outputs =
      rule == nullptr ? No(WithoutRule(node.view.op)) : rule(RowOp(node.view, inputs, dimensions_));
  if (outputs.ok()) {
    for (Value& value : outputs->values) {
      const absl::Status clear = DropUnclearInts(value);
      if (!clear.ok()) outputs = clear;
      if (!outputs.ok()) break;
    }
  }
  if (!outputs.ok() && rule != nullptr && all_constant) {
    outputs = Outputs();
    outputs->rest = Value::Constant();
  }
  if (!outputs.ok()) {
    return No(
        StrCat(node.view.op, " \"", node.view.name, "\": ", ToStd(outputs.status().message())));
  }
  node.outputs = *std::move(outputs);
  return absl::OkStatus();
}

absl::StatusOr<Value> Proof::Fetch(Frame& frame, std::string_view text) {
  const std::optional<Reference> reference = ParseReference(text);
  if (!reference.has_value() || reference->control) {
    return No(StrCat("\"", text, "\" does not parse"));
  }
  TAKT_ASSIGN_OR_RETURN(const std::optional<std::size_t> index, NodeOf(frame, *reference));
  if (index.has_value()) TAKT_RETURN_IF_ERROR(Evaluate(frame, *index));
  TAKT_ASSIGN_OR_RETURN(const Value* const value, ValueOf(frame, *reference));
  return *value;
}

absl::StatusOr<Outputs> Proof::Call(std::string_view name, std::vector<Value> arguments,
                                    int depth) {
  if (depth > kMaxProofDepth) {
    return No(StrCat("functions call each other more than ", kMaxProofDepth, " deep"));
  }
  const FunctionView* const function = graph_.Function(name);
  if (function == nullptr || !function->plain || function->inputs.size() != arguments.size()) {
    return No(StrCat("function \"", name, "\" is not there, or has other arguments"));
  }
  Frame frame(function->nodes, function, std::move(arguments), depth);
  Outputs outputs;
  for (const std::string_view output : function->outputs) {
    const auto returned = function->returns.find(output);
    if (returned == function->returns.end()) return No(StrCat("function \"", name, "\""));
    TAKT_ASSIGN_OR_RETURN(Value value, Fetch(frame, returned->second));
    outputs.values.push_back(std::move(value));
  }
  // A call runs what has effects, too, whether its outputs need it or not.
  for (const std::string_view control : function->control_returns) {
    const std::optional<std::size_t> index = function->nodes.Find(control);
    if (!index.has_value()) return No(StrCat("there is no node \"", control, "\""));
    TAKT_RETURN_IF_ERROR(Evaluate(frame, *index));
  }
  for (std::size_t i = 0; i < function->nodes.size(); ++i) {
    TAKT_ASSIGN_OR_RETURN(const Node* const node, Open(frame, i));
    if (node->state == Node::State::kDone) continue;
    const std::string_view op = node->view.op;
    if (FindRowRule(op) == nullptr || op == "Assert" || graph_.HasFunction(op)) {
      TAKT_RETURN_IF_ERROR(Evaluate(frame, i));
    }
  }
  return outputs;
}

absl::StatusOr<Outputs> Proof::CallOf(const Frame& frame, const Node& node,
                                      std::span<const Value* const> inputs) {
  const NodeView& view = node.view;
  std::vector<Value> arguments;
  const bool branches = view.op == "If" || view.op == "StatelessIf";
  for (std::size_t i = branches ? 1 : 0; i < inputs.size(); ++i) arguments.push_back(*inputs[i]);
  const auto call = [&](std::string_view attribute) -> absl::StatusOr<Outputs> {
    const std::optional<AttrView> attr = view.Attr(attribute);
    const std::optional<std::string_view> name =
        attr.has_value() ? attr->FunctionName() : std::nullopt;
    if (!name.has_value()) {
      return No(StrCat(view.op, " \"", view.name, "\": its ", attribute, " is not known"));
    }
    return Call(*name, arguments, frame.depth + 1);
  };
  if (graph_.HasFunction(view.op)) return Call(view.op, std::move(arguments), frame.depth + 1);
  if (!branches) return call("f");
  if (!inputs.empty() && inputs[0]->kind == Value::Kind::kEveryRow && FailsWhereFalse(node.view)) {
    TAKT_RETURN_IF_ERROR(call("else_branch").status());
    return call("then_branch");
  }
  if (inputs.empty() || !inputs[0]->is_constant()) {
    return No(StrCat(view.op, " \"", view.name, "\": branches by what is asked"));
  }
  if (inputs[0]->ints.has_value() && inputs[0]->rank() == 0) {
    const std::optional<std::int64_t> chosen = (*inputs[0]->ints)[0].literal();
    if (chosen.has_value()) return call(*chosen != 0 ? "then_branch" : "else_branch");
  }
  TAKT_ASSIGN_OR_RETURN(Outputs outputs, call("then_branch"));
  TAKT_ASSIGN_OR_RETURN(const Outputs otherwise, call("else_branch"));
  const RowOp op(view, inputs, dimensions_);
  for (std::size_t i = 0; i < outputs.values.size(); ++i) {
    if (i >= otherwise.values.size()) return No("branches differ");
    absl::StatusOr<Value> either = Either(outputs.values[i], otherwise.values[i], op);
    if (!either.ok()) return Annotate(either.status(), StrCat(view.op, " \"", view.name, "\""));
    outputs.values[i] = *std::move(either);
  }
  return outputs;
}

// Whether the branch that is taken where the condition is false asserts it, as that of
// tf.debugging.assert_... does: then there is an answer only where it is true.
bool Proof::FailsWhereFalse(const NodeView& branches) {
  const std::optional<AttrView> attr = branches.Attr("else_branch");
  const std::optional<std::string_view> name =
      attr.has_value() ? attr->FunctionName() : std::nullopt;
  const FunctionView* const branch = name.has_value() ? graph_.Function(*name) : nullptr;
  if (branch == nullptr) return false;
  // What the branch runs in any case: what its results need, and what it lists as having effects.
  std::vector<std::string_view> references(branch->control_returns);
  for (const auto& [result, reference] : branch->returns) references.push_back(reference);
  std::vector<bool> seen(branch->nodes.size());
  bool asserts = false;
  while (!references.empty()) {
    const std::optional<Reference> reference = ParseReference(references.back());
    references.pop_back();
    if (!reference.has_value()) return false;
    const std::optional<std::size_t> index = branch->nodes.Find(reference->node);
    if (!index.has_value() || seen[*index]) continue;
    seen[*index] = true;
    const std::optional<NodeView> node = branch->nodes.Read(*index);
    if (!node.has_value() || node->op == "Switch") return false;
    references.insert(references.end(), node->inputs.begin(), node->inputs.end());
    if (node->op != "Assert" || node->inputs.empty()) continue;
    const auto argument = std::find(branch->inputs.begin(), branch->inputs.end(), node->inputs[0]);
    const auto input = static_cast<std::size_t>(argument - branch->inputs.begin()) + 1;
    asserts = asserts || (argument != branch->inputs.end() && input < branches.inputs.size() &&
                          branches.inputs[input] == branches.inputs[0]);
  }
  return asserts;
}

absl::Status Proof::Run(const SignatureDef& signature) {
  Frame frame(graph_.nodes(), nullptr, {}, 0);
  if (signature.inputs.empty()) return No("it has no inputs");
  for (const TensorInfo& input : signature.inputs) {
    const std::optional<Reference> reference = ParseReference(input.tensor_name);
    const std::optional<std::size_t> index =
        reference.has_value() ? graph_.nodes().Find(reference->node) : std::nullopt;
    if (!index.has_value()) return No(StrCat("the graph has no \"", input.tensor_name, "\""));
    Value value;
    value.kind = Value::Kind::kRows;
    if (!input.unknown_rank) {
      if (input.dims.empty() || input.dims[0] >= 0) {
        return No(StrCat("input \"", input.alias, "\" has no dimension for rows"));
      }
      value.dims = Sizes{Size::Rows()};
      for (std::size_t i = 1; i < input.dims.size(); ++i) {
        value.dims->push_back(input.dims[i] < 0 ? Size::Dimension(dimensions_++)
                                                : Size::Of(input.dims[i]));
      }
    }
    frame.feeds[{*index, reference->index}] = std::move(value);
  }
  for (const TensorInfo& output : signature.outputs) {
    TAKT_ASSIGN_OR_RETURN(const Value value, Fetch(frame, output.tensor_name));
    if (!value.is_rows()) {
      return No(StrCat("output \"", output.alias, "\" (", output.tensor_name, ") has no rows"));
    }
    if (!value.rows.Equals(Size::Rows())) {
      return No(StrCat("output \"", output.alias, "\" (", output.tensor_name,
                       ") has not one row for each row of the inputs"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> WhyRowsMayDepend(std::string_view meta_graph_def,
                                          std::span<const SignatureDef> signatures) {
  absl::StatusOr<GraphView> graph = GraphView::Open(meta_graph_def);
  std::vector<std::string> reasons;
  for (const SignatureDef& signature : signatures) {
    const absl::Status status = graph.ok() ? Proof(*graph).Run(signature) : graph.status();
    reasons.emplace_back(ToStd(status.message()));
    if (!status.ok() && reasons.back().empty()) reasons.back() = "it could not be looked at";
  }
  return reasons;
}

}  // namespace takt::serving
