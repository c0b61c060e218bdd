#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace takt {

// `length` characters of [a-z0-9], from the system's random source.
std::string RandomId(std::size_t length);

// True for the names that apps, volumes and services may have: 1 to 63 characters of
// [a-z0-9A-Z_.-], the first a letter or a digit. So a name is always one safe path segment.
bool IsValidName(std::string_view name);

}  // namespace takt
