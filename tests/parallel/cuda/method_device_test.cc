// Every attention method on CUDA tensors against the processor's, on one rank and on two: the same
// selections, and outputs and gradients as exact as the processor's in the same precision. The
// project's kernels run as a device runs them; LibTorch's operators are computed by the host
// (host_operators.h), and messages travel through host memory (staged_backend.h).
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "parallel/device/tensor_device.h"
#include "tests/comm/thread_ranks.h"
#include "tests/parallel/method_expectations.h"
#include "tests/runtime/cuda/host_operators.h"

namespace sprocket::parallel::testing {
namespace {

using Slots = std::vector<AttentionSlot>;

std::vector<AttentionResult> on_processor(const AttentionCase& c, const AttentionTensors& inputs,
                                          Slots& slots) {
  std::vector<AttentionResult> results(c.mesh.world());
  comm::testing::run_ranks(c.mesh.world(), [&](comm::Communicator& world) {
    const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
    results[world.rank()] = run_sharded(c, inputs, mesh, slots[world.rank()]);
  });
  return results;
}

std::vector<AttentionResult> on_device(const AttentionCase& c, const AttentionTensors& inputs,
                                       Slots& slots) {
  std::vector<AttentionResult> results(c.mesh.world());
  comm::testing::run_ranks(c.mesh.world(), [&](comm::Communicator& world) {
    const TensorDevice device = TensorDevice::hold(0);
    const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh, device.device());
    results[world.rank()] = run_sharded(c, inputs, mesh, slots[world.rank()]);
  });
  return results;
}

// Of the whole sequence from its ranks' parts. Root of the sum of squares: the largest single error
// is a matter of luck.
double error_of(const at::Tensor& exact, const std::vector<AttentionResult>& ranks,
                at::Tensor AttentionResult::*member) {
  std::vector<at::Tensor> parts;
  for (const AttentionResult& result : ranks) parts.push_back((result.*member).to(at::kDouble));
  const at::Tensor found = at::cat(parts, 1);
  return (exact - found).masked_fill(exact == found, 0).norm().item<double>();
}

template <class T>
void expect_same(const std::shared_ptr<const T>& device, const std::shared_ptr<const T>& host,
                 const char* what) {
  ASSERT_EQ(device == nullptr, host == nullptr) << what;
  if (host == nullptr) return;
  EXPECT_TRUE(*device == *host) << what;
}

struct Problem {
  std::string name;
  AttentionCase c;
};

class DeviceMethod : public ::testing::TestWithParam<Problem> {
 protected:
  void SetUp() override { sprocket::testing::use_host_operators(); }
};

TEST_P(DeviceMethod, SelectsWhatTheProcessorSelectsAndIsAsExact) {
  const AttentionCase& c = GetParam().c;
  const AttentionTensors inputs = make_inputs(c);
  Slots slots(c.mesh.world()), device_slots(c.mesh.world());
  const std::vector<AttentionResult> host = on_processor(c, inputs, slots);
  const std::vector<AttentionResult> found = on_device(c, inputs, device_slots);
  for (size_t rank = 0; rank < host.size(); ++rank) {
    const Selection &device = found[rank].selection, &expected = host[rank].selection;
    expect_same(device.table, expected.table, "table");
    expect_same(device.pruning, expected.pruning, "pruning");
    expect_same(device.global_table, expected.global_table, "table of global tokens");
    EXPECT_EQ(device.head_order, expected.head_order);
    EXPECT_EQ(found[rank].statistics.pairs, host[rank].statistics.pairs);
    EXPECT_EQ(found[rank].statistics.kept_mass.size(), host[rank].statistics.kept_mass.size());
  }

  AttentionCase alone = c;
  alone.mesh = {};
  alone.strategy = {};
  Slots slot(1);
  const Selection selection = on_processor(alone, inputs, slot)[0].selection;
  const AttentionResult exact = attend(alone, inputs, choice_of(alone, selection), at::kDouble);
  const auto check = [&](const char* what, at::Tensor AttentionResult::*member) {
    EXPECT_LE(error_of(exact.*member, found, member), 2 * error_of(exact.*member, host, member))
        << what;
  };
  check("out", &AttentionResult::out);
  check("lse", &AttentionResult::lse);
  check("dq", &AttentionResult::dq);
  check("dk", &AttentionResult::dk);
  check("dv", &AttentionResult::dv);

  // From the saved selection, as a recomputation does.
  const std::vector<AttentionResult> again = on_device(c, inputs, device_slots);
  for (size_t rank = 0; rank < host.size(); ++rank) {
    EXPECT_TRUE(bitwise_equal(found[rank], again[rank])) << "rank " << rank;
  }
}

AttentionCase small(AttentionCase c) {
  c.heads = 2;
  c.head_dim = 64;
  c.dtype = at::kBFloat16;
  return c;
}

bool scores_blocks(const AttentionCase& c) {
  return c.spec.method != MethodKind::kDense && c.spec.method != MethodKind::kSlidingTile;
}

AttentionCase with_budget(AttentionCase c, kernels::BudgetForm form) {
  c.layout.domains = 4;
  c.spec.budget = {form, {Decimal::parse("0.3")}, 1};
  return c;
}

std::string name_of(const AttentionCase& c) {
  std::string name = c.problem();
  name = name.substr(0, name.find(' '));
  std::replace_if(
      name.begin(), name.end(), [](char x) { return !std::isalnum(x); }, '_');
  return name;
}

std::vector<Problem> problems() {
  std::vector<Problem> problems;
  const auto add = [&](const AttentionCase& c, const std::string& suffix = "") {
    problems.push_back({name_of(c) + suffix, c});
  };
  std::vector<AttentionCase> cases;
  for (const AttentionCase& c : method_cases()) cases.push_back(small(c));
  {
    // Options that take other ways than those of method_cases().
    AttentionCase c = small({});
    c.spec.method = MethodKind::kBsa;
    c.label = "redundant";
    c.spec.bsa.threshold.rule = kernels::ThresholdRule::kValue;
    c.spec.bsa.threshold.sparsity = Decimal::parse("0.6");
    c.spec.bsa.pruning.window = {2, 2, 0};
    c.spec.bsa.pruning.redundancy_threshold = 0;
    c.spec.bsa.pruning.redundant_keep_ratio = Decimal::parse("0.2");
    cases.push_back(c);
    c.label = "keeps_all";
    c.spec.bsa.pruning.keep_ratio = Decimal::parse("1");
    c.spec.bsa.pruning.redundancy_threshold.reset();
    cases.push_back(c);
  }
  {
    AttentionCase c = small({});
    c.spec.method = MethodKind::kPsa;
    c.label = "quota";
    c.spec.psa.sampling = {4, 3, 11};
    c.spec.psa.score = kernels::SampledScore::kExpMinusMax;
    c.spec.psa.levels.rule = kernels::LevelRule::kQuota;
    c.spec.psa.levels.quotas = {Decimal::parse("0.1"), Decimal::parse("0.2"), Decimal::parse("0.2"),
                                Decimal::parse("0.2")};
    c.head_dim = 128;
    cases.push_back(c);
  }
  for (const AttentionCase& c : cases) {
    add(c);
    if (!scores_blocks(c)) continue;
    add(with_budget(c, kernels::BudgetForm::kFlat));
    add(with_budget(c, kernels::BudgetForm::kTree));
  }
  const auto on_two_ranks = [&](AttentionCase c, const MeshShape& mesh, const StrategySpec& how,
                                const char* suffix) {
    c.mesh = mesh;
    c.strategy = how;
    add(c, suffix);
  };
  using enum OuterStrategyKind;
  for (const AttentionCase& c : cases) {
    on_two_ranks(c, {1, 2, 1}, {kSelected}, "_selected");
    on_two_ranks(c, {1, 2, 1}, {kRing}, "_ring");
    on_two_ranks(c, {1, 1, 2}, {}, "_ulysses");
    AttentionCase one_block = c;
    one_block.layout.grid = {3, 4, 2};
    on_two_ranks(one_block, {1, 2, 1}, {kSelected}, "_one_rank_is_idle");
    if (!scores_blocks(c)) continue;
    on_two_ranks(with_budget(c, kernels::BudgetForm::kFlat), {1, 2, 1}, {kSelected}, "_selected");
    on_two_ranks(with_budget(c, kernels::BudgetForm::kTree), {1, 2, 1}, {kAllGather}, "_gathered");
  }
  return problems;
}

INSTANTIATE_TEST_SUITE_P(Problems, DeviceMethod, ::testing::ValuesIn(problems()),
                         [](const auto& info) { return info.param.name; });

// The second call of a layer places the heads by what they cost in the first.
TEST(DeviceBalance, HeadsMoveToWhereTheProcessorPutsThem) {
  sprocket::testing::use_host_operators();
  AttentionCase c;
  c.spec.method = MethodKind::kAsa;
  c.spec.asa.sampling = {5, 3, 11};
  c.spec.asa.selection.mass = Decimal::parse("0.5");
  c.spec.asa.selection.most = Decimal::parse("1");
  c.batch = 1;
  c.heads = 4;
  c.head_dim = 64;
  c.dtype = at::kBFloat16;
  c.mesh = {1, 1, 2};
  AttentionTensors inputs = make_inputs(c);
  // Heads of few blocks and heads of many, so that an order that follows the costs is no identity.
  inputs.q = inputs.q * at::tensor({4.0, 4.0, 0.01, 0.01}).view({1, 1, 4, 1}).to(c.dtype);
  std::vector<AttentionResult> results[2];
  for (const bool on_device : {false, true}) {
    results[on_device].resize(2);
    comm::testing::run_ranks(2, [&](comm::Communicator& world) {
      const TensorDevice device = on_device ? TensorDevice::hold(0) : TensorDevice();
      const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh, device.device());
      SequenceAttention attention(mesh, make_token_layout(c.layout), c.strategy);
      AttentionSlot slot, second;
      const AttentionResult first = run_sharded(c, inputs, mesh, attention, slot);
      const AttentionResult balanced = run_sharded(c, inputs, mesh, attention, second);
      attention.settle();
      EXPECT_TRUE(first.out.equal(balanced.out));
      EXPECT_TRUE(first.lse.equal(balanced.lse));
      EXPECT_TRUE(first.dq.equal(balanced.dq));
      EXPECT_TRUE(first.dk.equal(balanced.dk));
      EXPECT_TRUE(first.dv.equal(balanced.dv));
      results[on_device][world.rank()] = balanced;
    });
  }
  for (int rank = 0; rank < 2; ++rank) {
    const Selection &host = results[0][rank].selection, &device = results[1][rank].selection;
    EXPECT_EQ(host.head_order, (std::vector<int>{0, 2, 1, 3}));
    EXPECT_EQ(device.head_order, host.head_order);
    expect_same(device.table, host.table, "table");
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing
