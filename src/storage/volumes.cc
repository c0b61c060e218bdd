#include "storage/volumes.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/ids.h"

namespace takt::storage {
namespace {

using nlohmann::json;

constexpr std::size_t kMaxRecordBytes = 64 << 10;
constexpr std::string_view kRecordSuffix = ".json";

absl::StatusOr<std::string> RealPath(const std::string& path) {
  char buffer[PATH_MAX];
  if (::realpath(path.c_str(), buffer) == nullptr) return ErrnoStatus(errno, path);
  return std::string(buffer);
}

bool IsWithin(std::string_view path, std::string_view root) {
  if (root == "/") return true;
  return path.substr(0, root.size()) == root &&
         (path.size() == root.size() || path[root.size()] == '/');
}

// A directory on another file system than its parent. (A bind mount from the same file system is
// not recognised, and so never missed.)
bool IsMountPoint(const std::string& path) {
  struct stat self {
  }, parent{};
  return ::stat(path.c_str(), &self) == 0 && ::stat((path + "/..").c_str(), &parent) == 0 &&
         (self.st_dev != parent.st_dev || self.st_ino == parent.st_ino);
}

struct Record {
  Volume volume;
  bool mount_point = false;  // `device` was one when the volume was made
  absl::Status damage;       // not OK: the record's file cannot be used
};

std::string ToText(const Record& record) {
  json j = {{"name", record.volume.name},
            {"driver", record.volume.driver},
            {"options", record.volume.options},
            {"created_at", record.volume.created_at},
            {"mount_point", record.mount_point}};
  return j.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

// nullopt when the text is not a record.
std::optional<Record> FromText(const std::string& text, const std::string& name) {
  json j = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!j.is_object()) return std::nullopt;
  auto text_of = [&](const char* key) -> std::string {
    auto it = j.find(key);
    return it != j.end() && it->is_string() ? it->get<std::string>() : "";
  };
  Record record;
  record.volume.name = text_of("name");
  record.volume.driver = text_of("driver");
  record.volume.created_at = text_of("created_at");
  if (record.volume.name != name || record.volume.driver.empty()) return std::nullopt;
  auto options = j.find("options");
  if (options == j.end() || !options->is_object()) return std::nullopt;
  for (const auto& [key, value] : options->items()) {
    if (!value.is_string()) return std::nullopt;
    record.volume.options[key] = value.get<std::string>();
  }
  auto mount_point = j.find("mount_point");
  record.mount_point =
      mount_point != j.end() && mount_point->is_boolean() && mount_point->get<bool>();
  return record;
}

class LocalVolumeStore final : public VolumeStore {
 public:
  LocalVolumeStore(std::string data_dir, std::string runtime_name)
      : data_dir_(std::move(data_dir)),
        root_(JoinPath(data_dir_, "volumes")),
        records_dir_(JoinPath(root_, ".records")),
        trash_dir_(JoinPath(root_, ".trash")),
        runtime_name_(std::move(runtime_name)) {}

