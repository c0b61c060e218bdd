// TensorFlow through its C API. The declarations below are those of tensorflow/c/c_api.h,
// tf_tensor.h and tf_tstring.h, whose ABI TensorFlow keeps for all of 2.x.
#include <dlfcn.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <map>
#include <mutex>

#include "base/fs.h"
#include "serving/engine/engine.h"
#include "serving/engine/row_independence.h"
#include "serving/engine/signature_def.h"

namespace takt::serving {
namespace {

struct TF_Status;
struct TF_Tensor;
struct TF_Graph;
struct TF_Session;
struct TF_SessionOptions;
struct TF_Operation;
struct TF_Buffer {
  const void* data;
  std::size_t length;
  void (*data_deallocator)(void* data, std::size_t length);
};
struct TF_Output {
  TF_Operation* oper;
  int index;
};
struct alignas(8) TF_TString {
  char bytes[24];
};

// One line a function: result, name, parameters.
#define TAKT_TF_FUNCTIONS(X)                                                                      \
  X(const char*, TF_Version, (void))                                                              \
  X(TF_Status*, TF_NewStatus, (void))                                                             \
  X(void, TF_DeleteStatus, (TF_Status*))                                                          \
  X(int, TF_GetCode, (const TF_Status*))                                                          \
  X(const char*, TF_Message, (const TF_Status*))                                                  \
  X(TF_Buffer*, TF_NewBuffer, (void))                                                             \
  X(TF_Buffer*, TF_NewBufferFromString, (const void*, std::size_t))                               \
  X(void, TF_DeleteBuffer, (TF_Buffer*))                                                          \
  X(TF_Tensor*, TF_NewTensor,                                                                     \
    (int, const std::int64_t*, int, void*, std::size_t, void (*)(void*, std::size_t, void*),      \
     void*))                                                                                      \
  X(void, TF_DeleteTensor, (TF_Tensor*))                                                          \
  X(int, TF_TensorType, (const TF_Tensor*))                                                       \
  X(int, TF_NumDims, (const TF_Tensor*))                                                          \
  X(std::int64_t, TF_Dim, (const TF_Tensor*, int))                                                \
  X(std::size_t, TF_TensorByteSize, (const TF_Tensor*))                                           \
  X(void*, TF_TensorData, (const TF_Tensor*))                                                     \
  X(void, TF_StringInit, (TF_TString*))                                                           \
  X(void, TF_StringCopy, (TF_TString*, const char*, std::size_t))                                 \
  X(const char*, TF_StringGetDataPointer, (const TF_TString*))                                    \
  X(std::size_t, TF_StringGetSize, (const TF_TString*))                                           \
  X(void, TF_StringDealloc, (TF_TString*))                                                        \
  X(TF_Graph*, TF_NewGraph, (void))                                                               \
  X(void, TF_DeleteGraph, (TF_Graph*))                                                            \
  X(TF_Operation*, TF_GraphOperationByName, (TF_Graph*, const char*))                             \
  X(int, TF_OperationNumOutputs, (TF_Operation*))                                                 \
  X(TF_SessionOptions*, TF_NewSessionOptions, (void))                                             \
  X(void, TF_DeleteSessionOptions, (TF_SessionOptions*))                                          \
  X(void, TF_SetConfig, (TF_SessionOptions*, const void*, std::size_t, TF_Status*))               \
  X(TF_Session*, TF_LoadSessionFromSavedModel,                                                    \
    (const TF_SessionOptions*, const TF_Buffer*, const char*, const char* const*, int, TF_Graph*, \
     TF_Buffer*, TF_Status*))                                                                     \
  X(void, TF_CloseSession, (TF_Session*, TF_Status*))                                             \
  X(void, TF_DeleteSession, (TF_Session*, TF_Status*))                                            \
  X(void, TF_SessionRun,                                                                          \
    (TF_Session*, const TF_Buffer*, const TF_Output*, TF_Tensor* const*, int, const TF_Output*,   \
     TF_Tensor**, int, const TF_Operation* const*, int, TF_Buffer*, TF_Status*))

struct TfApi {
#define TAKT_TF_POINTER(result, name, parameters) result(*name) parameters = nullptr;
  TAKT_TF_FUNCTIONS(TAKT_TF_POINTER)
#undef TAKT_TF_POINTER
};

// A TF_Status for one call.
class CallStatus {
 public:
  explicit CallStatus(const TfApi& tf) : tf_(tf), status_(tf.TF_NewStatus()) {}
  ~CallStatus() { tf_.TF_DeleteStatus(status_); }
  CallStatus(const CallStatus&) = delete;
  CallStatus& operator=(const CallStatus&) = delete;
  TF_Status* get() const { return status_; }
  bool ok() const { return tf_.TF_GetCode(status_) == 0; }
  // TensorFlow's codes are absl's.
  absl::Status Take() const {
    return {static_cast<absl::StatusCode>(tf_.TF_GetCode(status_)),
            absl::string_view(tf_.TF_Message(status_))};
  }

