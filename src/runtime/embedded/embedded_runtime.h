// Runs instances as processes of this machine, each under a takt-shim of its own, so that the
// daemon's death harms none: the next Open on the same directory adopts what runs and reads what
// ended meanwhile. Where namespaces are allowed, an instance sees its own tree of files, in which
// its volumes lie at their container paths; otherwise its paths are translated (see
// Capabilities::private_mounts). All instances share the machine's network.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "runtime/embedded/images.h"
#include "runtime/runtime.h"
#include "runtime/shim/protocol.h"

namespace takt::runtime {

struct EmbeddedOptions {
  // Absolute; the runtime keeps services/ and instances/ in it and reads images.json. One runtime
  // at a time: the caller sees to that.
  std::string data_dir;
  // Where bin/, share/ and lib/ lie; empty = the parent of the directory of /proc/self/exe.
  std::string prefix;
  std::string shim;                                  // empty = <prefix>/bin/takt-shim
  bool force_translate = false;                      // as if namespaces were not allowed
  std::uint64_t max_log_bytes = shim::kMaxLogBytes;  // of one instance
};

class EmbeddedRuntime : public Runtime {
 public:
  // Adopts what runs. FAILED_PRECONDITION when the shim is missing, DATA_LOSS naming the file when
  // a service's record cannot be read. `clock` outlives it.
  static absl::StatusOr<std::unique_ptr<EmbeddedRuntime>> Open(const EmbeddedOptions& options,
                                                               const Clock& clock);
  // Its images, for `takt images`. Thread-safe.
  virtual ImageCatalogue& images() = 0;
};

}  // namespace takt::runtime
