// What the references of the methods share.
#pragma once

#include <functional>

#include "tests/parallel/method_reference.h"

namespace sprocket::parallel::testing {

double scale_of(const AttentionCase& c);
at::Tensor block_of_token(const TokenLayout& layout);  // [L]

// fp64, [B, H, L, D]
at::Tensor heads_first(const at::Tensor& x_BLHD);
// [B, H, rows, D]: row r is the mean of `tokens[r]` tokens of x [B, H, L, D] from first_token[r]
// on, their sum divided once; 0 where that is 0.
at::Tensor means(const std::vector<int64_t>& first_token, const std::vector<int64_t>& tokens,
                 const at::Tensor& x);
at::Tensor block_means(const TokenLayout& layout, const at::Tensor& x);

void set(const at::Tensor& selected, int64_t b, int64_t h, int64_t i, int64_t column);
std::vector<double> row_of(const at::Tensor& x, int64_t b, int64_t h, int64_t i);
// The k best of `candidates` by (value descending, id ascending), best first.
std::vector<int64_t> best(const std::vector<double>& values, std::vector<int64_t> candidates,
                          int64_t k);
std::vector<int64_t> range(int64_t first, int64_t last);
double share_of(const Decimal& share, double total);

// Rows of the keys themselves: block j decides on its tokens.
KeyRows block_rows(const TokenLayout& layout);
// Column 4 j + t - 1 decides on block j's means of 2^(t-1) tokens.
KeyRows pyramid_rows(const TokenLayout& layout);
// Blocks, and column N + g for the mean of tokens [g * width, ...) of the video.
KeyRows global_rows(const TokenLayout& layout, int width);
// [B, H, N, N] of blocks -> with the columns of global_rows behind.
at::Tensor with_global_columns(const AttentionCase& c, const TokenLayout& layout,
                               const at::Tensor& selected);

// Blocks that query block i of a head selects when it may choose among some video blocks; prefix
// blocks may be among the result.
using RowChoice = std::function<std::vector<int64_t>(int64_t b, int64_t h, int64_t i,
                                                     const std::vector<int64_t>& video)>;
// Share of each block [blocks] in the mass of its row.
using RowShares = std::function<std::vector<double>(int64_t b, int64_t h, int64_t i)>;
using TakeRow = std::function<void(int64_t b, int64_t h, int64_t i, const std::vector<int64_t>&)>;

// Calls `take` for all video query blocks with the video blocks that the budget leaves to them, and
// fills what a choice reports of the budget.
void choose_rows(const AttentionCase& c, const TokenLayout& layout, const RowChoice& choose,
                 const RowShares& shares, MethodChoice& choice, const TakeRow& take);

MethodChoice choose_vsa(const AttentionCase& c, const AttentionTensors& inputs);
MethodChoice choose_bsa(const AttentionCase& c, const AttentionTensors& inputs);
MethodChoice choose_psa(const AttentionCase& c, const AttentionTensors& inputs);
MethodChoice choose_asa(const AttentionCase& c, const AttentionTensors& inputs);
MethodChoice choose_static(const AttentionCase& c);  // dense and sliding tile

}  // namespace sprocket::parallel::testing
