#include "runtime/embedded/sandbox.h"

#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"

namespace takt::runtime {
namespace {

constexpr int kMaxLinks = 40;  // as Linux has it

std::vector<std::string> Parts(const std::string& path) {
  return absl::StrSplit(path, '/', absl::SkipEmpty());
}

struct Node {
  std::map<std::string, std::unique_ptr<Node>> children;
  std::optional<Placement> placement;
};

enum class Type { kNone, kDirectory, kFile, kLink };

Type TypeOf(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) return Type::kNone;
  if (S_ISDIR(info.st_mode)) return Type::kDirectory;
  return S_ISLNK(info.st_mode) ? Type::kLink : Type::kFile;
}

std::string ReadLink(const std::string& path) {
  char buffer[PATH_MAX];
  const ssize_t n = readlink(path.c_str(), buffer, sizeof(buffer));
  return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
}

class Builder {
 public:
  explicit Builder(const Tree& tree) : tree_(tree) {}

  absl::StatusOr<std::vector<std::string>> Build() {
    Place("/proc", {.kind = Placement::Kind::kDirectory, .source = "proc"});
    Place("/dev", {.kind = Placement::Kind::kDirectory, .source = "dev"});
    if (!tree_.read_only) {
      Place("/tmp", {.kind = Placement::Kind::kTmpfs, .mode = 01777});
    } else {
      Place("/tmp", {.kind = Placement::Kind::kDirectory, .mode = 01777});
    }
    for (const auto& [path, placement] : tree_.placements) {
      if (path.empty() || path.front() != '/' || CleanPath(path) == "/" ||
          path.find('\0') != std::string::npos) {
        return absl::InvalidArgumentError(
            StrCat("expected an absolute path below / in the instance, got \"", path, "\""));
      }
      Place(ResolveIn(tree_.root, CleanPath(path)), placement);
    }
    Add({"--tmpfs", "/"});
    TAKT_RETURN_IF_ERROR(Open(top_, ""));
    if (tree_.read_only) Add({"--remount-ro", "/"});
    return std::move(arguments_);
  }

 private:
  void Place(const std::string& path, Placement placement) {
    Node* node = &top_;
    for (const std::string& part : Parts(path)) {
      auto& child = node->children[part];
      if (!child) child = std::make_unique<Node>();
      node = child.get();
    }
    node->placement = std::move(placement);
  }

  void Add(std::initializer_list<std::string> arguments) {
    arguments_.insert(arguments_.end(), arguments);
  }

  std::string InRoot(const std::string& path) const {
    return tree_.root == "/" ? path : tree_.root + path;
  }

  // A directory of the tree that is made anew: the root's entries one by one, and ours.
  absl::Status Open(const Node& node, const std::string& path) {
    std::set<std::string> entries;
    if (TypeOf(InRoot(path.empty() ? "/" : path)) == Type::kDirectory) {
      auto listed = ListDir(InRoot(path.empty() ? "/" : path));
      if (listed.ok()) {
        if (listed->size() > kMaxOpenedEntries) {
          return absl::InvalidArgumentError(StrCat("nothing can be mounted in ", path, ": it has ",
                                                   listed->size(), " entries, more than ",
                                                   kMaxOpenedEntries));
        }
        entries.insert(listed->begin(), listed->end());
      }
    }
    for (const std::string& name : entries) {
      if (node.children.count(name)) continue;
      const std::string child = StrCat(path, "/", name);
      switch (TypeOf(InRoot(child))) {
        case Type::kLink:
          Add({"--symlink", ReadLink(InRoot(child)), child});
          break;
        case Type::kNone:
          break;
        default:
          // What we may not look at, as another user's directory, is left out.
          Add({"--ro-bind-try", InRoot(child), child});
      }
    }
    for (const auto& [name, child] : node.children) {
      TAKT_RETURN_IF_ERROR(Emit(*child, StrCat(path, "/", name)));
    }
    return absl::OkStatus();
  }

  // True when every mount point below is in the root already, of the right type.
  bool PointsExist(const Node& node, const std::string& path) const {
    for (const auto& [name, child] : node.children) {
      const std::string at = StrCat(path, "/", name);
      const Type type = TypeOf(InRoot(at));
      if (child->placement) {
        struct stat info {};
        const Placement::Kind kind = child->placement->kind;
        // What is not there yet is a file of ours that is written before the start.
        const bool directory =
            kind == Placement::Kind::kTmpfs || kind == Placement::Kind::kDirectory ||
            (stat(child->placement->source.c_str(), &info) == 0 && S_ISDIR(info.st_mode));
        if (kind == Placement::Kind::kLink) return false;
        if (type != (directory ? Type::kDirectory : Type::kFile)) return false;
      } else if (type != Type::kDirectory || !PointsExist(*child, at)) {
        return false;
      }
    }
    return true;
  }

