// takt-shim: supervises one instance (run), is the first process of its sandbox (init), or runs a
// health check inside it (enter). Started by the daemon, not by people.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/shim/process.h"
#include "runtime/shim/remap.h"
#include "runtime/shim/shim.h"

int main(int argc, char** argv) {
  using namespace takt::runtime::shim;
  if (argc == 3 && std::strcmp(argv[1], "run") == 0) return RunShim(argv[2]);
  if (argc == 4 && std::strcmp(argv[1], "init") == 0) {
    return RunInit(std::atoi(argv[2]), std::atoi(argv[3]));
  }
  if (argc >= 5 && std::strcmp(argv[1], "enter") == 0 && std::strcmp(argv[3], "--") == 0) {
    return RunEnter(argv[2], argv + 4);
  }
  // Whether a sandbox can be made, and whether ports can be an instance's own.
  if (argc == 2 && std::strcmp(argv[1], "probe") == 0) return 0;
  if (argc == 2 && std::strcmp(argv[1], "probe-ports") == 0) return InstallPortFilter() < 0;
  std::fprintf(stderr,
               "takt-shim is started by `takt daemon`: run DIRECTORY | enter PID -- COMMAND\n");
  return 2;
}
