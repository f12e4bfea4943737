// Losses and gradients of every phase on several ranks equal those of one rank, each network under
// a strategy of its own; the teacher stays as it is.
#include <gtest/gtest.h>

#include <map>

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include "base/philox.h"
#include "configs/load.h"
#include "runtime/distill/role_network.h"
#include "runtime/train/job_diffusion.h"
#include "runtime/train/optimizer.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket::runtime {
namespace {

constexpr data::LatentShape kShape{4, 3, 8, 10};

struct RanksCase {
  const char* name;
  int ranks;
  const char* student;     // parallel of
  const char* others;      // distillation's networks
  const char* lora = "";   // of training
  const char* whole = "";  // of the fake score, on one rank too
};

struct RecipeCase {
  const char* name;
  const char* family;
  const char* recipe;
  const char* changes = "";  // of the job
};
void PrintTo(const RecipeCase& c, std::ostream* out) { *out << c.name; }

struct PhaseResult {
  double loss = 0;
  at::Tensor gradients;
};

config::Job distill_job(int ranks, const RecipeCase& c, const std::string& student,
                        const std::string& others, const std::string& lora) {
  config::LoadOptions options;
  options.purpose = config::Purpose::kParity;
  options.world = ranks;
  std::vector<std::string> changes;
  if (*c.changes != 0) changes.push_back(c.changes);
  return config::parse_job(
             std::string(
                 "model { dim: 64 heads: 4 layers: 2 ffn_dim: 64 latent_channels: 4 text_dim: 8 "
                 "text_tokens: 6 frequency_dim: 16 ") +
                 c.family +
                 " }\n"
                 "attention { method: VSA cube { t: 2 h: 2 w: 2 } domains: 4 vsa { sparsity { "
                 "start: "
                 "0.5 "
                 "} } }\n"
                 "compute { precision: FP64 } data { latent { t: 3 h: 8 w: 10 } }\n"
                 "training { global_batch: 2 micro_batch: 1 " +
                 lora +
                 " }\n"
                 "distillation { recipe: " +
                 c.recipe +
                 " guidance: 3 tdm { segments: 4 teacher_weight: "
                 "0.5 } dmd2 { student_interval: 1 } " +
                 others + " }\n" + student,
             "distill_ranks_test", changes, options)
      .job;
}

// Not the rules of the model, whose zeros at first would make all three networks equal.
void fill(const models::ParameterStore& parameters, uint64_t seed) {
  for (int i = 0; i < parameters.size(); ++i) {
    const at::Tensor tensor = parameters.tensor(i).detach();
    std::vector<float> values(tensor.numel());
    RandomStream(seed, 0, i, RandomPurpose::kTest).normal(values);
    tensor.copy_(at::from_blob(values.data(), tensor.sizes(), at::kFloat)).mul_(0.2);
  }
}

// Of both phases of step 3, summed over the ranks.
std::vector<PhaseResult> run_phases(const config::Job& job, int ranks) {
  std::vector<PhaseResult> results(2);
  testing::run_ranks(ranks, [&](std::unique_ptr<comm::Communicator> world) {
    const config::Parallel& parallel = job.parallel();
    const parallel::Mesh mesh(std::move(world),
                              {parallel.data(), parallel.outer(), parallel.ulysses()});
    RoleSetup setup;
    setup.memory = int64_t{1} << 40;
    setup.shape = kShape;
    FrozenWeights frozen(job);
    setup.frozen = &frozen;
    std::map<config::NetworkRole, std::unique_ptr<RoleNetwork>> roles;
    uint64_t seed = 1;
    for (const auto role : {config::NetworkRole::kStudent, config::NetworkRole::kTeacher,
                            config::NetworkRole::kFakeScore}) {
      roles[role] = std::make_unique<RoleNetwork>(job, role, mesh, setup);
      fill(roles[role]->network().parameters(), seed++);
      roles[role]->denoiser().begin_step(3);
    }
    const Networks networks{roles[config::NetworkRole::kStudent]->denoiser(),
                            roles[config::NetworkRole::kTeacher]->denoiser(),
                            roles[config::NetworkRole::kFakeScore]->denoiser(), job_diffusion(job)};
    const at::Tensor teacher_before =
        roles[config::NetworkRole::kTeacher]->network().parameters().flat_parameters().clone();
    const auto recipe = make_recipe(job);
    const auto phases = recipe->phases(3);
    ASSERT_EQ(phases.size(), 2u);
    for (size_t phase = 0; phase < phases.size(); ++phase) {
      RoleNetwork& trained = *roles[phases[phase].trained];
      trained.network().parameters().zero_gradients();
      double sum = 0;
      for (int64_t micro = 0; micro < 2 / parallel.data(); ++micro) {
        const int64_t lane = micro * parallel.data() + mesh.coordinate().data;
        const at::TensorOptions options(at::kDouble);
        at::Tensor text = at::zeros({1, 6, 8}, options);
        text.select(1, lane).fill_(0.3 + static_cast<double>(lane));
        Scene scene(5, 3, {lane}, {kShape.c, kShape.t, kShape.h, kShape.w}, options, text,
                    at::zeros({1, 6, 8}, options));
        const at::Tensor loss = recipe->loss(phase, networks, scene) / 2;
        sum += loss.item<double>();
        loss.backward();
        trained.denoiser().end_backward();
      }
      mesh.host()
          .data()
          .all_reduce(comm::Buffer::of(std::span(&sum, 1)), comm::ReduceOp::kSum)
          .wait_host();
      sum_gradients(trained.network().parameters(), mesh.tensors().world());
      if (mesh.world().rank() == 0) {
        results[phase] = {sum, trained.network().parameters().flat_gradients().clone()};
      }
    }
    EXPECT_TRUE(teacher_before.equal(
        roles[config::NetworkRole::kTeacher]->network().parameters().flat_parameters()));
    EXPECT_FALSE(
        roles[config::NetworkRole::kTeacher]->network().parameters().flat_gradients().defined());
  });
  return results;
}

class DistillRanks : public ::testing::TestWithParam<std::tuple<RecipeCase, RanksCase>> {};

TEST_P(DistillRanks, EqualOneRank) {
  const auto& [recipe, c] = GetParam();
  const std::string whole = c.whole;
  const auto fake_score = [&](const std::string& others) { return whole + " " + others; };
  const auto one = run_phases(distill_job(1, recipe, "", fake_score(""), c.lora), 1);
  const auto many =
      run_phases(distill_job(c.ranks, recipe, c.student, fake_score(c.others), c.lora), c.ranks);
  for (size_t phase = 0; phase < one.size(); ++phase) {
    EXPECT_NEAR(many[phase].loss, one[phase].loss, 1e-10 * one[phase].loss) << "phase " << phase;
    const double norm = one[phase].gradients.norm().item<double>();
    EXPECT_GT(norm, 1e-6);
    EXPECT_LE((many[phase].gradients - one[phase].gradients).norm().item<double>(), 1e-10 * norm)
        << "phase " << phase;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Strategies, DistillRanks,
    ::testing::Combine(
        ::testing::Values(
            RecipeCase{"TDM", "", "TDM"}, RecipeCase{"DMD2", "", "DMD2"},
            RecipeCase{"CogVideoXTDM",
                       "family: COGVIDEOX cogvideox { time_dim: 24 positions: SCALED_ROPE }", "TDM",
                       "distillation.tdm { normalise_limit: 5 huber_elements: 1123200 }"}),
        ::testing::Values(
            RanksCase{"Ring", 2, "parallel { outer: 2 strategy: RING }", ""},
            RanksCase{"SelectedTeacherUlysses", 2, "parallel { outer: 2 strategy: SELECTED }",
                      "teacher { parallel { ulysses: 2 outer: 1 } }"},
            RanksCase{"UlyssesFakeRing", 4, "parallel { ulysses: 4 outer: 1 }",
                      "fake_score { parallel { outer: 4 strategy: RING } } teacher { parallel { "
                      "ulysses: 2 outer: 2 strategy: ALL_GATHER } }"},
            RanksCase{"GatherUlysses", 4, "parallel { ulysses: 2 outer: 2 strategy: ALL_GATHER }",
                      ""},
            RanksCase{"Replicas", 4, "parallel { data: 2 outer: 2 strategy: SELECTED }", ""},
            RanksCase{"AdaptersOnOneBase", 4, "parallel { ulysses: 2 outer: 2 strategy: SELECTED }",
                      "fake_score { parallel { outer: 4 strategy: RING } }",
                      "lora { rank: 3 alpha: 6 }"},
            RanksCase{"AdaptersBesideAWholeFakeScore", 2, "parallel { outer: 2 strategy: RING }",
                      "", "lora { rank: 3 }", "fake_score { lora { rank: 0 } }"})),
    [](const auto& info) {
      return std::string(std::get<0>(info.param).name) + std::get<1>(info.param).name;
    });

}  // namespace
}  // namespace sprocket::runtime
