// A table for people: columns as wide as their widest cell, two spaces between.
#pragma once

#include <string>
#include <vector>

namespace takt::cli {

// Rows of cells, the first row the header; a row may be shorter than the header. Widths count
// characters, of which the wide ones of East Asian scripts take two cells. No trailing spaces; ends
// with a newline.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace takt::cli
