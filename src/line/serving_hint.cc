#include "line/serving_hint.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/ascii.h"
#include "base/fs.h"

namespace takt::line {
namespace {

constexpr std::string_view kFlag = "--model_base_path";

// The value of --model_base_path in these words; "" when there is none.
std::string BasePath(const std::vector<std::string>& words) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i].starts_with(std::string(kFlag) + "=")) return words[i].substr(kFlag.size() + 1);
    if (words[i] == kFlag && i + 1 < words.size()) return words[i + 1];
  }
  return "";
}

bool IsVersion(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), absl::ascii_isdigit);
}

std::set<std::string> Directories(const std::string& path) {
  std::set<std::string> names;
  std::error_code code;
  std::filesystem::directory_iterator it(path, code);
  for (; !code && it != std::filesystem::directory_iterator() && names.size() < kMaxListed;
       it.increment(code)) {
    std::error_code ignored;
    if (it->is_directory(ignored)) names.insert(it->path().filename().string());
  }
  return names;
}

}  // namespace

std::optional<ServedDirectory> FindServedDirectory(const runtime::ServiceSpec& spec,
                                                   const std::vector<MountSource>& sources) {
  std::string base = BasePath(spec.command.value_or(std::vector<std::string>{}));
  if (base.empty()) base = BasePath(spec.entrypoint.value_or(std::vector<std::string>{}));
  if (base.empty() || base.front() != '/') return std::nullopt;
  base = CleanPath(base);
  std::optional<ServedDirectory> best;
  std::size_t best_length = 0;
  for (std::size_t i = 0; i < spec.mounts.size() && i < sources.size(); ++i) {
    const std::string target = CleanPath(spec.mounts[i].target);
    if (spec.mounts[i].volume.empty() || target.size() < best_length) continue;
    if (base != target && !base.starts_with(target == "/" ? "/" : target + "/")) continue;
    best_length = target.size();
    std::string below = base == target ? "" : base.substr(target == "/" ? 1 : target.size() + 1);
    std::string subdirectory = sources[i].subdirectory;
    if (!below.empty()) subdirectory = JoinPath(subdirectory, below);
    best = ServedDirectory{base, spec.mounts[i].volume, subdirectory, below.empty()};
  }
  return best;
}

Listing ListTwoLevels(const std::string& path) {
  Listing listing;
  for (const std::string& name : Directories(path)) {
    listing[name] = IsVersion(name) ? std::set<std::string>() : Directories(JoinPath(path, name));
  }
  return listing;
}

std::optional<ServingHint> FindServingHint(const std::string& base_path, const Listing& listing) {
  std::string best;
  std::ptrdiff_t best_count = 0;
  for (const auto& [name, below] : listing) {
    if (IsVersion(name)) return std::nullopt;
    std::ptrdiff_t count = std::count_if(below.begin(), below.end(), IsVersion);
    if (count > best_count) best = name, best_count = count;
  }
  if (best_count == 0) return ServingHint{StrCat("no version under ", base_path, " yet"), ""};
  return ServingHint{StrCat("no version under ", base_path, "; found ", best_count, " under ",
                            JoinPath(base_path, best), ": did you mean that?"),
                     best};
}

}  // namespace takt::line
