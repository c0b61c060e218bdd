#include "logs/query.h"

#include <re2/filtered_re2.h>
#include <re2/re2.h>

#include <algorithm>
#include <cctype>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "logs/chunk.h"

namespace takt::logs {
namespace {

enum class Op { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kRegex, kNotRegex };

constexpr std::int64_t kMaxRegexBytes = 8 << 20;  // of memory for one compiled expression

re2::StringPiece Piece(std::string_view v) { return {v.data(), v.size()}; }

bool IsWordByte(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

// A regular expression with what RE2 knows of the texts that a match must hold.
class Pattern {
 public:
  static absl::StatusOr<std::unique_ptr<Pattern>> Make(const std::string& source) {
    auto pattern = std::make_unique<Pattern>();
    RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(kMaxRegexBytes);
    pattern->re_ = std::make_unique<RE2>(source, options);
    if (!pattern->re_->ok()) return absl::InvalidArgumentError(pattern->re_->error());
    pattern->filter_ = std::make_unique<re2::FilteredRE2>(3);
    int id = 0;
    if (pattern->filter_->Add(source, options, &id) == RE2::NoError) {
      std::vector<std::string> atoms;
      pattern->filter_->Compile(&atoms);
      for (const std::string& atom : atoms) pattern->atoms_.push_back(NeedleHashes(atom));
    }
    return pattern;
  }
  bool Match(std::string_view text) const { return RE2::PartialMatch(Piece(text), *re_); }
  bool MayContainMatch(std::string_view filter) const {
    if (atoms_.empty()) return true;
    std::vector<int> there, potentials;
    for (std::size_t i = 0; i < atoms_.size(); ++i) {
      if (MayContain(filter, atoms_[i])) there.push_back(static_cast<int>(i));
    }
    filter_->AllPotentials(there, &potentials);
    return !potentials.empty();
  }

 private:
  std::unique_ptr<RE2> re_;
  std::unique_ptr<re2::FilteredRE2> filter_;
  std::vector<std::vector<std::uint32_t>> atoms_;
};

bool CompareNumbers(Op op, double a, double b) {
  switch (op) {
    case Op::kLess:
      return a < b;
    case Op::kLessEqual:
      return a <= b;
    case Op::kGreater:
      return a > b;
    case Op::kGreaterEqual:
      return a >= b;
    case Op::kNotEqual:
      return a != b;
    default:
      return a == b;
  }
}

bool GlobEqual(std::string_view pattern, std::string_view value) {
  if (pattern.ends_with('*')) return value.starts_with(pattern.substr(0, pattern.size() - 1));
  return pattern == value;
}

}  // namespace

struct Query::Node {
  enum class Kind {
    kAll,
    kAnd,
    kOr,
    kNot,
    kText,
    kPhrase,
    kExact,
    kRegex,
    kLevel,
    kStream,
    kField
  };
  Kind kind = Kind::kAll;
  std::vector<std::unique_ptr<Node>> children;
  std::string text;  // kText, kPhrase: lower case; kExact: as is; kStream, kField: the value
  std::string name;  // kStream, kField
  Op op = Op::kEqual;
  Level level = Level::kUnknown;
  double number = 0;
  bool is_number = false;
  std::unique_ptr<Pattern> pattern;
  std::vector<std::uint32_t> hashes;  // what a chunk's filter must have

  // -1 no, 0 it depends on the entry, 1 yes.
  int OfStream(const StreamKey& stream) const {
    switch (kind) {
      case Kind::kAll:
        return 1;
      case Kind::kAnd: {
        int result = 1;
        for (const auto& child : children) result = std::min(result, child->OfStream(stream));
        return result;
      }
      case Kind::kOr: {
        int result = -1;
        for (const auto& child : children) result = std::max(result, child->OfStream(stream));
        return result;
      }
      case Kind::kNot:
        return -children[0]->OfStream(stream);
      case Kind::kStream:
        if (name == "stream") return 0;
        return Compare(StreamValue(stream)) ? 1 : -1;
      default:
        return 0;
    }
  }

  bool MayMatchChunk(const StreamKey& stream, std::string_view filter) const {
    switch (kind) {
      case Kind::kAnd:
        return std::all_of(children.begin(), children.end(),
                           [&](const auto& child) { return child->MayMatchChunk(stream, filter); });
      case Kind::kOr:
        return std::any_of(children.begin(), children.end(),
                           [&](const auto& child) { return child->MayMatchChunk(stream, filter); });
      case Kind::kNot:
        return children[0]->OfStream(stream) <= 0;
      case Kind::kRegex:
        return pattern->MayContainMatch(filter);
      case Kind::kStream:
        return OfStream(stream) >= 0;
      default:
        return MayContain(filter, hashes);
    }
  }

