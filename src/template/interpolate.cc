#include "template/interpolate.h"

#include <algorithm>
#include <utility>

#include "base/str.h"

namespace takt::templates {
namespace {

constexpr std::string_view kProjectName = "COMPOSE_PROJECT_NAME";
constexpr std::string_view kForms =
    "expected ${NAME}, ${NAME:-default}, ${NAME:?message} or ${NAME:+text}";

bool IsNameStart(char c) { return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsNamePart(char c) { return IsNameStart(c) || (c >= '0' && c <= '9'); }

std::size_t NameEnd(std::string_view text, std::size_t from) {
  if (from >= text.size() || !IsNameStart(text[from])) return from;
  std::size_t at = from + 1;
  while (at < text.size() && IsNamePart(text[at])) ++at;
  return at;
}

// Where the brace opened by the `${` at the start of `text` closes; npos when it does not. A brace
// that closes right behind one that opens does not count: {} is text.
std::size_t ClosingBrace(std::string_view text) {
  int open = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '}') {
      if (--open == 0) return i;
    } else if (text[i] == '{') {
      ++open;
      ++i;
    }
  }
  return std::string_view::npos;
}

}  // namespace

bool IsVariableName(std::string_view text) {
  return !text.empty() && NameEnd(text, 0) == text.size();
}

// Positions are found by counting: the n-th dollar sign of a value is the n-th of its source text,
// whether that is plain, quoted or a block.
struct Interpolator::Scalar {
  Scalar(std::string_view source, const Node& node, const Path& where)
      : text(node.text), path(where) {
    const std::size_t wanted = static_cast<std::size_t>(std::count(text.begin(), text.end(), '$'));
    // Escapes and indentation make the source longer than the value, but not without bound.
    constexpr std::size_t kMaxSourceFactor = 16;
    constexpr std::size_t kMaxSourceExtra = 256;
    const std::size_t end = std::min(
        source.size(), node.mark.offset + kMaxSourceFactor * text.size() + kMaxSourceExtra);
    Mark mark = node.mark;
    for (; mark.offset < end && dollars.size() < wanted; ++mark.offset) {
      const char c = source[mark.offset];
      if (c == '$') dollars.push_back(mark);
      if (c == '\n') {
        ++mark.line;
        mark.column = 1;
      } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
        ++mark.column;
      }
    }
    dollars.resize(wanted, node.mark);
  }

  // The place of the dollar sign at `at`, which never goes back.
  Mark At(std::size_t at) {
    for (; counted < at; ++counted) {
      if (text[counted] == '$') ++dollar;
    }
    return dollars[std::min(dollar, dollars.size() - 1)];
  }

  const std::string text;
  const Path& path;
  std::vector<Mark> dollars;
  std::size_t counted = 0;
  std::size_t dollar = 0;

  // The end of the line that Expand is in at each depth, and the last closing brace on it, so that
  // a long line of many variables is not searched again for each.
  struct Line {
    std::size_t to = 0;
    std::size_t end = 0;
    std::size_t last_brace = 0;
  };
  const Line& LineAt(std::size_t at, std::size_t to, int depth) {
    if (lines.size() <= static_cast<std::size_t>(depth)) {
      lines.resize(static_cast<std::size_t>(depth) + 1);
    }
    Line& line = lines[static_cast<std::size_t>(depth)];
    if (line.to != to || at >= line.end) {
      const std::string_view visible = std::string_view(text).substr(0, to);
      line.to = to;
      line.end = std::min(visible.find('\n', at), to);
      line.last_brace = visible.substr(0, line.end).rfind('}');
    }
    return line;
  }
  std::vector<Line> lines;
};

Interpolator::Interpolator(std::string_view text, const std::map<std::string, std::string>& values,
                           std::string_view project_name, Report& report)
    : text_(text), values_(values), project_name_(project_name), report_(report) {}

void Interpolator::Apply(Node& root) { Walk(root, Path()); }

void Interpolator::Walk(Node& node, const Path& path) {
  if (stopped_) return;
  switch (node.kind) {
    case Node::Kind::kString: {
      if (node.text.find('$') != std::string::npos) {
        Scalar scalar(text_, node, path);
        node.text = Expand(scalar, 0, scalar.text.size(), true, 0);
      }
      bytes_ += node.text.size();
      if (bytes_ > kMaxInterpolatedBytes && !stopped_) {
        stopped_ = true;
        report_.Error(node.mark, path,
                      StrCat("the values hold more than ", kMaxInterpolatedBytes,
                             " bytes with their variables in place"));
      }
      return;
    }
    case Node::Kind::kList:
      for (std::size_t i = 0; i < node.items.size(); ++i) Walk(node.items[i], Path(path, i));
      return;
    case Node::Kind::kMap:
      for (Entry& entry : node.entries) Walk(entry.value, Path(path, entry.key));
      return;
    default:
      return;
  }
}

std::string Interpolator::Expand(Scalar& scalar, std::size_t from, std::size_t to, bool active,
                                 int depth) {
  const std::string_view text = std::string_view(scalar.text).substr(0, to);
  std::string out;
  std::size_t at = from;
  while (at < to) {
    const std::size_t dollar = std::min(text.find('$', at), to);
    out += text.substr(at, dollar - at);
    at = dollar;
    if (at == to) break;
    const char next = at + 1 < to ? text[at + 1] : '\0';
    if (next == '$') {
      out += '$';
      at += 2;
    } else if (next == '{') {
      out += ExpandBraced(scalar, &at, to, active, depth);
    } else if (IsNameStart(next)) {
      const std::size_t end = NameEnd(text, at + 1);
      const std::string name(text.substr(at + 1, end - at - 1));
      const Mark mark = scalar.At(at);
      if (Known* known = Note(scalar, at, name)) known->needs_value |= depth == 0;
      if (const std::string* value = Lookup(name)) {
        out += *value;
      } else if (active) {
        report_.Warn(mark, scalar.path.ToString(),
                     StrCat("the variable ", name, " has no value; the empty text is used"));
      }
      at = end;
    } else {
      out += '$';
      ++at;
    }
    if (bytes_ + out.size() > kMaxInterpolatedBytes) break;  // Walk reports it
  }
  return out;
}

