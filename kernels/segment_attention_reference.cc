// Segment attention in fp64: one query row at a time, plain loops, the library's exp and log. The
// proof path that the tests of every strategy rest on.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/lanes.h"
#include "kernels/segment_attention_heads.h"

namespace sprocket::kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// out[i] = factor * a . b[i] + bias
struct DotRows {
  SPROCKET_INLINE static void run(const double* a, const double* b, int64_t b_stride, int rows,
                                  int dim, double factor, double bias, double* out) {
    for (int i = 0; i < rows; ++i) {
      const double* row = b + i * b_stride;
      Lanes<double> sums = {};
      int d = 0;
      for (; d + kLanes<double> <= dim; d += kLanes<double>) sums += load(a + d) * load(row + d);
      double sum = sum_of_lanes<double>(sums);
      for (; d < dim; ++d) sum += a[d] * row[d];
      out[i] = factor * sum + bias;
    }
  }
};

// sum += sum_i weights[i] * b[i]
struct AddRows {
  SPROCKET_INLINE static void run(const double* weights, const double* b, int64_t b_stride,
                                  int rows, int dim, double* sum) {
    for (int i = 0; i < rows; ++i) {
      for (int d = 0; d < dim; ++d) sum[d] += weights[i] * b[i * b_stride + d];
    }
  }
};

// rows[i] += weights[i] * a
struct AddToRows {
  SPROCKET_INLINE static void run(const double* weights, const double* a, int rows, int dim,
                                  double* to, int64_t to_stride) {
    for (int i = 0; i < rows; ++i) {
      for (int d = 0; d < dim; ++d) to[i * to_stride + d] += weights[i] * a[d];
    }
  }
};

class ReferenceForward : public ForwardHead {
 public:
  explicit ReferenceForward(const ForwardArguments<double>& arguments) : arguments_(arguments) {}

  void begin(int64_t batch_head) override { batch_head_ = batch_head; }
  void load_keys(int) override {}

  void run(int query_block, int) override {
    const auto& problem = arguments_.problem;
    std::vector<KvBlock> blocks;
    size_t keys = 0;
    for (int id :
         listed_blocks(*problem.table, batch_head_, query_block, 0, problem.table->kv_blocks)) {
      const KvBlock& block = problem.map->at(batch_head_, id);
      if (block.rows == 0 || block.bias == -std::numeric_limits<float>::infinity()) continue;
      blocks.push_back(block);
      keys += block.rows;
    }
    std::vector<double> weights(keys);
    for (int64_t row = problem.query_offsets[query_block];
         row < problem.query_offsets[query_block + 1]; ++row) {
      attend(row, blocks, weights);
    }
  }

 private:
  void attend(int64_t row, const std::vector<KvBlock>& blocks, std::vector<double>& weights) {
    const auto& problem = arguments_.problem;
    const int64_t batch = batch_head_ / problem.table->heads;
    const int64_t head = batch_head_ % problem.table->heads;
    const int dim = problem.head_dim;
    double* out = arguments_.out.row(batch, row, head);
    double& lse = arguments_.lse[batch_head_ * problem.query_offsets.back() + row];
    if (!arguments_.accumulate || lse == -kInfinity) {
      lse = -kInfinity;
      std::fill_n(out, dim, 0.0);
    }
    if (weights.empty()) return;
    double* weight = weights.data();
    for (const KvBlock& block : blocks) {
      const auto& k = problem.kv[block.buffer].k;
      run_on_isa<DotRows>(problem.q.row(batch, row, head), k.row(batch, block.first_row, head),
                          k.row_stride, block.rows, dim, problem.scale, double{block.bias}, weight);
      weight += block.rows;
    }
    const double maximum = std::max(lse, *std::max_element(weights.begin(), weights.end()));
    const double former = std::exp(lse - maximum);
    double sum = former;
    for (double& w : weights) sum += w = std::exp(w - maximum);
    for (int d = 0; d < dim; ++d) out[d] *= former;
    weight = weights.data();
    for (const KvBlock& block : blocks) {
      const auto& v = problem.kv[block.buffer].v;
      run_on_isa<AddRows>(static_cast<const double*>(weight), v.row(batch, block.first_row, head),
                          v.row_stride, block.rows, dim, out);
      weight += block.rows;
    }
    for (int d = 0; d < dim; ++d) out[d] /= sum;
    lse = maximum + std::log(sum);
  }

