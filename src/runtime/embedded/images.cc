#include "runtime/embedded/images.h"

#include <fnmatch.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "base/fs.h"
#include "base/text.h"

namespace takt::runtime {
namespace {

using Json = nlohmann::json;

std::string Lower(std::string text) {
  absl::AsciiStrToLower(&text);
  return text;
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void Update(const char* data, std::size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  // With its length, so that two texts in a row mean one thing.
  void Update(const std::string& text) {
    const std::string size = StrCat(text.size(), ":");
    Update(size.data(), size.size());
    Update(text.data(), text.size());
  }
  std::string Hex() {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), bytes, &size);
    return absl::BytesToHexString({reinterpret_cast<const char*>(bytes), size});
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// One entry, field by field; the first thing wrong is kept.
class EntryReader {
 public:
  EntryReader(const Json& json, std::string where, const std::string& prefix)
      : json_(json), where_(std::move(where)), prefix_(prefix) {}

  absl::StatusOr<Image> Read() {
    if (!json_.is_object()) return Wrong("", "an object", json_);
    static const std::vector<std::string_view> kKeys = {
        "names",      "role",    "root",        "programs", "path",        "mounts",
        "entrypoint", "command", "environment", "inherit",  "working_dir", "user"};
    for (const auto& [key, value] : json_.items()) {
      if (std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end()) continue;
      const auto near = NearMiss(key, kKeys);
      return absl::FailedPreconditionError(
          StrCat(where_, ": unknown key \"", key, "\"",
                 near ? StrCat(", did you mean \"", *near, "\"?") : ""));
    }
    Image image;
    TAKT_ASSIGN_OR_RETURN(const auto names, Texts("names"));
    if (!names || names->empty()) {
      return absl::FailedPreconditionError(StrCat(where_, ": expected \"names\", got none"));
    }
    image.names = *names;
    TAKT_RETURN_IF_ERROR(Text("role", image.role));
    TAKT_RETURN_IF_ERROR(Text("root", image.root));
    TAKT_RETURN_IF_ERROR(Text("working_dir", image.working_dir));
    TAKT_RETURN_IF_ERROR(Text("user", image.user));
    if (image.root != "host") image.root = Absolute(image.root);
    TAKT_ASSIGN_OR_RETURN(image.entrypoint, Texts("entrypoint"));
    TAKT_ASSIGN_OR_RETURN(image.command, Texts("command"));
    TAKT_ASSIGN_OR_RETURN(image.environment, Map("environment"));
    TAKT_ASSIGN_OR_RETURN(const auto inherit, Texts("inherit"));
    if (inherit) image.inherit = *inherit;
    TAKT_ASSIGN_OR_RETURN(image.mounts, Map("mounts"));
    for (auto& [target, source] : image.mounts) source = Absolute(source);
    TAKT_ASSIGN_OR_RETURN(const auto path, Texts("path"));
    if (path) {
      for (const std::string& directory : *path) image.path.push_back(Absolute(directory));
    }
    if (const auto it = json_.find("programs"); it != json_.end()) {
      if (!it->is_object()) return Wrong("programs", "an object", *it);
      for (const auto& [name, value] : it->items()) {
        ImageProgram program;
        program.path = name;
        if (value.is_string()) {
          program.file = Absolute(value.get<std::string>());
        } else if (value.is_object() && value.contains("file") && value["file"].is_string() &&
                   value.contains("role") && value["role"].is_string() && value.size() == 2) {
          program.file = Absolute(value["file"].get<std::string>());
          program.role = value["role"].get<std::string>();
        } else {
          return Wrong(StrCat("programs.", name), "a path or {\"file\", \"role\"}", value);
        }
        image.programs.push_back(std::move(program));
      }
    }
    for (const std::string* path_in_root : {&image.working_dir}) {
      if (!path_in_root->empty() && path_in_root->front() != '/') {
        return absl::FailedPreconditionError(
            StrCat(where_, ": expected an absolute path, got \"", *path_in_root, "\""));
      }
    }
    image.canonical = json_.dump(-1, ' ', true, Json::error_handler_t::replace);
    return image;
  }

 private:
  absl::Status Wrong(const std::string& key, const std::string& expected, const Json& got) const {
    return absl::FailedPreconditionError(
        StrCat(where_, key.empty() ? "" : ".", key, ": expected ", expected, ", got ",
               got.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 60)));
  }
  std::string Absolute(const std::string& path) const {
    return CleanPath(!path.empty() && path.front() == '/' ? path : JoinPath(prefix_, path));
  }
  absl::Status Text(const char* key, std::string& to) const {
    const auto it = json_.find(key);
    if (it == json_.end()) return absl::OkStatus();
    if (!it->is_string()) return Wrong(key, "a text", *it);
    to = it->get<std::string>();
    return absl::OkStatus();
  }
  absl::StatusOr<std::optional<std::vector<std::string>>> Texts(const char* key) const {
    std::optional<std::vector<std::string>> result;
    const auto it = json_.find(key);
    if (it == json_.end()) return result;
    result.emplace();
    if (!it->is_array()) return Wrong(key, "a list of texts", *it);
    for (const Json& item : *it) {
      if (!item.is_string()) return Wrong(key, "a list of texts", item);
      result->push_back(item.get<std::string>());
    }
    return result;
  }
  absl::StatusOr<std::map<std::string, std::string>> Map(const char* key) const {
    std::map<std::string, std::string> result;
    const auto it = json_.find(key);
    if (it == json_.end()) return result;
    if (!it->is_object()) return Wrong(key, "an object of texts", *it);
    for (const auto& [name, value] : it->items()) {
      if (!value.is_string()) return Wrong(StrCat(key, ".", name), "a text", value);
      result[name] = value.get<std::string>();
    }
    return result;
  }

  const Json& json_;
  std::string where_;
  const std::string& prefix_;
};

// Changes whenever the file does: a clock tick may hold two writes, so the size and the file's
// number count too.
std::int64_t Stamp(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return 0;
  std::uint64_t stamp = 1;
  for (const auto part :
       {static_cast<std::uint64_t>(info.st_mtim.tv_sec),
        static_cast<std::uint64_t>(info.st_mtim.tv_nsec), static_cast<std::uint64_t>(info.st_size),
        static_cast<std::uint64_t>(info.st_ino)}) {
    stamp = (stamp ^ part) * 0x100000001b3u;
  }
  return static_cast<std::int64_t>(stamp | 1);
}

}  // namespace

absl::StatusOr<std::vector<Image>> ParseImages(const std::string& text, const std::string& where,
                                               const std::string& prefix) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return absl::FailedPreconditionError(StrCat(where, " is not JSON"));
  if (!json.is_object() || !json.contains("images") || !json["images"].is_array() ||
      json.size() != 1) {
    return absl::FailedPreconditionError(
        StrCat(where, ": expected {\"images\": [...]} and nothing else"));
  }
  std::vector<Image> images;
  for (const Json& entry : json["images"]) {
    TAKT_ASSIGN_OR_RETURN(
        Image image,
        EntryReader(entry, StrCat(where, ": images[", images.size(), "]"), prefix).Read());
    image.source = where;
    images.push_back(std::move(image));
  }
  return images;
}

