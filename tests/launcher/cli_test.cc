// The command line as users meet it: messages, exit codes, and help texts that are frozen.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launcher/command.h"
#include "tests/launcher/process.h"

namespace sprocket::launcher {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr int kConfigCode = static_cast<int>(ExitCode::kConfig);

TEST(Help, IsFrozen) {
  Action action;
  const auto app = make_command_line(action);
  // File name of the golden text -> command.
  std::vector<std::pair<std::string, const CLI::App*>> commands = {{"sprocket", app.get()}};
  for (size_t i = 0; i < commands.size(); ++i) {
    const auto [name, command] = commands[i];
    for (const CLI::App* child : command->get_subcommands({})) {
      commands.emplace_back((name == "sprocket" ? "" : name + "_") + child->get_name(), child);
    }
  }
  EXPECT_EQ(commands.size(), 24u);
  const bool update =
      ::testing::GTEST_FLAG(filter) == "Help.IsFrozen" && std::getenv("UPDATE_GOLDEN");
  for (const auto& [name, command] : commands) {
    const std::string path =
        std::string(SPROCKET_SOURCE_DIR "/tests/launcher/golden/") + name + ".txt";
    if (update) std::ofstream(path) << command->help();
    std::ifstream stream(path);
    std::ostringstream golden;
    golden << stream.rdbuf();
    EXPECT_EQ(command->help(), golden.str())
        << "the command line changed: UPDATE_GOLDEN=1 launcher_test --gtest_filter=Help.IsFrozen";
    std::istringstream lines(command->help());
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 116u) << line;
  }
}

TEST(Cli, HelpAndVersionSucceed) {
  const ProcessResult version = run_sprocket("--version");
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out, "sprocket 0.1.0\n");
  const ProcessResult help = run_sprocket("train --help");
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out,
              AllOf(StartsWith("Trains a video diffusion transformer"), HasSubstr("Exit codes:")));
  EXPECT_EQ(help.err, "");
}

TEST(Cli, WrongCommandLinesAreRefusedWithAHint) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "sprocket: expected a command; nothing was run, see sprocket --help\n"},
      {"trian --config x",
       "sprocket: unknown command trian; did you mean train? nothing was run, see sprocket "
       "--help\n"},
      {"data", "sprocket data: expected a command; nothing was run, see sprocket data --help\n"},
      {"train",
       "sprocket train: --config is required; nothing was run, see sprocket train --help\n"},
      {"train --config x --fast",
       "sprocket train: unknown argument --fast; nothing was run, see sprocket train --help\n"},
      {"train --config x --dry-runs",
       "sprocket train: unknown argument --dry-runs; did you mean --dry-run? nothing was run, see "
       "sprocket "
       "train --help\n"},
      {"train --config",
       "sprocket train: --config: 1 required TEXT missing; nothing was run, see sprocket "
       "train --help\n"},
      {"train --config x --ranks 2",
       "sprocket train: --ranks requires --dry-run; nothing was run, see sprocket train --help\n"},
  };
  for (const auto& [arguments, message] : cases) {
    const ProcessResult result = run_sprocket(arguments);
    EXPECT_EQ(result.code, kConfigCode) << arguments;
    EXPECT_EQ(result.err, message);
    EXPECT_EQ(result.out, "");
  }
  const ProcessResult ranks = run_sprocket("train --config x --dry-run --ranks none");
  EXPECT_EQ(ranks.code, kConfigCode);
  EXPECT_THAT(ranks.err, HasSubstr("--ranks"));
}

TEST(Cli, AllProblemsOfAJobInOneRun) {
  const std::string file = write_file("job.txtpb",
                                      "model { heads: 12 dim: \"wide\" }\n"
                                      "parallel {\n  ulysses: 8\n  ring: 2\n}\n");
  const ProcessResult result = run_sprocket(
      "train --config " + file + " --set 'training.steps: 0' --output x --dry-run --ranks 8");
  EXPECT_EQ(result.code, kConfigCode);
  EXPECT_EQ(
      result.err,
      file + ":1:24: model.dim: expected an integer, found \"wide\"\n" + file +
          ":3:3: parallel.ulysses: 8 does not divide model.heads: 12; legal: 1, 2, 3, 4, 6, 12\n" +
          file +
          ":4:3: parallel.ring: unknown field; fields of parallel: ulysses, outer, strategy, data, "
          "remote_kv, overlap, single_pass, gradient_wire, gather_above, head_groups, "
          "balance_heads, check_collectives, "
          "timeout_seconds\n"
          "--set 'training.steps: 0': training.steps: 0; legal: 1 or more\n"
          "data.path: not set; expected a folder made by `sprocket data encode`\n"
          "sprocket: nothing was run\n");
  EXPECT_EQ(result.out, "");
}

