#include "template/merge.h"

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/str.h"
#include "base/text.h"

namespace takt::templates {
namespace {

enum class Rule { kDeep, kReplace, kSequence, kDependencies, kNames, kBuild, kLogging, kUlimit };

// How a field of a service is merged where it is not simply deep, by its path in the service.
Rule RuleFor(std::string_view path) {
  struct Row {
    std::string_view path;
    Rule rule;
  };
  constexpr std::array<Row, 24> kRows{{{"annotations", Rule::kSequence},
                                       {"build", Rule::kBuild},
                                       {"build.additional_contexts", Rule::kSequence},
                                       {"build.args", Rule::kSequence},
                                       {"build.extra_hosts", Rule::kSequence},
                                       {"build.labels", Rule::kSequence},
                                       {"command", Rule::kReplace},
                                       {"depends_on", Rule::kDependencies},
                                       {"deploy.labels", Rule::kSequence},
                                       {"dns", Rule::kSequence},
                                       {"dns_opt", Rule::kSequence},
                                       {"dns_search", Rule::kSequence},
                                       {"entrypoint", Rule::kReplace},
                                       {"env_file", Rule::kSequence},
                                       {"environment", Rule::kSequence},
                                       {"extra_hosts", Rule::kSequence},
                                       {"healthcheck.test", Rule::kReplace},
                                       {"label_file", Rule::kSequence},
                                       {"labels", Rule::kSequence},
                                       {"logging", Rule::kLogging},
                                       {"models", Rule::kNames},
                                       {"networks", Rule::kNames},
                                       {"sysctls", Rule::kSequence},
                                       {"tmpfs", Rule::kSequence}}};
  for (const Row& row : kRows) {
    if (row.path == path) return row.rule;
  }
  if (path.starts_with("ulimits.")) return Rule::kUlimit;
  return Rule::kDeep;
}

// A mapping as the list of KEY=VALUE that it stands for; a text as a list of one.
Node AsSequence(Node node) {
  if (node.is_list()) return node;
  Node list = Node::List(node.mark);
  if (node.is_string()) {
    list.items.push_back(std::move(node));
    return list;
  }
  for (Entry& entry : node.entries) {
    if (entry.value.is_null()) {
      list.items.push_back(Node::String(entry.key, entry.mark));
    } else if (entry.value.is_list()) {
      for (const Node& item : entry.value.items) {
        list.items.push_back(Node::String(StrCat(entry.key, "=", item.ToText()), item.mark));
      }
    } else if (entry.value.is_map()) {
      list.items.push_back(std::move(entry.value));  // wrong here; the check says so
    } else {
      list.items.push_back(
          Node::String(StrCat(entry.key, "=", entry.value.ToText()), entry.value.mark));
    }
  }
  return list;
}

Node AsMap(Node node, bool dependencies) {
  if (!node.is_list()) return node;
  Node map = Node::Map(node.mark);
  std::unordered_set<std::string> seen;
  for (const Node& item : node.items) {
    if (!seen.insert(item.ToText()).second) continue;
    Node value;
    value.mark = item.mark;
    if (dependencies) {
      value = Node::Map(item.mark);
      value.Set("condition", Node::String("service_started", item.mark));
    }
    map.entries.push_back({item.ToText(), item.mark, std::move(value)});
  }
  return map;
}

void Append(Node& base, Node over) {
  std::unordered_set<std::string> seen;
  for (const Node& item : base.items) seen.insert(ToJson(item));
  for (Node& item : over.items) {
    if (seen.insert(ToJson(item)).second) base.items.push_back(std::move(item));
  }
}

std::size_t CountNodes(const Node& node) {
  std::size_t count = 1;
  for (const Node& item : node.items) count += CountNodes(item);
  for (const Entry& entry : node.entries) count += CountNodes(entry.value);
  return count;
}

// `path` is that within the service; "" outside of services, where everything is deep.
Node Merge(Node base, Node over, const std::string& path, bool in_service, Report& report);

Node MergeMaps(Node base, Node over, const std::string& path, bool in_service, Report& report) {
  std::unordered_map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < base.entries.size(); ++i) places.emplace(base.entries[i].key, i);
  for (Entry& entry : over.entries) {
    const auto place = places.find(entry.key);
    if (place == places.end()) {
      base.entries.push_back(std::move(entry));
      continue;
    }
    Node* found = &base.entries[place->second].value;
    if (entry.value.resets) {
      found->resets = true;
      continue;
    }
    const std::string next = path.empty() ? entry.key : StrCat(path, ".", entry.key);
    Node merged = Merge(std::move(*found), std::move(entry.value), next, in_service, report);
    *found = std::move(merged);
  }
  base.mark = over.mark;
  return base;
}

Node Merge(Node base, Node over, const std::string& path, bool in_service, Report& report) {
  if (over.replaces) return over;
  if (in_service) {
    switch (RuleFor(path)) {
      case Rule::kReplace:
        return over;
      case Rule::kSequence: {
        Node list = AsSequence(std::move(base));
        Append(list, AsSequence(std::move(over)));
        return list;
      }
      case Rule::kDependencies:
      case Rule::kNames: {
        const bool dependencies = RuleFor(path) == Rule::kDependencies;
        base = AsMap(std::move(base), dependencies);
        over = AsMap(std::move(over), dependencies);
        break;
      }
      case Rule::kBuild:
        for (Node* build : {&base, &over}) {
          if (!build->is_string()) continue;
          Node map = Node::Map(build->mark);
          map.Set("context", std::move(*build));
          *build = std::move(map);
        }
        break;
      case Rule::kLogging:
        if (!over.Text("driver").empty() && !base.Text("driver").empty() &&
            over.Text("driver") != base.Text("driver")) {
          return over;
        }
        break;
      case Rule::kUlimit:
        if (!base.is_map() || !over.is_map()) return over;
        break;
      case Rule::kDeep:
        break;
    }
  }
  if (over.is_null()) return base;
  if (base.is_map() && over.is_map()) {
    return MergeMaps(std::move(base), std::move(over), path, in_service, report);
  }
  if (base.is_list() && over.is_list()) {
    Append(base, std::move(over));
    return base;
  }
  if ((base.is_map() || base.is_list()) && !base.is_null()) {
    report.Error(over.mark, path,
                 StrCat("expected ", base.Describe(), " as in what this is merged with, got ",
                        over.Describe()));
  }
  return over;
}

void DropResets(Node& node) {
  std::erase_if(node.entries, [](const Entry& entry) { return entry.value.resets; });
  std::erase_if(node.items, [](const Node& item) { return item.resets; });
  for (Entry& entry : node.entries) DropResets(entry.value);
  for (Node& item : node.items) DropResets(item);
}

// Resolves `extends` of one service, its base first.
class Extender {
 public:
  Extender(Node& services, Report& report) : services_(services), report_(report) {}

