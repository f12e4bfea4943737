// The attention job: its files, on one rank and on several, and what it refuses.
#include "runtime/attention/attention_job.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <sstream>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/exit_code.h"
#include "base/log.h"
#include "configs/load.h"
#include "tests/runtime/attention_files.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using safetensors::ElementType;
using ::testing::AllOf;
using testing::Attention;
using testing::Extents;
using ::testing::HasSubstr;
using testing::InputTensor;
using testing::masked_attention;
using testing::path_in_test_folder;
using testing::random_tensor;
using testing::values_of;
using testing::write_tensors;

constexpr double kExact = 1e-10;  // fp64, whatever the order of sums

// A video with partial blocks in every axis, and two segments of a prefix.
constexpr const char* kProblem = "problem { grid { t: 3 h: 5 w: 6 } prefix: 7 prefix: 3 } ";
constexpr Extents kExtents = {2, 3 * 5 * 6 + 10, 6, 8};
constexpr const char* kDouble = "compute { precision: FP64 threads: 1 } ";

struct Method {
  const char* name;
  const char* attention;  // fields of `attention`
  bool is_mask = false;   // its output is that of masked_attention()
};
// Blocks of 2 x 2 x 3 tokens, or runs of 12.
const Method kMethods[] = {
    {"dense", "method: DENSE", true},
    {"vsa", "method: VSA vsa { sparsity { start: 0.6 } coarse: NONE }", true},
    {"vsa_gated",
     "method: VSA vsa { sparsity { start: 0.6 } fine_gate: true score: SUBBLOCK "
     "query_parts: 2 key_parts: 3 prefix: COMPETE }"},
    {"bsa", "method: BSA bsa { sparsity { start: 0.6 } }"},
    {"psa", "method: PSA block_tokens: 12 psa { samples: 3 similarity_cap: false }"},
    {"asa", "method: ASA block_tokens: 12 asa { samples: 4 mass: 0.6 max_keep: 0.5 }", true},
    {"asa_global",
     "method: ASA block_tokens: 12 asa { samples: 4 mass: 0.6 max_keep: 0.5 "
     "global_width: 4 exclude_selected: true }"},
    {"sliding_tile", "method: SLIDING_TILE sliding_tile { window { t: 1 h: 3 w: 1 } }", true},
};

std::string job_text(const Method& method, const std::string& more = kDouble) {
  return fmt::format("attention {{ cube {{ t: 2 h: 2 w: 3 }} {} }} {} {}", method.attention,
                     kProblem, more);
}

std::vector<InputTensor> input_tensors(ElementType type = ElementType::kF64) {
  std::vector<InputTensor> tensors;
  for (const char* name : {"q", "k", "v", "gate", "gate_fine", "grad_out"}) {
    tensors.push_back(random_tensor(name, kExtents, type));
  }
  return tensors;
}

struct Flags {
  bool backward = false, dump_selection = false;
  std::string selection, draw;
  int repeat = 0, draw_head = 0;
  std::optional<int> draw_query;
  int ranks = 1;
  std::vector<std::string> sets;  // --set
};

struct Outcome {
  ExitCode code = ExitCode::kOk;
  std::string report, error, path;

  safetensors::File file() const { return safetensors::File::open(path); }
};

// Does what the command does. The output's path is new in every call.
Outcome attend(const std::string& job, const std::string& input, const Flags& flags = {}) {
  static int number = 0;
  Outcome outcome;
  outcome.path = path_in_test_folder(fmt::format("out{:04}", ++number));
  AttentionOptions options;
  options.input = input;
  options.output = outcome.path;
  options.selection = flags.selection;
  options.backward = flags.backward;
  options.dump_selection = flags.dump_selection;
  options.repeat = flags.repeat;
  options.draw = flags.draw;
  options.draw_head = flags.draw_head;
  options.draw_query = flags.draw_query;
  try {
    config::LoadOptions load;
    load.purpose = config::Purpose::kAttention;
    load.world = flags.ranks;
    load.heads = heads_of_input(input);
    const config::Job loaded = config::parse_job(job, "job.txtpb", flags.sets, load).job;
    testing::run_ranks(flags.ranks, [&](std::unique_ptr<comm::Communicator> world) {
      const bool first = world->rank() == 0;
      const std::string report = run_attention(loaded, std::move(world), options);
      if (first) outcome.report = report;
    });
  } catch (const std::exception& error) {
    outcome.code = exit_code_of(error);
    outcome.error = error.what();
  }
  return outcome;
}

