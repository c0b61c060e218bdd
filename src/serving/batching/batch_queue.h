#pragma once

#include "serving/batching/batching.h"

namespace takt::serving {

class BatchQueue {};

}  // namespace takt::serving
