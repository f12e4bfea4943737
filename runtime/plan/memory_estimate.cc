#include "runtime/plan/memory_estimate.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include <fmt/format.h>

#include "base/dtype.h"
#include "base/error.h"
#include "configs/attention_rules.h"
#include "configs/roles.h"
#include "parallel/traffic.h"
#include "runtime/plan/job_specs.h"

namespace sprocket::runtime {
namespace {

int64_t linear(int64_t in, int64_t out) { return in * out + out; }

int64_t patch_elements(const config::Model& model) {
  return int64_t{model.latent_channels()} * model.patch().t() * model.patch().h() *
         model.patch().w();
}

int gates_of(const config::Attention& attention) {
  return config::has_coarse_gate(attention) + config::has_fine_gate(attention);
}

[[noreturn]] void no_counterpart() { throw InternalError("model.family has no counterpart"); }

// Bytes that the backward of one block needs, without the K and V of other ranks: what the autograd
// functions of models/autograd and parallel/sequence_attention.cc save. `e` bytes of an element in
// the compute type; the residual stream is fp32. Here those of SequenceAttention and of the linear
// layer behind it.
int64_t attention_activations(const config::Job& job, int64_t rows, int64_t e) {
  const config::Model& model = job.model();
  const bool coarse = job.attention().method() == config::Attention::VSA &&
                      job.attention().vsa().coarse() != config::Vsa::NONE;
  // q, k, v; the fine stage's output in fp32; the gates.
  const int64_t attention = 3 * e + 4 + gates_of(job.attention()) * e;
  // The output as the last linear layer's input, where it is another tensor than the fine stage's.
  const int64_t output = coarse || e < 4 || job.parallel().ulysses() > 1 ? e : 0;
  const int64_t log_sum_exp = 2 * 4 * int64_t{model.heads()};
  return rows * (model.dim() * (attention + output) + log_sum_exp);
}

int64_t wan_block_activations(const config::Job& job, int64_t rows, int64_t text_rows, int64_t e) {
  const config::Model& model = job.model();
  const int64_t dim = model.dim(), ffn = model.ffn_dim();
  // The inputs of the three layer norms.
  const int64_t residual = 3 * 4;
  // The normed inputs of self-attention, cross-attention and feed-forward, and the two sublayer
  // outputs that a learned gate multiplies.
  const int64_t sublayers = (3 + 2) * e;
  // q and k before their norm.
  const int64_t head_norms = 2 * e;
  // Cross-attention: q before and after its norm, the output.
  const int64_t cross = 3 * e;
  const int64_t video = rows * (dim * (residual + sublayers + head_norms + cross) + ffn * e);
  // k before and after its norm, and v, of the text.
  const int64_t text = text_rows * dim * 3 * e;
  return video + text + attention_activations(job, rows, e);
}

int64_t cogvideox_block_activations(const config::Job& job, int64_t rows, int64_t e) {
  const config::Model& model = job.model();
  const int64_t dim = model.dim(), ffn = model.ffn_dim();
  // The inputs of the two layer norms, and of those of q and k.
  const int64_t norms = (2 + 2) * 4;
  // The normed inputs of attention and feed-forward, and their outputs, which a gate multiplies.
  const int64_t sublayers = (2 + 2) * e;
  return rows * (dim * (norms + sublayers) + ffn * e) + attention_activations(job, rows, e);
}

int64_t block_activations(const config::Job& job, int64_t rows, int64_t text_rows, int64_t e) {
  switch (job.model().family()) {
    case config::Model::WAN:
      return wan_block_activations(job, rows, text_rows, e);
    case config::Model::COGVIDEOX:
      return cogvideox_block_activations(job, rows, e);
  }
  no_counterpart();
}

// Resident memory of a rank before it allocates tensors: code and data of LibTorch, MPI, FFmpeg.
constexpr int64_t kProgram = int64_t{175} << 20;

// Of the attention kernel's backward, which needs most (kernels/segment_attention.h): K and V of a
// pass, their gradients and those of the queries, for every head at work at once.
int64_t kernel_workspace(const config::Job& job, const RankShare& share, int64_t element) {
  const config::Model& model = job.model();
  const int64_t heads =
      int64_t{job.training().micro_batch()} * model.heads() / job.parallel().ulysses();
  const int64_t at_once = std::min<int64_t>(std::max(1, job.compute().threads()), heads);
  const int64_t queries = share.tokens * job.parallel().ulysses();
  const int64_t keys = std::max(queries, share.remote_rows);
  const int64_t dim = (model.dim() / model.heads() + 15) / 16 * 16;
  return at_once * dim * (keys * (2 * element + 8) + queries * 4);
}

int64_t sum_of(const std::vector<int64_t>& rows) {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0});
}