  bool Resolve(const std::string& name) {
    Node* service = services_.Find(name);
    const Node* extends = service->Find("extends");
    if (extends == nullptr) return true;
    const Mark mark = extends->mark;
    const std::string path = StrCat("services.", name, ".extends");
    std::string base_name = extends->text;
    if (extends->is_map()) {
      for (const Entry& entry : extends->entries) {
        if (entry.key == "service" || entry.key == "file") continue;
        report_.Error(entry.mark, StrCat(path, ".", entry.key),
                      StrCat("there is no field \"", entry.key, "\" here"),
                      "service names the base");
        return false;
      }
      if (const Node* file = extends->Find("file"); file != nullptr && !file->is_null()) {
        report_.Error(
            file->mark, StrCat(path, ".file"),
            StrCat("a template is one file; it cannot extend a service of ", file->Describe()),
            "put the base service into this file");
        return false;
      }
      const Node* base = extends->Find("service");
      if (base == nullptr || !base->is_string()) {
        report_.Error(mark, path,
                      StrCat("expected the name of a service, got ",
                             base == nullptr ? "nothing" : base->Describe()));
        return false;
      }
      base_name = base->text;
    } else if (!extends->is_string()) {
      report_.Error(mark, path, StrCat("expected a text or a mapping, got ", extends->Describe()));
      return false;
    }
    const Node* base = services_.Find(base_name);
    if (base == nullptr) {
      std::vector<std::string_view> names;
      for (const Entry& entry : services_.entries) names.push_back(entry.key);
      const auto near = NearMiss(base_name, names);
      report_.Error(mark, path, StrCat("there is no service \"", base_name, "\" to extend"),
                    near ? StrCat("did you mean ", *near, "?") : "");
      return false;
    }
    if (!active_.insert(name).second) {
      report_.Error(mark, path, StrCat("the service \"", name, "\" extends itself in a circle"));
      return false;
    }
    if (active_.size() > static_cast<std::size_t>(kMaxTemplateDepth)) {
      report_.Error(
          mark, path,
          StrCat("services extend one another over more than ", kMaxTemplateDepth, " levels"));
      return false;
    }
    const bool ok = base->is_map() && Resolve(base_name);
    active_.erase(name);
    if (!ok) return false;
    // Find again: what Resolve did may have moved things.
    nodes_ += CountNodes(*services_.Find(base_name));
    if (nodes_ > kMaxTemplateNodes) {
      report_.Error(mark, path,
                    StrCat("more than ", kMaxTemplateNodes, " values, with bases in place"));
      return false;
    }
    Node merged =
        Merge(*services_.Find(base_name), std::move(*services_.Find(name)), "", true, report_);
    merged.Erase("extends");
    *services_.Find(name) = std::move(merged);
    return true;
  }

