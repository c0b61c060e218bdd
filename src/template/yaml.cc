#include "template/yaml.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/str.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/exceptions.h"
#include "yaml-cpp/mark.h"
#include "yaml-cpp/node/node.h"
#include "yaml-cpp/parser.h"

namespace takt::templates {
namespace {

constexpr std::string_view kYamlTag = "tag:yaml.org,2002:";

// --- plain scalars ----------------------------------------------------------------------------

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Digits of `text` in `base`, false when there is any other character. `overflow` when they do
// not fit into int64.
bool ReadDigits(std::string_view text, int base, bool negative, std::int64_t* value,
                bool* overflow) {
  if (text.empty()) return false;
  std::uint64_t magnitude = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), magnitude, base);
  if (end != text.data() + text.size() || error == std::errc::invalid_argument) return false;
  const std::uint64_t limit =
      static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) + (negative ? 1 : 0);
  *overflow = error == std::errc::result_out_of_range || magnitude > limit;
  *value = *overflow
               ? 0
               : static_cast<std::int64_t>(negative ? std::uint64_t{0} - magnitude : magnitude);
  return true;
}

// 12, -12, 0x1F, 0o17, 017, 0b101.
bool ReadInteger(std::string_view text, std::int64_t* value, bool* overflow) {
  bool negative = false;
  if (text.starts_with('-') || text.starts_with('+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.size() > 1 && text[0] == '0') {
    switch (text[1] | 0x20) {
      case 'x':
        return ReadDigits(text.substr(2), 16, negative, value, overflow);
      case 'o':
        return ReadDigits(text.substr(2), 8, negative, value, overflow);
      case 'b':
        return ReadDigits(text.substr(2), 2, negative, value, overflow);
      default:
        return ReadDigits(text.substr(1), 8, negative, value, overflow);
    }
  }
  return ReadDigits(text, 10, negative, value, overflow);
}

// [-+] (.digits | digits [.digits]) [e [-+] digits]
bool ReadFloat(std::string_view text, double* value) {
  std::size_t at = 0;
  const auto digits = [&] {
    const std::size_t from = at;
    while (at < text.size() && IsDigit(text[at])) ++at;
    return at - from;
  };
  if (at < text.size() && (text[at] == '-' || text[at] == '+')) ++at;
  const std::size_t whole = digits();
  std::size_t fraction = 0;
  if (at < text.size() && text[at] == '.') {
    ++at;
    fraction = digits();
  }
  if (whole + fraction == 0) return false;
  if (at < text.size() && (text[at] | 0x20) == 'e') {
    ++at;
    if (at < text.size() && (text[at] == '-' || text[at] == '+')) ++at;
    if (digits() == 0) return false;
  }
  if (at != text.size()) return false;
  if (text[0] == '+') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc();
}

// --- the text ---------------------------------------------------------------------------------

Mark MarkAt(std::string_view text, std::size_t offset) {
  Mark mark{1, 1, offset};
  for (std::size_t i = 0; i < offset && i < text.size(); ++i) {
    if (text[i] == '\n') {
      ++mark.line;
      mark.column = 1;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      ++mark.column;
    }
  }
  return mark;
}

// Length of the UTF-8 sequence at the start of `text` and its code point; 0 for an invalid one.
std::size_t DecodeUtf8(std::string_view text, char32_t* code) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) {
    *code = first;
    return 1;
  }
  std::size_t length = 0;
  char32_t minimum = 0;
  if ((first & 0xE0) == 0xC0) {
    length = 2;
    minimum = 0x80;
    *code = first & 0x1FU;
  } else if ((first & 0xF0) == 0xE0) {
    length = 3;
    minimum = 0x800;
    *code = first & 0x0FU;
  } else if ((first & 0xF8) == 0xF0) {
    length = 4;
    minimum = 0x10000;
    *code = first & 0x07U;
  } else {
    return 0;
  }
  if (text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    *code = (*code << 6) | (byte(i) & 0x3FU);
  }
  const bool surrogate = *code >= 0xD800 && *code <= 0xDFFF;
  return *code < minimum || *code > 0x10FFFF || surrogate ? 0 : length;
}

// YAML's set of printable characters.
bool IsPrintable(char32_t code) {
  return code == '\t' || code == '\n' || code == '\r' || (code >= 0x20 && code <= 0x7E) ||
         code == 0x85 || (code >= 0xA0 && code != 0xFEFF && code != 0xFFFE && code != 0xFFFF);
}

