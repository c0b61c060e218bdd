#include "template/node.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "base/str.h"

namespace takt::templates {
namespace {

Node Make(Node::Kind kind, Mark mark) {
  Node node;
  node.kind = kind;
  node.mark = mark;
  return node;
}

// Shortest digits that give `value` back, written as Go's %v does: an exponent of two digits at
// least, used below 1e-4 and from 1e6 on.
std::string GoFloat(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Inf" : "+Inf";
  std::array<char, 64> buffer;
  auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                    std::chars_format::scientific);
  std::string scientific(buffer.data(), end);
  const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  if (exponent < -4 || exponent >= 6) return scientific;
  auto [fixed_end, fixed_error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed);
  return std::string(buffer.data(), fixed_end);
}

void WriteString(std::string_view text, std::string& out) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\r':
        out += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          std::array<char, 8> escape;
          std::snprintf(escape.data(), escape.size(), "\\u%04x", static_cast<unsigned>(c));
          out += escape.data();
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void Write(const Node& node, int indent, std::string& out) {
  const auto new_line = [&](int level) {
    out += '\n';
    out.append(static_cast<std::size_t>(level) * 2, ' ');
  };
  switch (node.kind) {
    case Node::Kind::kNull:
      out += "null";
      return;
    case Node::Kind::kBool:
      out += node.boolean ? "true" : "false";
      return;
    case Node::Kind::kInt:
      out += std::to_string(node.integer);
      return;
    case Node::Kind::kFloat:
      // JSON has no word for what is not finite.
      out += std::isfinite(node.number) ? node.ToText() : "null";
      return;
    case Node::Kind::kString:
      WriteString(node.text, out);
      return;
    case Node::Kind::kList:
      if (node.items.empty()) {
        out += "[]";
        return;
      }
      out += '[';
      for (std::size_t i = 0; i < node.items.size(); ++i) {
        if (i > 0) out += ',';
        new_line(indent + 1);
        Write(node.items[i], indent + 1, out);
      }
      new_line(indent);
      out += ']';
      return;
    case Node::Kind::kMap:
      if (node.entries.empty()) {
        out += "{}";
        return;
      }
      out += '{';
      for (std::size_t i = 0; i < node.entries.size(); ++i) {
        if (i > 0) out += ',';
        new_line(indent + 1);
        WriteString(node.entries[i].key, out);
        out += ": ";
        Write(node.entries[i].value, indent + 1, out);
      }
      new_line(indent);
      out += '}';
      return;
  }
}

}  // namespace

Node Node::String(std::string value, Mark mark) {
  Node node = Make(Kind::kString, mark);
  node.text = std::move(value);
  return node;
}

Node Node::Int(std::int64_t value, Mark mark) {
  Node node = Make(Kind::kInt, mark);
  node.integer = value;
  return node;
}

Node Node::Bool(bool value, Mark mark) {
  Node node = Make(Kind::kBool, mark);
  node.boolean = value;
  return node;
}

Node Node::Float(double value, Mark mark) {
  Node node = Make(Kind::kFloat, mark);
  node.number = value;
  return node;
}

Node Node::List(Mark mark) { return Make(Kind::kList, mark); }
Node Node::Map(Mark mark) { return Make(Kind::kMap, mark); }

const Node* Node::Find(std::string_view key) const {
  for (const Entry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

Node* Node::Find(std::string_view key) {
  return const_cast<Node*>(static_cast<const Node*>(this)->Find(key));
}

Node& Node::Set(std::string_view key, Node value) {
  if (Node* found = Find(key)) {
    *found = std::move(value);
    return *found;
  }
  const Mark where = value.mark;
  entries.push_back({std::string(key), where, std::move(value)});
  return entries.back().value;
}

void Node::Erase(std::string_view key) {
  std::erase_if(entries, [&](const Entry& entry) { return entry.key == key; });
}

std::string_view Node::Text(std::string_view key) const {
  const Node* found = Find(key);
  return found != nullptr && found->is_string() ? std::string_view(found->text) : "";
}

std::string Node::ToText() const {
  switch (kind) {
    case Kind::kBool:
      return boolean ? "true" : "false";
    case Kind::kInt:
      return std::to_string(integer);
    case Kind::kFloat:
      return text.empty() ? GoFloat(number) : text;
    case Kind::kString:
      return text;
    default:
      return "";
  }
}

std::string Node::Describe() const {
  constexpr std::size_t kMaxShown = 60;
  switch (kind) {
    case Kind::kNull:
      return "nothing";
    case Kind::kBool:
      return boolean ? "true" : "false";
    case Kind::kInt:
    case Kind::kFloat:
      return StrCat("the number ", ToText());
    case Kind::kString: {
      if (text.size() <= kMaxShown) return StrCat("\"", text, "\"");
      std::size_t cut = kMaxShown;
      while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;
      return StrCat("\"", std::string_view(text).substr(0, cut), "...\"");
    }
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a mapping";
  }
  return "";
}

bool Node::operator==(const Node& other) const {
  if (kind != other.kind) return false;
  switch (kind) {
    case Kind::kNull:
      return true;
    case Kind::kBool:
      return boolean == other.boolean;
    case Kind::kInt:
      return integer == other.integer;
    case Kind::kFloat:
      return number == other.number;
    case Kind::kString:
      return text == other.text;
    case Kind::kList:
      return items == other.items;
    case Kind::kMap:
      return entries.size() == other.entries.size() &&
             std::all_of(entries.begin(), entries.end(), [&](const Entry& entry) {
               const Node* found = other.Find(entry.key);
               return found != nullptr && *found == entry.value;
             });
  }
  return false;
}

std::string ToJson(const Node& node) {
  std::string out;
  Write(node, 0, out);
  out += '\n';
  return out;
}

}  // namespace takt::templates
