// The tree that every step of loading works on: YAML read, aliases and merges already applied, each
// node still knowing where in the text it came from. Internal to this room.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace takt::templates {

// A place in the text. Line and column count from 1; `offset` is in bytes from the start.
struct Mark {
  int line = 0;
  int column = 0;
  std::size_t offset = 0;
};

struct Entry;

struct Node {
  enum class Kind : std::uint8_t { kNull, kBool, kInt, kFloat, kString, kList, kMap };

  Kind kind = Kind::kNull;
  bool boolean = false;
  // `!override`, `!reset`: what a later document does to an earlier one.
  bool replaces = false;
  bool resets = false;
  Mark mark;
  std::int64_t integer = 0;
  double number = 0;
  std::string text;  // kString; also the digits of a whole number that int64 cannot hold (kFloat)
  std::vector<Node> items;     // kList
  std::vector<Entry> entries;  // kMap, in the order of the text, keys unique

  static Node String(std::string value, Mark mark);
  static Node Int(std::int64_t value, Mark mark);
  static Node Bool(bool value, Mark mark);
  static Node Float(double value, Mark mark);
  static Node List(Mark mark);
  static Node Map(Mark mark);

  bool is_null() const { return kind == Kind::kNull; }
  bool is_string() const { return kind == Kind::kString; }
  bool is_list() const { return kind == Kind::kList; }
  bool is_map() const { return kind == Kind::kMap; }

  // The value of `key`, null where there is none or this is no map. Valid until the map changes.
  const Node* Find(std::string_view key) const;
  Node* Find(std::string_view key);
  // Replaces or appends; returns the value in its place.
  Node& Set(std::string_view key, Node value);
  void Erase(std::string_view key);
  // The text of string member `key`, "" where there is none.
  std::string_view Text(std::string_view key) const;

  // As Go prints a value, which is what the Compose specification's canonical form holds where a
  // number stands for text: 1.5, 1e+06, true. "" for null.
  std::string ToText() const;
  // "a list", "the number 5", "the text \"abc\"": for "expected ..., got ...".
  std::string Describe() const;

  bool operator==(const Node& other) const;  // values only, not marks
};

struct Entry {
  std::string key;
  Mark mark;  // of the key
  Node value;
};

// JSON text, two spaces a level.
std::string ToJson(const Node& node);

}  // namespace takt::templates