bool CheckText(std::string_view text, Report& report) {
  if (text.size() >= 2 && (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF") ||
                           text[0] == '\0' || text[1] == '\0')) {
    report.Error({1, 1, 0}, "", "expected UTF-8 text, got UTF-16 or UTF-32 or a binary file",
                 "save the file as UTF-8");
    return false;
  }
  for (std::size_t i = 0; i < text.size();) {
    char32_t code = 0;
    const std::size_t length = DecodeUtf8(text.substr(i), &code);
    if (length == 0) {
      report.Error(MarkAt(text, i), "",
                   StrCat("expected UTF-8 text, got the byte ",
                          absl::Hex(static_cast<unsigned char>(text[i]), absl::kZeroPad2)),
                   "save the file as UTF-8");
      return false;
    }
    if (!IsPrintable(code)) {
      report.Error(MarkAt(text, i), "",
                   StrCat("expected text, got the control character U+",
                          absl::Hex(static_cast<std::uint32_t>(code), absl::kZeroPad4)));
      return false;
    }
    i += length;
  }
  return true;
}

// The usual reason for YAML that is none: a tab in the indentation of line `line` (from 0) or the
// one before.
bool ReportTab(std::string_view text, int line, Report& report) {
  std::size_t start = 0;
  for (int at = 0; start < text.size() && at <= line; ++at) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    const std::size_t first = text.find_first_not_of(' ', start);
    if (at + 1 >= line && first < end && text[first] == '\t') {
      report.Error(MarkAt(text, first), "", "not valid YAML: a tab stands in the indentation",
                   "indent with spaces");
      return true;
    }
    start = end + 1;
  }
  return false;
}

// --- events -----------------------------------------------------------------------------------

// Builds nodes of the parser's events. The library cannot be stopped from a handler, so after an
// error the handler ignores what follows; the text's size bounds that.
class Builder final : public YAML::EventHandler {
 public:
  Builder(std::string_view text, Report& report) : text_(text), report_(report) {}

  bool failed() const { return failed_; }
  std::vector<Node> TakeDocuments() { return std::move(documents_); }

