#include "template/canonical.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/fs.h"
#include "base/ids.h"
#include "base/str.h"
#include "base/text.h"
#include "template/env_file.h"
#include "template/interpolate.h"
#include "template/schema.h"
#include "template/yaml.h"

namespace takt::templates {
namespace {

constexpr std::size_t kNpos = std::string_view::npos;

bool IsTrue(const Node& map, std::string_view key) {
  const Node* found = map.Find(key);
  return found != nullptr && found->kind == Node::Kind::kBool && found->boolean;
}

std::string Suggest(std::string_view word, const Node* map) {
  std::vector<std::string_view> names;
  if (map != nullptr) {
    for (const Entry& entry : map->entries) names.push_back(entry.key);
  }
  const auto near = NearMiss(word, names);
  return near ? StrCat("did you mean ", *near, "?") : "";
}

// What of `image: x` and its kin a value with the prefix "service:" refers to; "" otherwise.
std::string_view ServiceReference(std::string_view text) {
  constexpr std::string_view kPrefix = "service:";
  return text.starts_with(kPrefix) ? text.substr(kPrefix.size()) : "";
}

bool IsDirective(std::string_view key) {
  return key.starts_with("constraint:") || key.starts_with("affinity:") ||
         key.starts_with("reschedule:") || key.starts_with("availability:");
}

class Completer {
 public:
  Completer(Node& root, const LoadOptions& options, Report& report)
      : root_(root), options_(options), report_(report) {}

  Completed Run() {
    root_.Erase("name");
    root_.entries.insert(root_.entries.begin(),
                         {"name", root_.mark, Node::String(options_.project_name, root_.mark)});
    for (const std::string_view group : {"networks", "volumes", "secrets", "configs"}) {
      CompleteResources(group);
    }
    if (Node* services = root_.Find("services")) {
      for (const Entry& entry : services->entries) names_.insert(entry.key);
      for (Entry& entry : services->entries) {
        const Path top;
        const Path path(top, "services");
        CompleteService(entry, Path(path, entry.key));
      }
    }
    AddImplicitResources();
    if (Node* services = root_.Find("services")) {
      for (Entry& entry : services->entries) {
        const Path top;
        const Path path(top, "services");
        CheckService(entry, Path(path, entry.key));
      }
      CheckCycles(*services);
    }
    return std::move(completed_);
  }

 private:
  std::optional<std::string> Value(const std::string& name) const {
    const auto found = options_.values.find(name);
    if (found != options_.values.end()) return found->second;
    if (name == "COMPOSE_PROJECT_NAME") return options_.project_name;
    return std::nullopt;
  }

  void MakeAbsolute(Node& node) const {
    if (node.is_string() && !node.text.empty()) node.text = ResolvePath(node.text, options_);
  }

  // --- top-level networks, volumes, secrets, configs

  void CompleteResources(std::string_view group) {
    Node* resources = root_.Find(group);
    if (resources == nullptr) return;
    const Path top;
    const Path group_path(top, group);
    for (Entry& entry : resources->entries) {
      const Path path(group_path, entry.key);
      Node& resource = entry.value;
      const bool was_null = resource.is_null();
      if (was_null) resource = Node::Map(entry.mark);
      CompleteExternal(resource, path);
      const bool external = IsTrue(resource, "external");
      if (group == "volumes" || group == "networks") {
        for (const Entry& field : resource.entries) {
          if (group == "volumes" && external && field.key != "name" && field.key != "external") {
            report_.Error(field.mark, Path(path, field.key),
                          "expected only a name, for the volume is external and exists already");
          }
        }
      } else {
        CheckContent(resource, external, group, path);
        if (const Node* variable = resource.Find("environment")) {
          NoteValue(variable->text, Path(path, "environment"), variable->mark, true);
        }
      }
      if (!resource.Text("name").empty()) {
        if (group == "volumes") completed_.named_volumes.insert(entry.key);
      } else {
        resource.Set("name", Node::String(external ? entry.key
                                                   : StrCat(options_.project_name, "_", entry.key),
                                          entry.mark));
      }
      if (Node* file = resource.Find("file")) MakeAbsolute(*file);
      if (group == "volumes" && resource.Text("driver") == "local") {
        Node* driver_options = resource.Find("driver_opts");
        if (driver_options != nullptr && driver_options->Text("o") == "bind") {
          if (Node* device = driver_options->Find("device")) MakeAbsolute(*device);
        }
      }
      if (group == "volumes" && !IsValidName(resource.Text("name"))) {
        report_.Error(resource.Find("name")->mark, Path(path, "name"),
                      StrCat("expected a volume name of letters, digits and ._-, got ",
                             resource.Find("name")->Describe()));
      }
    }
  }

