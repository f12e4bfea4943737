#include "runtime/jobs/parity_job.h"

#include <algorithm>
#include <span>

#include "base/error.h"
#include "parallel/comm/thread_backend.h"
#include "runtime/jobs/remote_kv_agreement.h"
#include "runtime/jobs/run_on_mesh.h"
#include "runtime/media/output_file.h"
#include "runtime/parity/parity_report.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/memory_estimate.h"

namespace sprocket::runtime {
namespace {

// Of one rank in a lower precision, whose largest errors count.
constexpr int kRoundedRuns = 3;

config::Job with_precision(config::Job job, config::Compute::Precision precision) {
  job.mutable_compute()->set_precision(precision);
  return job;
}

ParityResults compute_alone(const config::Job& job, const ParitySamples& samples,
                            const ParityPassOptions& options) {
  auto world = comm::make_thread_world(1, {});
  const parallel::Mesh mesh(std::move(world.front()), {});
  return compute_parity_pass(job, mesh, samples, options);
}

double unit_roundoff(config::Compute::Precision precision) {
  switch (precision) {
    case config::Compute::FP32:
      return 0x1p-24;
    case config::Compute::BF16:
      return 0x1p-9;
    case config::Compute::FP64:
      return 0x1p-53;
  }
  throw InternalError("compute.precision has no counterpart");
}

data::LatentShape largest_shape(const ParitySamples& samples) {
  const auto largest = std::max_element(
      samples.replicas.begin(), samples.replicas.end(),
      [](const auto& a, const auto& b) { return a.shape.elements() < b.shape.elements(); });
  return largest->shape;
}

ParityComparison compare(const config::Job& job, const ParitySamples& samples,
                         const ParityResults& found, const ParityOptions& options) {
  const config::Job in_fp64 = with_precision(job, config::Compute::FP64);
  ParityPassOptions pass{options.threads, options.attention_step, nullptr};
  if (job.compute().precision() == config::Compute::FP64) {
    return compare_exactly(compute_alone(in_fp64, samples, pass), found);
  }
  // A score that is rounded otherwise may select another block, which is no rounding error any
  // more: everybody takes the ranks' selections.
  pass.selections = &found.selections;
  const ParityResults exact = compute_alone(in_fp64, samples, pass);
  RoundingErrors one_rank;
  for (int run = 0; run < kRoundedRuns; ++run) {
    const ParitySamples changed = run == 0 ? samples : with_last_bits_changed(samples, run);
    one_rank.add(exact, compute_alone(job, changed, pass));
  }
  return compare_rounded(exact, one_rank, found, unit_roundoff(job.compute().precision()));
}

}  // namespace

ParityResults compute_on_ranks(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                               const ParityOptions& options) {
  return run_on_mesh(
      std::move(world), mesh_shape(job), options.device, [&](const parallel::Mesh& mesh) {
        ParitySamples samples;
        run_on_all(mesh.world(), [&] { samples = load_parity_samples(job); });
        config::Job decided = job;
        agree_on_remote_kv(decided, largest_shape(samples), {options.threads, options.memory},
                           mesh.world());
        return compute_parity_pass(decided, mesh, samples,
                                   {options.threads, options.attention_step, nullptr});
      });
}

ParityOutcome compare_with_one_rank(const config::Job& job, const ParityResults& found,
                                    const ParityOptions& options) {
  const ParitySamples samples = load_parity_samples(job);
  ParityOutcome outcome;
  outcome.comparison = compare(job, samples, found, options);
  const ParitySubject subject{options.name, job, samples.source, options.attention_step,
                              found.density};
  outcome.text = parity_text(subject, outcome.comparison);
  if (!options.report.empty()) {
    const std::string text = parity_json(subject, outcome.comparison);
    media::write_output_file(options.report, std::as_bytes(std::span(text)));
  }
  return outcome;
}

int64_t parity_memory(const config::Job& job, const config::LatentShape& shape) {
  config::Job alone = with_precision(job, config::Compute::FP64);
  alone.mutable_parallel()->set_ulysses(1);
  const parallel::Grid grid = token_layout_spec(alone, shape).grid;
  // The estimate's 16 bytes for each parameter and its moments are the fp64 parameters and
  // gradients of a pass that has no optimizer; the ranks' gradients are kept beside them.
  return estimate_training_memory(alone, {grid.tokens(), 0}).total() + 8 * parameter_count(job);
}

}  // namespace sprocket::runtime
