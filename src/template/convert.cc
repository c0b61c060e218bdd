#include "template/convert.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <unordered_map>
#include <utility>

#include "base/fs.h"
#include "base/str.h"

namespace takt::templates {
namespace {

constexpr std::size_t kNpos = std::string_view::npos;

Node Null(Mark mark) {
  Node node;
  node.mark = mark;
  return node;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

void Expected(std::string_view what, const Node& node, const Path& path, Report& report,
              std::string suggestion = "") {
  report.Error(node.mark, path, StrCat("expected ", what, ", got ", node.Describe()),
               std::move(suggestion));
}

// Decimal digits with a sign, nothing else.
std::optional<std::int64_t> ParseInteger(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::optional<double> ParseNumber(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

// The whole number that a value means, reported when it means none.
std::optional<std::int64_t> IntegerOf(const Node& node, const Path& path, Report& report) {
  switch (node.kind) {
    case Node::Kind::kInt:
      return node.integer;
    case Node::Kind::kFloat:
      if (std::abs(node.number) < 9e18) return static_cast<std::int64_t>(node.number);
      break;
    case Node::Kind::kString:
      if (const auto value = ParseInteger(node.text)) return value;
      break;
    default:
      break;
  }
  Expected("a whole number", node, path, report);
  return std::nullopt;
}

std::optional<bool> BoolOf(const Node& node, const Path& path, Report& report) {
  if (node.kind == Node::Kind::kBool) return node.boolean;
  const std::string word = Lower(node.text);
  for (const std::string_view yes : {"true", "y", "yes", "on"}) {
    if (word == yes) return true;
  }
  for (const std::string_view no : {"false", "n", "no", "off"}) {
    if (word == no) return false;
  }
  Expected("true or false", node, path, report);
  return std::nullopt;
}

// The part of a KEY=VALUE text before the equals sign.
std::string_view KeyOf(std::string_view text) { return text.substr(0, text.find('=')); }

// Later items with a key that was there take the earlier one's place.
template <typename KeyFunction>
void KeepLast(Node& list, KeyFunction key) {
  std::unordered_map<std::string, std::size_t> places;
  std::vector<Node> kept;
  for (Node& item : list.items) {
    const auto [found, added] = places.emplace(key(item), kept.size());
    if (added) {
      kept.push_back(std::move(item));
    } else {
      kept[found->second] = std::move(item);
    }
  }
  list.items = std::move(kept);
}

enum class Bare { kEmpty, kNull, kRefused };

void KeyValueMap(Node& node, Bare bare, const Path& path, Report& report) {
  if (node.is_map()) {
    for (Entry& entry : node.entries) {
      if (entry.key.empty()) {
        report.Error(entry.mark, path, "expected a name, got an empty one");
      }
      Node& value = entry.value;
      if (!value.is_null()) {
        value = Node::String(value.ToText(), value.mark);
      } else if (bare == Bare::kEmpty) {
        value = Node::String("", value.mark);
      }
    }
    return;
  }
  Node map = Node::Map(node.mark);
  std::unordered_map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    const Node& item = node.items[i];
    const std::string key(KeyOf(item.text));
    const bool has_value = key.size() < item.text.size();
    if (bare == Bare::kRefused && !has_value) {
      Expected("KEY=VALUE", item, Path(path, i), report);
    }
    if (bare == Bare::kNull && !key.empty() && (key.back() == ' ' || key.back() == '\t')) {
      report.Error(item.mark, Path(path, i),
                   StrCat("the variable \"", key, "\" has a space before the equals sign"));
    }
    Node value = has_value             ? Node::String(item.text.substr(key.size() + 1), item.mark)
                 : bare == Bare::kNull ? Null(item.mark)
                                       : Node::String("", item.mark);
    const auto [found, added] = places.emplace(key, map.entries.size());
    if (added) {
      map.entries.push_back({key, item.mark, std::move(value)});
    } else {
      map.entries[found->second] = {key, item.mark, std::move(value)};
    }
  }
  node = std::move(map);
}

// --- ports ------------------------------------------------------------------------------------

constexpr std::string_view kPortForms =
    "a port such as 80, \"8080:80\", \"127.0.0.1:8080:80/udp\" or \"8000-8002:80-82\"";

struct PortRange {
  int first = 0;
  int last = 0;
};

std::optional<int> ParsePort(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  if (value < 0 || value > 65535) return {};
  return value;
}

std::optional<PortRange> ParsePortRange(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto first = ParsePort(text.substr(0, dash));
  const auto last = dash == kNpos ? first : ParsePort(text.substr(dash + 1));
  if (!first || !last || *last < *first) return std::nullopt;
  return PortRange{*first, *last};
}

bool IsAddress(const std::string& text) {
  std::array<unsigned char, 16> buffer;
  return inet_pton(AF_INET, text.c_str(), buffer.data()) == 1 ||
         inet_pton(AF_INET6, text.c_str(), buffer.data()) == 1;
}

// [address:][host port or range:]container port or range[/protocol] -> ports in the long form.
void ParsePortText(const Node& item, const Path& path, Report& report, std::vector<Node>& out) {
  const std::string text = item.ToText();
  const auto fail = [&](std::string_view message) {
    report.Error(item.mark, path,
                 StrCat("expected ", kPortForms, ", got \"", text, "\": ", message));
  };
  std::string_view container = text;
  std::string address;
  std::string_view host;
  if (const std::size_t colon = text.rfind(':'); colon != std::string::npos) {
    container = std::string_view(text).substr(colon + 1);
    std::string_view rest = std::string_view(text).substr(0, colon);
    const std::size_t second = rest.rfind(':');
    host = second == kNpos ? rest : rest.substr(second + 1);
    if (second != kNpos) address = rest.substr(0, second);
  }
  std::string protocol = "tcp";
  if (const std::size_t slash = container.find('/'); slash != kNpos) {
    if (slash + 1 < container.size()) protocol = Lower(container.substr(slash + 1));
    container = container.substr(0, slash);
  }
  if (address.starts_with('[') && address.ends_with(']')) {
    address = address.substr(1, address.size() - 2);
  } else if (address.find(':') != std::string::npos) {
    return fail("an IPv6 address stands in [brackets]");
  }
  if (!address.empty() && !IsAddress(address)) {
    return fail(StrCat("\"", address, "\" is no IP address"));
  }
  if (container.empty()) return fail("no container port");
  const auto target = ParsePortRange(container);
  if (!target) return fail("the container port is no port or range from 0 to 65535");
  const auto published = host.empty() ? PortRange{} : ParsePortRange(host);
  if (!published) return fail("the host port is no port or range from 0 to 65535");
  const bool one_target = target->first == target->last;
  if (!host.empty() && !one_target &&
      target->last - target->first != published->last - published->first) {
    return fail("the two ranges differ in length");
  }
  if (protocol != "tcp" && protocol != "udp" && protocol != "sctp") {
    return fail(StrCat("the protocol is \"", protocol, "\", not tcp, udp or sctp"));
  }
  if (!report.Expand(static_cast<std::size_t>(target->last - target->first) + 1)) {
    return fail(StrCat("the file's ranges hold more than ", kMaxExpandedValues, " ports"));
  }
  std::map<std::string, Node> ports;  // the canonical form sorts them as text
  for (int i = 0; i <= target->last - target->first; ++i) {
    Node port = Node::Map(item.mark);
    port.Set("mode", Node::String("ingress", item.mark));
    if (!address.empty()) port.Set("host_ip", Node::String(address, item.mark));
    port.Set("target", Node::Int(target->first + i, item.mark));
    if (!host.empty()) {
      std::string value = StrCat(published->first + i);
      if (one_target && published->first != published->last) {
        value += StrCat("-", published->last);
      }
      port.Set("published", Node::String(value, item.mark));
    }
    port.Set("protocol", Node::String(protocol, item.mark));
    ports.emplace(StrCat(target->first + i), std::move(port));
  }
  for (auto& [unused, port] : ports) out.push_back(std::move(port));
}

// --- volumes ----------------------------------------------------------------------------------

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool IsHostPath(std::string_view source) {
  if (source.empty()) return false;
  return source[0] == '.' || source[0] == '/' || source[0] == '~' || source.starts_with("\\\\") ||
         (source.size() > 1 && IsLetter(source[0]) && source[1] == ':');
}

// Colon-separated fields, where C: is a drive and no separator.
std::vector<std::string> SplitVolume(std::string_view text) {
  std::vector<std::string> fields(1);
  for (const char c : text) {
    if (c == ':' && !(fields.back().size() == 1 && IsLetter(fields.back()[0]))) {
      fields.emplace_back();
    } else {
      fields.back() += c;
    }
  }
  return fields;
}

constexpr std::string_view kVolumeForms =
    "a volume such as \"/path\", \"name:/path\" or \"./host:/path:ro\"";

std::optional<Node> ParseVolumeText(const Node& item, const Path& path, Report& report) {
  const std::string& text = item.text;
  const auto fail = [&](std::string_view message) {
    report.Error(item.mark, path,
                 StrCat("expected ", kVolumeForms, ", got ", item.Describe(), ": ", message));
    return std::nullopt;
  };
  if (text.empty()) return fail("it is empty");
  std::vector<std::string> fields =
      text.size() <= 2 ? std::vector<std::string>{text} : SplitVolume(text);
  if (fields.size() > 3) return fail("too many colons");
  for (const std::string& field : fields) {
    if (field.empty()) return fail("nothing stands between two colons or after the last");
  }
  const std::string source = fields.size() > 1 ? fields[0] : "";
  const std::string target = fields.size() > 1 ? fields[1] : fields[0];
  Node volume = Node::Map(item.mark);
  const bool bind = IsHostPath(source);
  volume.Set("type", Node::String(bind ? "bind" : "volume", item.mark));
  if (!source.empty()) volume.Set("source", Node::String(source, item.mark));
  volume.Set("target", Node::String(CleanPath(target), item.mark));
  if (source.empty() && target.size() > 2 && IsLetter(target[0]) && target[1] == ':') {
    report.Warn(item.mark, path.ToString(),
                StrCat("\"", target.substr(0, 2), "\" is read as a drive, so this names no volume"),
                "a volume's name has at least two characters");
  }
  if (fields.size() < 3) return volume;

  std::string_view options = fields[2];
  while (true) {
    const std::string_view option = options.substr(0, options.find(','));
    const auto set = [&](std::string_view group, std::string_view key, Node value) {
      Node* found = volume.Find(group);
      if (found == nullptr) found = &volume.Set(group, Node::Map(item.mark));
      found->Set(key, std::move(value));
    };
    if (option == "ro") {
      volume.Set("read_only", Node::Bool(true, item.mark));
    } else if (option == "rw") {
      volume.Erase("read_only");
    } else if (option == "nocopy") {
      set("volume", "nocopy", Node::Bool(true, item.mark));
    } else if (option == "z" || option == "Z") {
      set("bind", "selinux", Node::String(std::string(option), item.mark));
    } else if (option == "rprivate" || option == "private" || option == "rshared" ||
               option == "shared" || option == "rslave" || option == "slave") {
      set("bind", "propagation", Node::String(std::string(option), item.mark));
    } else if (option != "cached" && option != "delegated" && option != "consistent") {
      report.Warn(item.mark, path.ToString(),
                  StrCat("the volume option \"", option, "\" is not known and has no effect"),
                  "ro makes it read-only");
    }
    if (option.size() == options.size()) break;
    options.remove_prefix(option.size() + 1);
  }
  return volume;
}

std::string MemberText(const Node& map, std::string_view key) {
  const Node* found = map.Find(key);
  return found == nullptr ? "" : found->ToText();
}

}  // namespace

// --- scalars ----------------------------------------------------------------------------------

void ToTextValue(Node& node, const Path&, Report&) {
  if (!node.is_string()) node = Node::String(node.ToText(), node.mark);
}

void ToBoolKept(Node& node, const Path& path, Report& report) {
  if (const auto value = BoolOf(node, path, report)) node = Node::Bool(*value, node.mark);
}

void ToBool(Node& node, const Path& path, Report& report) {
  ToBoolKept(node, path, report);
  if (node.kind == Node::Kind::kBool && !node.boolean) node = Null(node.mark);
}

void ToTrueKept(Node& node, const Path& path, Report& report) {
  ToBoolKept(node, path, report);
  if (node.kind == Node::Kind::kBool && node.boolean) node = Null(node.mark);
}

void ToIntegerKept(Node& node, const Path& path, Report& report) {
  if (const auto value = IntegerOf(node, path, report)) node = Node::Int(*value, node.mark);
}

void ToInteger(Node& node, const Path& path, Report& report) {
  ToIntegerKept(node, path, report);
  if (node.kind == Node::Kind::kInt && node.integer == 0) node = Null(node.mark);
}

void ToNaturalKept(Node& node, const Path& path, Report& report) {
  const auto value = IntegerOf(node, path, report);
  if (!value) return;
  if (*value < 0) {
    Expected("0 or more", node, path, report);
    return;
  }
  node = Node::Int(*value, node.mark);
}

void ToNatural(Node& node, const Path& path, Report& report) {
  ToNaturalKept(node, path, report);
  if (node.kind == Node::Kind::kInt && node.integer == 0) node = Null(node.mark);
}

void ToFloat(Node& node, const Path& path, Report& report) {
  double value = node.kind == Node::Kind::kInt ? static_cast<double>(node.integer) : node.number;
  if (node.is_string()) {
    const auto parsed = ParseNumber(node.text);
    if (!parsed) {
      Expected("a number", node, path, report);
      return;
    }
    value = *parsed;
  }
  if (!std::isfinite(value) || std::abs(value) > std::numeric_limits<float>::max()) {
    Expected("a number", node, path, report);
    return;
  }
  if (value == 0) {
    node = Null(node.mark);
    return;
  }
  // The canonical form holds single precision: 0.1, not 0.10000000149.
  std::array<char, 64> buffer;
  const auto [end, error] =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), static_cast<float>(value));
  double shortest = 0;
  std::from_chars(buffer.data(), end, shortest);
  const bool whole = shortest == std::trunc(shortest) && std::abs(shortest) < 1e15;
  node = whole ? Node::Int(static_cast<std::int64_t>(shortest), node.mark)
               : Node::Float(shortest, node.mark);
}

std::optional<std::int64_t> ParseBytes(std::string_view text) {
  if (const auto plain = ParseInteger(text)) return plain;
  const std::size_t last = text.find_last_of("0123456789. ");
  if (last == kNpos) return std::nullopt;
  const std::string_view digits = text.substr(0, text[last] == ' ' ? last : last + 1);
  const std::string unit = Lower(text.substr(last + 1));
  const auto number = ParseNumber(digits);
  if (!number || *number < 0) return std::nullopt;
  double factor = 1;
  if (!unit.empty() && unit != "b") {
    const std::size_t power = std::string_view("kmgtp").find(unit[0]);
    if (power == kNpos || (unit.size() > 1 && unit.substr(1) != "b" && unit.substr(1) != "ib")) {
      return std::nullopt;
    }
    factor = std::pow(1024.0, static_cast<double>(power + 1));
  }
  const double bytes = *number * factor;
  if (bytes >= 9.2e18) return std::nullopt;
  return static_cast<std::int64_t>(bytes);
}

void ToBytes(Node& node, const Path& path, Report& report) {
  std::optional<std::int64_t> bytes;
  if (node.kind == Node::Kind::kInt) bytes = node.integer;
  if (node.is_string()) bytes = ParseBytes(node.text);
  if (!bytes) {
    Expected("a size such as 64m or 1.5g or a number of bytes", node, path, report);
    return;
  }
  node = *bytes == 0 ? Null(node.mark) : Node::String(std::to_string(*bytes), node.mark);
}

std::optional<std::int64_t> ParseDuration(std::string_view text) {
  struct Unit {
    std::string_view name;
    std::int64_t nanoseconds;
  };
  constexpr std::int64_t kSecond = 1'000'000'000;
  constexpr std::array<Unit, 10> kUnits{{{"ns", 1},
                                         {"us", 1000},
                                         {"\u00b5s", 1000},
                                         {"\u03bcs", 1000},
                                         {"ms", 1'000'000},
                                         {"s", kSecond},
                                         {"m", 60 * kSecond},
                                         {"h", 3600 * kSecond},
                                         {"d", 86400 * kSecond},
                                         {"w", 604800 * kSecond}}};
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  if (text == "0") return 0;
  if (text.empty()) return std::nullopt;
  double total = 0;
  std::int64_t exact = 0;
  while (!text.empty()) {
    const std::size_t number_end = std::min(text.find_first_not_of("0123456789."), text.size());
    std::string number(text.substr(0, number_end));
    const std::size_t point = number.find('.');
    if (number.find_first_not_of('.') == std::string::npos ||
        std::count(number.begin(), number.end(), '.') > 1) {
      return std::nullopt;
    }
    text.remove_prefix(number_end);
    const std::size_t unit_end = std::min(text.find_first_of("0123456789."), text.size());
    const std::string_view unit = text.substr(0, unit_end);
    const auto found =
        std::find_if(kUnits.begin(), kUnits.end(), [&](const Unit& u) { return u.name == unit; });
    if (found == kUnits.end()) return std::nullopt;
    text.remove_prefix(unit_end);
    std::int64_t whole = 0;
    const std::string_view whole_digits = std::string_view(number).substr(0, point);
    if (!whole_digits.empty()) {
      const auto parsed = ParseInteger(whole_digits);
      if (!parsed) return std::nullopt;
      whole = *parsed;
    }
    double fraction = 0;
    if (point != std::string::npos) {
      fraction = ParseNumber(StrCat("0", number.substr(point), "0")).value_or(0);
    }
    total += (static_cast<double>(whole) + fraction) * static_cast<double>(found->nanoseconds);
    if (total > 9.2e18) return std::nullopt;
    exact += whole * found->nanoseconds +
             static_cast<std::int64_t>(fraction * static_cast<double>(found->nanoseconds));
  }
  return negative ? -exact : exact;
}

std::string FormatDuration(std::int64_t nanoseconds) {
  if (nanoseconds == 0) return "0s";
  const bool negative = nanoseconds < 0;
  std::uint64_t rest = negative ? 0 - static_cast<std::uint64_t>(nanoseconds)
                                : static_cast<std::uint64_t>(nanoseconds);
  // A number of `unit`s with as much of a fraction as there is.
  const auto decimal = [](std::uint64_t value, std::uint64_t unit, std::string_view name) {
    std::string text = std::to_string(value / unit);
    if (std::uint64_t part = value % unit; part > 0) {
      std::string digits = std::to_string(part + unit).substr(1);
      digits.erase(digits.find_last_not_of('0') + 1);
      text += StrCat(".", digits);
    }
    return StrCat(text, name);
  };
  constexpr std::uint64_t kSecond = 1'000'000'000;
  const std::string sign = negative ? "-" : "";
  if (rest < 1000) return StrCat(sign, decimal(rest, 1, "ns"));
  if (rest < 1'000'000) return StrCat(sign, decimal(rest, 1000, "\u00b5s"));
  if (rest < kSecond) return StrCat(sign, decimal(rest, 1'000'000, "ms"));
  const std::uint64_t minutes = rest / (60 * kSecond);
  rest %= 60 * kSecond;
  std::string text = sign;
  if (minutes >= 60) text += StrCat(minutes / 60, "h");
  if (minutes > 0) text += StrCat(minutes % 60, "m");
  return StrCat(text, decimal(rest, kSecond, "s"));
}

void ToDurationKept(Node& node, const Path& path, Report& report) {
  const auto value = ParseDuration(node.text);
  if (!value) {
    Expected("a duration such as 10s, 1m30s or 500ms", node, path, report);
    return;
  }
  node = Node::String(FormatDuration(*value), node.mark);
}

void ToDuration(Node& node, const Path& path, Report& report) {
  ToDurationKept(node, path, report);
  if (node.text == "0s") node = Null(node.mark);
}

void ToMode(Node& node, const Path& path, Report& report) {
  std::int64_t mode = node.integer;
  if (node.is_string()) {
    const auto [end, error] =
        std::from_chars(node.text.data(), node.text.data() + node.text.size(), mode, 8);
    if (node.text.empty() || error != std::errc() || end != node.text.data() + node.text.size()) {
      Expected("a file mode such as 0440", node, path, report);
      return;
    }
  } else if (node.kind != Node::Kind::kInt) {
    Expected("a file mode such as 0440", node, path, report);
    return;
  }
  std::string octal;
  std::array<char, 32> buffer;
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), mode, 8);
  node = Node::String(StrCat("0", std::string_view(buffer.data(), end - buffer.data())), node.mark);
}

