#include "serving/engine/row_rules.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <unordered_map>

namespace takt::serving {

// ---- Sizes and values

Size Size::Times(const Size& other) const {
  if (is(0) || other.is(0)) return Of(0);
  Size product(0);
  product.rows_ = rows_ || other.rows_;
  product.known_ = known_ && other.known_ && !(rows_ && other.rows_) &&
                   !__builtin_mul_overflow(factor_, other.factor_, &product.factor_);
  if (!product.known_) return product;
  product.dimensions_ = dimensions_;
  product.dimensions_.insert(product.dimensions_.end(), other.dimensions_.begin(),
                             other.dimensions_.end());
  std::sort(product.dimensions_.begin(), product.dimensions_.end());
  return product;
}

std::optional<Size> Size::DividedBy(const Size& other) const {
  if (!known_ || !other.known_ || other.factor_ == 0 || factor_ % other.factor_ != 0 ||
      (other.rows_ && !rows_)) {
    return std::nullopt;
  }
  Size quotient(factor_ / other.factor_);
  quotient.rows_ = rows_ && !other.rows_;
  if (!std::includes(dimensions_.begin(), dimensions_.end(), other.dimensions_.begin(),
                     other.dimensions_.end())) {
    return std::nullopt;
  }
  std::set_difference(dimensions_.begin(), dimensions_.end(), other.dimensions_.begin(),
                      other.dimensions_.end(), std::back_inserter(quotient.dimensions_));
  return quotient;
}

Value Value::Ints(Sizes dims, std::vector<Size> ints) {
  Value value;
  const bool of_rows =
      std::any_of(ints.begin(), ints.end(), [](const Size& size) { return size.has_rows(); });
  value.kind = of_rows ? Kind::kSizes : Kind::kConstant;
  value.dims = std::move(dims);
  value.ints = std::move(ints);
  return value;
}

namespace {

using Status = absl::Status;
template <typename T>
using Or = absl::StatusOr<T>;

Status No(std::string_view reason) { return absl::FailedPreconditionError(ToAbsl(reason)); }

constexpr std::string_view kOverRows = "over dimension 0, where the rows are";
constexpr std::string_view kUnknownRank = "an input has an unknown number of dimensions";
constexpr std::string_view kBeforeRows = "puts a dimension before that of the rows";
constexpr std::string_view kNumberOfRows = "computes with the number of rows";

}  // namespace

// ---- A node's inputs and attributes

Or<const Value*> RowOp::In(std::size_t index) const {
  if (index >= inputs_.size()) return No(StrCat("has no input ", index));
  return inputs_[index];
}

Or<const Value*> RowOp::Data(std::size_t index) const {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, In(index));
  if (value->is_rows() || value->is_constant()) return value;
  switch (value->kind) {
    case Value::Kind::kSizes:
      return No(kNumberOfRows);
    case Value::Kind::kEveryRow:
      return No("computes with what is true of all rows");
    default:
      return No(StrCat("input ", index, " is no tensor"));
  }
}

Or<const Value*> RowOp::Constant(std::size_t index) const {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, Data(index));
  if (value->is_rows()) return No(StrCat("input ", index, " depends on what is asked"));
  return value;
}

Or<std::vector<std::int64_t>> RowOp::Literals(std::size_t index) const {
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> sizes, Ints(index));
  std::vector<std::int64_t> literals;
  for (const Size& size : sizes) {
    if (!size.literal().has_value()) return No(StrCat("input ", index, " is not known"));
    literals.push_back(*size.literal());
  }
  return literals;
}

Or<std::int64_t> RowOp::Literal(std::size_t index) const {
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> literals, Literals(index));
  if (literals.size() != 1) return No(StrCat("input ", index, " is not one number"));
  return literals[0];
}

Or<std::vector<Size>> RowOp::Ints(std::size_t index) const {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, In(index));
  if (value->kind == Value::Kind::kSizes) return *value->ints;
  if (!value->is_constant()) return No(StrCat("input ", index, " depends on what is asked"));
  if (value->ints.has_value()) return *value->ints;
  if (value->rank() == 0) return std::vector<Size>{Size::Unknown()};
  if (value->rank() == 1) {
    const std::optional<std::int64_t> length = (*value->dims)[0].literal();
    if (length.has_value() && *length >= 0 && *length <= kMaxLiteralElements) {
      return std::vector<Size>(static_cast<std::size_t>(*length), Size::Unknown());
    }
  }
  return No(StrCat("input ", index, " is not known"));
}

Or<bool> RowOp::Bool(std::string_view name, bool otherwise) const {
  const std::optional<AttrView> attr = node_.Attr(name);
  if (!attr.has_value()) return otherwise;
  const std::optional<bool> value = attr->Bool();
  if (!value.has_value()) return No(StrCat("its ", name, " is not known"));
  return *value;
}

Or<std::int64_t> RowOp::Int(std::string_view name, std::int64_t otherwise) const {
  const std::optional<AttrView> attr = node_.Attr(name);
  if (!attr.has_value()) return otherwise;
  const std::optional<std::int64_t> value = attr->Int();
  if (!value.has_value()) return No(StrCat("its ", name, " is not known"));
  return *value;
}

Or<std::string_view> RowOp::String(std::string_view name, std::string_view otherwise) const {
  const std::optional<AttrView> attr = node_.Attr(name);
  if (!attr.has_value()) return otherwise;
  const std::optional<std::string_view> value = attr->String();
  if (!value.has_value()) return No(StrCat("its ", name, " is not known"));
  return *value;
}

Or<std::vector<std::int64_t>> RowOp::IntList(std::string_view name) const {
  const std::optional<AttrView> attr = node_.Attr(name);
  if (!attr.has_value()) return std::vector<std::int64_t>();
  std::optional<std::vector<std::int64_t>> value = attr->Ints();
  if (!value.has_value()) return No(StrCat("its ", name, " is not known"));
  return *std::move(value);
}

Or<DataType> RowOp::Type(std::string_view name, DataType otherwise) const {
  const std::optional<AttrView> attr = node_.Attr(name);
  if (!attr.has_value()) return otherwise;
  const std::optional<DataType> value = attr->Type();
  if (!value.has_value()) return No(StrCat("its ", name, " is not known"));
  return *value;
}

namespace {

Outputs One(Value value) {
  Outputs outputs;
  outputs.values.push_back(std::move(value));
  return outputs;
}

// As `like`, of other dimensions behind the first.
Value Shaped(const Value& like, Sizes dims) {
  return like.is_rows() ? Value::Rows(std::move(dims)) : Value::Constant(std::move(dims));
}

Value Vector(std::vector<Size> ints) {
  const auto length = static_cast<std::int64_t>(ints.size());
  return Value::Ints({Size::Of(length)}, std::move(ints));
}

// `value` without its numbers.
Value WithoutInts(const Value& value) {
  Value plain = value;
  plain.ints.reset();
  return plain;
}

// 0 <= axis < rank.
Or<std::size_t> Axis(std::int64_t axis, std::int64_t rank) {
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) return No("its axis is out of range");
  return static_cast<std::size_t>(axis);
}

Or<std::int64_t> RankOf(const Value& value) {
  if (!value.rank().has_value()) return No(kUnknownRank);
  return *value.rank();
}

// An axis of `value` along which something is mixed, dropped or looked up.
Or<std::size_t> AxisBesideRows(const Value& value, std::int64_t axis) {
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(value));
  TAKT_ASSIGN_OR_RETURN(const std::size_t index, Axis(axis, rank));
  if (index == 0 && value.is_rows()) return No(kOverRows);
  return index;
}

Size Product(std::span<const Size> sizes) {
  Size product = Size::Of(1);
  for (const Size& size : sizes) product = product.Times(size);
  return product;
}

// Of two dimensions that are aligned.
Size BroadcastDimension(const RowOp& op, const Size& a, const Size& b) {
  if (a.is(1) || a.Equals(b)) return b;
  if (b.is(1) || a.literal().has_value()) return a;  // the other one is 1 or the same
  if (b.literal().has_value()) return b;
  return op.NewDimension();
}

Sizes BroadcastDims(const RowOp& op, Sizes a, Sizes b) {
  if (a.size() < b.size()) std::swap(a, b);
  const std::size_t offset = a.size() - b.size();
  for (std::size_t i = 0; i < b.size(); ++i) {
    a[offset + i] = BroadcastDimension(op, a[offset + i], b[i]);
  }
  return a;
}

// Dimensions are aligned from the last one, so rows stay rows only beside what has fewer
// dimensions, a dimension 0 of 1, or as many rows.
Or<Value> Broadcast(const RowOp& op, std::span<const Value* const> values) {
  const Value* rows = nullptr;
  for (const Value* const value : values) {
    if (!value->is_rows()) continue;
    if (rows != nullptr && (!rows->rank().has_value() || rows->rank() != value->rank())) {
      return No("aligns rows of different numbers of dimensions");
    }
    if (rows != nullptr && !rows->rows.Equals(value->rows)) {
      return No("aligns rows with parts of rows");
    }
    rows = value;
  }
  if (rows == nullptr) {
    Sizes dims;
    for (const Value* const value : values) {
      if (!value->dims.has_value()) return Value::Constant();
      dims = BroadcastDims(op, std::move(dims), *value->dims);
    }
    return Value::Constant(std::move(dims));
  }
  for (const Value* const value : values) {
    if (value->is_rows() || value->rank() == 0) continue;
    if (!rows->rank().has_value() || !value->rank().has_value()) return No(kUnknownRank);
    if (value->rank() < rows->rank()) continue;
    if (value->rank() > rows->rank()) return No(kBeforeRows);
    if (!(*value->dims)[0].is(1)) return No("a constant has rows of its own");
  }
  if (!rows->rank().has_value()) {
    const auto are_rows = [](const Value* value) { return value->is_rows(); };
    if (std::count_if(values.begin(), values.end(), are_rows) > 1) return No(kUnknownRank);
    return WithoutInts(*rows);
  }
  Sizes dims;
  for (const Value* const value : values) dims = BroadcastDims(op, std::move(dims), *value->dims);
  dims[0] = rows->rows;
  return Value::Rows(std::move(dims));
}

