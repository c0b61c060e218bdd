#include "serving/lifecycle/version_files.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/fs.h"
#include "base/tfrecord.h"
#include "tensorflow/core/framework/graph.pb.h"
#include "tensorflow/core/framework/node_def.pb.h"
#include "tensorflow/core/protobuf/saved_model.pb.h"
#include "tensorflow/core/protobuf/tensor_bundle.pb.h"

namespace takt::serving {
namespace {

constexpr std::size_t kMaxManifestBytes = std::size_t{16} << 20;
constexpr int kMaxDepth = 16;

// The mask that TensorFlow puts on a checksum, as in base/tfrecord.h.
std::uint32_t MaskCrc(std::uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

absl::Status Incomplete(std::string_view path, std::string_view what) {
  return absl::FailedPreconditionError(StrCat(path, ": ", what));
}

absl::Status Walk(const std::string& root, const std::string& relative, int depth,
                  std::size_t* count, VersionFingerprint* out) {
  const std::string directory = JoinPath(root, relative);
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(directory));
  for (const std::string& name : names) {
    const std::string child = relative.empty() ? name : JoinPath(relative, name);
    if (++*count > kMaxVersionFiles) {
      return absl::ResourceExhaustedError(
          StrCat(root, ": more than ", kMaxVersionFiles, " files in one version"));
    }
    struct stat info {};
    const std::string path = JoinPath(root, child);
    // A file that goes away between listing and stat is a change like any other.
    if (stat(path.c_str(), &info) != 0) {
      absl::StrAppend(&out->text, child, " ?\n");
      continue;
    }
    const auto changed = std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(
            std::chrono::seconds(info.st_mtim.tv_sec) +
            std::chrono::nanoseconds(info.st_mtim.tv_nsec)));
    out->newest_change = std::max(out->newest_change, changed);
    if (S_ISDIR(info.st_mode)) {
      if (depth >= kMaxDepth) continue;
      TAKT_RETURN_IF_ERROR(Walk(root, child, depth + 1, count, out));
    } else if (!S_ISREG(info.st_mode)) {
      // A pipe would never be read to its end, a device has none.
      return Incomplete(path, "neither a file nor a directory");
    } else {
      absl::StrAppend(&out->text, child, " ", info.st_size, " ", info.st_mtim.tv_sec, ".",
                      info.st_mtim.tv_nsec, "\n");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSize(const std::string& path, std::uint64_t bytes) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return Incomplete(path, StrCat("missing, expected ", bytes, " bytes"));
  }
  if (static_cast<std::uint64_t>(info.st_size) != bytes) {
    return Incomplete(path, StrCat("expected ", bytes, " bytes, got ", info.st_size));
  }
  return absl::OkStatus();
}

absl::Status CheckManifest(const std::string& path) {
  const std::string manifest_path = JoinPath(path, kManifestName);
  TAKT_ASSIGN_OR_RETURN(const std::string text, ReadFile(manifest_path, kMaxManifestBytes));
  const nlohmann::json manifest = nlohmann::json::parse(text, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_array()) {
    return Incomplete(manifest_path, "is not a whole manifest");
  }
  for (const nlohmann::json& file : manifest["files"]) {
    if (!file.is_object() || !file.contains("path") || !file["path"].is_string() ||
        !file.contains("bytes") || !file["bytes"].is_number_unsigned()) {
      return Incomplete(manifest_path, R"(each file needs a "path" and its "bytes")");
    }
    TAKT_RETURN_IF_ERROR(CheckSize(JoinPath(path, file["path"].get_ref<const std::string&>()),
                                   file["bytes"].get<std::uint64_t>()));
  }
  return absl::OkStatus();
}

// Reader for the sorted-table file that tensor bundles keep their index in. Layout as documented in
// TensorFlow's table format (LevelDB's): blocks of prefix-compressed entries, each followed by a
// type byte and a masked checksum; at the end 48 bytes of footer with the index block's place.
class IndexTable {
 public:
  explicit IndexTable(std::string_view file) : file_(file) {}