// --- lists and maps ---------------------------------------------------------------------------

std::optional<std::vector<std::string>> SplitCommand(std::string_view text, std::size_t* cut) {
  *cut = kNpos;
  std::vector<std::string> words;
  std::string word;
  bool has_word = false;
  bool escaped = false;
  char quote = '\0';  // ' or "
  bool back_quote = false;
  bool substitution = false;  // $( ... )
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (escaped) {
      word += c;
      has_word = true;
      escaped = false;
      continue;
    }
    if (c == '\\') {
      if (quote == '\'') {
        word += c;
      } else {
        escaped = true;
      }
      continue;
    }
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
      if (quote != '\0' || back_quote || substitution) {
        word += c;
      } else if (has_word) {
        words.push_back(std::move(word));
        word.clear();
        has_word = false;
      }
      continue;
    }
    if (c == '"' || c == '\'') {
      const char other = c == '"' ? '\'' : '"';
      if (quote != other && !substitution) {
        if (quote == c) has_word = true;
        quote = quote == c ? '\0' : c;
        continue;
      }
    } else if (quote == '\0') {
      if (c == '`' && !substitution) back_quote = !back_quote;
      if (c == ')' && !back_quote) substitution = !substitution;
      if (c == '(' && !back_quote) {
        if (substitution || !word.ends_with('$')) return std::nullopt;
        substitution = true;
      }
      if (!back_quote && !substitution && std::string_view(";&|<>").find(c) != kNpos) {
        // 2>file: the 2 belongs to the redirection.
        if (c == '>' && !word.empty() && word[0] >= '0' && word[0] <= '9') has_word = false;
        *cut = i;
        break;
      }
    }
    has_word = true;
    word += c;
  }
  if (escaped || quote != '\0' || back_quote || substitution) return std::nullopt;
  if (has_word) words.push_back(std::move(word));
  return words;
}