Outcome attend_successfully(const std::string& job, const std::string& input,
                            const Flags& flags = {}) {
  Outcome outcome = attend(job, input, flags);
  if (outcome.code != ExitCode::kOk) {
    throw std::runtime_error(fmt::format("{}: {}", job, outcome.error));
  }
  return outcome;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;  // infinities
    const double difference = std::abs(a[i] - b[i]);
    largest = std::isnan(difference) ? std::numeric_limits<double>::infinity()
                                     : std::max(largest, difference);
  }
  return largest;
}

void expect_equal_files(const safetensors::File& a, const safetensors::File& b, double tolerance) {
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const safetensors::TensorInfo& tensor : a.tensors()) {
    EXPECT_LE(largest_difference(values_of(a, tensor.name), values_of(b, tensor.name)), tolerance)
        << tensor.name;
  }
}

class AttentionJob : public ::testing::Test {
 protected:
  // The inputs hold more than most methods read, which they warn of.
  static void SetUpTestSuite() { spdlog::set_level(spdlog::level::err); }
  const std::string input_ = write_tensors("input.safetensors", input_tensors());
};

TEST_F(AttentionJob, OutputsAreThoseOfTheDumpedMask) {
  std::vector<std::vector<double>> x;
  for (const InputTensor& tensor : input_tensors()) x.push_back(tensor.values);
  for (const Method& method : kMethods) {
    if (!method.is_mask) continue;
    SCOPED_TRACE(method.name);
    const Outcome run =
        attend_successfully(job_text(method), input_, {.backward = true, .dump_selection = true});
    const safetensors::File file = run.file();
    const Attention expected =
        masked_attention(kExtents, x[0], x[1], x[2], x[5], values_of(file, "selection"),
                         values_of(file, "token_block"));
    EXPECT_LE(largest_difference(values_of(file, "out"), expected.out), kExact);
    EXPECT_LE(largest_difference(values_of(file, "lse"), expected.lse), kExact);
    EXPECT_LE(largest_difference(values_of(file, "grad_q"), expected.dq), kExact);
    EXPECT_LE(largest_difference(values_of(file, "grad_k"), expected.dk), kExact);
    EXPECT_LE(largest_difference(values_of(file, "grad_v"), expected.dv), kExact);
    EXPECT_EQ(file.find("grad_gate"), nullptr);
  }
}

TEST_F(AttentionJob, ManyRanksGiveTheFileOfOne) {
  const std::pair<int, const char*> meshes[] = {
      {3, "parallel { strategy: RING }"},       {2, "parallel { strategy: SELECTED }"},
      {3, "parallel { strategy: ALL_GATHER }"}, {2, "parallel { ulysses: 2 }"},
      {2, "parallel { strategy: ALL_GATHER }"}, {3, "parallel { ulysses: 3 }"},
      {2, "parallel { strategy: SELECTED }"},   {3, "parallel { strategy: SELECTED }"},
  };
  ASSERT_EQ(std::size(meshes), std::size(kMethods));
  for (size_t i = 0; i < std::size(meshes); ++i) {
    const auto& [ranks, parallel] = meshes[i];
    SCOPED_TRACE(fmt::format("{} {} {}", kMethods[i].name, ranks, parallel));
    const std::string job = job_text(kMethods[i]);
    const Outcome one =
        attend_successfully(job, input_, {.backward = true, .dump_selection = true});
    const Outcome many = attend_successfully(
        job + parallel, input_, {.backward = true, .dump_selection = true, .ranks = ranks});
    expect_equal_files(one.file(), many.file(), kExact);
    EXPECT_THAT(many.report, HasSubstr(fmt::format("{} = outer", ranks)));
  }
}