  absl::Status Emit(const Node& node, const std::string& path) {
    if (!node.placement) {
      if (TypeOf(InRoot(path)) == Type::kDirectory && PointsExist(node, path)) {
        Add({"--ro-bind", InRoot(path), path});
        return Children(node, path);
      }
      Add({"--dir", path});
      return Open(node, path);
    }
    const Placement& p = *node.placement;
    switch (p.kind) {
      case Placement::Kind::kBind:
        Add({"--bind", p.source, path});
        break;
      case Placement::Kind::kReadOnlyBind:
        Add({"--ro-bind", p.source, path});
        break;
      case Placement::Kind::kDeviceBind:
        Add({"--dev-bind", p.source, path});
        break;
      case Placement::Kind::kTmpfs:
        Add({"--perms", absl::StrFormat("%04o", p.mode)});
        if (p.bytes > 0) Add({"--size", std::to_string(p.bytes)});
        Add({"--tmpfs", path});
        break;
      case Placement::Kind::kLink:
        Add({"--symlink", p.source, path});
        break;
      case Placement::Kind::kDirectory:
        if (p.source.empty()) {
          Add({"--perms", absl::StrFormat("%04o", p.mode), "--dir", path});
        } else {
          Add({StrCat("--", p.source), path});  // --proc, --dev
        }
    }
    return Children(node, path);
  }

  absl::Status Children(const Node& node, const std::string& path) {
    for (const auto& [name, child] : node.children) {
      const std::string at = StrCat(path, "/", name);
      if (child->placement) {
        TAKT_RETURN_IF_ERROR(Emit(*child, at));
      } else {
        TAKT_RETURN_IF_ERROR(Children(*child, at));
      }
    }
    return absl::OkStatus();
  }

  const Tree& tree_;
  Node top_;
  std::vector<std::string> arguments_;
};

bool IsPathCharacter(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.' ||
         c == '/' || static_cast<unsigned char>(c) >= 0x80;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> BuildTree(const Tree& tree) {
  return Builder(tree).Build();
}

std::string ResolveIn(const std::string& root, const std::string& path) {
  std::vector<std::string> todo = Parts(path);
  std::string done;
  int links = 0;
  for (std::size_t i = 0; i < todo.size();) {
    if (todo[i] == "..") {
      done.resize(done.empty() ? 0 : done.rfind('/'));
      ++i;
      continue;
    }
    const std::string next = StrCat(done, "/", todo[i]);
    const std::string on_host = root == "/" ? next : root + next;
    if (i + 1 < todo.size() && TypeOf(on_host) == Type::kLink && ++links <= kMaxLinks) {
      const std::string target = ReadLink(on_host);
      std::vector<std::string> rest = Parts(target);
      rest.insert(rest.end(), todo.begin() + static_cast<std::ptrdiff_t>(i) + 1, todo.end());
      if (!target.empty() && target.front() == '/') done.clear();
      todo = std::move(rest);
      i = 0;
      continue;
    }
    done = next;
    ++i;
  }
  return done.empty() ? "/" : done;
}

std::string TranslatePaths(const std::string& text,
                           const std::map<std::string, std::string>& host_paths) {
  std::string out;
  std::size_t at = 0;
  while (at < text.size()) {
    if (text[at] != '/' || (at > 0 && IsPathCharacter(text[at - 1]))) {
      out.push_back(text[at++]);
      continue;
    }
    // The longest that fits.
    const std::pair<const std::string, std::string>* best = nullptr;
    for (const auto& entry : host_paths) {
      const std::string& path = entry.first;
      if (text.compare(at, path.size(), path) != 0) continue;
      const std::size_t end = at + path.size();
      if (end < text.size() && text[end] != '/' && IsPathCharacter(text[end])) continue;
      if (!best || path.size() > best->first.size()) best = &entry;
    }
    if (best) {
      out += best->second;
      at += best->first.size();
    } else {
      out.push_back(text[at++]);
    }
  }
  return out;
}

std::string TranslateNames(const std::string& text,
                           const std::map<std::string, std::vector<std::string>>& addresses) {
  std::string out;
  const auto in_name = [](char c) { return IsPathCharacter(c) && c != '/'; };
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && in_name(text[end])) ++end;
    const auto it = addresses.find(text.substr(at, end - at));
    const bool port = end + 1 < text.size() && text[end] == ':' &&
                      std::isdigit(static_cast<unsigned char>(text[end + 1]));
    if (it != addresses.end() && port && !it->second.empty()) {
      out += it->second.front();
    } else {
      out += text.substr(at, end - at);
    }
    at = end;
    if (at < text.size()) out.push_back(text[at++]);
  }
  return out;
}

}  // namespace takt::runtime
