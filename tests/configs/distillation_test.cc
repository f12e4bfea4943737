// The networks of a distillation: their defaults and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "configs/load.h"
#include "configs/roles.h"

namespace sprocket::config {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

Job job_of(const std::string& text, int world = 4) {
  LoadOptions options;
  options.world = world;
  return parse_job(text, "job.txtpb", {}, options).job;
}

std::string errors_of(const std::string& text, Purpose purpose = Purpose::kInspect) {
  LoadOptions options;
  options.purpose = purpose;
  options.world = 4;
  try {
    parse_job(text, "job.txtpb", {}, options);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

const std::string kSparse =
    "model { dim: 64 heads: 4 } attention { method: VSA cube { t: 2 } domains: 4 vsa { sparsity { "
    "start: 0.5 } } } parallel { ulysses: 2 strategy: RING } training { optimizer { learning_rate: "
    "0.5 } } ";

TEST(Roles, TakeWhatIsNotGivenFromTheStudent) {
  const Job job = job_of(kSparse + "distillation { teacher { weights: 'w' } }");
  const Job teacher = role_job(job, NetworkRole::kTeacher);
  EXPECT_EQ(teacher.attention().method(), Attention::DENSE);
  EXPECT_EQ(teacher.attention().cube().t(), 2);
  EXPECT_EQ(teacher.attention().domains(), 4);
  EXPECT_EQ(teacher.parallel().outer(), 2);
  EXPECT_EQ(teacher.parallel().strategy(), Parallel::RING);
  EXPECT_EQ(teacher.model().weights(), "w");
  // TDM: as the student.
  const Job fake = role_job(job, NetworkRole::kFakeScore);
  EXPECT_EQ(fake.attention().method(), Attention::VSA);
  EXPECT_EQ(fake.attention().vsa().sparsity().start(), 0.5);
  EXPECT_EQ(fake.training().optimizer().learning_rate(), 0.5);
  EXPECT_EQ(fake.model().weights(), "w");
  const Job student = role_job(job, NetworkRole::kStudent);
  EXPECT_EQ(student.attention().method(), Attention::VSA);
  EXPECT_EQ(student.model().weights(), "w");
}

TEST(Roles, AdaptersAreTheStudentsUnlessGivenAndTheTeacherHasNone) {
  const std::string training =
      "model { dim: 64 heads: 4 } training { lora { rank: 8 alpha: 4 weights: 'a' } } ";
  Job job = job_of(training + "distillation { teacher { weights: 'w' } }");
  const Lora fake = role_job(job, NetworkRole::kFakeScore).training().lora();
  EXPECT_EQ(fake.rank(), 8);
  EXPECT_EQ(fake.alpha(), 4);
  EXPECT_EQ(fake.weights(), "");  // it starts as the teacher
  EXPECT_EQ(role_job(job, NetworkRole::kStudent).training().lora().weights(), "a");
  EXPECT_FALSE(role_job(job, NetworkRole::kTeacher).training().has_lora());
  job = job_of(training +
               "distillation { teacher { weights: 'w' } fake_score { lora { rank: 0 } } }");
  EXPECT_EQ(role_job(job, NetworkRole::kFakeScore).training().lora().rank(), 0);
}

TEST(Lora, ListsEveryProblem) {
  const std::string errors = errors_of(
      "training { lora { rank: 0 alpha: -1 target: '' } } distillation { teacher { lora { rank: 2 "
      "} "
      "} }");
  EXPECT_THAT(errors, HasSubstr("training.lora.alpha: -1"));
  EXPECT_THAT(errors, HasSubstr("training.lora.rank: 0 (no adapters) beside other fields"));
  EXPECT_THAT(errors, HasSubstr("training.lora.target: \"\" is no layer"));
  EXPECT_THAT(errors, HasSubstr("distillation.teacher.lora: the teacher is not trained"));
  EXPECT_THAT(
      errors_of("data { path: 'd' } training { lora { rank: 2 } }", Purpose::kTrain),
      HasSubstr("model.weights: not set; expected the weights that the adapters are trained "
                "beside"));
}

TEST(Roles, HaveWhatTheyAreGiven) {
  const Job job = job_of(
      "model { dim: 64 heads: 4 weights: 's' } parallel { ulysses: 2 } distillation { recipe: DMD2 "
      "teacher { weights: 'w' parallel { ulysses: 4 } } fake_score { weights: 'f' optimizer { "
      "learning_rate: 2 } } }");
  const Job teacher = role_job(job, NetworkRole::kTeacher);
  EXPECT_EQ(teacher.parallel().ulysses(), 4);
  EXPECT_EQ(teacher.parallel().outer(), 1);
  const Job fake = role_job(job, NetworkRole::kFakeScore);
  EXPECT_EQ(fake.attention().method(), Attention::DENSE);
  EXPECT_EQ(fake.training().optimizer().learning_rate(), 2);
  EXPECT_EQ(fake.model().weights(), "f");
  EXPECT_EQ(role_job(job, NetworkRole::kStudent).model().weights(), "s");
  EXPECT_EQ(job.distillation().dmd2().timestep().size(), 4);
}

TEST(Roles, AJobWithoutDistillationHasNone) {
  EXPECT_FALSE(job_of(kSparse).has_distillation());
  EXPECT_THAT(errors_of(kSparse, Purpose::kDistill),
              HasSubstr("distillation: not set; expected a recipe and a teacher"));
  EXPECT_THAT(errors_of(kSparse + "distillation { }", Purpose::kDistill),
              HasSubstr("distillation.teacher.weights: not set"));
}

TEST(Roles, RulesAreToldUnderTheRolesName) {
  EXPECT_THAT(errors_of(kSparse + "distillation { teacher { parallel { ulysses: 3 } } }"),
              HasSubstr("job.txtpb:1:232: distillation.teacher.parallel.ulysses: 3 does not divide "
                        "model.heads: 4; legal: 1, 2, 4"));
  EXPECT_THAT(errors_of(kSparse + "distillation { fake_score { optimizer { beta1: 1 } } }"),
              HasSubstr("distillation.fake_score.optimizer.beta1: 1"));
  EXPECT_THAT(errors_of(kSparse + "distillation { teacher { parallel { data: 4 } } }"),
              HasSubstr("distillation.teacher.parallel.data: 4, the student's is 1; legal: 1"));
}

TEST(Roles, OffloadIsForATeacherWithWeightsOfItsOwnOnADevice) {
  const auto said = [](const std::string& distillation, const std::string& rest) {
    return errors_of("model { dim: 128 heads: 2 " + rest + " distillation { " + distillation +
                     " }");
  };
  const std::string device = "} compute { device: CUDA precision: BF16 } ";
  const std::string teacher = "teacher { weights: 'w' offload: true } ";
  EXPECT_THAT(said(teacher, "}"), HasSubstr("the teacher computes in the host's memory; legal with "
                                            "device CPU: false"));
  EXPECT_THAT(said(teacher, device), Not(HasSubstr("offload")));
  const std::string adapters = "training { lora { rank: 2 } }";
  EXPECT_THAT(
      said(teacher, device + adapters),
      AllOf(HasSubstr("distillation.teacher.offload: the student trains adapters beside the "
                      "same weights"),
            HasSubstr("the fake_score trains adapters")));
  EXPECT_THAT(
      said(teacher + "fake_score { lora { rank: 0 } }", "weights: 's' " + device + adapters),
      Not(HasSubstr("offload")));
  EXPECT_THAT(said("fake_score { offload: true }", "}"),
              HasSubstr("distillation.fake_score.offload: the fake score is trained"));
}

TEST(Recipes, SegmentsDivideTheSchedule) {
  EXPECT_THAT(errors_of(kSparse + "distillation { tdm { segments: 7 } }"),
              HasSubstr("distillation.tdm.segments: 7 does not divide 1000 timesteps into at most "
                        "40 segments; legal: 1, 2, 4, 5, 8, 10, 20, 25, 40"));
  EXPECT_THAT(errors_of(kSparse + "distillation { tdm { segments: 8 last_timestep: 800 } }"),
              HasSubstr("distillation.tdm.last_timestep: 800"));
}

TEST(Recipes, TimestepsDescend) {
  EXPECT_THAT(errors_of(kSparse + "distillation { dmd2 { timestep: [1000, 500, 750] } }"),
              HasSubstr("distillation.dmd2.timestep: 750 after 500; legal: descending values"));
  EXPECT_THAT(errors_of(kSparse + "distillation { dmd2 { timestep: [1001] } }"),
              HasSubstr("distillation.dmd2.timestep"));
  EXPECT_THAT(errors_of(kSparse + "distillation { dmd2 { lowest_level: 0.99 } }"),
              HasSubstr("distillation.dmd2.lowest_level"));
}

}  // namespace
}  // namespace sprocket::config
