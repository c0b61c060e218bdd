#include "operate/models.h"

#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"

namespace takt::operate {
namespace {

constexpr std::string_view kBasePathFlag = "--model_base_path";
constexpr std::string_view kModelNameFlag = "--model_name";
constexpr std::string_view kConfigFileFlag = "--model_config_file";
constexpr std::size_t kMaxConfigBytes = 1 << 20;

// `path`, of an instance, by the mount with the longest target that holds it.
std::optional<Model> Locate(const templates::ServiceSpec& service, storage::VolumeStore& volumes,
                            std::string_view path) {
  if (!path.starts_with('/')) return std::nullopt;
  const std::string clean = CleanPath(path);
  const templates::Mount* best = nullptr;
  std::size_t longest = 0;
  for (const templates::Mount& mount : service.mounts) {
    const std::string target = CleanPath(mount.target);
    if (mount.kind == templates::Mount::Kind::kTmpfs || mount.source.empty()) continue;
    if (clean != target && !clean.starts_with(target == "/" ? target : target + "/")) continue;
    if (best != nullptr && target.size() <= longest) continue;
    best = &mount;
    longest = target.size();
  }
  if (best == nullptr) return std::nullopt;
  std::string_view rest = std::string_view(clean).substr(std::min(longest, clean.size()));
  while (rest.starts_with('/')) rest.remove_prefix(1);
  Model model;
  if (best->kind == templates::Mount::Kind::kBind) {
    model.directory = CleanPath(JoinPath(best->source, rest));
    model.path = model.directory;
  } else {
    const auto root = volumes.Resolve(best->source, best->subdirectory);
    if (!root.ok()) return std::nullopt;
    model.volume = best->source;
    model.directory = rest.empty() ? *root : JoinPath(*root, rest);
    model.path = rest.empty() ? best->subdirectory : JoinPath(best->subdirectory, rest);
  }
  const auto slash = clean.rfind('/');
  model.name = clean.substr(slash + 1);
  return model;
}

// The command as words, those of a shell's line too.
std::vector<std::string> Words(const templates::ServiceSpec& service) {
  std::vector<std::string> words;
  for (const auto* part : {&service.entrypoint, &service.command}) {
    if (!part->has_value()) continue;
    for (const std::string& argument : **part) {
      for (absl::string_view word : absl::StrSplit(argument, absl::ByAnyChar(" \t\n"))) {
        if (!word.empty()) words.emplace_back(word);
      }
    }
  }
  return words;
}

// The value of --flag=value or --flag value; "" where it is not given.
std::string Flag(const std::vector<std::string>& words, std::string_view flag) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == flag && i + 1 < words.size()) return words[i + 1];
    if (word.starts_with(flag) && word.size() > flag.size() && word[flag.size()] == '=') {
      return std::string(word.substr(flag.size() + 1));
    }
  }
  return "";
}

// What the service sees at `path`; "" where that cannot be read here.
std::string ConfigText(const templates::ServiceSpec& service, storage::VolumeStore& volumes,
                       const std::string& path) {
  const auto config = service.files.find(path);
  if (config != service.files.end()) return config->second;
  const auto file = Locate(service, volumes, path);
  if (!file) return "";
  auto text = ReadFile(file->directory, kMaxConfigBytes);
  return text.ok() ? *std::move(text) : "";
}

struct ConfiguredModel {
  std::string name, base_path;
  std::vector<std::int64_t> versions;
};

