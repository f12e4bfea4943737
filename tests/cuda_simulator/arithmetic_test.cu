// Integer and float instructions against the same expressions on the host.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "tests/cuda_simulator/device_vector.h"

namespace sprocket::cuda_simulator {
namespace {

constexpr int kThreads = 96;

struct Integers {
  int32_t quotient, remainder, shifted, high, smallest;
  uint32_t product, funnel, population, leading, reversed, permuted, field, logic,
      unsigned_quotient;
  int64_t wide, wide_quotient;
  uint64_t wide_high;
  int16_t narrow;
  uint8_t byte;
};

__host__ __device__ int32_t spread(int i) {
  const uint32_t x = static_cast<uint32_t>(i + 1) * 2654435761u;
  return static_cast<int32_t>(i % 3 == 0 ? x : i % 3 == 1 ? x >> 20 : ~(x >> 17));
}

__global__ void integers(Integers* out) {
  const int i = threadIdx.x;
  const int32_t a = spread(i), b = spread(i + 7);
  const uint32_t ua = a, ub = b;
  Integers r;
  r.quotient = a / b;
  r.remainder = a % b;
  r.shifted = a >> (b & 31);
  r.high = __mulhi(a, b);
  r.smallest = min(a, b);
  r.product = ua * ub + 3;
  r.funnel = __funnelshift_r(ua, ub, i);
  r.population = __popc(ua) + __popcll(static_cast<uint64_t>(ua) << 20 | ub);
  r.leading = __clz(a) * 100 + __ffs(b);
  r.reversed = __brev(ua);
  r.permuted = __byte_perm(ua, ub, 0x3715);
  asm("bfe.u32 %0, %1, 5, 9;" : "=r"(r.field) : "r"(ua));
  asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(r.logic) : "r"(ua), "r"(ub), "r"(0x12345678));
  r.unsigned_quotient = ua / (ub | 1);
  r.wide = static_cast<int64_t>(a) * b - 5;
  r.wide_quotient = (static_cast<int64_t>(a) << 21) / b;
  r.wide_high =
      __umul64hi(static_cast<uint64_t>(a) * 0x9e3779b97f4a7c15u, ~static_cast<uint64_t>(ub));
  r.narrow = static_cast<int16_t>(static_cast<int16_t>(a) * static_cast<int16_t>(b));
  r.byte = static_cast<uint8_t>(static_cast<int8_t>(a) >> 2);
  out[i] = r;
}

TEST(Arithmetic, integers) {
  DeviceVector<Integers> out(kThreads);
  integers<<<1, kThreads>>>(out.data());
  const auto results = out.host();
  for (int i = 0; i < kThreads; ++i) {
    const int32_t a = spread(i), b = spread(i + 7);
    const uint32_t ua = a, ub = b;
    const Integers& r = results[i];
    EXPECT_EQ(r.quotient, a / b) << i;
    EXPECT_EQ(r.remainder, a % b) << i;
    EXPECT_EQ(r.shifted, a >> (b & 31)) << i;
    EXPECT_EQ(r.high, static_cast<int32_t>((static_cast<int64_t>(a) * b) >> 32)) << i;
    EXPECT_EQ(r.smallest, std::min(a, b)) << i;
    EXPECT_EQ(r.product, ua * ub + 3) << i;
    EXPECT_EQ(r.funnel, static_cast<uint32_t>((static_cast<uint64_t>(ub) << 32 | ua) >> (i & 31)))
        << i;
    EXPECT_EQ(r.population,
              __builtin_popcount(ua) + __builtin_popcountll(static_cast<uint64_t>(ua) << 20 | ub));
    EXPECT_EQ(r.leading, __builtin_clz(ua) * 100 + __builtin_ffs(b)) << i;
    uint32_t reversed = 0;
    for (int k = 0; k < 32; ++k) reversed |= (ua >> k & 1) << (31 - k);
    EXPECT_EQ(r.reversed, reversed);
    const auto byte = [&](int k) { return (k < 4 ? ua >> (8 * k) : ub >> (8 * (k - 4))) & 0xff; };
    EXPECT_EQ(r.permuted, byte(5) | byte(1) << 8 | byte(7) << 16 | byte(3) << 24);
    EXPECT_EQ(r.field, ua >> 5 & 511);
    EXPECT_EQ(r.logic, ua ^ ub ^ 0x12345678);
    EXPECT_EQ(r.unsigned_quotient, ua / (ub | 1));
    EXPECT_EQ(r.wide, static_cast<int64_t>(a) * b - 5);
    EXPECT_EQ(r.wide_quotient, (static_cast<int64_t>(a) * (1 << 21)) / b);
    const unsigned __int128 p =
        static_cast<unsigned __int128>(static_cast<uint64_t>(a) * 0x9e3779b97f4a7c15u) *
        ~static_cast<uint64_t>(ub);
    EXPECT_EQ(r.wide_high, static_cast<uint64_t>(p >> 64));
    EXPECT_EQ(r.narrow, static_cast<int16_t>(static_cast<int16_t>(a) * static_cast<int16_t>(b)));
    EXPECT_EQ(r.byte, static_cast<uint8_t>(static_cast<int8_t>(a) >> 2));
  }
}

// Up to 36 in magnitude, with 20 digits.
__host__ __device__ float real(int i) {
  const int32_t bits = static_cast<int32_t>(static_cast<uint32_t>(i + 1) * 2654435761u) >> 12;
  return (static_cast<float>(bits) * 0x1p-19f) * (i % 4 == 0 ? 36 : 1);
}

struct Floats {
  float sum, fused, quotient, root, exponential, sine, largest, toward_zero, downward;
  double wide;
  int truncated, nearest;
  uint32_t saturated;
  uint16_t bf16, f16;
  float from_bf16, from_f16;
  uint32_t pair;
  int order;
};

__global__ void floats(Floats* out) {
  const int i = threadIdx.x;
  const float a = real(i), b = real(3 * i + 1), c = real(i + 40);
  Floats r;
  r.sum = __fadd_rn(a, b) - c;
  r.fused = fmaf(a, b, c);
  r.quotient = a / b;
  r.root = sqrtf(fabsf(a));
  r.exponential = expf(a * 0.1f);
  r.sine = sinf(a);
  r.largest = fmaxf(a, b);
  r.toward_zero = __fadd_rz(a, b * 0.001f);
  r.downward = __fmul_rd(a, b);
  r.wide = static_cast<double>(a) / b + sqrt(fabs(static_cast<double>(c)));
  r.truncated = static_cast<int>(a);
  r.nearest = __float2int_rn(a * 3);
  r.saturated = static_cast<uint32_t>(a * 1e9f);
  const __nv_bfloat16 x = __float2bfloat16(a);
  const __half y = __float2half(b);
  r.bf16 = __bfloat16_as_ushort(x);
  r.f16 = __half_as_ushort(y);
  r.from_bf16 = __bfloat162float(__hfma(x, x, x));
  r.from_f16 = __half2float(__hadd(y, __hmul(y, y)));
  const __nv_bfloat162 both = __floats2bfloat162_rn(a, b);
  r.pair = reinterpret_cast<const uint32_t&>(both);
  r.order = (a < b) + 2 * (a == c) + 4 * !(b >= c) + 8 * isnan(a * INFINITY * 0.0f);
  out[i] = r;
}

uint16_t nearest_bf16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
float value_of_bf16(uint16_t bits) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
}

