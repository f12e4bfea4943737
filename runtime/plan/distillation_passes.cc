#include "runtime/plan/distillation_passes.h"

#include <cmath>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

using config::NetworkRole;

// Mean of the largest of `draws` even draws from 0 .. levels - 1.
double mean_largest(int levels, double draws) {
  double below = 0;  // sum of the probabilities that the largest is at most m
  for (int m = 0; m + 1 < levels; ++m) below += std::pow((m + 1.0) / levels, draws);
  return levels - 1 - below;
}

struct StepPasses {
  double rollout = 0;          // the student's, before the sample's level
  double student_updates = 1;  // in a step; the fake score has one
  double teacher_in_fake = 0;  // the teacher's, for the fake score's loss
};

StepPasses passes_of(const config::Job& job) {
  const config::Distillation& distillation = job.distillation();
  const double batch = job.training().micro_batch();
  switch (distillation.recipe()) {
    case config::Distillation::TDM: {
      const config::Tdm& tdm = distillation.tdm();
      return {mean_largest(tdm.segments(), 2 * batch), 1, tdm.teacher_weight() > 0 ? 1.0 : 0.0};
    }
    case config::Distillation::DMD2: {
      const config::Dmd2& dmd2 = distillation.dmd2();
      const double share = 1.0 / dmd2.student_interval();
      return {(1 - share) * mean_largest(dmd2.timestep_size(), batch) +
                  share * mean_largest(dmd2.timestep_size(), 2 * batch),
              share, 0};
    }
  }
  throw InternalError("distillation.recipe has no counterpart");
}

}  // namespace

NetworkPasses distillation_passes(const config::Job& job, NetworkRole role) {
  const StepPasses step = passes_of(job);
  const double guided = job.distillation().guidance() == 1 ? 1 : 2;
  switch (role) {
    case NetworkRole::kStudent:
      return {step.rollout + 1, step.student_updates, step.student_updates};
    case NetworkRole::kTeacher:
      return {guided * step.student_updates + step.teacher_in_fake, 0, 0};
    case NetworkRole::kFakeScore:
      return {step.student_updates, 1, 1};
  }
  throw InternalError("a role without passes");
}

}  // namespace sprocket::runtime
