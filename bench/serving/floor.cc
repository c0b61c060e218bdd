// What no server on nghttp2 and TensorFlow can go below, measured the same way as the server:
//   bench_floor responder --port P --answer BYTES
//     reads requests and answers each with so many bytes; nothing between. Runs until killed.
//   bench_floor run --tensorflow DIR --model DIR --feed x:0 --fetch y:0 --shape 32,784 --seconds S
//     TF_SessionRun on one tensor, again and again; prints CPU microseconds a run.
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

std::string answer_bytes;

nghttp2_nv Nv(const char* name, const char* value) {
  nghttp2_nv nv;
  nv.name = reinterpret_cast<std::uint8_t*>(const_cast<char*>(name));
  nv.value = reinterpret_cast<std::uint8_t*>(const_cast<char*>(value));
  nv.namelen = std::strlen(name);
  nv.valuelen = std::strlen(value);
  nv.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
  return nv;
}

ssize_t ReadAnswer(nghttp2_session* session, std::int32_t stream, std::uint8_t* out,
                   std::size_t size, std::uint32_t* flags, nghttp2_data_source* source, void*) {
  auto* sent = reinterpret_cast<std::size_t*>(&source->ptr);
  const std::size_t n = std::min(size, answer_bytes.size() - *sent);
  std::memcpy(out, answer_bytes.data() + *sent, n);
  *sent += n;
  if (*sent == answer_bytes.size()) {
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    static const nghttp2_nv kTrailer[] = {Nv("grpc-status", "0")};
    nghttp2_submit_trailer(session, stream, kTrailer, 1);
  }
  return static_cast<ssize_t>(n);
}

int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void*) {
  if (frame->hd.type != NGHTTP2_DATA || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  static const nghttp2_nv kHeaders[] = {Nv(":status", "200"),
                                        Nv("content-type", "application/grpc")};
  nghttp2_data_provider provider;
  provider.source.ptr = nullptr;
  provider.read_callback = ReadAnswer;
  nghttp2_submit_response(session, frame->hd.stream_id, kHeaders, 2, &provider);
  return 0;
}

int Responder(int port, std::size_t answer) {
  answer_bytes.assign(answer + 5, 'a');
  const char prefix[5] = {0, static_cast<char>(answer >> 24), static_cast<char>(answer >> 16),
                          static_cast<char>(answer >> 8), static_cast<char>(answer)};
  std::memcpy(answer_bytes.data(), prefix, sizeof prefix);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener, 128) != 0) {
    std::perror("listen");
    return 1;
  }
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, OnFrame);
  nghttp2_option* option = nullptr;
  nghttp2_option_new(&option);
  nghttp2_option_set_no_closed_streams(option, 1);
  const int epoll = epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = listener;
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  std::map<int, nghttp2_session*> sessions;
  std::vector<std::uint8_t> buffer(256 << 10);
  std::string out;
  while (true) {
    epoll_event events[64];
    const int count = epoll_wait(epoll, events, 64, -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener) {
        const int accepted = accept(listener, nullptr, nullptr);
        setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        nghttp2_session* session = nullptr;
        nghttp2_session_server_new2(&session, callbacks, nullptr, option);
        const nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 10000},
                                                   {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 4 << 20},
                                                   {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 1 << 20}};
        nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, 3);
        nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, 32 << 20);
        sessions[accepted] = session;
        event.events = EPOLLIN;
        event.data.fd = accepted;
        epoll_ctl(epoll, EPOLL_CTL_ADD, accepted, &event);
        continue;
      }
      nghttp2_session* session = sessions[fd];
      const ssize_t n = recv(fd, buffer.data(), buffer.size(), 0);
      bool open = n > 0 && nghttp2_session_mem_recv(session, buffer.data(), n) >= 0;
      out.clear();
      while (open) {
        const std::uint8_t* data = nullptr;
        const ssize_t size = nghttp2_session_mem_send(session, &data);
        if (size <= 0) break;
        out.append(reinterpret_cast<const char*>(data), size);
      }
      // The socket blocks: a client that reads is all that there is.
      if (open && !out.empty()) {
        open = send(fd, out.data(), out.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(out.size());
      }
      if (!open) {
        nghttp2_session_del(session);
        sessions.erase(fd);
        close(fd);
      }
    }
  }
}

// The declarations of TensorFlow's C API that a run takes.
struct Output {
  void* operation;
  int index;
};
struct Buffer {
  const void* data;
  std::size_t length;
  void (*deallocator)(void*, std::size_t);
};

