#include "runtime/train/frozen_weights.h"

#include "configs/attention_rules.h"
#include "configs/roles.h"
#include "runtime/train/job_model.h"

namespace sprocket::runtime {

FrozenWeights::FrozenWeights(const config::Job& job) {
  bool coarse = false, fine = false;
  for (const auto role : {config::NetworkRole::kStudent, config::NetworkRole::kTeacher,
                          config::NetworkRole::kFakeScore}) {
    const config::Attention attention = config::role_job(job, role).attention();
    coarse |= config::has_coarse_gate(attention);
    fine |= config::has_fine_gate(attention);
  }
  if (!coarse && !fine) return;
  widest_.set_method(config::Attention::VSA);
  widest_.mutable_vsa()->set_coarse(coarse ? config::Vsa::GATED : config::Vsa::NONE);
  widest_.mutable_vsa()->set_fine_gate(fine);
}

std::shared_ptr<models::ParameterStore> FrozenWeights::of(const config::Job& own,
                                                          const parallel::Mesh& mesh) {
  std::shared_ptr<models::ParameterStore>& weights = by_path_[own.model().weights()];
  if (weights) return weights;
  config::Job widest = own;
  *widest.mutable_attention() = widest_;
  auto read = make_parameters(widest, mesh.device(), models::ParameterStore::Use::kFrozen);
  start_parameters(widest, *read);
  weights = std::move(read);
  return weights;
}

}  // namespace sprocket::runtime
