#include "runtime/sample/sample_set.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "runtime/checkpoint/durable.h"
#include "runtime/data/decode_latent.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/media/animated_png.h"
#include "runtime/media/contact_sheet.h"
#include "runtime/media/png.h"
#include "runtime/media/video_writer.h"
#include "runtime/sample/noise_schedule.h"
#include "runtime/sample/sampler.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kSheetColumns = 8;

std::optional<int64_t> sample_with_caption(const data::LatentDataset& data,
                                           const std::string& caption) {
  const auto& samples = data.index().samples;
  const auto found =
      std::find_if(samples.begin(), samples.end(),
                   [&](const data::SampleInfo& sample) { return sample.caption == caption; });
  if (found == samples.end()) return std::nullopt;
  return found - samples.begin();
}

SampleTask task_of_sample(data::LatentDataset& data, int64_t index) {
  const data::SampleInfo& info = data.index().samples[index];
  return {info.caption, data.load(index).text, info.shape, info.fps, index, {}};
}

std::optional<int64_t> prompt_of_text(const data::PromptSet& prompts, const std::string& text) {
  const auto& all = prompts.index().prompts;
  const auto found = std::find_if(
      all.begin(), all.end(), [&](const data::PromptInfo& prompt) { return prompt.text == text; });
  if (found == all.end()) return std::nullopt;
  return found - all.begin();
}

SampleTask task_of_text(const LatentDescription& latent, const std::string& text,
                        std::vector<float> embedding) {
  return {text, std::move(embedding), shape_of(latent), latent.fps(), std::nullopt, {}};
}

SampleTask task_of_prompt(const std::string& prompt, const LatentDescription& latent,
                          data::LatentDataset* data, data::PromptSet* prompts) {
  if (prompts) {
    const auto known = prompt_of_text(*prompts, prompt);
    if (known) return task_of_text(latent, prompt, prompts->load(*known).embedding);
  }
  const auto real = data ? sample_with_caption(*data, prompt) : std::nullopt;
  if (real) return task_of_sample(*data, *real);
  return task_of_text(latent, prompt, data::embed_text(text_of(latent), prompt));
}

// What there is to sample when nothing is asked for by name.
std::vector<SampleTask> first_tasks(int64_t count, const LatentDescription& latent,
                                    data::LatentDataset* data, data::PromptSet* prompts) {
  std::vector<SampleTask> tasks;
  for (int64_t i = 0; data && i < std::min(count, data->size()); ++i) {
    tasks.push_back(task_of_sample(*data, i));
  }
  for (int64_t i = 0; !data && prompts && i < std::min(count, prompts->size()); ++i) {
    data::Prompt prompt = prompts->load(i);
    tasks.push_back(task_of_text(latent, prompt.text, std::move(prompt.embedding)));
  }
  return tasks;
}

SampleFiles write_sample(const LatentDescription& latent, const SampleTask& task,
                         std::span<const float> values, data::LatentDataset* data,
                         const std::string& stem, bool animate) {
  const auto decode = [&](std::span<const float> x) {
    return data::decode_latent(codec_of(latent), statistics_of(latent), x, task.shape, task.fps);
  };
  SampleFiles files{task.prompt, stem + ".mp4", stem + ".png", std::nullopt, {}};
  std::vector<media::Video> rows;
  const media::Video video = decode(values);
  if (task.real) {
    rows.push_back(decode(data->load(*task.real).latent));
    files.psnr = media::psnr(rows.front(), video);
  }
  rows.push_back(video);
  media::write_mp4(files.video, video);
  media::write_png(files.sheet, media::contact_sheet(rows, kSheetColumns));
  if (animate) files.animation = media::encode_animated_png(video);
  return files;
}

json to_json(const SampleFiles& files) {
  const media::AnimatedPng& png = files.animation;
  const auto* bytes = reinterpret_cast<const uint8_t*>(png.file.data());
  return {{"prompt", files.prompt},
          {"video", files.video},
          {"sheet", files.sheet},
          {"psnr", files.psnr ? json(*files.psnr) : json()},
          {"png_width", png.width},
          {"png_height", png.height},
          {"png", json::binary({bytes, bytes + png.file.size()})}};
}

SampleFiles files_of(const json& row) {
  SampleFiles files{row.at("prompt"), row.at("video"), row.at("sheet"), std::nullopt, {}};
  if (!row.at("psnr").is_null()) files.psnr = row.at("psnr").get<double>();
  const auto bytes = std::as_bytes(std::span(row.at("png").get_binary()));
  files.animation = {row.at("png_width"), row.at("png_height"), {bytes.begin(), bytes.end()}};
  return files;
}

}  // namespace

std::vector<SampleTask> plan_samples(const config::Sampling& sampling,
                                     const LatentDescription& latent, data::LatentDataset* data,
                                     data::PromptSet* prompts) {
  std::vector<SampleTask> tasks;
  for (const std::string& prompt : sampling.prompt()) {
    tasks.push_back(task_of_prompt(prompt, latent, data, prompts));
  }
  if (tasks.empty()) tasks = first_tasks(sampling.count(), latent, data, prompts);
  if (tasks.empty()) {
    throw ConfigError(
        "sampling.prompt: expected at least one prompt, since there is no data set or prompt set "
        "(data.path) whose captions could serve");
  }
  for (SampleTask& task : tasks) {
    if (prompts) task.negative = prompts->negative();
  }
  return tasks;
}

std::vector<SampleFiles> make_samples(Network& network, const config::Sampling& sampling,
                                      const LatentDescription& latent,
                                      const std::vector<SampleTask>& tasks,
                                      data::LatentDataset* data, int64_t step,
                                      const std::string& folder, bool animate,
                                      const SampleWatch& watch) {
  const parallel::Mesh& mesh = network.mesh();
  std::vector<std::pair<size_t, std::vector<float>>> made;
  SampleCount count(mesh, sampling, tasks.size(), watch);
  for (size_t i = mesh.coordinate().data; i < tasks.size(); i += mesh.shape().data) {
    // The weights were trained with the attention of the last step done.
    const SampleRequest request{
        tasks[i].shape,   tasks[i].text, sampling.seed(), i, std::max<int64_t>(step - 1, 0),
        tasks[i].negative};
    const auto after = [&](int evaluations) { count.evaluated(i, evaluations); };
    made.emplace_back(i, sample_latent(network, sampling, request, {{}, after, {}}));
  }
  json written = json::array();
  run_on_all(mesh.world(), [&] {
    if (mesh.sequence().rank() != 0) return;
    create_folder(folder);
    for (const auto& [i, values] : made) {
      const std::string stem = (fs::path(folder) / fmt::format("step_{:08}_{}", step, i)).string();
      written.push_back({i, to_json(write_sample(latent, tasks[i], values, data, stem, animate))});
    }
  });
  const std::vector<uint8_t> packed = json::to_cbor(written);  // images are no text
  const auto lists = gather_text(mesh.world(), {packed.begin(), packed.end()});
  if (mesh.world().rank() != 0) return {};
  std::vector<SampleFiles> files(tasks.size());
  for (const std::string& list : lists) {
    for (const json& entry : json::from_cbor(list)) {
      files[entry.at(0).get<size_t>()] = files_of(entry.at(1));
    }
  }
  return files;
}

}  // namespace sprocket::runtime