void ToCommand(Node& node, const Path& path, Report& report) {
  if (!node.is_string()) return;
  std::size_t cut = 0;
  const auto words = SplitCommand(node.text, &cut);
  if (!words) {
    Expected("a command line", node, path, report,
             "a quote or bracket stays open; a list of words needs no quotes");
    return;
  }
  if (cut != kNpos) {
    report.Warn(node.mark, path.ToString(),
                StrCat("no shell runs this, so it ends before ",
                       Node::String(node.text.substr(cut), {}).Describe()),
                "for a shell write [\"sh\", \"-c\", \"...\"]");
  }
  Node list = Node::List(node.mark);
  for (const std::string& word : *words) list.items.push_back(Node::String(word, node.mark));
  node = std::move(list);
}

void ToList(Node& node, const Path&, Report&) {
  if (!node.is_string()) return;
  Node list = Node::List(node.mark);
  if (!node.text.empty()) list.items.push_back(std::move(node));
  node = std::move(list);
}

void ToTexts(Node& node, const Path&, Report&) {
  if (!node.is_list()) {
    Node list = Node::List(node.mark);
    list.items.push_back(std::move(node));
    node = std::move(list);
  }
  for (Node& item : node.items) item = Node::String(item.ToText(), item.mark);
}

void ToDistinct(Node& node, const Path&, Report&) {
  KeepLast(node, [](const Node& item) { return std::string(KeyOf(item.ToText())); });
}

