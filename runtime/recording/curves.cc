#include "runtime/recording/curves.h"

#include <fstream>
#include <nlohmann/json.hpp>

namespace sprocket::runtime {
namespace {

using Curve = std::vector<std::pair<int64_t, double>>;

Curve thinned(const Curve& curve) {
  const size_t every = (curve.size() + kMostPoints - 1) / kMostPoints;
  if (every <= 1) return curve;
  Curve points;
  for (size_t i = 0; i < curve.size(); i += every) points.push_back(curve[i]);
  if ((curve.size() - 1) % every != 0) points.push_back(curve.back());
  return points;
}

}  // namespace

profile::Curves read_curves(const std::string& path) {
  profile::Curves curves;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("step")) continue;
    const auto add = [&](const char* key, Curve& curve) {
      if (json.contains(key) && json[key].is_number()) {
        curve.emplace_back(json["step"].get<int64_t>(), json[key].get<double>());
      }
    };
    add("loss", curves.loss);
    add("tokens_per_second", curves.tokens_per_second);
  }
  return {thinned(curves.loss), thinned(curves.tokens_per_second)};
}

}  // namespace sprocket::runtime
