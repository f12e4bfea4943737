#include "launcher/profile_files.h"

#include <fmt/format.h>

#include "base/error.h"
#include "configs/cluster.h"
#include "configs/load.h"
#include "launcher/latent_shape.h"
#include "runtime/planner/prediction.h"
#include "runtime/profile/verdict.h"

namespace sprocket::launcher {

void add_prediction(const std::string& cluster_file, const std::string& profile_file,
                    profile::Report& report) {
  const config::Cluster cluster = config::load_cluster(cluster_file);
  try {
    const config::LoadedJob loaded =
        config::parse_job(report.job.description, profile_file + ": job.description");
    const KnownShape known = find_latent_shape(loaded);
    runtime::add_cluster_figures(cluster, loaded.job.compute().precision(), report);
    report.prediction = runtime::predict(loaded, known.shape, cluster, report,
                                         {"JOB.txtpb", cluster_file, profile_file});
  } catch (const ConfigError& error) {
    report.window.notes.push_back(fmt::format("no prediction: {}", error.what()));
    return;
  }
  profile::add_advice_line(report);
}

}  // namespace sprocket::launcher
