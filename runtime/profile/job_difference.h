// What keeps two profiles from being compared, and what is different around them: lines "what: A |
// B".
#pragma once

#include <string>
#include <vector>

#include "runtime/profile/report.h"

namespace sprocket::profile {

// Kind, number of ranks, the fields of jobs that are not the same one, and windows that are not
// complete; empty: none. `name_a` and `name_b` are the profiles' in the last of these.
std::vector<std::string> obstacles(const Report& a, const Report& b, const std::string& name_a,
                                   const std::string& name_b);

// Programs, hosts, devices and threads.
std::vector<std::string> surroundings(const Report& a, const Report& b);

// What differs between two jobs in text format, a field a line: "parallel.ulysses: 2 | 4". A field
// that is given several times is compared as a set.
std::vector<std::string> differing_fields(const std::string& a, const std::string& b);

}  // namespace sprocket::profile
