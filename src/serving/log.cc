#include "serving/log.h"

#include <unistd.h>

#include <chrono>
#include <string>

#include "base/clock.h"
#include "base/str.h"

namespace takt::serving {

void Log(LogLevel level, std::string_view message) {
  const char* name = level == LogLevel::kInfo      ? " INFO  "
                     : level == LogLevel::kWarning ? " WARN  "
                                                   : " ERROR ";
  std::string line = StrCat(FormatRfc3339(std::chrono::system_clock::now()), name, message, "\n");
  for (std::size_t i = 0; i + 1 < line.size(); ++i) {
    if (line[i] == '\n' || line[i] == '\r') line[i] = ' ';
  }
  // A log that cannot be written has nowhere to be reported.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace takt::serving