TEST(Arithmetic, floats) {
  DeviceVector<Floats> out(kThreads);
  floats<<<1, kThreads>>>(out.data());
  const auto results = out.host();
  for (int i = 0; i < kThreads; ++i) {
    const float a = real(i), b = real(3 * i + 1), c = real(i + 40);
    const Floats& r = results[i];
    const volatile float sum = a + b;
    EXPECT_EQ(r.sum, sum - c);
    EXPECT_EQ(r.fused, std::fma(a, b, c));
    EXPECT_EQ(r.quotient, a / b);
    EXPECT_EQ(r.root, std::sqrt(std::fabs(a)));
    EXPECT_NEAR(r.exponential, std::exp(a * 0.1f), 4e-7f * std::exp(a * 0.1f));
    EXPECT_NEAR(r.sine, std::sin(a), 3e-7f);
    EXPECT_EQ(r.largest, std::fmax(a, b));
    const volatile float small = b * 0.001f;
    const double exact = static_cast<double>(a) + small;
    EXPECT_LE(std::fabs(r.toward_zero), std::fabs(exact));
    EXPECT_GT(std::nextafter(std::fabs(r.toward_zero), 1e9f), std::fabs(exact));
    EXPECT_LE(r.downward, static_cast<double>(a) * b);
    EXPECT_GT(std::nextafter(r.downward, 1e9f), static_cast<double>(a) * b);
    EXPECT_EQ(r.wide, static_cast<double>(a) / b + std::sqrt(std::fabs(static_cast<double>(c))));
    EXPECT_EQ(r.truncated, static_cast<int>(a));
    EXPECT_EQ(r.nearest, static_cast<int>(std::nearbyint(a * 3)));
    const float big = a * 1e9f;
    EXPECT_EQ(r.saturated, big < 0 ? 0u : big > 4.29e9f ? ~0u : static_cast<uint32_t>(big));
    EXPECT_EQ(r.bf16, nearest_bf16(a));
    EXPECT_EQ(r.f16, __half_as_ushort(__float2half(b)));
    const double x = value_of_bf16(nearest_bf16(a));
    EXPECT_NEAR(r.from_bf16, x * x + x, std::fabs(x * x + x) / 256 + 1e-6);
    const double y = __half2float(__float2half(b));
    EXPECT_NEAR(r.from_f16, y + y * y, (std::fabs(y) + y * y) / 1024);
    EXPECT_EQ(r.pair, static_cast<uint32_t>(nearest_bf16(b)) << 16 | nearest_bf16(a));
    EXPECT_EQ(r.order, (a < b) + 2 * (a == c) + 4 * !(b >= c) + 8);
  }
}

