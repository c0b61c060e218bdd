#include "serving/lifecycle/s3_storage.h"

#include <curl/curl.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <optional>
#include <set>

#include "absl/strings/str_split.h"
#include "base/ids.h"
#include "net/http_client.h"
#include "serving/lifecycle/version_policy.h"

namespace takt::serving {
namespace {

// SHA-256 of nothing: every request here is a GET.
constexpr const char* kEmptyPayload =
    "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr std::string_view kScheme = "s3://";

// &lt; and the other four, and numbers.
std::string Unescaped(std::string_view text) {
  constexpr std::pair<std::string_view, char> kNames[] = {
      {"&amp;", '&'},   {"&lt;", '<'},  {"&gt;", '>'},  {"&quot;", '"'},
      {"&apos;", '\''}, {"&#34;", '"'}, {"&#39;", '\''}};
  std::string out;
  while (!text.empty()) {
    bool found = false;
    for (const auto& [name, c] : kNames) {
      if (!text.starts_with(name)) continue;
      out.push_back(c);
      text.remove_prefix(name.size());
      found = true;
      break;
    }
    if (found) continue;
    out.push_back(text.front());
    text.remove_prefix(1);
  }
  return out;
}

// The text between <name> and </name> at or after *at, which moves behind it.
std::optional<std::string_view> Element(std::string_view xml, std::string_view name,
                                        std::size_t* at) {
  const std::string open = StrCat("<", name, ">");
  const std::string close = StrCat("</", name, ">");
  const std::size_t begin = xml.find(open, *at);
  if (begin == std::string_view::npos) return std::nullopt;
  const std::size_t end = xml.find(close, begin);
  if (end == std::string_view::npos) return std::nullopt;
  *at = end + close.size();
  return xml.substr(begin + open.size(), end - begin - open.size());
}

std::string ElementText(std::string_view xml, std::string_view name) {
  std::size_t at = 0;
  const std::optional<std::string_view> text = Element(xml, name, &at);
  return text.has_value() ? Unescaped(*text) : std::string();
}

struct Sink {
  std::FILE* file = nullptr;
  std::string text;
  std::size_t max_text = kMaxListingBytes;
};

std::size_t Take(char* data, std::size_t size, std::size_t count, void* to) {
  auto* sink = static_cast<Sink*>(to);
  const std::size_t bytes = size * count;
  if (sink->file != nullptr) return std::fwrite(data, 1, bytes, sink->file);
  if (sink->text.size() + bytes > sink->max_text) return 0;
  sink->text.append(data, bytes);
  return bytes;
}

}  // namespace

S3Options S3OptionsFromEnvironment(const std::function<const char*(const char*)>& get) {
  const auto text = [&](const char* name) {
    const char* value = get(name);
    return std::string(value == nullptr ? "" : value);
  };
  S3Options options;
  options.access_key = text("AWS_ACCESS_KEY_ID");
  options.secret_key = text("AWS_SECRET_ACCESS_KEY");
  options.session_token = text("AWS_SESSION_TOKEN");
  for (const char* name : {"AWS_DEFAULT_REGION", "AWS_REGION"}) {
    if (!text(name).empty()) options.region = text(name);
  }
  options.endpoint = text("AWS_ENDPOINT_URL");
  if (options.endpoint.empty() && !text("S3_ENDPOINT").empty()) {
    options.endpoint =
        StrCat(text("S3_USE_HTTPS") == "0" ? "http://" : "https://", text("S3_ENDPOINT"));
  }
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  options.verify_tls = text("S3_VERIFY_SSL") != "0";
  return options;
}

absl::StatusOr<S3Listing> ParseS3Listing(std::string_view xml) {
  if (xml.find("<ListBucketResult") == std::string_view::npos) {
    return absl::InvalidArgumentError("the answer is no ListBucketResult");
  }
  S3Listing listing;
  std::size_t at = 0;
  while (const auto contents = Element(xml, "Contents", &at)) {
    S3Object object;
    object.key = ElementText(*contents, "Key");
    object.etag = ElementText(*contents, "ETag");
    const std::string size = ElementText(*contents, "Size");
    const char* end = size.data() + size.size();
    if (object.key.empty() || std::from_chars(size.data(), end, object.bytes).ptr != end ||
        size.empty()) {
      return absl::InvalidArgumentError("the listing has an entry without key or size");
    }
    listing.objects.push_back(std::move(object));
  }
  at = 0;
  while (const auto common = Element(xml, "CommonPrefixes", &at)) {
    listing.prefixes.push_back(ElementText(*common, "Prefix"));
  }
  if (ElementText(xml, "IsTruncated") == "true") {
    listing.next = ElementText(xml, "NextContinuationToken");
    if (listing.next.empty()) {
      return absl::InvalidArgumentError("the listing goes on and does not say where");
    }
  }
  return listing;
}

S3ModelStorage::S3ModelStorage(S3Options options) : options_(std::move(options)) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
}