  // external: {name: x} -> external: true, name: x
  void CompleteExternal(Node& resource, const Path& path) {
    Node* external = resource.Find("external");
    if (external == nullptr) return;
    if (!external->is_map()) {
      if (!external->boolean) resource.Erase("external");
      return;
    }
    const std::string name(external->Text("name"));
    const Mark mark = external->mark;
    if (!name.empty() && !resource.Text("name").empty() && resource.Text("name") != name) {
      report_.Error(
          mark, Path(path, "external"),
          StrCat("expected one name, got \"", resource.Text("name"), "\" and \"", name, "\""),
          "write external: true and name");
    }
    *external = Node::Bool(true, mark);
    if (!name.empty()) resource.Set("name", Node::String(name, mark));
  }

  void CheckContent(const Node& resource, bool external, std::string_view group, const Path& path) {
    const bool config = group == "configs";
    std::vector<std::string_view> given;
    for (const std::string_view key : {"file", "environment", "content"}) {
      if ((config || key != "content") && resource.Find(key) != nullptr) given.push_back(key);
    }
    const std::string_view expected =
        config ? "one of file, environment and content" : "one of file and environment";
    if (given.size() > 1) {
      report_.Error(resource.Find(given[1])->mark, path,
                    StrCat("expected ", expected, ", got ", given[0], " and ", given[1]));
    } else if (given.empty() && !external && (!config || (resource.Find("driver") == nullptr))) {
      report_.Error(resource.mark, path, StrCat("expected ", expected, ", got none"));
    }
  }

  // What services use without declaring it: the default network, and volumes of the platform.
  void AddImplicitResources() {
    Node* services = root_.Find("services");
    if (services == nullptr) return;
    std::unordered_set<std::string> volumes;
    if (const Node* declared = root_.Find("volumes")) {
      for (const Entry& volume : declared->entries) volumes.insert(volume.key);
    }
    bool uses_default = false;
    for (const Entry& service : services->entries) {
      if (const Node* networks = service.value.Find("networks")) {
        uses_default |= networks->Find("default") != nullptr;
      }
      const Node* mounts = service.value.Find("volumes");
      if (mounts == nullptr) continue;
      for (std::size_t i = 0; i < mounts->items.size(); ++i) {
        const Node& mount = mounts->items[i];
        const std::string_view source = mount.Text("source");
        if (mount.Text("type") != "volume" || source.empty()) continue;
        if (volumes.emplace(source).second) {
          AddPlatformVolume(source, mount, StrCat("services.", service.key, ".volumes[", i, "]"));
        }
      }
    }
    if (uses_default) {
      Node* networks = root_.Find("networks");
      if (networks == nullptr) networks = &root_.Set("networks", Node::Map(root_.mark));
      if (networks->Find("default") == nullptr) {
        Node network = Node::Map(root_.mark);
        network.Set("name", Node::String(StrCat(options_.project_name, "_default"), root_.mark));
        networks->Set("default", std::move(network));
      }
    }
  }

  // A named volume that the file does not declare is one of the platform's.
  void AddPlatformVolume(std::string_view name, const Node& mount, std::string path) {
    if (!IsValidName(name)) {
      report_.Error(mount.mark, std::move(path),
                    StrCat("expected a volume name of letters, digits and ._-, got \"", name, "\""),
                    "a path on the host starts with / or ./");
      return;
    }
    Node* volumes = root_.Find("volumes");
    if (volumes == nullptr) volumes = &root_.Set("volumes", Node::Map(mount.mark));
    Node volume = Node::Map(mount.mark);
    volume.Set("name", Node::String(std::string(name), mount.mark));
    volume.Set("external", Node::Bool(true, mount.mark));
    volumes->entries.push_back({std::string(name), mount.mark, std::move(volume)});
  }

  // --- services

