#include "launcher/latent_shape.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/data/index.h"
#include "runtime/data/prompt_index.h"

namespace sprocket::launcher {

KnownShape find_latent_shape(const config::LoadedJob& loaded) {
  const config::Data& data = loaded.job.data();
  if (data::is_prompt_set(data.path())) {
    const data::LatentShape shape = data::read_prompt_index(data.path()).video.shape;
    return {{static_cast<int>(shape.c), static_cast<int>(shape.t), static_cast<int>(shape.h),
             static_cast<int>(shape.w)},
            data.path() + "/" + data::kPromptIndexFile};
  }
  const std::string index_file = data.path() + "/index.json";
  if (std::filesystem::exists(index_file)) {
    const data::Index index = data::read_index(data.path());
    const auto largest = std::max_element(
        index.samples.begin(), index.samples.end(),
        [](const auto& a, const auto& b) { return a.shape.elements() < b.shape.elements(); });
    if (largest != index.samples.end()) {
      const data::LatentShape& shape = largest->shape;
      return {{static_cast<int>(shape.c), static_cast<int>(shape.t), static_cast<int>(shape.h),
               static_cast<int>(shape.w)},
              index_file};
    }
  }
  if (!data.has_latent()) {
    throw ConfigError(
        fmt::format("{}: \"{}\" holds no data set yet; expected one made by `sprocket data "
                    "encode`, or data.latent to "
                    "do without",
                    loaded.where("data.path"), data.path()));
  }
  return {{loaded.job.model().latent_channels(), data.latent().t(), data.latent().h(),
           data.latent().w()},
          "data.latent"};
}

}  // namespace sprocket::launcher