// Later calls of a job place the heads by the work of the call before.
TEST_F(AttentionJob, BalancedHeadsGiveTheFileOfOneRank) {
  for (const Method& method : kMethods) {
    SCOPED_TRACE(method.name);
    const Flags flags{.backward = true, .dump_selection = true};
    const Outcome one = attend_successfully(job_text(method), input_, flags);
    const Outcome many =
        attend_successfully(job_text(method) + "parallel { ulysses: 2 }", input_,
                            {.backward = true, .dump_selection = true, .repeat = 1, .ranks = 2});
    expect_equal_files(one.file(), many.file(), 0);
    EXPECT_THAT(one.report, ::testing::Not(HasSubstr("balance")));
    EXPECT_THAT(many.report, AllOf(HasSubstr("  balance     the busiest rank executes 1."),
                                   HasSubstr(" in the first call\n")));
  }
}

TEST_F(AttentionJob, ReplayedSelectionsGiveTheSameBits) {
  for (const Method& method : kMethods) {
    SCOPED_TRACE(method.name);
    const Flags flags{.backward = true, .dump_selection = true};
    const Outcome first = attend_successfully(job_text(method), input_, flags);
    const Outcome again =
        attend_successfully(job_text(method), input_,
                            {.backward = true, .dump_selection = true, .selection = first.path});
    expect_equal_files(first.file(), again.file(), 0);
    EXPECT_THAT(again.report, HasSubstr("selection of " + first.path));
  }
}

// Other queries would select other blocks; what decides is the file.
TEST_F(AttentionJob, ReplayTakesTheSelectionFromTheFile) {
  std::vector<InputTensor> other = input_tensors();
  other[0] = random_tensor("another q", kExtents);
  other[0].name = "q";
  const std::string other_input = write_tensors("other.safetensors", other);
  for (const Method& method : kMethods) {
    SCOPED_TRACE(method.name);
    const Outcome first = attend_successfully(job_text(method), input_, {.dump_selection = true});
    const Outcome replay = attend_successfully(job_text(method), other_input,
                                               {.dump_selection = true, .selection = first.path});
    for (const char* name : {"selection", "kept"}) {
      if (first.file().find(name) == nullptr) continue;
      EXPECT_EQ(values_of(first.file(), name), values_of(replay.file(), name));
    }
    EXPECT_NE(values_of(first.file(), "out"), values_of(replay.file(), "out"));
  }
}

