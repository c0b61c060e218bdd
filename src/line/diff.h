// Differences for people: of texts as a unified diff, of structured values by path. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "line/line.h"

namespace takt::line {

// Texts that differ in more lines than this are shown as one whole replaced by the other.
inline constexpr int kMaxDiffEdits = 1000;

// `diff -u` with three lines of context; "" when the texts are equal.
std::string UnifiedDiff(std::string_view before, std::string_view after,
                        std::string_view before_name, std::string_view after_name);

// A structured value as paths and values, in the order in which people read them; no path twice.
using Flat = std::vector<std::pair<std::string, std::string>>;

// What is different, in the order of `after`, then what was removed in the order of `before`.
std::vector<Change> DiffFlat(const Flat& before, const Flat& after);

// "values.VERSION", "volumes.m.subdirectory", and "template" (its number of lines) where the text
// changed.
std::vector<Change> DiffConfigurations(const Configuration& before, const Configuration& after);

}  // namespace takt::line
