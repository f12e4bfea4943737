// Functions that host and device code share: pure arithmetic, testable on the host.
#pragma once

#ifdef __CUDACC__
#define SPROCKET_HOST_DEVICE __host__ __device__
#else
#define SPROCKET_HOST_DEVICE
#endif
