// check-parity: it passes for every method, mesh and option, and finds what is planted.
#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/jobs/parity_job.h"
#include "runtime/train/job_model.h"
#include "runtime/train/network.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/faulty_backend.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket {
namespace {

using runtime::ParityOutcome;
using ::testing::AllOf;
using ::testing::AnyOf;
using testing::Fault;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::TemporaryFolder;
using Overrides = std::vector<std::string>;

config::Job parity_job(const TemporaryFolder& folder, int ranks, Overrides overrides,
                       config::Compute::Precision precision = config::Compute::FP64) {
  overrides.insert(overrides.begin(), "compute.threads: 1");
  config::Job job = testing::tiny_job(folder.path().string(), ranks, std::move(overrides),
                                      config::Purpose::kParity);
  job.mutable_compute()->set_precision(precision);
  return job;
}

int world_of(const config::Job& job) {
  return job.parallel().data() * job.parallel().outer() * job.parallel().ulysses();
}

runtime::ParityOptions options_of(const std::string& report = "") {
  runtime::ParityOptions options;
  options.name = "tiny_job";
  options.report = report;
  options.attention_step = 19;
  return options;
}

constexpr auto kNoFault = [](comm::OpKind, const std::string&, comm::Buffer) {};

// job_of(rank) is that rank's, so that one of them can be led astray; `job` is compared with.
ParityOutcome check(const config::Job& job, const std::function<config::Job(int)>& job_of,
                    const Fault& fault, const std::string& report = "") {
  runtime::ParityResults found;
  testing::run_ranks(
      world_of(job),
      [&](std::unique_ptr<comm::Backend> plain) {
        return testing::make_faulty_backend(std::move(plain), "world", fault);
      },
      [&](std::unique_ptr<comm::Communicator> world) {
        const int rank = world->rank();
        auto results = runtime::compute_on_ranks(job_of(rank), std::move(world), options_of());
        if (rank == 0) found = std::move(results);
      });
  return runtime::compare_with_one_rank(job, found, options_of(report));
}

ParityOutcome check(const config::Job& job, const Fault& fault = kNoFault,
                    const std::string& report = "") {
  return check(
      job, [&](int) { return job; }, fault, report);
}

// The loss, the output and the parameters of the model with both gates.
constexpr size_t kTensors = 79;

const Overrides kMethods = {
    "attention.method: DENSE",
    "attention { method: VSA max_coverage { start: 0.4 } vsa { sparsity { start: 0.6 } "
    "fine_gate: true } }",
    "attention { method: BSA bsa { sparsity { start: 0.5 } } }",
    "attention { method: PSA order: HILBERT block_tokens: 8 }",
    "attention { method: ASA order: HILBERT block_tokens: 8 asa { global_width: 4 max_keep: 0.5 } "
    "}",
    "attention { method: SLIDING_TILE sliding_tile { window { t: 2 h: 3 w: 3 } } }"};

// The tensors are small: threads would wait for each other more than they compute.
class SingleThreadedTensors : public ::testing::Environment {
 public:
  void SetUp() override { at::set_num_threads(1); }
};
[[maybe_unused]] const auto* const kEnvironment =
    ::testing::AddGlobalTestEnvironment(new SingleThreadedTensors);

TEST(Parity, HoldsForEveryMethodStrategyAndMesh) {
  TemporaryFolder folder;
  for (const std::string& method : kMethods) {
    for (const char* strategy : {"SELECTED", "RING", "ALL_GATHER"}) {
      for (const char* ulysses : {"1", "2"}) {
        const ParityOutcome outcome = check(parity_job(
            folder, 4,
            {method, fmt::format("parallel {{ strategy: {} ulysses: {} }}", strategy, ulysses)}));
        EXPECT_TRUE(outcome.comparison.passed()) << outcome.text;
        EXPECT_THAT(outcome.text, AnyOf(HasSubstr("the same in all"), HasSubstr("none depends")));
      }
    }
  }
}

// The text is a prefix of the sequence: its rows are computed once, by one rank.
TEST(Parity, HoldsForTextInTheSequence) {
  TemporaryFolder folder;
  for (const std::string& method : kMethods) {
    for (const char* strategy : {"SELECTED", "RING", "ALL_GATHER"}) {
      for (const char* ulysses : {"1", "2"}) {
        const ParityOutcome outcome = check(parity_job(
            folder, 4,
            {testing::kTinyCogVideoX, method,
             fmt::format("parallel {{ strategy: {} ulysses: {} }}", strategy, ulysses)}));
        EXPECT_TRUE(outcome.comparison.passed()) << outcome.text;
      }
    }
  }
  for (const char* variant :
       {"model { patch { t: 3 } cogvideox { positions: ROPE } }",
        "model.cogvideox.positions: SINUSOIDS training.activation_checkpointing: BLOCK",
        "model.text_tokens: 90 attention.domains: 1"}) {
    const ParityOutcome outcome =
        check(parity_job(folder, 3, {testing::kTinyCogVideoX, "attention.domains: 3", variant}));
    EXPECT_TRUE(outcome.comparison.passed()) << variant << "\n" << outcome.text;
  }
}

TEST(Parity, HoldsForReplicasBatchesRecomputationAndRefetching) {
  TemporaryFolder folder;
  const std::string vsa = kMethods[1];
  const std::vector<std::pair<int, std::string>> variants = {
      {4, "parallel.data: 2 training.global_batch: 4 training.micro_batch: 2"},
      {2, "parallel.data: 2"},
      {3, "attention.domains: 3 training.micro_batch: 2"},
      {2, "training.activation_checkpointing: BLOCK parallel.remote_kv: FETCH_AGAIN"},
      {1, ""}};
  for (const auto& [ranks, variant] : variants) {
    const ParityOutcome outcome = check(parity_job(folder, ranks, {vsa, variant}));
    EXPECT_TRUE(outcome.comparison.passed()) << outcome.text;
    EXPECT_EQ(outcome.comparison.rows.size(), kTensors) << variant;
  }
}

TEST(Parity, LowPrecisionMayErrTwiceAsMuchAsOneRank) {
  TemporaryFolder folder;
  for (const auto precision : {config::Compute::FP32, config::Compute::BF16}) {
    for (const char* strategy : {"SELECTED", "RING"}) {
      const config::Job job = parity_job(
          folder, 2, {kMethods[1], std::string("parallel.strategy: ") + strategy}, precision);
      const ParityOutcome outcome = check(job);
      EXPECT_TRUE(outcome.comparison.passed()) << outcome.text;
      EXPECT_GT(outcome.comparison.rows.front().error, 0);
      EXPECT_THAT(outcome.text, HasSubstr("twice that of one rank in " +
                                          config::Compute::Precision_Name(precision)));
    }
  }
}

TEST(Parity, DrawsLatentsWhereThereIsNoDataSet) {
  TemporaryFolder folder;
  const config::Job job =
      parity_job(folder, 2, {kMethods[1], "data { path: 'nowhere' latent { t: 3 h: 6 w: 10 } }"});
  const ParityOutcome outcome = check(job);
  EXPECT_TRUE(outcome.comparison.passed()) << outcome.text;
  EXPECT_THAT(outcome.text, HasSubstr("latents drawn at random, [4, 3, 6, 10] (data.latent)"));
}

// Nothing that is compared may be zero for the want of a starting value.
TEST(Parity, ComparesGradientsThatAreNotZero) {
  TemporaryFolder folder;
  const config::Job job = parity_job(folder, 1, {kMethods[1], "training.text_dropout: 0"});
  testing::run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
    const auto results = runtime::compute_on_ranks(job, std::move(world), options_of());
    ASSERT_EQ(results.tensors.size(), kTensors);
    for (const runtime::ParityTensor& tensor : results.tensors) {
      EXPECT_GT(tensor.values.abs().max().item<double>(), 1e-9) << tensor.name;
    }
  });
}