Or<std::vector<const Value*>> AllData(const RowOp& op) {
  std::vector<const Value*> values;
  for (std::size_t i = 0; i < op.size(); ++i) {
    TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(i));
    values.push_back(value);
  }
  if (values.empty()) return No("has no input");
  return values;
}

// ---- Rules: element by element

Or<Outputs> Elementwise(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<const Value*> values, AllData(op));
  TAKT_ASSIGN_OR_RETURN(Value value, Broadcast(op, values));
  return One(std::move(value));
}

Or<Outputs> Same(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  return One(*value);
}

Or<Outputs> SameN(const RowOp& op) {
  Outputs outputs;
  for (std::size_t i = 0; i < op.size(); ++i) {
    TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(i));
    outputs.values.push_back(*value);
  }
  return outputs;
}

Or<Outputs> Cast(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const DataType from, op.Type("SrcT", DataType::kInvalid));
  TAKT_ASSIGN_OR_RETURN(const DataType to, op.Type("DstT", DataType::kInvalid));
  const bool from_int = from == DataType::kInt32 || from == DataType::kInt64;
  const bool keeps = from_int && (to == DataType::kInt64 || to == from);
  const bool narrows = from_int && to == DataType::kInt32;
  if (value->ints.has_value() && (keeps || narrows)) {
    Value cast = *value;
    for (Size& size : *cast.ints) {
      const std::optional<std::int64_t> number = size.literal();
      if (narrows && number.has_value() && *number != static_cast<std::int32_t>(*number)) {
        size = Size::Unknown();
      }
    }
    return One(std::move(cast));
  }
  TAKT_ASSIGN_OR_RETURN(const Value* const data, op.Data(0));
  return One(WithoutInts(*data));
}

// Numbers of one or two inputs that are known one by one, with `compute`; else by element.
Or<Outputs> Arithmetic(const RowOp& op, Size (*compute)(const Size&, const Size&)) {
  TAKT_ASSIGN_OR_RETURN(const Value* const a, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const b, op.In(1));
  const auto flat = [](const Value& value) {
    return value.ints.has_value() && value.rank().has_value() && *value.rank() <= 1;
  };
  if (!flat(*a) || !flat(*b)) return Elementwise(op);
  const std::vector<Size>& x = *a->ints;
  const std::vector<Size>& y = *b->ints;
  if (a->rank() == 1 && b->rank() == 1 && x.size() != y.size()) return Elementwise(op);
  TAKT_ASSIGN_OR_RETURN(const DataType type, op.Type("T", DataType::kInvalid));
  const Value& shape = a->rank() == 1 ? *a : *b;
  std::vector<Size> ints;
  for (std::size_t i = 0; i < shape.ints->size(); ++i) {
    Size size = compute(x[a->rank() == 1 ? i : 0], y[b->rank() == 1 ? i : 0]);
    if (size.has_rows() && !size.known()) return No(kNumberOfRows);
    const std::optional<std::int64_t> number = size.literal();
    if (number.has_value() && type != DataType::kInt64 &&
        *number != static_cast<std::int32_t>(*number)) {
      size = Size::Unknown();  // it wraps
    }
    ints.push_back(size);
  }
  return One(Value::Ints(*shape.dims, std::move(ints)));
}

// Of what is not a product: known for literals only.
template <typename Compute>
Size OfLiterals(const Size& a, const Size& b, Compute compute) {
  std::int64_t result = 0;
  if (a.literal().has_value() && b.literal().has_value() &&
      compute(*a.literal(), *b.literal(), &result)) {
    return Size::Of(result);
  }
  // Not known, with rows where there were any.
  return a.has_rows() || b.has_rows() ? Size::Rows().Times(Size::Unknown()) : Size::Unknown();
}

Or<Outputs> Mul(const RowOp& op) {
  return Arithmetic(op, [](const Size& a, const Size& b) { return a.Times(b); });
}
Or<Outputs> Add(const RowOp& op) {
  return Arithmetic(op, [](const Size& a, const Size& b) {
    if (a.is(0)) return b;
    if (b.is(0)) return a;
    return OfLiterals(a, b, [](std::int64_t x, std::int64_t y, std::int64_t* sum) {
      return !__builtin_add_overflow(x, y, sum);
    });
  });
}
Or<Outputs> Sub(const RowOp& op) {
  return Arithmetic(op, [](const Size& a, const Size& b) {
    if (b.is(0)) return a;
    return OfLiterals(a, b, [](std::int64_t x, std::int64_t y, std::int64_t* difference) {
      return !__builtin_sub_overflow(x, y, difference);
    });
  });
}
Or<Outputs> FloorDiv(const RowOp& op) {
  return Arithmetic(op, [](const Size& a, const Size& b) {
    if (const std::optional<Size> exact = a.DividedBy(b); exact.has_value()) return *exact;
    return OfLiterals(a, b, [](std::int64_t x, std::int64_t y, std::int64_t* quotient) {
      if (x < 0 || y <= 0) return false;
      *quotient = x / y;
      return true;
    });
  });
}
Or<Outputs> Maximum(const RowOp& op) {
  return Arithmetic(op, [](const Size& a, const Size& b) {
    return OfLiterals(a, b, [](std::int64_t x, std::int64_t y, std::int64_t* larger) {
      *larger = std::max(x, y);
      return true;
    });
  });
}
Or<Outputs> Minimum(const RowOp& op) {
  return Arithmetic(op, [](const Size& a, const Size& b) {
    return OfLiterals(a, b, [](std::int64_t x, std::int64_t y, std::int64_t* smaller) {
      *smaller = std::min(x, y);
      return true;
    });
  });
}

// Two shapes of which it is not sure that they match make one `false` of it when the model wants
// that.
Or<Outputs> Equal(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const a, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const b, op.In(1));
  if (a->kind == Value::Kind::kSizes || b->kind == Value::Kind::kSizes) {
    // The same in every run where the two are the same.
    if (!a->ints.has_value() || !b->ints.has_value() || a->rank() != b->rank() ||
        !std::equal(a->ints->begin(), a->ints->end(), b->ints->begin(), b->ints->end(),
                    [](const Size& x, const Size& y) { return x.Equals(y); })) {
      return No(kNumberOfRows);
    }
    return One(Value::Constant(a->dims));
  }
  TAKT_ASSIGN_OR_RETURN(Outputs outputs, Elementwise(op));
  TAKT_ASSIGN_OR_RETURN(const bool has_to_match, op.Bool("incompatible_shape_error", true));
  if (has_to_match || !outputs.values[0].is_rows() || a->rank() == 0 || b->rank() == 0) {
    return outputs;
  }
  if (!a->dims.has_value() || !b->dims.has_value()) return No(kUnknownRank);
  const std::size_t common = std::min(a->dims->size(), b->dims->size());
  for (std::size_t i = 1; i <= common; ++i) {
    const Size& x = (*a->dims)[a->dims->size() - i];
    const Size& y = (*b->dims)[b->dims->size() - i];
    if (!x.is(1) && !y.is(1) && !x.Equals(y)) {
      return No("its shapes may not match, and then it gives one value for all rows");
    }
  }
  return outputs;
}

Or<Outputs> LogicalAnd(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const a, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const b, op.In(1));
  const auto of_all = [](const Value& value) {
    return value.kind == Value::Kind::kEveryRow || (value.is_constant() && value.rank() == 0);
  };
  if ((a->kind == Value::Kind::kEveryRow || b->kind == Value::Kind::kEveryRow) && of_all(*a) &&
      of_all(*b)) {
    return One(a->kind == Value::Kind::kEveryRow ? *a : *b);
  }
  return Elementwise(op);
}

// The older Select: a condition of one dimension chooses whole rows.
Or<Outputs> Select(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<const Value*> values, AllData(op));
  if (values.size() != 3) return No("has not three inputs");
  const Value& condition = *values[0];
  if (!condition.is_rows()) {
    if (condition.rank() != 0) return No("its condition is constant, but for each row");
    return Elementwise(op);
  }
  if (!values[1]->is_rows() || !values[2]->is_rows()) return No("a constant has rows of its own");
  if (condition.rank() != 1) return Elementwise(op);
  TAKT_ASSIGN_OR_RETURN(Value chosen, Broadcast(op, std::span(values).subspan(1)));
  if (!chosen.rows.Equals(condition.rows)) return No("aligns rows with parts of rows");
  return One(std::move(chosen));
}

Or<Outputs> EnsureShape(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  const std::optional<AttrView> attr = op.node().Attr("shape");
  const std::optional<Dimensions> shape = attr.has_value() ? attr->Shape() : std::nullopt;
  if (value->is_rows() && shape.has_value() && (shape->empty() || (*shape)[0] >= 0)) {
    return No("wants a number of rows");
  }
  return One(*value);
}

// ---- Rules: shapes and numbers

Or<Value> ShapeOf(const Value& value) {
  if (value.kind == Value::Kind::kNothing || value.is_handle) return No("takes no tensor's shape");
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(value));
  return Value::Ints({Size::Of(rank)}, {value.dims->begin(), value.dims->end()});
}

Or<Outputs> Shape(const RowOp& op) {
  Outputs outputs;
  for (std::size_t i = 0; i < op.size(); ++i) {
    TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(i));
    TAKT_ASSIGN_OR_RETURN(Value shape, ShapeOf(*value));
    outputs.values.push_back(std::move(shape));
  }
  return outputs;
}

Or<Outputs> Rank(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  return One(Value::Ints({}, {Size::Of(rank)}));
}

Or<Outputs> SizeOf(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const Value shape, ShapeOf(*value));
  const Size size = Product(*shape.ints);
  if (size.has_rows() && !size.known()) return No(kNumberOfRows);
  return One(Value::Ints({}, {size}));
}

