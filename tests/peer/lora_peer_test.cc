// Adapters that diffusers and PEFT wrote (make_lora_case.py), as training.lora.weights reads them;
// and what `sprocket lora export` writes, for check_lora_exports.py to read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "models/safetensors/tensor_set.h"
#include "models/safetensors/writer.h"
#include "parallel/mesh.h"
#include "runtime/distill/network_denoiser.h"
#include "runtime/jobs/checkpoint_export.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/job_model.h"
#include "tests/data/temporary_folder.h"
#include "tests/peer/peer_case.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using models::testing::error;
using models::testing::PeerCase;

// The same formulas in another order of summation, as in wan_peer_test.cc.
constexpr double kExact = 1e-10;

class LoraPeer : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { at::set_num_threads(1); }

  config::Job job(std::vector<std::string> overrides) const {
    if (std::string(GetParam()) == "cogvideox") {
      overrides.insert(overrides.begin(), {testing::kTinyCogVideoX, "model.ffn_dim: 256"});
    }
    overrides.insert(overrides.begin(),
                     "model.weights: '" + peer_.file("weights.safetensors") + "'");
    return testing::tiny_job(folder_.path().string(), 1, overrides);
  }

  // `lora { rank, alpha and what `more` says }`, for every linear layer if so.
  std::string lora(int rank, double alpha, bool every_layer, const std::string& more = "") const {
    std::vector<std::string> targets;
    for (const models::ParameterSpec& spec : model_parameters(job({}))) {
      const std::string kind = ".weight";
      if (!every_layer || spec.shape.size() != 2 || !spec.name.ends_with(kind)) continue;
      targets.push_back("'" + spec.name.substr(0, spec.name.size() - kind.size()) + "'");
    }
    return fmt::format("training.lora {{ rank: {} alpha: {} target: [{}] {} }}", rank, alpha,
                       fmt::join(targets, ", "), more);
  }

  // In fp64; `adapters`, where it is given, replaces those that the job starts from.
  at::Tensor predict(config::Job job, const safetensors::TensorSet* adapters = nullptr) const {
    job.mutable_compute()->set_precision(config::Compute::FP64);
    at::Tensor prediction;
    testing::run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
      const parallel::Mesh mesh(std::move(world), mesh_shape(job));
      Network network(job, mesh, 1, Network::Start::kFresh);
      const at::NoGradGuard no_gradients;
      for (int i = 0; adapters && i < network.parameters().size(); ++i) {
        const at::Tensor into = network.parameters().tensor(i).detach();
        std::vector<float> values = adapters->floats(network.parameters().spec(i).name);
        into.copy_(at::from_blob(values.data(), into.sizes(), at::kFloat));
      }
      const at::Tensor timesteps = peer_.tensor("timestep");
      prediction = NetworkDenoiser(network, Phase::kSample)
                       .predict(peer_.tensor("latent"),
                                {timesteps.const_data_ptr<double>(), static_cast<size_t>(2)},
                                peer_.tensor("text"));
    });
    return prediction;
  }

  const PeerCase peer_{fs::path(SPROCKET_PEER_CASES) / GetParam()};

 private:
  const testing::TemporaryFolder folder_;
};

TEST_P(LoraPeer, TheModelsWithoutAdaptersAreEqual) {
  EXPECT_LE(error(predict(job({})), peer_.tensor("none")), kExact);
}

TEST_P(LoraPeer, ReadsWhatOthersWrite) {
  EXPECT_GE(peer_.sizes().at("adapters").size(), 8u);
  for (const auto& adapters : peer_.sizes().at("adapters")) {
    const std::string name = adapters.at("name"), file = adapters.at("file");
    SCOPED_TRACE(file);
    const std::string weights = "weights: '" + peer_.file(file.c_str()) + "'";
    // Whatever the job's own alpha, the function is the file's.
    for (const double alpha : {0., 5.}) {
      const config::Job job =
          this->job({lora(adapters.at("rank"), alpha, adapters.at("every_layer"), weights)});
      EXPECT_LE(error(predict(job), peer_.tensor(name)), kExact) << "alpha " << alpha;
    }
  }
}

// check_lora_exports.py reads what is left in the folder `exported`.
TEST_P(LoraPeer, ExportsWhatItTrained) {
  const fs::path exported = peer_.file("exported");
  fs::remove_all(exported);
  fs::create_directory(exported);
  // Factors that are powers of two: the exported up matrices are not rounded.
  const double alpha = std::string(GetParam()) == "wan" ? 12 : 1.5;
  const config::Job job =
      this->job({lora(3, alpha, /*every_layer=*/true),
                 "training { steps: 6 optimizer { learning_rate: 0.05 decay: CONSTANT } }"});
  const std::string checkpoint = testing::train(job).checkpoint;
  const auto trained = safetensors::TensorSet::open(checkpoint + "/model");
  const at::Tensor prediction = predict(job, &trained);
  EXPECT_GT(error(prediction, peer_.tensor("none")), 0.1);
  export_adapters({checkpoint, exported / "adapters.safetensors", false});
  export_weights({checkpoint, exported / "merged.safetensors", false});
  safetensors::write_file(
      exported / "prediction.safetensors",
      {{{"prediction", safetensors::ElementType::kF64, prediction.sizes().vec()},
        {static_cast<const std::byte*>(prediction.const_data_ptr()), prediction.nbytes()}}});
}

INSTANTIATE_TEST_SUITE_P(Families, LoraPeer, ::testing::Values("wan", "cogvideox"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace sprocket::runtime
