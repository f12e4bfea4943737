#include "base/error.h"
#include "configs/schedule.h"
#include "runtime/plan/job_specs.h"

namespace sprocket::runtime {
namespace {

parallel::MethodKind method_of(config::Attention::Method method) {
  switch (method) {
    case config::Attention::DENSE:
      return parallel::MethodKind::kDense;
    case config::Attention::VSA:
      return parallel::MethodKind::kVsa;
    case config::Attention::BSA:
      return parallel::MethodKind::kBsa;
    case config::Attention::PSA:
      return parallel::MethodKind::kPsa;
    case config::Attention::ASA:
      return parallel::MethodKind::kAsa;
    case config::Attention::SLIDING_TILE:
      return parallel::MethodKind::kSlidingTile;
  }
  throw InternalError("attention.method has no counterpart");
}

parallel::CoarseBranch coarse_of(config::Vsa::Coarse coarse) {
  switch (coarse) {
    case config::Vsa::GATED:
      return parallel::CoarseBranch::kGated;
    case config::Vsa::ADD:
      return parallel::CoarseBranch::kAdd;
    case config::Vsa::NONE:
      return parallel::CoarseBranch::kNone;
  }
  throw InternalError("attention.vsa.coarse has no counterpart");
}

kernels::PrefixRule prefix_of(config::Vsa::Prefix prefix) {
  switch (prefix) {
    case config::Vsa::EXEMPT:
      return kernels::PrefixRule::kExempt;
    case config::Vsa::COMPETE:
      return kernels::PrefixRule::kCompete;
  }
  throw InternalError("attention.vsa.prefix has no counterpart");
}

kernels::BudgetForm form_of(config::Attention::BudgetForm form) {
  switch (form) {
    case config::Attention::FLAT:
      return kernels::BudgetForm::kFlat;
    case config::Attention::TREE:
      return kernels::BudgetForm::kTree;
  }
  throw InternalError("attention.budget_form has no counterpart");
}

parallel::BudgetSpec budget_spec(const config::Attention& attention, int64_t step) {
  parallel::BudgetSpec spec{form_of(attention.budget_form()), {}, attention.budget_head_group()};
  for (const config::Schedule& schedule : attention.max_coverage()) {
    spec.max_coverage.push_back(config::schedule_value(schedule, step));
  }
  return spec;
}

parallel::VsaSpec vsa_spec(const config::Vsa& vsa, int64_t step) {
  parallel::VsaSpec spec;
  spec.sparsity = config::schedule_value(vsa.sparsity(), step);
  spec.coarse = coarse_of(vsa.coarse());
  spec.fine_gate = vsa.fine_gate();
  if (vsa.score() == config::Vsa::SUBBLOCK) {
    spec.query_parts = vsa.query_parts();
    spec.key_parts = vsa.key_parts();
  }
  spec.prefix = prefix_of(vsa.prefix());
  return spec;
}

kernels::PruningCentre centre_of(config::Bsa::Centre centre) {
  switch (centre) {
    case config::Bsa::MIDDLE:
      return kernels::PruningCentre::kPackedMiddle;
    case config::Bsa::GEOMETRIC:
      return kernels::PruningCentre::kGeometric;
  }
  throw InternalError("attention.bsa.centre has no counterpart");
}

kernels::PruningRecovery recovery_of(config::Bsa::Recover recover) {
  switch (recover) {
    case config::Bsa::NEAREST:
      return kernels::PruningRecovery::kNearestPosition;
    case config::Bsa::NEAREST_PACKED:
      return kernels::PruningRecovery::kNearestIndex;
  }
  throw InternalError("attention.bsa.recover has no counterpart");
}

kernels::ThresholdRule rule_of(config::Bsa::Rule rule) {
  switch (rule) {
    case config::Bsa::VALUE:
      return kernels::ThresholdRule::kValue;
    case config::Bsa::MASS:
      return kernels::ThresholdRule::kMass;
  }
  throw InternalError("attention.bsa.rule has no counterpart");
}

parallel::BsaSpec bsa_spec(const config::Bsa& bsa, int64_t step) {
  parallel::BsaSpec spec;
  spec.pruning.keep_ratio = config::schedule_value(bsa.keep_ratio(), step);
  spec.pruning.centre = centre_of(bsa.centre());
  spec.pruning.window = {bsa.window().t(), bsa.window().h(), bsa.window().w()};
  spec.pruning.recovery = recovery_of(bsa.recover());
  if (bsa.redundancy_threshold() < 1) {
    spec.pruning.redundancy_threshold = bsa.redundancy_threshold();
    spec.pruning.redundant_keep_ratio = Decimal::from_double(bsa.redundant_keep_ratio());
  }
  spec.threshold.rule = rule_of(bsa.rule());
  spec.threshold.sparsity = config::schedule_value(bsa.sparsity(), step);
  spec.threshold.tau = bsa.mass();
  spec.threshold.min_blocks_value = spec.threshold.min_blocks = bsa.min_blocks();
  return spec;
}

kernels::SampledScore score_of(config::Psa::Score score) {
  switch (score) {
    case config::Psa::SOFTMAX:
      return kernels::SampledScore::kSoftmax;
    case config::Psa::EXP_MINUS_MAX:
      return kernels::SampledScore::kExpMinusMax;
  }
  throw InternalError("attention.psa.score has no counterpart");
}

kernels::LevelRule rule_of(config::Psa::Rule rule) {
  switch (rule) {
    case config::Psa::PAPER:
      return kernels::LevelRule::kPaper;
    case config::Psa::COVER:
      return kernels::LevelRule::kCover;
    case config::Psa::QUOTA:
      return kernels::LevelRule::kQuota;
  }
  throw InternalError("attention.psa.rule has no counterpart");
}

std::vector<Decimal> decimals_of(const google::protobuf::RepeatedField<double>& numbers) {
  std::vector<Decimal> decimals;
  for (const double number : numbers) decimals.push_back(Decimal::from_double(number));
  return decimals;
}

parallel::PsaSpec psa_spec(const config::Psa& psa, int64_t step) {
  parallel::PsaSpec spec;
  spec.sampling = {psa.samples(), psa.seed(), step};
  spec.score = score_of(psa.score());
  spec.levels.rule = rule_of(psa.rule());
  spec.levels.thresholds = decimals_of(psa.threshold());
  spec.levels.least_finest = Decimal::from_double(psa.min_full());
  spec.levels.quotas = decimals_of(psa.quota());
  if (psa.similarity_cap())
    spec.similarity.assign(psa.similarity().begin(), psa.similarity().end());
  return spec;
}

parallel::AsaSpec asa_spec(const config::Asa& asa, int64_t step) {
  parallel::AsaSpec spec;
  spec.sampling = {asa.samples(), asa.seed(), step};
  spec.score = score_of(asa.score());
  spec.selection.mass = Decimal::from_double(asa.mass());
  spec.selection.include_crossing = asa.include_crossing();
  spec.selection.least = Decimal::from_double(asa.min_keep());
  spec.selection.most = Decimal::from_double(asa.max_keep());
  spec.global_width = asa.global_width();
  spec.exclude_selected = asa.exclude_selected();
  return spec;
}

}  // namespace

parallel::AttentionSpec attention_spec(const config::Attention& attention, int64_t step) {
  parallel::AttentionSpec spec;
  spec.method = method_of(attention.method());
  spec.budget = budget_spec(attention, step);
  switch (spec.method) {
    case parallel::MethodKind::kDense:
      break;
    case parallel::MethodKind::kVsa:
      spec.vsa = vsa_spec(attention.vsa(), step);
      break;
    case parallel::MethodKind::kBsa:
      spec.bsa = bsa_spec(attention.bsa(), step);
      break;
    case parallel::MethodKind::kPsa:
      spec.psa = psa_spec(attention.psa(), step);
      break;
    case parallel::MethodKind::kAsa:
      spec.asa = asa_spec(attention.asa(), step);
      break;
    case parallel::MethodKind::kSlidingTile: {
      const config::Window& window = attention.sliding_tile().window();
      spec.sliding_tile.window = {window.t(), window.h(), window.w()};
      break;
    }
  }
  return spec;
}

parallel::AttentionSpec sampling_attention_spec(const config::Attention& attention, int64_t step,
                                                int index, int count) {
  if (attention.method() == config::Attention::PSA &&
      index < Decimal::from_double(attention.psa().dense_sampling()).floor_times(count)) {
    return {};
  }
  return attention_spec(attention, step);
}

}  // namespace sprocket::runtime