void ToListDistinct(Node& node, const Path& path, Report& report) {
  ToList(node, path, report);
  std::erase_if(node.items, [](const Node& item) { return item.is_string() && item.text.empty(); });
  ToDistinct(node, path, report);
}

void ToMapping(Node& node, const Path& path, Report& report) {
  KeyValueMap(node, Bare::kEmpty, path, report);
}

void ToEnvironment(Node& node, const Path& path, Report& report) {
  KeyValueMap(node, Bare::kNull, path, report);
}

void ToKeyValues(Node& node, const Path& path, Report& report) {
  KeyValueMap(node, Bare::kRefused, path, report);
}

void ToOptions(Node& node, const Path&, Report&) {
  for (Entry& entry : node.entries) {
    entry.value = Node::String(entry.value.ToText(), entry.value.mark);
  }
}

void ToSsh(Node& node, const Path& path, Report& report) {
  Node list = Node::List(node.mark);
  if (node.is_list()) {
    for (std::size_t i = 0; i < node.items.size(); ++i) {
      const Node& item = node.items[i];
      if (item.text != "default" && item.text.find('=') == std::string::npos) {
        Expected("\"default\" or ID=PATH", item, Path(path, i), report);
      }
    }
    return;
  }
  for (const Entry& entry : node.entries) {
    const std::string value = entry.value.ToText();
    list.items.push_back(
        Node::String(value.empty() ? entry.key : StrCat(entry.key, "=", value), entry.mark));
  }
  node = std::move(list);
}

