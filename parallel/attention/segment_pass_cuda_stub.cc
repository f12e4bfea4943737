#include "base/error.h"
#include "parallel/attention/device_query.h"
#include "parallel/attention/segment_pass_device.h"

namespace sprocket::parallel {
namespace {

[[noreturn]] void refuse() { throw InternalError("attention on a device in a build without CUDA"); }

}  // namespace

std::shared_ptr<const DeviceQuery> upload_query(const kernels::SegmentTable&,
                                                const std::vector<int64_t>&,
                                                const std::vector<int32_t>&, const at::Device&) {
  refuse();
}

namespace device {

void forward_pass(const QuerySide&, const std::vector<KvTensors>&, const kernels::KvBlockMap&,
                  PassOutput&, const std::optional<kernels::HeadRange>&) {
  refuse();
}

at::Tensor row_delta(const at::Tensor&, const at::Tensor&) { refuse(); }

void backward_pass(const QuerySide&, const std::vector<KvTensors>&, const kernels::KvBlockMap&,
                   const OutputSide&, const at::Tensor&, const std::vector<KvTensors>&,
                   const std::optional<kernels::HeadRange>&) {
  refuse();
}

}  // namespace device
}  // namespace sprocket::parallel
