// Options of the sockets that calls go over, on either side.
#pragma once

struct sockaddr;

namespace takt {

// For a connected socket whose messages are requests and answers: what is written leaves at once.
// Where `peer` is this machine, the kernel does not pace either: a path of memory has no
// congestion, and BBR, where it is the system's default, would all the same measure it every ten
// seconds by holding traffic down to four packets for 200 ms. Sockets that are not TCP stay as
// they are. Failures do not matter: the connection works, only later.
void SetForCalls(int fd, const sockaddr* peer);

}  // namespace takt
