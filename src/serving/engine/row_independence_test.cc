// Which graphs are proven to leave rows apart, as tables: an expression over inputs, and why it is
// not proven. rows_on_tensorflow_test.cc asks TensorFlow whether it is so.
#include "serving/engine/row_independence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"

namespace takt::serving {
namespace {

using tensorflow::AttrValue;
using tensorflow::FunctionDef;
using tensorflow::MetaGraphDef;
using tensorflow::NodeDef;

// What an expression may ask, by name; an input is fed where it is used.
const std::map<std::string, std::string, std::less<>>& Inputs() {
  static const std::map<std::string, std::string, std::less<>> inputs = {
      {"x", "?,3"},           {"x2", "?,3"},  {"v", "?"},
      {"m", "?,4,6"},         {"u", "?,?,7"}, {"image", "?,8,8,3"},
      {"video", "?,4,8,8,3"}, {"s", "?"},     {"any", "*"},
      {"fixed", "2,3"},       {"scalar", ""}, {"w", "?,?"}};
  return inputs;
}

tensorflow::TensorShapeProto ShapeProto(std::string_view text) {
  tensorflow::TensorShapeProto shape;
  if (text == "*") {
    shape.set_unknown_rank(true);
    return shape;
  }
  for (const absl::string_view part : absl::StrSplit(ToAbsl(text), ',', absl::SkipEmpty())) {
    std::int64_t size = -1;
    EXPECT_TRUE(part == "?" || absl::SimpleAtoi(part, &size)) << part;
    shape.add_dim()->set_size(size);
  }
  return shape;
}

// Statements `name = expression;`, functions `fn name(a, b) = expression;`, and at the end the
// expression that is the output. An expression is Op<attribute=value, ...>(input, ..., ^control)
// with :N for output N, a name, or a constant: {1,2} or {=1} (a scalar) of int32, f[2,3] of float.
class GraphText {
 public:
  explicit GraphText(std::string_view text) : rest_(text) {
    graph_ = meta_.mutable_graph_def();
    std::string last;
    while (Skip(), !rest_.empty()) last = Statement();
    output_ = last;
  }
  std::string bytes() const { return meta_.SerializeAsString(); }
  SignatureDef signature() const {
    SignatureDef signature;
    signature.name = "s";
    for (const std::string& name : used_) {
      TensorInfo info;
      info.alias = name;
      info.tensor_name = name + ":0";
      const std::string& shape = Inputs().find(name)->second;
      info.unknown_rank = shape == "*";
      const tensorflow::TensorShapeProto dims = ShapeProto(shape);
      for (const auto& dim : dims.dim()) info.dims.push_back(dim.size());
      signature.inputs.push_back(info);
    }
    TensorInfo output;
    output.alias = "y";
    output.tensor_name = output_;
    signature.outputs.push_back(output);
    return signature;
  }

