// The web console's files, built into the program. Plain constants; any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace takt::console {

struct File {
  std::string_view path;          // "index.html", "assets/index-3f2a.js"
  std::string_view content_type;  // "text/html; charset=utf-8"
  std::string_view etag;          // of the content, without quotes
  std::size_t bytes = 0;          // unpacked
  std::string_view gzip;          // the content, gzip'd
  // Names under assets/ carry a hash of their content: what was fetched once never changes.
  bool immutable() const { return path.starts_with("assets/"); }
};

// All files, by path. Routes of the console lie behind '#', so every page is index.html.
std::span<const File> Files();

// The file, or nullptr.
const File* Find(std::string_view path);

// Headers under which the console works and a hostile name or log line can run no script.
inline constexpr std::string_view kContentSecurityPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'";

}  // namespace takt::console