void ToHosts(Node& node, const Path& path, Report& report) {
  std::vector<std::pair<std::string, Mark>> hosts;
  const auto add = [&](std::string_view host, std::string_view address, Mark mark) {
    if (host.empty() || host.find_first_of(":=") != kNpos) {
      report.Error(mark, path, StrCat("expected a host name, got \"", host, "\""));
    }
    if (address.size() > 2 && address.front() == '[' && address.back() == ']') {
      address = address.substr(1, address.size() - 2);
    }
    hosts.emplace_back(StrCat(host, "=", address), mark);
  };
  for (const Entry& entry : node.entries) {
    if (!entry.value.is_list()) add(entry.key, entry.value.ToText(), entry.mark);
    for (const Node& item : entry.value.items) add(entry.key, item.ToText(), item.mark);
  }
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    const Node& item = node.items[i];
    std::size_t separator = item.text.find('=');
    if (separator == std::string::npos) separator = item.text.find(':');
    if (separator == std::string::npos) {
      Expected("HOST=ADDRESS", item, Path(path, i), report);
      continue;
    }
    std::string_view addresses = std::string_view(item.text).substr(separator + 1);
    while (true) {
      const std::string_view address = addresses.substr(0, addresses.find(','));
      add(std::string_view(item.text).substr(0, separator), address, item.mark);
      if (address.size() == addresses.size()) break;
      addresses.remove_prefix(address.size() + 1);
    }
  }
  std::sort(hosts.begin(), hosts.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  Node list = Node::List(node.mark);
  for (const auto& [host, mark] : hosts) list.items.push_back(Node::String(host, mark));
  node = std::move(list);
}

