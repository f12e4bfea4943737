// The budget of imports, both forms, under every method that scores blocks: fp64 against the
// reference, on every outer degree that divides the domains.
#include <set>

#include <gtest/gtest.h>

#include "base/error.h"
#include "parallel/attention/domain_imports.h"
#include "parallel/traffic.h"
#include "tests/comm/thread_ranks.h"
#include "tests/parallel/method_expectations.h"

namespace sprocket::parallel::testing {
namespace {

using kernels::BudgetForm;

std::vector<Decimal> shares(const std::vector<const char*>& texts) {
  std::vector<Decimal> result;
  for (const char* text : texts) result.push_back(Decimal::parse(text));
  return result;
}

bool scores_blocks(const AttentionCase& c) {
  return c.spec.method != MethodKind::kDense && c.spec.method != MethodKind::kSlidingTile;
}

AttentionCase budgeted(AttentionCase c, BudgetForm form, const std::vector<const char*>& coverage) {
  c.batch = 1;
  c.layout.grid = {6, 9, 7};
  c.layout.cube = {2, 3, 2};
  c.layout.domains = 8;
  c.spec.budget = {form, shares(coverage), 0};
  return c;
}

std::vector<AttentionCase> budgeted_cases(BudgetForm form,
                                          const std::vector<const char*>& coverage) {
  std::vector<AttentionCase> cases;
  for (const AttentionCase& c : method_cases()) {
    if (!scores_blocks(c)) continue;
    cases.push_back(budgeted(c, form, coverage));
    cases.back().heads = 2;
  }
  return cases;
}

constexpr auto kForms = {BudgetForm::kFlat, BudgetForm::kTree};

TEST(MethodBudget, EveryMethodChoosesByTheRule) {
  for (const char* coverage : {"0", "0.08", "0.3", "0.9"}) {
    for (const BudgetForm form : kForms) {
      for (AttentionCase c : budgeted_cases(form, {coverage})) {
        expect_exact(c);
        c.spec.budget.head_group = 1;
        c.batch = 2;
        expect_exact(c);
      }
    }
  }
}

TEST(MethodBudget, EveryLevelOfTheTreeHasItsOwn) {
  for (const auto& coverage :
       {std::vector{"0.05", "0.3", "1"}, {"0", "1", "1"}, {"1", "0", "0.5"}}) {
    for (const AttentionCase& c : budgeted_cases(BudgetForm::kTree, coverage)) expect_exact(c);
  }
}

// Selections are compared exactly with one reference, so they are those of every other degree.
TEST(MethodBudget, IsTheSameFunctionOnEveryDegreeThatDividesTheDomains) {
  const auto form_and_coverage = {std::pair{BudgetForm::kFlat, std::vector{"0.2"}},
                                  {BudgetForm::kTree, {"0.2"}},
                                  {BudgetForm::kTree, {"0.1", "0.2", "0.4"}}};
  References references;
  for (const auto& [form, coverage] : form_and_coverage) {
    for (AttentionCase c : budgeted_cases(form, coverage)) {
      c.batch = 2;
      const AttentionTensors inputs = make_inputs(c);
      const Reference& whole = references.of(c, inputs);
      for (const int outer : {1, 2, 4, 8}) {
        c.mesh = {1, outer, 1};
        comm::testing::run_ranks(
            outer, [&](comm::Communicator& world) { check_case(c, inputs, whole, world, 1e-10); });
      }
    }
  }
}

TEST(MethodBudget, HeadGroupsLiveOnUlyssesRanks) {
  for (const BudgetForm form : kForms) {
    for (AttentionCase c : budgeted_cases(form, {"0.15"})) {
      c.heads = 4;
      c.spec.budget.head_group = 2;
      const AttentionTensors inputs = make_inputs(c);
      const Reference whole = make_reference(c, inputs);
      for (const auto outer : {OuterStrategyKind::kSelected, OuterStrategyKind::kRing,
                               OuterStrategyKind::kAllGather}) {
        c.strategy.outer = outer;
        c.mesh = {1, 4, 2};
        comm::testing::run_ranks(
            8, [&](comm::Communicator& world) { check_case(c, inputs, whole, world, 1e-10); });
      }
    }
  }
}

TEST(MethodBudget, RulesOfFewCandidates) {
  for (const BudgetForm form : kForms) {
    for (const char* coverage : {"0", "0.1", "0.5"}) {
      for (const bool constant : {false, true}) {
        AttentionCase c;
        c.heads = 2;
        c = budgeted(c, form, {coverage});
        c.inputs.constant = constant;
        c.layout.prefix = {7};
        AttentionCase bsa = c;
        bsa.spec.method = MethodKind::kBsa;
        for (const char* sparsity : {"0", "0.5", "0.9", "0.99"}) {
          for (const int least : {1, 5}) {
            bsa.label = std::string("value") + sparsity;
            bsa.spec.bsa.threshold.rule = kernels::ThresholdRule::kValue;
            bsa.spec.bsa.threshold.sparsity = Decimal::parse(sparsity);
            bsa.spec.bsa.threshold.min_blocks_value = least;
            expect_exact(bsa);
          }
        }
        bsa.spec.bsa.threshold.rule = kernels::ThresholdRule::kMass;
        for (const double tau : {0.3, 0.9, 1.0}) {
          bsa.label = "mass";
          bsa.spec.bsa.threshold.tau = tau;
          expect_exact(bsa);
        }
        AttentionCase psa = c;
        psa.spec.method = MethodKind::kPsa;
        psa.spec.psa.levels.thresholds = shares({"0.2", "0.5", "0.6", "0.8"});
        psa.spec.psa.levels.quotas = shares({"0.05", "0.1", "0", "0.3"});
        for (const auto rule :
             {kernels::LevelRule::kPaper, kernels::LevelRule::kCover, kernels::LevelRule::kQuota}) {
          for (const auto score :
               {kernels::SampledScore::kSoftmax, kernels::SampledScore::kExpMinusMax}) {
            psa.spec.psa.levels.rule = rule;
            psa.spec.psa.score = score;
            expect_exact(psa);
          }
        }
        AttentionCase asa = c;
        asa.spec.method = MethodKind::kAsa;
        for (const bool crossing : {false, true}) {
          for (const char* most : {"0.05", "0.4", "1"}) {
            asa.spec.asa.selection.include_crossing = crossing;
            asa.spec.asa.selection.most = Decimal::parse(most);
            expect_exact(asa);
          }
        }
      }
    }
  }
}

// With as many domains as make some of them empty, and with one.
TEST(MethodBudget, EmptyDomains) {
  for (const BudgetForm form : kForms) {
    for (AttentionCase c : budgeted_cases(form, {"0.4"})) {
      c.layout.grid = {2, 7, 5};
      c.layout.domains = 32;
      expect_exact(c);
      c.mesh = {1, 4, 1};
      expect_exact(c);
    }
  }
}

TEST(MethodBudget, AFullBudgetIsThePlainMethodBitForBit) {
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const BudgetForm form : kForms) {
      for (AttentionCase c : budgeted_cases(form, {"1.0"})) {
        c.dtype = dtype;
        const AttentionTensors inputs = make_inputs(c);
        AttentionCase plain = c;
        plain.spec.budget = {};
        const AttentionResult result = run_alone(c, inputs);
        EXPECT_TRUE(bitwise_equal(result, run_alone(plain, inputs))) << c.problem();
        EXPECT_TRUE(result.statistics.kept_mass.empty());
      }
    }
  }
}