// The models of a ModelServerConfig in protobuf's text format, with the versions asked for. Only
// the fields that matter here are looked at: `config`, `name`, `base_path`, `versions`.
std::vector<ConfiguredModel> ReadModelConfig(const std::string& text) {
  std::vector<std::string> tokens;  // words, and quoted texts without their quotes
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '#') {
      i = std::min(text.find('\n', i), text.size());
    } else if (c == '"' || c == '\'') {
      const std::size_t end = std::min(text.find(c, i + 1), text.size());
      tokens.push_back(text.substr(i + 1, end - i - 1));
      i = end + 1;
    } else if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_') {
      std::size_t end = i;
      while (end < text.size() &&
             (absl::ascii_isalnum(static_cast<unsigned char>(text[end])) || text[end] == '_')) {
        ++end;
      }
      tokens.push_back(text.substr(i, end - i));
      i = end;
    } else {
      ++i;
    }
  }
  std::vector<ConfiguredModel> configs;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] == "config") configs.emplace_back();
    if (configs.empty() || i + 1 == tokens.size()) continue;
    if (tokens[i] == "name" && configs.back().name.empty()) configs.back().name = tokens[i + 1];
    if (tokens[i] == "base_path") configs.back().base_path = tokens[i + 1];
    std::int64_t version = 0;
    // Both `versions: 1 versions: 2` and `versions: [1, 2]`.
    for (std::size_t next = i + 1; tokens[i] == "versions" && next < tokens.size() &&
                                   absl::SimpleAtoi(tokens[next], &version);
         ++next) {
      configs.back().versions.push_back(version);
    }
  }
  return configs;
}

}  // namespace

std::optional<Model> MadeBy(const templates::ServiceSpec& service, storage::VolumeStore& volumes) {
  if (!service.model.empty()) {
    auto model = Locate(service, volumes, service.model_path);
    if (model) model->name = service.model;
    return model;
  }
  const std::vector<std::string> words = Words(service);
  if (words.empty() || !words.back().starts_with('/')) return std::nullopt;
  return Locate(service, volumes, words.back());
}

std::vector<Loaded> LoadedBy(const templates::ServiceSpec& service, storage::VolumeStore& volumes) {
  std::vector<Loaded> loaded;
  const std::vector<std::string> words = Words(service);
  const auto add = [&](std::string_view path, std::vector<std::int64_t> versions,
                       std::string name) {
    auto model = Locate(service, volumes, path);
    if (model) loaded.push_back({*std::move(model), std::move(versions), std::move(name)});
  };
  const std::string file = Flag(words, kConfigFileFlag);
  if (!file.empty()) {
    for (ConfiguredModel& each : ReadModelConfig(ConfigText(service, volumes, file))) {
      add(each.base_path, std::move(each.versions), std::move(each.name));
    }
  } else {
    const auto variable = [&](const char* name, const char* fallback) {
      const auto it = service.environment.find(name);
      return it == service.environment.end() || it->second.empty() ? std::string(fallback)
                                                                   : it->second;
    };
    const std::string path = Flag(words, kBasePathFlag);
    const std::string name = Flag(words, kModelNameFlag);
    const std::string usual = variable("MODEL_NAME", path.empty() ? "model" : "default");
    add(path.empty() ? JoinPath(variable("MODEL_BASE_PATH", "/models"), usual) : path, {},
        name.empty() ? usual : name);
  }
  if (loaded.size() == 1 && !service.serves.empty()) loaded[0].model.name = service.serves;
  return loaded;
}

std::vector<Version> ListVersions(const std::string& directory) {
  std::vector<Version> versions;
  const auto names = ListDir(directory);
  if (!names.ok()) return versions;
  for (const std::string& name : *names) {
    Version version;
    if (name.empty() || !std::all_of(name.begin(), name.end(), absl::ascii_isdigit) ||
        !absl::SimpleAtoi(name, &version.number)) {
      continue;
    }
    const std::string path = JoinPath(directory, name);
    struct stat about {};
    if (stat(path.c_str(), &about) != 0 || !S_ISDIR(about.st_mode)) continue;
    struct stat graph {};
    version.complete = stat(JoinPath(path, "saved_model.pb").c_str(), &graph) == 0;
    const timespec& when = version.complete ? graph.st_mtim : about.st_mtim;
    version.modified_ns = when.tv_sec * 1'000'000'000LL + when.tv_nsec;
    versions.push_back(version);
  }
  std::sort(versions.begin(), versions.end(),
            [](const Version& a, const Version& b) { return a.number < b.number; });
  if (versions.size() > kMaxVersions) {
    versions.erase(versions.begin(), versions.end() - static_cast<std::ptrdiff_t>(kMaxVersions));
  }
  return versions;
}

}  // namespace takt::operate