absl::StatusOr<S3ModelStorage::Place> S3ModelStorage::Parse(const std::string& path) {
  if (!path.starts_with(kScheme)) {
    return absl::InvalidArgumentError(StrCat(path, ": expected s3://BUCKET/PREFIX"));
  }
  const std::string rest = path.substr(kScheme.size());
  const std::size_t slash = rest.find('/');
  Place place;
  place.bucket = rest.substr(0, slash);
  if (slash != std::string::npos) place.prefix = rest.substr(slash + 1);
  while (place.prefix.ends_with('/')) place.prefix.pop_back();
  if (place.bucket.empty() || place.bucket.find_first_of("?#@:%") != std::string::npos) {
    return absl::InvalidArgumentError(StrCat(path, ": expected s3://BUCKET/PREFIX"));
  }
  return place;
}

absl::StatusOr<std::string> S3ModelStorage::Get(
    const Place& place, const std::string& key,
    const std::vector<std::pair<std::string, std::string>>& query,
    const std::string& to_file) const {
  std::string url = options_.endpoint.empty() ? StrCat("https://", place.bucket, ".s3.",
                                                       options_.region, ".amazonaws.com/")
                                              : StrCat(options_.endpoint, "/", place.bucket, "/");
  absl::StrAppend(&url, net::UrlEncode(key, "/"));
  for (std::size_t i = 0; i < query.size(); ++i) {
    absl::StrAppend(&url, i == 0 ? "?" : "&", net::UrlEncode(query[i].first), "=",
                    net::UrlEncode(query[i].second));
  }
  CURL* curl = curl_easy_init();
  if (curl == nullptr) return absl::InternalError("libcurl does not start");
  Sink sink;
  if (!to_file.empty()) {
    sink.file = std::fopen(to_file.c_str(), "wb");
    if (sink.file == nullptr) {
      curl_easy_cleanup(curl);
      return ErrnoStatus(errno, StrCat("open ", to_file));
    }
  }
  curl_slist* headers = nullptr;
  const std::string credentials = StrCat(options_.access_key, ":", options_.secret_key);
  const std::string scope = StrCat("aws:amz:", options_.region, ":s3");
  if (!options_.access_key.empty()) {
    headers = curl_slist_append(headers, kEmptyPayload);
    if (!options_.session_token.empty()) {
      headers = curl_slist_append(headers,
                                  StrCat("x-amz-security-token: ", options_.session_token).c_str());
    }
    curl_easy_setopt(curl, CURLOPT_AWS_SIGV4, scope.c_str());
    curl_easy_setopt(curl, CURLOPT_USERPWD, credentials.c_str());
  }
  char error[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, Take);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &sink);
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 10L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options_.timeout_seconds));
  if (!options_.verify_tls) {
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
  }
  const CURLcode result = curl_easy_perform(curl);
  long code = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &code);
  curl_slist_free_all(headers);
  curl_easy_cleanup(curl);
  const bool written = sink.file == nullptr || std::fclose(sink.file) == 0;

  const std::string what = StrCat("s3://", place.bucket, "/", key);
  if (result != CURLE_OK) {
    return absl::UnavailableError(
        StrCat(what, ": ", error[0] != '\0' ? error : curl_easy_strerror(result)));
  }
  if (!written) return ErrnoStatus(errno, StrCat("write ", to_file));
  if (code == 200) return std::move(sink.text);
  const std::string reason = StrCat(what, ": HTTP ", code, " ", ElementText(sink.text, "Code"));
  if (code == 403 || code == 401) return absl::PermissionDeniedError(reason);
  if (code == 404) return absl::NotFoundError(reason);
  return absl::UnavailableError(reason);
}

absl::StatusOr<S3Listing> S3ModelStorage::List(const Place& place, const std::string& prefix,
                                               bool delimited) const {
  S3Listing all;
  std::string next;
  do {
    std::vector<std::pair<std::string, std::string>> query;
    if (!next.empty()) query.emplace_back("continuation-token", next);
    if (delimited) query.emplace_back("delimiter", "/");
    query.emplace_back("list-type", "2");
    query.emplace_back("prefix", prefix);
    TAKT_ASSIGN_OR_RETURN(const std::string xml, Get(place, "", query, ""));
    TAKT_ASSIGN_OR_RETURN(S3Listing page, ParseS3Listing(xml));
    for (S3Object& object : page.objects) all.objects.push_back(std::move(object));
    for (std::string& found : page.prefixes) all.prefixes.push_back(std::move(found));
    if (all.objects.size() > kMaxVersionFiles) {
      return absl::ResourceExhaustedError(
          StrCat("s3://", place.bucket, "/", prefix, ": more than ", kMaxVersionFiles, " objects"));
    }
    next = page.next;
  } while (!next.empty());
  return all;
}

