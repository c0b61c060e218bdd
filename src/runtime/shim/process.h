// Becoming the program of an instance, and the first process of a sandbox.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "runtime/shim/launch.h"

namespace takt::runtime::shim {

// Shim and init talk over one SOCK_SEQPACKET socket. From init to shim:
struct Report {
  enum Kind : int { kStarted, kFailed, kEnded, kPortFilter };
  Kind kind = kStarted;
  int value = 0;   // kFailed: errno; kEnded: wait status
  char stage = 0;  // kFailed: see StageText
  // kPortFilter brings the descriptor of InstallPortFilter along.
};
// From shim to init: int, the signal to send to the program; SIGKILL ends the whole sandbox.

// "working directory \"/x\"", "program \"python\"", ...
std::string StageText(const Launch& launch, char stage);

// Forks and starts the program, with standard output and error as they are and /dev/null as input;
// the child calls `first` before anything else. The child's pid, or -1 with `failed` set (value,
// stage) when it could not be started. `port_filter`: see InstallPortFilter; -1 where the launch
// does not ask for it or the kernel refuses.
pid_t StartProgram(const Launch& launch, Report& failed, int& port_filter,
                   const std::function<void()>& first);

// Sends and receives a report with a descriptor, -1 for none, over a SOCK_SEQPACKET socket.
bool SendReport(int socket, const Report& report, int fd);
// Bytes received, 0 when the other side closed, -1 with errno.
ssize_t ReceiveReport(int socket, Report& report, int& fd, int flags);

// Body of `takt-shim init`, pid 1 of a sandbox: starts the program, forwards signals, reaps.
// `socket` talks to the shim; when that dies, everything in the sandbox does.
int RunInit(int launch_fd, int socket);

}  // namespace takt::runtime::shim