TEST(Cli, MissingJobAndMissingFolders) {
  const ProcessResult missing =
      run_sprocket("train --config /nowhere/job.txtpb --dry-run --ranks 1");
  EXPECT_EQ(missing.code, kConfigCode);
  EXPECT_EQ(missing.err,
            "/nowhere/job.txtpb: expected a job description in text format, found no such file\n"
            "sprocket: nothing was run\n");
  const std::string file = write_file("bare.txtpb", "data { path: 'nowhere' }");
  const ProcessResult bare =
      run_sprocket("train --config " + file + " --output x --dry-run --ranks 1");
  EXPECT_EQ(bare.code, kConfigCode);
  EXPECT_THAT(bare.err, HasSubstr(":1:8: data.path: "));
  EXPECT_THAT(bare.err, HasSubstr("data.latent"));
}

TEST(Cli, StatusOfNothing) {
  const ProcessResult nowhere = run_sprocket("status /nowhere");
  EXPECT_EQ(nowhere.code, static_cast<int>(ExitCode::kInput));
  EXPECT_THAT(nowhere.err, HasSubstr("/nowhere: no job is supervised here"));
  EXPECT_EQ(nowhere.out, "");
  const ProcessResult url = run_sprocket("status --url ftp://host");
  EXPECT_EQ(url.code, kConfigCode);
  EXPECT_THAT(url.err, HasSubstr("--url: expected http://HOST:PORT"));
  const ProcessResult both = run_sprocket("status --url http://127.0.0.1:1 folder");
  EXPECT_EQ(both.code, kConfigCode);
  const ProcessResult token = run_sprocket("status --token-file x");
  EXPECT_EQ(token.code, kConfigCode);
}

TEST(Cli, MoreRanksThanWork) {
  const ProcessResult result = run_sprocket(
      "train --config configs/quickstart.txtpb --set 'attention.domains: 1' "
      "--set 'data.latent { t: 1 h: 4 w: 4 }' --set 'data.path: \"nowhere\"' --dry-run --ranks 3");
  EXPECT_EQ(result.code, kConfigCode);
  EXPECT_THAT(result.err,
              HasSubstr("3, found a video of 1 blocks: some ranks would have no work; legal: 1 to "
                        "1"));
}

// The number of ranks and the command in the comment "mpirun -np N … sprocket COMMAND --config
// configs/NAME".
std::pair<std::string, std::string> documented_start(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::ostringstream text;
  text << stream.rdbuf();
  const std::regex command("# +mpirun -np ([0-9]+) .*sprocket (train|distill) --config configs/");
  std::smatch match;
  const std::string whole = text.str();
  if (!std::regex_search(whole, match, command)) return {};
  return {match[1].str(), match[2].str()};
}

TEST(Cli, EveryShippedJobDryRuns) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(SPROCKET_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".txtpb") continue;
    if (entry.path().filename().string().starts_with("attention_")) continue;  // no model
    if (entry.path().filename().string().starts_with("cluster_")) continue;
    ++count;
    const auto [ranks, command] = documented_start(entry.path());
    const std::string job = command + " --config " + entry.path().string() + " --dry-run --ranks ";
    const bool trains = command == "train";
    for (const auto& [world, arguments] :
         {std::pair{ranks, job + ranks},
          {std::string("1"),
           job + "1 --set 'parallel { ulysses: 1 data: 1 }'" +
               (trains ? "" : " --set 'distillation.teacher.parallel { ulysses: 1 data: 1 }'")}}) {
      const ProcessResult result = run_sprocket(arguments);
      EXPECT_EQ(result.code, 0) << arguments << "\n" << result.err;
      EXPECT_EQ(result.err, "");
      EXPECT_THAT(result.out, HasSubstr("nothing was run"));
      EXPECT_THAT(result.out, AllOf(HasSubstr("Mesh\n  " + world + " rank"), HasSubstr("total")));
      EXPECT_EQ(result.out.find("\n  fake_score ") == std::string::npos, trains);
    }
  }
  EXPECT_GE(count, 6);
}

TEST(Cli, PlansForAClusterWithoutMpi) {
  const ProcessResult plan = run_sprocket(
      "plan --config configs/quickstart.txtpb --cluster configs/cluster_ethernet.txtpb --top 3");
  EXPECT_EQ(plan.code, 0) << plan.err;
  EXPECT_THAT(plan.out, AllOf(HasSubstr("Plan of configs/quickstart.txtpb on 4 small machines"),
                              HasSubstr("Recommended: "), HasSubstr("Shard layouts")));
  for (const char* job :
       {"distill_wan2.1_1.3b_tdm", "distill_wan2.1_1.3b_dmd2", "distill_cogvideox_5b_tdm"}) {
    const std::string of = std::string("plan --config configs/") + job +
                           ".txtpb --cluster configs/cluster_h200_nvlink_400g.txtpb";
    const ProcessResult distillation = run_sprocket(of);
    EXPECT_EQ(distillation.code, 0) << job << distillation.err;
    EXPECT_THAT(distillation.out, AllOf(HasSubstr("Recommended: student: data "),
                                        HasSubstr("; teacher: data "), HasSubstr("as the job")));
    const ProcessResult scale = run_sprocket(of + " --scale 8:16");
    EXPECT_EQ(scale.code, kConfigCode);
    EXPECT_THAT(scale.err, HasSubstr("--scale: of a job with distillation"));
  }
  const ProcessResult none = run_sprocket(
      "plan --config configs/quickstart.txtpb --cluster configs/cluster_nowhere.txtpb");
  EXPECT_EQ(none.code, kConfigCode);
  EXPECT_THAT(none.err, HasSubstr("expected a cluster description in text format, found no such"));
  const ProcessResult lone = run_sprocket("plan --config x --cluster y --coverage 0.1");
  EXPECT_EQ(lone.code, kConfigCode);
  EXPECT_THAT(lone.err, HasSubstr("--coverage requires --density"));
}