  void CompleteService(Entry& entry, const Path& path) {
    Node& service = entry.value;
    if (service.Find("provider") == nullptr && service.Find("network_mode") == nullptr &&
        service.Find("networks") == nullptr) {
      Node networks = Node::Map(service.mark);
      networks.Set("default", Node());
      service.Set("networks", std::move(networks));
    }
    if (Node* policy = service.Find("pull_policy"); policy != nullptr) {
      if (policy->text == "if_not_present") policy->text = "missing";
      CheckPullPolicy(*policy, Path(path, "pull_policy"));
    }
    if (Node* build = service.Find("build")) CompleteBuild(*build);
    TakeDirectives(entry.key, service);
    NoteBare(service.Find("environment"), path);
    ResolveBare(service.Find("environment"), true);
    LoadEnvFiles(service, path);
    LoadLabelFiles(service, path);
    AddDependencies(service);
    if (Node* volumes = service.Find("volumes")) {
      for (Node& volume : volumes->items) {
        Node* source = volume.Find("source");
        if (source != nullptr && volume.Text("type") == "bind" && !IsWindowsPath(source->text)) {
          MakeAbsolute(*source);
        }
      }
    }
    if (Node* develop = service.Find("develop")) {
      if (Node* watches = develop->Find("watch")) {
        for (Node& watch : watches->items) {
          if (Node* watched = watch.Find("path")) MakeAbsolute(*watched);
        }
      }
    }
  }

  static bool IsWindowsPath(std::string_view text) {
    return text.starts_with("\\\\") ||
           (text.size() > 2 && text[1] == ':' && (text[2] == '\\' || text[2] == '/'));
  }

  void CheckPullPolicy(const Node& policy, const Path& path) {
    constexpr std::array<std::string_view, 7> kWords{"always",  "never", "build", "missing",
                                                     "refresh", "daily", "weekly"};
    if (std::find(kWords.begin(), kWords.end(), policy.text) != kWords.end()) return;
    // every_1d12h
    constexpr std::string_view kEvery = "every_";
    if (policy.text.starts_with(kEvery) && policy.text.size() > kEvery.size() + 1) {
      bool digit = false;
      bool fits = true;
      for (const char c : policy.text.substr(kEvery.size())) {
        const bool unit = std::string_view("wdhms").find(c) != kNpos;
        fits = fits && ((c >= '0' && c <= '9') || (unit && digit));
        digit = c >= '0' && c <= '9';
      }
      if (fits && !digit) return;
    }
    report_.Error(policy.mark, path,
                  StrCat("expected always, never, missing, if_not_present, build, refresh, daily, "
                         "weekly or every_1d, got ",
                         policy.Describe()));
  }

  void CompleteBuild(Node& build) {
    const auto absolute = [&](Node& context) {
      constexpr std::array<std::string_view, 3> kRemote{"github.com/", "git@", "service:"};
      const bool remote = context.text.find("://") != std::string::npos ||
                          std::any_of(kRemote.begin(), kRemote.end(), [&](std::string_view prefix) {
                            return context.text.starts_with(prefix);
                          });
      if (!remote) MakeAbsolute(context);
    };
    if (Node* context = build.Find("context")) absolute(*context);
    if (Node* contexts = build.Find("additional_contexts")) {
      for (Entry& context : contexts->entries) absolute(context.value);
    }
    ResolveBare(build.Find("args"), false);
  }

  void NoteBare(const Node* environment, const Path& path) {
    if (environment == nullptr) return;
    for (const Entry& entry : environment->entries) {
      const Path group(path, "environment");
      if (!entry.value.is_null() || IsDirective(entry.key)) continue;
      NoteValue(entry.key, Path(group, entry.key), entry.mark, false);
    }
  }

  void NoteValue(const std::string& name, const Path& path, Mark mark, bool required) {
    if (!IsVariableName(name)) return;
    Parameter parameter;
    parameter.name = name;
    parameter.required = required;
    parameter.uses.push_back({path.ToString(), mark.line, mark.column});
    completed_.named_values.push_back(std::move(parameter));
  }

  // A bare KEY takes the value of that name; without one it stays bare or is dropped.
  void ResolveBare(Node* map, bool keep) {
    if (map == nullptr) return;
    for (Entry& entry : map->entries) {
      if (!entry.value.is_null()) continue;
      if (auto value = Value(entry.key)) {
        entry.value = Node::String(std::move(*value), entry.mark);
      }
    }
    if (!keep) {
      std::erase_if(map->entries, [](const Entry& entry) { return entry.value.is_null(); });
    }
  }

