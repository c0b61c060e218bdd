#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

namespace takt::net {
namespace {

template <typename T, void (*Free)(T*)>
struct Freed {
  void operator()(T* value) const { Free(value); }
};
using Bio = std::unique_ptr<BIO, Freed<BIO, BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Freed<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY, EVP_PKEY_free>>;

absl::Status TlsError(std::string_view what) {
  const char* reason = ERR_reason_error_string(ERR_get_error());
  ERR_clear_error();
  return absl::InvalidArgumentError(
      StrCat("TLS: ", what, reason == nullptr ? "" : StrCat(": ", reason)));
}

Bio Reader(const std::string& pem) {
  return Bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// The client's offer and ours, both as length-prefixed words; `arg` is our list.
int SelectProtocol(SSL*, const unsigned char** out, unsigned char* out_size,
                   const unsigned char* offered, unsigned int offered_size, void* arg) {
  const auto* ours = static_cast<const std::string*>(arg);
  unsigned char* chosen = nullptr;
  const int result =
      SSL_select_next_proto(&chosen, out_size, reinterpret_cast<const unsigned char*>(ours->data()),
                            static_cast<unsigned int>(ours->size()), offered, offered_size);
  *out = chosen;
  return result == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

}  // namespace

absl::StatusOr<std::shared_ptr<SSL_CTX>> MakeTlsServerContext(
    const TlsOptions& options, const std::vector<std::string>& alpn) {
  auto protocols = std::make_shared<std::string>();
  for (const std::string& name : alpn) {
    protocols->push_back(static_cast<char>(name.size()));
    protocols->append(name);
  }
  // The deleter keeps the list alive as long as the context that points to it.
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()),
                                   [protocols](SSL_CTX* value) { SSL_CTX_free(value); });
  if (context == nullptr) return TlsError("no context");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);

  const Bio chain = Reader(options.cert_pem);
  const Certificate leaf(PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr));
  if (leaf == nullptr || SSL_CTX_use_certificate(context.get(), leaf.get()) != 1) {
    return TlsError("server_cert is not a PEM certificate");
  }
  while (X509* next = PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)) {
    if (SSL_CTX_add0_chain_cert(context.get(), next) != 1) {
      X509_free(next);
      return TlsError("the chain of server_cert");
    }
  }
  ERR_clear_error();  // the end of the chain reads as an error
  const Key key(PEM_read_bio_PrivateKey(Reader(options.key_pem).get(), nullptr, nullptr, nullptr));
  if (key == nullptr) return TlsError("server_key is not a PEM private key");
  if (SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1 ||
      SSL_CTX_check_private_key(context.get()) != 1) {
    return TlsError("server_key does not belong to server_cert");
  }
  if (!options.ca_pem.empty()) {
    const Bio authorities = Reader(options.ca_pem);
    int count = 0;
    while (true) {
      const Certificate ca(PEM_read_bio_X509(authorities.get(), nullptr, nullptr, nullptr));
      if (ca == nullptr) break;
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), ca.get());
      SSL_CTX_add_client_CA(context.get(), ca.get());
      ++count;
    }
    if (count == 0) return TlsError("custom_ca is not a PEM certificate");
    ERR_clear_error();
  }
  if (options.verify_client) {
    if (options.ca_pem.empty()) {
      return absl::InvalidArgumentError("TLS: client_verify needs custom_ca");
    }
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  const std::string session_context = "takt";
  SSL_CTX_set_session_id_context(context.get(),
                                 reinterpret_cast<const unsigned char*>(session_context.data()),
                                 static_cast<unsigned int>(session_context.size()));
  if (!protocols->empty()) {
    SSL_CTX_set_alpn_select_cb(context.get(), SelectProtocol, protocols.get());
  }
  return context;
}

}  // namespace takt::net