 private:
  Node& services_;
  Report& report_;
  std::set<std::string> active_;
  std::size_t nodes_ = 0;  // of the bases put under services so far
};

void ExtendServices(Node& root, Report& report) {
  Node* services = root.Find("services");
  if (services == nullptr || !services->is_map()) return;
  Extender extender(*services, report);
  std::vector<std::string> names;
  for (const Entry& entry : services->entries) names.push_back(entry.key);
  for (const std::string& name : names) {
    if (services->Find(name)->is_map() && !extender.Resolve(name)) return;
  }
}

}  // namespace

Node MergeDocuments(std::vector<Node> documents, Report& report) {
  Node root;
  for (Node& document : documents) {
    if (document.is_null()) continue;
    if (!document.is_map()) {
      report.Error(document.mark, Path(),
                   StrCat("expected a mapping with services, got ", document.Describe()));
      return root;
    }
    if (root.is_null()) {
      root = std::move(document);
      continue;
    }
    DropResets(root);
    // Services are merged by their own rules, the rest deeply.
    Node services;
    if (Node* found = document.Find("services"); found != nullptr && found->is_map()) {
      services = std::move(*found);
      document.Erase("services");
    }
    root = MergeMaps(std::move(root), std::move(document), "", false, report);
    Node* base = root.Find("services");
    if (base == nullptr || !base->is_map()) {
      if (services.is_map()) root.Set("services", std::move(services));
      continue;
    }
    for (Entry& entry : services.entries) {
      Node* service = base->Find(entry.key);
      if (service == nullptr) {
        base->entries.push_back(std::move(entry));
      } else if (entry.value.resets) {
        service->resets = true;
      } else {
        Node merged = Merge(std::move(*service), std::move(entry.value), "", true, report);
        *service = std::move(merged);
      }
    }
  }
  return root;
}

void ApplyExtends(Node& root, Report& report) {
  ExtendServices(root, report);
  DropResets(root);
}

}  // namespace takt::templates