TEST(Cli, LaunchPrintsWhatItWouldRun) {
  const ProcessResult printed = run_sprocket(
      "launch --np 3 --hosts a:2,b:2 --export PATH --limit step=3 --limit init=9 --print -- train "
      "--config job.txtpb --set 'training.steps: 5'");
  EXPECT_EQ(printed.code, 0) << printed.err;
  EXPECT_THAT(printed.out, AllOf(StartsWith("mpirun -np 3 --host a:2,b:2 --mca "),
                                 HasSubstr(" train --config job.txtpb --set 'training.steps: 5'")));
  const std::string script = "launch --np 3 --print --slurm -- ";
  EXPECT_THAT(run_sprocket(script + "train --config job.txtpb").out,
              HasSubstr(" -- train --config job.txtpb --resume latest\n"));
  EXPECT_THAT(run_sprocket(script + "train --config job.txtpb --resume runs/x").out,
              HasSubstr(" --resume runs/x\n"));
}

TEST(Cli, LaunchRefusesWhatCannotRunBeforeItStartsAnything) {
  const std::string job = " -- train --config x";
  const std::pair<std::string, const char*> cases[] = {
      {"--np 2 -- train --confg x", "sprocket train: unknown argument --confg; did you mean"},
      {"--np 2 -- doctor", "launch: doctor: expected train, distill, sample or profile"},
      {"--np 2 -- profile report x", "launch: profile report runs on no ranks"},
      {"--np 0" + job, "--np"},
      {"--np 2", "job is required"},
      {"--np 5 --hosts a:2,b:2" + job, "--np 5: the hosts take 4 ranks; legal: 1 to 4"},
      {"--np 2 --hosts a:2 --hostfile h" + job, "--hostfile"},
      {"--np 2 --hosts a:2 --print --slurm" + job, "--slurm: Slurm chooses the hosts"},
      {"--np 2 --limit walk=3" + job, "--limit walk=3: expected SECTION=SECONDS; sections: init"},
      {"--np 2 --limit step=0" + job, "--limit step=0: expected SECTION=SECONDS"},
      {"--np 2 --export NO_SUCH_THING" + job, "--export NO_SUCH_THING: there is no such variable"},
      {"--np 2 --listen here" + job, "expected a numeric address to listen on, found \"here\""},
  };
  for (const auto& [arguments, message] : cases) {
    const ProcessResult result = run_sprocket("launch " + arguments);
    EXPECT_EQ(result.code, kConfigCode) << arguments;
    EXPECT_THAT(result.err, HasSubstr(message)) << arguments;
    EXPECT_EQ(result.out, "") << arguments;
  }
}

TEST(Cli, DoctorRefusesRanksThatHostsCannotTake) {
  const std::pair<const char*, const char*> cases[] = {
      {"--hosts a:2", "--hosts and --hostfile need --np"},
      {"--np 5 --hosts a:2,b:2", "--np 5: the hosts take 4 ranks; legal: 1 to 4"},
      {"--np 2 --hosts a:0", "expected a number of ranks from 1"},
      {"--np 2 --hosts a:2 --hostfile h", "--hostfile"},
      {"--np 0", "--np"},
  };
  for (const auto& [arguments, message] : cases) {
    const ProcessResult result = run_sprocket(std::string("doctor ") + arguments);
    EXPECT_EQ(result.code, kConfigCode) << arguments;
    EXPECT_THAT(result.err, HasSubstr(message)) << arguments;
  }
}

TEST(Cli, DoctorSaysThatThisMachineCanRun) {
  const ProcessResult result = run_sprocket("doctor");
  EXPECT_EQ(result.code, 0) << result.out << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("MPI"), HasSubstr("OpenMP runtime"),
                                HasSubstr("LibTorch"), HasSubstr("Jobs can run on this machine")));
  EXPECT_THAT(result.out, Not(HasSubstr("PROBLEM")));
}

}  // namespace
}  // namespace sprocket::launcher
