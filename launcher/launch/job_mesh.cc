#include "launcher/launch/job_mesh.h"

#include <fmt/format.h>

#include "base/error.h"
#include "configs/load.h"
#include "launcher/command.h"
#include "runtime/plan/job_specs.h"

namespace sprocket::launcher {

parallel::MeshShape mesh_of(const std::vector<std::string>& job, int ranks) {
  CLI::App line;
  JobFlags flags;
  add_job_flags(line, flags);
  line.allow_extras();
  line.parse(std::vector<std::string>(job.rbegin(), job.rend() - 1));
  config::LoadOptions options;
  options.purpose = job.front() == "distill" ? config::Purpose::kDistill : config::Purpose::kTrain;
  options.world = ranks;
  if (!flags.output.empty()) options.output_directory = flags.output;
  return runtime::mesh_shape(config::load_job(flags.config, flags.sets, options).job);
}

std::vector<std::string> with_data_degree(std::vector<std::string> job, int data) {
  job.insert(job.end(), {"--set", fmt::format("parallel.data: {}", data)});
  return job;
}

std::string mesh_problem(const std::vector<std::string>& job, const parallel::MeshShape& mesh) {
  try {
    const parallel::MeshShape found = mesh_of(with_data_degree(job, mesh.data), mesh.world());
    if (found == mesh) return "";
    return fmt::format("{} ranks would be outer {} x ulysses {}", mesh.world(), found.outer,
                       found.ulysses);
  } catch (const ConfigError& error) {
    return error.what();
  }
}

}  // namespace sprocket::launcher
