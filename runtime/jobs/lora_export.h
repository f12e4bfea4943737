// `sprocket lora export`: a checkpoint's adapters as other programs read them, by themselves or
// merged into the weights.
#pragma once

#include <string>

namespace sprocket::runtime {

struct LoraExport {
  std::string checkpoint;  // or a run
  std::string output;      // a .safetensors file
  bool merge = false;      // whole weights instead of adapters
  bool ema = false;        // of the moving average
};

struct LoraExportResult {
  std::string checkpoint;
  int64_t step = 0;
  int tensors = 0;
};

// Names are diffusers'. Throws InputError for a checkpoint without adapters or without an average,
// and, when merging, for base weights that are not those of the training; OutputError.
LoraExportResult export_lora(const LoraExport& options);

}  // namespace sprocket::runtime
