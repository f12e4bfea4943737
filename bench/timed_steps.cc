#include "bench/timed_steps.h"

#include <sys/resource.h>

#include <algorithm>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/randn.h>

#include "base/timeline.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/network.h"
#include "runtime/train/optimizer.h"

namespace sprocket::bench {
namespace {

double waited_ms(const std::vector<Interval>& intervals) {
  double sum = 0;
  for (const Interval& interval : intervals) {
    if (interval.activity == Activity::kCommunicationWait) {
      sum += static_cast<double>(interval.end_ns - interval.begin_ns) / 1e6;
    }
  }
  return sum;
}

// One number of the weights comes to the host, after everything that was enqueued before.
void wait_for(const at::Tensor& weights) { weights.narrow(0, 0, 1).item<float>(); }

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

long peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

TimedSteps time_steps(const config::Job& job, const parallel::Mesh& mesh, int threads, int t, int h,
                      int w, int steps) {
  runtime::Network network(job, mesh, threads, runtime::Network::Start::kFresh);
  runtime::Optimizer optimizer(job.training().optimizer(), network.parameters(), threads);
  TimedSteps timed;
  timed.tokens = int64_t{t} * h * w;
  timed.parameters = network.parameters().elements();
  timed.rss_before_mib = peak_rss_mib();

  const data::LatentShape shape{16, t, 2 * h, 2 * w};
  at::manual_seed(0);  // the same on all ranks
  const at::Tensor video = at::randn({1, 16, t, 2 * h, 2 * w}), noise = at::randn(video.sizes());
  const at::Tensor text = at::randn({1, job.model().text_tokens(), job.model().text_dim()});
  const at::Tensor timestep = at::full({1}, 500.0);
  const parallel::AttentionSpec spec = runtime::attention_spec(job.attention(), 0);
  for (int step = 0; step <= steps; ++step) {
    mesh.timeline()->take();
    mesh.timeline()->set_recording(true);
    const int64_t start = monotonic_ns();
    network.parameters().zero_gradients();
    const at::Tensor patches =
        network.own_patches(0.5 * video + 0.5 * noise, shape, models::FeatureOrder::kChannelFirst);
    const at::Tensor target = network.own_patches(noise - video, shape, network.output_order());
    const at::Tensor velocity = network.velocity(patches, timestep, text, shape, spec);
    at::mse_loss(velocity, target, at::Reduction::Sum)
        .div(static_cast<double>(shape.elements()))
        .backward();
    network.settle(shape);
    runtime::sum_gradients(network.parameters(), mesh.tensors().world());
    optimizer.update(1e-4, optimizer.gradient_norm());
    wait_for(network.parameters().flat_parameters());
    const int64_t end = monotonic_ns();
    if (step == 0) continue;
    timed.ms.push_back(static_cast<double>(end - start) / 1e6);
    timed.waits_ms.push_back(waited_ms(mesh.timeline()->take()));
  }
  timed.density = 0;
  for (const parallel::AttentionSlot& slot : network.slots()) {
    timed.density += slot.statistics.density / static_cast<double>(network.layers());
  }
  timed.flops = runtime::step_flops(job, 1, timed.tokens, timed.density);
  return timed;
}

}  // namespace sprocket::bench
