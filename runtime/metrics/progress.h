// What a person sees while a job runs: one live line on a terminal, plain log lines otherwise.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/train/step_outcome.h"

namespace sprocket::runtime {

class Progress {
 public:
  // `live`: one line on stderr that is drawn again and again. Otherwise one log line every
  // `interval` steps and for the last.
  Progress(bool live, int64_t steps, int64_t interval);
  // Ends the live line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // After a training step; `done` counts from 1 to `steps`.
  void step(int64_t done, const StepOutcome& outcome);
  // After step `done` of something simpler, such as making a sample.
  void step(int64_t done, const std::string& what, double seconds);
  // Clears the live line so that other output can be written; the next step draws it again.
  void pause();

 private:
  void show(int64_t done, double seconds, const std::string& text);

  bool live_;
  int64_t steps_;
  int64_t interval_;
  double mean_seconds_ = 0;  // exponential mean of the step time
  bool drawn_ = false;
};

}  // namespace sprocket::runtime