int BareRun(const std::string& tensorflow, const std::string& model, const std::string& feed,
            const std::string& fetch, const std::string& shape, double seconds) {
  void* library = nullptr;
  for (const char* name : {"libtensorflow_framework.so.2", "libtensorflow_cc.so.2"}) {
    library = dlopen((tensorflow + "/" + name).c_str(), RTLD_LAZY | RTLD_LOCAL | RTLD_DEEPBIND);
    if (library == nullptr) {
      std::fprintf(stderr, "%s\n", dlerror());
      return 1;
    }
  }
#define TAKT_RESOLVE(result, name, ...) \
  auto* name = reinterpret_cast<result (*)(__VA_ARGS__)>(dlsym(library, #name));
  TAKT_RESOLVE(void*, TF_NewStatus, void)
  TAKT_RESOLVE(int, TF_GetCode, void*)
  TAKT_RESOLVE(const char*, TF_Message, void*)
  TAKT_RESOLVE(void*, TF_NewGraph, void)
  TAKT_RESOLVE(void*, TF_NewSessionOptions, void)
  TAKT_RESOLVE(void, TF_SetConfig, void*, const void*, std::size_t, void*)
  TAKT_RESOLVE(void*, TF_LoadSessionFromSavedModel, void*, void*, const char*, const char* const*,
               int, void*, void*, void*)
  TAKT_RESOLVE(void*, TF_GraphOperationByName, void*, const char*)
  TAKT_RESOLVE(void*, TF_AllocateTensor, int, const std::int64_t*, int, std::size_t)
  TAKT_RESOLVE(void*, TF_TensorData, void*)
  TAKT_RESOLVE(void, TF_DeleteTensor, void*)
  TAKT_RESOLVE(Buffer*, TF_NewBufferFromString, const void*, std::size_t)
  TAKT_RESOLVE(void, TF_SessionRun, void*, const Buffer*, const Output*, void* const*, int,
               const Output*, void**, int, const void* const*, int, Buffer*, void*)
#undef TAKT_RESOLVE
  void* status = TF_NewStatus();
  void* graph = TF_NewGraph();
  void* options = TF_NewSessionOptions();
  // inter_op_parallelism_threads (5) and intra_op_parallelism_threads (2) = 1.
  TF_SetConfig(options, "\x10\x01\x28\x01", 4, status);
  const char* tag = "serve";
  void* session = TF_LoadSessionFromSavedModel(options, nullptr, model.c_str(), &tag, 1, graph,
                                               nullptr, status);
  if (TF_GetCode(status) != 0) {
    std::fprintf(stderr, "%s\n", TF_Message(status));
    return 1;
  }
  auto resolve = [&](const std::string& name) {
    const std::size_t colon = name.find(':');
    return Output{TF_GraphOperationByName(graph, name.substr(0, colon).c_str()),
                  std::atoi(name.c_str() + colon + 1)};
  };
  std::vector<std::int64_t> dims;
  std::int64_t elements = 1;
  for (std::size_t at = 0; at < shape.size();) {
    dims.push_back(std::atoll(shape.c_str() + at));
    elements *= dims.back();
    at = shape.find(',', at);
    if (at == std::string::npos) break;
    ++at;
  }
  void* input = TF_AllocateTensor(1, dims.data(), static_cast<int>(dims.size()), elements * 4);
  auto* values = static_cast<float*>(TF_TensorData(input));
  for (std::int64_t i = 0; i < elements; ++i) values[i] = static_cast<float>(i % 7) / 7;
  // RunOptions.inter_op_thread_pool = -1: on this thread.
  Buffer* on_this_thread =
      TF_NewBufferFromString("\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11);
  const Output in = resolve(feed);
  const Output out = resolve(fetch);
  auto now = [](clockid_t clock) {
    timespec t;
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
  };
  auto run = [&](double until) {
    long runs = 0;
    while (now(CLOCK_MONOTONIC) < until) {
      for (int i = 0; i < 10; ++i) {
        void* output = nullptr;
        TF_SessionRun(session, on_this_thread, &in, &input, 1, &out, &output, 1, nullptr, 0,
                      nullptr, status);
        if (TF_GetCode(status) != 0) {
          std::fprintf(stderr, "%s\n", TF_Message(status));
          std::exit(1);
        }
        TF_DeleteTensor(output);
        ++runs;
      }
    }
    return runs;
  };
  run(now(CLOCK_MONOTONIC) + seconds / 4);
  const double begin = now(CLOCK_PROCESS_CPUTIME_ID);
  const long runs = run(now(CLOCK_MONOTONIC) + seconds);
  std::printf("%.3f\n", (now(CLOCK_PROCESS_CPUTIME_ID) - begin) / static_cast<double>(runs) * 1e6);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, std::string> flags;
  for (int i = 2; i + 1 < argc; i += 2) flags[argv[i]] = argv[i + 1];
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "responder") {
    return Responder(std::atoi(flags["--port"].c_str()),
                     std::strtoul(flags["--answer"].c_str(), nullptr, 10));
  }
  if (mode == "run") {
    return BareRun(flags["--tensorflow"], flags["--model"], flags["--feed"], flags["--fetch"],
                   flags["--shape"], std::atof(flags["--seconds"].c_str()));
  }
  std::fprintf(stderr, "usage: bench_floor responder|run --FLAG VALUE ...\n");
  return 2;
}