// Rows of K of one head that cross the network to outer rank `self` at most at `step`.
int64_t received_rows(const config::Job& job, const parallel::TokenLayout& layout,
                      const parallel::ShardPlan& shards, int self, int64_t step) {
  const parallel::AttentionSpec spec = attention_spec(job.attention(), step);
  const int64_t heads = int64_t{job.model().heads()} / job.parallel().ulysses();
  int64_t own = 0, own_remote = 0, needed = 0, remote = 0;
  for (int outer = 0; outer < shards.mesh.outer; ++outer) {
    const parallel::OuterShards keys = parallel::key_segments(layout, shards, outer, spec);
    int64_t others = 0;
    for (int owner = 0; owner < shards.mesh.outer; ++owner) {
      if (owner != outer) others += keys.tokens(owner);
    }
    // Of all heads together: a head may import more than another.
    const int64_t rows =
        job.parallel().strategy() == config::Parallel::SELECTED
            ? (sum_of(parallel::selected_rows_bound(layout, keys, 1, heads, spec).received) +
               heads - 1) /
                  heads
            : others;
    if (outer == self) {
      own = rows;
      own_remote = others;
    }
    needed += rows;
    remote += others;
  }
  const bool gathers =
      static_cast<double>(needed) > job.parallel().gather_above() * static_cast<double>(remote);
  return gathers ? own_remote : own;
}

}  // namespace

RankShare rank_share(const config::Job& job, const config::LatentShape& shape, int sequence_rank) {
  const parallel::TokenLayout layout = parallel::make_token_layout(token_layout_spec(job, shape));
  parallel::MeshShape mesh = mesh_shape(job);
  mesh.data = 1;
  const parallel::ShardPlan shards = parallel::make_shard_plan(layout, mesh);
  RankShare share;
  share.tokens = shards.tokens_of(sequence_rank);
  // A schedule goes from its start to its end and takes no larger value between.
  for (const int64_t step : {int64_t{0}, std::max<int64_t>(0, job.training().steps() - 1)}) {
    share.remote_rows = std::max(
        share.remote_rows, received_rows(job, layout, shards, sequence_rank / mesh.ulysses, step));
  }
  return share;
}

namespace {

int64_t wan_parameter_count(const config::Job& job) {
  const config::Model& model = job.model();
  const int64_t dim = model.dim(), ffn = model.ffn_dim(), patch = patch_elements(model);
  const int64_t embeddings = linear(patch, dim) + linear(model.text_dim(), dim) + linear(dim, dim) +
                             linear(model.frequency_dim(), dim) + linear(dim, dim) +
                             linear(dim, 6 * dim);
  const int64_t attention = 4 * linear(dim, dim) + 2 * dim;
  const int64_t gates = gates_of(job.attention()) * linear(dim, dim);
  const int64_t block =
      6 * dim + 2 * attention + gates + 2 * dim + linear(dim, ffn) + linear(ffn, dim);
  const int64_t head = linear(dim, patch) + 2 * dim;
  return embeddings + model.layers() * block + head;
}

int64_t cogvideox_parameter_count(const config::Job& job) {
  const config::Model& model = job.model();
  const int64_t dim = model.dim(), ffn = model.ffn_dim(), patch = patch_elements(model);
  const int64_t time = model.cogvideox().time_dim(), norm = 2 * dim;
  const int64_t embeddings =
      linear(patch, dim) + linear(model.text_dim(), dim) + linear(dim, time) + linear(time, time);
  const int64_t head_norms = 2 * 2 * (dim / model.heads());
  const int64_t gates = gates_of(job.attention()) * linear(dim, dim);
  const int64_t block = 2 * (linear(time, 6 * dim) + norm) + head_norms + 4 * linear(dim, dim) +
                        gates + linear(dim, ffn) + linear(ffn, dim);
  const int64_t output = norm + linear(time, 2 * dim) + norm + linear(dim, patch);
  return embeddings + model.layers() * block + output;
}

// Of adapters of the layers that have one by default: with other targets an estimate.
int64_t adapter_count(const config::Job& job) {
  const config::Model& model = job.model();
  const int64_t rank = job.training().lora().rank(), dim = model.dim(), ffn = model.ffn_dim();
  // q, k, v and o; a text outside the sequence has as many of its own.
  const int64_t attention = config::text_prefix(model) > 0 ? 4 : 8;
  const int64_t block = attention * rank * 2 * dim + 2 * rank * (dim + ffn);
  return model.layers() * (block + gates_of(job.attention()) * linear(dim, dim));
}

}  // namespace

