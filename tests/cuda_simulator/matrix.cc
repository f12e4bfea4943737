// mma.sync, ldmatrix, stmatrix, movmatrix.
#include <cstring>

#include "tests/cuda_simulator/access.h"
#include "tests/cuda_simulator/floats.h"
#include "tests/cuda_simulator/fragments.h"

namespace sprocket::cuda_simulator {
namespace {

constexpr int kRows = 16, kColumns = 8, kMaxDepth = 16;

// Products are exact in fp32 (16-bit factors), sums are made in fp32 in the order of k.
template <typename T>
void multiply(float (&c)[kRows][kColumns], const T (&a)[kRows][kMaxDepth],
              const T (&b)[kMaxDepth][kColumns], int depth) {
  for (int k = 0; k < depth; ++k) {
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kColumns; ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
}

// The list: registers of D, A, B, C. flags: depth | accumulator is f16 << 8.
template <typename H>
Step mma(Warp& w, const Instruction& in, Lanes lanes) {
  if (!w.converged(lanes, kAllLanes)) return Step::kWait;
  w.require_all(lanes);
  const int depth = static_cast<int>(in.flags & 0xff);
  const bool half_sums = in.flags >> 8 & 1;
  const int a_registers = depth / 4, b_registers = depth / 8, c_registers = half_sums ? 2 : 4;
  const uint32_t* d_at = w.list(in);
  const uint32_t* a_at = d_at + c_registers;
  const uint32_t* b_at = a_at + a_registers;
  const uint32_t* c_at = b_at + b_registers;
  float a[kRows][kMaxDepth], b[kMaxDepth][kColumns], c[kRows][kColumns];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < 2 * a_registers; ++i) {
      const Element e = a16_element(lane, i);
      a[e.row][e.column] = to_float(w.values<H>(a_at[i / 2])[2 * lane + i % 2]);
    }
    for (int i = 0; i < 2 * b_registers; ++i) {
      const Element e = b16_element(lane, i);
      b[e.row][e.column] = to_float(w.values<H>(b_at[i / 2])[2 * lane + i % 2]);
    }
    for (int i = 0; i < 4; ++i) {
      const Element e = c_element(lane, i);
      c[e.row][e.column] = half_sums ? to_float(w.values<Half>(c_at[i / 2])[2 * lane + i % 2])
                                     : w.values<float>(c_at[i])[lane];
    }
  }
  multiply(c, a, b, depth);
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Element e = c_element(lane, i);
      if (half_sums) {
        w.values<Half>(d_at[i / 2])[2 * lane + i % 2] = from_float<Half>(c[e.row][e.column]);
      } else {
        w.values<float>(d_at[i])[lane] = c[e.row][e.column];
      }
    }
  }
  return Step::kNext;
}

// tf32: the lower 13 bits do not count.
float tf32(uint32_t bits) { return std::bit_cast<float>(bits & ~0x1fffu); }

Step mma_tf32(Warp& w, const Instruction& in, Lanes lanes) {
  if (!w.converged(lanes, kAllLanes)) return Step::kWait;
  w.require_all(lanes);
  const int depth = static_cast<int>(in.flags & 0xff);
  const uint32_t* d_at = w.list(in);
  const uint32_t* a_at = d_at + 4;
  const uint32_t* b_at = a_at + depth / 2;
  const uint32_t* c_at = b_at + depth / 4;
  float a[kRows][kMaxDepth], b[kMaxDepth][kColumns], c[kRows][kColumns];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < depth / 2; ++i) {
      const Element e = a32_element(lane, i);
      a[e.row][e.column] = tf32(w.values<uint32_t>(a_at[i])[lane]);
    }
    for (int i = 0; i < depth / 4; ++i) {
      const Element e = b32_element(lane, i);
      b[e.row][e.column] = tf32(w.values<uint32_t>(b_at[i])[lane]);
    }
    for (int i = 0; i < 4; ++i) {
      const Element e = c_element(lane, i);
      c[e.row][e.column] = w.values<float>(c_at[i])[lane];
    }
  }
  multiply(c, a, b, depth);
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Element e = c_element(lane, i);
      w.values<float>(d_at[i])[lane] = c[e.row][e.column];
    }
  }
  return Step::kNext;
}

// A register that is written may be one that is read: both lists hold places, so D may alias C.
void append_vector(Decoder& d, const Operand& operand, size_t count, Type type, bool writes) {
  const bool is_vector = operand.kind == Operand::Kind::kVector;
  if ((is_vector ? operand.items.size() : 1) != count) unsupported("expected {} registers", count);
  for (size_t i = 0; i < count; ++i) {
    const Operand& item = is_vector ? operand.items[i] : operand;
    d.append(writes ? d.destination(item, type) : d.source(item, type));
  }
}

