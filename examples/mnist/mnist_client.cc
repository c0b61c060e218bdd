// Asks a model server about MNIST digits, with stock grpc++, and says how often it was wrong.
//
//   mnist_client --num_tests=1000 --server=localhost:9000 --concurrency=10
//
// With --duration it keeps asking instead (at --rate requests a second), until the time is up or
// SIGTERM comes: what happens to a client while a version replaces another.
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/fs.h"
#include "base/status.h"
#include "digits.h"
#include "tensorflow_serving/apis/prediction_service.grpc.pb.h"

namespace takt::mnist {
namespace {

using SteadyClock = std::chrono::steady_clock;
using std::chrono::duration;
using std::chrono::seconds;
using tensorflow::serving::PredictionService;
using tensorflow::serving::PredictRequest;
using tensorflow::serving::PredictResponse;

constexpr int kMaxConcurrency = 10'000;
constexpr int kMaxConsecutiveFailures = 100;  // then it gives up: the server cannot do this
constexpr seconds kCallDeadline{30};

struct Options {
  int num_tests = 1000;
  std::string server = "localhost:9000";
  int concurrency = 1;
  std::string work_dir = "/tmp/mnist";
  std::string model = "mnist";
  std::string signature = "predict_images";
  double duration = 0;  // seconds; 0 = num_tests requests and no more
  double rate = 0;      // requests a second; 0 = as fast as it goes
  double connect_timeout = 10;
};

volatile std::sig_atomic_t stop_wanted = 0;

// Counts in buckets of 1/32 relative width, so a percentile is at most 3 % off.
class Latencies {
 public:
  void Add(SteadyClock::duration latency) {
    const double us = std::max(1.0, duration<double, std::micro>(latency).count());
    const auto bucket = static_cast<std::size_t>(std::log2(us) * kPerOctave);
    ++counts_[std::min(bucket, counts_.size() - 1)];
    ++total_;
    max_us_ = std::max(max_us_, us);
  }
  // Milliseconds; `fraction` in [0, 1]. 0 when nothing was added.
  double Percentile(double fraction) const {
    const auto rank = static_cast<std::uint64_t>(std::ceil(fraction * static_cast<double>(total_)));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen >= rank && seen > 0) {
        return std::min(std::exp2((static_cast<double>(i) + 1) / kPerOctave), max_us_) / 1000;
      }
    }
    return 0;
  }

 private:
  static constexpr double kPerOctave = 22;   // 2^(1/22) is 1.032
  std::array<std::uint64_t, 704> counts_{};  // 32 octaves: beyond an hour
  std::uint64_t total_ = 0;
  double max_us_ = 0;
};

struct Outcome {
  std::uint64_t sent = 0, answered = 0, failed = 0, wrong = 0;
  std::map<std::int64_t, std::uint64_t> by_version;
  Latencies latencies;
  absl::Status first_failure;
  bool gave_up = false;
  double seconds = 0;
};

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      ToAbsl(status.error_message()));
}

struct Call {
  grpc::ClientContext context;
  PredictResponse response;
  grpc::Status status;
  SteadyClock::time_point begun;
  std::uint8_t label = 0;
  std::unique_ptr<grpc::ClientAsyncResponseReader<PredictResponse>> reader;
};

