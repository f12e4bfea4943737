#include "bench/device_attention_layer.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/bfloat16.h"
#include "base/dtype.h"
#include "base/error.h"
#include "bench/device_memory.h"
#include "bench/row_attention.h"
#include "kernels/block_selection.h"
#include "kernels/cuda/block_pooling.h"
#include "kernels/cuda/coarse_attention.h"
#include "kernels/cuda/inverse_table.h"
#include "kernels/cuda/segment_attention.h"

namespace sprocket::bench {

namespace kc = kernels::cuda;
using kernels::HeadView;

namespace {

template <class V>
std::vector<V> block_offsets(const DeviceLayerShape& shape) {
  std::vector<V> offsets;
  for (int64_t row = 0; row < shape.tokens; row += shape.block_rows) {
    offsets.push_back(static_cast<V>(row));
  }
  offsets.push_back(static_cast<V>(shape.tokens));
  return offsets;
}

std::vector<kc::DeviceKvBlock> kv_blocks(const std::vector<int64_t>& offsets) {
  std::vector<kc::DeviceKvBlock> blocks;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    blocks.push_back({0, static_cast<int32_t>(offsets[i + 1] - offsets[i]), offsets[i], 0});
  }
  return blocks;
}

}  // namespace

class DeviceAttentionLayer::Body {
 public:
  explicit Body(const DeviceLayerShape& shape)
      : shape_(shape),
        offsets_(block_offsets<int64_t>(shape)),
        blocks_(static_cast<int>(offsets_.size()) - 1),
        k_(kernels::selected_count(shape.sparsity, blocks_)),
        scale_(1 / std::sqrt(static_cast<double>(shape.head_dim))) {
    coarse_.batch = 1;
    coarse_.heads = shape_.heads;
    coarse_.query_blocks = coarse_.kv_blocks = blocks_;
    coarse_.head_dim = shape_.head_dim;
    coarse_.scale = scale_;
    coarse_.qc = means_[kQ].get();
    coarse_.kc = means_[kK].get();
    coarse_.vc = means_[kV].get();
    table_ = {1, shape_.heads, blocks_, blocks_, pairs(), row_offsets_.get(), kv_block_.get()};
    inverse_ = {column_offsets_.get(), query_block_.get(), pair_.get()};
    make_problem();
    plan_ = kc::plan_segment_attention_backward(problem_, shape_.workspace_bytes);
    workspace_ = std::make_unique<Memory<char>>(plan_.workspace_bytes);
    coarse_workspace_ =
        std::make_unique<Memory<char>>(kc::coarse_backward_workspace_bytes(coarse_));
    inverse_workspace_ = std::make_unique<Memory<char>>(kc::inverse_table_workspace_bytes(table_));
    list_stages();
  }
  Body(const Body&) = delete;
  Body& operator=(const Body&) = delete;

  const std::vector<Stage>& stages() const { return stages_; }

  DeviceLayerWork work() const {
    const auto row_offsets = row_offsets_.download();
    const auto kv_block = kv_block_.download();
    DeviceLayerWork work;
    for (int64_t row = 0; row < table_.rows(); ++row) {
      for (int32_t pair = row_offsets[row]; pair < row_offsets[row + 1]; ++pair) {
        work.area += block_rows(row % blocks_) * block_rows(kv_block[pair]);
      }
    }
    work.pairs = row_offsets.back();
    return work;
  }

  DeviceLayerErrors errors(StreamView stream) const {
    clear_gradients(stream);
    backward(stream);
    DeviceLayerErrors largest;
    const Table table{row_offsets_.download(), kv_block_.download()};
    for (const int head : {0, shape_.heads - 1}) {
      const auto lse = lse_.download(head * shape_.tokens, shape_.tokens);
      const auto delta = delta_.download(head * shape_.tokens, shape_.tokens);
      for (const int64_t row : {int64_t{0}, shape_.tokens / 2, shape_.tokens - 1}) {
        const QueryRowResult query =
            query_row_attention(row_inputs(), head, row, keys_of(table, head, row));
        keep_larger(largest.out, relative_error(row_of(out_, head, row), query.out));
        keep_larger(largest.dq, relative_error(row_of(gradients_[kQ], head, row), query.dq));
        keep_larger(largest.lse, std::abs(lse[row] - query.lse));
        const KeyRowResult key =
            key_row_gradients(row_inputs(), head, row, queries_of(table, head, row), lse, delta);
        keep_larger(largest.dk, relative_error(row_of(gradients_[kK], head, row), key.dk));
        keep_larger(largest.dv, relative_error(row_of(gradients_[kV], head, row), key.dv));
      }
    }
    return largest;
  }

 private:
  enum Tensor { kQ, kK, kV, kDout };

  static std::array<Memory<float>, 3> three(int64_t count) {
    return {Memory<float>(count), Memory<float>(count), Memory<float>(count)};
  }

  struct Table {
    std::vector<int32_t> row_offsets, kv_block;
  };