  void OnDocumentStart(const YAML::Mark&) override {
    anchors_.clear();
    stack_.clear();
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (failed_ || !Count(mark)) return;
    Node node;
    node.mark = Convert(mark);
    // The library reports an empty value where the next token starts; its key is the better place.
    if (!stack_.empty() && stack_.back().has_key && stack_.back().key_mark.line < node.mark.line) {
      node.mark = stack_.back().key_mark;
    }
    Finish(std::move(node), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (failed_) return;
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) {
      Fail(Convert(mark), "an alias cannot stand inside the value that it refers to");
      return;
    }
    const Anchored& target = found->second;
    nodes_ += target.nodes;
    if (stack_.size() + target.depth > static_cast<std::size_t>(kMaxTemplateDepth)) {
      FailDepth(Convert(mark));
      return;
    }
    if (nodes_ > kMaxTemplateNodes) {
      FailNodes(Convert(mark));
      return;
    }
    Finish(*target.node, 0);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    if (failed_ || !Count(mark)) return;
    const Mark where = Convert(mark);
    if (text.find('\0') != std::string::npos) {
      Fail(where, "expected text without NUL characters");
      return;
    }
    const std::string value = RepairEscapes(text);
    Node node;
    if (tag == "?" || tag == "!override" || tag == "!reset") {
      node = ResolvePlain(value, where);
    } else {
      node = Node::String(value, where);
      if (tag.starts_with(kYamlTag) && !ApplyTag(tag.substr(kYamlTag.size()), node)) return;
    }
    node.resets = tag == "!reset";
    node.replaces = tag == "!override";
    plain_merge_key_ = tag == "?" && value == "<<";
    Finish(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, Node::List(Convert(mark)));
  }
  void OnSequenceEnd() override { Close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, Node::Map(Convert(mark)));
  }
  void OnMapEnd() override {
    if (failed_) return;
    if (stack_.back().has_merge && !ApplyMerge(stack_.back())) return;
    Close();
  }

 private:
  struct Frame {
    Node node;
    YAML::anchor_t anchor = 0;
    std::size_t first_node = 0;  // count of nodes when it was opened
    std::size_t depth = 1;       // levels below and with this one
    bool has_key = false;
    bool key_is_merge = false;
    std::string key;
    Mark key_mark;
    std::unordered_map<std::string, int> lines;  // of the keys so far
    bool has_merge = false;
    Node merge;
  };
  struct Anchored {
    std::shared_ptr<const Node> node;
    std::size_t nodes = 1;
    std::size_t depth = 1;
  };

  // The library counts bytes; people count characters. Goes on from the last mark of the line, so
  // that a long line is not counted anew for each value on it.
  Mark Convert(const YAML::Mark& mark) {
    const auto offset = std::min(static_cast<std::size_t>(std::max(mark.pos, 0)), text_.size());
    const int line = std::max(mark.line, 0) + 1;
    if (line != last_.line) {
      const auto column = static_cast<std::size_t>(std::max(mark.column, 0));
      last_ = {line, 1, offset - std::min(offset, column)};
    }
    const auto continues = [&](std::size_t at) {
      return (static_cast<unsigned char>(text_[at]) & 0xC0) == 0x80;
    };
    for (; last_.offset < offset; ++last_.offset) last_.column += continues(last_.offset) ? 0 : 1;
    for (; last_.offset > offset; --last_.offset) {
      last_.column -= continues(last_.offset - 1) ? 0 : 1;
    }
    return last_;
  }

  // The library turns the escapes \N and \_ into single bytes of Latin-1. Everything else is UTF-8,
  // for the text is.
  static std::string RepairEscapes(const std::string& text) {
    std::string repaired;
    for (std::size_t i = 0; i < text.size();) {
      char32_t code = 0;
      const std::size_t length = DecodeUtf8(std::string_view(text).substr(i), &code);
      if (length == 0) repaired += '\xC2';
      repaired.append(text, i, std::max<std::size_t>(length, 1));
      i += std::max<std::size_t>(length, 1);
    }
    return repaired;
  }

  void Fail(Mark mark, std::string message, std::string suggestion = "") {
    failed_ = true;
    report_.Error(mark, "", std::move(message), std::move(suggestion));
  }
  void FailDepth(Mark mark) {
    Fail(mark, StrCat("nested deeper than ", kMaxTemplateDepth, " levels"));
  }
  void FailNodes(Mark mark) {
    Fail(mark, StrCat("more than ", kMaxTemplateNodes, " values, with aliases in place"));
  }

  bool Count(const YAML::Mark& mark) {
    if (++nodes_ <= kMaxTemplateNodes) return true;
    FailNodes(Convert(mark));
    return false;
  }

  // !!str, !!int, ...: the value must be of that type.
  bool ApplyTag(std::string_view type, Node& node) {
    if (type == "str" || type == "binary") return true;
    const Node plain = ResolvePlain(node.text, node.mark);
    const bool fits =
        (type == "int" && plain.kind == Node::Kind::kInt) ||
        (type == "bool" && plain.kind == Node::Kind::kBool) ||
        (type == "null" && plain.is_null()) ||
        (type == "float" && (plain.kind == Node::Kind::kInt || plain.kind == Node::Kind::kFloat));
    if (!fits) {
      Fail(node.mark, StrCat("expected what the tag !!", type, " promises, got ", node.Describe()));
      return false;
    }
    node = type == "float" && plain.kind == Node::Kind::kInt
               ? Node::Float(static_cast<double>(plain.integer), node.mark)
               : plain;
    return true;
  }

  void Open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, Node node) {
    if (failed_ || !Count(mark)) return;
    if (stack_.size() >= static_cast<std::size_t>(kMaxTemplateDepth)) {
      FailDepth(Convert(mark));
      return;
    }
    node.resets = tag == "!reset";
    node.replaces = tag == "!override";
    Frame frame;
    frame.node = std::move(node);
    frame.anchor = anchor;
    frame.first_node = nodes_ - 1;
    stack_.push_back(std::move(frame));
  }

  void Close() {
    if (failed_) return;
    Frame frame = std::move(stack_.back());
    stack_.pop_back();
    plain_merge_key_ = false;
    const std::size_t nodes = nodes_ - frame.first_node;
    Finish(std::move(frame.node), frame.anchor, nodes, frame.depth);
  }

  // A value is complete: remember its anchor and put it where it belongs.
  void Finish(Node node, YAML::anchor_t anchor, std::size_t nodes = 1, std::size_t depth = 1) {
    if (anchor != 0) {
      // Anchors within anchors: each keeps a copy of its own.
      anchored_nodes_ += nodes;
      if (anchored_nodes_ > 4 * kMaxTemplateNodes) {
        FailNodes(node.mark);
        return;
      }
      anchors_[anchor] = {std::make_shared<const Node>(node), nodes, depth};
    }
    if (stack_.empty()) {
      documents_.push_back(std::move(node));
      return;
    }
    Frame& frame = stack_.back();
    frame.depth = std::max(frame.depth, depth + 1);
    if (frame.node.is_list()) {
      if (!node.resets) frame.node.items.push_back(std::move(node));
      return;
    }
    if (!frame.has_key) {
      SetKey(frame, node);
      return;
    }
    frame.has_key = false;
    if (frame.key_is_merge) {
      frame.has_merge = true;
      frame.merge = std::move(node);
      return;
    }
    frame.node.entries.push_back({std::move(frame.key), frame.key_mark, std::move(node)});
  }

  void SetKey(Frame& frame, const Node& node) {
    if (!node.is_string()) {
      Fail(node.mark, StrCat("expected a text as key, got ", node.Describe()),
           node.is_list() || node.is_map() ? "" : StrCat("quote it: \"", node.ToText(), "\""));
      return;
    }
    const auto [found, added] = frame.lines.emplace(node.text, node.mark.line);
    if (!added) {
      Fail(node.mark,
           StrCat("the key \"", node.text, "\" is already defined at line ", found->second));
      return;
    }
    frame.key = node.text;
    frame.key_mark = node.mark;
    frame.has_key = true;
    frame.key_is_merge = plain_merge_key_;
  }

  // `<<: *a` or `<<: [*a, *b]`: keys that the map itself lacks, the first map that has one wins.
  bool ApplyMerge(Frame& frame) {
    const auto merge_one = [&](const Node& from) {
      if (!from.is_map()) {
        Fail(from.mark, StrCat("expected a mapping to merge with <<, got ", from.Describe()));
        return false;
      }
      for (const Entry& entry : from.entries) {
        if (frame.lines.emplace(entry.key, entry.mark.line).second) {
          frame.node.entries.push_back(entry);
        }
      }
      return true;
    };
    if (!frame.merge.is_list()) return merge_one(frame.merge);
    return std::all_of(frame.merge.items.begin(), frame.merge.items.end(), merge_one);
  }

  std::string_view text_;
  Report& report_;
  Mark last_;  // where Convert was last
  bool failed_ = false;
  bool plain_merge_key_ = false;
  std::size_t nodes_ = 0;
  std::size_t anchored_nodes_ = 0;
  std::vector<Frame> stack_;
  std::unordered_map<YAML::anchor_t, Anchored> anchors_;
  std::vector<Node> documents_;
};

}  // namespace