void ToPorts(Node& node, const Path& path, Report& report) {
  std::vector<Node> ports;
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    Node& item = node.items[i];
    const Path item_path(path, i);
    if (report.full()) return;
    if (!item.is_map()) {
      ParsePortText(item, item_path, report, ports);
      continue;
    }
    if (item.Find("target") == nullptr) {
      report.Error(item.mark, item_path, "expected a target port, got none",
                   "target is the port in the container");
    }
    if (const Node* ip = item.Find("host_ip"); ip != nullptr && !IsAddress(ip->text)) {
      Expected("an IP address", *ip, Path(item_path, "host_ip"), report);
    }
    if (item.Text("mode").empty()) item.Set("mode", Node::String("ingress", item.mark));
    if (item.Text("protocol").empty()) item.Set("protocol", Node::String("tcp", item.mark));
    ports.push_back(std::move(item));
  }
  node.items = std::move(ports);
  KeepLast(node, [](const Node& port) {
    const std::string_view address = port.Text("host_ip");
    return StrCat(address.empty() ? "0.0.0.0" : address, ":", MemberText(port, "published"), ":",
                  MemberText(port, "target"), "/", port.Text("protocol"));
  });
}

void ToVolume(Node& node, const Path& path, Report& report) {
  if (node.is_string()) {
    if (auto volume = ParseVolumeText(node, path, report)) node = std::move(*volume);
    return;
  }
  Node* target = node.Find("target");
  if (target == nullptr || target->text.empty()) {
    report.Error(node.mark, path, "expected a target path, got none",
                 "target is the path in the container");
    return;
  }
  target->text = CleanPath(target->text);
  if (node.Text("type") == "bind" && node.Text("source").empty()) {
    report.Error(node.mark, path, "a bind mount needs a source, got none");
  }
}

