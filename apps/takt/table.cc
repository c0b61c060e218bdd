#include "table.h"

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace takt::cli {
namespace {

// Cells that `text` takes on a terminal; a colour sequence (ESC [ ... m) takes none. A sequence of
// three bytes from U+2E80 on, or of four, is taken to be wide: that is right for what names and
// messages here hold (CJK).
std::size_t Width(std::string_view text) {
  std::size_t width = 0;
  bool in_sequence = false;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0x1B) in_sequence = true;
    if (in_sequence) {
      in_sequence = c != 'm';
      continue;
    }
    if ((byte & 0xC0) == 0x80) continue;
    width += byte >= 0xE3 ? 2 : 1;
  }
  return width;
}

}  // namespace

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - Width(row[i]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line;
    out += '\n';
  }
  return out;
}

}  // namespace takt::cli
