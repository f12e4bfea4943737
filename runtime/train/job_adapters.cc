#include "runtime/train/job_adapters.h"

#include <xxhash.h>

#include "base/error.h"
#include "models/tensor_names.h"

namespace sprocket::runtime {
namespace {

std::vector<std::string> default_targets(config::Model::Family family) {
  switch (family) {
    case config::Model::WAN:
      return {"blocks.*.self_attn.q",  "blocks.*.self_attn.k",  "blocks.*.self_attn.v",
              "blocks.*.self_attn.o",  "blocks.*.cross_attn.q", "blocks.*.cross_attn.k",
              "blocks.*.cross_attn.v", "blocks.*.cross_attn.o", "blocks.*.ffn.0",
              "blocks.*.ffn.2"};
    case config::Model::COGVIDEOX:
      return {"transformer_blocks.*.attn1.to_q",    "transformer_blocks.*.attn1.to_k",
              "transformer_blocks.*.attn1.to_v",    "transformer_blocks.*.attn1.to_out.0",
              "transformer_blocks.*.ff.net.0.proj", "transformer_blocks.*.ff.net.2"};
  }
  throw InternalError("model.family has no counterpart");
}

}  // namespace

bool trains_adapters(const config::Job& job) { return job.training().lora().rank() > 0; }

models::LoraSpec lora_spec(const config::Job& job) {
  const config::Lora& lora = job.training().lora();
  SPROCKET_CHECK(lora.rank() > 0, "the job trains no adapters");
  models::LoraSpec spec;
  spec.rank = lora.rank();
  spec.alpha = lora.alpha() > 0 ? lora.alpha() : lora.rank();
  spec.targets.assign(lora.target().begin(), lora.target().end());
  if (spec.targets.empty()) spec.targets = default_targets(job.model().family());
  return spec;
}

models::NameInFile diffusers_names(const config::Job& job) {
  switch (job.model().family()) {
    case config::Model::WAN:
      return [](const std::string& official) {
        const auto name = models::to_diffusers(official);
        SPROCKET_CHECK(name.has_value(), "{} is no Wan tensor", official);
        return *name;
      };
    case config::Model::COGVIDEOX:
      return [](const std::string& name) { return name; };
  }
  throw InternalError("model.family has no counterpart");
}

uint64_t frozen_weights_hash(const models::ParameterStore& weights) {
  const at::Tensor host = weights.flat_parameters().cpu();
  const auto* const bytes = static_cast<const std::byte*>(host.const_data_ptr());
  uint64_t hash = 0;
  for (int i = 0; i < weights.size(); ++i) {
    const models::ParameterSpec& spec = weights.spec(i);
    if (models::is_of_gate(spec.name)) continue;
    hash = XXH3_64bits_withSeed(bytes + weights.offset(i) * host.element_size(),
                                static_cast<size_t>(spec.elements() * host.element_size()), hash);
  }
  return hash;
}

void check_frozen_weights(uint64_t found, uint64_t expected, const std::string& checkpoint,
                          const std::string& weights_path) {
  if (found == expected) return;
  throw InputError(fmt::format(
      "{}: its adapters were trained on other weights than those of {} (XXH3 {:016x}, expected "
      "{:016x}); set model.weights, or distillation.teacher.weights, to what they were trained on",
      checkpoint, weights_path.empty() ? "random initialisation" : weights_path, found, expected));
}

}  // namespace sprocket::runtime
