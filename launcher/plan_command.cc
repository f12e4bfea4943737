#include <span>

#include <fmt/format.h>

#include "base/error.h"
#include "configs/cluster.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "launcher/command.h"
#include "launcher/latent_shape.h"
#include "launcher/placement.h"
#include "launcher/session.h"
#include "runtime/media/output_file.h"
#include "runtime/planner/calibration.h"
#include "runtime/planner/plan_job.h"
#include "runtime/planner/scaling_job.h"

namespace sprocket::launcher {
namespace {

struct PlanFlags {
  std::string config;
  std::vector<std::string> sets;
  std::string cluster;
  runtime::PlanOptions options;
  std::string scale, picture;
  bool measure = false;
  std::string output;
  runtime::CalibrationOptions calibration;
};

void write_cluster(const PlanFlags& flags, const config::Cluster& cluster) {
  const std::string text = config::to_text(cluster);
  if (flags.output.empty()) {
    fmt::print("{}", text);
    return;
  }
  media::write_output_file(flags.output, std::as_bytes(std::span(text)));
  fmt::print("{} written\n", flags.output);
}

struct Measured {
  config::LoadedJob loaded;
  KnownShape known;
};

Measured subject(const PlanFlags& flags) {
  Measured subject{config::load_job(flags.config, flags.sets), {}};
  config::check_on_processor(subject.loaded, "--measure");
  subject.known = find_latent_shape(subject.loaded);
  config::check_latent_shape(subject.loaded, subject.known.shape, subject.known.source);
  return subject;
}

ExitCode measure_ranks(const PlanFlags& flags, const Session& session) {
  Measured of;
  session.run_on_all([&] { of = subject(flags); });
  const config::Job& job = of.loaded.job;
  const auto world = session.make_world(job.parallel(), nullptr);
  runtime::CalibrationOptions options = flags.calibration;
  options.selection = flags.options.selection;
  options.threads = resolve_threads(job.compute(), *world);
  const config::Cluster cluster = runtime::calibrate(job, of.known.shape, options, world.get());
  if (session.first()) write_cluster(flags, cluster);
  return ExitCode::kOk;
}

// Alone, it measures kernels; under mpirun the links as well.
ExitCode measure(const PlanFlags& flags) {
  if (started_by_mpirun()) {
    return run_on_ranks(LogLevel::kNormal,
                        [&](const Session& session) { return measure_ranks(flags, session); });
  }
  const Measured of = subject(flags);
  runtime::CalibrationOptions options = flags.calibration;
  options.selection = flags.options.selection;
  const int threads = of.loaded.job.compute().threads();
  options.threads = threads > 0 ? threads : threads_for(0, {own_placement()});
  write_cluster(flags, runtime::calibrate(of.loaded.job, of.known.shape, options, nullptr));
  return ExitCode::kOk;
}

// Needs no MPI: every rank of an mpirun would print the same.
ExitCode plan(const PlanFlags& flags) {
  if (flags.cluster.empty()) {
    throw ConfigError(
        "--cluster is required: a cluster description (docs/plan.md; --measure writes one)");
  }
  const config::LoadedJob loaded = config::load_job(flags.config, flags.sets);
  const config::Cluster cluster = config::load_cluster(flags.cluster);
  const KnownShape known = find_latent_shape(loaded);
  if (!flags.scale.empty()) {
    if (loaded.job.has_distillation()) {
      throw ConfigError(
          "--scale: of a job with distillation; expected one that trains one network");
    }
    const runtime::SelectionOptions& selection = flags.options.selection;
    fmt::print("{}", runtime::run_scaling(loaded, known.shape, known.source, cluster,
                                          {flags.scale, selection.density, selection.coverage,
                                           flags.options.csv, flags.picture}));
    return ExitCode::kOk;
  }
  fmt::print("{}", runtime::run_plan(loaded, known.shape, known.source, cluster, flags.options));
  return ExitCode::kOk;
}

void add_flags(CLI::App& command, PlanFlags& flags) {
  add_job_choice(command, flags.config, flags.sets);
  command
      .add_option(
          "--cluster", flags.cluster,
          "The cluster description (configs/cluster.proto, docs/plan.md). Required except with "
          "--measure.")
      ->option_text("FILE");
  runtime::SelectionOptions& selection = flags.options.selection;
  CLI::Option* const file =
      command
          .add_option(
              "--selection", selection.file,
              "Plans for the selection of an output of sprocket attention --dump-selection.")
          ->option_text("FILE");
  CLI::Option* const density =
      command
          .add_option("--density", selection.density,
                      "Share of the pairs that are selected; by default the method's own.")
          ->option_text("D")
          ->excludes(file);
  command
      .add_option(
          "--coverage", selection.coverage,
          "Share of the rows of other ranks that a rank needs, as a run reports it. Without "
          "it the selection is synthetic.")
      ->option_text("C")
      ->needs(density);
  CLI::Option* const from =
      command
          .add_option(
              "--from", flags.options.from,
              "Plans with the rates, links, density and coverage that a profile measured, in "
              "place of the cluster's and the method's; says where each figure is from.")
          ->option_text("profile.json")
          ->excludes(file)
          ->excludes(density);
  command
      .add_option("--width", selection.synthetic.width,
                  "Synthetic selection: standard deviation of the distance, in edges of a block.")
      ->option_text("W")
      ->check(CLI::Range(0.01, 1e6));
  command.add_option("--top", flags.options.top, "Ways that are listed, the fastest first; 12.")
      ->option_text("N")
      ->check(CLI::Range(1, 1000000));
  command.add_flag("--all", flags.options.all,
                   "Lists all ways, and those that are not legal with the reason.");
  CLI::Option* const scale =
      command
          .add_option(
              "--scale", flags.scale,
              "Simulates strong and weak scaling instead, on FIRST, 2 FIRST, 4 FIRST … LAST "
              "ranks of nodes like the cluster's. --coverage is the budget.")
          ->option_text("FIRST:LAST")
          ->excludes(file)
          ->excludes(from);
  command.add_option("--picture", flags.picture, "With --scale: draws the curves.")
      ->option_text("PNG")
      ->needs(scale);
  CLI::Option* const measure =
      command
          .add_flag("--measure", flags.measure,
                    "Measures this machine for the job instead: kernels and copies, and under "
                    "mpirun the links. Prints a cluster description.")
          ->excludes(scale)
          ->excludes(from);
  command.add_option("--output", flags.output, "With --measure: writes it there.")
      ->option_text("FILE")
      ->needs(measure);
  command
      .add_option("--devices", flags.calibration.devices,
                  "With --measure: ranks of a node; by default those of a host.")
      ->option_text("N")
      ->check(CLI::Range(1, 1024))
      ->needs(measure);
  command
      .add_option("--csv", flags.options.csv,
                  "Also writes all ways, or the points of --scale, as a table.")
      ->option_text("FILE");
}

}  // namespace

void add_plan_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "plan",
      "Says how a job is best divided among the ranks of a cluster, without running it.\n"
      "Lists every legal mesh and strategy with what it sends, its memory and its time. "
      "docs/plan.md explains the model.",
      "sprocket plan --config FILE --cluster FILE [flags]\n"
      "       [mpirun -np N] sprocket plan --config FILE --measure [--output FILE]",
      "\nExamples:\n"
      "  sprocket plan --config configs/wan2.1_1.3b_vsa.txtpb --cluster "
      "configs/cluster_h200_nvlink_400g.txtpb\n"
      "  sprocket plan --config configs/quickstart.txtpb --cluster configs/cluster_ethernet.txtpb "
      "--all --csv plan.csv\n"
      "  sprocket plan --config configs/wan2.1_14b_vsa.txtpb --cluster "
      "configs/cluster_h200_nvlink_400g.txtpb \\\n"
      "    --density 0.1 --coverage 0.25\n"
      "  sprocket plan --config JOB.txtpb --cluster CLUSTER.txtpb --from outputs/run/profile.json\n"
      "  sprocket plan --config configs/wan2.1_14b_vsa.txtpb --cluster "
      "configs/cluster_h200_nvlink_400g.txtpb \\\n"
      "    --scale 8:4096 --csv scaling.csv --picture scaling.png\n"
      "  mpirun -np 2 sprocket plan --config configs/quickstart.txtpb --measure --output "
      "here.txtpb\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput, ExitCode::kComm}));
  auto flags = std::make_shared<PlanFlags>();
  add_flags(command, *flags);
  command.callback([flags, &action] {
    action = [flags] { return flags->measure ? measure(*flags) : plan(*flags); };
  });
}

}  // namespace sprocket::launcher
