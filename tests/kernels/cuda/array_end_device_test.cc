// Arrays that end where their memory ends, at counts that are no multiple of a vector: what reads
// beyond them is found by the simulator, and on a GPU by compute-sanitizer.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/optimizer.h"
#include "kernels/cuda/rank_ordered_sum.h"
#include "tests/kernels/cuda/element_testing.h"

namespace sprocket::kernels::cuda {
namespace {

template <class T>
class TightArray {
 public:
  explicit TightArray(const Doubles& values) {
    const auto host = converted<HostOf<T>>(values);
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, host.size() * sizeof(T)), "cudaMalloc");
    memory_ = static_cast<T*>(memory);
    check_cuda(cudaMemcpy(memory, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice),
               "cudaMemcpy");
    check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  ~TightArray() { cudaFree(memory_); }
  TightArray(const TightArray&) = delete;
  TightArray& operator=(const TightArray&) = delete;
  T* get() const { return memory_; }

 private:
  T* memory_ = nullptr;
};

template <class T>
class ArrayEndDeviceTest : public testing::Test {};
TYPED_TEST_SUITE(ArrayEndDeviceTest, DeviceElements);

TYPED_TEST(ArrayEndDeviceTest, NothingBeyondItIsRead) {
  using T = TypeParam;
  CudaStream stream;
  for (const int64_t count : {1, 7, 13, 20, 33}) {
    const TightArray<T> x(normal_values(count, 1)), dy(normal_values(count, 2));
    gelu_tanh<T>(x.get(), count, x.get(), stream.view());
    gelu_tanh_backward<T>(dy.get(), x.get(), count, dy.get(), stream.view());
    DeviceArray<const T*> sources(std::vector<const T*>{x.get(), dy.get()});
    sum_in_rank_order<T>(sources.get(), 2, count, x.get(), stream.view());
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << count;
  }
}

TEST(ArrayEndDeviceTest, NothingBeyondItIsReadByTheOptimizer) {
  CudaStream stream;
  for (const int64_t count : {1, 13, 33}) {
    const Doubles values = normal_values(count, 1), zeros(count);
    const TightArray<float> gradient(values), parameter(values), mean(zeros), square(zeros);
    const TightArray<__nv_bfloat16> copy(values);
    DeviceArray<AdamWTensor<__nv_bfloat16>> tensors(std::vector<AdamWTensor<__nv_bfloat16>>{
        {gradient.get(), parameter.get(), mean.get(), square.get(), copy.get(), count}});
    DeviceArray<TensorChunk> chunks(tensor_chunks({count}));
    adamw_update<__nv_bfloat16>({}, tensors.get(), chunks.get(), 1, nullptr, stream.view());
    DeviceArray<double> sum(1);
    WorkspaceMemory workspace(sum_of_squares_workspace_bytes(count));
    sum_of_squares(gradient.get(), count, sum.get(), workspace.view(), stream.view());
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << count;
  }
}

}  // namespace
}  // namespace sprocket::kernels::cuda