  bool Match(const Subject& s) const {
    switch (kind) {
      case Kind::kAll:
        return true;
      case Kind::kAnd:
        return std::all_of(children.begin(), children.end(),
                           [&](const auto& child) { return child->Match(s); });
      case Kind::kOr:
        return std::any_of(children.begin(), children.end(),
                           [&](const auto& child) { return child->Match(s); });
      case Kind::kNot:
        return !children[0]->Match(s);
      case Kind::kText:
        return s.lower.find(text) != std::string_view::npos;
      case Kind::kPhrase:
        for (auto at = s.lower.find(text); at != std::string_view::npos;
             at = s.lower.find(text, at + 1)) {
          const std::size_t end = at + text.size();
          if ((at == 0 || !IsWordByte(s.lower[at - 1]) || !IsWordByte(text.front())) &&
              (end == s.lower.size() || !IsWordByte(s.lower[end]) || !IsWordByte(text.back()))) {
            return true;
          }
        }
        return false;
      case Kind::kExact:
        return s.text.find(text) != std::string_view::npos;
      case Kind::kRegex:
        return pattern->Match(s.text);
      case Kind::kLevel:
        return s.level != Level::kUnknown
                   ? CompareNumbers(op, static_cast<int>(s.level), static_cast<int>(level))
                   : op == Op::kEqual && level == Level::kUnknown;
      case Kind::kStream:
        return Compare(name == "stream" ? std::string(s.is_stderr ? "stderr" : "stdout")
                                        : StreamValue(*s.stream));
      case Kind::kField: {
        bool matched = false;
        VisitFields(s.text, [&](std::string_view field, std::string_view value) {
          if (field != name) return true;
          matched = Compare(value);
          return false;
        });
        return matched;
      }
    }
    return false;
  }

  bool Compare(std::string_view value) const {
    if (op == Op::kRegex) return pattern->Match(value);
    if (op == Op::kNotRegex) return !pattern->Match(value);
    double number_of_value = 0;
    if (is_number && absl::SimpleAtod(ToAbsl(value), &number_of_value)) {
      return CompareNumbers(op, number_of_value, number);
    }
    if (op == Op::kEqual) return GlobEqual(text, value);
    if (op == Op::kNotEqual) return !GlobEqual(text, value);
    return false;
  }

  std::string StreamValue(const StreamKey& stream) const {
    if (name == "app") return stream.app;
    if (name == "service") return stream.service;
    if (name == "instance") return stream.instance;
    if (name == "store") return stream.store;
    if (name == "node") return stream.node;
    if (name == "run") return stream.run;
    return std::to_string(stream.revision);
  }
};

namespace {

using Node = Query::Node;
using Kind = Node::Kind;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<std::unique_ptr<Node>> Parse() {
    SkipSpace();
    if (at_ == text_.size()) return std::make_unique<Node>();
    TAKT_ASSIGN_OR_RETURN(auto root, Or(0));
    SkipSpace();
    if (at_ != text_.size()) return Error("expected the end", at_);
    return root;
  }

