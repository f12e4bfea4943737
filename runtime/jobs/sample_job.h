// `sprocket sample`: makes videos with a trained model, on all ranks together.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "configs/job.pb.h"
#include "parallel/comm/communicator.h"
#include "runtime/checkpoint/state.pb.h"
#include "runtime/control/pulse.h"
#include "runtime/jobs/profile_only.h"
#include "runtime/media/animated_png.h"
#include "runtime/sample/sample_task.h"
#include "runtime/sample/timed_samples.h"

namespace sprocket::runtime {

// What a model's videos are to be compared with: those of another model, of the same prompts.
struct Reference {
  std::string checkpoint;
  LatentDescription latent;
  std::vector<SampleTask> tasks;
};

struct SampleOptions {
  // A checkpoint folder (step_00001000) or a run's folder, of which the newest valid one is taken.
  // Empty: output.directory.
  std::string checkpoint;
  // Folder of the files; created if absent. Empty: `samples` in output.directory.
  std::string output;
  // Threads of this rank's kernels; >= 1.
  int threads = 1;
  // Of the rank's tensors; whoever calls holds it (parallel/device/tensor_device.h).
  at::Device device = at::kCPU;
  // Instead of a checkpoint: model.weights, or weights from training.seed; the latents are the data
  // set's.
  bool random_weights = false;
  // For a comparison: nothing is written, videos are timed and kept in SampleResult::timed.
  bool timed = false;
  // Its prompts instead of the job's; this model's latents and texts must be its (InputError lists
  // what differs).
  const Reference* reference = nullptr;
  // Rank 0 draws one live line on stderr.
  bool terminal = false;
  // Told what the job does, for whoever watches it; may be null.
  control::Pulse* pulse = nullptr;
  // A step of the window is one evaluation of the network, with guidance for both of its inputs.
  std::optional<ProfileOnly> profile_only;
};

struct SampleFiles {
  std::string prompt;
  std::string video;  // mp4
  std::string sheet;  // PNG: frames of the sample; above them those of the real clip, when known
  // Against the codec's own reconstruction of the real clip, when the prompt is a caption of the
  // data set. Decibels.
  std::optional<double> psnr;
  media::AnimatedPng animation;  // of the sample, while training for TensorBoard; else empty
};

struct SampleResult {
  int64_t step = 0;                  // of the checkpoint
  std::vector<SampleFiles> samples;  // complete on rank 0; empty on the others, of a profile, timed
  std::vector<TimedSample> timed;  // complete on rank 0; empty on the others, and unless asked for
  Reference as_reference;          // this model, for others; on all ranks
};

// The job that a checkpoint (see SampleOptions::checkpoint) was made by: the description to start
// from when the user gives no other. Throws InputError when there is no valid checkpoint.
config::Job job_of_checkpoint(const std::string& path);

// Collective over `world`; `job` is resolved for its size. The model's architecture must be the
// checkpoint's (InputError lists the fields that differ); everything else is the job's.
// Prompts are job.sampling.prompt, or else the captions of the first samples of job.data. The data
// set is needed for captions, precomputed text embeddings and real clips only; size, codec and
// normalisation come from the checkpoint.
// Throws ConfigError, InputError, OutputError, CommError.
SampleResult run_sampling(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                          const SampleOptions& options);

}  // namespace sprocket::runtime
