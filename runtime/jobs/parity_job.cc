#include "runtime/jobs/parity_job.h"

#include <span>

#include "base/error.h"
#include "parallel/comm/thread_backend.h"
#include "runtime/jobs/run_on_mesh.h"
#include "runtime/media/output_file.h"
#include "runtime/parity/parity_report.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/memory_estimate.h"

namespace sprocket::runtime {
namespace {

config::Job with_precision(config::Job job, config::Compute::Precision precision) {
  job.mutable_compute()->set_precision(precision);
  return job;
}

ParityResults compute_alone(const config::Job& job, const ParitySamples& samples,
                            const ParityOptions& options) {
  auto world = comm::make_thread_world(1, {});
  const parallel::Mesh mesh(std::move(world.front()), {});
  return compute_parity_pass(job, mesh, samples, {options.threads, options.attention_step});
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

ParityComparison compare(const config::Job& job, const ParityReference& reference,
                         const ParityResults& found) {
  if (!reference.rounded) return compare_exactly(reference.exact, found);
  return compare_rounded(reference.exact, *reference.rounded, found,
                         unit_roundoff(job.compute().precision()));
}

ParityOutcome check(const config::Job& job, const parallel::Mesh& mesh,
                    const ParityReference& reference, const ParityOptions& options) {
  comm::Communicator& world = mesh.world();
  ParitySamples samples;
  run_on_all(world, [&] { samples = load_parity_samples(job); });
  const ParityResults found =
      compute_parity_pass(job, mesh, samples, {options.threads, options.attention_step});
  ParityOutcome outcome;
  run_on_all(world, [&] {
    if (world.rank() != 0) return;
    outcome.comparison = compare(job, reference, found);
    outcome.passed = outcome.comparison.passed();
    const ParitySubject subject{options.name, job, samples.source, options.attention_step,
                                found.density};
    outcome.text = parity_text(subject, outcome.comparison);
    if (options.report.empty()) return;
    const std::string text = parity_json(subject, outcome.comparison);
    media::write_output_file(options.report, std::as_bytes(std::span(text)));
  });
  outcome.passed = broadcast_text(world, outcome.passed ? "passed" : "", 0) == "passed";
  return outcome;
}

}  // namespace

ParityReference compute_parity_reference(const config::Job& job, const ParityOptions& options) {
  const ParitySamples samples = load_parity_samples(job);
  ParityReference reference;
  reference.exact = compute_alone(with_precision(job, config::Compute::FP64), samples, options);
  if (job.compute().precision() != config::Compute::FP64) {
    reference.rounded = compute_alone(job, samples, options);
  }
  return reference;
}

int64_t parity_reference_memory(const config::Job& job, const config::LatentShape& shape) {
  config::Job alone = with_precision(job, config::Compute::FP64);
  alone.mutable_parallel()->set_ulysses(1);
  const parallel::Grid grid = token_layout_spec(alone, shape).grid;
  // The estimate's 16 bytes for each parameter and its moments are the fp64 parameters and
  // gradients of a pass that has no optimizer.
  return estimate_training_memory(alone, {grid.tokens(), 0}).total();
}

ParityOutcome check_parity(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                           const ParityReference& reference, const ParityOptions& options) {
  return run_on_mesh(std::move(world), mesh_shape(job), [&](const parallel::Mesh& mesh) {
    return check(job, mesh, reference, options);
  });
}

}  // namespace sprocket::runtime