 private:
  absl::Status Error(std::string_view expected, std::size_t at) const {
    const std::string_view got = text_.substr(at, 20);
    return absl::InvalidArgumentError(
        ToAbsl(StrCat("query column ", at + 1, ": ", expected, ", got ",
                      got.empty() ? std::string("the end") : StrCat("\"", got, "\""))));
  }
  void SkipSpace() {
    while (at_ < text_.size() && absl::ascii_isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  // Takes `word` (and, or, not) if it stands here as a word of its own.
  bool Keyword(std::string_view word) {
    SkipSpace();
    if (text_.size() - at_ < word.size()) return false;
    for (std::size_t i = 0; i < word.size(); ++i) {
      if (absl::ascii_tolower(static_cast<unsigned char>(text_[at_ + i])) != word[i]) return false;
    }
    const std::size_t end = at_ + word.size();
    if (end < text_.size() && !absl::ascii_isspace(static_cast<unsigned char>(text_[end])) &&
        text_[end] != '(' && text_[end] != ')') {
      return false;
    }
    at_ = end;
    return true;
  }

  absl::StatusOr<std::unique_ptr<Node>> Or(int depth) {
    if (depth > kMaxQueryDepth) return Error("nested too deeply: expected at most 50 levels", at_);
    TAKT_ASSIGN_OR_RETURN(auto first, And(depth));
    if (!Keyword("or")) return first;
    auto node = std::make_unique<Node>();
    node->kind = Kind::kOr;
    node->children.push_back(std::move(first));
    do {
      TAKT_ASSIGN_OR_RETURN(auto next, And(depth));
      node->children.push_back(std::move(next));
    } while (Keyword("or"));
    return node;
  }

  absl::StatusOr<std::unique_ptr<Node>> And(int depth) {
    TAKT_ASSIGN_OR_RETURN(auto first, Not(depth));
    std::unique_ptr<Node> node;
    while (true) {
      const std::size_t before = at_;
      const bool explicit_and = Keyword("and");
      if (!explicit_and) {
        if (Keyword("or")) {
          at_ = before;
          break;
        }
        SkipSpace();
        if (at_ == text_.size() || text_[at_] == ')') break;
      }
      TAKT_ASSIGN_OR_RETURN(auto next, Not(depth));
      if (node == nullptr) {
        node = std::make_unique<Node>();
        node->kind = Kind::kAnd;
        node->children.push_back(std::move(first));
      }
      node->children.push_back(std::move(next));
    }
    return node == nullptr ? std::move(first) : std::move(node);
  }

  absl::StatusOr<std::unique_ptr<Node>> Not(int depth) {
    if (depth > kMaxQueryDepth) return Error("nested too deeply: expected at most 50 levels", at_);
    if (!Keyword("not")) return Primary(depth);
    auto node = std::make_unique<Node>();
    node->kind = Kind::kNot;
    TAKT_ASSIGN_OR_RETURN(auto child, Not(depth + 1));
    node->children.push_back(std::move(child));
    return node;
  }

  // What stands between `quote` here and the next one; \ keeps the character after it.
  absl::StatusOr<std::string> Quoted(char quote) {
    const std::size_t begin = at_++;
    std::string value;
    for (; at_ < text_.size() && text_[at_] != quote; ++at_) {
      if (text_[at_] == '\\' && at_ + 1 < text_.size() &&
          (text_[at_ + 1] == quote || (quote != '/' && text_[at_ + 1] == '\\'))) {
        ++at_;
      }
      value.push_back(text_[at_]);
    }
    if (at_ == text_.size())
      return Error(StrCat("expected a closing ", std::string(1, quote)), begin);
    ++at_;
    if (value.empty()) return Error("expected some text between the quotes", begin);
    return value;
  }

  std::string Bare() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && !absl::ascii_isspace(static_cast<unsigned char>(text_[at_])) &&
           text_[at_] != '(' && text_[at_] != ')') {
      ++at_;
    }
    return std::string(text_.substr(begin, at_ - begin));
  }

  absl::StatusOr<std::unique_ptr<Node>> Primary(int depth) {
    SkipSpace();
    if (at_ == text_.size()) return Error("expected a word, a phrase or a comparison", at_);
    if (text_[at_] == '(') {
      const std::size_t begin = at_++;
      TAKT_ASSIGN_OR_RETURN(auto node, Or(depth + 1));
      SkipSpace();
      if (at_ == text_.size() || text_[at_] != ')') return Error("expected a closing )", begin);
      ++at_;
      return node;
    }
    if (text_[at_] == ')') return Error("expected a word, a phrase or a comparison", at_);
    auto node = std::make_unique<Node>();
    if (text_[at_] == '"' || text_[at_] == '\'') {
      const bool exact = text_[at_] == '\'';
      TAKT_ASSIGN_OR_RETURN(node->text, Quoted(text_[at_]));
      node->kind = exact ? Kind::kExact : Kind::kPhrase;
      if (!exact) LowerAscii(node->text);
      node->hashes = NeedleHashes(node->text);
      return node;
    }
    if (text_[at_] == '/' && text_.find('/', at_ + 1) != std::string_view::npos) {
      const std::size_t begin = at_;
      TAKT_ASSIGN_OR_RETURN(const std::string source, Quoted('/'));
      node->kind = Kind::kRegex;
      TAKT_RETURN_IF_ERROR(SetPattern(*node, source, begin));
      return node;
    }
    std::size_t end = at_;
    while (end < text_.size() && (IsWordByte(text_[end]) || text_[end] == '.')) ++end;
    if (end > at_ && !absl::ascii_isdigit(static_cast<unsigned char>(text_[at_]))) {
      static constexpr std::pair<std::string_view, Op> kOps[] = {
          {"=~", Op::kRegex},        {"!~", Op::kNotRegex},  {"!=", Op::kNotEqual},
          {">=", Op::kGreaterEqual}, {"<=", Op::kLessEqual}, {"=", Op::kEqual},
          {">", Op::kGreater},       {"<", Op::kLess}};
      for (const auto& [sign, op] : kOps) {
        if (!text_.substr(end).starts_with(sign)) continue;
        node->name = text_.substr(at_, end - at_);
        node->op = op;
        at_ = end + sign.size();
        TAKT_RETURN_IF_ERROR(Comparison(*node));
        return node;
      }
    }
    node->kind = Kind::kText;
    node->text = Bare();
    LowerAscii(node->text);
    node->hashes = NeedleHashes(node->text);
    return node;
  }