// The path with a budget that cuts nothing off, because the only limit is on empty remote parts.
TEST(MethodBudget, ABudgetThatAllowsEverythingIsThePlainMethodBitForBit) {
  for (AttentionCase c : budgeted_cases(BudgetForm::kTree, {"1", "1", "0"})) {
    c.layout.grid = {2, 3, 4};
    c.layout.cube = {2, 3, 4};
    c.layout.block_tokens = 128;
    c.layout.domains = 8;
    const AttentionTensors inputs = make_inputs(c);
    AttentionCase plain = c;
    plain.spec.budget = {};
    const AttentionResult result = run_alone(c, inputs);
    EXPECT_TRUE(bitwise_equal(result, run_alone(plain, inputs))) << c.problem();
    EXPECT_FALSE(result.statistics.kept_mass.empty());
    for (const kernels::Share& share : result.statistics.kept_mass) {
      EXPECT_EQ(share.part, share.whole);
    }
  }
}

// What crosses between the halves, quarters and eighths of the tree, counted from the tables.
TEST(MethodBudget, EveryCutOfTheTreeIsBounded) {
  const std::vector<const char*> texts{"0.1", "0.25", "0.5"};
  for (const AttentionCase& c : budgeted_cases(BudgetForm::kTree, texts)) {
    const TokenLayout layout = make_token_layout(c.layout);
    const AttentionTensors inputs = make_inputs(c);
    const auto levels = shares(texts);
    const AttentionResult whole = run_alone(c, inputs);
    const MethodChoice choice = choice_of(c, whole.selection);
    const int64_t columns = c.spec.method == MethodKind::kPsa ? 4 : 1;  // of a block
    for (const int ranks : {2, 4, 8}) {
      const int each = 8 / ranks;
      for (int rank = 0; rank < ranks; ++rank) {
        const int first = layout.domain_blocks[rank * each],
                  last = layout.domain_blocks[(rank + 1) * each];
        int64_t bound = 0;
        for (int width = 4, level = 0; width >= each; width /= 2, ++level) {
          const int sibling = (rank * each / width) ^ 1;
          bound +=
              levels[level].floor_times(c.heads * (layout.domain_blocks[(sibling + 1) * width] -
                                                   layout.domain_blocks[sibling * width]));
        }
        std::set<std::pair<int64_t, int64_t>> crossing;
        for (int64_t h = 0; h < c.heads; ++h) {
          for (int64_t i = first; i < last; ++i) {
            const bool* row = choice.selected[0][h][i].data_ptr<bool>();
            for (int64_t j = layout.prefix_blocks(); j < layout.blocks(); ++j) {
              for (int64_t column = 0; column < columns; ++column) {
                if ((j < first || j >= last) && row[j * columns + column]) crossing.emplace(h, j);
              }
            }
          }
        }
        EXPECT_LE(static_cast<int64_t>(crossing.size()), bound) << c.problem() << " " << ranks;
      }
    }
  }
}

