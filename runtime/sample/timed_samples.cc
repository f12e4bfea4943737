#include "runtime/sample/timed_samples.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/timeline.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/sample/noise_schedule.h"
#include "runtime/sample/sampler.h"

namespace sprocket::runtime {
namespace {

using nlohmann::json;

double mean_density(const std::vector<parallel::AttentionSlot>& slots) {
  double sum = 0;
  for (const parallel::AttentionSlot& slot : slots) sum += slot.statistics.density;
  return sum / static_cast<double>(slots.size());
}

json to_json(size_t task, const TimedSample& sample) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(sample.latent.data());
  const size_t count = sample.latent.size() * sizeof(float);
  return {task, sample.seconds, sample.density, json::binary({bytes, bytes + count})};
}

TimedSample sample_of(const json& row) {
  const auto& bytes = row.at(3).get_binary();
  TimedSample sample{std::vector<float>(bytes.size() / sizeof(float)), row.at(1), row.at(2)};
  std::memcpy(sample.latent.data(), bytes.data(), bytes.size());
  return sample;
}

}  // namespace

std::vector<TimedSample> make_timed_samples(Network& network, const config::Sampling& sampling,
                                            const std::vector<SampleTask>& tasks, int64_t step,
                                            const SampleWatch& watch) {
  const parallel::Mesh& mesh = network.mesh();
  const int steps = sampling_steps(sampling);
  SampleCount count(mesh, sampling, tasks.size(), watch);
  json made = json::array();
  for (size_t i = mesh.coordinate().data; i < tasks.size(); i += mesh.shape().data) {
    // The weights were trained with the attention of the last step done.
    const SampleRequest request{
        tasks[i].shape,   tasks[i].text, sampling.seed(), i, std::max<int64_t>(step - 1, 0),
        tasks[i].negative};
    const bool first = made.empty();
    if (first) sample_latent(network, sampling, request, {{}, {}, [] { return true; }});
    count.begin();
    const int64_t start_ns = monotonic_ns();
    double density = 0;
    const auto after = [&](int evaluations) {
      density += mean_density(network.slots()) / steps;
      count.evaluated(i, evaluations);
    };
    TimedSample sample;
    sample.latent = sample_latent(network, sampling, request, {{}, after, {}});
    sample.seconds = 1e-9 * static_cast<double>(monotonic_ns() - start_ns);
    mesh.sequence()
        .all_reduce(comm::Buffer::of(std::span(&density, 1)), comm::ReduceOp::kSum)
        .wait_host();
    sample.density = density / mesh.sequence().size();
    made.push_back(to_json(i, sample));
  }
  if (mesh.sequence().rank() != 0) made.clear();
  const std::vector<uint8_t> packed = json::to_cbor(made);
  const auto lists = gather_text(mesh.world(), {packed.begin(), packed.end()});
  if (mesh.world().rank() != 0) return {};
  std::vector<TimedSample> samples(tasks.size());
  for (const std::string& list : lists) {
    for (const json& row : json::from_cbor(list)) samples[row.at(0)] = sample_of(row);
  }
  return samples;
}

}  // namespace sprocket::runtime