  absl::Status SetPattern(Node& node, const std::string& source, std::size_t at) {
    auto pattern = Pattern::Make(source);
    if (!pattern.ok()) {
      return Error(StrCat("bad regular expression (", ToStd(pattern.status().message()), ")"), at);
    }
    node.pattern = std::move(*pattern);
    return absl::OkStatus();
  }

  absl::Status Comparison(Node& node) {
    const std::size_t begin = at_;
    if (at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'')) {
      TAKT_ASSIGN_OR_RETURN(node.text, Quoted(text_[at_]));
    } else {
      node.text = Bare();
    }
    if (node.text.empty()) return Error(StrCat("expected a value for ", node.name), begin);
    static constexpr std::string_view kStreamNames[] = {"app",  "service", "instance", "store",
                                                        "node", "run",     "revision", "stream"};
    const bool is_regex = node.op == Op::kRegex || node.op == Op::kNotRegex;
    if (node.name == "level" && !is_regex) {
      const auto level = LevelFromName(node.text);
      if (!level) {
        return Error("expected a level (trace, debug, info, warn, error, fatal, unknown)", begin);
      }
      node.kind = Kind::kLevel;
      node.level = *level;
      return absl::OkStatus();
    }
    node.kind = std::find(std::begin(kStreamNames), std::end(kStreamNames), node.name) !=
                        std::end(kStreamNames)
                    ? Kind::kStream
                    : Kind::kField;
    if (is_regex) return SetPattern(node, node.text, begin);
    node.is_number = absl::SimpleAtod(node.text, &node.number);
    const bool ordered = node.op != Op::kEqual && node.op != Op::kNotEqual;
    if (ordered && !node.is_number) {
      return Error(StrCat("expected a number to compare ", node.name, " with"), begin);
    }
    // A line whose field equals a plain word holds that word. Numbers may be written otherwise.
    const bool plain = std::all_of(node.text.begin(), node.text.end(),
                                   [](char c) { return IsWordByte(c) || c == '.' || c == '-'; });
    if (node.kind == Kind::kField && node.op == Op::kEqual && plain && !node.is_number) {
      std::string lower = node.text;
      LowerAscii(lower);
      node.hashes = NeedleHashes(lower);
    }
    return absl::OkStatus();
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// The longest text in lower case that every match of the node holds.
std::string AnchorOf(const Node& node) {
  std::string best;
  if (node.kind == Kind::kText || node.kind == Kind::kPhrase || node.kind == Kind::kExact) {
    best = node.text;
    LowerAscii(best);
  } else if (node.kind == Kind::kAnd) {
    for (const auto& child : node.children) {
      std::string anchor = AnchorOf(*child);
      if (anchor.size() > best.size()) best = std::move(anchor);
    }
  }
  return best;
}

}  // namespace

Query::Query(std::unique_ptr<Node> root) : root_(std::move(root)), anchor_(AnchorOf(*root_)) {}
Query::Query(Query&&) noexcept = default;
Query& Query::operator=(Query&&) noexcept = default;
Query::~Query() = default;

absl::StatusOr<Query> Query::Parse(std::string_view text) {
  if (text.size() > kMaxQueryBytes) {
    return absl::InvalidArgumentError(
        ToAbsl(StrCat("query: expected at most ", kMaxQueryBytes, " bytes, got ", text.size())));
  }
  TAKT_ASSIGN_OR_RETURN(auto root, Parser(text).Parse());
  return Query(std::move(root));
}

bool Query::Match(const Subject& subject) const { return root_->Match(subject); }
bool Query::MayMatchStream(const StreamKey& stream) const { return root_->OfStream(stream) >= 0; }
bool Query::AlwaysMatchesStream(const StreamKey& stream) const {
  return root_->OfStream(stream) > 0;
}
bool Query::MayMatchChunk(const StreamKey& stream, std::string_view filter) const {
  return root_->MayMatchChunk(stream, filter);
}

}  // namespace takt::logs
