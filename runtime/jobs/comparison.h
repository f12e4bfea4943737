// `sprocket sample --compare`: what several models make of the same prompts and noise.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/jobs/sample_job.h"

namespace sprocket::runtime {

// One model, as run_sampling leaves it with SampleOptions::timed.
struct ComparedModel {
  config::Job job;
  SampleResult result;
};

struct ModelFigures {
  std::string checkpoint;
  int64_t step = 0;  // of training
  std::string sampler;
  int steps = 0;     // evaluations of the network for a video
  int forwards = 0;  // twice as many with guidance
  double density = 0;
  double seconds = 0;          // for a video, mean
  double speed_up = 1;         // over the first model
  std::vector<double> videos;  // seconds, by prompt
  // Decibels to the first model's video, by prompt: infinity for the same video; the mean is over
  // mean squared differences. Empty for the first model.
  std::vector<double> psnr;
  double mean_psnr = 0;
};

struct ComparisonFiles {
  std::string prompt;
  std::string video;  // mp4: all models side by side
  std::string sheet;  // PNG: a row of frames for each model
};

struct Comparison {
  std::vector<ModelFigures> models;
  std::vector<ComparisonFiles> files;
  std::string json;  // the file with all of the above
};

// Decodes and writes compare_<number>.{mp4,png}, with captions, and compare.json into `folder`
// (created if absent). The first model is what the others are compared with. At least one model,
// all with the same prompts. Not collective. Throws InputError for a codec that is not here,
// OutputError.
Comparison write_comparison(std::span<const ComparedModel> models, const std::string& folder);

// A line for each model, for people.
std::string comparison_text(const Comparison& comparison);

}  // namespace sprocket::runtime
