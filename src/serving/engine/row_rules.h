// What an operation makes of rows; see row_independence.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "serving/engine/graph_view.h"
#include "serving/engine/row_value.h"

namespace takt::serving {

// A node whose inputs are known.
class RowOp {
 public:
  RowOp(const NodeView& node, std::span<const Value* const> inputs, int& dimensions)
      : node_(node), inputs_(inputs), dimensions_(dimensions) {}
  const NodeView& node() const { return node_; }
  std::size_t size() const { return inputs_.size(); }

  // Errors are FAILED_PRECONDITION with the reason, without the node's name.
  absl::StatusOr<const Value*> In(std::size_t index) const;
  // An input that is rows or constant, not a handle.
  absl::StatusOr<const Value*> Data(std::size_t index) const;
  absl::StatusOr<const Value*> Constant(std::size_t index) const;
  // Numbers that are known now, as they stand in a Const.
  absl::StatusOr<std::vector<std::int64_t>> Literals(std::size_t index) const;
  absl::StatusOr<std::int64_t> Literal(std::size_t index) const;
  // Numbers that may be dimensions or the number of rows; of a constant of one dimension whose
  // length is known also numbers that are not known.
  absl::StatusOr<std::vector<Size>> Ints(std::size_t index) const;
  // An attribute, or the default of the operation where it is left out.
  absl::StatusOr<bool> Bool(std::string_view name, bool otherwise) const;
  absl::StatusOr<std::int64_t> Int(std::string_view name, std::int64_t otherwise) const;
  absl::StatusOr<std::string_view> String(std::string_view name, std::string_view otherwise) const;
  absl::StatusOr<std::vector<std::int64_t>> IntList(std::string_view name) const;
  absl::StatusOr<DataType> Type(std::string_view name, DataType otherwise) const;

  // A dimension about which nothing is known.
  Size NewDimension() const { return Size::Dimension(dimensions_++); }

 private:
  const NodeView& node_;
  std::span<const Value* const> inputs_;
  int& dimensions_;
};

using RowRule = absl::StatusOr<Outputs> (*)(const RowOp& op);
// Null when nothing is known of the operation. Every operation that has a rule is a function of its
// inputs without effects, or only reads (a variable, a table): on constants it gives constants,
// whatever its rule says.
RowRule FindRowRule(std::string_view op);

// The number in the graph of output `index` of the result that is called `name` in a function's
// body; nothing where that is not known.
std::optional<std::size_t> OutputNumber(const NodeView& node, std::string_view name,
                                        std::size_t index);

// What is known when it is one of the two.
absl::StatusOr<Value> Either(const Value& a, const Value& b, const RowOp& op);

}  // namespace takt::serving
