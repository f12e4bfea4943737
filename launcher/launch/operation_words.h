// What ranks do, and who of them holds the others up, in words: from the last operation of each of
// their communicators.
#pragma once

#include <string>
#include <vector>

#include "runtime/control/control.pb.h"

namespace sprocket::launcher {

// "exchange #4182 of sp.outer[0] (layer 17, backward, step 903)"
std::string words_of(const control::Operation& operation);

// A line of a report, with the operation's size and age.
std::string line_of(const control::Operation& operation);

// The operation that a rank issued last, over its communicators; null: none.
const control::Operation* newest(const control::Heartbeat& beat);

// Below, `beats` is by rank; null: nothing is known of it.

// Those that have not reached the newest operation of one of their groups.
std::vector<int> ranks_behind(const std::vector<const control::Heartbeat*>& beats);

// "; the others wait in …": what most ranks but `blamed` wait in; empty: they wait in nothing.
std::string what_others_wait_in(const std::vector<const control::Heartbeat*>& beats,
                                const std::vector<int>& blamed);

}  // namespace sprocket::launcher
