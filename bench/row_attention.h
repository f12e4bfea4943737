// Attention of single rows in double: a plain softmax, for checks of large problems.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/bfloat16.h"
#include "bench/device_memory.h"

namespace sprocket::bench {

// q, k, v and the gradient of the output, [rows, H, D], each a sequence of numbers.
struct RowInputs {
  const NormalNumbers<BFloat16>&q, &k, &v, &dout;
  int heads = 0, head_dim = 0;
  double scale = 1;

  double at(const NormalNumbers<BFloat16>& x, int64_t row, int head, int channel) const {
    return static_cast<float>(x[(row * heads + head) * head_dim + channel]);
  }
  double dot(const NormalNumbers<BFloat16>& x, int64_t row, const NormalNumbers<BFloat16>& y,
             int64_t other, int head) const {
    double sum = 0;
    for (int d = 0; d < head_dim; ++d) sum += at(x, row, head, d) * at(y, other, head, d);
    return sum;
  }
};

struct QueryRowResult {
  std::vector<double> out, dq;
  double lse = 0;
};

// A query row over some keys; at least one.
inline QueryRowResult query_row_attention(const RowInputs& in, int head, int64_t row,
                                          const std::vector<int64_t>& keys) {
  std::vector<double> scores, dweights;
  for (const int64_t key : keys) {
    scores.push_back(in.scale * in.dot(in.q, row, in.k, key, head));
    dweights.push_back(in.dot(in.dout, row, in.v, key, head));
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double score : scores) sum += std::exp(score - largest);
  QueryRowResult result{std::vector<double>(in.head_dim), std::vector<double>(in.head_dim),
                        largest + std::log(sum)};
  double delta = 0;
  for (size_t j = 0; j < keys.size(); ++j) {
    delta += std::exp(scores[j] - result.lse) * dweights[j];
  }
  for (size_t j = 0; j < keys.size(); ++j) {
    const double weight = std::exp(scores[j] - result.lse);
    const double dscore = in.scale * weight * (dweights[j] - delta);
    for (int d = 0; d < in.head_dim; ++d) {
      result.out[d] += weight * in.at(in.v, keys[j], head, d);
      result.dq[d] += dscore * in.at(in.k, keys[j], head, d);
    }
  }
  return result;
}

struct KeyRowResult {
  std::vector<double> dk, dv;
};

// A key row under some queries, whose lse and delta are given for all rows of the head.
inline KeyRowResult key_row_gradients(const RowInputs& in, int head, int64_t row,
                                      const std::vector<int64_t>& queries,
                                      const std::vector<float>& lse,
                                      const std::vector<float>& delta) {
  KeyRowResult result{std::vector<double>(in.head_dim), std::vector<double>(in.head_dim)};
  for (const int64_t query : queries) {
    const double weight = std::exp(in.scale * in.dot(in.q, query, in.k, row, head) - lse[query]);
    const double dscore =
        in.scale * weight * (in.dot(in.dout, query, in.v, row, head) - delta[query]);
    for (int d = 0; d < in.head_dim; ++d) {
      result.dk[d] += dscore * in.at(in.q, query, head, d);
      result.dv[d] += weight * in.at(in.dout, query, head, d);
    }
  }
  return result;
}

// ||found - exact|| / ||exact||; where exact is 0, 0 or infinite. Not a number for what is none.
inline double relative_error(const std::vector<float>& found, const std::vector<double>& exact) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    difference += (found[i] - exact[i]) * (found[i] - exact[i]);
    size += exact[i] * exact[i];
  }
  return difference == 0 ? 0 : std::sqrt(difference / size);
}

}  // namespace sprocket::bench
