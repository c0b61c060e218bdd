// The short forms of a compose file's values -> their canonical long forms. Each function takes a
// value that has the right kind, changes it in place, and reports what its text gets wrong. A value
// that says nothing (0, false, "", an empty list) where nothing is the default becomes null, which
// is dropped from the struct that holds it. Internal to this room.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "template/node.h"
#include "template/report.h"

namespace takt::templates {

using Convert = void (*)(Node& node, const Path& path, Report& report);

void ToTextValue(Node& node, const Path& path, Report& report);  // numbers become text
void ToBool(Node& node, const Path& path, Report& report);
void ToBoolKept(Node& node, const Path& path, Report& report);  // false says something
void ToTrueKept(Node& node, const Path& path, Report& report);  // true is the default
void ToInteger(Node& node, const Path& path, Report& report);
void ToIntegerKept(Node& node, const Path& path, Report& report);
void ToNatural(Node& node, const Path& path, Report& report);  // no sign
void ToNaturalKept(Node& node, const Path& path, Report& report);
void ToFloat(Node& node, const Path& path, Report& report);  // single precision
void ToBytes(Node& node, const Path& path, Report& report);  // "64m" -> "67108864"
void ToDuration(Node& node, const Path& path, Report& report);
void ToDurationKept(Node& node, const Path& path, Report& report);
void ToMode(Node& node, const Path& path, Report& report);  // file mode: "0440"
void ToCommand(Node& node, const Path& path, Report& report);
void ToList(Node& node, const Path& path, Report& report);      // one text is a list of one
void ToTexts(Node& node, const Path& path, Report& report);     // likewise, of any scalars
void ToDistinct(Node& node, const Path& path, Report& report);  // KEY=...: the last one stays
void ToListDistinct(Node& node, const Path& path, Report& report);
void ToMapping(Node& node, const Path& path, Report& report);  // KEY=VALUE list or map; "" if bare
void ToEnvironment(Node& node, const Path& path, Report& report);  // null if bare
void ToKeyValues(Node& node, const Path& path, Report& report);    // KEY=VALUE, never bare
void ToOptions(Node& node, const Path& path, Report& report);      // all values text
void ToSsh(Node& node, const Path& path, Report& report);
void ToHosts(Node& node, const Path& path, Report& report);  // sorted list of host=address
void ToPorts(Node& node, const Path& path, Report& report);
void ToVolume(Node& node, const Path& path, Report& report);
void ToVolumes(Node& node, const Path& path, Report& report);
void ToDevice(Node& node, const Path& path, Report& report);
void ToDevices(Node& node, const Path& path, Report& report);
void ToDeviceCount(Node& node, const Path& path, Report& report);
void ToDeviceRequest(Node& node, const Path& path, Report& report);
void ToGpus(Node& node, const Path& path, Report& report);
void ToSecretMount(Node& node, const Path& path, Report& report);
void ToConfigMount(Node& node, const Path& path, Report& report);
void ToMounts(Node& node, const Path& path, Report& report);
void ToUlimit(Node& node, const Path& path, Report& report);
void ToDependencies(Node& node, const Path& path, Report& report);
void ToDependency(Node& node, const Path& path, Report& report);
void ToNameMap(Node& node, const Path& path, Report& report);  // list of names -> map of nothing
void ToEnvFiles(Node& node, const Path& path, Report& report);
void ToBuild(Node& node, const Path& path, Report& report);
void ToHealthTest(Node& node, const Path& path, Report& report);
void ToExternal(Node& node, const Path& path, Report& report);
void ToBlkioWeight(Node& node, const Path& path, Report& report);
void ToBlkioRate(Node& node, const Path& path, Report& report);

// "1m30s" -> nanoseconds; units ns us ms s m h d w. nullopt when it is none.
std::optional<std::int64_t> ParseDuration(std::string_view text);
// 90 s -> "1m30s", as Go prints it.
std::string FormatDuration(std::int64_t nanoseconds);
// "1.5g" -> bytes; k, m, g, t, p are powers of 1024, with or without b or ib.
std::optional<std::int64_t> ParseBytes(std::string_view text);
// Words of a command line: quotes and backslashes, no shell. nullopt when a quote stays open.
// `*cut` is where an operator of a shell (; & | < >) ended it, npos where none did.
std::optional<std::vector<std::string>> SplitCommand(std::string_view text, std::size_t* cut);

}  // namespace takt::templates
