// Debian builds Abseil with its own absl::string_view, distinct from std::string_view. Our
// interfaces use std::string_view; these two bridge the gap.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace takt {

inline absl::string_view ToAbsl(std::string_view v) { return {v.data(), v.size()}; }
inline std::string_view ToStd(absl::string_view v) { return {v.data(), v.size()}; }

namespace internal {
template <typename T>
decltype(auto) StrCatArgument(const T& value) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    return ToAbsl(value);
  } else {
    return (value);
  }
}
}  // namespace internal

// absl::StrCat that takes std::string_view too.
template <typename... Args>
std::string StrCat(const Args&... args) {
  return absl::StrCat(internal::StrCatArgument(args)...);
}

}  // namespace takt
