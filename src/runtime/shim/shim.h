// The supervisor of one instance: starts it, writes its log and its end to the disk, stops it when
// asked. It outlives the daemon; when it dies itself, the instance does.
#pragma once

namespace takt::runtime::shim {

// Body of `takt-shim run DIRECTORY`: until the instance has ended. The exit code matters to nobody.
int RunShim(const char* directory);

// Body of `takt-shim enter PID -- PROGRAM ARGUMENT...`: runs a program in the namespaces, the
// environment's directory and the root of process PID, for health checks. 126 when it cannot.
int RunEnter(const char* pid, char** arguments);

}  // namespace takt::runtime::shim