Or<Outputs> Range(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> start, op.Ints(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> limit, op.Ints(1));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> delta, op.Ints(2));
  if (start.size() != 1 || limit.size() != 1 || delta.size() != 1) return No("is not known");
  if (start[0].has_rows() || limit[0].has_rows() || delta[0].has_rows()) {
    return No("numbers the rows");
  }
  const std::optional<std::int64_t> length = limit[0].literal();
  if (!start[0].is(0) || !delta[0].is(1)) return One(Value::Constant(Sizes{op.NewDimension()}));
  if (length.has_value() && *length >= 0 && *length <= kMaxLiteralElements) {
    std::vector<Size> ints;
    for (std::int64_t i = 0; i < *length; ++i) ints.push_back(Size::Of(i));
    return One(Value::Ints({limit[0]}, std::move(ints)));
  }
  return One(Value::Constant(Sizes{limit[0].CanBeDimension() ? limit[0] : op.NewDimension()}));
}

// Dimensions as a shape says them: the first one may be of rows, no other.
Or<Sizes> DimsFrom(const RowOp& op, std::span<const Size> shape) {
  Sizes dims;
  for (const Size& size : shape) {
    if (size.has_rows() && !dims.empty())
      return No("has rows in a dimension that is not the first");
    if (size.has_rows() && !size.CanBeDimension()) return No(kNumberOfRows);
    dims.push_back(size.CanBeDimension() ? size : op.NewDimension());
  }
  return dims;
}

Or<Outputs> Fill(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> shape, op.Ints(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Constant(1));
  TAKT_ASSIGN_OR_RETURN(Sizes dims, DimsFrom(op, shape));
  if (!dims.empty() && dims[0].has_rows()) return One(Value::Rows(std::move(dims)));
  Value filled = Value::Constant(std::move(dims));
  const Size count = Product(*filled.dims);
  if (value->ints.has_value() && value->ints->size() == 1 && count.literal().has_value() &&
      *count.literal() <= kMaxLiteralElements) {
    filled.ints.emplace(static_cast<std::size_t>(*count.literal()), (*value->ints)[0]);
  }
  return One(std::move(filled));
}

Or<Outputs> LikeInput(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  if (value->kind == Value::Kind::kSizes) return One(Value::Constant(value->dims));
  TAKT_ASSIGN_OR_RETURN(const Value* const data, op.Data(0));
  return One(WithoutInts(*data));
}

Or<Outputs> BroadcastTo(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> shape, op.Ints(1));
  TAKT_ASSIGN_OR_RETURN(Sizes dims, DimsFrom(op, shape));
  if (dims.empty() || !dims[0].has_rows()) {
    if (value->is_rows()) return No("gives rows a number of their own");
    return One(Value::Constant(std::move(dims)));
  }
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  const auto wanted = static_cast<std::int64_t>(dims.size());
  if (value->is_rows() ? rank != wanted || !value->rows.Equals(dims[0])
                       : rank > wanted || (rank == wanted && !(*value->dims)[0].is(1))) {
    return No(kBeforeRows);
  }
  return One(Value::Rows(std::move(dims)));
}

Or<Outputs> Tile(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> multiples, op.Ints(1));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  if (static_cast<std::int64_t>(multiples.size()) != rank) return No("has too few multiples");
  if (value->is_rows() && !multiples[0].is(1)) return No("repeats the rows one behind the other");
  Sizes tiled;
  for (std::size_t i = 0; i < multiples.size(); ++i) {
    tiled.push_back((*value->dims)[i].Times(multiples[i]));
  }
  TAKT_ASSIGN_OR_RETURN(Sizes dims, DimsFrom(op, tiled));
  if (!dims.empty() && dims[0].has_rows()) return One(Value::Rows(std::move(dims)));
  return One(Value::Constant(std::move(dims)));
}

// All elements of rows lie in the order of the rows. So they remain together where dimension 0 of
// the result is a multiple of the number of rows, whatever the others are.
Or<Outputs> Reshape(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> shape, op.Ints(1));
  if (!value->is_rows() && !value->is_constant() && value->kind != Value::Kind::kSizes) {
    return No("is of no tensor");
  }
  // How many elements all dimensions but the one that is -1 have.
  Size others = Size::Of(1);
  std::optional<std::size_t> open;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i].is(-1)) {
      if (open.has_value()) return No("leaves two dimensions open");
      open = i;
    } else {
      others = others.Times(shape[i].CanBeDimension() ? shape[i] : Size::Unknown());
    }
  }
  const Size all = value->dims.has_value() ? Product(*value->dims) : Size::Unknown();
  std::optional<Size> rest;  // what -1 is
  if (open.has_value()) rest = all.DividedBy(others);
  if (value->is_rows() && open == std::size_t{0}) {
    if (!rest.has_value() || !rest->has_rows()) {
      return No("it cannot be shown that no row is cut in two");
    }
  } else if (value->is_rows() && (shape.empty() || !shape[0].has_rows())) {
    return No("gives rows a number of their own");
  } else if (!value->is_rows() &&
             std::any_of(shape.begin(), shape.end(), [](auto& size) { return size.has_rows(); })) {
    return No("makes as many rows as are asked of something else");
  }
  Sizes dims;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0 && shape[i].has_rows()) return No("has rows in a dimension that is not the first");
    if (open == i) {
      dims.push_back(rest.has_value() && rest->CanBeDimension() && (i == 0 || !rest->has_rows())
                         ? *rest
                         : op.NewDimension());
    } else {
      if (shape[i].has_rows() && !shape[i].CanBeDimension()) return No(kNumberOfRows);
      dims.push_back(shape[i].CanBeDimension() ? shape[i] : op.NewDimension());
    }
  }
  if (value->is_rows()) return One(Value::Rows(std::move(dims)));
  Value reshaped = *value;
  reshaped.dims = std::move(dims);
  return One(std::move(reshaped));
}

Or<Outputs> ExpandDims(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t at, op.Literal(1));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  TAKT_ASSIGN_OR_RETURN(const std::size_t axis, Axis(at, rank + 1));
  if (axis == 0 && value->is_rows()) return No(kBeforeRows);
  Value expanded = *value;
  expanded.dims->insert(expanded.dims->begin() + static_cast<std::ptrdiff_t>(axis), Size::Of(1));
  return One(std::move(expanded));
}

Or<Outputs> Squeeze(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> axes, op.IntList("squeeze_dims"));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  if (axes.empty() && value->is_rows()) return No("drops dimension 0 where a run has one row");
  std::vector<bool> drop(static_cast<std::size_t>(rank));
  for (const std::int64_t at : axes) {
    TAKT_ASSIGN_OR_RETURN(const std::size_t axis, AxisBesideRows(*value, at));
    drop[axis] = true;
  }
  Value squeezed = *value;
  squeezed.dims = Sizes();
  for (std::size_t i = 0; i < drop.size(); ++i) {
    const Size& size = (*value->dims)[i];
    if (axes.empty() && !size.literal().has_value()) return No("which dimensions it drops");
    if (!drop[i] && !(axes.empty() && size.is(1))) squeezed.dims->push_back(size);
  }
  return One(std::move(squeezed));
}

Or<Outputs> Transpose(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> order, op.Literals(1));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  if (static_cast<std::int64_t>(order.size()) != rank) return No("has too few dimensions");
  Sizes dims;
  for (const std::int64_t at : order) {
    TAKT_ASSIGN_OR_RETURN(const std::size_t axis, Axis(at, rank));
    if (value->is_rows() && (axis == 0) != dims.empty()) return No("moves the dimension of rows");
    dims.push_back((*value->dims)[axis]);
  }
  return One(Shaped(*value, std::move(dims)));
}

Or<Outputs> Pack(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const std::int64_t at, op.Int("axis", 0));
  bool numbers = at == 0 || at == -1;
  for (std::size_t i = 0; i < op.size(); ++i) {
    TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(i));
    numbers = numbers && value->rank() == 0 &&
              (value->kind == Value::Kind::kSizes || value->is_constant());
  }
  if (numbers) {
    std::vector<Size> ints;
    for (std::size_t i = 0; i < op.size(); ++i) {
      TAKT_ASSIGN_OR_RETURN(const std::vector<Size> one, op.Ints(i));
      ints.push_back(one[0]);
    }
    return One(Vector(std::move(ints)));
  }
  TAKT_ASSIGN_OR_RETURN(const std::vector<const Value*> values, AllData(op));
  const Value& first = *values[0];
  for (const Value* const value : values) {
    if (value->is_rows() != first.is_rows()) return No("a constant has rows of its own");
  }
  TAKT_ASSIGN_OR_RETURN(const Value together, Broadcast(op, values));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(together));
  TAKT_ASSIGN_OR_RETURN(const std::size_t axis, Axis(at, rank + 1));
  if (axis == 0 && first.is_rows()) return No(kBeforeRows);
  Sizes dims = *together.dims;
  dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(axis),
              Size::Of(static_cast<std::int64_t>(values.size())));
  return One(Shaped(together, std::move(dims)));
}

Or<Outputs> Unpack(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t at, op.Int("axis", 0));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t count, op.Int("num", -1));
  if (count < 0 || count > kMaxLiteralElements) return No("how many it makes");
  Outputs outputs;
  if (value->ints.has_value() && value->rank() == 1) {
    for (const Size& size : *value->ints) outputs.values.push_back(Value::Ints({}, {size}));
    return outputs;
  }
  TAKT_ASSIGN_OR_RETURN(const Value* const data, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::size_t axis, AxisBesideRows(*data, at));
  Sizes dims = *data->dims;
  dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(axis));
  for (std::int64_t i = 0; i < count; ++i) outputs.values.push_back(Shaped(*data, dims));
  return outputs;
}