 private:
  const TfApi& tf_;
  TF_Status* const status_;
};

void AppendVarint(std::uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

struct TensorflowPlan final : Session::Plan {
  std::vector<TF_Output> feeds;
  std::vector<TF_Output> fetches;     // each once
  std::vector<std::size_t> fetch_of;  // index into fetches, by the order asked for
  bool distinct = true;               // fetch_of is 0, 1, 2, ...
};

class TensorflowSession final : public Session {
 public:
  TensorflowSession(const TfApi& tf, TF_Graph* graph, TF_Session* session,
                    ParsedSignatures signatures)
      : tf_(tf), graph_(graph), session_(session), signatures_(std::move(signatures)) {
    // RunOptions.inter_op_thread_pool (3) = -1: the graph runs on the calling thread.
    std::string options = "\x18";
    AppendVarint(~std::uint64_t{0}, options);
    run_options_ = tf_.TF_NewBufferFromString(options.data(), options.size());
  }
  ~TensorflowSession() override {
    CallStatus status(tf_);
    tf_.TF_CloseSession(session_, status.get());
    tf_.TF_DeleteSession(session_, status.get());
    tf_.TF_DeleteGraph(graph_);
    tf_.TF_DeleteBuffer(run_options_);
  }

  const std::vector<SignatureDef>& signatures() const override { return signatures_.signatures; }
  const std::vector<std::pair<std::string, std::string>>& serialized_signatures() const override {
    return signatures_.serialized;
  }

  absl::StatusOr<std::unique_ptr<Plan>> Prepare(std::vector<std::string> feeds,
                                                std::vector<std::string> fetches) override {
    auto plan = std::make_unique<TensorflowPlan>();
    for (const std::string& name : feeds) {
      TAKT_ASSIGN_OR_RETURN(TF_Output output, Resolve(name));
      plan->feeds.push_back(output);
    }
    std::map<std::pair<TF_Operation*, int>, std::size_t> seen;
    for (const std::string& name : fetches) {
      TAKT_ASSIGN_OR_RETURN(TF_Output output, Resolve(name));
      auto [found, added] =
          seen.emplace(std::pair(output.oper, output.index), plan->fetches.size());
      if (added) plan->fetches.push_back(output);
      plan->distinct &= added;
      plan->fetch_of.push_back(found->second);
    }
    return plan;
  }

  absl::StatusOr<std::vector<Tensor>> Run(const Plan& any_plan, std::span<const Tensor> inputs,
                                          const RunOptions& options) override;

 private:
  absl::StatusOr<TF_Output> Resolve(const std::string& name) {
    std::string operation = name;
    int index = 0;
    if (const std::size_t colon = name.rfind(':'); colon != std::string::npos) {
      operation = name.substr(0, colon);
      index = std::atoi(name.c_str() + colon + 1);
    }
    TF_Operation* found = tf_.TF_GraphOperationByName(graph_, operation.c_str());
    if (found == nullptr || index < 0 || index >= tf_.TF_OperationNumOutputs(found)) {
      return absl::InvalidArgumentError(StrCat("the graph has no tensor \"", name, "\""));
    }
    return TF_Output{found, index};
  }
  TF_Tensor* ToTensorflow(const Tensor& tensor) const;
  absl::StatusOr<Tensor> FromTensorflow(TF_Tensor* tensor) const;  // takes it

  const TfApi& tf_;
  TF_Graph* const graph_;
  TF_Session* const session_;
  const ParsedSignatures signatures_;
  TF_Buffer* run_options_;
};

struct StringBuffer {
  const TfApi* tf;
  std::size_t count;
};

TF_Tensor* TensorflowSession::ToTensorflow(const Tensor& tensor) const {
  const int type = static_cast<int>(tensor.dtype());
  if (tensor.dtype() == DataType::kString) {
    const std::vector<std::string>& values = tensor.strings();
    const std::size_t bytes = values.size() * sizeof(TF_TString);
    auto* data = static_cast<TF_TString*>(
        std::aligned_alloc(64, (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64));
    if (data == nullptr) return nullptr;
    for (std::size_t i = 0; i < values.size(); ++i) {
      tf_.TF_StringInit(&data[i]);
      tf_.TF_StringCopy(&data[i], values[i].data(), values[i].size());
    }
    // The graph may keep the tensor longer than the run: the strings go with its last reference.
    return tf_.TF_NewTensor(
        type, tensor.dims().data(), tensor.rank(), data, bytes,
        [](void* strings, std::size_t, void* arg) {
          std::unique_ptr<StringBuffer> buffer(static_cast<StringBuffer*>(arg));
          for (std::size_t i = 0; i < buffer->count; ++i) {
            buffer->tf->TF_StringDealloc(static_cast<TF_TString*>(strings) + i);
          }
          std::free(strings);
        },
        new StringBuffer{&tf_, values.size()});
  }
  return tf_.TF_NewTensor(
      type, tensor.dims().data(), tensor.rank(), const_cast<void*>(tensor.data()), tensor.bytes(),
      [](void*, std::size_t, void* owner) {
        delete static_cast<std::shared_ptr<const void>*>(owner);
      },
      new std::shared_ptr<const void>(tensor.owner()));
}

absl::StatusOr<Tensor> TensorflowSession::FromTensorflow(TF_Tensor* tensor) const {
  std::shared_ptr<TF_Tensor> owner(tensor, tf_.TF_DeleteTensor);
  const auto dtype = static_cast<DataType>(tf_.TF_TensorType(tensor));
  Dims dims(tf_.TF_NumDims(tensor));
  for (std::size_t i = 0; i < dims.size(); ++i) {
    dims[i] = tf_.TF_Dim(tensor, static_cast<int>(i));
  }
  if (dtype == DataType::kString) {
    const auto* strings = static_cast<const TF_TString*>(tf_.TF_TensorData(tensor));
    std::vector<std::string> values(ElementCount(dims).value_or(0));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i].assign(tf_.TF_StringGetDataPointer(&strings[i]), tf_.TF_StringGetSize(&strings[i]));
    }
    return Tensor::FromStrings(std::move(dims), std::move(values));
  }
  if (DataTypeSize(dtype) == 0) {
    return absl::UnimplementedError(
        StrCat("an output of type ", DataTypeName(dtype), " has no form outside of the graph"));
  }
  const void* data = tf_.TF_TensorData(tensor);
  const std::size_t bytes = tf_.TF_TensorByteSize(tensor);
  return Tensor::Wrap(dtype, std::move(dims), std::move(owner), data, bytes);
}

absl::StatusOr<std::vector<Tensor>> TensorflowSession::Run(const Plan& any_plan,
                                                           std::span<const Tensor> inputs,
                                                           const RunOptions& options) {
  const auto& plan = static_cast<const TensorflowPlan&>(any_plan);
  if (inputs.size() != plan.feeds.size()) {
    return absl::InternalError(
        StrCat("a run of ", plan.feeds.size(), " feeds got ", inputs.size(), " tensors"));
  }
  if (options.deadline.has_value() && *options.deadline <= std::chrono::steady_clock::now()) {
    return absl::DeadlineExceededError("the deadline passed before the run");
  }
  absl::InlinedVector<TF_Tensor*, 8> in;
  absl::InlinedVector<TF_Tensor*, 8> out(plan.fetches.size(), nullptr);
  for (const Tensor& tensor : inputs) in.push_back(ToTensorflow(tensor));
  const bool complete = std::find(in.begin(), in.end(), nullptr) == in.end();
  absl::Status status = absl::ResourceExhaustedError("no memory for the inputs");
  if (complete) {
    CallStatus call(tf_);
    tf_.TF_SessionRun(session_, run_options_, plan.feeds.data(), in.data(),
                      static_cast<int>(in.size()), plan.fetches.data(), out.data(),
                      static_cast<int>(out.size()), nullptr, 0, nullptr, call.get());
    status = call.ok() ? absl::OkStatus() : call.Take();
  }
  std::vector<Tensor> outputs;
  if (status.ok()) {
    outputs.reserve(plan.fetch_of.size());
    for (TF_Tensor*& tensor : out) {
      absl::StatusOr<Tensor> output = FromTensorflow(std::exchange(tensor, nullptr));
      if (output.ok()) {
        outputs.push_back(*std::move(output));
      } else if (status.ok()) {
        status = output.status();
      }
    }
  }
  // Only now: an output may share the bytes of an input.
  for (TF_Tensor* tensor : in) {
    if (tensor != nullptr) tf_.TF_DeleteTensor(tensor);
  }
  for (TF_Tensor* tensor : out) {
    if (tensor != nullptr) tf_.TF_DeleteTensor(tensor);
  }
  if (!status.ok()) return status;
  if (plan.distinct) return outputs;
  std::vector<Tensor> in_order;
  in_order.reserve(plan.fetch_of.size());
  for (std::size_t index : plan.fetch_of) in_order.push_back(outputs[index]);
  return in_order;
}

std::uint64_t VariableBytes(const std::string& model) {
  const std::string directory = JoinPath(model, "variables");
  std::uint64_t bytes = 0;
  for (const std::string& name : ListDir(directory).value_or(std::vector<std::string>())) {
    struct stat file {};
    if (stat(JoinPath(directory, name).c_str(), &file) == 0) {
      bytes += static_cast<std::uint64_t>(file.st_size);
    }
  }
  return bytes;
}

class TensorflowEngine final : public Engine {
 public:
  TensorflowEngine(TfApi tf, EngineOptions options) : tf_(tf), options_(std::move(options)) {}
  std::string version() const override { return tf_.TF_Version(); }

