// The model server: a drop-in for tensorflow_model_server, under either name.
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "serving/config/flags.h"
#include "serving/lifecycle/trial_load.h"
#include "serving/log.h"
#include "serving/server.h"

namespace {

// How long what is left after the drain may take.
constexpr std::chrono::seconds kMaxEnding{10};

// What TensorFlow Serving's container image makes of its environment.
void FromEnvironment(takt::serving::Flags* flags) {
  const char* name = std::getenv("MODEL_NAME");
  const char* base = std::getenv("MODEL_BASE_PATH");
  if ((name == nullptr && base == nullptr) || !flags->model_base_path.empty() ||
      !flags->model_config_file.empty()) {
    return;
  }
  flags->model_name = name != nullptr ? name : "model";
  flags->model_base_path =
      std::string(base != nullptr ? base : "/models") + "/" + flags->model_name;
  if (flags->rest_api_port == 0) flags->rest_api_port = 8501;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  takt::serving::ParsedFlags parsed = takt::serving::ParseFlags(words);
  if (!parsed.problems.empty()) {
    for (const std::string& problem : parsed.problems) std::cout << problem << "\n";
    std::cout << takt::serving::FlagsUsage() << std::flush;
  }
  if (parsed.flags.version) {
    std::cout << "TensorFlow ModelServer: takt-serving " TAKT_VERSION << std::endl;
    return 0;
  }
  if (!parsed.flags.trial_load_of.empty()) {
    return takt::serving::EndTrial(takt::serving::TryLoad(parsed.flags));
  }
  for (const std::string& note : parsed.without_meaning) {
    takt::serving::Log(takt::serving::LogLevel::kInfo, note);
  }
  FromEnvironment(&parsed.flags);

  // Every thread that is started from here on leaves these to the wait below.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  auto server = takt::serving::ModelServer::Start(parsed.flags);
  if (!server.ok()) {
    std::cerr << "Failed to start server. Error: " << server.status() << std::endl;
    return 1;
  }
  int signal = 0;
  sigwait(&signals, &signal);
  takt::serving::Log(takt::serving::LogLevel::kInfo, "signal received: draining");
  (*server)->Drain();
  // A load or a warm-up that is under way cannot be stopped, and must not keep the process.
  std::thread([] {
    std::this_thread::sleep_for(kMaxEnding);
    takt::serving::Log(takt::serving::LogLevel::kWarning, "ends while a version is still loading");
    std::_Exit(0);
  }).detach();
  return 0;
}