// cvt of every rounding at the edges: ties, overflow, NaN, subnormals.
__global__ void edges(const float* in, uint32_t* out) {
  const float a = in[threadIdx.x];
  uint32_t* r = out + threadIdx.x * 6;
  uint16_t h, t;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(a));
  asm("cvt.rz.f16.f32 %0, %1;" : "=h"(t) : "f"(a));
  r[0] = h;
  r[1] = t;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(a));
  asm("cvt.rz.bf16.f32 %0, %1;" : "=h"(t) : "f"(a));
  r[2] = h;
  r[3] = t;
  asm("cvt.rni.s32.f32 %0, %1;" : "=r"(r[4]) : "f"(a));
  asm("cvt.rzi.u32.f32 %0, %1;" : "=r"(r[5]) : "f"(a));
}

TEST(Arithmetic, conversions_at_edges) {
  const float inf = std::numeric_limits<float>::infinity(),
              nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> in = {2049.0f,  2051.0f,    65519.0f,    65520.0f, inf,  nan,
                                 0x1p-25f, 0x1.8p-24f, 1.00390625f, -2.5f,    3e9f, -3e9f};
  const std::vector<uint32_t> expected = {
      0x6800, 0x6800, 0x4500, 0x4500, 2049,       2049,         // tie to even
      0x6802, 0x6801, 0x4500, 0x4500, 2051,       2051,         // tie to even, up
      0x7bff, 0x7bff, 0x4780, 0x477f, 65519,      65519,        // the largest half
      0x7c00, 0x7bff, 0x4780, 0x477f, 65520,      65520,        // overflow
      0x7c00, 0x7c00, 0x7f80, 0x7f80, 0x7fffffff, 0xffffffff,   // infinity
      0x7fff, 0x7fff, 0x7fff, 0x7fff, 0,          0,            // NaN
      0x0000, 0x0000, 0x3300, 0x3300, 0,          0,            // half of the least subnormal
      0x0002, 0x0001, 0x33c0, 0x33c0, 0,          0,            // a tie of subnormals
      0x3c04, 0x3c04, 0x3f80, 0x3f80, 1,          1,            // a tie of bf16
      0xc100, 0xc100, 0xc020, 0xc020, 0xfffffffe, 0,            // negative
      0x7c00, 0x7bff, 0x4f33, 0x4f32, 0x7fffffff, 3000000000u,  // beyond int32
      0xfc00, 0xfbff, 0xcf33, 0xcf32, 0x80000000, 0};
  DeviceVector<float> device_in(in);
  DeviceVector<uint32_t> out(expected.size());
  edges<<<1, static_cast<unsigned>(in.size())>>>(device_in.data(), out.data());
  const auto results = out.host();
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(results[i], expected[i]) << "value " << in[i / 6] << " conversion " << i % 6;
  }
}

}  // namespace
}  // namespace sprocket::cuda_simulator
