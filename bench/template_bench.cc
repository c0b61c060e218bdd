// A template of 2,000 lines, from text to AppSpec and canonical JSON.
// Usage: template_bench [--json FILE]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/str.h"
#include "bench/report.h"
#include "template/template.h"

namespace takt {
namespace {

constexpr int kLines = 2000;
constexpr int kRuns = 101;

// Services as people write them: variables, anchors, lists, labels.
std::string MakeTemplate() {
  std::string text =
      "version: \"3.8\"\n"
      "x-common: &common\n"
      "  restart: always\n"
      "  logging: {driver: json-file, options: {max-size: 10m}}\n"
      "services:\n"
      "  db: {image: \"postgres:${PG:-15}\"}\n";
  for (int i = 0; std::count(text.begin(), text.end(), '\n') < kLines - 20; ++i) {
    text += StrCat("  web", i, ":\n",
                   "    <<: *common\n"
                   "    image: registry.example.com/team/web:${TAG:-1.2.3}\n"
                   "    command: [\"python\", \"app.py\", \"--port=${PORT:-8080}\"]\n"
                   "    environment:\n"
                   "      - A=1\n"
                   "      - DB_HOST=${DB_HOST:-db}\n"
                   "      - CUDA_VISIBLE_DEVICES=-1\n"
                   "    ports:\n      - \"",
                   8000 + i, ":80\"\n",
                   "    volumes:\n"
                   "      - data:/data\n"
                   "      - ./conf:/etc/conf:ro\n"
                   "    labels:\n"
                   "      - aliyun.log_store_web=stdout\n"
                   "      - aliyun.log_ttl_web=30\n"
                   "    depends_on:\n"
                   "      db: {condition: service_started}\n"
                   "    healthcheck:\n"
                   "      test: curl -f localhost\n"
                   "      interval: 1m30s\n");
  }
  while (std::count(text.begin(), text.end(), '\n') < kLines) text += "# the end\n";
  return text;
}

int Run(int argc, char** argv) {
  bench::Report report(argc, argv);
  const std::string text = MakeTemplate();
  templates::LoadOptions options;
  std::vector<double> milliseconds;
  std::size_t services = 0;
  for (int i = 0; i < kRuns; ++i) {
    const bench::StopWatch watch;
    const templates::LoadResult result = templates::LoadTemplate(text, options);
    milliseconds.push_back(watch.seconds() * 1e3);
    if (!result.ok()) {
      std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
      return EXIT_FAILURE;
    }
    services = result.spec.services.size();
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  report.Add("template of 2,000 lines: services", static_cast<double>(services), "");
  report.Add("template of 2,000 lines: median", milliseconds[kRuns / 2], "ms");
  report.Add("template of 2,000 lines: slowest of 101", milliseconds.back(), "ms");
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace takt

int main(int argc, char** argv) { return takt::Run(argc, argv); }
