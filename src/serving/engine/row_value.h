// What the proof of row_independence.h knows of a tensor.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"

namespace takt::serving {

// A whole number, as far as it is known before anything runs: factor × dimensions that requests
// choose × the number of rows of the run. Dimensions are those of one row, and what follows from
// them: the same in a run that is shared as in one that is not. Only the number of rows differs.
class Size {
 public:
  static Size Of(std::int64_t number) { return Size(number); }
  // Some number, the same in every run.
  static Size Unknown() {
    Size size(0);
    size.known_ = false;
    return size;
  }
  // A dimension that is not known, by its number; not negative.
  static Size Dimension(int number) {
    Size size(1);
    size.dimensions_.push_back(number);
    return size;
  }
  static Size Rows() {
    Size size(1);
    size.rows_ = true;
    return size;
  }

  bool known() const { return known_; }
  // It differs between runs of few and of many rows.
  bool has_rows() const { return rows_; }
  // Known, and neither of dimensions nor of rows.
  std::optional<std::int64_t> literal() const {
    if (!known_ || rows_ || !dimensions_.empty()) return std::nullopt;
    return factor_;
  }
  bool is(std::int64_t number) const { return literal() == number; }
  // Known to be the same number in each run.
  bool Equals(const Size& other) const {
    return known_ && other.known_ && factor_ == other.factor_ && rows_ == other.rows_ &&
           dimensions_ == other.dimensions_;
  }
  // Whether a dimension can be it: not the -1 of a shape.
  bool CanBeDimension() const { return known_ && factor_ >= 0; }

  Size Times(const Size& other) const;
  // Nothing where it is not known that the rest is none.
  std::optional<Size> DividedBy(const Size& other) const;

 private:
  explicit Size(std::int64_t factor) : factor_(factor) {}
  std::int64_t factor_;
  std::vector<int> dimensions_;  // ascending
  bool rows_ = false;
  bool known_ = true;
};
using Sizes = absl::InlinedVector<Size, 5>;

struct Value {
  enum class Kind {
    kNothing,   // a node that is run for its effect
    kConstant,  // the same in every run, whatever is asked
    kSizes,  // whole numbers that depend on the number of rows, and on nothing else that is asked
    kRows,   // block i of dimension 0 depends on row i of what is asked only
    kEveryRow,  // a bool: whether something is true of each row
    kDead,      // of a branch that is never taken
  };
  Kind kind = Kind::kNothing;
  bool is_handle = false;  // of a variable or a table; `dims` are those of what it holds
  // kRows: dimension 0, a multiple of the number of rows: all blocks are as large.
  Size rows = Size::Rows();
  std::optional<Sizes> dims;  // nothing: not even the rank is known
  // Flat, of whole numbers and bools; one each. kSizes has them always.
  std::optional<std::vector<Size>> ints;

  static Value Nothing() { return {}; }
  static Value Constant(std::optional<Sizes> dims = std::nullopt) {
    Value value;
    value.kind = Kind::kConstant;
    value.dims = std::move(dims);
    return value;
  }
  static Value Rows(Sizes dims) {
    Value value;
    value.kind = Kind::kRows;
    value.rows = dims[0];
    value.dims = std::move(dims);
    return value;
  }
  // kSizes, or kConstant where no number depends on the rows.
  static Value Ints(Sizes dims, std::vector<Size> ints);

  bool is_rows() const { return kind == Kind::kRows; }
  bool is_constant() const { return kind == Kind::kConstant && !is_handle; }
  std::optional<std::int64_t> rank() const {
    if (!dims.has_value()) return std::nullopt;
    return static_cast<std::int64_t>(dims->size());
  }
};

// All outputs of a node, by their number in the graph.
struct Outputs {
  absl::InlinedVector<Value, 1> values;
  // What stands for those beyond `values`; kNothing: they cannot be told.
  Value rest;
};

}  // namespace takt::serving
