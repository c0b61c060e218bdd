// Models in an object store: base paths "s3://bucket/prefix". Versions are copied to this machine
// when they are complete there, and loaded from the copy. Requests are signed by libcurl (AWS
// signature 4).
//
// Credentials and place come from the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
// AWS_SESSION_TOKEN, AWS_REGION (or AWS_DEFAULT_REGION), and for stores other than Amazon's
// AWS_ENDPOINT_URL (or S3_ENDPOINT with S3_USE_HTTPS, as TensorFlow has it), S3_VERIFY_SSL.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/fs.h"
#include "base/status.h"
#include "serving/lifecycle/model_storage.h"

namespace takt::serving {

inline constexpr std::size_t kMaxListingBytes = std::size_t{8} << 20;  // one page of a listing

struct S3Options {
  std::string access_key;  // "" = anonymous
  std::string secret_key;
  std::string session_token;
  std::string region = "us-east-1";
  std::string endpoint;  // "http://host:port"; "" = Amazon's, one host a bucket
  bool verify_tls = true;
  int timeout_seconds = 60;  // without a byte
};
// From a look-up such as getenv; null means unset.
S3Options S3OptionsFromEnvironment(const std::function<const char*(const char*)>& get);

struct S3Object {
  std::string key;
  std::uint64_t bytes = 0;
  std::string etag;
};
struct S3Listing {
  std::vector<S3Object> objects;
  std::vector<std::string> prefixes;  // "a/b/", up to the delimiter
  std::string next;                   // token of the next page, "" = this was the last
};
// The answer of ListObjectsV2. INVALID_ARGUMENT when it is none.
absl::StatusOr<S3Listing> ParseS3Listing(std::string_view xml);

class S3ModelStorage final : public ModelStorage {
 public:
  explicit S3ModelStorage(S3Options options);
  absl::StatusOr<std::map<std::int64_t, std::string>> ListVersions(
      const std::string& base_path) override;
  // Always of now: whether objects are at rest is judged by watching them.
  absl::StatusOr<VersionFingerprint> Fingerprint(const std::string& version_path) override;
  // Copies what has changed since it was last copied, then judges the copy.
  absl::Status CheckComplete(const std::string& version_path) override;
  absl::StatusOr<std::string> Localize(const std::string& version_path) override;

 private:
  struct Place {
    std::string bucket;
    std::string prefix;  // without slashes at its ends
  };
  struct Copied {
    std::mutex mutex;  // one copy of a version at a time
    std::string directory;
    std::map<std::string, std::string> etags;  // by key
  };
  static absl::StatusOr<Place> Parse(const std::string& path);
  // `query`: pairs, sorted by name. Writes the answer to `to_file`, or returns it.
  absl::StatusOr<std::string> Get(const Place& place, const std::string& key,
                                  const std::vector<std::pair<std::string, std::string>>& query,
                                  const std::string& to_file) const;
  absl::StatusOr<S3Listing> List(const Place& place, const std::string& prefix,
                                 bool delimited) const;

  const S3Options options_;
  TempDir cache_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Copied>> copies_;  // by version path
};

}  // namespace takt::serving
