#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "launcher/command.h"
#include "launcher/doctor/machine.h"
#include "launcher/latent_shape.h"
#include "launcher/session.h"
#include "runtime/jobs/parity_job.h"
#include "runtime/jobs/rank_agreement.h"

namespace sprocket::launcher {
namespace {

// While rank 0 computes alone; a rank that dies ends the job at once all the same.
constexpr std::chrono::hours kPatience{24};

struct CheckParityFlags {
  JobFlags job;
  std::string precision = "fp64";
  std::string report;
  std::optional<int64_t> step;
};

struct Subject {
  config::Job job;
  config::LatentShape shape;
};

Subject load(const CheckParityFlags& flags, int world) {
  config::LoadOptions options;
  options.purpose = config::Purpose::kParity;
  options.world = world;
  const config::LoadedJob loaded = config::load_job(flags.job.config, flags.job.sets, options);
  Subject subject{loaded.job, find_latent_shape(loaded).shape};
  if (flags.precision == "fp64") {
    config::check_on_processor(loaded, "--precision fp64", "--precision as-configured");
    subject.job.mutable_compute()->set_precision(config::Compute::FP64);
  }
  return subject;
}

std::string gibibytes(int64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (int64_t{1} << 30));
}

// One rank has to hold what all ranks together were to hold.
void check_memory(const Subject& subject) {
  const int64_t needed = runtime::parity_memory(subject.job, subject.shape);
  const int64_t available = available_memory();
  if (needed > available) {
    throw ConfigError(fmt::format(
        "check-parity: rank 0 computes the job alone, too, and needs about {} for that, of {}; all "
        "layers are alike, so --set 'model.layers: 2', a smaller data.latent or "
        "training.activation_checkpointing: BLOCK check the same code",
        gibibytes(needed), gibibytes(available)));
  }
  spdlog::info("rank 0 computes the job alone, too; it needs about {} of {}", gibibytes(needed),
               gibibytes(available));
}

ExitCode check_parity(const CheckParityFlags& flags, const Session& session) {
  Subject subject;
  session.run_on_all([&] {
    subject = load(flags, session.size());
    if (session.first()) check_memory(subject);
  });
  std::unique_ptr<comm::Communicator> world =
      session.make_world(subject.job.parallel(), /*timeline=*/nullptr);
  runtime::ParityOptions options;
  options.name = flags.job.config;
  options.report = flags.report;
  options.attention_step = flags.step.value_or(subject.job.training().steps() - 1);
  options.threads = resolve_threads(subject.job.compute(), *world);
  const parallel::TensorDevice device = take_device(subject.job.compute(), *world);
  options.device = device.device();
  options.memory = resolve_memory(subject.job.compute(), device, *world);
  const runtime::ParityResults found =
      runtime::compute_on_ranks(subject.job, std::move(world), options);
  bool passed = false;
  session.run_on_all(
      [&] {
        if (!session.first()) return;
        const auto outcome = runtime::compare_with_one_rank(subject.job, found, options);
        fmt::print("{}", outcome.text);
        passed = outcome.comparison.passed();
      },
      kPatience);
  world = session.make_world(subject.job.parallel(), /*timeline=*/nullptr);
  passed = runtime::broadcast_text(*world, passed ? "passed" : "", 0) == "passed";
  return passed ? ExitCode::kOk : ExitCode::kMismatch;
}

ExitCode start(const CheckParityFlags& flags) {
  return run_on_ranks(flags.job.log_level(),
                      [&](const Session& session) { return check_parity(flags, session); });
}

}  // namespace

void add_check_parity_command(CLI::App& parent, Action& action) {
  CLI::App& command = add_command(
      parent, "check-parity",
      "Checks that a training job computes on these ranks what it computes on one.\n"
      "One forward and backward of a micro-batch: output, loss and every parameter's gradient, "
      "worst first.\n"
      "docs/check_parity.md says what is compared and what is allowed.",
      "mpirun -np N sprocket check-parity --config FILE [flags]",
      "\nExamples:\n"
      "  mpirun -np 2 sprocket check-parity --config configs/quickstart.txtpb\n"
      "  mpirun -np 4 sprocket check-parity --config configs/quickstart.txtpb --set "
      "'parallel.ulysses: 2' \\\n"
      "    --precision as-configured --report parity.json\n" +
          exit_codes_text({ExitCode::kOk, ExitCode::kInternal, ExitCode::kConfig, ExitCode::kInput,
                           ExitCode::kOutput, ExitCode::kComm, ExitCode::kMismatch}));
  auto flags = std::make_shared<CheckParityFlags>();
  add_job_flags(command, flags->job);
  command.remove_option(command.get_option("--dry-run"));
  command.remove_option(command.get_option("--output"));
  command
      .add_option(
          "--precision", flags->precision,
          "In which the ranks compute: fp64 (the default; exact to 1e-10), or as-configured "
          "(compute.precision; at most twice the error of one rank).")
      ->option_text("fp64|as-configured")
      ->check(CLI::IsMember({"fp64", "as-configured"}));
  command
      .add_option("--step", flags->step,
                  "The step at which schedules of the attention are evaluated; by default the last "
                  "one.")
      ->option_text("N")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--report", flags->report, "Writes the errors of all tensors as JSON.")
      ->option_text("FILE");
  command.callback([flags, &action] { action = [flags] { return start(*flags); }; });
}

}  // namespace sprocket::launcher
