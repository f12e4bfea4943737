#include "configs/roles.h"

#include "base/error.h"

namespace sprocket::config {

std::string name_of(NetworkRole role) {
  switch (role) {
    case NetworkRole::kStudent:
      return "student";
    case NetworkRole::kTeacher:
      return "teacher";
    case NetworkRole::kFakeScore:
      return "fake_score";
  }
  throw InternalError("a role without a name");
}

Job role_job(const Job& job, NetworkRole role) {
  Job own = job;
  const Distillation& distillation = job.distillation();
  const std::string& teacher = distillation.teacher().weights();
  if (role == NetworkRole::kStudent) {
    if (own.model().weights().empty()) own.mutable_model()->set_weights(teacher);
    return own;
  }
  const Role& given =
      role == NetworkRole::kTeacher ? distillation.teacher() : distillation.fake_score();
  *own.mutable_attention() = given.attention();
  *own.mutable_parallel() = given.parallel();
  *own.mutable_training()->mutable_optimizer() = given.optimizer();
  own.mutable_training()->clear_lora();
  if (role == NetworkRole::kFakeScore && given.has_lora()) {
    *own.mutable_training()->mutable_lora() = given.lora();
  }
  own.mutable_model()->set_weights(given.weights().empty() ? teacher : given.weights());
  return own;
}

}  // namespace sprocket::config
