// What people see: colours (on a terminal only), ages, a diff, a question.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "api.h"

namespace takt::cli {

enum class Style { kGood, kBusy, kBad, kDim, kBold };

// `text` in a style, where standard output is a terminal and NO_COLOR is not set.
std::string Paint(Style style, std::string_view text);
// `text` of others as it may stand on a terminal: colour sequences are left out, every other
// control character but tab and newline is shown (\x1b), and so are characters that turn the
// direction of writing. Whoever writes a log line could otherwise write to the reader's terminal.
std::string ForTerminal(std::string_view text);
// The name of an app's or an instance's state, in its colour.
std::string PaintState(std::string_view state);

// "42s", "5m", "3h", "12d": from an RFC 3339 time until `now`; "-" for null or no time.
std::string Age(const Json& time, std::chrono::system_clock::time_point now);

// One line of a Preview's or ServicePlan's changes: "~ values.VERSION: 1 -> 2".
std::string ChangeLine(const Json& change);
// All that a Preview says: changes, template diff, what happens to which service.
void PrintPreview(const Json& preview);
// Warnings of a template, a line each, on standard error; its errors come with the refusal.
void PrintWarnings(const Json& issues);

// Asks on the terminal; true for y or yes. INVALID_ARGUMENT, naming --yes, where nobody can answer.
absl::StatusOr<bool> Ask(std::string_view question);

void PrintJson(const Json& json);

}  // namespace takt::cli
