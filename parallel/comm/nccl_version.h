// Which NCCL this program was built for, and which it has loaded.
#pragma once

namespace sprocket::comm {

// As NCCL counts: 22809 is 2.28.9. 0 in builds without CUDA.
struct NcclVersions {
  int headers = 0;
  int loaded = 0;
};

NcclVersions nccl_versions();

}  // namespace sprocket::comm