bool ImageMatches(const std::string& pattern_text, const std::string& name_text) {
  const std::string pattern = Lower(pattern_text);
  std::string name = Lower(name_text.substr(0, name_text.find('@')));
  const auto tag_at = [](const std::string& text) {
    const std::size_t colon = text.rfind(':');
    return colon == std::string::npos || text.find('/', colon) != std::string::npos ? text.size()
                                                                                    : colon;
  };
  // A pattern without a tag takes any.
  const bool with_tag = tag_at(pattern) < pattern.size();
  if (!with_tag) {
    name.resize(tag_at(name));
  } else if (tag_at(name) == name.size()) {
    name += ":latest";
  }
  if (fnmatch(pattern.c_str(), name.c_str(), FNM_PATHNAME) == 0) return true;
  const std::size_t slash = name.find('/');
  if (slash == std::string::npos) return false;
  const std::string registry = name.substr(0, slash);
  if (registry.find_first_of(".:") == std::string::npos && registry != "localhost") return false;
  std::string rest = name.substr(slash + 1);
  if (fnmatch(pattern.c_str(), rest.c_str(), FNM_PATHNAME) == 0) return true;
  // Docker Hub's own images.
  return rest.rfind("library/", 0) == 0 &&
         fnmatch(pattern.c_str(), rest.c_str() + 8, FNM_PATHNAME) == 0;
}

