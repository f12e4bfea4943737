#include "runtime/recording/job_header.h"

#include <google/protobuf/text_format.h>

#include <xxhash.h>

#include <fmt/format.h>

#include "base/host_name.h"
#include "configs/defaults.h"
#include "parallel/device/device_memory.h"
#include "parallel/token_layout.h"
#include "runtime/data/file_hash.h"
#include "runtime/metrics/memory.h"
#include "runtime/plan/job_specs.h"

namespace sprocket::runtime {
namespace {

std::string title(const config::Job& job, const config::LatentShape& shape,
                  const std::string& kind) {
  const int64_t tokens = parallel::make_token_layout(token_layout_spec(job, shape)).tokens();
  const config::Parallel& parallel = job.parallel();
  std::string text = fmt::format(
      "{}: {} layers of {}, {} heads, {} tokens, {}, {}, data {} x outer {} x ulysses {}", kind,
      job.model().layers(), job.model().dim(), job.model().heads(), tokens,
      config::Attention::Method_Name(job.attention().method()),
      config::Compute::Precision_Name(job.compute().precision()), parallel.data(), parallel.outer(),
      parallel.ulysses());
  if (parallel.outer() > 1) {
    text += fmt::format(", {}", config::Parallel::Strategy_Name(parallel.strategy()));
  }
  return text;
}

}  // namespace

config::LatentShape latent_extents(const data::LatentShape& shape) {
  return {static_cast<int>(shape.c), static_cast<int>(shape.t), static_cast<int>(shape.h),
          static_cast<int>(shape.w)};
}

std::string job_identity(const config::Job& job) {
  config::Job same = job;
  same.clear_output();
  same.clear_profile();
  same.mutable_model()->clear_weights();
  same.mutable_data()->clear_path();
  same.mutable_data()->clear_seed();
  same.mutable_training()->clear_steps();
  same.mutable_training()->clear_seed();
  same.mutable_training()->clear_validation();
  same.mutable_sampling()->clear_seed();
  same.mutable_sampling()->clear_prompt();
  std::string text;
  google::protobuf::TextFormat::PrintToString(same, &text);
  return data::hash_text(XXH3_64bits(text.data(), text.size()));
}

profile::events::Header job_header(const config::Job& job, const config::LatentShape& shape,
                                   const parallel::Mesh& mesh, const HeaderFacts& facts) {
  profile::events::Header header;
  header.set_program_version(SPROCKET_VERSION);
  header.set_rank(mesh.world().rank());
  header.set_world(mesh.world().size());
  header.set_data(mesh.shape().data);
  header.set_outer(mesh.shape().outer);
  header.set_ulysses(mesh.shape().ulysses);
  if (mesh.shape().outer > 1) {
    header.set_strategy(config::Parallel::Strategy_Name(job.parallel().strategy()));
  }
  header.set_host(own_host_name());
  header.set_device(config::Compute::Device_Name(job.compute().device()));
  header.set_threads(facts.threads);
  header.set_job_kind(facts.kind);
  header.set_job_title(title(job, shape, facts.kind));
  header.set_job_description(config::to_text(job));
  header.set_job_identity(job_identity(job));
  header.set_first_step(facts.first_step);
  header.set_asked_steps(facts.asked_steps);
  header.set_heads(job.model().heads());
  return header;
}

profile::events::End memory_use(const std::set<const models::ParameterStore*>& stores,
                                const at::Device& device, int64_t moments_bytes) {
  const auto bytes = [](const at::Tensor& tensor) {
    return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
  };
  int64_t parameters = 0, gradients = 0;
  for (const models::ParameterStore* store : stores) {
    parameters += bytes(store->flat_parameters()) + bytes(store->flat_copies());
    gradients += bytes(store->flat_gradients());
  }
  profile::events::End use;
  use.set_peak_bytes(peak_memory_bytes(device));
  if (!device.is_cpu()) use.set_tensors_peak_bytes(parallel::device_memory(device).peak_allocated);
  use.set_parameters_bytes(parameters);
  use.set_gradients_bytes(gradients);
  use.set_moments_bytes(moments_bytes);
  return use;
}

}  // namespace sprocket::runtime
