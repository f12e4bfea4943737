#include "runtime/train/data_check.h"

#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/log.h"
#include "configs/validate.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {

void check_data(const config::Job& job, const data::LatentDataset& data) {
  const std::string source = (std::filesystem::path(data.folder()) / "index.json").string();
  std::string problems;
  for (const data::Bucket& bucket : data.buckets()) {
    const config::LatentShape shape{
        static_cast<int>(bucket.shape.c), static_cast<int>(bucket.shape.t),
        static_cast<int>(bucket.shape.h), static_cast<int>(bucket.shape.w)};
    for (const config::Violation& violation : config::find_shape_violations(job, shape)) {
      problems += fmt::format("\n  {}: {}", violation.paths.front(), violation.message);
    }
  }
  if (!problems.empty()) {
    throw ConfigError(fmt::format("{}: the job cannot run on these videos:{}", source, problems));
  }
  check_text(job.model(), data.index().text, source);
  if (data.index().shift && *data.index().shift != job.flow().shift()) {
    spdlog::warn("{}: made for shift {}, the job trains with flow.shift {}", source,
                 *data.index().shift, job.flow().shift());
  }
}

}  // namespace sprocket::runtime
