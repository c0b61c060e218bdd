// Requests below /tensorboard/APP/ are handed on to the app's own TensorBoard, which is started by
// the first of them. Who may use the API may ask; pages get a policy without other hosts.
#pragma once

#include <memory>

#include "api/api.h"
#include "api/workers.h"
#include "operate/tensorboard.h"

namespace takt::api {

inline constexpr int kTensorBoardThreads = 4;

class TensorBoardProxy {
 public:
  explicit TensorBoardProxy(operate::TensorBoards& boards)
      : boards_(boards), workers_(kTensorBoardThreads) {}

  // For Api::SetTensorBoard.
  void Handle(const net::HttpRequest& request,
              const std::shared_ptr<net::HttpResponder>& responder);

 private:
  operate::TensorBoards& boards_;
  Workers workers_;
};

}  // namespace takt::api