 private:
  void Skip() {
    while (!rest_.empty() && (std::isspace(static_cast<unsigned char>(rest_[0])) != 0)) {
      rest_.remove_prefix(1);
    }
  }
  bool Take(char c) {
    Skip();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void Want(char c) { EXPECT_TRUE(Take(c)) << "expected " << c << " before: " << rest_; }
  std::string Word() {
    Skip();
    std::size_t n = 0;
    while (n < rest_.size() && (std::isalnum(static_cast<unsigned char>(rest_[n])) != 0 ||
                                rest_[n] == '_' || rest_[n] == '-')) {
      ++n;
    }
    std::string word(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return word;
  }
  std::string Until(char c) {
    const std::size_t n = rest_.find(c);
    EXPECT_NE(n, std::string_view::npos) << rest_;
    std::string text(rest_.substr(0, n));
    rest_.remove_prefix(n + 1);
    return text;
  }
  NodeDef* Add(const std::string& op) {
    NodeDef* node = function_ == nullptr ? graph_->add_node() : function_->add_node_def();
    node->set_op(op);
    node->set_name(StrCat("n", ++number_));
    return node;
  }
  // How another node names its output.
  std::string Output(const std::string& name, int index) const {
    return StrCat(name, function_ == nullptr ? ":" : ":out:", index);
  }
  std::string Statement() {
    const std::string_view before = rest_;
    std::string name = Word();
    if (name == "fn") {
      FunctionDef* function = graph_->mutable_library()->add_function();
      function->mutable_signature()->set_name(Word());
      Want('(');
      while (!Take(')')) {
        function->mutable_signature()->add_input_arg()->set_name(Word());
        Take(',');
      }
      Want('=');
      function_ = function;
      function->mutable_signature()->add_output_arg()->set_name("result");
      (*function->mutable_ret())["result"] = Expression();
      while (Take('&')) Expression();  // nodes that nobody asks for
      function_ = nullptr;
      Take(';');
      return "";
    }
    if (Take('=')) {
      named_[name] = Expression();
      Take(';');
      return named_[name];
    }
    rest_ = before;
    return Expression();
  }
  void Attribute(NodeDef* node) {
    const std::string key = Word();
    Want('=');
    AttrValue& value = (*node->mutable_attr())[key];
    if (Take('[')) {
      std::string list = Until(']');
      value.mutable_list();
      for (const absl::string_view part : absl::StrSplit(list, ',', absl::SkipEmpty())) {
        std::int64_t number = 0;
        EXPECT_TRUE(absl::SimpleAtoi(part, &number)) << part;
        value.mutable_list()->add_i(number);
      }
    } else if (Take('"')) {
      value.set_s(Until('"'));
    } else if (Take('@')) {
      value.mutable_func()->set_name(Word());
    } else if (Take('#')) {  // a type
      value.set_type(static_cast<tensorflow::DataType>(std::stoi(Word())));
    } else if (Take('(')) {  // a shape
      *value.mutable_shape() = ShapeProto(Until(')'));
    } else if (Take('$')) {  // an attribute of the function
      value.set_placeholder(Word());
    } else if (Take('%')) {  // shapes
      Want('(');
      *value.mutable_list()->add_shape() = ShapeProto(Until(')'));
    } else {
      const std::string word = Word();
      std::int64_t number = 0;
      if (word == "true" || word == "false") {
        value.set_b(word == "true");
      } else if (absl::SimpleAtoi(word, &number)) {
        value.set_i(number);
      } else {
        ADD_FAILURE() << "attribute " << key << ": " << word;
      }
    }
  }
  std::string Expression() {
    Skip();
    if (Take('{')) {
      NodeDef* node = Add("Const");
      tensorflow::TensorProto* tensor = (*node->mutable_attr())["value"].mutable_tensor();
      tensor->set_dtype(tensorflow::DT_INT32);
      const bool scalar = Take('=');
      for (const absl::string_view part : absl::StrSplit(Until('}'), ',', absl::SkipEmpty())) {
        std::int32_t number = 0;
        EXPECT_TRUE(absl::SimpleAtoi(part, &number)) << part;
        tensor->add_int_val(number);
      }
      tensor->mutable_tensor_shape();
      if (!scalar) tensor->mutable_tensor_shape()->add_dim()->set_size(tensor->int_val_size());
      return Output(node->name(), 0);
    }
    const std::string word = Word();
    if (word == "f" && Take('[')) {
      NodeDef* node = Add("Const");
      tensorflow::TensorProto* tensor = (*node->mutable_attr())["value"].mutable_tensor();
      tensor->set_dtype(tensorflow::DT_FLOAT);
      tensor->add_float_val(0.5);
      *tensor->mutable_tensor_shape() = ShapeProto(Until(']'));
      return Output(node->name(), 0);
    }
    Skip();
    std::string name;
    const bool is_call = !rest_.empty() && (rest_[0] == '(' || rest_[0] == '<');
    if (is_call) {
      // Inputs before the node that has them, as in a graph.
      NodeDef node;
      node.set_op(word);
      if (Take('<')) {
        while (!Take('>')) {
          Attribute(&node);
          Take(',');
        }
      }
      Want('(');
      while (!Take(')')) {
        if (Take('^')) {
          const std::string control = Expression();
          node.add_input(StrCat("^", control.substr(0, control.find(':'))));
        } else {
          node.add_input(Expression());
        }
        Take(',');
      }
      NodeDef* added = Add(word);
      node.set_name(added->name());
      *added = node;
      name = node.name();
    } else if (named_.contains(word)) {
      return named_[word];
    } else if (function_ != nullptr) {
      return word;  // an argument
    } else {
      EXPECT_TRUE(Inputs().contains(word)) << word;
      if (std::find(used_.begin(), used_.end(), word) == used_.end()) {
        used_.push_back(word);
        NodeDef* node = graph_->add_node();
        node->set_name(word);
        node->set_op("Placeholder");
      }
      return word + ":0";
    }
    if (Take('.')) {  // by the name of the output
      const std::string output = Word();
      return StrCat(name, ":", output, ":0");
    }
    return Output(name, Take(':') ? std::stoi(Word()) : 0);
  }

  std::string_view rest_;
  MetaGraphDef meta_;
  tensorflow::GraphDef* graph_;
  FunctionDef* function_ = nullptr;
  std::map<std::string, std::string, std::less<>> named_;
  std::vector<std::string> used_;
  std::string output_;
  int number_ = 0;
};

std::string Why(std::string_view text) {
  const GraphText graph(text);
  const SignatureDef signature = graph.signature();
  const std::vector<std::string> reasons = WhyRowsMayDepend(graph.bytes(), {&signature, 1});
  return reasons.size() == 1 ? reasons[0] : "not one reason";
}

struct Case {
  std::string_view graph;
  std::string_view why;  // a part of it; "" = proven
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.graph; }

class Rows : public testing::TestWithParam<Case> {};
TEST_P(Rows, AreApart) {
  const std::string why = Why(GetParam().graph);
  if (GetParam().why.empty()) {
    EXPECT_EQ(why, "") << GetParam().graph;
  } else {
    EXPECT_THAT(why, testing::HasSubstr(std::string(GetParam().why))) << GetParam().graph;
  }
}

constexpr std::string_view kOver = "over dimension 0";
constexpr std::string_view kOwn = "rows of its own";
constexpr std::string_view kBefore = "before that of the rows";
constexpr std::string_view kRanks = "different numbers of dimensions";
constexpr std::string_view kNumber = "with the number of rows";

constexpr Case kElements[] = {
    {"x", ""},
    {"Relu(x)", ""},
    {"Identity(any)", ""},
    {"AddV2(x, f[])", ""},
    {"AddV2(x, f[3])", ""},
    {"AddV2(x, f[1,3])", ""},
    {"AddV2(x, f[1,1])", ""},
    {"AddV2(x, f[2,3])", kOwn},
    {"AddV2(x, f[1,1,3])", kBefore},
    {"AddV2(x, x2)", ""},
    {"AddV2(x, v)", kRanks},  // v would run along the last dimension
    {"AddV2(v, x)", kRanks},
    {"AddV2(x, ExpandDims(v, {=1}))", ""},
    {"AddV2(x, ExpandDims(v, {=-1}))", ""},
    {"AddV2(x, m)", kRanks},
    {"AddV2(any, f[])", ""},
    {"AddV2(any, f[3])", "unknown number of dimensions"},
    {"AddV2(any, any)", kRanks},
    {"Sub(x, StridedSlice(x, {0}, {1}, {1}))", "takes some of the rows"},  // x - x[0:1]
    {"AddN(x, x2, x)", ""},
    {"AddN(x, f[2,3])", kOwn},
    {"Equal(x, f[])", ""},
    {"Equal<incompatible_shape_error=false>(x, f[])", ""},
    {"Equal<incompatible_shape_error=false>(x, x2)", ""},
    {"Equal<incompatible_shape_error=false>(x, f[4])", "may not match"},
    {"Equal<incompatible_shape_error=false>(w, x)", "may not match"},
    {"Equal<incompatible_shape_error=$T>(x, f[])", "incompatible_shape_error is not known"},
    {"ClipByValue(x, f[], f[])", ""},
    {"SelectV2(Greater(x, f[]), x, f[])", ""},
    {"SelectV2(Greater(v, f[]), x, x2)", kRanks},
    {"Select(Greater(v, f[]), x, x2)", ""},
    {"Select(Greater(x, f[]), x, x2)", ""},
    {"Select(Greater(x, f[]), x, f[2,3])", kOwn},
    {"Select(f[2], x, x2)", "constant, but for each row"},
    {"Select(f[], x, x2)", ""},
    {"Cast<SrcT=#1,DstT=#2>(x)", ""},
    {"EnsureShape<shape=(?,3)>(x)", ""},
    {"EnsureShape<shape=(2,3)>(x)", "wants a number of rows"},
    {"BiasAdd(x, f[3])", ""},
    {"BiasAdd(v, f[3])", kOver},
    {"BiasAdd(x, v)", "depends on what is asked"},
    {"StringJoin(s, f[])", ""},
    {"StringToHashBucketFast(s)", ""},
    {"LogicalAnd(Greater(x, f[]), Greater(x2, f[]))", ""},
};
INSTANTIATE_TEST_SUITE_P(Elements, Rows, testing::ValuesIn(kElements));

constexpr Case kMatrices[] = {
    {"MatMul(x, f[3,5])", ""},
    {"MatMul<transpose_b=true>(x, f[5,3])", ""},
    {"MatMul<transpose_a=true>(x, f[3,5])", "transpose_a"},
    {"MatMul<transpose_a=$T>(x, f[3,5])", "transpose_a is not known"},
    {"MatMul(f[5,2], x)", "all rows of its second input"},
    {"MatMul(x, x2)", "all rows of its second input"},
    {"MatMul<transpose_b=true>(x, x2)", "all rows of its second input"},
    {"_FusedMatMul(x, f[3,5], f[5])", ""},
    {"_FusedMatMul(x, f[3,5], x2)", "depends on what is asked"},
    {"BatchMatMulV2(m, f[6,2])", ""},
    {"BatchMatMulV2(m, f[1,6,2])", ""},
    {"BatchMatMulV2(m, f[2,6,2])", kOwn},
    {"BatchMatMulV2(m, f[1,1,6,2])", "multiplies matrices of rows"},
    {"BatchMatMulV2<adj_y=true>(m, m)", ""},
    {"BatchMatMulV2<adj_x=true>(m, m)", ""},
    {"BatchMatMulV2(x, x2)", "all rows of its second input"},
    {"BatchMatMulV2(x, f[3,2])", ""},
    {"BatchMatMulV2<adj_x=true>(x, f[3,2])", "transpose_a"},
    {"BatchMatMulV2(x, m)", "multiplies matrices of rows"},
    {"BatchMatMulV2(f[2,4], m)", ""},
    {"Einsum<equation=\"ab,bc->ac\">(x, f[3,5])", ""},
    {"Einsum<equation=\"ab,bc->ca\">(x, f[3,5])", "letter of the rows is not the first"},
    {"Einsum<equation=\"ab,bc->c\">(x, f[3,5])", "letter of the rows is not the first"},
    {"Einsum<equation=\"ab,ab->a\">(x, x2)", ""},
    {"Einsum<equation=\"ab,ac->bc\">(x, x2)", "letter of the rows is not the first"},
    {"Einsum<equation=\"ab,cb->ac\">(x, x2)", "not the same dimension"},
    {"Einsum<equation=\"abc,adc->abd\">(m, m)", ""},
    {"Einsum<equation=\"ab,ac->abc\">(x, f[2,5])", kOver},
    {"Einsum<equation=\"aa->a\">(x)", kOver},
    {"Einsum<equation=\"...x,xy->...y\">(m, f[6,5])", ""},
    {"Einsum<equation=\"...x,xy->y\">(m, f[6,5])", "not the first"},
    {"Einsum<equation=\"...xyz,xy->...z\">(m, f[4,6])", "ellipsis"},
    {"Einsum<equation=\"ab\">(x)", "names no output"},
};
INSTANTIATE_TEST_SUITE_P(Matrices, Rows, testing::ValuesIn(kMatrices));

constexpr Case kAxes[] = {
    {"Mean(x, {1})", ""},
    {"Mean(x, {-1})", ""},
    {"Mean(x, {=1})", ""},
    {"Mean(x, {0})", kOver},
    {"Mean(x, {-2})", kOver},
    {"Mean<keep_dims=true>(x, {0})", kOver},
    {"Mean(x, {0,1})", kOver},
    {"Mean(v, {-1})", kOver},
    {"Mean(any, {1})", "unknown number of dimensions"},
    {"Mean(m, {1,2})", ""},
    {"Mean(x, Cast<SrcT=#1,DstT=#3>(f[]))", "is not known"},
    {"AddV2(x, Mean<keep_dims=true>(x, {1}))", ""},
    {"AddV2(x, Mean(x, {1}))", kRanks},
    {"Softmax(x)", ""},
    {"Softmax(v)", kOver},
    {"Softmax(any)", "unknown number of dimensions"},
    {"LogSoftmax(m)", ""},
    {"ArgMax(x, {=1})", ""},
    {"ArgMax(x, {=0})", kOver},
    {"TopKV2(x, {=2})", ""},
    {"TopKV2(x, {=2}):1", ""},
    {"TopKV2(v, {=2})", kOver},
    {"Cumsum(x, {=1})", ""},
    {"Cumsum(x, {=0})", kOver},
    {"ReverseV2(x, {1})", ""},
    {"ReverseV2(x, {0})", kOver},
    {"Roll(x, {1}, {1})", ""},
    {"Roll(x, {1}, {0})", kOver},
    {"ConcatV2(x, x2, {=1})", ""},
    {"ConcatV2(x, x2, {=-1})", ""},
    {"ConcatV2(x, x2, {=0})", kOver},
    {"ConcatV2(x, f[1,3], {=1})", kOwn},
    {"Concat({=1}, x, x2)", ""},
    {"Pack<axis=1>(x, x2)", ""},
    {"Pack(x, x2)", kBefore},
    {"Pack<axis=1>(x, f[2,3])", kOwn},
    {"Unpack<axis=1,num=3>(x):2", ""},
    {"Unpack<num=2>(x)", kOver},
    {"Split<num_split=3>({=1}, x):2", ""},
    {"Split<num_split=2>({=0}, x)", kOver},
    {"SplitV(x, {1,2}, {=1}):1", ""},
    {"SplitV(x, {1,2}, {=0})", kOver},
    {"Pad(x, Reshape({0,0,1,1}, {2,2}))", ""},
    {"Pad(x, Reshape({0,1,0,0}, {2,2}))", "adds rows"},
    {"MatrixBandPart(m, f[], f[])", ""},
    {"MatrixBandPart(x, f[], f[])", kOver},
    {"DenseBincount(x, {=4}, {})", ""},
    {"DenseBincount(v, {=4}, {})", kOver},
};
INSTANTIATE_TEST_SUITE_P(Axes, Rows, testing::ValuesIn(kAxes));

constexpr Case kShapes[] = {
    {"Reshape(m, {-1,24})", ""},
    {"Reshape(m, {-1,12})", "not one row for each row"},
    {"Reshape(Reshape(m, {-1,6}), {-1,4,6})", ""},
    {"Reshape(MatMul(Reshape(m, {-1,6}), f[6,2]), {-1,4,2})", ""},
    {"Reshape(Softmax(Reshape(m, {-1})), {-1,24})", kOver},
    {"Reshape(m, {-1,5})", "cut in two"},
    {"Reshape(m, {-1,16})", "cut in two"},
    {"Reshape(x, {3,-1})", "number of their own"},
    {"Reshape(x, {1,-1})", "number of their own"},
    {"Reshape(u, {-1,7})", "not one row for each row"},
    {"Reshape(u, {-1,14})", "cut in two"},
    {"sh = Shape(u); Reshape(MatMul(Reshape(u, {-1,7}), f[7,2]),"
     " Pack(StridedSlice<shrink_axis_mask=1>(sh, {0}, {1}, {1}),"
     " StridedSlice<shrink_axis_mask=1>(sh, {1}, {2}, {1}), {=2}))",
     ""},
    {"Reshape(m, Pack(StridedSlice<shrink_axis_mask=1>(Shape(m), {0}, {1}, {1}), {=24}))", ""},
    {"Reshape(m, Pack(StridedSlice<shrink_axis_mask=1>(Shape(m), {0}, {1}, {1}), {=-1}))", ""},
    {"Reshape(m, Pack({=24}, StridedSlice<shrink_axis_mask=1>(Shape(m), {0}, {1}, {1})))",
     "number of their own"},
    {"Reshape(m, Pack({=-1}, StridedSlice<shrink_axis_mask=1>(Shape(m), {0}, {1}, {1})))",
     "cut in two"},
    {"Reshape(m, Pack(Unpack<num=3>(Shape(m)):0, Mul<T=#3>({=4}, {=6})))", ""},
    // Keras' Dense on more than two dimensions
    {"sh = Shape(u); free = GatherV2(sh, {0,1}, {=0});"
     " flat = Reshape(Transpose(u, {0,1,2}), Pack(Prod(free, {0}), Prod(GatherV2(sh, {2}, {=0}),"
     " {0}))); Reshape(MatMul(flat, f[7,5]), ConcatV2(free, {5}, {=0}))",
     ""},
    {"Reshape(x, Slice(Shape(x), {0}, {2}))", ""},
    {"Transpose(m, {0,2,1})", ""},
    {"Transpose(x, {1,0})", "moves the dimension of rows"},
    {"Transpose(m, Range({=0}, Rank(m), {=1}))", ""},
    {"Squeeze<squeeze_dims=[1]>(ExpandDims(x, {=1}))", ""},
    {"Squeeze(ExpandDims(x, {=1}))", "where a run has one row"},
    {"Squeeze<squeeze_dims=[0]>(x)", kOver},
    {"ExpandDims(x, {=0})", kBefore},
    {"ExpandDims(x, {=-3})", kBefore},
    {"Tile(x, {1,2})", ""},
    {"Tile(x, {2,1})", "one behind the other"},
    {"Tile(f[1,3], Pack(StridedSlice<shrink_axis_mask=1>(Shape(x), {0}, {1}, {1}), {=1}))", ""},
    {"Tile(f[2,3], Pack(StridedSlice<shrink_axis_mask=1>(Shape(x), {0}, {1}, {1}), {=1}))",
     "not one row for each row"},
    {"Fill(Shape(x), f[])", ""},
    {"Fill(Pack({=3}, StridedSlice<shrink_axis_mask=1>(Shape(x), {0}, {1}, {1})), f[])",
     "not the first"},
    {"BroadcastTo(f[3], Shape(x))", ""},
    {"BroadcastTo(f[1,3], Shape(x))", ""},
    {"BroadcastTo(f[2,3], Shape(x))", kBefore},
    {"BroadcastTo(v, Shape(x))", kBefore},
    {"BroadcastTo(Mean<keep_dims=true>(x, {1}), Shape(x))", ""},
    {"BroadcastTo(x, {2,3})", "number of their own"},
    {"ZerosLike(x)", ""},
    {"Mul(x, Cast<SrcT=#3,DstT=#1>(StridedSlice<shrink_axis_mask=1>(Shape(x), {0}, {1}, {1})))",
     kNumber},  // x * number of rows
    {"AddV2(x, Fill({3}, Cast<SrcT=#3,DstT=#1>(StridedSlice<shrink_axis_mask=1>(Shape(x), {1},"
     " {2}, {1}))))",
     ""},
    {"AddV2(x, Cast<SrcT=#3,DstT=#1>(ExpandDims(Range({=0}, StridedSlice<shrink_axis_mask=1>("
     "Shape(x), {0}, {1}, {1}), {=1}), {=1})))",
     "numbers the rows"},
    {"Mul(x, Cast<SrcT=#3,DstT=#1>(Size(x)))", kNumber},
    {"Shape(x)", "has no rows"},
    {"Shape(any)", "unknown number of dimensions"},
};
INSTANTIATE_TEST_SUITE_P(Shapes, Rows, testing::ValuesIn(kShapes));

constexpr Case kSlices[] = {
    {"StridedSlice<begin_mask=1,end_mask=1,shrink_axis_mask=2>(x, {0,1}, {0,2}, {1,1})", ""},
    {"StridedSlice<begin_mask=3,end_mask=3>(x, {0,0}, {0,0}, {1,-1})", ""},
    {"StridedSlice<begin_mask=3,end_mask=3>(x, {0,0}, {0,0}, {-1,1})", "some of the rows"},
    {"StridedSlice<begin_mask=3,end_mask=3>(x, {0,0}, {0,0}, {2,1})", "some of the rows"},
    {"StridedSlice<end_mask=1>(x, {0}, {0}, {1})", ""},
    {"StridedSlice<end_mask=1>(x, {1}, {0}, {1})", "some of the rows"},
    {"StridedSlice<begin_mask=1>(x, {0}, {-1}, {1})", "some of the rows"},
    {"StridedSlice<shrink_axis_mask=1>(x, {0}, {1}, {1})", "some of the rows"},
    {"StridedSlice<ellipsis_mask=1,shrink_axis_mask=2>(x, {0,0}, {0,1}, {1,1})", ""},
    {"StridedSlice<ellipsis_mask=1,shrink_axis_mask=2>(v, {0,0}, {0,1}, {1,1})",
     "some of the rows"},
    {"StridedSlice<new_axis_mask=1>(x, {0}, {0}, {1})", kBefore},
    {"StridedSlice<begin_mask=1,end_mask=1,new_axis_mask=2>(x, {0,0}, {0,0}, {1,1})", ""},
    {"StridedSlice<ellipsis_mask=1,new_axis_mask=2>(x, {0,0}, {0,0}, {1,1})", ""},
    {"StridedSlice<begin_mask=1,end_mask=1>(x, {0,0}, ConcatV2({0},"
     " StridedSlice(Shape(x), {0}, {1}, {1}), {=0}), {1,1})",
     kNumber},  // x[:, :rows]
    {"StridedSlice<begin_mask=1>(x, {0}, StridedSlice(Shape(x), {0}, {1}, {1}), {1})", ""},
    {"Slice(x, {0,1}, {-1,1})", ""},
    {"Slice(x, {0,1}, ConcatV2(StridedSlice(Shape(x), {0}, {1}, {1}), {1}, {=0}))", ""},
    {"Slice(x, {0,0}, {1,3})", "some of the rows"},
    {"Slice(x, {1,0}, {-1,3})", "some of the rows"},
    {"GatherV2(f[9,5], x, {=0})", ""},
    {"GatherV2(f[9,5], v, {=0})", ""},
    {"GatherV2(f[9,5], x, {=1})", kBefore},
    {"GatherV2(f[9,5], x, {=-2})", ""},
    {"GatherV2(x, v, {=0})", "looks up among all rows"},
    {"GatherV2(x, v, {=1})", "looks up among all rows"},
    {"GatherV2(x, {0,1}, {=0})", kOver},
    {"GatherV2(x, {0,1}, {=1})", ""},
    {"GatherV2<batch_dims=1>(x, x2, {=1})", ""},
    {"GatherV2<batch_dims=1>(f[2,3], x, {=1})", kOwn},
    {"Gather(f[9], x)", ""},
    {"Gather(x, v)", "looks up among all rows"},
    {"ResourceGather(VarHandleOp<shape=(9,5)>(), x)", ""},
    {"OneHot(x, {=4}, f[], f[])", ""},
    {"OneHot<axis=0>(x, {=4}, f[], f[])", kBefore},
    {"OneHot(x, StridedSlice<shrink_axis_mask=1>(Shape(x), {0}, {1}, {1}), f[], f[])", kNumber},
    {"LookupTableFindV2(HashTableV2(), s, f[])", ""},
    {"LookupTableFindV2(HashTableV2(), s, f[2])", "have dimensions"},
    {"GatherNd(x, {0,0})", "not known to leave rows apart"},
    {"AddV2(x, GatherNd(f[9,3], {0}))", "unknown number of dimensions"},
    {"Unique(v)", "not known to leave rows apart"},
    {"Where(x)", "not known to leave rows apart"},
};
INSTANTIATE_TEST_SUITE_P(Slices, Rows, testing::ValuesIn(kSlices));

constexpr Case kImages[] = {
    {"Conv2D<strides=[1,2,2,1],padding=\"SAME\">(image, f[3,3,3,5])", ""},
    {"Conv2D<strides=[1,2,2,1],padding=\"SAME\",data_format=\"NCHW\">(image, f[3,3,3,5])", ""},
    {"Conv2D<strides=[1,2,2,1],padding=\"SAME\",data_format=\"HWNC\">(image, f[3,3,3,5])",
     "data_format"},
    {"Conv2D<strides=[2,1,1,1],padding=\"SAME\">(image, f[3,3,3,5])", "go over rows"},
    {"Conv2D<strides=[1,1,1,1],padding=\"EXPLICIT\",explicit_paddings=[0,0,1,1,1,1,0,0]>"
     "(image, f[3,3,3,5])",
     ""},
    {"Conv2D<strides=[1,1,1,1],padding=\"EXPLICIT\",explicit_paddings=[1,0,1,1,1,1,0,0]>"
     "(image, f[3,3,3,5])",
     "explicit_paddings"},
    {"Conv2D<strides=[1,1,1,1],padding=\"SAME\">(f[1,8,8,3], image)", "depends on what is asked"},
    // Flatten behind a convolution and a pool: 8 → 6 → 3, 3 → 5 channels.
    {"Reshape(MaxPool<ksize=[1,2,2,1],strides=[1,2,2,1],padding=\"VALID\">("
     "Conv2D<strides=[1,1,1,1],padding=\"VALID\">(image, f[3,3,3,5])), {-1,45})",
     ""},
    {"Reshape(MaxPool<ksize=[1,2,2,1],strides=[1,2,2,1],padding=\"VALID\">("
     "Conv2D<strides=[1,1,1,1],padding=\"VALID\">(image, f[3,3,3,5])), {-1,90})",
     "cut in two"},
    {"Reshape(DepthwiseConv2dNative<strides=[1,4,4,1],padding=\"SAME\">(image, f[3,3,3,2]),"
     " {-1,24})",
     ""},
    {"Reshape(Conv2D<strides=[1,1,1,1],dilations=[1,3,3,1],padding=\"VALID\">("
     "image, f[3,3,3,5]), {-1,20})",
     ""},
    {"Conv2D<strides=[1,1,1,1],dilations=[1,1099511627776,1,1],padding=\"VALID\">("
     "image, f[3,3,3,5])",
     ""},
    {"MaxPool<ksize=[2,2,2,1],strides=[1,2,2,1],padding=\"VALID\">(image)", "go over rows"},
    {"AvgPool<ksize=[1,2,2,1],strides=[1,2,2,1],padding=\"SAME\">(image)", ""},
    {"Conv3D<strides=[1,1,1,1,1],padding=\"SAME\">(video, f[3,3,3,3,5])", ""},
    {"AvgPool3D<ksize=[1,2,2,2,1],strides=[1,2,2,2,1],padding=\"SAME\">(video)", ""},
    {"sh = Shape(image); Conv2DBackpropInput<strides=[1,2,2,1],padding=\"SAME\">(Pack("
     "StridedSlice<shrink_axis_mask=1>(sh, {0}, {1}, {1}), {=16}, {=16}, {=5}), f[3,3,5,3], image)",
     ""},
    {"Conv2DBackpropInput<strides=[1,2,2,1],padding=\"SAME\">({2,16,16,5}, f[3,3,5,3], image)",
     "not as many as rows"},
    {"FusedBatchNormV3<is_training=false>(image, f[3], f[3], f[3], f[3])", ""},
    {"FusedBatchNormV3<is_training=true>(image, f[3], f[3], f[3], f[3])", "mean of all rows"},
    {"FusedBatchNormV3(image, f[3], f[3], f[3], f[3])", "mean of all rows"},
    {"FusedBatchNormV3<is_training=false>(image, f[3], f[3], f[3], f[3]):1", "has no rows"},
    {"LRN(image)", ""},
    {"LRN(x)", "no batch of images"},
    {"ResizeBilinear(image, {4,4})", ""},
    {"SpaceToDepth<block_size=2>(image)", ""},
    {"SpaceToBatchND(image, {2,2}, Reshape({0,0,0,0}, {2,2}))", "not known to leave rows apart"},
};
INSTANTIATE_TEST_SUITE_P(Images, Rows, testing::ValuesIn(kImages));

constexpr Case kGraphs[] = {
    // inputs and outputs
    {"a = Relu(x); f[2,3]", "has no rows"},
    {"fixed", "input \"fixed\" has no dimension for rows"},
    {"scalar", "input \"scalar\" has no dimension for rows"},
    {"AddV2(x, Placeholder())", "Placeholder \"n1\": is not fed"},
    {"AddV2(x, PlaceholderWithDefault(f[]))", ""},
    {"Nonsense(x)", "Nonsense \"n1\": it is not known to leave rows apart"},
    {"MapDefun(x)", "not known"},
    {"Relu(Mean(x, {0}))", "Mean \"n2\": over dimension 0, where the rows are"},
    // variables
    {"MatMul(x, ReadVariableOp(VarHandleOp<shape=(3,5)>()))", ""},
    {"AddV2(x, ReadVariableOp(VarHandleOp<shape=(2,3)>()))", kOwn},
    {"AddV2(x, ReadVariableOp(VarHandleOp()))", "unknown number of dimensions"},
    {"AddV2(x, Identity(VariableV2<shape=(3)>()))", ""},
    {"h = VarHandleOp<shape=(3)>(); AddV2(x, ReadVariableOp(h, ^AssignAddVariableOp(h, f[3])))",
     "writes a variable"},
    {"ReadVariableOp(x)", "not known what it reads"},
    {"AddV2(x, VarHandleOp<shape=(3)>())", "is no tensor"},
    {"Identity(x, ^NoOp(^Relu(x)))", ""},
    {"Identity(x, ^NoOp(^AssignVariableOp(VarHandleOp<shape=(3)>(), f[3])))", "writes a variable"},
    {"Identity(x, ^x)", ""},
    // random numbers, effects, loops
    {"Mul(x, RandomUniform(Shape(x)))", "RandomUniform \"n2\": is random"},
    {"AddV2(x, RandomUniform({3}))", "is random"},
    {"While<body=@f>(x)", "is a loop"},
    {"a = Merge(x, NextIteration(x)); a", "is a loop"},
    // what must hold for each row
    {"Identity(x, ^Assert(All(Greater(x, f[]), {0,1}), f[]))", ""},
    {"Identity(x, ^Assert(All(Greater(x, f[]), Range({=0}, Rank(x), {=1})), x))", ""},
    {"Identity(x, ^Assert(Any(Greater(x, f[]), {0,1}), f[]))", kOver},
    {"Identity(x, ^Assert(All(Equal(Shape(x), Shape(x2)), {0}), f[]))", ""},
    {"Identity(x, ^Assert(All(Equal(Shape(x), {2,3}), {0}), f[]))", kNumber},
    {"Identity(x, ^Assert(LogicalAnd(All(x, {0,1}), All(x2, {0,1})), f[]))", ""},
    {"Relu(All(x, {0,1}))", "true of all rows"},
    {"All(x, {0,1})", "has no rows"},
    {"All(x, {1})", ""},
    {"CheckNumerics(x)", ""},
    // examples
    {"ParseExampleV2<num_sparse=0,dense_shapes=%(2)>(s, f[0], f[0], f[1], f[0], f[2])", ""},
    {"ParseExampleV2<num_sparse=1,dense_shapes=%(2)>(s, f[0], f[1], f[1], f[0], f[2]):3", ""},
    {"ParseExampleV2<num_sparse=1,dense_shapes=%(2)>(s, f[0], f[1], f[1], f[0], f[2]):1",
     "has no rows"},
    {"ParseExampleV2<num_sparse=0,dense_shapes=%(?)>(s, f[0], f[0], f[1], f[0], f[0])",
     "has no rows"},
    {"ParseExample<Nsparse=0,dense_shapes=%(2)>(s, f[0], f[1], f[2])", ""},
    {"DecodeRaw(s)", ""},
    // functions
    {"fn f(a) = Relu(a); PartitionedCall<f=@f>(x)", ""},
    {"fn f(a) = Relu(a); f(x)", ""},
    {"fn f(a) = Mean(a, {0}); StatefulPartitionedCall<f=@f>(x)", kOver},
    {"fn f(a, h) = MatMul(a, ReadVariableOp(h)); StatefulPartitionedCall<f=@f>(x,"
     " VarHandleOp<shape=(3,5)>())",
     ""},
    {"fn g(a) = Relu(a); fn f(a) = PartitionedCall<f=@g>(PartitionedCall<f=@g>(a));"
     " PartitionedCall<f=@f>(x)",
     ""},
    {"fn f(a) = TopKV2(a, {=2}).indices; PartitionedCall<f=@f>(x)", ""},
    {"fn f(a) = FusedBatchNormV3<is_training=false>(a, f[3], f[3], f[3], f[3]).y;"
     " PartitionedCall<f=@f>(image)",
     ""},
    {"fn f(a) = FusedBatchNormV3<is_training=false>(a, f[3], f[3], f[3], f[3]).batch_mean;"
     " PartitionedCall<f=@f>(image)",
     "batch_mean"},
    {"fn f(a) = ParseExampleV2<num_sparse=1,dense_shapes=%(2)>(a, f[0], f[1], f[1], f[0],"
     " f[2]).dense_values; PartitionedCall<f=@f>(s)",
     ""},
    {"fn f(a) = ParseExampleV2<num_sparse=1,dense_shapes=%(2)>(a, f[0], f[1], f[1], f[0],"
     " f[2]).sparse_values; PartitionedCall<f=@f>(s)",
     "sparse_values"},
    {"fn f(a, h) = Relu(a) & AssignVariableOp(h, f[3]); PartitionedCall<f=@f>(x,"
     " VarHandleOp<shape=(3)>())",
     "writes a variable"},
    {"fn f(a) = f(a); f(x)", "64 deep"},
    {"fn f(a) = Relu(a); PartitionedCall<f=@g>(x)", "\"g\""},
    {"fn f(a, b) = Relu(a); PartitionedCall<f=@f>(x)", "other arguments"},
    // The library comes before the operations.
    {"fn Relu(a) = Mean(a, {0}); Relu(x)", kOver},
    // branches
    {"fn t(a) = Relu(a); fn e(a) = Mean(a, {0}); If<then_branch=@t,else_branch=@e>({=1}, x)", ""},
    {"fn t(a) = Relu(a); fn e(a) = Mean(a, {0}); If<then_branch=@t,else_branch=@e>({=0}, x)",
     kOver},
    {"fn t(a) = Relu(a); fn e(a) = Neg(a); If<then_branch=@t,else_branch=@e>("
     "ReadVariableOp(VarHandleOp<shape=()>()), x)",
     ""},
    {"fn t(a) = Relu(a); fn e(a) = Mean(a, {1}); If<then_branch=@t,else_branch=@e>("
     "ReadVariableOp(VarHandleOp<shape=()>()), x)",
     ""},
    {"fn t(a) = Relu(a); fn e(a) = f[2,3]; If<then_branch=@t,else_branch=@e>("
     "ReadVariableOp(VarHandleOp<shape=()>()), x)",
     "branches differ"},
    {"fn t(a) = Relu(a); fn e(a) = Neg(a); If<then_branch=@t,else_branch=@e>("
     "Greater(Max(x, {0,1}), f[]), x)",
     kOver},
    {"fn t(a) = Relu(a); fn e(a) = Neg(a); If<then_branch=@t,else_branch=@e>(All(x, {0,1}), x)",
     "branches by what is asked"},
    // tf.debugging.assert_...
    {"fn t(c, a) = Identity(c); fn e(c, a) = Identity(c, ^Assert(c, a)); all = All(x, {0,1});"
     " Identity(x, ^If<then_branch=@t,else_branch=@e>(all, all, x))",
     ""},
    {"fn t(c, a) = Identity(c); fn e(c, a) = Identity(c) & Assert(c, a); all = All(x, {0,1});"
     " Identity(x, ^If<then_branch=@t,else_branch=@e>(all, all, x))",
     "branches by what is asked"},
    {"fn t(c, a) = Identity(c); fn e(c, a) = Identity(c, ^Assert(a, a)); all = All(x, {0,1});"
     " Identity(x, ^If<then_branch=@t,else_branch=@e>(all, all, All(x2, {0,1})))",
     "branches by what is asked"},
    {"b = Switch(x, {=0}); Merge(Switch(x, {=0}), Mean(Switch(x, {=0}):1, {0}))", ""},
    {"Merge(Mean(Switch(x, {=0}), {0}), Switch(x, {=0}):1)", kOver},
    {"Merge(Relu(Switch(x, f[])), Neg(Switch(x, f[]):1))", ""},
    {"Merge(Relu(Switch(x, All(x, {0,1}))), x)", "branches by what is asked"},
};
INSTANTIATE_TEST_SUITE_P(Graphs, Rows, testing::ValuesIn(kGraphs));

TEST(RowIndependence, EachSignatureHasItsOwnAnswer) {
  const GraphText graph("a = Relu(x); Mean(a, {0})");
  std::vector<SignatureDef> signatures = {graph.signature(), graph.signature(), graph.signature()};
  signatures[0].outputs[0].tensor_name = "n1:0";
  signatures[2].inputs.clear();
  const std::vector<std::string> why = WhyRowsMayDepend(graph.bytes(), signatures);
  ASSERT_EQ(why.size(), 3U);
  EXPECT_EQ(why[0], "");
  EXPECT_EQ(why[1], "Mean \"n3\": over dimension 0, where the rows are");
  EXPECT_EQ(why[2], "it has no inputs");
}

TEST(RowIndependence, NamesThatAreNotThereAreNotProven) {
  const GraphText graph("Relu(x)");
  SignatureDef signature = graph.signature();
  for (const char* name : {"nothing:0", "n1:7", "n1:x", "n1:", "", "^n1"}) {
    signature.outputs[0].tensor_name = name;
    EXPECT_NE(WhyRowsMayDepend(graph.bytes(), {&signature, 1})[0], "") << name;
  }
  signature = graph.signature();
  signature.inputs[0].tensor_name = "nothing:0";
  EXPECT_NE(WhyRowsMayDepend(graph.bytes(), {&signature, 1})[0], "");
}

TEST(RowIndependence, BytesThatAreNoGraphAreNotProven) {
  const GraphText graph("Relu(x)");
  const SignatureDef signature = graph.signature();
  const std::string bytes = graph.bytes();
  for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
    EXPECT_NE(WhyRowsMayDepend(bytes.substr(0, cut), {&signature, 1})[0], "") << cut;
  }
}

TEST(RowIndependence, AGraphBeyondTheLimitIsNotProven) {
  // Each function calls the next one twice: 2^20 calls.
  std::string text = "fn f0(a) = Relu(a);";
  for (int i = 1; i <= 20; ++i) {
    text += StrCat("fn f", i, "(a) = f", i - 1, "(f", i - 1, "(a));");
  }
  EXPECT_THAT(Why(text + "f20(x)"), testing::HasSubstr("more than 200000 nodes"));
}

TEST(RowIndependence, ALongChainIsWalkedWithoutRecursion) {
  std::string text = "a = Relu(x);";
  for (int i = 0; i < 50000; ++i) text += "a = Relu(a);";
  EXPECT_EQ(Why(text + "Neg(a)"), "");
}

}  // namespace
}  // namespace takt::serving