  int64_t elements() const { return shape_.tokens * shape_.heads * shape_.head_dim; }
  int64_t mean_elements() const { return int64_t{blocks_} * shape_.heads * shape_.head_dim; }
  int64_t rows() const { return int64_t{blocks_} * shape_.heads; }
  int64_t pairs() const { return rows() * k_; }
  int64_t block_rows(int64_t block) const { return offsets_[block + 1] - offsets_[block]; }

  template <class View, class V>
  View rows_of(const Memory<V>& memory) const {
    return {memory.get(), elements(), int64_t{shape_.heads} * shape_.head_dim, shape_.head_dim};
  }

  void make_problem() {
    problem_.family = kc::kernel_family(shape_.major, shape_.minor);
    problem_.element = kc::Element::kBFloat16;
    problem_.head_dim = shape_.head_dim;
    problem_.scale = static_cast<float>(scale_);
    problem_.table = table_;
    problem_.map = {false, map_.get()};
    problem_.last_head = shape_.heads;
    problem_.queries = shape_.tokens;
    problem_.query_offsets = query_offsets_.get();
    problem_.max_query_rows = problem_.max_kv_rows =
        static_cast<int>(std::min<int64_t>(shape_.block_rows, shape_.tokens));
    problem_.max_row_pairs = k_;
    problem_.q = rows_of<kc::DeviceRows<const void>>(inputs_[kQ]);
    problem_.kv_buffers = 1;
    problem_.kv[0] = {rows_of<kc::DeviceRows<const void>>(inputs_[kK]),
                      rows_of<kc::DeviceRows<const void>>(inputs_[kV])};
  }

  void pool(Tensor tensor, StreamView stream) const {
    kc::pool_blocks(rows_of<HeadView<const void>>(inputs_[tensor]), DType::kBF16,
                    device_offsets_.get(), blocks_, 1, shape_.heads, shape_.head_dim,
                    means_[tensor].get(), stream);
  }

  void clear_gradients(StreamView stream) const {
    for (const auto& gradient : gradients_) {
      check_cuda(cudaMemsetAsync(gradient.get(), 0, gradient.bytes(),
                                 static_cast<cudaStream_t>(stream.cuda_handle())),
                 "cudaMemsetAsync");
    }
  }

  void find_delta(StreamView stream) const {
    kc::segment_attention_delta(
        {kc::Element::kBFloat16, kc::OutputType::kFloat32, 1, shape_.heads, shape_.head_dim,
         shape_.tokens, rows_of<kc::DeviceRows<const void>>(out_),
         rows_of<kc::DeviceRows<const void>>(inputs_[kDout]), delta_.get()},
        stream);
  }

  void backward(StreamView stream) const {
    kc::SegmentAttentionGradients gradients;
    gradients.inverse = inverse_;
    gradients.dout = rows_of<kc::DeviceRows<const void>>(inputs_[kDout]);
    gradients.lse = lse_.get();
    gradients.delta = delta_.get();
    gradients.dq = rows_of<kc::DeviceRows<float>>(gradients_[kQ]);
    gradients.dkv[0] = {rows_of<kc::DeviceRows<float>>(gradients_[kK]),
                        rows_of<kc::DeviceRows<float>>(gradients_[kV])};
    kc::segment_attention_backward(problem_, gradients, plan_, workspace_->get(), stream);
  }

  void pooling_gradients(StreamView stream) const {
    for (const Tensor tensor : {kQ, kK, kV}) {
      kc::add_pooling_gradient(mean_gradients_[tensor].get(), device_offsets_.get(), blocks_, 1,
                               shape_.heads, shape_.head_dim,
                               rows_of<HeadView<float>>(gradients_[tensor]), stream);
    }
  }

  RowInputs row_inputs() const {
    return {numbers_[kQ], numbers_[kK],    numbers_[kV], numbers_[kDout],
            shape_.heads, shape_.head_dim, scale_};
  }

  std::vector<float> row_of(const Memory<float>& memory, int head, int64_t row) const {
    return memory.download((row * shape_.heads + head) * shape_.head_dim, shape_.head_dim);
  }

  void append_rows(int64_t block, std::vector<int64_t>& to) const {
    for (int64_t row = offsets_[block]; row < offsets_[block + 1]; ++row) to.push_back(row);
  }

  std::vector<int64_t> keys_of(const Table& table, int head, int64_t query) const {
    const int64_t row = int64_t{head} * blocks_ + query / shape_.block_rows;
    std::vector<int64_t> keys;
    for (int32_t pair = table.row_offsets[row]; pair < table.row_offsets[row + 1]; ++pair) {
      append_rows(table.kv_block[pair], keys);
    }
    return keys;
  }

