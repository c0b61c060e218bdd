// The gRPC calls other than Predict: Classify, Regress, MultiInference, GetModelMetadata,
// GetModelStatus, HandleReloadConfigRequest, health and reflection.
#pragma once

#include "net/grpc_server.h"
#include "serving/api/context.h"

namespace takt::serving {

struct GrpcServicesOptions {
  bool health = false;  // --enable_grpc_healthcheck_service
};

// Before the server's Start. `context` must outlive the server.
void RegisterGrpcServices(net::GrpcServer& server, ServingContext& context,
                          GrpcServicesOptions options);

}  // namespace takt::serving
