#include "client.h"

#include <iostream>

namespace takt::cli {

void Finish(const absl::Status& status, int* exit_code) {
  if (status.ok()) return;
  std::cout.flush();
  std::cerr << "takt: " << ToStd(status.message()) << "\n";
  *exit_code = ExitCodeFor(status.code());
}

absl::Status RunWithApi(const Connection& connection,
                        const std::function<absl::Status(Api&)>& run) {
  TAKT_ASSIGN_OR_RETURN(Api api, Api::Open(connection));
  try {
    return run(api);
  } catch (const Json::exception& error) {
    return absl::DataLossError(StrCat(connection.host,
                                      " gave an answer that this takt does not understand (",
                                      error.what(), "): are both of the same version?"));
  }
}

bool IsLive(const Json& instance) {
  const std::string state = instance.at("state");
  return state != "exited" && state != "backing_off";
}

std::vector<std::string> EndpointsOf(const Json& service) {
  std::vector<std::string> addresses;
  for (const Json& instance : service.at("instances")) {
    if (!IsLive(instance)) continue;
    for (const Json& endpoint : instance.at("endpoints")) {
      addresses.push_back(endpoint.at("address"));
    }
  }
  return addresses;
}

}  // namespace takt::cli