TEST_F(AttentionJob, SelectionsAreThoseOfTheirRules) {
  const auto rows_of = [](const Outcome& run) {
    const safetensors::File file = run.file();
    const int64_t blocks = file.at("selection").shape[3];
    const std::vector<double> values = values_of(file, "selection");
    std::vector<std::vector<double>> rows;
    for (size_t at = 0; at < values.size(); at += blocks) {
      rows.emplace_back(values.begin() + at, values.begin() + at + blocks);
    }
    return rows;
  };
  const Outcome vsa = attend_successfully(job_text(kMethods[1]), input_, {.dump_selection = true});
  // 12 video blocks, of which ceil(.4 * 12) = 5; 2 prefix blocks, which attend to everything.
  EXPECT_EQ(vsa.file().at("selection").shape, (std::vector<int64_t>{2, 6, 14, 14}));
  EXPECT_EQ(vsa.file().at("selection").type, ElementType::kBool);
  const auto vsa_rows = rows_of(vsa);
  for (size_t row = 0; row < vsa_rows.size(); ++row) {
    const auto count = std::count(vsa_rows[row].begin(), vsa_rows[row].end(), 1);
    EXPECT_EQ(count, row % 14 < 2 ? 14 : 2 + 5) << row;
  }
  const std::vector<double> block_of = values_of(vsa.file(), "token_block");
  std::vector<double> sizes = values_of(vsa.file(), "block_size");
  EXPECT_EQ(sizes[0], 7);
  EXPECT_EQ(sizes[1], 3);
  for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(block_of[90 + i], i < 7 ? 0 : 1) << i;
  EXPECT_EQ(block_of[0], block_of[1 * 30 + 1 * 6 + 2]) << "one cube of 2 x 2 x 3";
  for (const double block : block_of) sizes[std::lround(block)] -= 1;
  EXPECT_EQ(sizes, std::vector<double>(14, 0));

  const Outcome psa = attend_successfully(job_text(kMethods[4]), input_, {.dump_selection = true});
  EXPECT_EQ(psa.file().at("selection").type, ElementType::kI8);
  std::array<int, 5> levels{};
  for (const auto& row : rows_of(psa)) {
    for (const double level : row) ++levels.at(std::lround(level));
  }
  EXPECT_GT(levels[1], 0);
  EXPECT_GT(levels[2] + levels[3] + levels[4], 0);

  const Outcome bsa = attend_successfully(job_text(kMethods[3]), input_, {.dump_selection = true});
  const std::vector<double> kept = values_of(bsa.file(), "kept"),
                            bsa_block_of = values_of(bsa.file(), "token_block"),
                            bsa_sizes = values_of(bsa.file(), "block_size");
  for (int64_t head = 0; head < 12; ++head) {
    std::vector<int> count(14);
    for (int64_t i = 0; i < 100; ++i) {
      count[std::lround(bsa_block_of[i])] += kept[head * 100 + i] != 0;
    }
    for (size_t block = 0; block < 14; ++block) {
      const int all = static_cast<int>(std::lround(bsa_sizes[block]));
      EXPECT_EQ(count[block], block < 2 ? all : std::max(1, all / 2)) << block;
    }
  }
}

TEST_F(AttentionJob, TypesOfTheOutputAreThoseOfTheComputation) {
  const Method& method = kMethods[2];
  const auto run = [&](ElementType type, const std::string& precision) {
    const std::string input = write_tensors("typed.safetensors", input_tensors(type));
    return attend_successfully(
        job_text(method, "compute { threads: 1 precision: " + precision + " } "), input,
        {.backward = true});
  };
  const Outcome exact = run(ElementType::kF64, "FP64");
  const struct {
    ElementType in, out, lse;
    const char* precision;
    double tolerance;  // roundings of values of order 1 (gradients: 10)
  } cases[] = {
      {ElementType::kF32, ElementType::kF64, ElementType::kF64, "FP64", kExact},
      {ElementType::kF64, ElementType::kF32, ElementType::kF32, "FP32", 1e-4},
      {ElementType::kBF16, ElementType::kF32, ElementType::kF32, "FP32", 0.2},
      {ElementType::kF32, ElementType::kBF16, ElementType::kF32, "BF16", 0.3},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(fmt::format("{} in, {}", safetensors::name_of(c.in), c.precision));
    const Outcome other = run(c.in, c.precision);
    EXPECT_EQ(other.file().at("lse").type, c.lse);
    for (const char* name : {"out", "grad_q", "grad_k", "grad_v", "grad_gate", "grad_gate_fine"}) {
      EXPECT_EQ(other.file().at(name).type, c.out) << name;
      EXPECT_EQ(other.file().at(name).shape, kExtents.shape()) << name;
    }
    // A rounded score may choose another block, so only the exact pair is compared in full.
    if (c.tolerance > 1e-3) continue;
    expect_equal_files(exact.file(), other.file(), c.tolerance);
  }
}

