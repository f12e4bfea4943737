// Runs the phases of a recipe: gradients over micro-batches and ranks, what must not be updated,
// the updates. It knows networks and phases, no equations.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "configs/job.pb.h"
#include "models/parameter_store.h"
#include "parallel/comm/communicator.h"
#include "runtime/distill/recipe.h"
#include "runtime/train/ema.h"
#include "runtime/train/optimizer.h"

namespace sprocket::runtime {

// What of a network is trained. `ema` may be null. All must outlive the distiller.
struct TrainedNetwork {
  models::ParameterStore& parameters;
  Optimizer& optimizer;
  config::Optimizer options;
  Ema* ema = nullptr;
};

struct PhaseOutcome {
  std::string name;
  double loss = 0;           // mean over the samples of the step; the same on all ranks
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  std::optional<double> score_gap;  // as loss, of a phase that has one
  double seconds = 0;               // of this rank
  bool finite = true;               // loss and gradient; otherwise nothing was updated
  bool outlier = false;             // the loss was above PhaseSpec::skip_above: nothing was updated
  bool updated() const { return finite && !outlier; }
};

struct DistillerOptions {
  int64_t steps = 1;         // of the job, for learning rates
  int64_t global_batch = 1;  // samples of a step
  Timeline* timeline = nullptr;
};

class Distiller {
 public:
  // replicas: the host communicator of the ranks that hold the same tokens of other samples. world:
  // the communicator of gradients (their device's memory).
  Distiller(const Networks& networks, std::unique_ptr<Recipe> recipe, TrainedNetwork student,
            TrainedNetwork fake_score, comm::Communicator& replicas, comm::Communicator& world,
            const DistillerOptions& options);

  // One step on this rank's micro-batches. after_pass is called after every backward, with the
  // network that it was of. Collective over the world.
  std::vector<PhaseOutcome> step(int64_t step, std::span<Scene> scenes,
                                 const std::function<void(config::NetworkRole)>& after_pass = {});

 private:
  Denoiser& network(config::NetworkRole role) const;
  const TrainedNetwork& trained(config::NetworkRole role) const;
  // This rank's samples' shares of the step's means.
  struct Means {
    double loss = 0, score_gap = 0;
    bool has_gap = false;
  };
  Means gradients(size_t phase, const PhaseSpec& spec, std::span<Scene> scenes,
                  const std::function<void(config::NetworkRole)>& after_pass);
  PhaseOutcome update(const PhaseSpec& spec, int64_t step, const Means& own_means);

  const Networks networks_;
  const std::unique_ptr<Recipe> recipe_;
  const TrainedNetwork student_, fake_score_;
  comm::Communicator &replicas_, &world_;
  const DistillerOptions options_;
};

}  // namespace sprocket::runtime
