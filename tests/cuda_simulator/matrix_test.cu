// Matrix instructions against plain products. CuTe's layouts say where the elements are: they are
// written down independently of the simulator.
#include <cute/tensor.hpp>

#include "tests/cuda_simulator/device_vector.h"

namespace sprocket::cuda_simulator {
namespace {

using namespace cute;  // NOLINT: the customary way to write CuTe code

// Small integers: products and sums are exact in every format.
template <typename T>
std::vector<T> integers(int count, int factor) {
  std::vector<T> result(count);
  for (int i = 0; i < count; ++i)
    result[i] = static_cast<T>(static_cast<float>(i * factor % 11 - 5));
  return result;
}

// C (+)= A B^T, all row-major.
template <typename A, typename C>
std::vector<float> plain_product(const std::vector<A>& a, const std::vector<A>& b,
                                 const std::vector<C>& c, int m, int n, int k) {
  std::vector<float> result(m * n);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      float sum = static_cast<float>(c[i * n + j]);
      for (int l = 0; l < k; ++l)
        sum += static_cast<float>(a[i * k + l]) * static_cast<float>(b[j * k + l]);
      result[i * n + j] = sum;
    }
  }
  return result;
}

// One warp, elements straight from global memory into the fragments.
template <typename Mma, typename A, typename C>
__global__ void fragment_product(const A* a, const A* b, const C* c_in, C* c_out) {
  Mma mma;
  auto m = tile_size<0>(mma);
  auto n = tile_size<1>(mma);
  auto k = tile_size<2>(mma);
  auto thread = mma.get_thread_slice(threadIdx.x);
  auto g_a =
      thread.partition_A(make_tensor(make_gmem_ptr(a), make_shape(m, k), make_stride(k, _1{})));
  auto g_b =
      thread.partition_B(make_tensor(make_gmem_ptr(b), make_shape(n, k), make_stride(k, _1{})));
  auto g_c =
      thread.partition_C(make_tensor(make_gmem_ptr(c_in), make_shape(m, n), make_stride(n, _1{})));
  auto g_d =
      thread.partition_C(make_tensor(make_gmem_ptr(c_out), make_shape(m, n), make_stride(n, _1{})));
  auto r_a = make_fragment_like(g_a);
  auto r_b = make_fragment_like(g_b);
  auto r_c = make_fragment_like<C>(g_c);
  copy(g_a, r_a);
  copy(g_b, r_b);
  copy(g_c, r_c);
  auto f_a = thread.make_fragment_A(g_a);
  auto f_b = thread.make_fragment_B(g_b);
  copy(r_a, f_a);
  copy(r_b, f_b);
  gemm(mma, f_a, f_b, r_c);
  copy(r_c, g_d);
}

template <typename Atom, typename A, typename C>
void check_fragments() {
  using Mma = decltype(make_tiled_mma(Atom{}));
  constexpr int m = decltype(tile_size<0>(Mma{}))::value, n = decltype(tile_size<1>(Mma{}))::value,
                k = decltype(tile_size<2>(Mma{}))::value;
  const auto a = integers<A>(m * k, 7), b = integers<A>(n * k, 3);
  const auto c = integers<C>(m * n, 5);
  DeviceVector<A> device_a(a), device_b(b);
  DeviceVector<C> device_c(c), out(c.size());
  fragment_product<Mma><<<1, 32>>>(device_a.data(), device_b.data(), device_c.data(), out.data());
  const auto results = out.host();
  const auto expected = plain_product(a, b, c, m, n, k);
  for (int i = 0; i < m * n; ++i)
    ASSERT_EQ(static_cast<float>(results[i]), expected[i]) << i / n << ", " << i % n;
}

TEST(Matrix, fragments_bf16_k16) {
  check_fragments<SM80_16x8x16_F32BF16BF16F32_TN, bfloat16_t, float>();
}
TEST(Matrix, fragments_bf16_k8) {
  check_fragments<SM80_16x8x8_F32BF16BF16F32_TN, bfloat16_t, float>();
}
TEST(Matrix, fragments_f16_k16) { check_fragments<SM80_16x8x16_F32F16F16F32_TN, half_t, float>(); }
TEST(Matrix, fragments_f16_k8_half_sums) {
  check_fragments<SM80_16x8x8_F16F16F16F16_TN, half_t, half_t>();
}
TEST(Matrix, fragments_tf32_k8) {
  check_fragments<SM80_16x8x8_F32TF32TF32F32_TN, tfloat32_t, float>();
}
TEST(Matrix, fragments_tf32_k4) {
  check_fragments<SM80_16x8x4_F32TF32TF32F32_TN, tfloat32_t, float>();
}

// 64 x 32 x 32 by two warps: cp.async into swizzled shared memory, ldmatrix, mma. B lies along N,
// so that its matrices are transposed on the way.
constexpr int kM = 64, kN = 32, kK = 32;