void decode_mma(Decoder& d, Modifiers& m) {
  if (!m.take("sync") || !m.take("aligned") || !m.take("row") || !m.take("col")) m.fail();
  const std::string_view shape = m.take_any({"m16n8k16", "m16n8k8", "m16n8k4"});
  if (shape.empty()) m.fail();
  const unsigned depth = shape == "m16n8k16" ? 16 : shape == "m16n8k8" ? 8 : 4;
  const Type to = m.type(), a = m.type(), b = m.type(), from = m.type();
  const bool half_sums = to == Type::kF16;
  if (a != b || to != from || (to != Type::kF32 && !(half_sums && a == Type::kF16))) m.fail();
  const bool is_tf32 = a == Type::kTf32;
  if (is_tf32 ? depth > 8 : depth < 8) m.fail();
  d.out().list = d.begin_list();
  d.out().flags = depth | (half_sums ? 1u << 8 : 0);
  const size_t sums = half_sums ? 2 : 4;
  append_vector(d, d.operand(0), sums, Type::kB32, true);
  append_vector(d, d.operand(1), is_tf32 ? depth / 2 : depth / 4, Type::kB32, false);
  append_vector(d, d.operand(2), is_tf32 ? depth / 4 : depth / 8, Type::kB32, false);
  append_vector(d, d.operand(3), sums, Type::kB32, false);
  d.out().handler = is_tf32            ? mma_tf32
                    : a == Type::kF16  ? mma<Half>
                    : a == Type::kBf16 ? mma<Bfloat>
                                       : nullptr;
  if (d.out().handler == nullptr) m.fail();
}

// flags: space | narrow base << 8 | transposed << 9 | number of matrices << 16.
AddressOperand row_address(const Instruction& in) {
  return {in.at[0], (in.flags >> 8 & 1) != 0, in.immediate};
}

// Lane 8 m + r gives the address of row r of matrix m.
std::byte* row(Warp& w, const Instruction& in, int lane) {
  const auto space = static_cast<Space>(in.flags & 0xff);
  return locate(w, space, lane, row_address(in).of(w, lane), 16, 16);
}

Step load_matrices(Warp& w, const Instruction& in, Lanes lanes) {
  if (!w.converged(lanes, kAllLanes)) return Step::kWait;
  w.require_all(lanes);
  const bool transposed = in.flags >> 9 & 1;
  const int count = static_cast<int>(in.flags >> 16);
  uint16_t matrix[4][8][8];
  for (int lane = 0; lane < 8 * count; ++lane)
    std::memcpy(matrix[lane / 8][lane % 8], row(w, in, lane), 16);
  for (int m = 0; m < count; ++m) {
    uint16_t* to = w.values<uint16_t>(w.list(in)[m]);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      for (int i = 0; i < 2; ++i) {
        const int r = lane / 4, c = lane % 4 * 2 + i;
        to[2 * lane + i] = transposed ? matrix[m][c][r] : matrix[m][r][c];
      }
    }
  }
  return Step::kNext;
}

Step store_matrices(Warp& w, const Instruction& in, Lanes lanes) {
  if (!w.converged(lanes, kAllLanes)) return Step::kWait;
  w.require_all(lanes);
  const bool transposed = in.flags >> 9 & 1;
  const int count = static_cast<int>(in.flags >> 16);
  w.cta().grid().event();
  uint16_t matrix[4][8][8];
  for (int m = 0; m < count; ++m) {
    const uint16_t* from = w.values<uint16_t>(w.list(in)[m]);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      for (int i = 0; i < 2; ++i) {
        const int r = lane / 4, c = lane % 4 * 2 + i;
        (transposed ? matrix[m][c][r] : matrix[m][r][c]) = from[2 * lane + i];
      }
    }
  }
  for (int lane = 0; lane < 8 * count; ++lane)
    std::memcpy(row(w, in, lane), matrix[lane / 8][lane % 8], 16);
  return Step::kNext;
}

void decode_matrices(Decoder& d, Modifiers& m) {
  const bool loads = m.root() == "ldmatrix";
  if (!m.take("sync") || !m.take("aligned") || !m.take("m8n8")) m.fail();
  const std::string_view x = m.take_any({"x1", "x2", "x4"});
  if (x.empty()) m.fail();
  const auto count = static_cast<uint32_t>(x[1] - '0');
  const bool transposed = m.take("trans");
  const Space space = space_named(m);
  if (m.type() != Type::kB16) m.fail();
  unsigned bytes;
  d.out().at[0] = d.address(d.operand(loads ? 1 : 0), bytes);
  d.out().flags = static_cast<uint32_t>(space) | (bytes == 4 ? 1u << 8 : 0) |
                  (transposed ? 1u << 9 : 0) | count << 16;
  d.out().list = d.begin_list();
  append_vector(d, d.operand(loads ? 0 : 1), count, Type::kB32, loads);
  d.out().handler = loads ? load_matrices : store_matrices;
}

Step transpose(Warp& w, const Instruction& in, Lanes lanes) {
  if (!w.converged(lanes, kAllLanes)) return Step::kWait;
  w.require_all(lanes);
  uint16_t from[8][8];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < 2; ++i)
      from[lane / 4][lane % 4 * 2 + i] = w.values<uint16_t>(in.at[1])[2 * lane + i];
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    for (int i = 0; i < 2; ++i)
      w.values<uint16_t>(in.at[0])[2 * lane + i] = from[lane % 4 * 2 + i][lane / 4];
  }
  return Step::kNext;
}

void decode_movmatrix(Decoder& d, Modifiers& m) {
  if (!m.take("sync") || !m.take("aligned") || !m.take("m8n8") || !m.take("trans")) m.fail();
  if (m.type() != Type::kB16) m.fail();
  d.out().at[0] = d.destination(0, Type::kB32);
  d.out().at[1] = d.source(1, Type::kB32);
  d.out().handler = transpose;
}

}  // namespace

std::vector<DecodeEntry> matrix_instructions() {
  return {{"mma", decode_mma},
          {"ldmatrix", decode_matrices},
          {"stmatrix", decode_matrices},
          {"movmatrix", decode_movmatrix}};
}

}  // namespace sprocket::cuda_simulator