// `values` one behind the other.
Or<Outputs> Concatenate(const RowOp& op, std::size_t first, std::size_t count, std::size_t at) {
  std::vector<const Value*> values;
  bool numbers = true;
  for (std::size_t i = first; i < first + count; ++i) {
    TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(i));
    numbers = numbers && value->rank() == 1 &&
              (value->kind == Value::Kind::kSizes || value->is_constant());
    values.push_back(value);
  }
  if (values.empty()) return No("has no input");
  if (numbers) {
    std::vector<Size> ints;
    for (std::size_t i = first; i < first + count; ++i) {
      TAKT_ASSIGN_OR_RETURN(const std::vector<Size> part, op.Ints(i));
      ints.insert(ints.end(), part.begin(), part.end());
    }
    return One(Vector(std::move(ints)));
  }
  TAKT_ASSIGN_OR_RETURN(const std::int64_t along, op.Literal(at));
  const Value* const whole = values[0];
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*whole));
  TAKT_ASSIGN_OR_RETURN(const std::size_t axis, AxisBesideRows(*whole, along));
  Sizes dims = *whole->dims;
  for (std::size_t i = 0; i < values.size(); ++i) {
    TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(first + i));
    if (value->is_rows() != whole->is_rows()) return No("a constant has rows of its own");
    if (value->rank() != rank) return No("joins rows of different numbers of dimensions");
    if (value->is_rows() && !value->rows.Equals(whole->rows)) {
      return No("aligns rows with parts of rows");
    }
    if (i == 0) continue;
    const std::optional<std::int64_t> a = dims[axis].literal();
    const std::optional<std::int64_t> b = (*value->dims)[axis].literal();
    std::int64_t sum = 0;
    dims[axis] = a.has_value() && b.has_value() && !__builtin_add_overflow(*a, *b, &sum)
                     ? Size::Of(sum)
                     : op.NewDimension();
  }
  return One(Shaped(*whole, std::move(dims)));
}
Or<Outputs> ConcatV2(const RowOp& op) {
  if (op.size() < 2) return No("has no input");
  return Concatenate(op, 0, op.size() - 1, op.size() - 1);
}
Or<Outputs> Concat(const RowOp& op) {
  if (op.size() < 2) return No("has no input");
  return Concatenate(op, 1, op.size() - 1, 0);
}

Or<Outputs> Split(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const std::int64_t at, op.Literal(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(1));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t count, op.Int("num_split", 0));
  TAKT_ASSIGN_OR_RETURN(const std::size_t axis, AxisBesideRows(*value, at));
  if (count < 1 || count > kMaxLiteralElements) return No("how many it makes");
  Sizes dims = *value->dims;
  dims[axis] = dims[axis].DividedBy(Size::Of(count)).value_or(op.NewDimension());
  Outputs outputs;
  for (std::int64_t i = 0; i < count; ++i) outputs.values.push_back(Shaped(*value, dims));
  return outputs;
}

Or<Outputs> SplitV(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> sizes, op.Ints(1));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t at, op.Literal(2));
  TAKT_ASSIGN_OR_RETURN(const std::size_t axis, AxisBesideRows(*value, at));
  Outputs outputs;
  for (const Size& size : sizes) {
    if (size.has_rows()) return No(kNumberOfRows);
    Sizes dims = *value->dims;
    dims[axis] = size.CanBeDimension() ? size : op.NewDimension();
    outputs.values.push_back(Shaped(*value, std::move(dims)));
  }
  return outputs;
}

// ---- Rules: slices and lookups

// How many elements begin:end:stride is of `size`; nothing where that cannot be told.
struct Cut {
  std::optional<std::int64_t> begin;  // nothing: not known
  std::optional<std::int64_t> end;
  std::optional<std::int64_t> stride;
  bool from_start = false;
  bool to_end = false;

  // begin and count.
  std::optional<std::pair<std::int64_t, std::int64_t>> Of(std::int64_t size) const {
    if (!stride.has_value() || *stride == 0 ||
        *stride == std::numeric_limits<std::int64_t>::min() ||
        (!from_start && !begin.has_value()) || (!to_end && !end.has_value())) {
      return std::nullopt;
    }
    const std::int64_t low = *stride > 0 ? 0 : -1;
    const std::int64_t high = *stride > 0 ? size : size - 1;
    const auto place = [&](std::int64_t at) {
      return std::clamp(at < 0 ? at + size : at, low, high);
    };
    const std::int64_t first = from_start ? (*stride > 0 ? low : high) : place(*begin);
    const std::int64_t last = to_end ? (*stride > 0 ? high : low) : place(*end);
    const std::int64_t distance = *stride > 0 ? last - first : first - last;
    const std::int64_t step = *stride > 0 ? *stride : -*stride;
    return std::pair(first, distance <= 0 ? 0 : (distance - 1) / step + 1);
  }
};

Or<Outputs> StridedSlice(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> begin, op.Ints(1));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> end, op.Ints(2));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> strides, op.Ints(3));
  std::array<std::int64_t, 5> masks{};
  constexpr std::array<std::string_view, 5> kMasks = {"begin_mask", "end_mask", "ellipsis_mask",
                                                      "new_axis_mask", "shrink_axis_mask"};
  for (std::size_t i = 0; i < masks.size(); ++i) {
    TAKT_ASSIGN_OR_RETURN(masks[i], op.Int(kMasks[i], 0));
  }
  const std::size_t specs = begin.size();
  constexpr std::size_t kMaxSpecs = 32;  // bits of a mask
  if (specs != end.size() || specs != strides.size() || specs > kMaxSpecs)
    return No("is malformed");
  const auto bit = [&masks](std::size_t mask, std::size_t i) {
    return (masks[mask] >> i & 1) != 0;
  };
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  std::size_t used = 0;
  std::size_t ellipses = 0;
  for (std::size_t i = 0; i < specs; ++i) {
    ellipses += bit(2, i) ? 1 : 0;
    used += !bit(2, i) && !bit(3, i) ? 1 : 0;
  }
  if (ellipses > 1 || used > static_cast<std::size_t>(rank)) return No("is malformed");
  const std::size_t covered = static_cast<std::size_t>(rank) - used;  // by the ellipsis
  Sizes dims;
  std::size_t axis = 0;
  const bool numbers = value->ints.has_value() && rank == 1;
  std::vector<Size> ints;
  if (numbers) ints = *value->ints;
  for (std::size_t i = 0; i < specs; ++i) {
    if (bit(2, i)) {
      for (std::size_t k = 0; k < covered; ++k) dims.push_back((*value->dims)[axis++]);
      continue;
    }
    if (bit(3, i)) {
      if (axis == 0 && value->is_rows()) return No(kBeforeRows);
      dims.push_back(Size::Of(1));
      continue;
    }
    const Size& size = (*value->dims)[axis];
    const bool to_last_row = axis == 0 && value->is_rows() && end[i].Equals(value->rows);
    if ((begin[i].has_rows() && !bit(0, i)) || strides[i].has_rows() ||
        (end[i].has_rows() && !bit(1, i) && !to_last_row)) {
      return No(kNumberOfRows);
    }
    const Cut cut{begin[i].literal(), end[i].literal(), strides[i].literal(), bit(0, i), bit(1, i)};
    if (axis == 0 && value->is_rows()) {
      const bool from_first = cut.from_start || cut.begin == 0;
      if (bit(4, i) || cut.stride != 1 || !from_first || !(cut.to_end || to_last_row)) {
        return No("takes some of the rows");
      }
      dims.push_back(size);
    } else if (bit(4, i)) {
      if (numbers) {
        if (!cut.begin.has_value()) return No("which number it takes");
        TAKT_ASSIGN_OR_RETURN(const std::size_t index,
                              Axis(*cut.begin, static_cast<std::int64_t>(ints.size())));
        ints = {ints[index]};
      }
    } else {
      const std::optional<std::int64_t> literal = size.literal();
      const auto part = literal.has_value() ? cut.Of(*literal) : std::nullopt;
      if (part.has_value()) {
        dims.push_back(Size::Of(part->second));
      } else {
        const bool whole = cut.from_start && cut.to_end && cut.stride == 1;
        dims.push_back(whole ? size : op.NewDimension());
      }
      if (numbers) {
        if (!part.has_value()) return No("which numbers it takes");
        std::vector<Size> taken;
        for (std::int64_t k = 0; k < part->second; ++k) {
          taken.push_back(ints[static_cast<std::size_t>(part->first + k * *cut.stride)]);
        }
        ints = std::move(taken);
      }
    }
    ++axis;
  }
  while (axis < static_cast<std::size_t>(rank)) dims.push_back((*value->dims)[axis++]);
  if (numbers) return One(Value::Ints(std::move(dims), std::move(ints)));
  TAKT_ASSIGN_OR_RETURN(const Value* const data, op.Data(0));
  return One(Shaped(*data, std::move(dims)));
}

Or<Outputs> Slice(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> begin, op.Ints(1));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> count, op.Ints(2));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  if (begin.size() != static_cast<std::size_t>(rank) || count.size() != begin.size()) {
    return No("is malformed");
  }
  Sizes dims;
  for (std::size_t i = 0; i < begin.size(); ++i) {
    const Size& size = (*value->dims)[i];
    const bool whole = begin[i].is(0) && (count[i].is(-1) || count[i].Equals(size));
    if (i == 0 && value->is_rows() && !whole) return No("takes some of the rows");
    if (begin[i].has_rows() || (!whole && count[i].has_rows())) return No(kNumberOfRows);
    const std::optional<std::int64_t> all = size.literal();
    const std::optional<std::int64_t> first = begin[i].literal();
    if (whole) {
      dims.push_back(size);
    } else if (count[i].CanBeDimension()) {
      dims.push_back(count[i]);
    } else if (count[i].is(-1) && all.has_value() && first.has_value() && *first <= *all &&
               *first >= 0) {
      dims.push_back(Size::Of(*all - *first));
    } else {
      dims.push_back(op.NewDimension());
    }
  }
  if (value->ints.has_value() && rank == 1 && begin[0].literal().has_value() &&
      dims[0].literal().has_value()) {
    const std::int64_t first = *begin[0].literal();
    const std::int64_t taken = *dims[0].literal();
    const auto length = static_cast<std::int64_t>(value->ints->size());
    if (first < 0 || first > length || taken > length - first) return No("is out of range");
    return One(Value::Ints(std::move(dims),
                           {value->ints->begin() + first, value->ints->begin() + first + taken}));
  }
  TAKT_ASSIGN_OR_RETURN(const Value* const data, op.Data(0));
  return One(Shaped(*data, std::move(dims)));
}