TEST_F(AttentionJob, ReportsDensityOperationsAndStages) {
  const Outcome run =
      attend_successfully(job_text(kMethods[1]), input_, {.backward = true, .repeat = 3});
  EXPECT_THAT(
      run.report,
      AllOf(HasSubstr("Attention: VSA\n"), HasSubstr("B 2, L 100, H 6, D 8; computed in FP64"),
            HasSubstr("3 x 5 x 6 = 90 of the video, 10 of the prefix"),
            HasSubstr("14 of at most 12 tokens, order KD"),
            // (2 * 14 + 12 * 7) of 14 * 14 pairs
            HasSubstr("density     0.5714 of the pairs of blocks"), HasSubstr("  order  "),
            HasSubstr("  pool  "), HasSubstr("  select  "), HasSubstr("  local  "),
            HasSubstr("backward ms"), HasSubstr("GFLOP/s kernel"),
            HasSubstr("Medians of 3 calls after a warm-up.")));
  const Outcome dense = attend_successfully(job_text(kMethods[0]), input_);
  // 4 B H L^2 D
  EXPECT_THAT(dense.report,
              AllOf(HasSubstr("1.0000 of the pairs of tokens"),
                    HasSubstr(fmt::format("{:.4g} forward\n", 4.0 * 2 * 6 * 100 * 100 * 8))));
}

TEST_F(AttentionJob, DrawsASelection) {
  for (const Method& method : kMethods) {
    const std::string picture = path_in_test_folder(method.name + std::string(".png"));
    attend_successfully(job_text(method), input_,
                        {.draw = picture, .draw_head = 5, .draw_query = 9});
    EXPECT_GT(fs::file_size(picture), 1000u) << method.name;
  }
}

// Nothing may be left behind by a call that fails.
void expect_refusal(const Outcome& run, ExitCode code, const std::string& message) {
  EXPECT_EQ(run.code, code) << run.error;
  EXPECT_THAT(run.error, HasSubstr(message));
  const fs::path path = run.path;
  for (const auto& entry : fs::directory_iterator(path.parent_path())) {
    EXPECT_FALSE(entry.path().filename().string().starts_with(path.filename().string()))
        << entry.path();
  }
}