const ImageProgram* FindProgram(const Image& image, const std::string& argument) {
  for (const ImageProgram& p : image.programs) {
    if (p.path == argument) return &p;
  }
  if (argument.empty() || argument.front() != '/') return nullptr;
  const std::string lower = Lower(argument);
  for (const ImageProgram& p : image.programs) {
    if (Lower(p.path) == lower) return &p;
  }
  return nullptr;
}

ImageCatalogue::ImageCatalogue(std::string prefix, const std::string& data_dir)
    : prefix_(std::move(prefix)), user_file_(JoinPath(data_dir, "images.json")) {
  sources_[0].path = user_file_;
  sources_[1].path = JoinPath(prefix_, "share/takt/images.json");
}

absl::Status ImageCatalogue::Reload(Source& source) {
  const std::int64_t stamp = Stamp(source.path);
  if (stamp == source.stamp) return source.status;
  source.stamp = stamp;
  source.images.clear();
  source.status = absl::OkStatus();
  if (stamp == 0) return source.status;
  const absl::StatusOr<std::string> text = ReadFile(source.path, kMaxCatalogueBytes);
  if (!text.ok()) return source.status = Annotate(text.status(), "image catalogue");
  auto images = ParseImages(*text, source.path, prefix_);
  if (!images.ok()) return source.status = images.status();
  source.images = *std::move(images);
  return source.status;
}

absl::StatusOr<std::vector<Image>> ImageCatalogue::List() {
  std::lock_guard lock(mutex_);
  std::vector<Image> all;
  for (Source& source : sources_) {
    TAKT_RETURN_IF_ERROR(Reload(source));
    all.insert(all.end(), source.images.begin(), source.images.end());
  }
  return all;
}

absl::StatusOr<Image> ImageCatalogue::Find(const std::string& name) {
  std::lock_guard lock(mutex_);
  for (Source& source : sources_) {
    TAKT_RETURN_IF_ERROR(Reload(source));
    for (const Image& image : source.images) {
      const auto is = [&](const std::string& pattern) { return ImageMatches(pattern, name); };
      if (std::none_of(image.names.begin(), image.names.end(), is)) continue;
      const auto missing = [&](const std::string& what) {
        return absl::FailedPreconditionError(StrCat("image \"", name, "\" of ", image.source,
                                                    " needs ", what, ", which is not there"));
      };
      if (image.root != "host" && !IsDirectory(image.root)) return missing(image.root);
      for (const ImageProgram& p : image.programs) {
        if (!Exists(p.file)) return missing(p.file);
      }
      for (const auto& [target, file] : image.mounts) {
        if (!Exists(file)) return missing(file);
      }
      return image;
    }
  }
  return absl::NotFoundError(StrCat(
      "there is no image \"", name, "\" on this machine, and the embedded runtime pulls none; add ",
      "it to ", user_file_, ", for example {\"images\": [{\"names\": [\"", name,
      "\"], \"root\": \"host\"}]} to run its commands on this machine's own system, or \"root\": ",
      "\"/a/directory\" with an unpacked image; the docker runtime pulls images"));
}

absl::StatusOr<std::string> ImageCatalogue::Digest(const Image& image) {
  Sha256 all;
  all.Update(image.canonical);
  std::set<std::string> files;
  for (const ImageProgram& p : image.programs) files.insert(p.file);
  for (const auto& [target, file] : image.mounts) files.insert(file);
  for (const std::string& file : files) {
    struct stat info {};
    if (stat(file.c_str(), &info) != 0) return ErrnoStatus(errno, file);
    all.Update(file);
    if (!S_ISREG(info.st_mode)) continue;
    const std::string key = StrCat(file, " ", info.st_ino, " ", info.st_size, " ", Stamp(file));
    std::string digest;
    {
      std::lock_guard lock(mutex_);
      if (const auto it = file_digests_.find(key); it != file_digests_.end()) digest = it->second;
    }
    if (digest.empty()) {
      std::ifstream in(file, std::ios::binary);
      if (!in) return absl::PermissionDeniedError(StrCat(file, " cannot be read"));
      Sha256 content;
      std::vector<char> buffer(1 << 16);
      while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) ||
             in.gcount() > 0) {
        content.Update(buffer.data(), static_cast<std::size_t>(in.gcount()));
      }
      digest = content.Hex();
      std::lock_guard lock(mutex_);
      file_digests_[key] = digest;
    }
    all.Update(digest);
  }
  return StrCat("sha256:", all.Hex());
}

}  // namespace takt::runtime