  ForwardArguments<double> arguments_;
  int64_t batch_head_ = 0;
};

class ReferenceBackward : public BackwardHead {
 public:
  explicit ReferenceBackward(const BackwardArguments<double>& arguments) : arguments_(arguments) {}

  void begin(int64_t batch_head) override { batch_head_ = batch_head; }
  void load_keys(int) override {}

  void run(int first_query, int last_query, int first_key, int last_key, int) override {
    const auto& problem = arguments_.problem;
    for (int query_block = first_query; query_block < last_query; ++query_block) {
      const auto listed =
          listed_blocks(*problem.table, batch_head_, query_block, first_key, last_key);
      for (int64_t row = problem.query_offsets[query_block];
           row < problem.query_offsets[query_block + 1]; ++row) {
        for (int id : listed) differentiate(row, problem.map->at(batch_head_, id));
      }
    }
  }

  // run adds to the caller's gradients directly.
  void store_query_gradients(int, int) override {}
  void store_key_gradients(int) override {}

 private:
  void differentiate(int64_t row, const KvBlock& block) {
    const auto& problem = arguments_.problem;
    const int64_t batch = batch_head_ / problem.table->heads;
    const int64_t head = batch_head_ % problem.table->heads;
    const int64_t index = batch_head_ * problem.query_offsets.back() + row;
    const double lse = arguments_.lse[index];
    if (block.rows == 0 || lse == -kInfinity) return;
    const int dim = problem.head_dim;
    const KvBuffer<double>& kv = problem.kv[block.buffer];
    const KvGradBuffer<double>& dkv = arguments_.dkv[block.buffer];
    const double* q = problem.q.row(batch, row, head);
    const double* dout = arguments_.dout.row(batch, row, head);
    const double* k = kv.k.row(batch, block.first_row, head);
    const double* v = kv.v.row(batch, block.first_row, head);
    std::vector<double> p(block.rows), ds(block.rows);
    run_on_isa<DotRows>(q, k, kv.k.row_stride, block.rows, dim, problem.scale, double{block.bias},
                        p.data());
    run_on_isa<DotRows>(dout, v, kv.v.row_stride, block.rows, dim, 1.0, -arguments_.delta[index],
                        ds.data());
    for (int i = 0; i < block.rows; ++i) {
      p[i] = std::exp(p[i] - lse);
      ds[i] *= problem.scale * p[i];
    }
    const double* const p_data = p.data();
    const double* const ds_data = ds.data();
    run_on_isa<AddToRows>(p_data, dout, block.rows, dim, dkv.dv.row(batch, block.first_row, head),
                          dkv.dv.row_stride);
    run_on_isa<AddToRows>(ds_data, q, block.rows, dim, dkv.dk.row(batch, block.first_row, head),
                          dkv.dk.row_stride);
    run_on_isa<AddRows>(ds_data, k, kv.k.row_stride, block.rows, dim,
                        arguments_.dq.row(batch, row, head));
  }

  BackwardArguments<double> arguments_;
  int64_t batch_head_ = 0;
};

}  // namespace

std::unique_ptr<ForwardHead> make_forward_head(const ForwardArguments<double>& arguments, int) {
  return std::make_unique<ReferenceForward>(arguments);
}

std::unique_ptr<BackwardHead> make_backward_head(const BackwardArguments<double>& arguments, int) {
  return std::make_unique<ReferenceBackward>(arguments);
}

}  // namespace sprocket::kernels
