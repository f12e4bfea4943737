// Selection with a budget by a rule on rows of scores; internal to the kernels that select by
// threshold, mass or levels.
//
// The scores are made once and kept: batch * heads * video query blocks * video blocks of A, which
// with 64-token blocks of 64 bf16 channels is as much as K and V at 4,096 blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/import_budget.h"
#include "kernels/pyramid.h"
#include "kernels/sampled_scores.h"

namespace sprocket::kernels::internal {

// Applies a method's rule to rows; one object serves one thread.
template <class A>
class LevelRule {
 public:
  virtual ~LevelRule() = default;
  // Writes the level of every candidate, 0 where it is not selected. caps: their largest levels, or
  // empty.
  virtual void assign(std::span<const A> scores, std::span<const uint8_t> caps,
                      std::span<uint8_t> levels) = 0;
  // Writes every candidate's share of the row's mass.
  virtual void weigh(std::span<const A> scores, std::span<A> shares) = 0;
};

// Shares of scores that are masses themselves; NaN weighs nothing.
template <class A>
void shares_of_masses(std::span<const A> scores, std::span<A> shares);

struct RowsShape {
  int batch = 0;
  int heads = 0;
  int query_blocks = 0;
  int kv_blocks = 0;
  int first_query_block = 0;
  int prefix_blocks = 0;
  int threads = 1;

  int video_blocks() const { return kv_blocks - prefix_blocks; }
  // The call's query blocks in front of its video's.
  int prefix_rows() const;
  // Of a SampledScoreProblem or of GivenScores.
  template <class Scores>
  static RowsShape of(const Scores& p) {
    return {p.batch,         p.heads,  p.query_blocks, p.kv_blocks, p.first_query_block,
            p.prefix_blocks, p.threads};
  }
};

template <class A>
class BudgetedRows : public BudgetedSelection<A>, public ScoreRowSink<A> {
 public:
  using MakeRule = std::function<std::unique_ptr<LevelRule<A>>()>;

  // `layout`: null, and tables are of block ids; else of its segments. caps: [batch, heads,
  // kv_blocks], or null. All references must outlive the object.
  BudgetedRows(const RowsShape& shape, const DomainBudget& budget, HeldDomains held,
               MakeRule make_rule, const PyramidLayout* layout, const uint8_t* caps);

  // Scores of consecutive video query blocks follow one another, [video blocks] each; the caller
  // fills them, or sampled_scores does.
  A* scores(int64_t batch_head, int query_block);
  void take(int thread, int64_t batch_head, int query_block, std::span<const A> scores) override;

  DomainMasses<A> masses() override;
  SegmentTable select(const AllowedBlocks& allowed) override;

 private:
  std::span<const uint8_t> caps_of(int64_t batch_head) const;
  void append(int block, int level, std::vector<int32_t>& ids) const;

  RowsShape shape_;
  const DomainBudget& budget_;
  HeldDomains held_;
  MakeRule make_rule_;
  const PyramidLayout* layout_;
  const uint8_t* caps_;
  int64_t batch_heads_;
  std::vector<A> scores_;  // [batch * heads, video query blocks, video blocks]
};

}  // namespace sprocket::kernels::internal
