#include "tests/models/rank_comparison.h"

#include <algorithm>

#include <ATen/TensorOperators.h>

namespace sprocket::models::testing {

std::vector<parallel::MeshShape> sequence_meshes(int ranks, int heads) {
  std::vector<parallel::MeshShape> shapes;
  for (int ulysses = 1; ulysses <= ranks; ++ulysses) {
    if (ranks % ulysses == 0 && heads % ulysses == 0)
      shapes.push_back({1, ranks / ulysses, ulysses});
  }
  return shapes;
}

double worst_gradient(const ParameterStore& store, const at::Tensor& expected,
                      const at::Tensor& found, std::string& name) {
  double worst = 0;
  for (int i = 0; i < store.size(); ++i) {
    const auto part = [&](const at::Tensor& flat) {
      return flat.narrow(0, store.offset(i), store.spec(i).elements()).to(at::kDouble);
    };
    const double scale = part(expected).abs().max().item<double>();
    const double error =
        (part(expected) - part(found)).abs().max().item<double>() / std::max(scale, 1e-300);
    if (!(error <= worst)) {
      worst = error;
      name = store.spec(i).name;
    }
  }
  return worst;
}

}  // namespace sprocket::models::testing
