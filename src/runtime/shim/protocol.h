// What the daemon and the shim of an instance say to each other: files in the instance's directory.
// The daemon may die at any time and read them later. Neither side keeps them open for writing
// except the shim its log.
//
//   launch   from the daemon, before the shim starts: see Tag. Holds secrets, mode 0600.
//   state    from the shim, replaced as a whole: "shim PID START\n" at first, then also
//            "pid PID\nstarted NS\n" "address IP\n" where it has one of its own, and
//            "port TARGET PUBLISHED\n" for each forwarded port
//   exit     from the shim: blank until the end, then "ended CODE SIGNAL OOM FINISHED_NS CPU_US
//   TEXT"
//            (CODE or SIGNAL -1 where there is none, TEXT why it could not start). Its room is
//            taken beforehand, so that a full disk cannot lose it.
//   log.N    segments of the log, N the position of the first byte in the whole log, 20 digits
//
// A signal SIGTERM to the shim means: stop the instance (stop signal, grace period, SIGKILL).
//
// The log is a sequence of frames: FrameHeader, text, the frame's whole size as 32 bits (to read
// backwards). All numbers little-endian. Text is what the program wrote, without the newline.
#pragma once

#include <cstddef>
#include <cstdint>

namespace takt::runtime::shim {

inline constexpr const char* kLaunchFile = "launch";
inline constexpr const char* kStateFile = "state";
inline constexpr const char* kExitFile = "exit";
inline constexpr std::size_t kExitFileBytes = 1024;
inline constexpr const char* kLogPrefix = "log.";

// The launch file: records "T" value NUL, T one of these.
enum class Tag : char {
  kArgument = 'A',      // of the program, in order
  kEnvironment = 'E',   // NAME=value
  kSandbox = 'B',       // of bubblewrap, in order; none = no sandbox
  kDirectory = 'C',     // working directory
  kUser = 'U',          // "UID GID GROUP..."
  kResource = 'R',      // "RLIMIT SOFT HARD", numbers
  kControlGroup = 'G',  // directory of a control group to join, removed in the end
  kOomFile = 'O',       // file with a line "oom_kill N"
  kMaxLogBytes = 'N',   // of all segments together
  kStopSignal = 'S',    // number
  kGraceMs = 'W',       // between stop signal and SIGKILL
  kForward = 'P',       // "LISTEN_IP PUBLISHED TARGET"
  kMovePort = 'M',      // port that the program gets at an address of its own; "*" = all
  kSharePort = 'H',     // port that it keeps, and other instances may have at theirs
};

inline constexpr std::uint8_t kStandardError = 1;
inline constexpr std::uint8_t kGoesOn = 2;  // the line was too long; the next frame goes on with it

struct FrameHeader {
  std::uint32_t text_bytes = 0;
  std::uint16_t magic = kMagic;
  std::uint8_t flags = 0;    // kStandardError, kGoesOn
  std::uint8_t check = 0;    // Check(text_bytes, flags)
  std::int64_t time_ns = 0;  // since 1970

  static constexpr std::uint16_t kMagic = 0xA71C;
  static constexpr std::uint8_t Check(std::uint32_t bytes, std::uint8_t flags) {
    return static_cast<std::uint8_t>(0x5A ^ bytes ^ bytes >> 8 ^ bytes >> 16 ^ bytes >> 24 ^ flags);
  }
  bool valid() const;
};
static_assert(sizeof(FrameHeader) == 16);

inline constexpr std::size_t kMaxLineBytes = 64u << 10;  // a longer line becomes several
inline constexpr std::size_t kFrameOverhead = sizeof(FrameHeader) + sizeof(std::uint32_t);
inline constexpr std::uint64_t kMaxLogBytes = 64u << 20;  // of one instance; the oldest go
inline constexpr int kLogSegments = 8;                    // so many make up that limit

inline bool FrameHeader::valid() const {
  return magic == kMagic && text_bytes <= kMaxLineBytes && check == Check(text_bytes, flags);
}

}  // namespace takt::runtime::shim