  void TakeDirectives(const std::string& name, Node& service) {
    Node* environment = service.Find("environment");
    if (environment == nullptr) return;
    std::vector<Node> directives;
    std::erase_if(environment->entries, [&](const Entry& entry) {
      if (!IsDirective(entry.key)) return false;
      directives.push_back(
          Node::String(entry.value.is_null() ? entry.key : StrCat(entry.key, "=", entry.value.text),
                       entry.mark));
      return true;
    });
    if (environment->entries.empty()) service.Erase("environment");
    if (!directives.empty()) completed_.placement[name] = std::move(directives);
  }

  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadPairs(
      const std::string& file, bool raw, const std::map<std::string, std::string>& values) {
    TAKT_ASSIGN_OR_RETURN(const std::string text, ReadProjectFile(file, options_));
    if (!IsText(text)) {
      return absl::InvalidArgumentError(
          StrCat(file, ": expected UTF-8 text without NUL characters"));
    }
    auto pairs = ParseEnvFile(text, raw, values);
    return pairs.ok() ? std::move(pairs) : Annotate(pairs.status(), file);
  }

  void LoadEnvFiles(Node& service, const Path& path) {
    Node* files = service.Find("env_file");
    if (files == nullptr) return;
    std::map<std::string, std::string> values = options_.values;
    const Node* written = service.Find("environment");
    if (written != nullptr) {
      for (const Entry& entry : written->entries) {
        if (!entry.value.is_null()) values.emplace(entry.key, entry.value.text);
      }
    }
    Node merged = Node::Map(files->mark);
    std::map<std::string, std::string> from_files;
    for (std::size_t i = 0; i < files->items.size(); ++i) {
      Node& file = files->items[i];
      if (Node* name = file.Find("path")) MakeAbsolute(*name);
      const bool required = file.Find("required") == nullptr;
      const auto pairs =
          ReadPairs(std::string(file.Text("path")), file.Text("format") == "raw", values);
      const Path files_path(path, "env_file");
      const Path file_path(files_path, i);
      if (!pairs.ok()) {
        if (!required && pairs.status().code() == absl::StatusCode::kNotFound) continue;
        report_.Error(file.mark, file_path, std::string(ToStd(pairs.status().message())));
        continue;
      }
      for (const auto& [key, value] : *pairs) from_files[key] = value;
    }
    if (from_files.empty()) return;
    for (const auto& [key, value] : from_files) {
      merged.entries.push_back({key, files->mark, Node::String(value, files->mark)});
    }
    Overlay(service, "environment", std::move(merged));
  }

  void LoadLabelFiles(Node& service, const Path& path) {
    Node* files = service.Find("label_file");
    if (files == nullptr) return;
    std::map<std::string, std::string> from_files;
    for (std::size_t i = 0; i < files->items.size(); ++i) {
      Node& file = files->items[i];
      MakeAbsolute(file);
      const auto pairs = ReadPairs(file.text, false, from_files);
      const Path files_path(path, "label_file");
      if (!pairs.ok()) {
        report_.Error(file.mark, Path(files_path, i), std::string(ToStd(pairs.status().message())));
        continue;
      }
      for (const auto& [key, value] : *pairs) from_files[key] = value;
    }
    Node merged = Node::Map(files->mark);
    for (const auto& [key, value] : from_files) {
      merged.entries.push_back({key, files->mark, Node::String(value, files->mark)});
    }
    if (!from_files.empty()) Overlay(service, "labels", std::move(merged));
  }

  // Puts what the file itself says in `key` over `base`.
  static void Overlay(Node& service, std::string_view key, Node base) {
    if (const Node* written = service.Find(key)) {
      for (const Entry& entry : written->entries) {
        Node& value = base.Set(entry.key, entry.value);
        value.mark = entry.value.mark;
      }
    }
    service.Set(key, std::move(base));
  }