TEST_F(AttentionJob, InputsThatDoNotFitAreNamed) {
  using Tensors = std::vector<InputTensor>;
  const auto without = [](const std::string& name) {
    return [name](Tensors& tensors) {
      std::erase_if(tensors, [&](const InputTensor& tensor) { return tensor.name == name; });
    };
  };
  const Extents longer = {2, 104, 6, 8};
  const struct {
    const char* what;
    const Method& method;
    std::function<void(Tensors&)> change;
    std::string message;
  } cases[] = {
      {"no k", kMethods[0], without("k"), "expected a tensor \"k\", found 5 others"},
      {"no q", kMethods[0], without("q"), "expected a tensor \"q\""},
      {"no gate", kMethods[2], without("gate"),
       "expected a tensor \"gate\" (attention.vsa.coarse: GATED needs it)"},
      {"no fine gate", kMethods[2], without("gate_fine"),
       "expected a tensor \"gate_fine\" (attention.vsa.fine_gate: true needs it)"},
      {"no gradient", kMethods[0], without("grad_out"),
       "expected a tensor \"grad_out\" (--backward needs it)"},
      {"more tokens than the grid", kMethods[0],
       [&](Tensors& tensors) {
         for (InputTensor& tensor : tensors) tensor = random_tensor(tensor.name, longer);
       },
       "q: expected 100 tokens (problem.grid: 3 x 5 x 6 = 90, and 10 of problem.prefix), found 104 "
       "in the shape [2, 104, 6, 8]"},
      {"another shape of v", kMethods[0],
       [&](Tensors& tensors) { tensors[2] = random_tensor("v", longer); },
       "v: expected the shape of q, [2, 100, 6, 8], found [2, 104, 6, 8]"},
      {"another type of v", kMethods[0],
       [&](Tensors& tensors) { tensors[2].type = ElementType::kBF16; },
       "v: expected the type of q, F64, found BF16"},
      {"q of three dims", kMethods[0],
       [&](Tensors& tensors) {
         tensors[0].shape = {200, 6, 8};
       },
       "q: expected the shape [B, L, H, D] without empty dims, found [200, 6, 8]"},
      {"integers", kMethods[0], [&](Tensors& tensors) { tensors[0].type = ElementType::kI32; },
       "q: expected F64, F32 or BF16, found I32"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    Tensors tensors = input_tensors();
    c.change(tensors);
    const std::string path = write_tensors("wrong.safetensors", tensors);
    expect_refusal(attend(job_text(c.method), path, {.backward = true}), ExitCode::kInput,
                   path + ": " + c.message);
  }
  expect_refusal(attend(job_text(kMethods[0]), "/nowhere/in.safetensors"), ExitCode::kInput,
                 "/nowhere/in.safetensors");
  const std::string garbage = path_in_test_folder("text.safetensors");
  std::ofstream(garbage) << "no tensors at all";
  expect_refusal(attend(job_text(kMethods[0]), garbage), ExitCode::kInput,
                 "text.safetensors: the header");
}

TEST_F(AttentionJob, FirstNonFiniteValueIsNamed) {
  std::vector<InputTensor> tensors = input_tensors();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  tensors[1].values[kExtents.at(1, 98, 5) + 7] = nan;
  tensors[1].values[kExtents.at(1, 17, 3) + 5] = -infinity;  // before the other in the file
  tensors[5].values[0] = nan;
  const std::string path = write_tensors("nan.safetensors", tensors);
  const std::string message =
      path + ": expected finite numbers, found k[b 1, token 17, h 3, d 5] = -inf";
  for (const int ranks : {1, 3}) {
    expect_refusal(attend(job_text(kMethods[1]), path, {.backward = true, .ranks = ranks}),
                   ExitCode::kInput, message);
  }
  const Outcome warned = attend_successfully(
      job_text(kMethods[1]), path, {.backward = true, .sets = {"problem.non_finite: WARN"}});
  const std::vector<double> out = values_of(warned.file(), "out");
  EXPECT_TRUE(std::any_of(out.begin(), out.end(), [](double value) { return std::isnan(value); }));

  tensors = input_tensors();
  tensors[0].values[0] = 1e300;
  const std::string large = write_tensors("large.safetensors", tensors);
  expect_refusal(attend(job_text(kMethods[0], ""), large), ExitCode::kInput,
                 "q[b 0, token 0, h 0, d 0] = 1e+300, beyond the range of compute.precision");
}

TEST_F(AttentionJob, JobsThatDoNotFitAreNamed) {
  const std::string job = job_text(kMethods[1]);
  const std::pair<const char*, const char*> cases[] = {
      {"attention.vsa.sparsity.start: 1", "attention.vsa.sparsity.start: 1; legal: 0 <="},
      {"attention.vsa.sparsity.start: -0.1", "attention.vsa.sparsity.start: -0.1; legal: 0 <="},
      {"attention.cube.t: 0", "attention.cube.t: 0; legal: 1"},
      {"parallel.ulysses: 5", "parallel.ulysses: 5 does not divide model.heads: 6; legal: 1, 2, 3"},
      {"problem.grid.t: 0", "problem.grid.t: 0; legal: 1"},
      {"problem.prefix: -1", "problem.prefix: -1; legal: 0"},
  };
  for (const auto& [set, message] : cases) {
    expect_refusal(attend(job, input_, {.sets = {set}}), ExitCode::kConfig, message);
  }
  const std::string picture = path_in_test_folder("none.png");
  expect_refusal(attend(job, input_, {.draw = picture, .draw_head = 6}), ExitCode::kConfig,
                 "--draw-head 6: the input has 6 heads; legal: 0 to 5");
  expect_refusal(attend(job, input_, {.draw = picture, .draw_query = 14}), ExitCode::kConfig,
                 "--draw-query 14: the sequence has 14 blocks; legal: 0 to 13");
  expect_refusal(attend("attention { method: DENSE }", input_), ExitCode::kConfig,
                 "problem.grid: not set");
  expect_refusal(
      attend(job, input_, {.ranks = 2, .sets = {"parallel.data: 2 training.global_batch: 2"}}),
      ExitCode::kConfig, "parallel.data: 2; legal: 1, there is one problem");
}

TEST_F(AttentionJob, SelectionsOfOtherProblemsAreNamed) {
  const std::string vsa =
      attend_successfully(job_text(kMethods[1]), input_, {.dump_selection = true}).path;
  const struct {
    const char* what;
    const Method& method;
    const char* set;
    std::string selection, message;
  } cases[] = {
      {"another method", kMethods[5], "", vsa, "is of another method: VSA, expected ASA"},
      {"another grid", kMethods[1], "problem.grid { t: 5 h: 3 w: 6 }", vsa,
       "is of another grid: 3 x 5 x 6, expected 5 x 3 x 6"},
      {"another prefix", kMethods[1], "problem { prefix: 6 prefix: 4 }", vsa,
       "is of another prefix: [7, 3], expected [6, 4]"},
      {"another cube", kMethods[1], "attention.cube { t: 3 h: 2 w: 2 }", vsa,
       "is of another blocks: 14, expected 11"},
      {"another order", kMethods[1], "attention.order: RASTER", vsa, "is of other blocks: "},
      {"no selection", kMethods[1], "", input_,
       "expected a tensor \"selection\", which an output has that was made with --dump-selection"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.what);
    Flags flags{.selection = c.selection};
    if (*c.set != 0) flags.sets.push_back(c.set);
    const Outcome run = attend(job_text(c.method), input_, flags);
    expect_refusal(run, ExitCode::kInput, c.message);
    EXPECT_THAT(run.error, HasSubstr(c.selection + ": "));
  }
}

// More ranks than blocks: some have nothing to do.
TEST_F(AttentionJob, RanksMayBeEmpty) {
  const Extents small = {1, 6, 2, 4};
  std::vector<InputTensor> tensors;
  for (const char* name : {"q", "k", "v", "grad_out"})
    tensors.push_back(random_tensor(name, small));
  const std::string input = write_tensors("small.safetensors", tensors);
  const std::string job = fmt::format("problem {{ grid {{ t: 1 h: 2 w: 3 }} }} {}", kDouble);
  const Outcome one = attend_successfully(job, input, {.backward = true, .dump_selection = true});
  const Outcome many =
      attend_successfully(job, input, {.backward = true, .dump_selection = true, .ranks = 3});
  expect_equal_files(one.file(), many.file(), kExact);
}

TEST(AttentionJobs, ShippedOnesAreLegal) {
  const std::string input = write_tensors("tiny.safetensors", {random_tensor("q", {1, 1, 1, 1})});
  int count = 0;
  for (const auto& entry : fs::directory_iterator(SPROCKET_SOURCE_DIR "/configs")) {
    const fs::path& path = entry.path();
    if (path.extension() != ".txtpb" || !path.stem().string().starts_with("attention_")) continue;
    ++count;
    std::ifstream stream(path);
    std::ostringstream text;
    text << stream.rdbuf();
    // The job is complete; the input does not fit it.
    const Outcome run = attend(text.str(), input);
    EXPECT_EQ(run.code, ExitCode::kInput) << path;
    EXPECT_THAT(run.error, HasSubstr("(problem.grid: 13 x 30 x 52 = 20280, and")) << path;
  }
  EXPECT_EQ(count, 6);
}

}  // namespace
}  // namespace sprocket::runtime