// What `indices` say of `table`, along `at`; the first `batch` dimensions of both belong together.
Or<Outputs> Lookup(const Value& table, const Value& indices, std::int64_t at, std::int64_t batch) {
  if (indices.is_rows() && !table.is_rows()) {
    if (batch != 0) return No("a constant has rows of its own");
    if (at != 0) {
      TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(table));
      TAKT_ASSIGN_OR_RETURN(const std::size_t axis, Axis(at, rank));
      if (axis != 0) return No(kBeforeRows);
    }
    Value found = Value::Nothing();
    found.kind = Value::Kind::kRows;
    found.rows = indices.rows;
    if (!table.rank().has_value() || !indices.rank().has_value()) return One(std::move(found));
    if (table.dims->empty()) return No("looks up in a single value");
    Sizes dims = *indices.dims;
    dims.insert(dims.end(), table.dims->begin() + 1, table.dims->end());
    return One(Value::Rows(std::move(dims)));
  }
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(table));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t indices_rank, RankOf(indices));
  TAKT_ASSIGN_OR_RETURN(const std::size_t axis, Axis(at, rank));
  if (batch < 0) batch += indices_rank;
  if (batch < 0 || batch > indices_rank || static_cast<std::int64_t>(axis) < batch) {
    return No("its axis is out of range");
  }
  if (table.is_rows() && indices.is_rows()) {
    if (batch < 1 || !table.rows.Equals(indices.rows)) return No("looks up among all rows");
  } else if (table.is_rows() && (axis == 0 || batch != 0)) {
    return No(kOverRows);
  }
  Sizes dims(table.dims->begin(), table.dims->begin() + static_cast<std::ptrdiff_t>(axis));
  dims.insert(dims.end(), indices.dims->begin() + batch, indices.dims->end());
  dims.insert(dims.end(), table.dims->begin() + static_cast<std::ptrdiff_t>(axis) + 1,
              table.dims->end());
  return One(Shaped(table, std::move(dims)));
}

Or<Outputs> Gather(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const table, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const indices, op.Data(1));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t at, op.size() > 2 ? op.Literal(2) : Or<std::int64_t>(0));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t batch, op.Int("batch_dims", 0));
  if (table->ints.has_value() && table->rank() == 1 && !indices->is_rows() && batch == 0) {
    TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> chosen, op.Literals(1));
    std::vector<Size> ints;
    for (const std::int64_t index : chosen) {
      if (index < 0 || index >= static_cast<std::int64_t>(table->ints->size())) {
        return No("is out of range");
      }
      ints.push_back((*table->ints)[static_cast<std::size_t>(index)]);
    }
    return One(Value::Ints(*indices->dims, std::move(ints)));
  }
  TAKT_ASSIGN_OR_RETURN(const Value* const data, op.Data(0));
  return Lookup(*data, *indices, at, batch);
}

// The contents of a variable or table, which is constant.
Or<Value> Held(const RowOp& op, std::size_t index) {
  TAKT_ASSIGN_OR_RETURN(const Value* const handle, op.In(index));
  if (handle->kind != Value::Kind::kConstant || !handle->is_handle) {
    return No("it is not known what it reads");
  }
  return Value::Constant(handle->dims);
}

Or<Outputs> ReadVariable(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(Value held, Held(op, 0));
  return One(std::move(held));
}

Or<Outputs> ResourceGather(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value held, Held(op, 0));
  TAKT_ASSIGN_OR_RETURN(const Value* const indices, op.Data(1));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t batch, op.Int("batch_dims", 0));
  return Lookup(held, *indices, 0, batch);
}

Or<Outputs> TableFind(const RowOp& op) {
  TAKT_RETURN_IF_ERROR(Held(op, 0).status());
  TAKT_ASSIGN_OR_RETURN(const Value* const keys, op.Data(1));
  TAKT_ASSIGN_OR_RETURN(const Value* const otherwise, op.Constant(2));
  if (otherwise->rank() != 0) return No("its values have dimensions");
  return One(WithoutInts(*keys));
}

Or<Outputs> OneHot(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const indices, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> depth, op.Ints(1));
  TAKT_RETURN_IF_ERROR(op.Constant(2).status());
  TAKT_RETURN_IF_ERROR(op.Constant(3).status());
  TAKT_ASSIGN_OR_RETURN(const std::int64_t at, op.Int("axis", -1));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*indices));
  TAKT_ASSIGN_OR_RETURN(const std::size_t axis, Axis(at, rank + 1));
  if (axis == 0 && indices->is_rows()) return No(kBeforeRows);
  if (depth.size() != 1 || depth[0].has_rows()) return No(kNumberOfRows);
  Sizes dims = *indices->dims;
  dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(axis),
              depth[0].CanBeDimension() ? depth[0] : op.NewDimension());
  return One(Shaped(*indices, std::move(dims)));
}

// ---- Rules: along one dimension

Or<Outputs> Reduce(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> axes, op.Literals(1));
  TAKT_ASSIGN_OR_RETURN(const bool keep, op.Bool("keep_dims", false));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  std::vector<bool> reduced(static_cast<std::size_t>(rank));
  for (const std::int64_t at : axes) {
    TAKT_ASSIGN_OR_RETURN(const std::size_t axis, AxisBesideRows(*value, at));
    reduced[axis] = true;
  }
  Sizes dims;
  for (std::size_t i = 0; i < reduced.size(); ++i) {
    if (!reduced[i]) dims.push_back((*value->dims)[i]);
    if (reduced[i] && keep) dims.push_back(Size::Of(1));
  }
  return One(Shaped(*value, std::move(dims)));
}

Or<Outputs> Prod(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  if (!value->ints.has_value() || value->rank() != 1) return Reduce(op);
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> axes, op.Literals(1));
  TAKT_ASSIGN_OR_RETURN(const bool keep, op.Bool("keep_dims", false));
  if (axes != std::vector<std::int64_t>{0} && axes != std::vector<std::int64_t>{-1}) {
    return Reduce(op);
  }
  const Size product = Product(*value->ints);
  if (product.has_rows() && !product.known()) return No(kNumberOfRows);
  return One(Value::Ints(keep ? Sizes{Size::Of(1)} : Sizes(), {product}));
}

Or<Outputs> All(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  if (value->kind == Value::Kind::kEveryRow) return One(*value);
  if (!value->is_rows()) return Reduce(op);
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> axes, op.Literals(1));
  TAKT_ASSIGN_OR_RETURN(const bool keep, op.Bool("keep_dims", false));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  std::vector<bool> reduced(static_cast<std::size_t>(rank));
  for (const std::int64_t at : axes) {
    TAKT_ASSIGN_OR_RETURN(const std::size_t axis, Axis(at, rank));
    reduced[axis] = true;
  }
  if (keep || std::find(reduced.begin(), reduced.end(), false) != reduced.end()) return Reduce(op);
  Value every;
  every.kind = Value::Kind::kEveryRow;
  every.dims = Sizes();
  return One(std::move(every));
}

// Over the last dimension; the result has the shape of the input.
Or<Outputs> AlongLast(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_RETURN_IF_ERROR(AxisBesideRows(*value, -1).status());
  return One(WithoutInts(*value));
}

Or<Outputs> ArgMax(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t at, op.Literal(1));
  TAKT_ASSIGN_OR_RETURN(const std::size_t axis, AxisBesideRows(*value, at));
  Sizes dims = *value->dims;
  dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(axis));
  return One(Shaped(*value, std::move(dims)));
}

Or<Outputs> TopK(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> k, op.Ints(1));
  TAKT_RETURN_IF_ERROR(AxisBesideRows(*value, -1).status());
  if (k.size() != 1 || k[0].has_rows()) return No(kNumberOfRows);
  Sizes dims = *value->dims;
  dims.back() = k[0].CanBeDimension() ? k[0] : op.NewDimension();
  Outputs outputs;
  outputs.values.push_back(Shaped(*value, dims));
  outputs.values.push_back(Shaped(*value, dims));
  return outputs;
}

// Cumsum, Cumprod, Reverse: within the dimensions that input `at` names.
Or<Outputs> AlongAxes(const RowOp& op, std::size_t at) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> axes, op.Literals(at));
  for (const std::int64_t axis : axes) {
    TAKT_RETURN_IF_ERROR(AxisBesideRows(*value, axis).status());
  }
  return One(WithoutInts(*value));
}
Or<Outputs> Cumulative(const RowOp& op) { return AlongAxes(op, 1); }
Or<Outputs> Roll(const RowOp& op) {
  TAKT_RETURN_IF_ERROR(op.Constant(1).status());
  return AlongAxes(op, 2);
}

Or<Outputs> Pad(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> paddings, op.Literals(1));
  if (op.size() > 2) TAKT_RETURN_IF_ERROR(op.Constant(2).status());
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  if (static_cast<std::int64_t>(paddings.size()) != 2 * rank) return No("is malformed");
  Sizes dims;
  for (std::size_t i = 0; i < paddings.size() / 2; ++i) {
    const std::int64_t before = paddings[2 * i];
    const std::int64_t behind = paddings[2 * i + 1];
    if (i == 0 && value->is_rows() && (before != 0 || behind != 0)) return No("adds rows");
    const Size& size = (*value->dims)[i];
    const std::optional<std::int64_t> literal = size.literal();
    std::int64_t padded = 0;
    if (before == 0 && behind == 0) {
      dims.push_back(size);
    } else if (literal.has_value() && !__builtin_add_overflow(*literal, before, &padded) &&
               !__builtin_add_overflow(padded, behind, &padded)) {
      dims.push_back(Size::Of(padded));
    } else {
      dims.push_back(op.NewDimension());
    }
  }
  return One(Shaped(*value, std::move(dims)));
}

Or<Outputs> MatrixBandPart(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_RETURN_IF_ERROR(op.Constant(1).status());
  TAKT_RETURN_IF_ERROR(op.Constant(2).status());
  TAKT_RETURN_IF_ERROR(AxisBesideRows(*value, -2).status());
  return One(WithoutInts(*value));
}

