#include "runtime/attention/attention_job.h"

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "parallel/attention/global_branch.h"
#include "parallel/mesh.h"
#include "runtime/attention/attention_input.h"
#include "runtime/attention/output_tensors.h"
#include "runtime/attention/rank_tokens.h"
#include "runtime/attention/selection_file.h"
#include "runtime/attention/selection_picture.h"
#include "runtime/attention/stage_times.h"
#include "runtime/jobs/run_on_mesh.h"
#include "runtime/media/png.h"
#include "runtime/metrics/head_shares.h"
#include "runtime/metrics/imbalance.h"
#include "runtime/metrics/memory.h"
#include "runtime/plan/job_specs.h"

namespace sprocket::runtime {
namespace {

using nlohmann::json;

parallel::TokenLayoutSpec sequence_spec(const config::Job& job) {
  const config::TokenGrid& grid = job.problem().grid();
  parallel::TokenLayoutSpec spec =
      token_layout_spec(job.attention(), {grid.t(), grid.h(), grid.w()});
  spec.prefix.assign(job.problem().prefix().begin(), job.problem().prefix().end());
  return spec;
}

at::ScalarType scalar_type(DType type) {
  return type == DType::kF64 ? at::kDouble : type == DType::kF32 ? at::kFloat : at::kBFloat16;
}

std::span<const std::byte> bytes_of(const at::Tensor& x) {
  return {static_cast<const std::byte*>(x.data_ptr()), static_cast<size_t>(x.nbytes())};
}

const std::string& method_name(const config::Job& job) {
  return config::Attention::Method_Name(job.attention().method());
}

// Inputs and the output they receive a gradient for.
constexpr std::pair<const char*, const char*> kGradients[] = {{"q", "grad_q"},
                                                              {"k", "grad_k"},
                                                              {"v", "grad_v"},
                                                              {"gate", "grad_gate"},
                                                              {"gate_fine", "grad_gate_fine"}};

// What one call leaves on a rank: own tokens in the input's order.
struct CallResult {
  at::Tensor out, lse;  // [B, n, H, D] and [B, n, H]
  std::map<std::string, at::Tensor> gradients;
  parallel::Selection selection;
  parallel::AttentionStatistics statistics;
  CallTimes times;
};

int64_t sum_of(const std::vector<int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

int64_t size_of(const at::Tensor& x) { return x.defined() ? static_cast<int64_t>(x.nbytes()) : 0; }

int64_t size_of(const std::map<std::string, at::Tensor>& tensors) {
  int64_t bytes = 0;
  for (const auto& [name, x] : tensors) bytes += size_of(x);
  return bytes;
}

// The growth at its peak, beyond tensors that the caller sees.
std::optional<int64_t> beyond(const MemoryGrowth& growth, int64_t tensors) {
  const std::optional<int64_t> peak = growth.peak_bytes();
  return peak ? std::optional(*peak - tensors) : std::nullopt;
}

class AttentionJob {
 public:
  AttentionJob(const config::Job& job, const parallel::Mesh& mesh, const AttentionOptions& options)
      : job_(job), options_(options), mesh_(mesh), world_(mesh.world()) {
    run_on_all(world_, [&] { prepare(); });
    const std::string others = broadcast_text(world_, input_->description(), 0);
    run_on_all(world_, [&] {
      if (others == input_->description()) return;
      throw InputError(fmt::format("{}: rank {} and rank 0 see different files of this name",
                                   input_->path(), world_.rank()));
    });
    load();
    run_on_all(world_, [&] {
      if (world_.rank() == 0) open_output();
    });
    attention_ = std::make_unique<parallel::SequenceAttention>(
        mesh_, layout_, strategy_spec(job_, options_.threads));
  }

  std::string run() {
    std::vector<CallTimes> times;
    CallResult result;
    for (int i = 0; i <= options_.repeat; ++i) {
      result = call();
      if (i > 0 || options_.repeat == 0) times.push_back(result.times);
    }
    write_output(result);
    return report(result, median_times(times));
  }

 private:
  void prepare() {
    if (job_.parallel().data() != 1) {
      throw ConfigError(
          fmt::format("parallel.data: {}; legal: 1, there is one problem", job_.parallel().data()));
    }
    spec_ = attention_spec(job_.attention(), job_.problem().step());
    input_.emplace(AttentionInput::open(options_.input));
    names_ = needed_tensors(spec_, options_.backward);
    const parallel::TokenLayoutSpec sequence = sequence_spec(job_);
    const std::vector<std::string> warnings = input_->check(names_, sequence);
    layout_ = parallel::make_token_layout(sequence);
    shards_ = parallel::make_shard_plan(layout_, mesh_.shape());
    part_ = selection_part(shards_, world_.rank(), input_->batch(), input_->heads());
    tokens_ = rank_tokens(layout_, shards_, world_.rank());
    check_picture();
    if (!options_.selection.empty()) {
      replayed_ = SelectionFile::open(options_.selection, method_name(job_), layout_,
                                      input_->batch(), input_->heads())
                      .part(part_, layout_, spec_);
      if (spec_.method == parallel::MethodKind::kAsa && spec_.asa.global_width > 0) {
        replayed_.global_table = global_table(*replayed_.table);
      }
    }
    if (world_.rank() != 0) return;
    for (const std::string& warning : warnings) spdlog::warn("{}", warning);
  }

  void check_picture() {
    const int middle = (layout_.prefix_blocks() + layout_.blocks()) / 2;
    drawn_query_ = options_.draw_query.value_or(middle);
    if (options_.draw.empty()) return;
    if (options_.draw_head >= input_->heads()) {
      throw ConfigError(fmt::format("--draw-head {}: the input has {} heads; legal: 0 to {}",
                                    options_.draw_head, input_->heads(), input_->heads() - 1));
    }
    if (drawn_query_ >= layout_.blocks()) {
      throw ConfigError(fmt::format("--draw-query {}: the sequence has {} blocks; legal: 0 to {}",
                                    drawn_query_, layout_.blocks(), layout_.blocks() - 1));
    }
  }

  std::shared_ptr<const kernels::SegmentTable> global_table(
      const kernels::SegmentTable& selected) const;

  void load() {
    compute_ = compute_dtype(job_);
    for (const std::string& name : names_) {
      inputs_[name] = input_->tokens_of(name, tokens_.places, scalar_type(compute_));
    }
    std::vector<int64_t> first, all(names_.size() * world_.size());
    for (const std::string& name : names_) {
      const int64_t found = first_non_finite(inputs_[name], tokens_.places, layout_.tokens());
      first.push_back(found < 0 ? std::numeric_limits<int64_t>::max() : found);
    }
    const std::vector<int64_t> counts(world_.size(), std::ssize(names_));
    world_.all_gather(comm::Buffer::of(std::span(first)), comm::Buffer::of(std::span(all)), counts)
        .wait_host();
    for (size_t i = 0; i < names_.size(); ++i) {
      for (int rank = 0; rank < world_.size(); ++rank) {
        first[i] = std::min(first[i], all[rank * names_.size() + i]);
      }
      if (first[i] < std::numeric_limits<int64_t>::max()) found_non_finite(names_[i], first[i]);
    }
  }

  void found_non_finite(const std::string& name, int64_t index) {
    const std::string text = fmt::format("{}: expected finite numbers, found {}", input_->path(),
                                         input_->element_text(name, index));
    if (job_.problem().non_finite() == config::AttentionProblem::REFUSE) {
      run_on_all(world_, [&] {
        throw InputError(text + "; `problem.non_finite: WARN` goes on all the same");
      });
    }
    if (world_.rank() == 0) spdlog::warn("{}", text);
  }

  CallResult call();
  void write_output(const CallResult& result);
  void write(const std::string& name, std::span<const std::byte> bytes);
  SelectionRecord gather_selection(const parallel::Selection& selection);
  void open_output();
  void draw(const SelectionRecord& record) const;
  std::string report(const CallResult& result, const CallTimes& times);
  std::string domain_text(const parallel::AttentionStatistics& statistics);
  std::string memory_text() const;
  bool dumps_kept() const {
    return options_.dump_selection && spec_.method == parallel::MethodKind::kBsa;
  }

  const config::Job& job_;
  const AttentionOptions& options_;
  const parallel::Mesh& mesh_;
  comm::Communicator& world_;

  std::optional<AttentionInput> input_;
  parallel::AttentionSpec spec_;
  std::vector<std::string> names_;  // of the tensors that are read
  parallel::TokenLayout layout_;
  parallel::ShardPlan shards_;
  SelectionPart part_;
  RankTokens tokens_;
  int drawn_query_ = 0;
  parallel::Selection replayed_;
  DType compute_ = DType::kF32;
  std::map<std::string, at::Tensor> inputs_;    // own tokens in the input's order
  std::map<std::string, at::Tensor> permuted_;  // inputs in block order, results in the input's
  std::unique_ptr<OutputTensors> output_;       // on rank 0
  std::unique_ptr<parallel::SequenceAttention> attention_;
  // Of the first call: bytes in use at its peak beyond inputs, output and gradients.
  std::optional<int64_t> forward_memory_, backward_memory_;
  int64_t first_pairs_ = 0;  // that this rank executed
};

std::shared_ptr<const kernels::SegmentTable> AttentionJob::global_table(
    const kernels::SegmentTable& selected) const {
  const parallel::OuterShards blocks{
      layout_.block_offsets, shards_.outer_blocks, mesh_.coordinate().outer, {}, {}};
  const parallel::MethodContext context{layout_, blocks, mesh_.outer()};
  const parallel::GlobalBranch global(context, spec_.asa.global_width, spec_.asa.exclude_selected);
  return std::make_shared<kernels::SegmentTable>(
      global.table(selected, spec_.asa.exclude_selected));
}

CallResult AttentionJob::call() {
  Timeline* const timeline = mesh_.timeline();
  // Into the same memory in every call: a fresh allocation costs as much as the copy.
  const auto permute = [&](const std::string& name, const at::Tensor& x,
                           const std::vector<int64_t>& order) {
    Timeline::Scope scope(timeline, Activity::kCompute, "attention.order");
    at::Tensor& permuted = permuted_[name];
    if (!permuted.defined()) permuted = at::empty(x.sizes(), x.options());
    permute_tokens(x.contiguous(), order, options_.threads, permuted);
    return permuted;
  };
  CallResult result;
  parallel::AttentionSlot slot;
  slot.layer = job_.problem().layer();
  slot.keep_lse = true;
  slot.selection = replayed_;
  std::map<std::string, at::Tensor> x;  // in block order
  const c10::AutoGradMode gradients(options_.backward);
  const bool first = permuted_.empty();
  std::optional<MemoryGrowth> growth;
  world_.barrier();
  if (first) growth.emplace();
  timeline->take();
  timeline->set_recording(true);

  const int64_t begin = monotonic_ns();
  at::Tensor out;
  {
    const PhaseScope phase(timeline, Phase::kForward);
    for (const std::string& name : names_) {
      if (name == "grad_out") continue;
      x[name] = permute(name, inputs_[name], tokens_.to_block)
                    .detach()
                    .set_requires_grad(options_.backward);
    }
    out = attention_->forward(x["q"], x["k"], x["v"], {x["gate"], x["gate_fine"]}, spec_, slot);
    if (first) first_pairs_ = sum_of(slot.statistics.pairs);
    if (first) forward_memory_ = beyond(*growth, size_of(permuted_) + size_of(out));
    result.out = permute("out", out.detach(), tokens_.to_input);
  }
  const int64_t middle = monotonic_ns();
  if (options_.backward) {
    const PhaseScope phase(timeline, Phase::kBackward);
    out.backward(permute("grad_out", inputs_["grad_out"], tokens_.to_block));
    if (first) {
      int64_t tensors = size_of(permuted_) + size_of(out);
      for (const auto& [name, tensor] : x) {
        if (tensor.defined()) tensors += size_of(tensor.grad());
      }
      backward_memory_ = beyond(*growth, tensors);
    }
    for (const auto& [input, gradient] : kGradients) {
      if (x[input].defined()) {
        result.gradients[gradient] = permute(gradient, x[input].grad(), tokens_.to_input);
      }
    }
  }
  attention_->settle();
  const int64_t end = monotonic_ns();
  timeline->set_recording(false);
  result.times = call_times(timeline->take(), middle - begin, options_.backward ? end - middle : 0);
  result.lse = at::empty(slot.lse.sizes(), slot.lse.options());
  permute_tokens(slot.lse.contiguous(), tokens_.to_input, options_.threads, result.lse);
  result.selection = slot.selection;
  result.statistics = slot.statistics;
  return result;
}

void AttentionJob::open_output() {
  using safetensors::ElementType;
  const int64_t batch = input_->batch(), tokens = layout_.tokens(), heads = input_->heads(),
                blocks = layout_.blocks();
  const std::vector<int64_t> shape = {batch, tokens, heads, input_->head_dim()};
  const ElementType type = safetensors::element_type_of(compute_);
  std::vector<safetensors::TensorSpec> tensors = {
      {"out", type, shape},
      {"lse",
       compute_ == DType::kF64 ? ElementType::kF64 : ElementType::kF32,
       {batch, heads, tokens}}};
  for (const auto& [input, gradient] : kGradients) {
    if (options_.backward && inputs_.contains(input)) tensors.push_back({gradient, type, shape});
  }
  if (options_.dump_selection) {
    const bool levels = spec_.method == parallel::MethodKind::kPsa;
    tensors.push_back({"selection",
                       levels ? ElementType::kI8 : ElementType::kBool,
                       {batch, heads, blocks, blocks}});
    tensors.push_back({"token_block", ElementType::kI32, {tokens}});
    tensors.push_back({"block_size", ElementType::kI32, {blocks}});
    if (dumps_kept()) tensors.push_back({"kept", ElementType::kBool, {batch, heads, tokens}});
  }
  const auto metadata = selection_metadata(method_name(job_), layout_);
  output_ = std::make_unique<OutputTensors>(
      options_.output, std::move(tensors), safetensors::Metadata(metadata.begin(), metadata.end()));
}

// Collective: a failure of rank 0 is everybody's.
void AttentionJob::write(const std::string& name, std::span<const std::byte> bytes) {
  run_on_all(world_, [&] {
    if (output_) output_->write(name, bytes);
  });
}

void AttentionJob::write_output(const CallResult& result) {
  const auto write_tensor = [&](const std::string& name, const at::Tensor& on_first) {
    write(name, output_ ? bytes_of(on_first) : std::span<const std::byte>());
  };
  write_tensor("out", gather_tokens(world_, layout_, shards_, result.out));
  at::Tensor lse = gather_tokens(world_, layout_, shards_, result.lse);
  if (lse.defined()) lse = lse.transpose(1, 2).contiguous();
  write_tensor("lse", lse);
  for (const auto& [name, gradient] : result.gradients) {
    write_tensor(name, gather_tokens(world_, layout_, shards_, gradient));
  }
  if (options_.dump_selection || !options_.draw.empty()) {
    const SelectionRecord record = gather_selection(result.selection);
    if (options_.dump_selection) {
      write("selection", std::as_bytes(std::span(record.selection)));
      const std::vector<int32_t> block_of = token_blocks(layout_), sizes = block_sizes(layout_);
      write("token_block", std::as_bytes(std::span(block_of)));
      write("block_size", std::as_bytes(std::span(sizes)));
      if (dumps_kept()) write("kept", std::as_bytes(std::span(record.kept)));
    }
    run_on_all(world_, [&] {
      if (output_ && !options_.draw.empty()) draw(record);
    });
  }
  run_on_all(world_, [&] {
    if (output_) output_->finish();
  });
}

SelectionRecord AttentionJob::gather_selection(const parallel::Selection& selection) {
  std::vector<SelectionPart> parts;
  std::vector<int64_t> selection_counts, kept_counts;
  for (int rank = 0; rank < world_.size(); ++rank) {
    parts.push_back(
        selection_part(shards_, rank, input_->batch(), input_->heads(), selection.head_order));
    selection_counts.push_back(parts.back().selection_bytes(layout_.blocks()));
    kept_counts.push_back(parts.back().kept_bytes());
  }
  const std::vector<uint8_t> selections =
      gather_bytes(world_, selection_bytes(selection, layout_, spec_), selection_counts);
  std::vector<uint8_t> kept;
  if (spec_.method == parallel::MethodKind::kBsa) {
    kept = gather_bytes(world_, kept_bytes(selection), kept_counts);
  }
  if (world_.rank() != 0) return {};
  return join_parts(layout_, parts, selections, kept);
}

void AttentionJob::draw(const SelectionRecord& record) const {
  const int head = options_.draw_head;
  PictureSubject subject{layout_, record.head(0, head)};
  if (!record.kept.empty()) {
    subject.kept = std::span(record.kept).subspan(head * layout_.tokens(), layout_.tokens());
  }
  subject.levels = spec_.method == parallel::MethodKind::kPsa;
  const auto selected = std::count_if(subject.selection.begin(), subject.selection.end(),
                                      [](uint8_t level) { return level > 0; });
  const parallel::Grid& grid = layout_.spec.grid;
  subject.title = fmt::format(
      "{}  {} x {} x {} tokens{}  {} blocks  head {}  {:.1f} % of the pairs selected",
      method_name(job_), grid.t, grid.h, grid.w,
      layout_.prefix_tokens() > 0 ? fmt::format(" + {}", layout_.prefix_tokens()) : "",
      layout_.blocks(), head,
      100.0 * static_cast<double>(selected) / static_cast<double>(subject.selection.size()));
  std::replace(subject.title.begin(), subject.title.end(), '_', ' ');
  subject.query_block = drawn_query_;
  media::write_png(options_.draw, draw_selection(subject));
}

std::string AttentionJob::memory_text() const {
  if (!forward_memory_) return "";
  const auto mib = [](int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); };
  std::string text = fmt::format("{:.1f} MiB forward", mib(*forward_memory_));
  if (backward_memory_) text += fmt::format(", {:.1f} MiB with backward", mib(*backward_memory_));
  return text + ", beyond inputs, output and gradients, at the peak of rank 0";
}

// Mean, smallest and largest of a layer's heads.
std::string range_of(const std::vector<double>& heads) {
  double sum = 0;
  for (const double share : heads) sum += share;
  const auto [low, high] = std::minmax_element(heads.begin(), heads.end());
  return fmt::format("{:.4f} ({:.4f} to {:.4f} by head)", sum / static_cast<double>(heads.size()),
                     *low, *high);
}

// Collective. Empty where there is one domain.
std::string AttentionJob::domain_text(const parallel::AttentionStatistics& statistics) {
  const int heads = static_cast<int>(input_->heads());
  const auto layers = [](const std::vector<kernels::Share>& shares) {
    return shares.empty() ? LayerHeadShares{} : LayerHeadShares{shares};
  };
  const LayerHeadShares coverage = layers(statistics.domain_coverage),
                        kept = layers(statistics.kept_mass);
  std::vector<double> sums;
  append_shares(coverage, sums);
  append_shares(kept, sums);
  world_.all_reduce(comm::Buffer::of(std::span(sums)), comm::ReduceOp::kSum).wait_host();
  std::span<const double> rest(sums);
  const auto covered = take_shares(static_cast<int>(coverage.size()), heads, rest);
  const auto mass = take_shares(static_cast<int>(kept.size()), heads, rest);
  if (covered.empty()) return {};
  std::string text = fmt::format("{}, of whose remote blocks they need {}", layout_.spec.domains,
                                 range_of(covered[0]));
  if (!mass.empty()) text += fmt::format("; kept mass {}", range_of(mass[0]));
  return text;
}

std::string AttentionJob::report(const CallResult& result, const CallTimes& times) {
  const double share = static_cast<double>(part_.own_heads() * part_.own_blocks) /
                       static_cast<double>(part_.heads * layout_.blocks());
  const json own = {{"forward", times.forward},
                    {"backward", times.backward},
                    {"density", result.statistics.density * share},
                    {"coverage", result.statistics.coverage},
                    {"pairs", sum_of(result.statistics.pairs)},
                    {"first_pairs", first_pairs_}};
  double density = 0, coverage = 0;
  std::vector<double> pairs, first_pairs;
  std::vector<CallTimes> ranks;
  for (const std::string& text : gather_text(world_, own.dump())) {
    const json rank = json::parse(text);
    density += rank["density"].get<double>();
    pairs.push_back(rank["pairs"].get<double>());
    first_pairs.push_back(rank["first_pairs"].get<double>());
    coverage += rank["coverage"].get<double>();
    ranks.push_back({rank["forward"].get<StageMs>(), rank["backward"].get<StageMs>()});
  }
  const std::string domains = domain_text(result.statistics);
  if (world_.rank() != 0) return {};
  const double all_executed = std::accumulate(pairs.begin(), pairs.end(), 0.0);
  const double forward_flops = 4.0 * static_cast<double>(input_->head_dim()) * all_executed;
  const double backward_flops = 2.5 * forward_flops;
  const double all_pairs = static_cast<double>(input_->batch() * input_->heads()) *
                           static_cast<double>(layout_.tokens()) *
                           static_cast<double>(layout_.tokens());
  const parallel::MeshShape& shape = mesh_.shape();
  const parallel::Grid& grid = layout_.spec.grid;
  std::string text =
      fmt::format("Attention: {}{}\n", method_name(job_),
                  replayed_.table ? fmt::format(", selection of {}", options_.selection) : "");
  const auto line = [&](const char* label, const std::string& value) {
    text += fmt::format("  {:<10}  {}\n", label, value);
  };
  line("tensors", fmt::format("B {}, L {}, H {}, D {}; computed in {}", input_->batch(),
                              layout_.tokens(), input_->heads(), input_->head_dim(),
                              config::Compute::Precision_Name(job_.compute().precision())));
  line("tokens", fmt::format("{} x {} x {} = {} of the video, {} of the prefix", grid.t, grid.h,
                             grid.w, grid.tokens(), layout_.prefix_tokens()));
  line("blocks",
       fmt::format("{} of at most {} tokens, order {}", layout_.blocks(), layout_.block_capacity(),
                   config::Attention::Order_Name(job_.attention().order())));
  line("ranks", fmt::format("{} = outer {} x ulysses {}, strategy {}, {} thread{} each",
                            shape.world(), shape.outer, shape.ulysses,
                            config::Parallel::Strategy_Name(job_.parallel().strategy()),
                            options_.threads, options_.threads == 1 ? "" : "s"));
  line("density", fmt::format("{:.4f} of the pairs of blocks, {:.4f} of the pairs of tokens",
                              density, all_executed / all_pairs));
  if (shape.outer > 1) {
    line("coverage", fmt::format("{:.4f} of the remote (head, block) pairs are needed by the ranks",
                                 coverage / shape.sequence()));
  }
  if (!domains.empty()) line("domains", domains);
  if (shape.sequence() > 1) {
    line("balance",
         fmt::format(
             "the busiest rank executes {:.3f} times the mean of the ranks{}", imbalance(pairs),
             options_.repeat > 0 ? fmt::format(", {:.3f} in the first call", imbalance(first_pairs))
                                 : ""));
  }
  line("FLOPs",
       fmt::format("{:.4g} forward{}", forward_flops,
                   options_.backward ? fmt::format(", {:.4g} backward", backward_flops) : ""));
  if (const auto memory = memory_text(); !memory.empty()) line("memory", memory);
  text += '\n' + stage_table(largest_times(ranks), forward_flops, backward_flops);
  text += options_.repeat > 0
              ? fmt::format("  Medians of {} calls after a warm-up", options_.repeat)
              : std::string("  One call without a warm-up (--repeat N: medians of N)");
  text += shape.world() > 1 ? "; every stage of the rank where it is longest.\n" : ".\n";
  return text;
}

}  // namespace

int heads_of_input(const std::string& path) {
  const int64_t heads = AttentionInput::open(path).heads();
  constexpr int64_t kMost = 1 << 16;
  if (heads > kMost) {
    throw InputError(fmt::format("{}: q: {} heads; legal: 1 to {}", path, heads, kMost));
  }
  return static_cast<int>(heads);
}

std::string run_attention(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                          const AttentionOptions& options) {
  SPROCKET_CHECK(world->options().timeline != nullptr, "the report needs a timeline");
  return run_on_mesh(std::move(world), mesh_shape(job), at::kCPU, [&](const parallel::Mesh& mesh) {
    return AttentionJob(job, mesh, options).run();
  });
}

}  // namespace sprocket::runtime
