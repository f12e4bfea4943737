// Which of a host's CUDA devices a rank takes.
#pragma once

namespace sprocket::parallel {

// The CUDA devices that this process sees; 0 on machines without a driver. Throws ConfigError in
// builds without CUDA.
int visible_devices();

// Of `devices` devices, for the rank at `local_rank` among the `local_ranks` ranks of its host:
// neighbours share one in groups of ranks_per_device. Throws CudaError where there is no device,
// and ConfigError where there are too few for the host's ranks.
int device_ordinal(int local_rank, int local_ranks, int devices, int ranks_per_device);

}  // namespace sprocket::parallel
