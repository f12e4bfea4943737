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

class ReferenceForward final : public HeadWork {
 public:
  ReferenceForward(const ForwardArguments<double>& arguments, const PlanSizes& sizes,
                   double* weights, WorkspaceArena& arena)
      : HeadWork(HeadPlan(plan_source(arguments.problem), sizes, arena), kMaxGroupTiles),
        arguments_(arguments),
        most_keys_(sizes.packed_rows),
        weights_(weights) {}

  void begin(int64_t batch_head) override { plan_.build(batch_head); }
  void load_keys(int, int, int) override {}

  void run(const Cell& cell, int worker) override {
    for (const QueryTile& tile : tiles_of(cell)) {
      if (worker == 0) arguments_.problem.progress();
      for (int64_t row = tile.first_row; row < tile.first_row + tile.rows; ++row) {
        attend(row, plan_.listed(tile.block, cell.first_key, cell.last_key),
               weights_ + worker * most_keys_);
      }
      if (!arguments_.accumulate) clear_skipped(tile);
    }
  }

 private:
  double& lse_of(int64_t row) const {
    return arguments_.lse[plan_.batch_head() * arguments_.problem.query_offsets.back() + row];
  }

  void clear_skipped(const QueryTile& tile) const {
    const int64_t first = tile.first_row + tile.rows;
    for (int64_t row = first; row < first + tile.skipped; ++row) {
      std::fill_n(arguments_.out.row(plan_.batch(), row, plan_.head()), arguments_.problem.head_dim,
                  0.0);
      lse_of(row) = -kInfinity;
    }
  }

  void attend(int64_t row, std::span<const int32_t> listed, double* weights) const {
    const auto& problem = arguments_.problem;
    const int64_t batch = plan_.batch(), head = plan_.head();
    const int dim = problem.head_dim;
    double* out = arguments_.out.row(batch, row, head);
    double& lse = lse_of(row);
    if (!arguments_.accumulate || lse == -kInfinity) {
      lse = -kInfinity;
      std::fill_n(out, dim, 0.0);
    }
    double* weight = weights;
    for_each_part(listed, [&](const KvBlock& block) {
      const auto& k = problem.kv[block.buffer].k;
      run_on_isa<DotRows>(problem.q.row(batch, row, head), k.row(batch, block.first_row, head),
                          k.row_stride, block.rows, dim, problem.scale, double{block.bias}, weight);
      weight += block.rows;
    });
    double* const end = weight;
    if (end == weights) return;
    const double maximum = std::max(lse, *std::max_element(weights, end));
    const double former = std::exp(lse - maximum);
    double sum = former;
    for (weight = weights; weight != end; ++weight) {
      *weight = std::exp(*weight - maximum);
      sum += *weight;
    }
    for (int d = 0; d < dim; ++d) out[d] *= former;
    weight = weights;
    for_each_part(listed, [&](const KvBlock& block) {
      const auto& v = problem.kv[block.buffer].v;
      run_on_isa<AddRows>(static_cast<const double*>(weight), v.row(batch, block.first_row, head),
                          v.row_stride, block.rows, dim, out);
      weight += block.rows;
    });
    for (int d = 0; d < dim; ++d) out[d] /= sum;
    lse = maximum + std::log(sum);
  }

  // The listed blocks that have rows here.
  template <class Visit>
  void for_each_part(std::span<const int32_t> listed, Visit visit) const {
    for (int id : listed) {
      if (!plan_.key_tiles(id).empty()) visit(plan_.block(id));
    }
  }

  ForwardArguments<double> arguments_;
  int64_t most_keys_;
  double* weights_;  // [workers][most_keys_]
};

class ReferenceBackward final : public HeadWork {
 public:
  ReferenceBackward(const BackwardArguments<double>& arguments, const PlanSizes& sizes,
                    WorkspaceArena& arena)
      : HeadWork(HeadPlan(plan_source(arguments.problem), sizes, arena), kMaxGroupTiles),
        arguments_(arguments) {}

  void begin(int64_t batch_head) override { plan_.build(batch_head); }
  void load_keys(int, int, int) override {}

  // Adds to the caller's gradients directly.
  void run(const Cell& cell, int worker) override {
    for (const QueryTile& tile : tiles_of(cell)) {
      if (worker == 0) arguments_.problem.progress();
      const auto listed = plan_.listed(tile.block, cell.first_key, cell.last_key);
      for (int64_t row = tile.first_row; row < tile.first_row + tile.rows; ++row) {
        const int64_t index = plan_.batch_head() * arguments_.problem.query_offsets.back() + row;
        if (arguments_.lse[index] == -kInfinity) continue;
        for (int id : listed) {
          const KvBlock& block = plan_.block(id);
          int64_t first_key = block.first_row;
          for (const KeyTile& keys : plan_.key_tiles(id)) {
            differentiate(row, index, block, first_key, keys.rows);
            first_key += keys.rows;
          }
        }
      }
    }
  }

 private:
  void differentiate(int64_t row, int64_t index, const KvBlock& block, int64_t first_key,
                     int keys) const {
    const auto& problem = arguments_.problem;
    const int64_t batch = plan_.batch(), head = plan_.head();
    const int dim = problem.head_dim;
    const KvBuffer<double>& kv = problem.kv[block.buffer];
    const KvGradBuffer<double>& dkv = arguments_.dkv[block.buffer];
    const double* q = problem.q.row(batch, row, head);
    const double* dout = arguments_.dout.row(batch, row, head);
    const double* k = kv.k.row(batch, first_key, head);
    const double* v = kv.v.row(batch, first_key, head);
    double p[kTileRows], ds[kTileRows];
    run_on_isa<DotRows>(q, k, kv.k.row_stride, keys, dim, problem.scale, double{block.bias}, +p);
    run_on_isa<DotRows>(dout, v, kv.v.row_stride, keys, dim, 1.0, -arguments_.delta[index], +ds);
    for (int i = 0; i < keys; ++i) {
      p[i] = std::exp(p[i] - arguments_.lse[index]);
      ds[i] *= problem.scale * p[i];
    }
    const double* const p_data = p;
    const double* const ds_data = ds;
    run_on_isa<AddToRows>(p_data, dout, keys, dim, dkv.dv.row(batch, first_key, head),
                          dkv.dv.row_stride);
    run_on_isa<AddToRows>(ds_data, q, keys, dim, dkv.dk.row(batch, first_key, head),
                          dkv.dk.row_stride);
    run_on_isa<AddRows>(ds_data, k, kv.k.row_stride, keys, dim,
                        arguments_.dq.row(batch, row, head));
  }

  BackwardArguments<double> arguments_;
};

void put(std::span<HeadWork*> heads, size_t index, HeadWork* head) {
  if (head != nullptr) heads[index] = head;
}

}  // namespace

void make_heads(const ForwardArguments<double>& arguments, const PlanSizes& sizes, int workers,
                WorkspaceArena& arena, std::span<HeadWork*> heads) {
  double* const weights = arena.take<double>(workers * sizes.packed_rows);
  for (size_t i = 0; i < heads.size(); ++i) {
    put(heads, i, arena.place(ReferenceForward(arguments, sizes, weights, arena)));
  }
}

void make_heads(const BackwardArguments<double>& arguments, const PlanSizes& sizes, int,
                WorkspaceArena& arena, std::span<HeadWork*> heads) {
  for (size_t i = 0; i < heads.size(); ++i) {
    put(heads, i, arena.place(ReferenceBackward(arguments, sizes, arena)));
  }
}

}  // namespace sprocket::kernels
