#include <algorithm>

#include "kernels/cuda/row_pack.h"
#include "parallel/attention/packed_rows_device.h"
#include "parallel/device/cuda_tensor.h"
#include "parallel/device/host_copy.h"

namespace sprocket::parallel::device {
namespace {

// Runs in device memory, for the calls that are enqueued while this lives.
class Runs {
 public:
  Runs(const std::vector<kernels::RowRun>& runs, const at::Device& device)
      : memory_(bytes_on(std::span<const kernels::RowRun>(runs), device)) {
    view_.runs = static_cast<const kernels::RowRun*>(memory_.const_data_ptr());
    view_.count = static_cast<int64_t>(runs.size());
    for (const kernels::RowRun& run : runs) view_.max_rows = std::max(view_.max_rows, run.rows);
  }
  const kernels::cuda::DeviceRowRuns& view() const { return view_; }

 private:
  at::Tensor memory_;
  kernels::cuda::DeviceRowRuns view_;
};

}  // namespace

void pack_rows(const at::Tensor& x_BLHD, const std::vector<kernels::RowRun>& runs,
               const at::Tensor& elements, int64_t first) {
  if (runs.empty()) return;
  const Runs on_device(runs, x_BLHD.device());
  cuda::dispatch_device_type(x_BLHD.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::cuda::pack_rows<T>(cuda::const_view_of<T>(x_BLHD), on_device.view(),
                                static_cast<int>(x_BLHD.size(3)), cuda::out<T>(elements) + first,
                                stream_of(x_BLHD));
  });
}

void add_packed_rows(const at::Tensor& elements, int64_t first,
                     const std::vector<kernels::RowRun>& runs, const at::Tensor& sums_BLHD) {
  if (runs.empty()) return;
  const Runs on_device(runs, sums_BLHD.device());
  cuda::dispatch_device_type(elements.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    kernels::cuda::add_packed_rows<T>(cuda::in<T>(elements) + first, on_device.view(),
                                      static_cast<int>(sums_BLHD.size(3)),
                                      cuda::view_of<float>(sums_BLHD), stream_of(sums_BLHD));
  });
}

}  // namespace sprocket::parallel::device