  // Calls visit(key, value) for each entry in order; stops at the first error.
  template <typename Visit>
  absl::Status ForEach(const Visit& visit) const {
    if (file_.size() < kFooterBytes) return Bad("shorter than its footer");
    std::string_view footer = file_.substr(file_.size() - kFooterBytes);
    std::uint64_t magic = 0;
    std::memcpy(&magic, footer.data() + kFooterBytes - 8, 8);
    if (magic != kMagic) return Bad("the footer has no table mark");
    std::uint64_t unused = 0;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    if (!Varint(&footer, &unused) || !Varint(&footer, &unused) || !Varint(&footer, &offset) ||
        !Varint(&footer, &size)) {
      return Bad("the footer is damaged");
    }
    TAKT_ASSIGN_OR_RETURN(const std::string_view index, Block(offset, size));
    return Entries(index, [&](const std::string&, std::string_view handle) -> absl::Status {
      std::uint64_t block_offset = 0;
      std::uint64_t block_size = 0;
      if (!Varint(&handle, &block_offset) || !Varint(&handle, &block_size)) {
        return Bad("a block's place is damaged");
      }
      TAKT_ASSIGN_OR_RETURN(const std::string_view block, Block(block_offset, block_size));
      return Entries(block, visit);
    });
  }

 private:
  static constexpr std::size_t kFooterBytes = 48;
  static constexpr std::size_t kTrailerBytes = 5;
  static constexpr std::uint64_t kMagic = 0xdb4775248b80fb57u;

  static absl::Status Bad(std::string_view what) {
    return absl::FailedPreconditionError(StrCat("not a whole index: ", what));
  }