void scale(comm::Buffer values, int64_t first, int64_t count, double factor) {
  ASSERT_EQ(values.dtype, DType::kF64);
  auto* const numbers = static_cast<double*>(values.data);
  for (int64_t i = first; i < first + count; ++i) numbers[i] *= factor;
}

// The sum of the gradients: the one large reduction of the world.
bool is_gradient_sum(comm::OpKind op, const std::string& group, comm::Buffer result) {
  return op == comm::OpKind::kAllReduce && group == "world" && result.dtype == DType::kF64 &&
         result.count > 1000;
}

std::string worst(const ParityOutcome& outcome) { return outcome.comparison.rows.front().name; }

class PlantedFault : public ::testing::Test {
  TemporaryFolder folder_;

 protected:
  config::Job job_ = parity_job(folder_, 2, {kMethods[1], "training.text_dropout: 0"});
};

TEST_F(PlantedFault, GradientsScaledByTheSequenceDegree) {
  const ParityOutcome outcome =
      check(job_, [](comm::OpKind op, const std::string& group, comm::Buffer result) {
        if (is_gradient_sum(op, group, result)) scale(result, 0, result.count, 2);
      });
  EXPECT_FALSE(outcome.comparison.passed());
  EXPECT_EQ(outcome.comparison.failed(), std::ssize(outcome.comparison.rows) - 2)
      << "every gradient, and neither output nor loss";
  const auto& rows = outcome.comparison.rows;
  const auto doubled = std::count_if(rows.begin(), rows.end(), [](const runtime::ParityRow& row) {
    return std::abs(row.error - 1) < 1e-9;
  });
  EXPECT_GE(doubled, 50);  // the others cancel, so that their scale is larger than they are
}

