// Gives an instance ports of its own although it shares the machine's network: its bind() and
// connect() calls are handed to the shim (seccomp user notification), which carries them out on the
// instance's socket, where needed at a loopback address that is this instance's alone. So several
// replicas can each listen on "port 8500", and a port published elsewhere is not also open at its
// own number. What passes through a connection never comes here.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>

#include "runtime/shim/launch.h"

namespace takt::runtime::shim {

// In the process that will become the program: from now on its bind and connect calls wait for
// whoever reads the returned descriptor. -1 where the kernel cannot.
int InstallPortFilter();

class Remapper {
 public:
  // Takes a loopback address at which `launch`'s ports are free.
  explicit Remapper(const Launch& launch);
  // Of this instance, "127.64.0.1"; also where nothing was moved to it.
  const std::string& address() const { return address_text_; }
  // Answers one waiting call. False when `listener` ended.
  bool Handle(int listener);
  // Where the program listens when it believes to listen on `port`: moved ones only.
  const std::map<std::uint16_t, std::uint16_t>& moved() const { return moved_; }

 private:
  enum class Fate { kAsIs, kShared, kMoved };
  Fate FateOf(std::uint16_t port) const;
  // Carries a call out. False: the program is to do it itself.
  bool Bind(int socket, const sockaddr_storage& wanted, int& error);
  bool Connect(int socket, const sockaddr_storage& wanted, int& error);

  const Launch& launch_;
  std::uint32_t address_ = 0;  // host order
  std::string address_text_;
  std::map<std::uint16_t, std::uint16_t> moved_;
};

}  // namespace takt::runtime::shim
