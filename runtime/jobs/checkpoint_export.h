// What a checkpoint has trained, as other programs read it: one safetensors file with diffusers'
// names.
#pragma once

#include <cstdint>
#include <string>

namespace sprocket::runtime {

struct CheckpointExport {
  std::string checkpoint;  // or a run, of which the newest complete one is taken
  std::string output;      // a new .safetensors file
  bool ema = false;        // of the moving average
};

struct CheckpointExportResult {
  std::string checkpoint;
  int64_t step = 0;
  int tensors = 0;
  bool merged = false;  // adapters into the weights
};

// `sprocket checkpoint export`: whole weights, with the adapters added where the checkpoint has
// some. Throws InputError for a checkpoint without an average, and where there are adapters for
// base weights that are not those of the training; OutputError.
CheckpointExportResult export_weights(const CheckpointExport& options);

// `sprocket lora export`: the adapters by themselves. Throws InputError for a checkpoint without
// adapters or without an average; OutputError.
CheckpointExportResult export_adapters(const CheckpointExport& options);

}  // namespace sprocket::runtime