// The digit with the highest score; nullopt where the answer has no ten scores.
std::optional<int> BestDigit(const PredictResponse& response) {
  const auto found = response.outputs().find("scores");
  if (found == response.outputs().end()) return std::nullopt;
  const auto& tensor = found->second;
  std::array<float, 10> scores{};
  if (tensor.float_val_size() == 10) {
    std::copy(tensor.float_val().begin(), tensor.float_val().end(), scores.begin());
  } else if (tensor.tensor_content().size() == sizeof(scores)) {
    std::copy_n(tensor.tensor_content().data(), sizeof(scores),
                reinterpret_cast<char*>(scores.data()));
  } else {
    return std::nullopt;
  }
  return static_cast<int>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

// Keeps up to `concurrency` calls in flight, on one thread with one completion queue.
class Client {
 public:
  Client(const Options& options, const Digits& digits,
         const std::shared_ptr<grpc::Channel>& channel)
      : options_(options), digits_(digits), stub_(PredictionService::NewStub(channel)) {
    request_.mutable_model_spec()->set_name(options.model);
    request_.mutable_model_spec()->set_signature_name(options.signature);
    auto& input = (*request_.mutable_inputs())["images"];
    input.set_dtype(tensorflow::DT_FLOAT);
    input.mutable_tensor_shape()->add_dim()->set_size(1);
    input.mutable_tensor_shape()->add_dim()->set_size(kPixels);
    input.mutable_float_val()->Resize(kPixels, 0);
    tensor_ = &input;
  }

  Outcome Run() {
    begun_ = SteadyClock::now();
    next_progress_ = begun_ + kProgressInterval;
    while (true) {
      while (MaySend()) Send();
      if (in_flight_ == 0 && Finished()) break;
      void* tag = nullptr;
      bool ok = false;
      const auto state = queue_.AsyncNext(&tag, &ok, WakeTime());
      if (state == grpc::CompletionQueue::SHUTDOWN) break;
      if (state == grpc::CompletionQueue::GOT_EVENT) {
        Take(std::unique_ptr<Call>(static_cast<Call*>(tag)));
      }
      ShowProgress();
    }
    outcome_.seconds = duration<double>(SteadyClock::now() - begun_).count();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
    if (on_terminal_ && progress_shown_) std::fputs("\r\x1b[K", stderr);
    return std::move(outcome_);
  }

 private:
  static constexpr std::chrono::milliseconds kProgressInterval{1000};

  bool Finished() const {
    if (stop_wanted != 0 || outcome_.gave_up) return true;
    if (options_.duration > 0) {
      return duration<double>(SteadyClock::now() - begun_).count() >= options_.duration;
    }
    return outcome_.sent >= static_cast<std::uint64_t>(options_.num_tests);
  }

  SteadyClock::time_point DueTime() const {
    return options_.rate > 0
               ? begun_ + std::chrono::duration_cast<SteadyClock::duration>(
                              duration<double>(static_cast<double>(outcome_.sent) / options_.rate))
               : begun_;
  }

  bool MaySend() const {
    return in_flight_ < options_.concurrency && !Finished() && SteadyClock::now() >= DueTime();
  }

  // A signal does not wake the queue, so it is looked at ten times a second.
  std::chrono::system_clock::time_point WakeTime() const {
    SteadyClock::duration wait = std::chrono::milliseconds(100);
    if (in_flight_ < options_.concurrency) wait = std::min(wait, DueTime() - SteadyClock::now());
    return std::chrono::system_clock::now() +
           std::chrono::duration_cast<std::chrono::system_clock::duration>(wait);
  }

  void Send() {
    const std::size_t index = outcome_.sent % digits_.size();
    const std::uint8_t* pixels = digits_.pixels.data() + index * kPixels;
    for (std::size_t i = 0; i < kPixels; ++i) {
      tensor_->set_float_val(static_cast<int>(i), static_cast<float>(pixels[i]) / 255.0F);
    }
    auto call = std::make_unique<Call>();
    call->label = digits_.labels[index];
    call->begun = SteadyClock::now();
    call->context.set_deadline(std::chrono::system_clock::now() + kCallDeadline);
    call->reader = stub_->AsyncPredict(&call->context, request_, &queue_);
    Call* raw = call.release();  // comes back as the tag
    raw->reader->Finish(&raw->response, &raw->status, raw);
    ++outcome_.sent;
    ++in_flight_;
  }

  void Take(std::unique_ptr<Call> call) {
    --in_flight_;
    absl::Status status = FromGrpc(call->status);
    if (status.ok()) {
      if (const auto digit = BestDigit(call->response)) {
        ++outcome_.answered;
        outcome_.wrong += *digit == call->label ? 0 : 1;
        ++outcome_.by_version[call->response.model_spec().version().value()];
        outcome_.latencies.Add(SteadyClock::now() - call->begun);
        consecutive_failures_ = 0;
        return;
      }
      status = absl::InternalError(
          "the answer has no output \"scores\" of 10 floats: is this the MNIST model?");
    }
    if (outcome_.first_failure.ok()) outcome_.first_failure = status;
    ++outcome_.failed;
    if (++consecutive_failures_ >= kMaxConsecutiveFailures) outcome_.gave_up = true;
  }

  void ShowProgress() {
    const auto now = SteadyClock::now();
    if (now < next_progress_) return;
    next_progress_ = now + kProgressInterval;
    const std::string goal =
        options_.duration > 0 ? std::string() : StrCat("/", options_.num_tests);
    const std::string line = absl::StrFormat(
        "%d%s answered, %d failed, error rate %.1f%%", outcome_.answered, goal, outcome_.failed,
        100.0 * static_cast<double>(outcome_.wrong) /
            static_cast<double>(std::max<std::uint64_t>(1, outcome_.answered)));
    std::fprintf(stderr, on_terminal_ ? "\r\x1b[K%s" : "%s\n", line.c_str());
    std::fflush(stderr);
    progress_shown_ = true;
  }

  const Options& options_;
  const Digits& digits_;
  std::unique_ptr<PredictionService::Stub> stub_;
  grpc::CompletionQueue queue_;
  PredictRequest request_;
  tensorflow::TensorProto* tensor_ = nullptr;
  Outcome outcome_;
  int in_flight_ = 0;
  int consecutive_failures_ = 0;
  SteadyClock::time_point begun_, next_progress_;
  const bool on_terminal_ = isatty(STDERR_FILENO) == 1;
  bool progress_shown_ = false;
};

absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const Options& options) {
  auto channel = grpc::CreateChannel(options.server, grpc::InsecureChannelCredentials());
  const auto deadline = SteadyClock::now() + duration<double>(options.connect_timeout);
  while (SteadyClock::now() < deadline && stop_wanted == 0) {
    if (channel->WaitForConnected(std::chrono::system_clock::now() +
                                  std::chrono::milliseconds(100))) {
      return channel;
    }
  }
  return absl::UnavailableError(absl::StrFormat("cannot reach a model server at %s within %g s",
                                                options.server, options.connect_timeout));
}

