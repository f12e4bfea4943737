// Tensor maps, mbarriers and wgmma through CuTe: its layouts, descriptors and copies confirm the
// simulator's for each swizzle.
#include <cutlass/arch/barrier.h>
#include <cute/tensor.hpp>

#include "tests/cuda_simulator/device_vector.h"

namespace sprocket::cuda_simulator {
namespace {

using namespace cute;  // NOLINT: the customary way to write CuTe code

using Element = bfloat16_t;
constexpr int kM = 64, kN = 96, kK = 64;
constexpr int kRows = 50;  // of A in global memory: the rest of the box is zero

struct Shared {
  alignas(1024) Element a[kM * kK];
  alignas(1024) Element b[kN * kK];
  alignas(1024) Element c[kM * kN];
  uint64_t barrier;
};

template <bool kFromRegisters, typename LayoutA, typename LayoutB, typename LayoutC, typename CopyA,
          typename CopyB, typename CopyC, typename Mma>
__global__ void tile_product(const __grid_constant__ CopyA copy_a,
                             const __grid_constant__ CopyB copy_b,
                             const __grid_constant__ CopyC copy_c, Mma mma, float* out) {
  using Barrier = cutlass::arch::ClusterTransactionBarrier;
  extern __shared__ __align__(1024) char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  auto s_a = make_tensor(make_smem_ptr(shared.a), LayoutA{});
  auto s_b = make_tensor(make_smem_ptr(shared.b), LayoutB{});
  auto s_c = make_tensor(make_smem_ptr(shared.c), LayoutC{});
  auto tile = make_shape(Int<kM>{}, Int<kN>{}, Int<kK>{});
  auto g_a = local_tile(copy_a.get_tma_tensor(make_shape(kRows, kK)), select<0, 2>(tile),
                        make_coord(0, 0));
  auto g_b =
      local_tile(copy_b.get_tma_tensor(make_shape(kN, kK)), select<1, 2>(tile), make_coord(0, 0));
  auto g_c = local_tile(copy_c.get_tma_tensor(make_shape(kRows, kN)), select<0, 1>(tile),
                        make_coord(0, 0));
  if (threadIdx.x == 0) {
    Barrier::init(&shared.barrier, 1);
    cutlass::arch::fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    Barrier::arrive_and_expect_tx(&shared.barrier, (kM + kN) * kK * sizeof(Element));
    auto slice_a = copy_a.get_slice(_0{});
    auto slice_b = copy_b.get_slice(_0{});
    copy(copy_a.with(shared.barrier), slice_a.partition_S(g_a), slice_a.partition_D(s_a));
    copy(copy_b.with(shared.barrier), slice_b.partition_S(g_b), slice_b.partition_D(s_b));
  }
  Barrier::wait(&shared.barrier, 0);

  auto thread = mma.get_thread_slice(threadIdx.x);
  auto r_b = thread.make_fragment_B(thread.partition_B(s_b));
  auto r_c = partition_fragment_C(mma, select<0, 1>(tile));
  clear(r_c);
  if constexpr (kFromRegisters) {
    auto p_a = thread.partition_A(s_a);
    auto r_a = thread.make_fragment_A(p_a);
    copy(p_a, r_a);
    warpgroup_fence_operand(r_a);
    warpgroup_arrive();
    gemm(mma, r_a, r_b, r_c);
  } else {
    auto r_a = thread.make_fragment_A(thread.partition_A(s_a));
    warpgroup_arrive();
    gemm(mma, r_a, r_b, r_c);
  }
  warpgroup_commit_batch();
  warpgroup_wait<0>();
  warpgroup_fence_operand(r_c);
  copy(r_c, thread.partition_C(
                make_tensor(make_gmem_ptr(out), select<0, 1>(tile), make_stride(Int<kN>{}, _1{}))));
  auto p_c = thread.partition_C(s_c);
  for (int i = 0; i < size(r_c); ++i) p_c(i) = static_cast<Element>(r_c(i));
  tma_store_fence();
  __syncthreads();
  if (threadIdx.x == 0) {
    auto slice = copy_c.get_slice(_0{});
    copy(copy_c, slice.partition_S(s_c), slice.partition_D(g_c));
    tma_store_arrive();
    tma_store_wait<0>();
  }
}

Element value(int i) { return static_cast<Element>(static_cast<float>(i * 7 % 11 - 5)); }

// A is kRows x kK and B is kN x kK, along K or along M and N.
template <template <typename> class AtomA, template <typename> class AtomB, GMMA::Major kMajorA,
          GMMA::Major kMajorB, bool kFromRegisters>
void check_product() {
  using LayoutA = decltype(tile_to_shape(AtomA<Element>{}, Shape<Int<kM>, Int<kK>>{}));
  using LayoutB = decltype(tile_to_shape(AtomB<Element>{}, Shape<Int<kN>, Int<kK>>{}));
  using LayoutC =
      decltype(tile_to_shape(GMMA::Layout_K_SW64_Atom<Element>{}, Shape<Int<kM>, Int<kN>>{}));
  constexpr int kPaddedRows = 56;  // 16-byte strides
  std::vector<Element> a(kPaddedRows * kK), b(kN * kK), c(kM * kN, static_cast<Element>(99.0f));
  const auto stride_a =
      kMajorA == GMMA::Major::K ? make_stride(kK, 1) : make_stride(1, kPaddedRows);
  const auto stride_b = kMajorB == GMMA::Major::K ? make_stride(kK, 1) : make_stride(1, kN);
  const auto at = [](auto stride, int i, int k) { return i * get<0>(stride) + k * get<1>(stride); };
  for (int i = 0; i < kRows; ++i) {
    for (int k = 0; k < kK; ++k) a[at(stride_a, i, k)] = value(i * 64 + k);
  }
  for (int i = 0; i < kN; ++i) {
    for (int k = 0; k < kK; ++k) b[at(stride_b, i, k)] = value(i * 3 + k * 5 + i * k);
  }
  DeviceVector<Element> device_a(a), device_b(b), device_c(c);
  DeviceVector<float> out(kM * kN);
  const auto map = [](auto pointer, int rows, int columns, auto major, int leading) {
    if constexpr (decltype(major)::value) {
      return make_tensor(make_gmem_ptr(pointer), make_shape(rows, columns),
                         make_stride(leading, _1{}));
    } else {
      return make_tensor(make_gmem_ptr(pointer), make_shape(rows, columns),
                         make_stride(_1{}, leading));
    }
  };
  constexpr auto a_along_k = bool_constant<kMajorA == GMMA::Major::K>{};
  constexpr auto b_along_k = bool_constant<kMajorB == GMMA::Major::K>{};
  auto copy_a = make_tma_copy(
      SM90_TMA_LOAD{}, map(device_a.data(), kRows, kK, a_along_k, a_along_k ? kK : kPaddedRows),
      LayoutA{});
  auto copy_b = make_tma_copy(
      SM90_TMA_LOAD{}, map(device_b.data(), kN, kK, b_along_k, b_along_k ? kK : kN), LayoutB{});
  auto copy_c =
      make_tma_copy(SM90_TMA_STORE{}, map(device_c.data(), kRows, kN, true_type{}, kN), LayoutC{});
  using Atom = std::conditional_t<kFromRegisters, SM90_64x96x16_F32BF16BF16_RS<kMajorA, kMajorB>,
                                  SM90_64x96x16_F32BF16BF16_SS<kMajorA, kMajorB>>;
  auto mma = make_tiled_mma(Atom{});
  auto* kernel = tile_product<kFromRegisters, LayoutA, LayoutB, LayoutC, decltype(copy_a),
                              decltype(copy_b), decltype(copy_c), decltype(mma)>;
  ASSERT_EQ(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared)),
      cudaSuccess);
  kernel<<<1, 128, sizeof(Shared)>>>(copy_a, copy_b, copy_c, mma, out.data());
  const auto results = out.host();
  const auto stored = device_c.host();
  for (int i = 0; i < kM; ++i) {
    for (int j = 0; j < kN; ++j) {
      float sum = 0;
      for (int k = 0; k < kK && i < kRows; ++k) {
        sum +=
            static_cast<float>(a[at(stride_a, i, k)]) * static_cast<float>(b[at(stride_b, j, k)]);
      }
      ASSERT_EQ(results[i * kN + j], sum) << i << ", " << j;
      ASSERT_EQ(static_cast<float>(stored[i * kN + j]),
                i < kRows ? static_cast<float>(static_cast<Element>(sum)) : 99);
    }
  }
}

