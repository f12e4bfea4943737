// The networks of a distillation as jobs of their own.
#pragma once

#include <string>

#include "configs/job.pb.h"

namespace sprocket::config {

enum class NetworkRole { kStudent, kTeacher, kFakeScore };

// "student", "teacher", "fake_score".
std::string name_of(NetworkRole role);

// What a network of a job with `distillation` is: the job with the role's weights, attention,
// parallel, optimizer and adapters in the places of the student's; the teacher has none of the
// last. model.weights of the teacher and, unless they are given, of the others are the teacher's.
// Defaults are written out in `job`.
Job role_job(const Job& job, NetworkRole role);

}  // namespace sprocket::config