Or<Outputs> DenseBincount(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> size, op.Ints(1));
  TAKT_ASSIGN_OR_RETURN(const Value* const weights, op.Data(2));
  if (value->rank() != 2) return No(kOverRows);
  if (size.size() != 1 || size[0].has_rows()) return No(kNumberOfRows);
  const bool fits = weights->is_rows() ? weights->rank() == 2 && weights->rows.Equals(value->rows)
                                       : weights->rank() == 1 && (*weights->dims)[0].is(0);
  if (!value->is_rows() || !fits) return No("a constant has rows of its own");
  return One(Value::Rows({value->rows, size[0].CanBeDimension() ? size[0] : op.NewDimension()}));
}

// ---- Rules: products of matrices

Or<Outputs> Product2(const RowOp& op, const Value& a, const Value& b, bool transpose_a,
                     bool transpose_b) {
  if (b.is_rows()) return No("every result is of all rows of its second input");
  if (a.is_rows() && transpose_a) return No("every result is of all rows: transpose_a");
  const auto dim = [&op](const Value& value, std::size_t axis) {
    return value.rank() == 2 ? (*value.dims)[axis] : op.NewDimension();
  };
  Sizes dims{a.is_rows() ? a.rows : dim(a, transpose_a ? 1 : 0), dim(b, transpose_b ? 0 : 1)};
  return One(Shaped(a, std::move(dims)));
}

Or<Outputs> MatMul(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const a, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const b, op.Data(1));
  TAKT_ASSIGN_OR_RETURN(const bool transpose_a, op.Bool("transpose_a", false));
  TAKT_ASSIGN_OR_RETURN(const bool transpose_b, op.Bool("transpose_b", false));
  return Product2(op, *a, *b, transpose_a, transpose_b);
}

// What a fused operation adds, scales or normalizes with: one number for each channel.
Status FusedWithConstants(const RowOp& op) {
  for (std::size_t i = 2; i < op.size(); ++i) {
    TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Constant(i));
    if (!value->rank().has_value() || *value->rank() > 1) return No("is fused with a constant");
  }
  return absl::OkStatus();
}

Or<Outputs> FusedMatMul(const RowOp& op) {
  TAKT_RETURN_IF_ERROR(FusedWithConstants(op));
  return MatMul(op);
}

Or<Outputs> BatchMatMul(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const a, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const b, op.Data(1));
  TAKT_ASSIGN_OR_RETURN(const bool adj_x, op.Bool("adj_x", false));
  TAKT_ASSIGN_OR_RETURN(const bool adj_y, op.Bool("adj_y", false));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t a_rank, RankOf(*a));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t b_rank, RankOf(*b));
  if (a_rank < 2 || b_rank < 2) return No("is malformed");
  if (a_rank == 2 && b_rank == 2) return Product2(op, *a, *b, adj_x, adj_y);
  // The matrices are the last two dimensions; those before are aligned as elsewhere.
  const std::int64_t rank = std::max(a_rank, b_rank);
  for (const Value* const value : {a, b}) {
    if (value->is_rows() && value->rank() != rank) return No("multiplies matrices of rows");
  }
  const auto leading = [](const Value& value) {
    return Shaped(value, Sizes(value.dims->begin(), value.dims->end() - 2));
  };
  const auto without_matrix = [&leading](const Value& value) {
    return value.rank() == 2 ? Value::Constant(Sizes()) : leading(value);
  };
  const std::array<Value, 2> outer = {without_matrix(*a), without_matrix(*b)};
  const std::array<const Value*, 2> pointers = {&outer[0], &outer[1]};
  TAKT_ASSIGN_OR_RETURN(const Value together, Broadcast(op, pointers));
  Sizes dims = *together.dims;
  dims.push_back((*a->dims)[static_cast<std::size_t>(a_rank - (adj_x ? 1 : 2))]);
  dims.push_back((*b->dims)[static_cast<std::size_t>(b_rank - (adj_y ? 2 : 1))]);
  return One(Shaped(together, std::move(dims)));
}

// Rows stay apart where their letter is the first of each input that has rows and of the output,
// and is found nowhere else.
Or<Outputs> Einsum(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<const Value*> values, AllData(op));
  TAKT_ASSIGN_OR_RETURN(const std::string_view written, op.String("equation", ""));
  std::string equation(written);
  std::erase(equation, ' ');
  const std::size_t arrow = equation.find("->");
  if (arrow == std::string::npos) return No("its equation names no output");
  const std::string_view result = std::string_view(equation).substr(arrow + 2);
  std::vector<std::string_view> terms;
  std::string_view rest = std::string_view(equation).substr(0, arrow);
  for (std::size_t comma = rest.find(','); comma != std::string_view::npos;
       comma = rest.find(',')) {
    terms.push_back(rest.substr(0, comma));
    rest.remove_prefix(comma + 1);
  }
  terms.push_back(rest);
  if (terms.size() != values.size()) return No("its equation has not as many terms as inputs");
  constexpr std::string_view kEllipsis = "...";
  const Value* rows = nullptr;
  char letter = 0;  // of the rows; '.' where the ellipsis stands for them
  std::unordered_map<char, Size> sizes;
  for (std::size_t i = 0; i < terms.size(); ++i) {
    const bool dots = terms[i].find(kEllipsis) != std::string_view::npos;
    if (!values[i]->is_rows()) {
      if (dots && values[i]->rank() != static_cast<std::int64_t>(terms[i].size() - 3)) {
        return No("an ellipsis of a constant");
      }
    } else {
      if (terms[i].empty()) return No("is malformed");
      if (rows != nullptr && (terms[i][0] != letter || !rows->rows.Equals(values[i]->rows))) {
        return No("rows of two inputs are not the same dimension");
      }
      if (dots && (terms[i][0] != '.' || rows != nullptr || !values[i]->rank().has_value() ||
                   *values[i]->rank() <= static_cast<std::int64_t>(terms[i].size() - 3))) {
        return No("its ellipsis");
      }
      rows = values[i];
      letter = terms[i][0];
    }
    if (!dots && values[i]->rank() == static_cast<std::int64_t>(terms[i].size())) {
      for (std::size_t k = 0; k < terms[i].size(); ++k) {
        sizes.emplace(terms[i][k], (*values[i]->dims)[k]);
      }
    }
  }
  if (rows == nullptr) return One(Value::Constant());
  if (result.empty() || result[0] != letter) return No("the letter of the rows is not the first");
  if (letter == '.') {
    Value value = Value::Nothing();
    value.kind = Value::Kind::kRows;
    value.rows = rows->rows;
    return One(std::move(value));
  }
  if (result.find(letter, 1) != std::string_view::npos ||
      result.find('.') != std::string_view::npos) {
    return No("the letter of the rows is found twice");
  }
  for (std::size_t i = 0; i < terms.size(); ++i) {
    if (terms[i].find(letter, values[i]->is_rows() ? 1 : 0) != std::string_view::npos) {
      return No(kOverRows);
    }
  }
  Sizes dims;
  for (const char c : result) {
    const auto known = sizes.find(c);
    dims.push_back(known != sizes.end() && known->second.CanBeDimension() ? known->second
                                                                          : op.NewDimension());
  }
  dims[0] = rows->rows;
  return One(Value::Rows(std::move(dims)));
}

// ---- Rules: images

// Where channels and the dimensions of the image lie.
struct Layout {
  std::size_t rank;
  std::size_t channel;
  std::size_t spatial;  // the first
  std::size_t spatials;
};

Or<Layout> LayoutOf(const RowOp& op, const Value& value, std::size_t rank) {
  TAKT_ASSIGN_OR_RETURN(const std::string_view format, op.String("data_format", "NHWC"));
  if (value.rank() != static_cast<std::int64_t>(rank)) return No("its input is no batch of images");
  if (format == "NHWC" || format == "NDHWC") return Layout{rank, rank - 1, 1, rank - 2};
  if (format == "NCHW" || format == "NCDHW") return Layout{rank, 1, 2, rank - 2};
  return No("its data_format");
}

// The entries of a list that has one for each dimension; 1 for all where it is left out.
Or<std::vector<std::int64_t>> PerDimension(const RowOp& op, std::string_view name,
                                           std::size_t rank) {
  TAKT_ASSIGN_OR_RETURN(std::vector<std::int64_t> list, op.IntList(name));
  if (list.empty()) list.assign(rank, 1);
  if (list.size() != rank) return No(StrCat("its ", name, " is malformed"));
  if (list[0] != 1) return No(StrCat("its ", name, " go over rows"));
  return list;
}

// A window's way over the dimensions of an image.
Or<Sizes> Windowed(const RowOp& op, const Value& value, const Layout& layout,
                   std::span<const Size> windows) {
  TAKT_ASSIGN_OR_RETURN(const auto strides, PerDimension(op, "strides", layout.rank));
  TAKT_ASSIGN_OR_RETURN(const auto dilations, PerDimension(op, "dilations", layout.rank));
  TAKT_ASSIGN_OR_RETURN(const std::string_view padding, op.String("padding", ""));
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::int64_t> pads, op.IntList("explicit_paddings"));
  if (padding == "EXPLICIT" && (pads.size() != 2 * layout.rank || pads[0] != 0 || pads[1] != 0)) {
    return No("its explicit_paddings");
  }
  Sizes dims = *value.dims;
  for (std::size_t i = 0; i < layout.spatials; ++i) {
    const std::size_t axis = layout.spatial + i;
    const std::int64_t size = dims[axis].literal().value_or(-1);
    const std::int64_t window = windows[i].literal().value_or(-1);
    const std::int64_t stride = strides[axis];
    const std::int64_t dilation = dilations[axis];
    const bool is_explicit = padding == "EXPLICIT";
    const std::int64_t before = is_explicit ? pads[2 * axis] : 0;
    const std::int64_t behind = is_explicit ? pads[2 * axis + 1] : 0;
    dims[axis] = op.NewDimension();
    constexpr std::int64_t kLargest = 1 << 30;
    const std::array<std::int64_t, 6> all = {size, window, stride, dilation, before, behind};
    if (std::any_of(all.begin(), all.end(), [](auto n) { return n < 0 || n > kLargest; }) ||
        stride == 0) {
      continue;
    }
    const std::int64_t room = size + before + behind - (window - 1) * dilation - 1;
    if (padding == "SAME") {
      dims[axis] = Size::Of((size + stride - 1) / stride);
    } else if ((padding == "VALID" || is_explicit) && room >= 0) {
      dims[axis] = Size::Of(room / stride + 1);
    }
  }
  return dims;
}

