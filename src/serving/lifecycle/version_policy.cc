#include "serving/lifecycle/version_policy.h"

#include <algorithm>
#include <charconv>

namespace takt::serving {

std::optional<std::int64_t> ParseVersion(std::string_view directory_name) {
  if (directory_name.empty() || directory_name.front() < '0' || directory_name.front() > '9') {
    return std::nullopt;
  }
  std::int64_t version = 0;
  const char* end = directory_name.data() + directory_name.size();
  const auto [stop, error] = std::from_chars(directory_name.data(), end, version);
  if (error != std::errc() || stop != end) return std::nullopt;
  return version;
}

std::vector<std::int64_t> PickVersions(const VersionPolicy& policy,
                                       const std::vector<std::int64_t>& candidates) {
  std::vector<std::int64_t> picked = candidates;
  std::sort(picked.begin(), picked.end(), std::greater<>());
  picked.erase(std::unique(picked.begin(), picked.end()), picked.end());
  switch (policy.kind) {
    case VersionPolicy::Kind::kLatest:
      if (picked.size() > static_cast<std::size_t>(policy.num_versions)) {
        picked.resize(static_cast<std::size_t>(policy.num_versions));
      }
      break;
    case VersionPolicy::Kind::kAll:
      break;
    case VersionPolicy::Kind::kSpecific:
      std::erase_if(picked, [&](std::int64_t version) {
        return std::find(policy.specific.begin(), policy.specific.end(), version) ==
               policy.specific.end();
      });
      break;
  }
  return picked;
}

VersionPlan PlanVersions(const VersionPolicy& policy,
                         const std::map<std::int64_t, VersionView>& versions, bool removed) {
  VersionPlan plan;
  std::vector<std::int64_t> candidates;
  for (const auto& [version, view] : versions) {
    const bool loadable = view.complete && (view.failed ? view.due : true) &&
                          (view.state == VersionState::kStart || view.state == VersionState::kEnd);
    if (view.present && (loadable || view.state == VersionState::kLoading ||
                         view.state == VersionState::kAvailable)) {
      candidates.push_back(version);
    }
  }
  std::vector<std::int64_t> wanted;
  if (!removed) wanted = PickVersions(policy, candidates);
  const auto is_wanted = [&](std::int64_t version) {
    return std::find(wanted.begin(), wanted.end(), version) != wanted.end();
  };
  bool wanted_serves = removed;
  for (const std::int64_t version : wanted) {
    const VersionState state = versions.at(version).state;
    if (state == VersionState::kStart || state == VersionState::kEnd) plan.load.push_back(version);
    if (state == VersionState::kAvailable) wanted_serves = true;
  }
  for (auto it = versions.rbegin(); it != versions.rend(); ++it) {
    if (it->second.state == VersionState::kAvailable && !is_wanted(it->first) && wanted_serves) {
      plan.unload.push_back(it->first);
    }
  }
  return plan;
}

}  // namespace takt::serving
