#include <fmt/format.h>

#include "configs/findings.h"
#include "configs/roles.h"

namespace sprocket::config {
namespace {

constexpr int64_t kTimesteps = 1000, kMostSegments = 40;

void check_tdm(const Tdm& tdm, Findings& findings) {
  const std::string at = "distillation.tdm.";
  const int64_t segments = tdm.segments();
  if (segments < 1 || segments > kMostSegments || kTimesteps % segments != 0) {
    findings.add(
        {at + "segments"},
        fmt::format("{} does not divide {} timesteps into at most {} segments; legal: {}", segments,
                    kTimesteps, kMostSegments, list({1, 2, 4, 5, 8, 10, 20, 25, 40})));
  } else if (tdm.variant() == Tdm::BLADE) {
    findings.in_range(at + "last_timestep", tdm.last_timestep(),
                      kTimesteps - kTimesteps / segments + 1, kTimesteps);
  }
  findings.number(at + "eta", tdm.eta(), tdm.eta() >= 0 && tdm.eta() <= 1, "0 <= eta <= 1");
  findings.number(at + "teacher_weight", tdm.teacher_weight(), tdm.teacher_weight() >= 0,
                  "teacher_weight >= 0");
  findings.number(at + "huber_elements", tdm.huber_elements(), tdm.huber_elements() > 0,
                  "huber_elements > 0");
  findings.number(at + "normalise_limit", tdm.normalise_limit(), tdm.normalise_limit() >= 0,
                  "normalise_limit >= 0");
  findings.number(at + "skip_above", tdm.skip_above(), tdm.skip_above() >= 0, "skip_above >= 0");
}

void check_dmd2(const Dmd2& dmd2, Findings& findings) {
  const std::string at = "distillation.dmd2.";
  double before = kTimesteps + 1;
  for (const double timestep : dmd2.timestep()) {
    if (!findings.number(at + "timestep", timestep, timestep > 0 && timestep <= kTimesteps,
                         "0 < timestep <= 1000")) {
      return;
    }
    if (timestep >= before) {
      findings.add({at + "timestep"},
                   fmt::format("{} after {}; legal: descending values", timestep, before));
    }
    before = timestep;
  }
  findings.in_range(at + "student_interval", dmd2.student_interval(), 1, 1000);
  findings.number(at + "lowest_level", dmd2.lowest_level(),
                  dmd2.lowest_level() > 0 && dmd2.lowest_level() < dmd2.highest_level(),
                  "0 < lowest_level < highest_level");
  findings.number(at + "highest_level", dmd2.highest_level(), dmd2.highest_level() < 1,
                  "highest_level < 1");
}

// Where nobody but the teacher has its weights, and there is another place for them.
void check_offload(const Job& job, Findings& findings) {
  const Distillation& distillation = job.distillation();
  if (distillation.fake_score().offload()) {
    findings.add({"distillation.fake_score.offload"}, "the fake score is trained; legal: false");
  }
  if (!distillation.teacher().offload()) return;
  const std::string path = "distillation.teacher.offload";
  if (job.compute().device() != Compute::CUDA) {
    findings.add({path, "compute.device"},
                 "the teacher computes in the host's memory; legal with device CPU: false");
  }
  const Job teacher = role_job(job, NetworkRole::kTeacher);
  for (const NetworkRole role : {NetworkRole::kStudent, NetworkRole::kFakeScore}) {
    const Job own = role_job(job, role);
    if (own.training().lora().rank() == 0 || own.model().weights() != teacher.model().weights()) {
      continue;
    }
    findings.add({path}, fmt::format("the {} trains adapters beside the same weights, which it "
                                     "needs all the time; legal: false",
                                     name_of(role)));
  }
}

// What the role changes, under its own name.
std::vector<Violation> role_violations(const Job& job, NetworkRole role,
                                       const LoadOptions& options) {
  Job own = role_job(job, role);
  own.clear_distillation();
  LoadOptions fields = options;
  fields.purpose = Purpose::kInspect;
  std::vector<Violation> violations;
  for (Violation& violation : find_violations(own, fields)) {
    const std::string at = "distillation." + name_of(role) + ".";
    bool belongs = false;
    for (std::string& path : violation.paths) {
      if (path.starts_with("attention.") || path.starts_with("parallel.")) {
        path = at + path;
        belongs = true;
      } else if (path.starts_with("training.optimizer.") || path.starts_with("training.lora.")) {
        path = at + path.substr(std::string("training.").size());
        belongs = true;
      }
    }
    if (belongs) violations.push_back(std::move(violation));
  }
  return violations;
}

}  // namespace

void check_distillation(const Job& job, const LoadOptions& options, Findings& findings) {
  if (!job.has_distillation()) {
    if (options.purpose == Purpose::kDistill) {
      findings.add({"distillation"},
                   "not set; expected a recipe and a teacher, { teacher { "
                   "weights: \"…\" } }");
    }
    return;
  }
  const Distillation& distillation = job.distillation();
  if (options.purpose == Purpose::kDistill && distillation.teacher().weights().empty()) {
    findings.add({"distillation.teacher.weights"},
                 "not set; expected a run, a checkpoint or a .safetensors file of the teacher");
  }
  findings.number("distillation.guidance", distillation.guidance(), distillation.guidance() >= 0,
                  "guidance >= 0");
  if (distillation.teacher().lora().rank() > 0) {
    findings.add({"distillation.teacher.lora"}, "the teacher is not trained; legal: none");
  }
  check_offload(job, findings);
  check_tdm(distillation.tdm(), findings);
  check_dmd2(distillation.dmd2(), findings);
  for (const NetworkRole role : {NetworkRole::kTeacher, NetworkRole::kFakeScore}) {
    for (Violation& violation : role_violations(job, role, options)) {
      findings.add(std::move(violation));
    }
    const int data = role_job(job, role).parallel().data();
    if (data != job.parallel().data()) {
      findings.add({"distillation." + name_of(role) + ".parallel.data", "parallel.data"},
                   fmt::format("{}, the student's is {}; legal: {}", data, job.parallel().data(),
                               job.parallel().data()));
    }
  }
}

}  // namespace sprocket::config
