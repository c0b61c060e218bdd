#include "line/diff.h"

#include <algorithm>
#include <map>

#include "base/str.h"

namespace takt::line {
namespace {

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    std::size_t end = text.find('\n');
    std::size_t length = end == std::string_view::npos ? text.size() : end + 1;
    lines.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return lines;
}

enum class Edit { kKeep, kDelete, kInsert };

// The shortest edit script (E. Myers, "An O(ND) Difference Algorithm", 1986, the greedy form).
std::vector<Edit> Script(const std::vector<std::string_view>& a,
                         const std::vector<std::string_view>& b) {
  const int n = static_cast<int>(a.size()), m = static_cast<int>(b.size());
  // reached[k + d]: how far into `a` the best path with d edits goes on diagonal k = x - y.
  std::vector<std::vector<int>> trace;
  std::vector<int> v(2 * kMaxDiffEdits + 3, 0);
  const int middle = kMaxDiffEdits + 1;
  int found = -1;
  for (int d = 0; d <= std::min(n + m, kMaxDiffEdits) && found < 0; ++d) {
    for (int k = -d; k <= d; k += 2) {
      bool down = k == -d || (k != d && v[middle + k - 1] < v[middle + k + 1]);
      int x = down ? v[middle + k + 1] : v[middle + k - 1] + 1;
      while (x < n && x - k < m && a[x] == b[x - k]) ++x;
      v[middle + k] = x;
      if (x >= n && x - k >= m) found = d;
    }
    trace.emplace_back(v.begin() + middle - d, v.begin() + middle + d + 1);
  }
  std::vector<Edit> edits;
  if (found < 0) {
    edits.assign(n, Edit::kDelete);
    edits.insert(edits.end(), m, Edit::kInsert);
    return edits;
  }
  int x = n, y = m;
  for (int d = found; d > 0; --d) {
    const std::vector<int>& before = trace[d - 1];
    auto reach = [&](int k) { return std::abs(k) > d - 1 ? -1 : before[k + d - 1]; };
    int k = x - y;
    bool down = k == -d || (k != d && reach(k - 1) < reach(k + 1));
    int from_k = down ? k + 1 : k - 1;
    int from_x = reach(from_k), from_y = from_x - from_k;
    while (x > from_x + (down ? 0 : 1) && y > from_y + (down ? 1 : 0)) {
      edits.push_back(Edit::kKeep);
      --x, --y;
    }
    edits.push_back(down ? Edit::kInsert : Edit::kDelete);
    x = from_x, y = from_y;
  }
  edits.insert(edits.end(), x, Edit::kKeep);
  std::reverse(edits.begin(), edits.end());
  return edits;
}

std::string Range(int start, int count) {
  if (count == 1) return StrCat(start + 1);
  return StrCat(count == 0 ? start : start + 1, ",", count);
}

void AppendLine(std::string& out, char mark, std::string_view line) {
  out += mark;
  out += line;
  if (!line.ends_with('\n')) out += "\n\\ No newline at end of file\n";
}

}  // namespace

std::string UnifiedDiff(std::string_view before, std::string_view after,
                        std::string_view before_name, std::string_view after_name) {
  if (before == after) return "";
  constexpr int kContext = 3;
  std::vector<std::string_view> a = Lines(before), b = Lines(after);
  std::vector<Edit> edits = Script(a, b);
  std::string out = StrCat("--- ", before_name, "\n+++ ", after_name, "\n");
  const int total = static_cast<int>(edits.size());
  int x = 0, y = 0;  // lines of a and b before edits[at]
  for (int at = 0; at < total;) {
    if (edits[at] == Edit::kKeep) {
      ++at, ++x, ++y;
      continue;
    }
    // A hunk: from kContext before this edit until more than 2 * kContext lines are kept.
    int lead = std::min({kContext, x, y});
    int end = at, kept = 0;
    for (int i = at; i < total && kept <= 2 * kContext; ++i) {
      kept = edits[i] == Edit::kKeep ? kept + 1 : 0;
      if (kept == 0) end = i + 1;
    }
    int tail = std::min(kContext, total - end);
    int start_x = x - lead, start_y = y - lead;
    std::string body;
    for (int i = start_x; i < x; ++i) AppendLine(body, ' ', a[i]);
    for (; at < end + tail; ++at) {
      if (edits[at] == Edit::kDelete) {
        AppendLine(body, '-', a[x++]);
      } else if (edits[at] == Edit::kInsert) {
        AppendLine(body, '+', b[y++]);
      } else {
        AppendLine(body, ' ', a[x]);
        ++x, ++y;
      }
    }
    out += StrCat("@@ -", Range(start_x, x - start_x), " +", Range(start_y, y - start_y), " @@\n",
                  body);
  }
  return out;
}

std::vector<Change> DiffFlat(const Flat& before, const Flat& after) {
  std::map<std::string_view, std::string_view> old_values, new_values;
  for (const auto& [path, value] : before) old_values[path] = value;
  for (const auto& [path, value] : after) new_values[path] = value;
  std::vector<Change> changes;
  for (const auto& [path, value] : after) {
    auto it = old_values.find(path);
    if (it == old_values.end()) {
      changes.push_back({Change::Kind::kAdded, path, "", value});
    } else if (it->second != value) {
      changes.push_back({Change::Kind::kChanged, path, std::string(it->second), value});
    }
  }
  for (const auto& [path, value] : before) {
    if (!new_values.contains(path)) {
      changes.push_back({Change::Kind::kRemoved, path, value, ""});
    }
  }
  return changes;
}

std::vector<Change> DiffConfigurations(const Configuration& before, const Configuration& after) {
  auto flatten = [](const Configuration& configuration) {
    Flat flat;
    for (const auto& [name, value] : configuration.values) {
      flat.emplace_back("values." + name, value);
    }
    for (const auto& [name, option] : configuration.volume_options) {
      // An option that says nothing is none.
      if (option == VolumeOption{}) continue;
      flat.emplace_back("volumes." + name + ".subdirectory", option.subdirectory);
    }
    return flat;
  };
  std::vector<Change> changes = DiffFlat(flatten(before), flatten(after));
  if (before.template_text != after.template_text) {
    auto lines = [](const std::string& text) { return StrCat(Lines(text).size(), " lines"); };
    changes.push_back({before.template_text.empty() ? Change::Kind::kAdded : Change::Kind::kChanged,
                       "template", before.template_text.empty() ? "" : lines(before.template_text),
                       lines(after.template_text)});
  }
  return changes;
}

}  // namespace takt::line