bool IsText(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    char32_t code = 0;
    const std::size_t length = DecodeUtf8(text.substr(i), &code);
    if (length == 0 || code == 0) return false;
    i += length;
  }
  return true;
}

Node ResolvePlain(std::string_view text, Mark mark) {
  constexpr std::array<std::string_view, 5> kNull{"", "~", "null", "Null", "NULL"};
  constexpr std::array<std::string_view, 3> kTrue{"true", "True", "TRUE"};
  constexpr std::array<std::string_view, 3> kFalse{"false", "False", "FALSE"};
  const auto any = [&](const auto& words) {
    return std::find(words.begin(), words.end(), text) != words.end();
  };
  if (any(kNull)) {
    Node node;
    node.mark = mark;
    return node;
  }
  if (any(kTrue) || any(kFalse)) return Node::Bool(any(kTrue), mark);

  const bool signed_text = text[0] == '-' || text[0] == '+';
  std::string_view unsigned_text = signed_text ? text.substr(1) : text;
  if (unsigned_text == ".inf" || unsigned_text == ".Inf" || unsigned_text == ".INF") {
    const double infinity = std::numeric_limits<double>::infinity();
    return Node::Float(text[0] == '-' ? -infinity : infinity, mark);
  }
  if (text == ".nan" || text == ".NaN" || text == ".NAN") return Node::Float(std::nan(""), mark);
  if (!IsDigit(text[0]) && !signed_text && text[0] != '.') {
    return Node::String(std::string(text), mark);
  }

  std::string plain(text);
  if (text[0] != '.') std::erase(plain, '_');
  std::int64_t integer = 0;
  bool overflow = false;
  if (text[0] != '.' && ReadInteger(plain, &integer, &overflow)) {
    if (integer == 0 && plain == "-0") return Node::Float(-0.0, mark);
    if (!overflow) return Node::Int(integer, mark);
    // What only fits without a sign keeps its digits.
    Node node = Node::Float(0, mark);
    std::uint64_t whole = 0;
    const char* end = plain.data() + plain.size();
    if (ReadFloat(plain, &node.number)) {
      const auto read = std::from_chars(plain.data(), end, whole);
      if (read.ptr == end && read.ec == std::errc()) node.text = plain;
      return node;
    }
  }
  double number = 0;
  if (ReadFloat(plain, &number)) return Node::Float(number, mark);
  return Node::String(std::string(text), mark);
}

std::vector<Node> ParseYaml(std::string_view text, Report& report) {
  if (text.size() > kMaxTemplateBytes) {
    report.Error({}, "",
                 StrCat("expected at most ", kMaxTemplateBytes, " bytes, got ", text.size()));
    return {};
  }
  if (!CheckText(text, report)) return {};

  Builder builder(text, report);
  // The library reports errors by exceptions; they end here.
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (!builder.failed() && parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& error) {
    if (!builder.failed() && !ReportTab(text, error.mark.line, report)) {
      Mark mark{std::max(error.mark.line, 0) + 1, std::max(error.mark.column, 0) + 1,
                static_cast<std::size_t>(std::max(error.mark.pos, 0))};
      report.Error(mark, "", StrCat("not valid YAML: ", error.msg));
    }
    return {};
  }
  if (builder.failed()) return {};
  return builder.TakeDocuments();
}

}  // namespace takt::templates
