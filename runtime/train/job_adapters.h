// The adapters that a job trains (training.lora), and the frozen weights beside them.
#pragma once

#include <cstdint>
#include <string>

#include "configs/job.pb.h"
#include "models/lora.h"
#include "models/parameter_store.h"
#include "models/weights_file.h"

namespace sprocket::runtime {

bool trains_adapters(const config::Job& job);

// With the targets that the model's family has by default. Of a job that trains adapters.
models::LoraSpec lora_spec(const config::Job& job);

// Of the job's model: diffusers' names.
models::NameInFile diffusers_names(const config::Job& job);

// Of the model's weights but the gates of its attention, which may be trained beside adapters: the
// same however many of these a store has.
uint64_t frozen_weights_hash(const models::ParameterStore& weights);

// Throws InputError unless the weights are those that the adapters of a checkpoint were trained on.
void check_frozen_weights(uint64_t found, uint64_t expected, const std::string& checkpoint,
                          const std::string& weights_path);

}  // namespace sprocket::runtime