void Report(const Outcome& outcome) {
  const double answered = static_cast<double>(outcome.answered);
  if (outcome.answered > 0) {
    absl::PrintF("Inference error rate: %.1f%%\n",
                 100.0 * static_cast<double>(outcome.wrong) / answered);
    absl::PrintF("Requests: %.0f/s, latency p50 %.2f ms, p90 %.2f ms, p99 %.2f ms, max %.2f ms\n",
                 answered / std::max(outcome.seconds, 1e-9), outcome.latencies.Percentile(0.5),
                 outcome.latencies.Percentile(0.9), outcome.latencies.Percentile(0.99),
                 outcome.latencies.Percentile(1));
    for (const auto& [version, count] : outcome.by_version) {
      absl::PrintF("Answered by version %d: %d\n", version, count);
    }
  }
  absl::PrintF("Sent %d, failed %d\n", outcome.sent, outcome.failed);
  std::fflush(stdout);
}

// mnist_data.py, in the share directory beside this program's bin directory.
absl::StatusOr<std::string> DataScript() {
  std::array<char, 4096> buffer;
  const ssize_t length = readlink("/proc/self/exe", buffer.data(), buffer.size());
  if (length < 0) return ErrnoStatus(errno, "readlink /proc/self/exe");
  const std::string self(buffer.data(), static_cast<std::size_t>(length));
  std::string script = CleanPath(StrCat(self, "/../../share/takt/examples/mnist/mnist_data.py"));
  if (!Exists(script)) {
    return absl::NotFoundError(StrCat(script, " is missing: it finds the digits"));
  }
  return script;
}

absl::Status Run(Options options, const std::string& script) {
  TAKT_ASSIGN_OR_RETURN(const Digits digits, LoadTestDigits(script, options.work_dir));
  absl::PrintF("data: %s: %d digits to test\n", digits.source, digits.size());
  std::fflush(stdout);
  if (options.duration <= 0 && static_cast<std::size_t>(options.num_tests) > digits.size()) {
    absl::PrintF("--num_tests=%d: there are %d digits, each is asked once\n", options.num_tests,
                 digits.size());
    options.num_tests = static_cast<int>(digits.size());
  }
  TAKT_ASSIGN_OR_RETURN(auto channel, Connect(options));
  const Outcome outcome = Client(options, digits, channel).Run();
  Report(outcome);
  if (outcome.failed > 0) {
    return Annotate(
        outcome.first_failure,
        StrCat(outcome.failed, " of ", outcome.sent, " requests to ", options.server, " failed",
               outcome.gave_up ? StrCat(" (gave up after ", kMaxConsecutiveFailures, " in a row)")
                               : "",
               "; the first"));
  }
  if (outcome.answered == 0) return absl::CancelledError("stopped before the first answer");
  return absl::OkStatus();
}

}  // namespace
}  // namespace takt::mnist

int main(int argc, char** argv) {
  takt::mnist::Options options;
  CLI::App app{"Asks a model server about MNIST digits and prints how often it was wrong."};
  app.add_option("--num_tests", options.num_tests, "how many digits to ask about")
      ->check(CLI::Range(1, 1'000'000'000))
      ->capture_default_str();
  app.add_option("--server", options.server, "HOST:PORT of the server's gRPC")
      ->capture_default_str();
  app.add_option("--concurrency", options.concurrency, "requests in flight at once")
      ->check(CLI::Range(1, takt::mnist::kMaxConcurrency))
      ->capture_default_str();
  app.add_option("--work_dir", options.work_dir, "where digits are kept once fetched")
      ->capture_default_str();
  app.add_option("--model_name", options.model, "model to ask")->capture_default_str();
  app.add_option("--signature_name", options.signature, "signature to ask")->capture_default_str();
  app.add_option("--duration", options.duration, "seconds to keep asking, instead of --num_tests")
      ->check(CLI::Range(0.0, 1e9));
  app.add_option("--rate", options.rate, "requests a second; 0: as fast as it goes")
      ->check(CLI::Range(0.0, 1e9));
  app.add_option("--connect_timeout", options.connect_timeout, "seconds to wait for the server")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const auto stop = [](int) { takt::mnist::stop_wanted = 1; };
  std::signal(SIGTERM, stop);
  std::signal(SIGINT, stop);
  const absl::StatusOr<std::string> script = takt::mnist::DataScript();
  const absl::Status status = script.ok() ? takt::mnist::Run(options, *script) : script.status();
  if (!status.ok()) {
    absl::FPrintF(stderr, "mnist_client: %s\n", status.message());
    return takt::ExitCodeFor(status.code());
  }
  return 0;
}
