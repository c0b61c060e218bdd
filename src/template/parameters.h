// What kind of value a parameter wants. Internal to this room.
#pragma once

#include "template/template.h"

namespace takt::templates {

// By the default where there is one; else by where the parameter is used (a port, a number of
// replicas, an image) and by its name (TRAIN_STEPS, LEARNING_RATE, SERVER).
ParameterType GuessType(const Parameter& parameter);

}  // namespace takt::templates