constexpr auto kAlongK = GMMA::Major::K, kAlongMn = GMMA::Major::MN;

TEST(Hopper, product_without_swizzle_along_k) {
  check_product<GMMA::Layout_K_INTER_Atom, GMMA::Layout_K_INTER_Atom, kAlongK, kAlongK, false>();
}
TEST(Hopper, product_swizzle_32_along_k) {
  check_product<GMMA::Layout_K_SW32_Atom, GMMA::Layout_K_SW32_Atom, kAlongK, kAlongK, false>();
}
TEST(Hopper, product_swizzle_64_along_k) {
  check_product<GMMA::Layout_K_SW64_Atom, GMMA::Layout_K_SW64_Atom, kAlongK, kAlongK, false>();
}
TEST(Hopper, product_swizzle_128_along_k) {
  check_product<GMMA::Layout_K_SW128_Atom, GMMA::Layout_K_SW128_Atom, kAlongK, kAlongK, false>();
}
TEST(Hopper, product_without_swizzle_along_m_and_n) {
  check_product<GMMA::Layout_MN_INTER_Atom, GMMA::Layout_MN_INTER_Atom, kAlongMn, kAlongMn,
                false>();
}
TEST(Hopper, product_swizzle_32_along_m_and_n) {
  check_product<GMMA::Layout_MN_SW32_Atom, GMMA::Layout_MN_SW32_Atom, kAlongMn, kAlongMn, false>();
}
TEST(Hopper, product_swizzle_64_and_128_mixed) {
  check_product<GMMA::Layout_MN_SW128_Atom, GMMA::Layout_MN_SW64_Atom, kAlongMn, kAlongMn, false>();
}
TEST(Hopper, product_from_registers) {
  check_product<GMMA::Layout_K_SW128_Atom, GMMA::Layout_MN_SW64_Atom, kAlongK, kAlongMn, true>();
}

}  // namespace
}  // namespace sprocket::cuda_simulator