Or<Outputs> Convolution(const RowOp& op, std::size_t rank, bool depthwise) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const filter, op.Constant(1));
  TAKT_ASSIGN_OR_RETURN(const Layout layout, LayoutOf(op, *value, rank));
  const bool known = filter->rank() == static_cast<std::int64_t>(rank);
  std::vector<Size> windows(layout.spatials, Size::Unknown());
  if (known) windows.assign(filter->dims->begin(), filter->dims->end() - 2);
  TAKT_ASSIGN_OR_RETURN(Sizes dims, Windowed(op, *value, layout, windows));
  dims[layout.channel] = op.NewDimension();
  if (known && !depthwise) dims[layout.channel] = filter->dims->back();
  if (known && depthwise) {
    dims[layout.channel] = (*filter->dims)[rank - 2].Times((*filter->dims)[rank - 1]);
  }
  return One(Shaped(*value, std::move(dims)));
}
Or<Outputs> Conv2D(const RowOp& op) { return Convolution(op, 4, false); }
Or<Outputs> Conv3D(const RowOp& op) { return Convolution(op, 5, false); }
Or<Outputs> DepthwiseConv2d(const RowOp& op) { return Convolution(op, 4, true); }
Or<Outputs> FusedConv2D(const RowOp& op) {
  TAKT_RETURN_IF_ERROR(FusedWithConstants(op));
  return Conv2D(op);
}

Or<Outputs> Pool(const RowOp& op, std::size_t rank) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const Layout layout, LayoutOf(op, *value, rank));
  TAKT_ASSIGN_OR_RETURN(const auto sizes, PerDimension(op, "ksize", rank));
  TAKT_ASSIGN_OR_RETURN(const auto strides, PerDimension(op, "strides", rank));
  std::vector<Size> windows;
  for (std::size_t i = 0; i < layout.spatials; ++i) {
    windows.push_back(Size::Of(sizes[layout.spatial + i]));
  }
  TAKT_ASSIGN_OR_RETURN(Sizes dims, Windowed(op, *value, layout, windows));
  if (sizes[layout.channel] != 1 || strides[layout.channel] != 1) {
    dims[layout.channel] = op.NewDimension();
  }
  return One(Shaped(*value, std::move(dims)));
}
Or<Outputs> Pool2D(const RowOp& op) { return Pool(op, 4); }
Or<Outputs> Pool3D(const RowOp& op) { return Pool(op, 5); }

// The gradient of a convolution, used as one that makes images larger.
Or<Outputs> ConvBackpropInput(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> shape, op.Ints(0));
  TAKT_RETURN_IF_ERROR(op.Constant(1).status());
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(2));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t rank, RankOf(*value));
  if (rank != 4 && rank != 5) return No("its input is no batch of images");
  TAKT_RETURN_IF_ERROR(LayoutOf(op, *value, static_cast<std::size_t>(rank)).status());
  for (const std::string_view list : {"strides", "dilations"}) {
    TAKT_RETURN_IF_ERROR(PerDimension(op, list, static_cast<std::size_t>(rank)).status());
  }
  if (static_cast<std::int64_t>(shape.size()) != rank || !shape[0].Equals(value->rows)) {
    return No("its images are not as many as rows");
  }
  TAKT_ASSIGN_OR_RETURN(Sizes dims, DimsFrom(op, shape));
  if (!value->is_rows()) return No("its images are not as many as rows");
  return One(Value::Rows(std::move(dims)));
}

Or<Outputs> Resize(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Size> size, op.Ints(1));
  if (value->rank() != 4 || size.size() != 2) return No("its input is no batch of images");
  Sizes dims = *value->dims;
  for (std::size_t i = 0; i < 2; ++i) {
    if (size[i].has_rows()) return No(kNumberOfRows);
    dims[i + 1] = size[i].CanBeDimension() ? size[i] : op.NewDimension();
  }
  return One(Shaped(*value, std::move(dims)));
}

// Something else is done with each image; only the number of images is known of the result.
Or<Outputs> EachImage(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_RETURN_IF_ERROR(LayoutOf(op, *value, 4).status());
  for (const std::string_view list : {"ksizes", "strides", "rates"}) {
    TAKT_RETURN_IF_ERROR(PerDimension(op, list, 4).status());
  }
  Sizes dims = *value->dims;
  for (std::size_t i = 1; i < dims.size(); ++i) dims[i] = op.NewDimension();
  return One(Shaped(*value, std::move(dims)));
}

Or<Outputs> LocalResponse(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  if (value->rank() != 4) return No("its input is no batch of images");
  return One(WithoutInts(*value));
}

Or<Outputs> FusedBatchNorm(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_ASSIGN_OR_RETURN(const bool training, op.Bool("is_training", true));
  if (training) return No("is_training: it takes the mean of all rows");
  for (std::size_t i = 1; i < op.size(); ++i) TAKT_RETURN_IF_ERROR(op.Constant(i).status());
  TAKT_RETURN_IF_ERROR(
      LayoutOf(op, *value, value->rank() == 5 ? std::size_t{5} : std::size_t{4}).status());
  return One(WithoutInts(*value));
}

Or<Outputs> BiasAdd(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_RETURN_IF_ERROR(op.Constant(1).status());
  if (value->is_rows()) TAKT_RETURN_IF_ERROR(AxisBesideRows(*value, -1).status());
  return One(WithoutInts(*value));
}

// ---- Rules: examples, sources, branches

// Examples are parsed one by one; what is sparse, ragged or as long as the longest of all is not.
Or<Outputs> ParseExample(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const serialized, op.Data(0));
  if (serialized->rank() != 1) return No("parses no list of examples");
  for (std::size_t i = 1; i < op.size(); ++i) TAKT_RETURN_IF_ERROR(op.Constant(i).status());
  const bool second = op.node().op == "ParseExampleV2";
  TAKT_ASSIGN_OR_RETURN(const std::int64_t sparse, op.Int(second ? "num_sparse" : "Nsparse", 0));
  const std::optional<AttrView> attr = op.node().Attr("dense_shapes");
  if (sparse < 0 || sparse > kMaxLiteralElements || !attr.has_value()) return No("is malformed");
  const std::optional<std::vector<std::optional<Dimensions>>> shapes = attr->Shapes();
  if (!shapes.has_value()) return No("is malformed");
  Outputs outputs;
  outputs.values.resize(static_cast<std::size_t>(3 * sparse));
  for (const std::optional<Dimensions>& shape : *shapes) {
    Value& value = outputs.values.emplace_back();
    if (!shape.has_value() ||
        std::any_of(shape->begin(), shape->end(), [](std::int64_t size) { return size < 0; })) {
      continue;
    }
    Sizes dims{(*serialized->dims)[0]};
    for (const std::int64_t size : *shape) dims.push_back(Size::Of(size));
    value = Shaped(*serialized, std::move(dims));
  }
  return outputs;
}

// A row of bytes for each string; in one run all are as long.
Or<Outputs> DecodeRaw(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.Data(0));
  TAKT_RETURN_IF_ERROR(RankOf(*value).status());
  Sizes dims = *value->dims;
  dims.push_back(op.NewDimension());
  return One(Shaped(*value, std::move(dims)));
}

Sizes SizesOf(const RowOp& op, const Dimensions& dims) {
  Sizes sizes;
  for (const std::int64_t dim : dims) {
    sizes.push_back(dim < 0 ? op.NewDimension() : Size::Of(dim));
  }
  return sizes;
}

Or<Outputs> Const(const RowOp& op) {
  const std::optional<AttrView> attr = op.node().Attr("value");
  const std::optional<std::string_view> bytes = attr.has_value() ? attr->Tensor() : std::nullopt;
  if (!bytes.has_value()) return One(Value::Constant());
  const TensorView tensor = ReadTensor(*bytes);
  Value value = Value::Constant();
  if (tensor.dims.has_value()) value.dims = SizesOf(op, *tensor.dims);
  if (tensor.ints.has_value()) {
    value.ints.emplace();
    for (const std::int64_t number : *tensor.ints) value.ints->push_back(Size::Of(number));
  }
  return One(std::move(value));
}

Or<Outputs> Variable(const RowOp& op) {
  const std::optional<AttrView> attr = op.node().Attr("shape");
  const std::optional<Dimensions> shape = attr.has_value() ? attr->Shape() : std::nullopt;
  Value value = Value::Constant();
  if (shape.has_value()) value.dims = SizesOf(op, *shape);
  return One(std::move(value));
}

Or<Outputs> Handle(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(Outputs outputs, Variable(op));
  outputs.values[0].is_handle = true;
  return outputs;
}

Or<Outputs> Nothing(const RowOp&) { return One(Value::Nothing()); }

// A run of several that fails is run again, each alone. So it must not succeed where one alone
// would fail: the condition has to be that of each row, and of all of them.
Or<Outputs> Assert(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const condition, op.In(0));
  if (!condition->is_constant() && condition->kind != Value::Kind::kEveryRow) {
    return No("is not about each row");
  }
  return Nothing(op);
}

Or<Outputs> Switch(const RowOp& op) {
  TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(0));
  TAKT_ASSIGN_OR_RETURN(const Value* const chooses, op.In(1));
  if (!chooses->is_constant()) return No("branches by what is asked");
  Outputs outputs;
  outputs.values = {*value, *value};
  if (chooses->ints.has_value() && chooses->ints->size() == 1) {
    const std::optional<std::int64_t> chosen = (*chooses->ints)[0].literal();
    if (chosen.has_value()) outputs.values[*chosen == 0 ? 1 : 0].kind = Value::Kind::kDead;
  }
  return outputs;
}

