#include "kernels/import_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace sprocket::kernels {
namespace {

using ::testing::ElementsAre;
using Ids = std::vector<int32_t>;

DomainBudget budget_of(BudgetForm form, std::vector<int32_t> first_block,
                       const std::vector<const char*>& coverage, int head_group = 0) {
  DomainBudget budget{form, std::move(first_block), {}, head_group};
  for (const char* share : coverage) budget.max_coverage.push_back(Decimal::parse(share));
  return budget;
}

Ids ids(std::span<const int32_t> span) { return {span.begin(), span.end()}; }

// Two prefix blocks, domains of the blocks 2 3 | 4 | 5 6 | 7 8.
const std::vector<int32_t> kBounds{2, 4, 5, 7, 9};

// Masses of all domains; value(domain, head, video block).
template <class Value>
DomainMasses<double> masses_of(int heads, Value value) {
  DomainMasses<double> masses({0, 4}, 1, heads, 7);
  for (int g = 0; g < 4; ++g) {
    for (int h = 0; h < heads; ++h) {
      for (int j = 0; j < 7; ++j) masses.row(g, h)[j] = value(g, h, j);
    }
  }
  return masses;
}

TEST(ImportBudgetTest, AFlatDomainTakesTheLargestPairsOfAllHeads) {
  const auto masses = masses_of(2, [](int, int h, int j) { return h == 0 ? j : 2.5; });
  // 0.3 of 2 x 5 remote blocks: 3 pairs.
  const auto allowed =
      choose_imports(budget_of(BudgetForm::kFlat, kBounds, {"0.3"}), {0, 4}, masses, 1);
  EXPECT_EQ(ids(allowed.of(0, 0)), (Ids{2, 3, 6, 7, 8}));
  EXPECT_EQ(ids(allowed.of(0, 1)), (Ids{2, 3}));
  EXPECT_EQ(ids(allowed.of(3, 0)), (Ids{5, 6, 7, 8}));
  EXPECT_EQ(ids(allowed.of(3, 1)), (Ids{2, 7, 8}));  // ties go to the smaller (h, j)
  const auto by_head =
      choose_imports(budget_of(BudgetForm::kFlat, kBounds, {"0.3"}, 1), {0, 4}, masses, 2);
  EXPECT_EQ(ids(by_head.of(0, 0)), (Ids{2, 3, 8}));
  EXPECT_EQ(ids(by_head.of(0, 1)), (Ids{2, 3, 4}));
}

TEST(ImportBudgetTest, ATreeImportsAtEveryCutBySumsOverTheNode) {
  // At the top cut neither domain 0 nor 1 alone likes block 6 best; together they do.
  const auto masses = masses_of(1, [](int g, int, int j) {
    if (j == 4) return 3.0;
    return (g == 0 && j == 3) || (g == 1 && j == 5) ? 4.0 : 0.0;
  });
  const DomainBudget budget = budget_of(BudgetForm::kTree, kBounds, {"0.25", "1"});
  const auto allowed = choose_imports(budget, {0, 4}, masses, 1);
  EXPECT_EQ(ids(allowed.of(0, 0)), (Ids{2, 3, 4, 6}));
  EXPECT_EQ(ids(allowed.of(1, 0)), (Ids{2, 3, 4, 6}));
  EXPECT_EQ(ids(allowed.of(2, 0)), (Ids{5, 6, 7, 8}));  // floor(.25 * 3) is none
  const auto lower = budget_of(BudgetForm::kTree, kBounds, {"0", "0.5"});
  EXPECT_EQ(ids(choose_imports(lower, {0, 4}, masses, 1).of(1, 0)), (Ids{2, 4}));
  EXPECT_EQ(ids(choose_imports(lower, {0, 4}, masses, 1).of(3, 0)), (Ids{6, 7, 8}));
}

TEST(ImportBudgetTest, ACallGetsWhatTheWholeGets) {
  const auto masses =
      masses_of(4, [](int g, int h, int j) { return (g * 31 + h * 17 + j * 13) % 7; });
  for (const auto& budget : {budget_of(BudgetForm::kFlat, kBounds, {"0.4"}, 2),
                             budget_of(BudgetForm::kTree, kBounds, {"0.4", "0.5"}, 2)}) {
    const auto whole = choose_imports(budget, {0, 4}, masses, 1);
    for (const HeldDomains held :
         {HeldDomains{0, 1}, {1, 2}, {0, 2}, {2, 4}, {1, 4}, {3, 4}, {2, 2}}) {
      const auto part = choose_imports(budget, held, masses, 3);
      for (int g = held.first; g < held.last; ++g) {
        for (int h = 0; h < 4; ++h) EXPECT_EQ(ids(part.of(g, h)), ids(whole.of(g, h)));
      }
    }
  }
}

TEST(ImportBudgetTest, KeptMassIsThatOfAllowedBlocks) {
  const auto masses = masses_of(2, [](int, int h, int j) { return h == 0 ? j : 1; });
  const DomainBudget budget = budget_of(BudgetForm::kFlat, kBounds, {"0.2"}, 1);
  const auto allowed = choose_imports(budget, {3, 4}, masses, 1);
  const std::vector<Share> kept = kept_mass(budget, allowed, masses);
  EXPECT_THAT(kept, ElementsAre(Share{5 + 6 + 4, 21}, Share{2 + 1, 7}));
}

TEST(ImportBudgetTest, BrokenPreconditionsAreBugs) {
  const auto expect_bug = [](const DomainBudget& budget, HeldDomains held, int first, int count,
                             int blocks, int heads) {
    EXPECT_THROW(check_budget(budget, held, heads, first, count, blocks), InternalError);
  };
  const DomainBudget flat = budget_of(BudgetForm::kFlat, kBounds, {"0.5"}, 2);
  check_budget(flat, {0, 4}, 4, 0, 9, 9);
  check_budget(flat, {0, 2}, 4, 1, 4, 9);
  check_budget(flat, {0, 0}, 4, 0, 2, 9);
  check_budget(flat, {2, 2}, 4, 5, 0, 9);
  expect_bug(flat, {0, 4}, 0, 9, 10, 4);
  expect_bug(flat, {0, 4}, 0, 8, 9, 4);  // cuts a domain
  expect_bug(flat, {0, 3}, 0, 9, 9, 4);
  expect_bug(flat, {1, 4}, 5, 4, 9, 4);
  expect_bug(flat, {0, 5}, 0, 9, 9, 4);
  expect_bug(flat, {0, 4}, 0, 9, 9, 3);  // the group
  expect_bug(budget_of(BudgetForm::kFlat, kBounds, {"1.5"}), {0, 4}, 0, 9, 9, 4);
  expect_bug(budget_of(BudgetForm::kFlat, kBounds, {"0.5", "1"}), {0, 4}, 0, 9, 9, 4);
  expect_bug(budget_of(BudgetForm::kTree, kBounds, {"0.5"}), {0, 4}, 0, 9, 9, 4);
  expect_bug(budget_of(BudgetForm::kTree, {0, 3, 6, 9}, {"0.5"}), {0, 3}, 0, 9, 9, 4);
  expect_bug(budget_of(BudgetForm::kFlat, {0, 5, 4, 9}, {"0.5"}), {0, 3}, 0, 9, 9, 4);
  const auto masses = masses_of(1, [](int, int, int) { return 1.0; });
  DomainMasses<double> own({0, 2}, 1, 1, 7);
  EXPECT_THROW(choose_imports(budget_of(BudgetForm::kTree, kBounds, {"1", "1"}), {2, 4}, own, 1),
               InternalError);
}

}  // namespace
}  // namespace sprocket::kernels
