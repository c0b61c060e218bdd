// A fuzzer without a fuzzing engine: feeds LLVMFuzzerTestOneInput with every file of the
// directories given, then with mutations of them from a fixed seed. What goes wrong ends the
// process; the input at work is then in the file named on standard error. Usage: NAME DIRECTORY...
// [--mutations N] [--seed N]
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

constexpr std::size_t kMaxInputBytes = 1 << 16;

class Mutator {
 public:
  Mutator(std::uint64_t seed, const std::vector<std::string>& seeds)
      : random_(seed), seeds_(seeds) {}

  std::string Next() {
    std::string text = Any();
    for (std::size_t changes = 1 + Below(6); changes > 0; --changes) Change(text);
    if (text.size() > kMaxInputBytes) text.resize(kMaxInputBytes);
    return text;
  }

 private:
  std::size_t Below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  const std::string& Any() { return seeds_[Below(seeds_.size())]; }

  void Change(std::string& text) {
    const std::size_t at = Below(text.size() + 1);
    const std::size_t length = Below(std::min<std::size_t>(text.size() - at, 64) + 1);
    switch (Below(6)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(Below(256));
        return;
      case 1:
        text.erase(at, length);
        return;
      case 2:
        text.insert(at, 1 + Below(4), "{}[]:,-&*!|>'\"%@`#?$\n\t ~<0"[Below(27)]);
        return;
      case 3:  // a piece of itself, many times
        for (std::size_t i = Below(20); i > 0; --i) text.insert(at, text.substr(at, length));
        return;
      case 4: {  // a piece of another
        const std::string& other = Any();
        const std::size_t from = Below(other.size() + 1);
        text.insert(at, other.substr(from, Below(200)));
        return;
      }
      default:
        text.resize(at);
    }
  }

  std::mt19937_64 random_;
  const std::vector<std::string>& seeds_;
};

}  // namespace

int main(int argc, char** argv) {
  std::size_t mutations = 3000;
  std::uint64_t seed = 1;
  std::vector<std::string> seeds;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--mutations" && i + 1 < argc) {
      mutations = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--seed" && i + 1 < argc) {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else {
      std::error_code error;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argument, error)) {
        if (!entry.is_regular_file()) continue;
        std::ifstream stream(entry.path(), std::ios::binary);
        seeds.emplace_back(std::istreambuf_iterator<char>(stream),
                           std::istreambuf_iterator<char>());
      }
    }
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "no seeds: expected directories with files\n");
    return 2;
  }
  const std::string at_work =
      (std::filesystem::temp_directory_path() / ("fuzz-" + std::to_string(::getpid()))).string();
  std::fprintf(stderr, "%zu seeds, %zu mutations from seed %llu; a crash leaves its input in %s\n",
               seeds.size(), mutations, static_cast<unsigned long long>(seed), at_work.c_str());
  const auto run = [&](const std::string& input) {
    std::ofstream(at_work, std::ios::binary | std::ios::trunc) << input;
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  };
  for (const std::string& input : seeds) run(input);
  Mutator mutator(seed, seeds);
  for (std::size_t i = 0; i < mutations; ++i) run(mutator.Next());
  std::filesystem::remove(at_work);
  return 0;
}
