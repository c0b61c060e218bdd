#include "api/api.h"

extern "C" {
extern const char takt_openapi_begin;
extern const char takt_openapi_end;
}

namespace takt::api {

std::string_view OpenApiDocument() {
  return {&takt_openapi_begin, static_cast<std::size_t>(&takt_openapi_end - &takt_openapi_begin)};
}

}  // namespace takt::api