  absl::StatusOr<std::unique_ptr<Session>> Load(const LoadOptions& load) override {
    // ConfigProto: a field that comes later wins. intra_op_parallelism_threads (2),
    // inter_op_parallelism_threads (5).
    std::call_once(intra_op_once_, [&] {
      intra_op_threads_ = options_.intra_op_parallelism;
      if (intra_op_threads_ == 0 && VariableBytes(load.directory) <= kSmallModelBytes) {
        intra_op_threads_ = 1;
      }
    });
    // What the given configuration says stands before what was found here.
    std::string config;
    if (options_.intra_op_parallelism == 0 && intra_op_threads_ > 0) {
      config.push_back(0x10);
      AppendVarint(static_cast<std::uint64_t>(intra_op_threads_), config);
    }
    config += options_.session_config;
    if (options_.intra_op_parallelism > 0) {
      config.push_back(0x10);
      AppendVarint(static_cast<std::uint64_t>(intra_op_threads_), config);
    }
    if (options_.inter_op_parallelism > 0) {
      config.push_back(0x28);
      AppendVarint(options_.inter_op_parallelism, config);
    }
    CallStatus status(tf_);
    std::unique_ptr<TF_SessionOptions, void (*)(TF_SessionOptions*)> session_options(
        tf_.TF_NewSessionOptions(), tf_.TF_DeleteSessionOptions);
    tf_.TF_SetConfig(session_options.get(), config.data(), config.size(), status.get());
    if (!status.ok()) return Annotate(status.Take(), "session configuration");
    std::unique_ptr<TF_Graph, void (*)(TF_Graph*)> graph(tf_.TF_NewGraph(), tf_.TF_DeleteGraph);
    std::unique_ptr<TF_Buffer, void (*)(TF_Buffer*)> meta_graph(tf_.TF_NewBuffer(),
                                                                tf_.TF_DeleteBuffer);
    std::vector<const char*> tags;
    for (const std::string& tag : load.tags) tags.push_back(tag.c_str());
    TF_Session* session = tf_.TF_LoadSessionFromSavedModel(
        session_options.get(), nullptr, load.directory.c_str(), tags.data(),
        static_cast<int>(tags.size()), graph.get(), meta_graph.get(), status.get());
    if (!status.ok()) return Annotate(status.Take(), StrCat("load of ", load.directory));
    const std::string_view bytes(static_cast<const char*>(meta_graph->data), meta_graph->length);
    absl::StatusOr<ParsedSignatures> signatures = ParseSignatures(bytes);
    if (!signatures.ok()) {
      CallStatus ignored(tf_);
      tf_.TF_DeleteSession(session, ignored.get());
      return Annotate(signatures.status(), StrCat("load of ", load.directory));
    }
    std::vector<std::string> reasons = WhyRowsMayDepend(bytes, signatures->signatures);
    for (std::size_t i = 0; i < reasons.size(); ++i) {
      signatures->signatures[i].why_rows_may_depend = std::move(reasons[i]);
    }
    return std::make_unique<TensorflowSession>(tf_, graph.release(), session,
                                               *std::move(signatures));
  }

