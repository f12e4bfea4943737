// Adapters from and to safetensors.
#pragma once

#include <string>

#include "models/weights_file.h"

namespace sprocket::models {

// Writes `trained`, which holds lora_parameters(), as fp32: `transformer.` before the names that
// name_in_file gives, as diffusers' LoRA loaders expect them. Up matrices are multiplied by
// `factor`, so that readers that know of no alpha make the same function. Gates are written whole.
// Throws OutputError.
void write_adapters(const std::string& path, const ParameterStore& trained, double factor,
                    const NameInFile& name_in_file);

// Fills `trained` so that with `factor` it is what the file's adapters are. Elements F64, F32, F16
// or BF16. Names in either scheme, as they are, behind `transformer.`, `diffusion_model.` or
// `base_model.model.`, or behind `lora_unet_` with underscores for dots; with lora_A and lora_B
// (also
// `.default`) or lora_down and lora_up. A layer's factor is alpha / rank where it has `.alpha`,
// that of find_peft_config (models/peft_config.h) where there is one, otherwise 1. Gates that the
// file does not have keep their values. Throws InputError that lists every missing, unexpected and
// wrongly shaped tensor at once; `trained` is untouched then.
void read_adapters(const std::string& path, double factor, const NameInFile& name_in_file,
                   ParameterStore& trained);

}  // namespace sprocket::models
