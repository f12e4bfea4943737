// A report with every field set, of a made-up run of 2 replicas x 2 outer x 2 ulysses ranks, 3
// layers, 2 heads. Its numbers agree with each other as those of a run do.
#pragma once

#include "runtime/profile/report.h"

namespace sprocket::testing {

profile::Report example_report();

}  // namespace sprocket::testing