 private:
  const TfApi tf_;
  const EngineOptions options_;
  std::once_flag intra_op_once_;
  int intra_op_threads_ = 0;
};

std::string FirstMatch(const std::string& pattern) {
  glob_t found{};
  std::string path;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0 && found.gl_pathc > 0) {
    path = found.gl_pathv[0];
  }
  globfree(&found);
  return path;
}

std::string FindLibraryDirectory() {
  char self[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self);
  if (n > 0) {
    const std::string program(self, static_cast<std::size_t>(n));
    const std::string root = CleanPath(StrCat(program, "/../.."));
    const std::string found = FirstMatch(
        StrCat(root, "/lib/takt/venv/lib/python3*/site-packages/tensorflow/libtensorflow_cc.so.2"));
    if (!found.empty()) return CleanPath(StrCat(found, "/.."));
  }
  const char* from_environment = std::getenv("TAKT_TENSORFLOW_DIR");
  return from_environment == nullptr ? "" : from_environment;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> MakeTensorflowEngine(const EngineOptions& options) {
  std::string directory = options.library_directory;
  if (directory.empty()) directory = FindLibraryDirectory();
  if (directory.empty()) {
    return absl::UnavailableError(
        "TensorFlow is not found: neither beside this program (lib/takt/venv) nor in "
        "TAKT_TENSORFLOW_DIR, the directory of libtensorflow_cc.so.2");
  }
  // Kept apart from this program's own protobuf, and never unloaded: TensorFlow's threads and
  // registries do not survive that.
  void* library = nullptr;
  for (const char* name : {"libtensorflow_framework.so.2", "libtensorflow_cc.so.2"}) {
    const std::string path = JoinPath(directory, name);
    library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL | RTLD_DEEPBIND);
    if (library == nullptr) return absl::UnavailableError(StrCat("load ", path, ": ", dlerror()));
  }
  TfApi tf;
#define TAKT_TF_RESOLVE(result, name, parameters)                                          \
  tf.name = reinterpret_cast<decltype(tf.name)>(dlsym(library, #name));                    \
  if (tf.name == nullptr) {                                                                \
    return absl::UnavailableError(                                                         \
        StrCat(directory, "/libtensorflow_cc.so.2 has no " #name ": not a TensorFlow 2")); \
  }
  TAKT_TF_FUNCTIONS(TAKT_TF_RESOLVE)
#undef TAKT_TF_RESOLVE
  return std::make_unique<TensorflowEngine>(tf, options);
}

}  // namespace takt::serving