__global__ void shared_product(const bfloat16_t* a, const bfloat16_t* b, float* c) {
  using LayoutA = decltype(composition(Swizzle<2, 3, 3>{},
                                       Layout<Shape<Int<kM>, Int<kK>>, Stride<Int<kK>, _1>>{}));
  using LayoutB = decltype(composition(Swizzle<2, 3, 3>{},
                                       Layout<Shape<Int<kN>, Int<kK>>, Stride<_1, Int<kN>>>{}));
  __shared__ alignas(128) bfloat16_t shared_a[kM * kK];
  __shared__ alignas(128) bfloat16_t shared_b[kN * kK];
  auto s_a = make_tensor(make_smem_ptr(shared_a), LayoutA{});
  auto s_b = make_tensor(make_smem_ptr(shared_b), LayoutB{});
  auto g_a = make_tensor(make_gmem_ptr(a), Layout<Shape<Int<kM>, Int<kK>>, Stride<Int<kK>, _1>>{});
  auto g_b = make_tensor(make_gmem_ptr(b), Layout<Shape<Int<kN>, Int<kK>>, Stride<_1, Int<kN>>>{});
  auto g_c = make_tensor(make_gmem_ptr(c), Layout<Shape<Int<kM>, Int<kN>>, Stride<Int<kN>, _1>>{});

  using Async = Copy_Atom<SM80_CP_ASYNC_CACHEGLOBAL<uint128_t>, bfloat16_t>;
  auto copy_a =
      make_tiled_copy(Async{}, Layout<Shape<_16, _4>, Stride<_4, _1>>{}, Layout<Shape<_1, _8>>{});
  auto copy_b = make_tiled_copy(Async{}, Layout<Shape<_4, _16>>{}, Layout<Shape<_8, _1>>{});
  auto slice_a = copy_a.get_thread_slice(threadIdx.x);
  auto slice_b = copy_b.get_thread_slice(threadIdx.x);
  copy(copy_a, slice_a.partition_S(g_a), slice_a.partition_D(s_a));
  copy(copy_b, slice_b.partition_S(g_b), slice_b.partition_D(s_b));
  cp_async_fence();
  cp_async_wait<0>();
  __syncthreads();

  auto mma = make_tiled_mma(SM80_16x8x16_F32BF16BF16F32_TN{}, Layout<Shape<_2, _1, _1>>{},
                            Tile<_32, _16, _16>{});
  auto thread = mma.get_thread_slice(threadIdx.x);
  auto r_a = thread.partition_fragment_A(s_a);
  auto r_b = thread.partition_fragment_B(s_b);
  auto r_c = thread.partition_fragment_C(g_c);
  clear(r_c);
  auto load_a = make_tiled_copy_A(Copy_Atom<SM75_U32x4_LDSM_N, bfloat16_t>{}, mma)
                    .get_thread_slice(threadIdx.x);
  auto load_b = make_tiled_copy_B(Copy_Atom<SM75_U16x8_LDSM_T, bfloat16_t>{}, mma)
                    .get_thread_slice(threadIdx.x);
  copy(make_tiled_copy_A(Copy_Atom<SM75_U32x4_LDSM_N, bfloat16_t>{}, mma), load_a.partition_S(s_a),
       load_a.retile_D(r_a));
  copy(make_tiled_copy_B(Copy_Atom<SM75_U16x8_LDSM_T, bfloat16_t>{}, mma), load_b.partition_S(s_b),
       load_b.retile_D(r_b));
  gemm(mma, r_a, r_b, r_c);
  copy(r_c, thread.partition_C(g_c));
}

TEST(Matrix, product_through_shared_memory) {
  const auto a = integers<bfloat16_t>(kM * kK, 7);
  const auto b = integers<bfloat16_t>(kN * kK, 3);  // [k][n]
  std::vector<bfloat16_t> b_rows(b.size());
  for (int n = 0; n < kN; ++n) {
    for (int k = 0; k < kK; ++k) b_rows[n * kK + k] = b[k * kN + n];
  }
  DeviceVector<bfloat16_t> device_a(a), device_b(b);
  DeviceVector<float> out(kM * kN);
  shared_product<<<1, 64>>>(device_a.data(), device_b.data(), out.data());
  const auto results = out.host();
  const auto expected = plain_product(a, b_rows, std::vector<float>(kM * kN), kM, kN, kK);
  for (int i = 0; i < kM * kN; ++i) ASSERT_EQ(results[i], expected[i]) << i / kN << ", " << i % kN;
}

// Two groups; the second copies 5 of 8 bytes.
__global__ void async_copies(const uint32_t* in, uint32_t* out) {
  __shared__ alignas(16) uint32_t buffer[2][32][4];
  const auto address = [&](int stage) {
    return cast_smem_ptr_to_uint(&buffer[stage][threadIdx.x][0]);
  };
  for (int i = 0; i < 4; ++i) buffer[1][threadIdx.x][i] = 7;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address(0)),
               "l"(in + 4 * threadIdx.x));
  asm volatile("cp.async.commit_group;");
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(address(1)),
               "l"(in + 4 * threadIdx.x), "r"(5));
  asm volatile("cp.async.commit_group;");
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  for (int i = 0; i < 4; ++i) out[8 * threadIdx.x + i] = buffer[0][threadIdx.x][i];
  for (int i = 0; i < 4; ++i) out[8 * threadIdx.x + 4 + i] = buffer[1][threadIdx.x][i];
}

TEST(Matrix, asynchronous_copies) {
  std::vector<uint32_t> in(128);
  for (int i = 0; i < 128; ++i) in[i] = 0x01020304u * (i % 50 + 1);
  DeviceVector<uint32_t> device_in(in), out(256);
  async_copies<<<1, 32>>>(device_in.data(), out.data());
  const auto results = out.host();
  for (int t = 0; t < 32; ++t) {
    for (int i = 0; i < 4; ++i) ASSERT_EQ(results[8 * t + i], in[4 * t + i]);
    ASSERT_EQ(results[8 * t + 4], in[4 * t]);
    ASSERT_EQ(results[8 * t + 5], in[4 * t + 1] & 0xff) << "the rest is zero";
    ASSERT_EQ(results[8 * t + 6], 7u);
  }
}

}  // namespace
}  // namespace sprocket::cuda_simulator