  // Links, shared namespaces and volumes_from depend on the service that they name.
  void AddDependencies(Node& service) {
    std::vector<std::pair<std::string, Node>> implied;
    const auto imply = [&](std::string_view name, bool restart, Mark mark) {
      Node dependency = Node::Map(mark);
      dependency.Set("condition", Node::String("service_started", mark));
      if (restart) dependency.Set("restart", Node::Bool(true, mark));
      dependency.Set("required", Node::Bool(true, mark));
      implied.emplace_back(name, std::move(dependency));
    };
    if (const Node* links = service.Find("links")) {
      for (const Node& link : links->items) {
        imply(SplitLink(link.text).first, true, link.mark);
      }
    }
    for (const std::string_view key : {"network_mode", "ipc", "pid", "uts", "cgroup"}) {
      const Node* mode = service.Find(key);
      if (mode != nullptr && !ServiceReference(mode->text).empty()) {
        imply(ServiceReference(mode->text), true, mode->mark);
      }
    }
    if (const Node* sources = service.Find("volumes_from")) {
      for (const Node& source : sources->items) {
        if (!source.text.starts_with("container:")) {
          imply(source.text.substr(0, source.text.find(':')), false, source.mark);
        }
      }
    }
    if (implied.empty()) return;
    Node* depends_on = service.Find("depends_on");
    if (depends_on == nullptr) depends_on = &service.Set("depends_on", Node::Map(service.mark));
    std::unordered_set<std::string> known;
    for (const Entry& entry : depends_on->entries) known.insert(entry.key);
    for (auto& [name, dependency] : implied) {
      if (!known.insert(name).second) continue;
      const Mark mark = dependency.mark;
      depends_on->entries.push_back({name, mark, std::move(dependency)});
    }
  }

  // --- what parts of the file say of one another

  void CheckService(Entry& entry, const Path& path) {
    Node& service = entry.value;
    const auto error = [&](const Node& at, std::string_view field, std::string message,
                           std::string suggestion = "") {
      report_.Error(at.mark, Path(path, field), std::move(message), std::move(suggestion));
    };
    if (service.Text("image").empty() && service.Find("build") == nullptr &&
        service.Find("provider") == nullptr) {
      report_.Error(entry.mark, path, "expected an image (or build), got none");
    }
    const Node* build = service.Find("build");
    if (build != nullptr) CheckBuild(entry.key, service, *build, path);
    const Node* mode = service.Find("network_mode");
    const Node* networks = service.Find("networks");
    if (mode != nullptr && !mode->text.empty() && networks != nullptr) {
      error(*mode, "network_mode", "expected network_mode or networks, got both");
    }
    CheckReferences(networks, "networks", "network", path);
    if (const Node* name = service.Find("container_name");
        name != nullptr && !IsContainerName(name->text)) {
      error(*name, "container_name",
            StrCat("expected a name of at least two letters, digits and _.-, got ",
                   name->Describe()));
    }
    if (const Node* depends_on = service.Find("depends_on")) {
      for (const Entry& dependency : depends_on->entries) {
        if (report_.full()) return;
        if (names_.contains(dependency.key)) continue;
        const Path depends_path(path, "depends_on");
        report_.Error(dependency.mark, Path(depends_path, dependency.key),
                      StrCat("there is no service \"", dependency.key, "\""),
                      Suggest(dependency.key, root_.Find("services")));
      }
    }
    CheckMounts(service.Find("configs"), "configs", "config", path);
    CheckMounts(service.Find("secrets"), "secrets", "secret", path);
    if (build != nullptr) CheckMounts(build->Find("secrets"), "secrets", "secret", path);
    CheckModels(service.Find("models"), path);
    CheckScale(service, path);
    CheckLimits(service, path);
    CheckTargets(service, path);
    CheckWatches(service, path);
  }

  void CheckBuild(const std::string& name, const Node& service, const Node& build,
                  const Path& path) {
    const Path build_path(path, "build");
    const Node* inline_file = build.Find("dockerfile_inline");
    const Node* file = build.Find("dockerfile");
    if (inline_file != nullptr && file != nullptr) {
      report_.Error(inline_file->mark, build_path,
                    "expected dockerfile or dockerfile_inline, got both");
    }
    const Node* platforms = build.Find("platforms");
    const Node* platform = service.Find("platform");
    if (platforms != nullptr && platform != nullptr &&
        std::none_of(platforms->items.begin(), platforms->items.end(),
                     [&](const Node& item) { return item.text == platform->text; })) {
      report_.Error(platform->mark, Path(path, "platform"),
                    StrCat("expected one of build.platforms, got ", platform->Describe()));
    }
    const Node* contexts = build.Find("additional_contexts");
    if (contexts == nullptr) return;
    const Node* services = root_.Find("services");
    for (const Entry& context : contexts->entries) {
      const std::string_view target = ServiceReference(context.value.text);
      if (target.empty()) continue;
      const Node* other = services->Find(target);
      if (other == nullptr || other->Find("build") == nullptr) {
        report_.Error(context.value.mark, build_path,
                      StrCat("service \"", name, "\" is built with the image of service \"", target,
                             "\", which is not built here"));
      }
    }
  }

