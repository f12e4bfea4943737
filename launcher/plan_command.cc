#include <fmt/format.h>

#include "configs/cluster.h"
#include "configs/load.h"
#include "launcher/command.h"
#include "launcher/latent_shape.h"
#include "runtime/planner/plan_job.h"

namespace sprocket::launcher {
namespace {

struct PlanFlags {
  std::string config;
  std::vector<std::string> sets;
  std::string cluster;
  runtime::PlanOptions options;
};

// Needs no MPI: every rank of an mpirun would print the same.
ExitCode plan(const PlanFlags& flags) {
  const config::LoadedJob loaded = config::load_job(flags.config, flags.sets);
  const config::Cluster cluster = config::load_cluster(flags.cluster);
  const KnownShape known = find_latent_shape(loaded);
  fmt::print("{}", runtime::run_plan(loaded, known.shape, known.source, cluster, flags.options));
  return ExitCode::kOk;
}

void add_flags(CLI::App& command, PlanFlags& flags) {
  add_job_choice(command, flags.config, flags.sets);
  command
      .add_option("--cluster", flags.cluster,
                  "The cluster description (configs/cluster.proto, docs/plan.md). Required.")
      ->option_text("FILE")
      ->required();
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
  command.add_option("--csv", flags.options.csv, "Also writes all ways as a table.")
      ->option_text("FILE");
}

}  // namespace

void add_plan_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "plan",
      "Says how a job is best divided among the ranks of a cluster, without running it.\n"
      "Lists every legal mesh and strategy with what it sends, its memory and its time. "
      "docs/plan.md explains the model.",
      "sprocket plan --config FILE --cluster FILE [flags]",
      "\nExamples:\n"
      "  sprocket plan --config configs/wan2.1_1.3b_vsa.txtpb --cluster "
      "configs/cluster_h200_nvlink_400g.txtpb\n"
      "  sprocket plan --config configs/quickstart.txtpb --cluster configs/cluster_ethernet.txtpb "
      "--all --csv plan.csv\n"
      "  sprocket plan --config configs/wan2.1_14b_vsa.txtpb --cluster "
      "configs/cluster_h200_nvlink_400g.txtpb \\\n"
      "    --density 0.1 --coverage 0.25\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput}));
  auto flags = std::make_shared<PlanFlags>();
  add_flags(command, *flags);
  command.callback([flags, &action] { action = [flags] { return plan(*flags); }; });
}

}  // namespace sprocket::launcher
