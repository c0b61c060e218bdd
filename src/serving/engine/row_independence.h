// Whether requests of strangers may share a run of a model: a proof, before anything is run, that
// row i of every output depends on row i of the inputs only. Nothing in a SavedModel says so, so
// the graph is walked from the outputs back to the inputs, and for each operation there is a rule
// that says what it makes of rows, under which conditions (row_rules.cc). What has no rule, or
// whose condition cannot be shown, is not proven: there are no guesses, and no runs on sample
// values.
//
// What the proof takes for granted: variables and tables have the shapes that the graph declares
// for them; requests in one run have rows of the same shape, as the signature wants them (see
// BatchQueue); when a run of several fails, each is run alone. Numbers are meant up to rounding: a
// kernel may add in another order when it is given more rows.
//
// A pure function, for any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serving/engine/engine.h"

namespace takt::serving {

// Nodes that are looked at for one signature, bodies of functions once a call; a graph beyond it is
// not proven.
inline constexpr int kMaxProofNodes = 200'000;
// Calls of functions inside functions.
inline constexpr int kMaxProofDepth = 64;

// One for each signature: "" where it is proven, else why not, with the operation and the name of
// the node: `Mean "dense/mean": over dimension 0, where the rows are`.
std::vector<std::string> WhyRowsMayDepend(std::string_view meta_graph_def,
                                          std::span<const SignatureDef> signatures);

}  // namespace takt::serving
