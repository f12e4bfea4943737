// ASA's global tokens over the outer ranks: every rank holds the means of all groups, made from the
// ranks' partial means, and gives their gradients back.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/global_tokens.h"
#include "parallel/attention/attention_method.h"

namespace sprocket::parallel {

// What a rank has of the video and of its groups.
struct GlobalShare {
  int64_t first_token = 0, tokens = 0;  // counted from the first video token
  kernels::GroupRange groups;           // that hold any of these tokens
};
kernels::GlobalTokens make_global_tokens(const TokenLayout& layout, int width, bool by_block);
GlobalShare global_share(const TokenLayout& layout, const OuterShards& blocks,
                         const kernels::GlobalTokens& tokens, int rank);

class GlobalBranch {
 public:
  // width: tokens of a group. by_block: no segment holds groups of two blocks.
  GlobalBranch(const MethodContext& context, int width, bool by_block);

  const kernels::GlobalTokens& tokens() const { return tokens_; }
  // Every query block to every global segment, or to those of blocks that it has not selected.
  kernels::SegmentTable table(const kernels::SegmentTable& selected, bool exclude_selected) const;

  // Collective: one all-gather of the partial means of k and v.
  void gather(const at::Tensor& k_BLHD, const at::Tensor& v_BLHD);

  void attend(const QuerySide& query, const std::shared_ptr<const kernels::SegmentTable>& table,
              PassOutput& output);
  // Collective: one reduce-scatter of the gradients of all groups.
  void add_gradients(const QuerySide& query,
                     const std::shared_ptr<const kernels::SegmentTable>& table,
                     const OutputSide& output, ShardGradients& gradients);

 private:
  GlobalShare share_of(int rank) const {
    return global_share(context_.layout, context_.blocks, tokens_, rank);
  }
  std::vector<int64_t> counts(const at::Tensor& example) const;
  at::Tensor part(const at::Tensor& buffer, int rank, int first_rank,
                  const at::Tensor& example) const;
  at::Tensor video_rows(const at::Tensor& x_BLHD) const;
  QuerySide query_side(const QuerySide& query,
                       const std::shared_ptr<const kernels::SegmentTable>& table) const;

  MethodContext context_;
  kernels::GlobalTokens tokens_;
  kernels::KvBlockMap map_;
  at::Tensor k_, v_;  // [B, groups, H, D], compute dtype
};

}  // namespace sprocket::parallel
