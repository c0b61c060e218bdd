// Publishes ports: takes TCP connections on one address and passes them on to another. Not
// thread-safe; Process never blocks.
#pragma once

#include <sys/epoll.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/shim/launch.h"

namespace takt::runtime::shim {

// Beyond: accepted and closed. Fewer where the limit of open files says so.
inline constexpr std::size_t kMaxForwardedConnections = 4096;

class Forwarder {
 public:
  explicit Forwarder(std::size_t max_connections = kMaxForwardedConnections);
  ~Forwarder();
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  // Listens; `forward.published` 0 becomes the port that was free. Several processes may listen on
  // one port and share its connections. False with `error` set.
  bool Listen(Launch::Forward& forward, std::string& error);
  // Where connections to `target` go from now on; before that, to 127.0.0.1 at that very port.
  void SetTarget(int target, const std::string& ip, int port);
  // Readable when Process has something to do.
  int poll_fd() const { return epoll_; }
  void Process();

 private:
  // An end of a connection, or a listening socket (`peer` null).
  struct End {
    int fd = -1;
    End* peer = nullptr;
    int target = 0;            // of a listening socket
    std::string out;           // waits to be written to this end
    bool connecting = false;   // connect() under way
    bool no_more_in = false;   // has sent its last byte
    bool no_more_out = false;  // will be shut down once `out` is written
    bool dead = false;
    std::uint32_t events = 0;
  };
  void Accept(const End& listener);
  void Read(End& end);
  void Flush(End& end);
  void Watch(End& end);
  void Drop(End& end);

  int epoll_;
  std::map<int, std::pair<std::string, int>> targets_;
  std::vector<std::unique_ptr<End>> ends_;
  std::size_t max_connections_;
  std::size_t connections_ = 0;
};

}  // namespace takt::runtime::shim