void ToVolumes(Node& node, const Path&, Report&) {
  KeepLast(node, [](const Node& volume) { return std::string(volume.Text("target")); });
}

void ToDevice(Node& node, const Path& path, Report& report) {
  if (!node.is_string()) return;
  std::vector<std::string> parts(1);
  for (const char c : node.text) {
    if (c == ':') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  if (parts.size() > 3) {
    Expected("a device such as /dev/a or /dev/a:/dev/b:rwm", node, path, report);
    return;
  }
  Node device = Node::Map(node.mark);
  device.Set("source", Node::String(parts[0], node.mark));
  device.Set("target",
             Node::String(parts.size() > 1 && !parts[1].empty() ? parts[1] : parts[0], node.mark));
  device.Set("permissions", Node::String(parts.size() > 2 ? parts[2] : "rwm", node.mark));
  node = std::move(device);
}

void ToDevices(Node& node, const Path& path, Report& report) {
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    if (node.items[i].is_map() && node.items[i].Text("target").empty()) {
      report.Error(node.items[i].mark, Path(path, i), "expected a target path, got none");
    }
  }
  KeepLast(node, [](const Node& device) { return std::string(device.Text("target")); });
}

void ToDeviceCount(Node& node, const Path& path, Report& report) {
  if (node.is_string() && Lower(node.text) == "all") {
    node = Node::Int(-1, node.mark);
    return;
  }
  if (node.is_string() && !ParseInteger(node.text)) {
    Expected("a number or \"all\"", node, path, report);
    return;
  }
  ToInteger(node, path, report);
}

void ToDeviceRequest(Node& node, const Path& path, Report& report) {
  const Node* count = node.Find("count");
  const Node* ids = node.Find("device_ids");
  if (count != nullptr && ids != nullptr) {
    report.Error(count->mark, path, "expected count or device_ids, got both");
  }
  if (count == nullptr && ids == nullptr) node.Set("count", Node::Int(-1, node.mark));
}

void ToGpus(Node& node, const Path&, Report&) {
  if (!node.is_string()) return;
  Node request = Node::Map(node.mark);
  request.Set("count", Node::Int(-1, node.mark));
  Node list = Node::List(node.mark);
  list.items.push_back(std::move(request));
  node = std::move(list);
}

