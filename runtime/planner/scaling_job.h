// `sprocket plan --scale`: a simulation of many devices as table, CSV and picture.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "configs/cluster.h"
#include "configs/load.h"
#include "configs/validate.h"
#include "runtime/media/video.h"
#include "runtime/plan/scaling.h"

namespace sprocket::runtime {

struct ScalingOptions {
  std::string scale;               // "8:4096"
  std::optional<double> density;   // else the method's own
  std::optional<double> coverage;  // the budget; else the job's, and 0.25 where it has none
  std::string csv, picture;        // empty: not written
};

std::string run_scaling(const config::LoadedJob& loaded, const config::LatentShape& shape,
                        const std::string& shape_source, const config::Cluster& cluster,
                        const ScalingOptions& options);

media::Image draw_scaling(const std::string& title, const std::vector<std::string>& subtitle,
                          const std::vector<ScalingPoint>& points);

}  // namespace sprocket::runtime
