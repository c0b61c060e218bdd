// gzip, bounded.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"

namespace takt {

// INVALID_ARGUMENT for what is not gzip, or inflates beyond `max_bytes`.
absl::StatusOr<std::string> Gunzip(std::string_view data, std::size_t max_bytes);
std::string Gzip(std::string_view data);

}  // namespace takt
