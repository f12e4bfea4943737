#include "runtime/jobs/comparison.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "runtime/checkpoint/durable.h"
#include "runtime/checkpoint/latent_description.h"
#include "runtime/data/decode_latent.h"
#include "runtime/media/contact_sheet.h"
#include "runtime/media/montage.h"
#include "runtime/media/output_file.h"
#include "runtime/media/png.h"
#include "runtime/media/video_writer.h"
#include "runtime/sample/noise_schedule.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr int kSheetColumns = 8;
constexpr int kMostPromptLines = 3;

ModelFigures figures_of(const ComparedModel& model) {
  const config::Sampling& sampling = model.job.sampling();
  ModelFigures figures;
  figures.checkpoint = model.result.as_reference.checkpoint;
  figures.step = model.result.step;
  figures.sampler = config::Sampling::Sampler_Name(sampling.sampler());
  figures.steps = sampling_steps(sampling);
  figures.forwards = figures.steps * (sampling.guidance() != 1 ? 2 : 1);
  const auto count = static_cast<double>(model.result.timed.size());
  for (const TimedSample& sample : model.result.timed) {
    figures.videos.push_back(sample.seconds);
    figures.seconds += sample.seconds / count;
    figures.density += sample.density / count;
  }
  return figures;
}

media::Video decode(const ComparedModel& model, size_t number) {
  const Reference& own = model.result.as_reference;
  const SampleTask& task = own.tasks[number];
  return data::decode_latent(codec_of(own.latent), statistics_of(own.latent),
                             model.result.timed[number].latent, task.shape, task.fps);
}

double mean_decibels(const std::vector<double>& decibels) {
  double squares = 0;
  for (const double value : decibels) squares += std::pow(10, -value / 10);
  return squares > 0 ? -10 * std::log10(squares / static_cast<double>(decibels.size()))
                     : std::numeric_limits<double>::infinity();
}

// The run and the checkpoint, which is as much of a path as fits under a picture.
std::string short_name(const std::string& checkpoint) {
  const fs::path path(checkpoint);
  return (path.parent_path().filename() / path.filename()).string();
}

std::vector<std::string> caption_lines(const ModelFigures& figures, size_t number) {
  return {short_name(figures.checkpoint),
          fmt::format("{} {} steps, {} forwards", figures.sampler, figures.steps, figures.forwards),
          fmt::format("{:.3g} s, density {:.2g}", figures.videos[number], figures.density)};
}

void write_prompt(const Comparison& comparison, const ComparisonFiles& files, size_t number,
                  const std::vector<media::Video>& videos) {
  std::vector<media::Image> captions;
  std::vector<media::Image> rows = {{}};
  for (size_t m = 0; m < videos.size(); ++m) {
    const std::vector<std::string> lines = caption_lines(comparison.models[m], number);
    captions.push_back(media::caption(lines, videos[m].width));
    rows.push_back(media::contact_sheet(std::span(&videos[m], 1), kSheetColumns));
    rows.insert(rows.end() - 1,
                media::caption({fmt::format("{}", fmt::join(lines, ", "))}, rows.back().width));
  }
  const auto title = [&](int width) {
    return media::caption(
        media::wrap_words(files.prompt, media::caption_columns(width), kMostPromptLines), width);
  };
  const media::Image below = media::join_right(captions);
  const media::Image header[] = {title(below.width), below};
  media::write_mp4(files.video, media::side_by_side(media::join_down(header), videos));
  rows.front() = title(rows.back().width);
  media::write_png(files.sheet, media::join_down(rows));
}

ordered_json to_json(const Comparison& comparison) {
  ordered_json json;
  for (const ModelFigures& model : comparison.models) {
    ordered_json row = {{"checkpoint", model.checkpoint},
                        {"training_steps", model.step},
                        {"sampler", model.sampler},
                        {"steps", model.steps},
                        {"forwards", model.forwards},
                        {"density", model.density},
                        {"seconds_per_video", model.seconds},
                        {"speed_up", model.speed_up},
                        {"seconds", model.videos}};
    if (!model.psnr.empty()) {
      row["mean_psnr"] = model.mean_psnr;
      row["psnr"] = model.psnr;
    }
    json["models"].push_back(std::move(row));
  }
  for (const ComparisonFiles& files : comparison.files) {
    json["prompts"].push_back(
        {{"prompt", files.prompt}, {"video", files.video}, {"sheet", files.sheet}});
  }
  return json;
}

}  // namespace

Comparison write_comparison(std::span<const ComparedModel> models, const std::string& folder) {
  SPROCKET_CHECK(!models.empty(), "no models");
  create_folder(folder);
  Comparison comparison;
  for (const ComparedModel& model : models) {
    comparison.models.push_back(figures_of(model));
    ModelFigures& own = comparison.models.back();
    own.speed_up = comparison.models.front().seconds / own.seconds;
  }
  const std::vector<SampleTask>& tasks = models.front().result.as_reference.tasks;
  for (size_t number = 0; number < tasks.size(); ++number) {
    std::vector<media::Video> videos;
    for (size_t m = 0; m < models.size(); ++m) {
      videos.push_back(decode(models[m], number));
      if (m > 0) comparison.models[m].psnr.push_back(media::psnr(videos.front(), videos.back()));
    }
    const std::string stem = (fs::path(folder) / fmt::format("compare_{}", number)).string();
    comparison.files.push_back({tasks[number].prompt, stem + ".mp4", stem + ".png"});
    write_prompt(comparison, comparison.files.back(), number, videos);
  }
  for (size_t m = 1; m < models.size(); ++m) {
    comparison.models[m].mean_psnr = mean_decibels(comparison.models[m].psnr);
  }
  comparison.json = (fs::path(folder) / "compare.json").string();
  const std::string text = to_json(comparison).dump(1) + "\n";
  media::write_output_file(comparison.json, std::as_bytes(std::span(text)));
  return comparison;
}

std::string comparison_text(const Comparison& comparison) {
  std::string text;
  for (const ModelFigures& model : comparison.models) {
    text += fmt::format("{}: {} {} steps, {} forwards, density {:.3f}, {:.3f} s a video",
                        model.checkpoint, model.sampler, model.steps, model.forwards, model.density,
                        model.seconds);
    if (!model.psnr.empty()) {
      text +=
          fmt::format(", {:.2f} times as fast, PSNR {:.2f} dB", model.speed_up, model.mean_psnr);
    }
    text += "\n";
  }
  return text;
}

}  // namespace sprocket::runtime