TEST(MethodBudget, ASavedSelectionKeepsItsMass) {
  for (const AttentionCase& c : budgeted_cases(BudgetForm::kFlat, {"0.2"})) {
    const AttentionTensors inputs = make_inputs(c);
    AttentionSlot slot;
    const AttentionResult first = run_alone(c, inputs, slot), again = run_alone(c, inputs, slot);
    EXPECT_TRUE(bitwise_equal(first, again));
    ASSERT_EQ(first.statistics.kept_mass.size(), static_cast<size_t>(c.heads));
    EXPECT_EQ(first.statistics.kept_mass, again.statistics.kept_mass);
    EXPECT_EQ(first.statistics.domain_coverage, again.statistics.domain_coverage);
    for (const kernels::Share& share : first.statistics.kept_mass) {
      EXPECT_GT(share.value(), 0);
      EXPECT_LT(share.value(), 1);
    }
  }
}

void expect_refusal(AttentionCase c, const char* text) {
  try {
    comm::testing::run_ranks(c.mesh.world(), [&](comm::Communicator& world) {
      const AttentionTensors inputs = make_inputs(c);
      const Mesh mesh(world.split(0, world.rank(), "world"), c.mesh);
      run_sharded(c, inputs, mesh);
    });
    ADD_FAILURE() << "accepted";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(MethodBudget, Refusals) {
  for (AttentionCase c : budgeted_cases(BudgetForm::kFlat, {"0.5"})) {
    c.mesh = {1, 1, 2};
    expect_refusal(c, "attention.budget_head_group: 0; a rank holds 1 of 2 heads");
    c.mesh = {};
    c.spec.budget.form = BudgetForm::kTree;
    c.layout.domains = 6;
    expect_refusal(c, "attention.domains: 6; budget_form: TREE needs a power of two");
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing
