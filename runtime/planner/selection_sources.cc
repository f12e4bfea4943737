#include "runtime/planner/selection_sources.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "base/error.h"
#include "kernels/pyramid.h"
#include "models/safetensors/safetensors.h"
#include "parallel/attention/attention_method.h"
#include "parallel/attention/domain_imports.h"
#include "parallel/comm/fake_backend.h"
#include "runtime/attention/selection_file.h"
#include "runtime/plan/job_specs.h"

namespace sprocket::runtime {
namespace {

using parallel::MethodKind;

std::shared_ptr<const kernels::SegmentTable> recorded(const config::Job& job,
                                                      const parallel::TokenLayout& layout,
                                                      const parallel::AttentionSpec& spec,
                                                      const std::string& path) {
  const safetensors::File file = safetensors::File::open(path);
  const safetensors::TensorInfo* tensor = file.find("selection");
  const int64_t batch = tensor != nullptr && tensor->shape.size() == 4 ? tensor->shape[0] : 1;
  const int64_t heads = job.model().heads();
  const SelectionFile selection = SelectionFile::open(
      path, config::Attention::Method_Name(job.attention().method()), layout, batch, heads);
  const SelectionPart whole =
      selection_part(parallel::make_shard_plan(layout, {}), 0, batch, heads);
  return selection.part(whole, layout, spec).table;
}

// The method's own table, which needs no data.
std::shared_ptr<const kernels::SegmentTable> sliding_tile(const parallel::TokenLayout& layout,
                                                          const parallel::AttentionSpec& spec,
                                                          int heads) {
  const auto group = comm::make_fake_world(0, 1);
  const parallel::OuterShards blocks{layout.block_offsets, {0, layout.blocks()}, 0, {}};
  const parallel::MethodContext context{layout, blocks, {*group, *group}, heads, {}, 0, 1, 1};
  const at::Tensor shape = at::empty({1, 0, heads, 1});
  return parallel::make_method(context, spec)->prepare({shape, shape, shape, {}, {}}, {}).table;
}

// Keys of blocks, as the segments of tokens that tables of the method refer to.
kernels::SegmentTable with_segments(kernels::SegmentTable table,
                                    const parallel::TokenLayout& layout,
                                    const parallel::AttentionSpec& spec) {
  const kernels::PyramidLayout pyramid =
      kernels::make_pyramid_layout(layout.block_offsets, spec.widths());
  table.kv_blocks = pyramid.segments();
  for (int32_t& id : table.kv_block) id = pyramid.segments_of(id, 1).first;
  return table;
}

std::string coverage_text(const parallel::BudgetSpec& budget) {
  std::string text;
  for (const Decimal& share : budget.max_coverage) {
    text += (text.empty() ? "" : ", ") + share.to_string();
  }
  return text;
}

}  // namespace

void check_figures(double density, double coverage) {
  const auto check = [](const char* flag, double value, bool legal, const char* rule) {
    if (!legal) throw ConfigError(fmt::format("{}: {}; legal: {}", flag, value, rule));
  };
  check("--density", density, density > 0 && density <= 1, "0 < density <= 1");
  check("--coverage", coverage, coverage >= 0 && coverage <= 1, "0 <= coverage <= 1");
}

Decimal stated_density(const parallel::AttentionSpec& spec) {
  const Decimal one = Decimal::ratio(1, 0);
  switch (spec.method) {
    case MethodKind::kDense:
    case MethodKind::kSlidingTile:
      return one;
    case MethodKind::kVsa:
      return one - spec.vsa.sparsity;
    case MethodKind::kBsa:
      return one - spec.bsa.threshold.sparsity;
    case MethodKind::kPsa:
      return spec.psa.levels.rule == kernels::LevelRule::kQuota ? spec.psa.levels.quotas.front()
                                                                : Decimal::ratio(2, 1);
    case MethodKind::kAsa:
      return spec.asa.selection.most;
  }
  throw InternalError("a method states no density");
}

SelectionSource selection_source(const config::Job& job, const parallel::TokenLayout& layout,
                                 int64_t step, const SelectionOptions& options) {
  const parallel::AttentionSpec spec = attention_spec(job.attention(), step);
  const int heads = job.model().heads();
  check_figures(options.density.value_or(1), options.coverage.value_or(0));
  SelectionSource source;
  if (!options.file.empty()) {
    source.table = recorded(job, layout, spec, options.file);
    if (spec.widths().size() == 1 && layout.prefix_blocks() == 0) source.unbudgeted = source.table;
    source.description = fmt::format("recorded in {}", options.file);
    return source;
  }
  if (options.density && options.coverage) {
    source.density = *options.density;
    source.coverage = *options.coverage;
    source.description =
        fmt::format("density {:g} and coverage {:g}, as given", source.density, source.coverage);
    return source;
  }
  if (spec.method == MethodKind::kDense && !options.density) {
    source.description = "every pair";
    return source;
  }
  if (spec.method == MethodKind::kSlidingTile && !options.density) {
    source.table = sliding_tile(layout, spec, heads);
    if (layout.prefix_blocks() == 0) source.unbudgeted = source.table;
    source.description = "the method's windows";
    return source;
  }
  const Decimal density =
      options.density ? Decimal::from_double(*options.density) : stated_density(spec);
  if (density == Decimal::ratio(1, 0)) {
    source.description = "every pair";
    return source;
  }
  const parallel::TokenLayout video = without_prefix(layout);
  const auto budget = parallel::domain_budget(video, spec.budget);
  const auto make = [&](const std::optional<kernels::DomainBudget>& limit) {
    return std::make_shared<kernels::SegmentTable>(
        synthetic_selection(video, heads, density, limit, options.synthetic));
  };
  source.unbudgeted = make(std::nullopt);
  source.table = std::make_shared<kernels::SegmentTable>(with_segments(
      with_prefix(budget ? *make(budget) : *source.unbudgeted, layout.prefix_blocks()), layout,
      spec));
  source.description = fmt::format(
      "synthetic{}, density {}, width {:g}{}", layout.prefix_blocks() > 0 ? " in the video" : "",
      density.to_string(), options.synthetic.width,
      budget ? fmt::format(", budget {} of {} domains", coverage_text(spec.budget),
                           layout.spec.domains)
             : "");
  return source;
}

}  // namespace sprocket::runtime