  static bool IsContainerName(std::string_view text) {
    const auto first = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    for (std::size_t i = 0; i + 1 < text.size(); ++i) {
      const char next = text[i + 1];
      if (first(text[i]) && (first(next) || next == '_' || next == '.' || next == '-')) return true;
    }
    return false;
  }

  void CheckReferences(const Node* used, std::string_view group, std::string_view word,
                       const Path& path) {
    if (used == nullptr) return;
    const Node* declared = root_.Find(group);
    for (const Entry& entry : used->entries) {
      if (report_.full()) return;
      if (declared != nullptr && declared->Find(entry.key) != nullptr) continue;
      const Path group_path(path, group);
      report_.Error(entry.mark, Path(group_path, entry.key),
                    StrCat("the ", word, " \"", entry.key, "\" is not declared"),
                    Suggestion(entry.key, declared, group));
    }
  }

  void CheckMounts(const Node* mounts, std::string_view group, std::string_view word,
                   const Path& path) {
    if (mounts == nullptr) return;
    const Node* declared = root_.Find(group);
    for (std::size_t i = 0; i < mounts->items.size(); ++i) {
      const Node& mount = mounts->items[i];
      const std::string_view source = mount.Text("source");
      if (declared != nullptr && declared->Find(source) != nullptr) continue;
      const Path group_path(path, group);
      report_.Error(mount.mark, Path(group_path, i),
                    StrCat("the ", word, " \"", source, "\" is not declared"),
                    Suggestion(source, declared, group));
    }
  }

  void CheckModels(const Node* models, const Path& path) {
    if (models == nullptr) return;
    CheckReferences(models, "models", "model", path);
  }

  static std::string Suggestion(std::string_view name, const Node* declared,
                                std::string_view group) {
    const std::string near = Suggest(name, declared);
    return near.empty() ? StrCat("declare it under ", group, " at the top level of the file")
                        : near;
  }

  void CheckScale(Node& service, const Path& path) {
    const Node* scale = service.Find("scale");
    Node* deploy = service.Find("deploy");
    Node* replicas = deploy == nullptr ? nullptr : deploy->Find("replicas");
    for (const Node* count : {scale, static_cast<const Node*>(replicas)}) {
      if (count != nullptr && count->integer < 0) {
        report_.Error(count->mark, Path(path, count == scale ? "scale" : "deploy.replicas"),
                      StrCat("expected 0 or more, got ", count->ToText()));
      }
    }
    if (scale != nullptr && replicas != nullptr && scale->integer != replicas->integer) {
      report_.Error(scale->mark, Path(path, "scale"),
                    StrCat("scale is ", scale->ToText(), " and deploy.replicas is ",
                           replicas->ToText(), "; expected one number"));
    }
    const std::int64_t count = scale != nullptr      ? scale->integer
                               : replicas != nullptr ? replicas->integer
                                                     : 1;
    if (const Node* name = service.Find("container_name"); name != nullptr && count > 1) {
      report_.Error(name->mark, Path(path, "container_name"),
                    StrCat("a container name is for one instance, and ", count, " are wanted"));
    }
    if (scale != nullptr && deploy != nullptr && replicas == nullptr) {
      deploy->Set("replicas", Node::Int(scale->integer, scale->mark));
    }
  }

  void CheckLimits(const Node& service, const Path& path) {
    struct Pair {
      std::string_view field, group, other;
    };
    constexpr std::array<Pair, 4> kPairs{{{"cpus", "limits", "cpus"},
                                          {"mem_limit", "limits", "memory"},
                                          {"mem_reservation", "reservations", "memory"},
                                          {"pids_limit", "limits", "pids"}}};
    const Node* deploy = service.Find("deploy");
    const Node* resources = deploy == nullptr ? nullptr : deploy->Find("resources");
    if (resources == nullptr) return;
    for (const Pair& pair : kPairs) {
      const Node* field = service.Find(pair.field);
      const Node* group = resources->Find(pair.group);
      if (field == nullptr || group == nullptr) continue;
      const Node* other = group->Find(pair.other);
      if (other != nullptr && other->ToText() == field->ToText()) continue;
      report_.Error(
          field->mark, Path(path, pair.field),
          StrCat("it is ", field->ToText(), " and deploy.resources.", pair.group, ".", pair.other,
                 " is ", other == nullptr ? "not set" : other->ToText(), "; expected one value"));
    }
  }