  std::vector<int64_t> queries_of(const Table& table, int head, int64_t key) const {
    std::vector<int64_t> queries;
    for (int block = 0; block < blocks_; ++block) {
      const int64_t row = int64_t{head} * blocks_ + block;
      const auto first = table.kv_block.begin() + table.row_offsets[row];
      const auto last = table.kv_block.begin() + table.row_offsets[row + 1];
      if (std::find(first, last, key / shape_.block_rows) != last) append_rows(block, queries);
    }
    return queries;
  }

  // A NaN stays.
  static void keep_larger(double& largest, double error) {
    if (!(error <= largest)) largest = error;
  }

  void list_stages() {
    const kc::DeviceTableBuffers table{row_offsets_.get(), kv_block_.get()};
    stages_ = {
        {"pool_queries_and_keys",
         [this](StreamView s) {
           pool(kQ, s);
           pool(kK, s);
         }},
        {"select",
         [this, table](StreamView s) { kc::select_and_attend(coarse_, k_, table, nullptr, s); }},
        {"invert",
         [this](StreamView s) {
           kc::build_inverse_table(table_, {column_offsets_.get(), query_block_.get(), pair_.get()},
                                   inverse_workspace_->get(), s);
         }},
        {"pool_values", [this](StreamView s) { pool(kV, s); }},
        {"select_and_attend",
         [this, table](StreamView s) {
           kc::select_and_attend(coarse_, k_, table, coarse_out_.get(), s);
         }},
        {"forward",
         [this](StreamView s) {
           kc::segment_attention_forward(
               problem_,
               {rows_of<kc::DeviceRows<void>>(out_), kc::OutputType::kFloat32, lse_.get(), false},
               s);
         }},
        {"clear_gradients", [this](StreamView s) { clear_gradients(s); }},
        {"delta", [this](StreamView s) { find_delta(s); }},
        {"backward", [this](StreamView s) { backward(s); }},
        // Any gradient of the coarse output will do.
        {"coarse_backward",
         [this](StreamView s) {
           kc::coarse_attend_backward(coarse_, coarse_out_.get(), mean_gradients_[kQ].get(),
                                      mean_gradients_[kK].get(), mean_gradients_[kV].get(),
                                      coarse_workspace_->get(), s);
         }},
        {"pooling_gradients", [this](StreamView s) { pooling_gradients(s); }},
    };
  }

  DeviceLayerShape shape_;
  std::vector<int64_t> offsets_;
  int blocks_, k_;
  double scale_;
  std::array<NormalNumbers<BFloat16>, 4> numbers_{
      NormalNumbers<BFloat16>(kQ), NormalNumbers<BFloat16>(kK), NormalNumbers<BFloat16>(kV),
      NormalNumbers<BFloat16>(kDout)};
  std::array<Memory<BFloat16>, 4> inputs_{
      Memory<BFloat16>(elements(), numbers_[kQ]), Memory<BFloat16>(elements(), numbers_[kK]),
      Memory<BFloat16>(elements(), numbers_[kV]), Memory<BFloat16>(elements(), numbers_[kDout])};
  std::array<Memory<float>, 3> means_ = three(mean_elements());
  std::array<Memory<float>, 3> mean_gradients_ = three(mean_elements());
  std::array<Memory<float>, 3> gradients_ = three(elements());
  Memory<float> out_{elements()}, coarse_out_{mean_elements()};
  Memory<float> lse_{shape_.tokens * shape_.heads}, delta_{shape_.tokens * shape_.heads};
  Memory<int64_t> device_offsets_{offsets_};
  Memory<int32_t> query_offsets_{block_offsets<int32_t>(shape_)};
  Memory<kc::DeviceKvBlock> map_{kv_blocks(offsets_)};
  Memory<int32_t> row_offsets_{rows() + 1}, kv_block_{pairs()};
  Memory<int32_t> column_offsets_{rows() + 1}, query_block_{pairs()}, pair_{pairs()};

  kc::DeviceCoarseProblem coarse_;
  kc::DeviceTable table_;
  kc::DeviceInverseTable inverse_;
  kc::SegmentAttentionProblem problem_;
  kc::SegmentAttentionBackwardPlan plan_;
  std::unique_ptr<Memory<char>> workspace_, inverse_workspace_, coarse_workspace_;
  std::vector<Stage> stages_;
};

DeviceAttentionLayer::DeviceAttentionLayer(const DeviceLayerShape& shape)
    : body_(std::make_unique<Body>(shape)) {}
DeviceAttentionLayer::~DeviceAttentionLayer() = default;
DeviceAttentionLayer::DeviceAttentionLayer(DeviceAttentionLayer&&) noexcept = default;
DeviceAttentionLayer& DeviceAttentionLayer::operator=(DeviceAttentionLayer&&) noexcept = default;

const std::vector<DeviceAttentionLayer::Stage>& DeviceAttentionLayer::stages() const {
  return body_->stages();
}
DeviceLayerWork DeviceAttentionLayer::work() const { return body_->work(); }
DeviceLayerErrors DeviceAttentionLayer::errors(StreamView stream) const {
  return body_->errors(stream);
}

}  // namespace sprocket::bench