  static bool Varint(std::string_view* in, std::uint64_t* out) {
    *out = 0;
    for (int shift = 0; shift < 64 && !in->empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(in->front());
      in->remove_prefix(1);
      *out |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  absl::StatusOr<std::string_view> Block(std::uint64_t offset, std::uint64_t size) const {
    if (offset > file_.size() || size > file_.size() - offset ||
        file_.size() - offset - size < kTrailerBytes) {
      return Bad("a block lies outside the file");
    }
    const std::string_view with_type = file_.substr(offset, size + 1);
    std::uint32_t crc = 0;
    std::memcpy(&crc, file_.data() + offset + size + 1, 4);
    if (MaskCrc(Crc32c(with_type)) != crc) return Bad("a block's checksum does not fit");
    if (with_type.back() != 0) return Bad("a block is compressed, which bundles never are");
    return with_type.substr(0, size);
  }

  template <typename Visit>
  static absl::Status Entries(std::string_view block, const Visit& visit) {
    std::uint32_t restarts = 0;
    if (block.size() < 4) return Bad("a block is too short");
    std::memcpy(&restarts, block.data() + block.size() - 4, 4);
    if (restarts > (block.size() - 4) / 4) return Bad("a block's restarts are damaged");
    block.remove_suffix(4 + std::size_t{4} * restarts);
    std::string key;
    while (!block.empty()) {
      std::uint64_t shared = 0;
      std::uint64_t fresh = 0;
      std::uint64_t length = 0;
      if (!Varint(&block, &shared) || !Varint(&block, &fresh) || !Varint(&block, &length) ||
          shared > key.size() || fresh > block.size() || length > block.size() - fresh) {
        return Bad("an entry is damaged");
      }
      key.resize(shared);
      key.append(block.substr(0, fresh));
      TAKT_RETURN_IF_ERROR(visit(key, block.substr(fresh, length)));
      block.remove_prefix(fresh + length);
    }
    return absl::OkStatus();
  }

  std::string_view file_;
};

absl::Status CheckVariables(const std::string& variables) {
  const std::string index_path = JoinPath(variables, "variables.index");
  if (!Exists(index_path)) return Incomplete(index_path, "missing");
  TAKT_ASSIGN_OR_RETURN(const std::string file, ReadFile(index_path, kMaxIndexBytes));
  const absl::StatusOr<std::vector<std::uint64_t>> shards = ShardSizesOfIndex(file);
  if (!shards.ok()) return Incomplete(index_path, ToStd(shards.status().message()));
  for (std::size_t i = 0; i < shards->size(); ++i) {
    const std::string shard =
        JoinPath(variables, absl::StrFormat("variables.data-%05d-of-%05d", i, shards->size()));
    TAKT_RETURN_IF_ERROR(CheckSize(shard, (*shards)[i]));
  }
  return absl::OkStatus();
}

bool HasVariables(const tensorflow::SavedModel& saved_model) {
  const auto is_variable = [](const tensorflow::NodeDef& node) {
    return node.op() == "VarHandleOp" || node.op() == "VariableV2" || node.op() == "Variable";
  };
  for (const tensorflow::MetaGraphDef& graph : saved_model.meta_graphs()) {
    for (const tensorflow::NodeDef& node : graph.graph_def().node()) {
      if (is_variable(node)) return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<std::vector<std::uint64_t>> ShardSizesOfIndex(std::string_view file) {
  int shards = 0;
  std::vector<std::uint64_t> ends;
  TAKT_RETURN_IF_ERROR(
      IndexTable(file).ForEach([&](const std::string& key, std::string_view value) -> absl::Status {
        if (key.empty()) {
          tensorflow::BundleHeaderProto header;
          if (!header.ParseFromArray(value.data(), static_cast<int>(value.size())) ||
              header.num_shards() < 1 || header.num_shards() > 100000) {
            return absl::FailedPreconditionError("not a whole index: the header does not parse");
          }
          shards = header.num_shards();
          ends.resize(static_cast<std::size_t>(shards));
          return absl::OkStatus();
        }
        tensorflow::BundleEntryProto entry;
        if (!entry.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
          return absl::FailedPreconditionError(
              StrCat("not a whole index: entry \"", key, "\" does not parse"));
        }
        if (entry.shard_id() < 0 || entry.shard_id() >= shards || entry.offset() < 0 ||
            entry.size() < 0) {
          return absl::FailedPreconditionError(
              StrCat("entry \"", key, "\" names shard ", entry.shard_id(), " of ", shards));
        }
        std::uint64_t& end = ends[static_cast<std::size_t>(entry.shard_id())];
        end = std::max(end, static_cast<std::uint64_t>(entry.offset()) +
                                static_cast<std::uint64_t>(entry.size()));
        return absl::OkStatus();
      }));
  if (shards == 0) return absl::FailedPreconditionError("not a whole index: it has no header");
  return ends;
}

absl::StatusOr<VersionFingerprint> FingerprintVersion(const std::string& path) {
  if (!IsDirectory(path)) return absl::NotFoundError(StrCat(path, ": no such directory"));
  VersionFingerprint fingerprint;
  std::size_t count = 0;
  TAKT_RETURN_IF_ERROR(Walk(path, "", 0, &count, &fingerprint));
  return fingerprint;
}

absl::Status CheckVersionComplete(const std::string& path) {
  if (Exists(JoinPath(path, kManifestName))) return CheckManifest(path);
  bool has_variables = false;
  const std::string graph_path = JoinPath(path, "saved_model.pb");
  if (!Exists(graph_path)) {
    if (Exists(JoinPath(path, "saved_model.pbtxt"))) {
      // The text form can only be judged by loading it.
    } else {
      return Incomplete(graph_path, "missing");
    }
  } else {
    TAKT_ASSIGN_OR_RETURN(const std::string graph, ReadFile(graph_path, kMaxGraphBytes));
    tensorflow::SavedModel saved_model;
    if (!saved_model.ParseFromString(graph) || saved_model.meta_graphs_size() == 0) {
      return Incomplete(graph_path, StrCat("its ", graph.size(), " bytes are not a whole graph"));
    }
    has_variables = HasVariables(saved_model);
  }
  // Exporters leave the directory out, or empty, only where the graph has no variables. Otherwise
  // its absence means that the copy has not come so far.
  const std::string variables = JoinPath(path, "variables");
  if (!has_variables) {
    if (!IsDirectory(variables)) return absl::OkStatus();
    TAKT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(variables));
    if (names.empty()) return absl::OkStatus();
  }
  return CheckVariables(variables);
}

}  // namespace takt::serving
