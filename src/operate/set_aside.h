// A store whose file is damaged must not keep the daemon from starting.
#pragma once

#include <cstdio>
#include <string>

#include "base/clock.h"
#include "base/status.h"

namespace takt::operate {

// What `open` gives. Where it says DATA_LOSS, the file (with its -wal and -shm) is kept under a
// name that says so, with a warning, and `open` is asked again: nothing is thrown away.
template <typename Open>
auto OpenOrSetAside(const std::string& path, const Clock& clock, Open open) -> decltype(open()) {
  auto store = open();
  if (!absl::IsDataLoss(store.status())) return store;
  const std::string aside = StrCat(path, ".damaged-", FormatRfc3339(clock.Now()));
  if (std::rename(path.c_str(), aside.c_str()) != 0) return store;
  for (const char* suffix : {"-wal", "-shm"}) {
    std::rename((path + suffix).c_str(), (aside + suffix).c_str());
  }
  std::fprintf(stderr, "takt: warning: %s; it is kept as %s and a new one is begun\n",
               std::string(store.status().message()).c_str(), aside.c_str());
  return open();
}

}  // namespace takt::operate