Or<Outputs> Merge(const RowOp& op) {
  std::optional<Value> merged;
  for (std::size_t i = 0; i < op.size(); ++i) {
    TAKT_ASSIGN_OR_RETURN(const Value* const value, op.In(i));
    if (value->kind == Value::Kind::kDead) continue;
    if (!merged.has_value()) {
      merged = *value;
    } else {
      TAKT_ASSIGN_OR_RETURN(merged, Either(*merged, *value, op));
    }
  }
  Outputs outputs;
  if (!merged.has_value()) {
    outputs.rest.kind = Value::Kind::kDead;
  } else {
    outputs.values = {*std::move(merged), Value::Constant(Sizes())};
  }
  return outputs;
}

// On constants it gives constants; of rows nothing is known.
Or<Outputs> ConstantsOnly(const RowOp&) { return No("it is not known to leave rows apart"); }

// ---- The table

using RuleTable = std::unordered_map<std::string_view, RowRule>;

RuleTable MakeTable() {
  RuleTable table;
  const auto add = [&table](RowRule rule, std::initializer_list<std::string_view> ops) {
    for (const std::string_view op : ops) table.emplace(op, rule);
  };
  add(Elementwise,
      {// one input
       "Abs", "Acos", "Acosh", "Angle", "AsString", "Asin", "Asinh", "Atan", "Atanh", "BesselI0e",
       "BesselI1e", "Bucketize", "Ceil", "CheckNumerics", "CheckNumericsV2", "ComplexAbs", "Conj",
       "Cos", "Cosh", "DecodeBase64", "Digamma", "Elu", "EncodeBase64", "Erf", "Erfc", "Erfinv",
       "Exp", "Expm1", "FakeQuantWithMinMaxArgs", "Floor", "Imag", "Inv", "Invert", "IsFinite",
       "IsInf", "IsNan", "LeakyRelu", "Lgamma", "Log", "Log1p", "LogicalNot", "Ndtri", "Neg",
       "Real", "Reciprocal", "Relu", "Relu6", "Rint", "Round", "Rsqrt", "Selu", "Sigmoid", "Sign",
       "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Square", "StaticRegexFullMatch",
       "StaticRegexReplace", "StringLength", "StringLower", "StringStrip", "StringToHashBucket",
       "StringToHashBucketFast", "StringToHashBucketStrong", "StringToNumber", "StringUpper", "Tan",
       "Tanh", "UnicodeTranscode",
       // two and more
       "AddN", "ApproximateEqual", "Atan2", "Betainc", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
       "ClipByValue", "Complex", "Div", "DivNoNan", "FakeQuantWithMinMaxVars", "FloorMod",
       "Greater", "GreaterEqual", "Igamma", "Igammac", "LeftShift", "Less", "LessEqual",
       "LogicalOr", "Mod", "MulNoNan", "NextAfter", "Polygamma", "Pow", "RealDiv", "RegexFullMatch",
       "RegexReplace", "RightShift", "SelectV2", "SquaredDifference", "StringJoin", "Substr",
       "TruncateDiv", "TruncateMod", "Xdivy", "Xlog1py", "Xlogy", "Zeta"});
  add(Add, {"Add", "AddV2"});
  add(Sub, {"Sub"});
  add(Mul, {"Mul"});
  add(FloorDiv, {"FloorDiv"});
  add(Maximum, {"Maximum"});
  add(Minimum, {"Minimum"});
  add(Equal, {"Equal", "NotEqual"});
  add(LogicalAnd, {"LogicalAnd"});
  add(Select, {"Select"});
  add(Same, {"Identity", "PlaceholderWithDefault", "PreventGradient", "Snapshot", "StopGradient"});
  add(SameN, {"IdentityN"});
  add(Cast, {"Cast"});
  add(EnsureShape, {"EnsureShape"});
  add(Shape, {"Shape", "ShapeN"});
  add(Rank, {"Rank"});
  add(SizeOf, {"Size"});
  add(Range, {"Range"});
  add(Fill, {"Fill"});
  add(LikeInput, {"OnesLike", "ZerosLike"});
  add(BroadcastTo, {"BroadcastTo"});
  add(Tile, {"Tile"});
  add(Reshape, {"Reshape"});
  add(ExpandDims, {"ExpandDims"});
  add(Squeeze, {"Squeeze"});
  add(Transpose, {"Transpose"});
  add(Pack, {"Pack"});
  add(Unpack, {"Unpack"});
  add(ConcatV2, {"ConcatV2"});
  add(Concat, {"Concat"});
  add(Split, {"Split"});
  add(SplitV, {"SplitV"});
  add(StridedSlice, {"StridedSlice"});
  add(Slice, {"Slice"});
  add(Gather, {"Gather", "GatherV2"});
  add(ReadVariable, {"ReadVariableOp"});
  add(ResourceGather, {"ResourceGather"});
  add(TableFind, {"LookupTableFind", "LookupTableFindV2"});
  add(OneHot, {"OneHot"});
  add(Reduce, {"Any", "EuclideanNorm", "Max", "Mean", "Min", "Sum"});
  add(Prod, {"Prod"});
  add(All, {"All"});
  add(AlongLast, {"LogSoftmax", "Softmax"});
  add(ArgMax, {"ArgMax", "ArgMin"});
  add(TopK, {"TopKV2"});
  add(Cumulative, {"Cumprod", "Cumsum", "CumulativeLogsumexp", "ReverseV2"});
  add(Roll, {"Roll"});
  add(Pad, {"MirrorPad", "Pad", "PadV2"});
  add(MatrixBandPart, {"MatrixBandPart"});
  add(DenseBincount, {"DenseBincount"});
  add(MatMul, {"MatMul"});
  add(FusedMatMul, {"_FusedMatMul"});
  add(BatchMatMul, {"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"});
  add(Einsum, {"Einsum"});
  add(Conv2D, {"Conv2D"});
  add(FusedConv2D, {"_FusedConv2D"});
  add(Conv3D, {"Conv3D"});
  add(DepthwiseConv2d, {"DepthwiseConv2dNative"});
  add(Pool2D, {"AvgPool", "MaxPool"});
  add(Pool3D, {"AvgPool3D", "MaxPool3D"});
  add(ConvBackpropInput, {"Conv2DBackpropInput", "Conv3DBackpropInputV2"});
  add(Resize, {"ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor"});
  add(EachImage, {"DepthToSpace", "ExtractImagePatches", "SpaceToDepth"});
  add(LocalResponse, {"LRN"});
  add(FusedBatchNorm, {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"});
  add(BiasAdd, {"BiasAdd", "BiasAddV1"});
  add(ParseExample, {"ParseExample", "ParseExampleV2"});
  add(DecodeRaw, {"DecodeRaw"});
  add(Const, {"Const"});
  add(Variable, {"VariableV2"});
  add(Handle, {"HashTable", "HashTableV2", "VarHandleOp"});
  add(Nothing, {"ControlTrigger", "NoOp"});
  add(Assert, {"Assert"});
  add(Switch, {"Switch"});
  add(Merge, {"Merge"});
  add(ConstantsOnly, {"BatchToSpaceND",
                      "Bincount",
                      "Bitcast",
                      "BroadcastArgs",
                      "BroadcastGradientArgs",
                      "Cholesky",
                      "Diag",
                      "DiagPart",
                      "DynamicStitch",
                      "GatherNd",
                      "InvertPermutation",
                      "L2Loss",
                      "LinSpace",
                      "ListDiff",
                      "MatrixDeterminant",
                      "MatrixDiag",
                      "MatrixDiagPart",
                      "MatrixDiagPartV3",
                      "MatrixDiagV3",
                      "MatrixInverse",
                      "MatrixSetDiag",
                      "MatrixSetDiagV3",
                      "ReverseSequence",
                      "ScatterNd",
                      "SpaceToBatchND",
                      "StringFormat",
                      "TensorScatterAdd",
                      "TensorScatterUpdate",
                      "Unique",
                      "UniqueV2",
                      "UnsortedSegmentSum",
                      "Where"});
  return table;
}

}  // namespace

RowRule FindRowRule(std::string_view op) {
  static const RuleTable table = MakeTable();
  const auto found = table.find(op);
  return found == table.end() ? nullptr : found->second;
}

std::optional<std::size_t> OutputNumber(const NodeView& node, std::string_view name,
                                        std::size_t index) {
  const std::string_view op = node.op;
  // Operations whose results have several names. All others have one, or are for constants only.
  if (op.starts_with("FusedBatchNorm")) {
    return name == "y" && index == 0 ? std::optional<std::size_t>(0) : std::nullopt;
  }
  if (op == "TopKV2") return index + (name == "indices" ? 1 : 0);
  if (op == "Switch") return index + (name == "output_true" ? 1 : 0);
  if (op == "Merge") return index + (name == "value_index" ? 1 : 0);
  if (op == "ParseExample" || op == "ParseExampleV2") {
    const auto attr = node.Attr(op == "ParseExample" ? "Nsparse" : "num_sparse");
    const std::int64_t sparse = attr.has_value() ? attr->Int().value_or(-1) : 0;
    if (name != "dense_values" || sparse < 0 || sparse > kMaxLiteralElements) return std::nullopt;
    return static_cast<std::size_t>(3 * sparse) + index;
  }
  return index;
}

Or<Value> Either(const Value& a, const Value& b, const RowOp& op) {
  if (a.kind != b.kind || a.is_handle != b.is_handle) return No("its branches differ");
  if (a.kind == Value::Kind::kSizes) return No(kNumberOfRows);
  if (a.is_rows() && !a.rows.Equals(b.rows)) return No("its branches have other numbers of rows");
  Value either = WithoutInts(a);
  if (!a.dims.has_value() || a.rank() != b.rank()) {
    either.dims.reset();
    return either;
  }
  for (std::size_t i = 0; i < either.dims->size(); ++i) {
    if (!(*a.dims)[i].Equals((*b.dims)[i])) (*either.dims)[i] = op.NewDimension();
  }
  return either;
}

}  // namespace takt::serving
