#include "runtime/parity/parity_pass.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include "base/error.h"
#include "base/philox.h"
#include "parallel/tensor_buffer.h"
#include "runtime/train/network.h"
#include "runtime/train/optimizer.h"

namespace sprocket::runtime {
namespace {

constexpr uint64_t kParameters = 2;  // stream of RandomPurpose::kParityCheck
constexpr double kSmall = 0.02;

void fill_zero_tensors(models::ParameterStore& parameters, uint64_t seed) {
  for (int i = 0; i < parameters.size(); ++i) {
    const int64_t elements = parameters.spec(i).elements();
    at::Tensor values = parameters.flat_parameters().narrow(0, parameters.offset(i), elements);
    if (values.count_nonzero().item<int64_t>() > 0) continue;
    at::Tensor drawn = at::empty({elements}, at::kFloat);
    RandomStream(seed, kParameters, static_cast<uint64_t>(i), RandomPurpose::kParityCheck)
        .normal({drawn.data_ptr<float>(), static_cast<size_t>(elements)});
    values.copy_(drawn.mul_(kSmall));
  }
}

class Pass {
 public:
  Pass(const config::Job& job, const parallel::Mesh& mesh, const ParitySamples& samples,
       const ParityPassOptions& options)
      : mesh_(mesh),
        samples_(samples),
        options_(options),
        network_(job, mesh, options.threads, Network::Start::kFresh) {
    const auto replicas = static_cast<int>(samples.replicas.size());
    SPROCKET_CHECK(mesh.shape().data == 1 || mesh.shape().data == replicas,
                   "{} replicas on a data degree of {}", replicas, mesh.shape().data);
    fill_zero_tensors(network_.parameters(), job.training().seed());
  }

  ParityResults run() {
    const int replicas = static_cast<int>(samples_.replicas.size());
    const bool alone = mesh_.shape().data == 1;
    double loss = 0, density = 0;
    std::vector<at::Tensor> outputs;
    for (int replica = alone ? 0 : mesh_.coordinate().data;
         replica < (alone ? replicas : mesh_.coordinate().data + 1); ++replica) {
      const MicroBatch& batch = samples_.replicas[replica];
      const PassOutcome outcome = forward_backward(network_, batch, options_.attention_step,
                                                   samples_.samples(), imposed(replica));
      loss += outcome.loss;
      outputs.push_back(outcome.velocity_BLF.contiguous().cpu());
      keep_selections();
      density += density_share(batch);
    }
    ParityResults results;
    std::vector<double> sums{loss, density / replicas};
    mesh_.world().all_reduce(comm::Buffer::of(std::span(sums)), comm::ReduceOp::kSum).wait_host();
    results.density = sums[1];
    if (looks_at_the_data()) {
      results.selections =
          mesh_.world().size() == 1 ? selections_ : gather_selections(mesh_, selections_.front());
    }
    const at::Tensor output = gather_outputs(outputs);
    sum_gradients(network_.parameters(), mesh_.tensors().world());
    if (mesh_.world().rank() != 0) return results;
    results.tensors.push_back({"loss", {}, at::tensor(std::vector<double>{sums[0]}, at::kDouble)});
    results.tensors.push_back({"output", output.sizes().vec(), output.flatten()});
    add_gradients(results);
    return results;
  }

 private:
  // [samples, tokens, features] in block order, on rank 0.
  at::Tensor gather_outputs(const std::vector<at::Tensor>& own) {
    comm::Communicator& world = mesh_.world();
    const at::Tensor sent = at::cat(own, 0).contiguous();
    const MicroBatch& batch = samples_.replicas.front();
    const auto tokens_of = [&](int rank) {
      return network_.tokens_of(batch.shape, rank % mesh_.shape().sequence()).video;
    };
    const int64_t features = sent.size(2);
    std::vector<comm::Segment> receive;
    int64_t total = 0;
    for (int rank = 0; world.rank() == 0 && rank < world.size(); ++rank) {
      const int64_t count = sent.size(0) * tokens_of(rank) * features;
      receive.push_back({rank, total, count});
      total += count;
    }
    const at::Tensor received = at::empty({total}, sent.options());
    const comm::Segment send{0, 0, sent.numel()};
    world
        .exchange(parallel::buffer_of(sent), std::span(&send, 1), parallel::buffer_of(received),
                  receive)
        .wait_host();
    if (world.rank() != 0) return {};
    std::vector<at::Tensor> replicas;
    for (int first = 0; first < world.size(); first += mesh_.shape().sequence()) {
      std::vector<at::Tensor> parts;
      for (int rank = first; rank < first + mesh_.shape().sequence(); ++rank) {
        parts.push_back(received.narrow(0, receive[rank].offset, receive[rank].count)
                            .view({sent.size(0), tokens_of(rank), features}));
      }
      replicas.push_back(at::cat(parts, 1));
    }
    return at::cat(replicas, 0);
  }

  void add_gradients(ParityResults& results) {
    const models::ParameterStore& parameters = network_.parameters();
    const at::Tensor gradients = parameters.flat_gradients().cpu();
    for (int i = 0; i < parameters.size(); ++i) {
      const models::ParameterSpec& spec = parameters.spec(i);
      results.tensors.push_back({"gradient of " + spec.name, spec.shape,
                                 gradients.narrow(0, parameters.offset(i), spec.elements())});
    }
  }

  bool looks_at_the_data() const {
    const config::Attention::Method method = network_.job().attention().method();
    return method != config::Attention::DENSE && method != config::Attention::SLIDING_TILE;
  }

  std::span<const parallel::Selection> imposed(int replica) const {
    if (options_.selections == nullptr || options_.selections->empty()) return {};
    SPROCKET_CHECK_EQ(mesh_.world().size(), 1);
    return (*options_.selections)[replica];
  }

  void keep_selections() {
    LayerSelections& layers = selections_.emplace_back();
    for (const parallel::AttentionSlot& slot : network_.slots()) layers.push_back(slot.selection);
  }

  // This rank's share of the mean density over layers, heads and query blocks.
  double density_share(const MicroBatch& batch) {
    const double blocks = network_.layout(batch.shape).blocks();
    double sum = 0;
    for (const parallel::AttentionSlot& slot : network_.slots()) {
      sum += slot.statistics.density * slot.selection.table->query_blocks / blocks /
             mesh_.shape().ulysses;
    }
    return sum / static_cast<double>(network_.slots().size());
  }

  const parallel::Mesh& mesh_;
  const ParitySamples& samples_;
  const ParityPassOptions& options_;
  Network network_;
  std::vector<LayerSelections> selections_;  // of the own replicas, this rank's parts
};

}  // namespace

const ParityTensor& ParityResults::at(const std::string& name) const {
  for (const ParityTensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  throw InternalError(fmt::format("no tensor of the pass is called {}", name));
}

ParityResults compute_parity_pass(const config::Job& job, const parallel::Mesh& mesh,
                                  const ParitySamples& samples, const ParityPassOptions& options) {
  return Pass(job, mesh, samples, options).run();
}

}  // namespace sprocket::runtime