  absl::Status Load() {
    TAKT_RETURN_IF_ERROR(MakeDirs(records_dir_));
    TAKT_ASSIGN_OR_RETURN(std::vector<std::string> files, ListDir(records_dir_));
    for (const std::string& file : files) {
      if (file.size() <= kRecordSuffix.size() || !file.ends_with(kRecordSuffix)) continue;
      std::string name = file.substr(0, file.size() - kRecordSuffix.size());
      if (IsValidName(name)) records_[name] = LoadRecord(name);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Volume> Create(const std::string& name, const std::string& driver,
                                const std::map<std::string, std::string>& options) override {
    std::lock_guard lock(mutex_);
    if (!IsValidName(name)) {
      return absl::InvalidArgumentError(
          StrCat("volume \"", name,
                 "\": expected a name of 1 to 63 letters, digits, \"_\", \".\" and \"-\" that "
                 "begins with a letter or a digit"));
    }
    if (auto it = records_.find(name); it != records_.end()) {
      if (!it->second.damage.ok()) return it->second.damage;
      return absl::AlreadyExistsError(StrCat("volume \"", name, "\" exists already"));
    }
    if (records_.size() >= kMaxVolumes) {
      return absl::ResourceExhaustedError(StrCat("volume \"", name, "\": there are ", kMaxVolumes,
                                                 " volumes, the most there may be"));
    }
    Record record;
    record.volume.name = name;
    record.volume.driver = driver.empty() ? "local" : driver;
    record.volume.options = options;
    record.volume.created_at = FormatRfc3339(RealClock().Now());
    TAKT_RETURN_IF_ERROR(CheckDriver(record.volume));
    TAKT_RETURN_IF_ERROR(CheckDevice(record));
    FillPath(record.volume);
    Sweep();
    bool made_directory = false;
    if (!options.contains("device") && !Exists(record.volume.host_path)) {
      TAKT_RETURN_IF_ERROR(MakeDirs(record.volume.host_path));
      made_directory = true;
    }
    if (absl::Status written = WriteFileAtomic(RecordPath(name), ToText(record)); !written.ok()) {
      if (made_directory) RemoveAll(record.volume.host_path).IgnoreError();
      return Annotate(written, StrCat("volume \"", name, "\""));
    }
    records_[name] = record;
    return record.volume;
  }

  absl::StatusOr<Volume> Get(const std::string& name) override {
    std::lock_guard lock(mutex_);
    TAKT_ASSIGN_OR_RETURN(Record record, Find(name));
    return record.volume;
  }

  std::vector<Volume> List() override {
    std::lock_guard lock(mutex_);
    std::vector<Volume> volumes;
    for (const auto& [name, record] : records_) {
      if (record.damage.ok()) volumes.push_back(record.volume);
    }
    return volumes;
  }

  absl::Status Remove(const std::string& name) override {
    std::lock_guard lock(mutex_);
    TAKT_ASSIGN_OR_RETURN(Record record, Find(name));
    Sweep();
    // The record first: a death in between leaves content that nobody lists, never a volume whose
    // content went away.
    TAKT_RETURN_IF_ERROR(RemoveAll(RecordPath(name)));
    records_.erase(name);
    if (record.volume.options.contains("device")) return absl::OkStatus();
    TAKT_RETURN_IF_ERROR(MakeDirs(trash_dir_));
    std::string trash = JoinPath(trash_dir_, StrCat(name, "-", RandomId(8)));
    if (::rename(record.volume.host_path.c_str(), trash.c_str()) != 0 && errno != ENOENT) {
      return ErrnoStatus(errno, StrCat("remove ", record.volume.host_path));
    }
    return RemoveAll(trash);
  }

  absl::Status Ready(const std::string& name) override {
    std::lock_guard lock(mutex_);
    TAKT_ASSIGN_OR_RETURN(Record record, Find(name));
    return ReadyRecord(record);
  }

  absl::StatusOr<std::string> Resolve(const std::string& name,
                                      const std::string& subdirectory) override {
    std::lock_guard lock(mutex_);
    TAKT_ASSIGN_OR_RETURN(Record record, Find(name));
    TAKT_RETURN_IF_ERROR(CheckSubdirectory(name, subdirectory));
    TAKT_RETURN_IF_ERROR(ReadyRecord(record));
    if (!record.volume.options.contains("device")) {
      TAKT_RETURN_IF_ERROR(MakeDirs(record.volume.host_path));
    }
    TAKT_ASSIGN_OR_RETURN(const std::string root, RealPath(record.volume.host_path));
    std::string at = root;
    for (absl::string_view part : absl::StrSplit(ToAbsl(subdirectory), '/', absl::SkipEmpty())) {
      if (part == ".") continue;
      std::string next = JoinPath(at, ToStd(part));
      if (!Exists(next)) {
        TAKT_RETURN_IF_ERROR(MakeDirs(next));
        at = next;
        continue;
      }
      auto real = RealPath(next);
      if (!real.ok() || !IsWithin(*real, root)) {
        return absl::InvalidArgumentError(StrCat("volume \"", name, "\": subdirectory \"",
                                                 subdirectory, "\" leaves the volume: ", next,
                                                 " is a link to elsewhere"));
      }
      if (!IsDirectory(*real)) {
        return absl::InvalidArgumentError(StrCat("volume \"", name, "\": subdirectory \"",
                                                 subdirectory, "\": ", next,
                                                 " is a file, expected a directory"));
      }
      at = *real;
    }
    return at;
  }

 private:
  std::string RecordPath(const std::string& name) const {
    return JoinPath(records_dir_, StrCat(name, kRecordSuffix));
  }

  void FillPath(Volume& volume) const {
    auto device = volume.options.find("device");
    volume.host_path =
        device != volume.options.end() ? CleanPath(device->second) : JoinPath(root_, volume.name);
  }

  Record LoadRecord(const std::string& name) const {
    auto text = ReadFile(RecordPath(name), kMaxRecordBytes);
    std::optional<Record> record = text.ok() ? FromText(*text, name) : std::nullopt;
    if (!record) {
      record.emplace();
      record->volume.name = name;
      record->damage = absl::DataLossError(StrCat(
          "volume \"", name, "\": its record ", RecordPath(name), " cannot be read",
          text.ok() ? "" : StrCat(" (", text.status().message(), ")"),
          "; file and content are kept. Restore the file, or delete it and create the volume "
          "again: the content is taken over"));
      return *record;
    }
    FillPath(record->volume);
    return *record;
  }

  absl::StatusOr<Record> Find(const std::string& name) const {
    auto it = records_.find(name);
    if (it == records_.end()) {
      return absl::NotFoundError(StrCat("there is no volume \"", name, "\""));
    }
    if (!it->second.damage.ok()) return it->second.damage;
    return it->second;
  }

  absl::Status CheckDriver(const Volume& volume) const {
    if (volume.driver == "nfs" || volume.driver == "s3") {
      return absl::UnimplementedError(
          StrCat("volume \"", volume.name, "\": the ", runtime_name_, " runtime has no driver \"",
                 volume.driver,
                 "\"; mount it on this machine and create a local volume with device=DIRECTORY"));
    }
    if (volume.driver != "local") {
      return absl::UnimplementedError(StrCat("volume \"", volume.name, "\": the ", runtime_name_,
                                             " runtime has no driver \"", volume.driver,
                                             "\", only \"local\""));
    }
    for (const auto& [key, value] : volume.options) {
      if (key != "device") {
        return absl::InvalidArgumentError(StrCat("volume \"", volume.name, "\": driver \"local\" ",
                                                 "knows the option device, got ", key));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckDevice(Record& record) const {
    auto option = record.volume.options.find("device");
    if (option == record.volume.options.end()) return absl::OkStatus();
    const std::string& device = option->second;
    auto refuse = [&](std::string_view why) {
      return absl::InvalidArgumentError(
          StrCat("volume \"", record.volume.name, "\": device \"", device, "\": ", why));
    };
    if (device.empty() || device.front() != '/' || device.find('\0') != std::string::npos) {
      return refuse("expected an absolute path");
    }
    if (!Exists(device)) {
      return absl::NotFoundError(
          StrCat("volume \"", record.volume.name, "\": device \"", device, "\" is not there"));
    }
    if (!IsDirectory(device)) return refuse("expected a directory");
    TAKT_ASSIGN_OR_RETURN(std::string real, RealPath(device));
    TAKT_ASSIGN_OR_RETURN(std::string data, RealPath(data_dir_));
    if (IsWithin(data, real)) return refuse("it holds the daemon's own data directory");
    record.mount_point = IsMountPoint(real);
    return absl::OkStatus();
  }

  static absl::Status ReadyRecord(const Record& record) {
    if (!record.volume.options.contains("device")) return absl::OkStatus();
    const std::string& path = record.volume.host_path;
    if (!IsDirectory(path) || (record.mount_point && !IsMountPoint(path))) {
      return absl::UnavailableError(StrCat(path, " is not mounted"));
    }
    if (::access(path.c_str(), R_OK | X_OK) != 0) {
      return absl::UnavailableError(
          StrCat(path, " cannot be read: ", ErrnoStatus(errno, path).message()));
    }
    return absl::OkStatus();
  }

  // Removes what a death in mid-write left behind. Only before a change, never at opening: until
  // then another daemon may have the directory.
  void Sweep() {
    if (std::exchange(swept_, true)) return;
    auto files = ListDir(records_dir_);
    if (files.ok()) {
      for (const std::string& file : *files) {
        if (file.find(".json.tmp-") != std::string::npos) {
          RemoveAll(JoinPath(records_dir_, file)).IgnoreError();
        }
      }
    }
    RemoveAll(trash_dir_).IgnoreError();
  }

  const std::string data_dir_, root_, records_dir_, trash_dir_, runtime_name_;
  std::mutex mutex_;
  std::map<std::string, Record> records_;
  bool swept_ = false;
};

}  // namespace

absl::Status CheckSubdirectory(const std::string& name, const std::string& subdirectory) {
  auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        StrCat("volume \"", name, "\": subdirectory \"", subdirectory, "\" ", why));
  };
  if (subdirectory.size() > kMaxSubdirectoryBytes) {
    return absl::InvalidArgumentError(StrCat("volume \"", name, "\": a subdirectory has at most ",
                                             kMaxSubdirectoryBytes, " bytes, got ",
                                             subdirectory.size()));
  }
  if (!subdirectory.empty() && subdirectory.front() == '/') return refuse("is not relative");
  if (subdirectory.find('\0') != std::string::npos) return refuse("holds a NUL byte");
  for (absl::string_view part : absl::StrSplit(ToAbsl(subdirectory), '/')) {
    if (part == "..") return refuse("leaves the volume");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<VolumeStore>> VolumeStore::Open(const std::string& data_dir,
                                                               const std::string& runtime_name) {
  auto store = std::make_unique<LocalVolumeStore>(data_dir, runtime_name);
  TAKT_RETURN_IF_ERROR(store->Load());
  return store;
}

}  // namespace takt::storage
