#include "runtime/train/data_check.h"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "configs/validate.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {
namespace {

struct Given {
  std::string source;  // the index
  std::vector<data::LatentShape> shapes;
  const data::TextInfo& text;
  std::optional<double> shift;
};

void check(const config::Job& job, const Given& given) {
  std::string problems;
  for (const data::LatentShape& shape : given.shapes) {
    const config::LatentShape checked{static_cast<int>(shape.c), static_cast<int>(shape.t),
                                      static_cast<int>(shape.h), static_cast<int>(shape.w)};
    for (const config::Violation& violation : config::find_shape_violations(job, checked)) {
      problems += fmt::format("\n  {}: {}", violation.paths.front(), violation.message);
    }
  }
  if (!problems.empty()) {
    throw ConfigError(
        fmt::format("{}: the job cannot run on these videos:{}", given.source, problems));
  }
  check_text(job.model(), given.text, given.source);
  if (job.has_flow() && given.shift && *given.shift != job.flow().shift()) {
    spdlog::warn("{}: made for shift {}, the job trains with flow.shift {}", given.source,
                 *given.shift, job.flow().shift());
  }
}

std::string path_of(const std::string& folder, const char* index) {
  return (std::filesystem::path(folder) / index).string();
}

}  // namespace

void check_data(const config::Job& job, const data::LatentDataset& data) {
  std::vector<data::LatentShape> shapes;
  for (const data::Bucket& bucket : data.buckets()) shapes.push_back(bucket.shape);
  check(job, {path_of(data.folder(), "index.json"), shapes, data.index().text, data.index().shift});
}

void check_prompts(const config::Job& job, const data::PromptSet& prompts) {
  check(job, {path_of(prompts.folder(), data::kPromptIndexFile),
              {prompts.video().shape},
              prompts.text(),
              prompts.video().shift});
}

}  // namespace sprocket::runtime