int64_t parameter_count(const config::Job& job) {
  switch (job.model().family()) {
    case config::Model::WAN:
      return wan_parameter_count(job);
    case config::Model::COGVIDEOX:
      return cogvideox_parameter_count(job);
  }
  no_counterpart();
}

int64_t MemoryEstimate::total() const {
  int64_t sum = 0;
  for (const MemoryRow& row : rows) sum += row.bytes;
  return sum;
}

int64_t trained_count(const config::Job& job) {
  return job.training().lora().rank() > 0 ? adapter_count(job) : parameter_count(job);
}

namespace {

int64_t weight_bytes(const config::Job& job, int64_t parameters) {
  const bool copies = job.compute().device() == config::Compute::CUDA &&
                      job.compute().precision() == config::Compute::BF16;
  return parameters * (copies ? 4 + 2 : 4);
}

std::vector<MemoryRow> pass_memory(const config::Job& job, const RankShare& share) {
  const config::Model& model = job.model();
  const auto e = static_cast<int64_t>(size_of(compute_dtype(job)));
  const int64_t batch = job.training().micro_batch();
  const int64_t rows = batch * share.tokens;
  const int64_t text_rows = batch * model.text_tokens();
  std::vector<MemoryRow> needed;
  const int64_t kv_per_row = 2 * int64_t{model.dim()} / job.parallel().ulysses() * e;
  const int64_t remote_kv = batch * share.remote_rows * kv_per_row;
  const int64_t block = block_activations(job, rows, text_rows, e);
  const bool keeps_pool = job.parallel().remote_kv() != config::Parallel::FETCH_AGAIN &&
                          job.parallel().strategy() != config::Parallel::RING;
  switch (job.training().activation_checkpointing()) {
    case config::Training::KEEP:
      needed.push_back({"activations of all blocks", model.layers() * block});
      if (remote_kv > 0) {
        needed.push_back({keeps_pool ? "K and V of other ranks, all blocks (at most)"
                                     : "K and V of other ranks, one block (at most)",
                          keeps_pool ? model.layers() * remote_kv : remote_kv});
      }
      break;
    case config::Training::BLOCK:
      needed.push_back({"inputs of all blocks", 4 * rows * model.dim() * model.layers()});
      needed.push_back({"activations of one block", block});
      if (remote_kv > 0) {
        needed.push_back({"K and V of other ranks, one block (at most)", remote_kv});
      }
      break;
  }
  const int64_t head = rows * (2 * 4 * int64_t{model.dim()} + 4 * 4 * patch_elements(model));
  const int64_t text = text_rows * (4 * int64_t{model.text_dim()} + 3 * e * int64_t{model.dim()});
  needed.push_back({"embeddings and head", head + text});
  // Two gradients in flight: of the residual stream, and of the widest layer.
  needed.push_back({"working memory of the backward",
                    rows * (2 * 4 * int64_t{model.dim()} +
                            2 * e * std::max<int64_t>(model.ffn_dim(), 3 * model.dim()))});
  needed.push_back({"workspace of the attention kernel", kernel_workspace(job, share, e)});
  return needed;
}

// Of a save in the background: the copy of this rank's share, where the weights lie in the same
// memory. `bytes`: of all that is saved.
void add_staging(const config::Job& job, int64_t bytes, MemoryEstimate& estimate) {
  if (!job.output().asynchronous_saves() || job.compute().device() != config::Compute::CPU) return;
  estimate.rows.push_back(
      {"copy of a checkpoint that is being written", bytes / mesh_shape(job).world()});
}

}  // namespace

