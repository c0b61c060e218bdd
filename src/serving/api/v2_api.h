// The Open Inference Protocol, version 2, over HTTP (/v2/...) and gRPC
// (inference.GRPCInferenceService), with the model repository extension: list, load and unload one
// model without touching the others.
#pragma once

#include "net/grpc_server.h"
#include "net/http_server.h"
#include "serving/api/context.h"
#include "serving/api/rest_exchange.h"

namespace takt::serving {

// Answers a request whose path begins with "/v2". Errors are {"error": "..."}.
void HandleV2(const ExchangePtr& exchange, net::HttpRequest request);

// Before the server's Start; `context` must outlive it.
void RegisterV2(net::GrpcServer& server, ServingContext& context);

}  // namespace takt::serving
