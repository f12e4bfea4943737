// Steps to and from the messages of events.proto.
#pragma once

#include <cstddef>

#include "runtime/profile/events.pb.h"
#include "runtime/profile/recorded_step.h"

namespace sprocket::profile {

events::Step pack(const RecordedStep& step);

// Throws InputError, which says what is wrong, for columns of unequal lengths and for numbers of
// names, groups or enumerators that there are not.
RecordedStep unpack(const events::Step& packed, size_t names, int groups);

}  // namespace sprocket::profile