MemoryEstimate estimate_training_memory(const config::Job& job, const RankShare& share) {
  const bool adapters = job.training().lora().rank() > 0;
  const int64_t trained = trained_count(job);
  const int64_t held = adapters ? parameter_count(job) + trained : trained;
  MemoryEstimate estimate;
  estimate.rows.push_back({"parameters (fp32)", 4 * held});
  if (weight_bytes(job, held) > 4 * held) {
    estimate.rows.push_back(
        {"copies of the parameters (bf16)", weight_bytes(job, held) - 4 * held});
  }
  estimate.rows.push_back({"gradients (fp32)", 4 * trained});
  estimate.rows.push_back({"optimizer (two fp32 moments)", 8 * trained});
  if (job.training().ema_decay() > 0) {
    estimate.rows.push_back({"moving average (fp32)", 4 * trained});
  }
  add_staging(job, (job.training().ema_decay() > 0 ? 16 : 12) * trained, estimate);
  for (MemoryRow& row : pass_memory(job, share)) estimate.rows.push_back(std::move(row));
  estimate.rows.push_back({"program and libraries", kProgram});
  return estimate;
}

MemoryEstimate estimate_distillation_memory(const config::Job& job,
                                            const config::LatentShape& shape, int sequence_rank) {
  using config::NetworkRole;
  MemoryEstimate estimate;
  std::map<std::string, int64_t> frozen;  // by model.weights
  int64_t trained_bytes = 0, trained = 0;
  std::vector<MemoryRow> largest_pass;
  const auto sum = [](const std::vector<MemoryRow>& rows) { return MemoryEstimate{rows}.total(); };
  for (const NetworkRole role :
       {NetworkRole::kStudent, NetworkRole::kTeacher, NetworkRole::kFakeScore}) {
    const config::Job own = config::role_job(job, role);
    if (role == NetworkRole::kTeacher || own.training().lora().rank() > 0) {
      int64_t& bytes = frozen[own.model().weights()];
      bytes = std::max(bytes, weight_bytes(own, parameter_count(own)));
    }
    if (role == NetworkRole::kTeacher) continue;
    trained += trained_count(own);
    trained_bytes += weight_bytes(own, trained_count(own));
    const std::vector<MemoryRow> pass = pass_memory(own, rank_share(own, shape, sequence_rank));
    if (sum(pass) > sum(largest_pass)) largest_pass = pass;
  }
  int64_t frozen_bytes = 0;
  for (const auto& [path, bytes] : frozen) frozen_bytes += bytes;
  estimate.rows.push_back(
      {fmt::format("frozen weights ({} in memory)",
                   frozen.size() == 1 ? "one copy" : fmt::format("{} copies", frozen.size())),
       frozen_bytes});
  estimate.rows.push_back({"trained of student and fake score", trained_bytes});
  estimate.rows.push_back({"their gradients (fp32)", 4 * trained});
  estimate.rows.push_back({"their optimizers (two fp32 moments)", 8 * trained});
  int64_t average = 0;
  if (job.training().ema_decay() > 0) {
    average = 4 * trained_count(config::role_job(job, NetworkRole::kStudent));
    estimate.rows.push_back({"moving average (fp32)", average});
  }
  add_staging(job, 12 * trained + average, estimate);
  for (MemoryRow& row : largest_pass) estimate.rows.push_back(std::move(row));
  const int64_t latent = int64_t{shape.channels} * shape.t * shape.h * shape.w;
  constexpr int64_t kLatents = 12;  // of a recipe's equations and their gradients
  estimate.rows.push_back({"whole latents", 4 * kLatents * job.training().micro_batch() * latent});
  estimate.rows.push_back({"program and libraries", kProgram});
  return estimate;
}

}  // namespace sprocket::runtime