void ToConfigMount(Node& node, const Path&, Report&) {
  if (!node.is_string()) return;
  Node mount = Node::Map(node.mark);
  mount.Set("source", Node::String(node.text, node.mark));
  node = std::move(mount);
}

void ToSecretMount(Node& node, const Path& path, Report& report) {
  ToConfigMount(node, path, report);
  if (node.Find("target") == nullptr) {
    node.Set("target", Node::String(StrCat("/run/secrets/", node.Text("source")), node.mark));
  }
}

void ToMounts(Node& node, const Path&, Report&) {
  KeepLast(node, [](const Node& mount) {
    const std::string_view target = mount.Text("target");
    return target.empty() ? StrCat("/", mount.Text("source")) : std::string(target);
  });
}

void ToUlimit(Node& node, const Path& path, Report& report) {
  if (!node.is_map()) ToInteger(node, path, report);
}

void ToDependency(Node& node, const Path&, Report&) {
  if (node.Find("required") == nullptr) node.Set("required", Node::Bool(true, node.mark));
}

void ToDependencies(Node& node, const Path&, Report&) {
  if (!node.is_list()) return;
  Node map = Node::Map(node.mark);
  for (const Node& item : node.items) {
    Node dependency = Node::Map(item.mark);
    dependency.Set("condition", Node::String("service_started", item.mark));
    dependency.Set("required", Node::Bool(true, item.mark));
    map.entries.push_back({item.text, item.mark, std::move(dependency)});
  }
  node = std::move(map);
}

void ToNameMap(Node& node, const Path&, Report&) {
  if (!node.is_list()) return;
  Node map = Node::Map(node.mark);
  for (const Node& item : node.items)
    map.entries.push_back({item.text, item.mark, Null(item.mark)});
  node = std::move(map);
}

void ToEnvFiles(Node& node, const Path&, Report&) {
  const auto from_text = [](const Node& text) {
    Node file = Node::Map(text.mark);
    file.Set("path", Node::String(text.text, text.mark));
    return file;
  };
  if (node.is_string()) {
    Node list = Node::List(node.mark);
    list.items.push_back(from_text(node));
    node = std::move(list);
    return;
  }
  for (Node& item : node.items) {
    if (item.is_string()) item = from_text(item);
  }
  KeepLast(node, [](const Node& file) { return std::string(file.Text("path")); });
}

void ToBuild(Node& node, const Path&, Report&) {
  if (node.is_string()) {
    Node build = Node::Map(node.mark);
    build.Set("context", std::move(node));
    node = std::move(build);
  }
  if (node.Find("context") == nullptr) node.Set("context", Node::String(".", node.mark));
  if (node.Find("dockerfile") == nullptr && node.Find("dockerfile_inline") == nullptr) {
    node.Set("dockerfile", Node::String("Dockerfile", node.mark));
  }
}

void ToHealthTest(Node& node, const Path& path, Report& report) {
  if (node.is_string()) {
    Node list = Node::List(node.mark);
    list.items.push_back(Node::String("CMD-SHELL", node.mark));
    list.items.push_back(std::move(node));
    node = std::move(list);
    return;
  }
  if (node.items.empty()) return;
  const std::string& first = node.items[0].text;
  if (first != "CMD" && first != "CMD-SHELL" && first != "NONE") {
    Expected("\"CMD\", \"CMD-SHELL\" or \"NONE\" as first word", node.items[0], path, report,
             "a text instead of a list is run by the shell");
  }
}

void ToExternal(Node& node, const Path& path, Report& report) {
  if (!node.is_map()) ToBool(node, path, report);
}

void ToBlkioWeight(Node& node, const Path&, Report&) {
  Node renamed = Node::Map(node.mark);
  for (Entry& entry : node.entries) {
    renamed.Set(entry.key == "path" ? "Path" : "Weight", std::move(entry.value));
  }
  if (renamed.Find("Weight") == nullptr) renamed.Set("Weight", Node::Int(0, node.mark));
  node = std::move(renamed);
}

void ToBlkioRate(Node& node, const Path&, Report&) {
  Node renamed = Node::Map(node.mark);
  for (Entry& entry : node.entries) {
    renamed.Set(entry.key == "path" ? "Path" : "Rate", std::move(entry.value));
  }
  if (renamed.Find("Rate") == nullptr) renamed.Set("Rate", Node::String("0", node.mark));
  node = std::move(renamed);
}

}  // namespace takt::templates