TEST_F(PlantedFault, TextCountedTwice) {
  const models::ParameterStore store(runtime::model_parameters(job_));
  const int64_t first = store.offset(store.index_of("text_embedding.0.weight"));
  const int64_t end = store.offset(store.index_of("time_embedding.0.weight"));
  const ParityOutcome outcome =
      check(job_, [&](comm::OpKind op, const std::string& group, comm::Buffer result) {
        if (is_gradient_sum(op, group, result)) scale(result, first, end - first, 2);
      });
  EXPECT_EQ(outcome.comparison.failed(), 4);
  EXPECT_THAT(worst(outcome), StartsWith("gradient of text_embedding."));
}

TEST_F(PlantedFault, PooledGradientNotDivided) {
  const ParityOutcome outcome =
      check(job_, [](comm::OpKind op, const std::string& group, comm::Buffer result) {
        if (op == comm::OpKind::kReduceScatter) scale(result, 0, result.count, 8);
      });
  EXPECT_FALSE(outcome.comparison.passed());
  const auto row_of = [&](const std::string& name) {
    for (const runtime::ParityRow& row : outcome.comparison.rows) {
      if (row.name == name) return row;
    }
    return runtime::ParityRow{};
  };
  EXPECT_FALSE(row_of("gradient of blocks.1.self_attn.k.weight").passed());
  EXPECT_FALSE(row_of("gradient of blocks.1.self_attn.v.weight").passed());
  EXPECT_TRUE(row_of("gradient of blocks.1.self_attn.q.weight").passed()) << "of the last layer";
  EXPECT_TRUE(row_of("output").passed());
}

// One element of one message, in the tenth digit.
TEST_F(PlantedFault, OneElementOfAReceivedBlock) {
  const ParityOutcome outcome =
      check(job_, [](comm::OpKind op, const std::string& group, comm::Buffer result) {
        if (op == comm::OpKind::kExchange && group == "sp.outer" && result.count > 0) {
          scale(result, result.count / 2, 1, 1 + 1e-6);
        }
      });
  EXPECT_FALSE(outcome.comparison.passed());
}

