// Text for people: suggestions for a near miss, sizes; and text from others made valid.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace takt {

// The candidate nearest to `word`, where one is near enough to be what was meant: at most a third
// of its letters changed, inserted, removed or swapped with a neighbour, letter case aside
// (Damerau-Levenshtein, restricted).
std::optional<std::string> NearMiss(std::string_view word,
                                    const std::vector<std::string_view>& candidates);

// "1.5 GiB", "12 KiB", "640 B".
std::string FormatBytes(std::uint64_t bytes);

// Length of the UTF-8 sequence that `text` (not empty) begins with; 0 where it begins with none:
// overlong forms, surrogates and what lies beyond U+10FFFF are none.
std::size_t Utf8Length(std::string_view text);
// `text` with each byte that belongs to no UTF-8 sequence replaced by U+FFFD.
std::string ValidUtf8(std::string_view text);

}  // namespace takt
