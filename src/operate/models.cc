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

std::optional<Model> LoadedBy(const templates::ServiceSpec& service,
                              storage::VolumeStore& volumes) {
  const auto variable = [&](const char* name, const std::string& fallback) {
    const auto it = service.environment.find(name);
    return it == service.environment.end() || it->second.empty() ? fallback : it->second;
  };
  std::string path =
      JoinPath(variable("MODEL_BASE_PATH", "/models"), variable("MODEL_NAME", "model"));
  const std::vector<std::string> words = Words(service);
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i];
    if (word == kBasePathFlag && i + 1 < words.size()) path = words[i + 1];
    if (word.starts_with(kBasePathFlag) && word.size() > kBasePathFlag.size() &&
        word[kBasePathFlag.size()] == '=') {
      path = std::string(word.substr(kBasePathFlag.size() + 1));
    }
  }
  auto model = Locate(service, volumes, path);
  if (model && !service.serves.empty()) model->name = service.serves;
  return model;
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