TEST_F(PlantedFault, OneRankHasOtherParameters) {
  config::Job other = job_;
  other.mutable_training()->set_seed(job_.training().seed() + 1);
  const ParityOutcome outcome = check(
      job_, [&](int rank) { return rank == 1 ? other : job_; }, kNoFault);
  EXPECT_FALSE(outcome.comparison.passed());
  EXPECT_THAT(outcome.text, AllOf(StartsWith("FAILED: "), HasSubstr(" of 79 tensors are off; the "
                                                                    "worst, ")));
}

TEST_F(PlantedFault, AnotherSparsityThanOneRank) {
  config::Job other = job_;
  other.mutable_attention()->mutable_vsa()->mutable_sparsity()->set_start(0.5);
  other.mutable_attention()->mutable_vsa()->mutable_sparsity()->set_end(0.5);
  const ParityOutcome outcome = check(
      other, [&](int) { return job_; }, kNoFault);
  EXPECT_FALSE(outcome.comparison.passed());
  EXPECT_THAT(outcome.text, HasSubstr("selections  differ in "));
}

TEST_F(PlantedFault, IsFoundInLowPrecisionToo) {
  job_.mutable_compute()->set_precision(config::Compute::BF16);
  const ParityOutcome outcome =
      check(job_, [](comm::OpKind op, const std::string& group, comm::Buffer result) {
        if (op != comm::OpKind::kAllReduce || result.dtype != DType::kF32) return;
        auto* const numbers = static_cast<float*>(result.data);
        for (int64_t i = 0; i < result.count; ++i) numbers[i] *= 2;
      });
  EXPECT_GT(outcome.comparison.failed(), 60);
  EXPECT_GT(outcome.comparison.rows.front().ratio(), 10);
}

TEST_F(PlantedFault, ANumberThatIsNoneIsTheWorst) {
  TemporaryFolder folder;
  const std::string report = folder.path().string() + "/parity.json";
  const ParityOutcome outcome = check(
      job_,
      [](comm::OpKind op, const std::string& group, comm::Buffer result) {
        if (is_gradient_sum(op, group, result)) {
          static_cast<double*>(result.data)[0] = std::numeric_limits<double>::quiet_NaN();
        }
      },
      report);
  EXPECT_EQ(outcome.comparison.failed(), 1);
  EXPECT_EQ(worst(outcome), "gradient of patch_embedding.weight");
  EXPECT_TRUE(std::isinf(outcome.comparison.rows.front().ratio()));
  const auto json = nlohmann::json::parse(testing::read_bytes(report));
  EXPECT_EQ(json.at("passed"), false);
  EXPECT_TRUE(json.at("tensors").at(0).at("error").is_null());
}

TEST(ParityReport, ListsEverythingWorstFirst) {
  TemporaryFolder folder;
  const std::string report = folder.path().string() + "/parity.json";
  const config::Job job = parity_job(folder, 2, {kMethods[1]});
  const ParityOutcome outcome = check(job, kNoFault, report);
  EXPECT_THAT(outcome.text,
              AllOf(StartsWith("PASSED: all 79 tensors agree; the worst, "),
                    HasSubstr("  job         tiny_job in FP64\n"),
                    HasSubstr("2 ranks (data 1 x outer 2 x ulysses 1, SELECTED) against one\n"),
                    HasSubstr("/data, sample "), HasSubstr("VSA at step 19\n"),
                    HasSubstr("and 69 better ones\n")));
  const auto json = nlohmann::json::parse(testing::read_bytes(report));
  EXPECT_EQ(json.at("schema"), 1);
  EXPECT_EQ(json.at("passed"), true);
  EXPECT_EQ(json.at("mesh").at("outer"), 2);
  ASSERT_EQ(json.at("tensors").size(), kTensors);
  double previous = std::numeric_limits<double>::infinity();
  for (const auto& row : json.at("tensors")) {
    EXPECT_LE(row.at("ratio").get<double>(), previous);
    previous = row.at("ratio");
    EXPECT_EQ(row.at("allowed"), 1e-10);
  }
}

}  // namespace
}  // namespace sprocket