std::string Interpolator::ExpandBraced(Scalar& scalar, std::size_t* at, std::size_t to, bool active,
                                       int depth) {
  const std::string_view text = std::string_view(scalar.text).substr(0, to);
  const std::size_t start = *at;
  const Mark mark = scalar.At(start);
  // An expression ends on the line on which it starts.
  const Scalar::Line line = scalar.LineAt(start, to, depth);
  const auto invalid = [&] {
    constexpr std::size_t kMaxShown = 40;
    const std::string_view near = text.substr(start, std::min(kMaxShown, line.end - start));
    const std::size_t brace = near.find('}');
    if (active && !report_.full()) {
      const Node written = Node::String(
          std::string(near.substr(0, brace == std::string_view::npos ? brace : brace + 1)), mark);
      report_.Error(mark, scalar.path,
                    StrCat("invalid interpolation: ", kForms, ", got ", written.Describe()),
                    "write $$ for a dollar sign");
    }
    *at = start + 2;
    return std::string();
  };

  const std::size_t name_end = NameEnd(text, start + 2);
  const std::string name(text.substr(start + 2, name_end - start - 2));
  if (name.empty() || name_end >= line.end) return invalid();
  const std::string* value = Lookup(name);

  if (text[name_end] == '}') {
    if (Known* known = Note(scalar, start, name)) known->needs_value |= depth == 0;
    *at = name_end + 1;
    if (value != nullptr) return *value;
    if (active) {
      report_.Warn(mark, scalar.path.ToString(),
                   StrCat("the variable ", name, " has no value; the empty text is used"));
    }
    return "";
  }

  const bool colon = text[name_end] == ':';
  const std::size_t sign_at = name_end + (colon ? 1 : 0);
  const char sign = sign_at < line.end ? text[sign_at] : '\0';
  if (sign != '-' && sign != '+' && sign != '?') return invalid();
  if (line.last_brace == std::string_view::npos || line.last_brace <= sign_at) return invalid();
  std::size_t close = ClosingBrace(text.substr(start, line.last_brace + 1 - start));
  close = close == std::string_view::npos ? line.last_brace : start + close;
  if (depth >= kMaxInterpolationDepth) {
    report_.Error(mark, scalar.path,
                  StrCat("variables nested deeper than ", kMaxInterpolationDepth));
    *at = to;
    return "";
  }

  Known* known = Note(scalar, start, name);
  const std::size_t known_index = known == nullptr ? 0 : index_.find(name)->second;
  const bool present = value != nullptr && (!colon || !value->empty());
  const bool use_argument = sign == '+' ? present : !present;
  std::string argument = Expand(scalar, sign_at + 1, close, active && use_argument, depth + 1);
  *at = close + 1;
  // Expanding may have moved what Note returned.
  if (known != nullptr) known = &known_[known_index];
  switch (sign) {
    case '-':
      if (known != nullptr && !known->parameter.default_value.has_value()) {
        known->parameter.default_value = argument;
      }
      return present ? *value : argument;
    case '+':
      return present ? argument : std::string();
    default:
      if (known != nullptr) {
        known->has_message |= depth == 0;
        if (known->parameter.message.empty()) known->parameter.message = argument;
      }
      if (!present && active) {
        report_.Error(mark, scalar.path,
                      StrCat("the required variable ", name, " has no value",
                             argument.empty() ? "" : ": ", argument));
      }
      return present ? *value : std::string();
  }
}

const std::string* Interpolator::Lookup(const std::string& name) const {
  const auto found = values_.find(name);
  if (found != values_.end()) return &found->second;
  return name == kProjectName ? &project_name_ : nullptr;
}

Interpolator::Known* Interpolator::Note(Scalar& scalar, std::size_t at, const std::string& name) {
  if (name == kProjectName) return nullptr;
  const auto [found, added] = index_.emplace(name, known_.size());
  if (added) {
    known_.emplace_back();
    known_.back().parameter.name = name;
  }
  Known& known = known_[found->second];
  const Mark mark = scalar.At(at);
  known.parameter.uses.push_back({scalar.path.ToString(), mark.line, mark.column});
  return &known;
}

std::vector<Parameter> Interpolator::TakeParameters() {
  std::vector<Parameter> result;
  for (Known& known : known_) {
    Parameter& parameter = known.parameter;
    parameter.required =
        known.has_message || (known.needs_value && !parameter.default_value.has_value());
    // What an extension field holds counts where it is merged in.
    const auto in_extension = [](const Parameter::Use& use) { return use.path.starts_with("x-"); };
    if (!std::all_of(parameter.uses.begin(), parameter.uses.end(), in_extension)) {
      std::erase_if(parameter.uses, in_extension);
    }
    const auto place = [](const Parameter::Use& use) { return std::pair(use.line, use.column); };
    std::stable_sort(parameter.uses.begin(), parameter.uses.end(),
                     [&](const auto& a, const auto& b) { return place(a) < place(b); });
    result.push_back(std::move(parameter));
  }
  return result;
}

}  // namespace takt::templates