  // Nothing is mounted over another mount.
  void CheckTargets(const Node& service, const Path& path) {
    std::unordered_map<std::string, std::string> targets;
    const auto add = [&](std::string_view target, const Node& at, std::string_view list,
                         std::size_t i) {
      const Path list_path(path, list);
      const Path item_path(list_path, i);
      const auto [found, added] = targets.emplace(target, item_path.ToString());
      if (!added) {
        report_.Error(at.mark, item_path,
                      StrCat("the path \"", target, "\" is already taken by ", found->second));
      }
    };
    if (const Node* tmpfs = service.Find("tmpfs")) {
      for (std::size_t i = 0; i < tmpfs->items.size(); ++i) {
        const Node& item = tmpfs->items[i];
        add(std::string_view(item.text).substr(0, item.text.find(':')), item, "tmpfs", i);
      }
    }
    if (const Node* volumes = service.Find("volumes")) {
      for (std::size_t i = 0; i < volumes->items.size(); ++i) {
        add(volumes->items[i].Text("target"), volumes->items[i], "volumes", i);
      }
    }
  }

  void CheckWatches(const Node& service, const Path& path) {
    const Node* develop = service.Find("develop");
    const Node* watches = develop == nullptr ? nullptr : develop->Find("watch");
    if (watches == nullptr) return;
    for (std::size_t i = 0; i < watches->items.size(); ++i) {
      const Node& watch = watches->items[i];
      const std::string_view action = watch.Text("action");
      if (watch.Text("target").empty() && action != "rebuild" && action != "restart") {
        const Path develop_path(path, "develop");
        const Path watch_path(develop_path, "watch");
        report_.Error(watch.mark, Path(watch_path, i),
                      StrCat("the action ", action, " needs a target, got none"));
      }
    }
  }

  // Services that wait for one another in a circle.
  void CheckCycles(const Node& services) {
    std::unordered_map<std::string_view, const Node*> waits;  // service -> its dependencies
    for (const Entry& entry : services.entries) {
      const Node* depends_on = entry.value.Find("depends_on");
      if (depends_on != nullptr) waits.emplace(entry.key, depends_on);
    }
    // Take away services that wait for nobody left, until none can be taken.
    std::unordered_map<std::string_view, std::vector<std::string_view>> waiting;
    std::unordered_map<std::string_view, std::size_t> open;
    std::vector<std::string_view> free;
    for (const auto& [name, depends_on] : waits) {
      for (const Entry& dependency : depends_on->entries) {
        if (waits.contains(dependency.key)) {
          waiting[dependency.key].push_back(name);
          ++open[name];
        }
      }
      if (open[name] == 0) free.push_back(name);
    }
    while (!free.empty()) {
      const std::string_view done = free.back();
      free.pop_back();
      open.erase(done);
      for (const std::string_view name : waiting[done]) {
        if (const auto left = open.find(name); left != open.end() && --left->second == 0) {
          free.push_back(name);
        }
      }
    }
    // From the first service that is left, follow dependencies that are left until one repeats.
    const Entry* start = nullptr;
    for (const Entry& entry : services.entries) {
      if (start == nullptr && open.contains(entry.key)) start = &entry;
    }
    if (start == nullptr) return;
    std::vector<std::string_view> chain{start->key};
    std::unordered_set<std::string_view> seen{start->key};
    while (true) {
      const Node& depends_on = *waits.at(chain.back());
      const auto next = std::find_if(depends_on.entries.begin(), depends_on.entries.end(),
                                     [&](const Entry& e) { return open.contains(e.key); });
      chain.push_back(next->key);
      if (seen.insert(next->key).second) continue;
      const auto from = std::find(chain.begin(), chain.end(), next->key);
      std::string circle;
      for (auto name = from; name != chain.end(); ++name) {
        if (!circle.empty()) circle += " -> ";
        circle += *name;
      }
      report_.Error(next->mark, StrCat("services.", chain[chain.size() - 2], ".depends_on"),
                    StrCat("services wait for one another in a circle: ", circle));
      return;
    }
  }