absl::StatusOr<std::map<std::int64_t, std::string>> S3ModelStorage::ListVersions(
    const std::string& base_path) {
  TAKT_ASSIGN_OR_RETURN(const Place place, Parse(base_path));
  const std::string prefix = place.prefix.empty() ? "" : place.prefix + "/";
  TAKT_ASSIGN_OR_RETURN(const S3Listing listing, List(place, prefix, true));
  std::map<std::int64_t, std::string> versions;
  for (const std::string& found : listing.prefixes) {
    if (!found.starts_with(prefix) || !found.ends_with('/')) continue;
    const std::string name = found.substr(prefix.size(), found.size() - prefix.size() - 1);
    if (const auto version = ParseVersion(name); version.has_value()) {
      versions.emplace(*version, StrCat(kScheme, place.bucket, "/", prefix, name));
    }
  }
  // Copies of versions that are gone are of no use; TensorFlow has read what it loaded.
  const std::string base = StrCat(kScheme, place.bucket, "/", prefix);
  const std::lock_guard lock(mutex_);
  for (auto it = copies_.begin(); it != copies_.end();) {
    const bool gone = !versions.empty() && it->first.starts_with(base) &&
                      std::none_of(versions.begin(), versions.end(),
                                   [&](const auto& v) { return v.second == it->first; });
    if (gone && it->second->mutex.try_lock()) {
      it->second->mutex.unlock();
      RemoveAll(it->second->directory).IgnoreError();
      it = copies_.erase(it);
    } else {
      ++it;
    }
  }
  return versions;
}

absl::StatusOr<VersionFingerprint> S3ModelStorage::Fingerprint(const std::string& version_path) {
  TAKT_ASSIGN_OR_RETURN(const Place place, Parse(version_path));
  TAKT_ASSIGN_OR_RETURN(const S3Listing listing, List(place, place.prefix + "/", false));
  VersionFingerprint fingerprint;
  // Never old enough at first sight: it is watched for one poll.
  fingerprint.newest_change = std::chrono::system_clock::now();
  for (const S3Object& object : listing.objects) {
    absl::StrAppend(&fingerprint.text, object.key, " ", object.bytes, " ", object.etag, "\n");
  }
  return fingerprint;
}

absl::Status S3ModelStorage::CheckComplete(const std::string& version_path) {
  TAKT_ASSIGN_OR_RETURN(const std::string directory, Localize(version_path));
  return CheckVersionComplete(directory);
}

absl::StatusOr<std::string> S3ModelStorage::Localize(const std::string& version_path) {
  TAKT_ASSIGN_OR_RETURN(const Place place, Parse(version_path));
  Copied* copied = nullptr;
  std::unique_lock<std::mutex> copying;
  {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<Copied>& slot = copies_[version_path];
    if (slot == nullptr) {
      slot = std::make_unique<Copied>();
      slot->directory = JoinPath(cache_.path(), RandomId(16));
    }
    copied = slot.get();
    copying = std::unique_lock(copied->mutex, std::try_to_lock);
  }
  if (!copying.owns_lock()) {
    return absl::UnavailableError(StrCat(version_path, ": is being copied already"));
  }
  const std::string prefix = place.prefix + "/";
  TAKT_ASSIGN_OR_RETURN(const S3Listing listing, List(place, prefix, false));
  TAKT_RETURN_IF_ERROR(MakeDirs(copied->directory));
  std::set<std::string> present;
  for (const S3Object& object : listing.objects) {
    const std::string name = object.key.substr(prefix.size());
    // A key that ends in a slash stands for a directory; one that climbs out is left alone.
    if (name.empty() || name.ends_with('/')) continue;
    const std::vector<std::string> parts = absl::StrSplit(name, '/');
    if (std::any_of(parts.begin(), parts.end(),
                    [](const std::string& p) { return p.empty() || p == "." || p == ".."; })) {
      return absl::FailedPreconditionError(
          StrCat(version_path, ": key \"", object.key, "\" is no path below it"));
    }
    present.insert(object.key);
    const std::string tag = StrCat(object.etag, " ", object.bytes);
    if (copied->etags[object.key] == tag) continue;
    const std::string target = JoinPath(copied->directory, name);
    TAKT_RETURN_IF_ERROR(MakeDirs(target.substr(0, target.rfind('/'))));
    TAKT_RETURN_IF_ERROR(Get(place, object.key, {}, target).status());
    copied->etags[object.key] = tag;
  }
  for (auto it = copied->etags.begin(); it != copied->etags.end();) {
    if (present.contains(it->first)) {
      ++it;
      continue;
    }
    TAKT_RETURN_IF_ERROR(RemoveAll(JoinPath(copied->directory, it->first.substr(prefix.size()))));
    it = copied->etags.erase(it);
  }
  return copied->directory;
}

}  // namespace takt::serving
