// TLS contexts from PEM text, for servers. OpenSSL stops here and at the connections that use it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

typedef struct ssl_ctx_st SSL_CTX;

namespace takt::net {

struct TlsOptions {
  std::string key_pem;
  std::string cert_pem;        // the chain, leaf first
  std::string ca_pem;          // authorities for clients' certificates
  bool verify_client = false;  // a client without a certificate of theirs is refused
};

// TLS 1.2 or later, offering the protocols of `alpn` ("h2", "http/1.1") in order of preference.
// INVALID_ARGUMENT naming the part that is wrong.
absl::StatusOr<std::shared_ptr<SSL_CTX>> MakeTlsServerContext(const TlsOptions& options,
                                                              const std::vector<std::string>& alpn);

}  // namespace takt::net