  Node& root_;
  const LoadOptions& options_;
  Report& report_;
  Completed completed_;
  std::unordered_set<std::string> names_;  // of the services
};

}  // namespace

std::pair<std::string_view, std::string_view> SplitLink(std::string_view link) {
  const std::size_t cut = link.find(':');
  if (cut == std::string_view::npos || link.find(':', cut + 1) != std::string_view::npos) {
    return {link, link};
  }
  return {link.substr(0, cut), link.substr(cut + 1)};
}

std::string ResolvePath(std::string_view path, const LoadOptions& options) {
  if (path.starts_with('~')) {
    const char* home = std::getenv("HOME");
    if (home == nullptr) return std::string(path);
    return CleanPath(JoinPath(
        home, path.substr(path.find_first_not_of("~/") == kNpos ? path.size()
                                                                : path.find_first_not_of("~/"))));
  }
  if (path.starts_with('/')) return std::string(path);
  return CleanPath(JoinPath(options.project_dir, path));
}

absl::StatusOr<std::string> ReadProjectFile(const std::string& path, const LoadOptions& options) {
  if (!options.allow_files) {
    return absl::InvalidArgumentError(
        StrCat("the file ", path, " cannot be read: only the template itself is sent"));
  }
  const std::string clean = CleanPath(path);
  if (!clean.starts_with(options.project_dir == "/" ? "/" : StrCat(options.project_dir, "/"))) {
    return absl::InvalidArgumentError(
        StrCat("the file ", path, " lies outside of the template's directory"));
  }
  return ReadFile(clean, kMaxTemplateBytes);
}

Completed Complete(Node& root, const LoadOptions& options, Report& report) {
  return Completer(root, options, report).Run();
}

bool IsVersion1(const Node& root) {
  if (!root.is_map() || root.Find("services") != nullptr || root.entries.empty()) return false;
  const Node* version = root.Find("version");
  if (version != nullptr && version->ToText() != "1") return false;
  const auto& top = TopLevelFields();
  const auto& fields = ServiceFields();
  bool any = false;
  for (const Entry& entry : root.entries) {
    if (entry.key == "version" || entry.key.starts_with("x-")) continue;
    if (std::find(top.begin(), top.end(), entry.key) != top.end() || entry.key == "include") {
      return false;
    }
    // A service has at least one field of a service; else this is an unknown top-level field.
    if (!entry.value.is_map() ||
        std::none_of(entry.value.entries.begin(), entry.value.entries.end(),
                     [&](const Entry& field) {
                       return field.key == "net" || field.key == "extends" ||
                              std::find(fields.begin(), fields.end(), field.key) != fields.end();
                     })) {
      return false;
    }
    any = true;
  }
  return any;
}

void FromVersion1(Node& root) {
  Node services = Node::Map(root.mark);
  Node result = Node::Map(root.mark);
  for (Entry& entry : root.entries) {
    if (entry.key == "version" || entry.key.starts_with("x-")) {
      result.entries.push_back(std::move(entry));
      continue;
    }
    Node& service = entry.value;
    for (Entry& field : service.entries) {
      if (field.key == "net") field.key = "network_mode";
      // net: "container:web" shares the network of the service web.
      constexpr std::string_view kContainer = "container:";
      if (field.key == "network_mode" && field.value.text.starts_with(kContainer)) {
        field.value.text = StrCat("service:", field.value.text.substr(kContainer.size()));
      }
    }
    const auto move_into = [&](std::string_view field, std::string_view group,
                               std::string_view name) {
      Node* found = service.Find(field);
      if (found == nullptr) return;
      Node value = std::move(*found);
      const Mark mark = value.mark;
      service.Erase(field);
      Node* target = service.Find(group);
      if (target == nullptr) target = &service.Set(group, Node::Map(mark));
      if (target->is_string()) {
        Node map = Node::Map(target->mark);
        map.Set("context", std::move(*target));
        *target = std::move(map);
      }
      target->Set(name, std::move(value));
    };
    move_into("log_driver", "logging", "driver");
    move_into("log_opt", "logging", "options");
    move_into("dockerfile", "build", "dockerfile");
    services.entries.push_back(std::move(entry));
  }
  result.Set("services", std::move(services));
  root = std::move(result);
}

}  // namespace takt::templates
