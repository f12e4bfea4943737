#include "parallel/gilbert_curve.h"

#include <cstdlib>
#include <utility>

#include "base/error.h"

namespace sprocket::parallel {
namespace {

using Cell = std::array<int32_t, 3>;  // (t, h, w)

// A directed side of a box: |length| cells along an axis, walked up or down.
struct Side {
  int axis;
  int length;

  int cells() const { return std::abs(length); }
  int step() const { return (length > 0) - (length < 0); }
  Side operator-() const { return {axis, -length}; }
  Side last() const { return {axis, length - step()}; }  // from the first cell to the last one
  Side without(const Side& part) const { return {axis, length - part.length}; }

  // A right shift rounds towards minus infinity. Even halves keep the curve free of diagonal steps.
  Side half() const {
    Side part{axis, length >> 1};
    if (part.cells() % 2 != 0 && cells() > 2) part.length += step();
    return part;
  }
};

Cell operator+(Cell cell, const Side& side) {
  cell[side.axis] += side.length;
  return cell;
}

class Curve {
 public:
  explicit Curve(int64_t cells) { cells_.reserve(cells); }

  // Walks the box with a corner at `at`, from there to the other end of side a.
  void fill(const Cell& at, const Side& a, const Side& b, const Side& c) {
    const int64_t w = a.cells(), h = b.cells(), d = c.cells();
    if (h == 1 && d == 1) return line(at, a);
    if (w == 1 && d == 1) return line(at, b);
    if (w == 1 && h == 1) return line(at, c);
    if (2 * w > 3 * h && 2 * w > 3 * d) {
      const Side a_half = a.half();
      fill(at, a_half, b, c);
      fill(at + a_half, a.without(a_half), b, c);
    } else if (3 * h > 4 * d) {
      around_b(at, a, b, c);
    } else if (3 * d > 4 * h) {
      around_c(at, a, b, c);
    } else {
      around_both(at, a, b, c);
    }
  }

  std::vector<Cell> take() { return std::move(cells_); }

 private:
  void line(Cell at, const Side& side) {
    for (int i = 0; i < side.cells(); ++i, at[side.axis] += side.step()) cells_.push_back(at);
  }

  // Out along half of b, across along a, and back.
  void around_b(const Cell& at, const Side& a, const Side& b, const Side& c) {
    const Side a_half = a.half(), b_half = b.half();
    fill(at, b_half, c, a_half);
    fill(at + b_half, a, b.without(b_half), c);
    fill(at + a.last() + b_half.last(), -b_half, c, -a.without(a_half));
  }

  // Out along half of c, across along a, and back.
  void around_c(const Cell& at, const Side& a, const Side& b, const Side& c) {
    const Side a_half = a.half(), c_half = c.half();
    fill(at, c_half, a_half, b);
    fill(at + c_half, a, b, c.without(c_half));
    fill(at + a.last() + c_half.last(), -c_half, -a.without(a_half), b);
  }

  // The five legs of the Hilbert curve: b, c, across along a, back along c, back along b.
  void around_both(const Cell& at, const Side& a, const Side& b, const Side& c) {
    const Side a_half = a.half(), b_half = b.half(), c_half = c.half();
    const Side a_rest = a.without(a_half), b_rest = b.without(b_half), c_rest = c.without(c_half);
    fill(at, b_half, c_half, a_half);
    fill(at + b_half, c, a_half, b_rest);
    fill(at + b_half.last() + c.last(), a, -b_half, -c_rest);
    fill(at + a.last() + b_half + c.last(), -c, -a_rest, b_rest);
    fill(at + a.last() + b_half.last(), -b_half, c_half, -a_rest);
  }

  std::vector<Cell> cells_;
};

}  // namespace

std::vector<Cell> gilbert_curve(const Cell& size) {
  SPROCKET_CHECK(size[0] > 0 && size[1] > 0 && size[2] > 0, "box {}x{}x{}", size[0], size[1],
                 size[2]);
  const Side t{0, size[0]}, h{1, size[1]}, w{2, size[2]};
  Curve curve(static_cast<int64_t>(size[0]) * size[1] * size[2]);
  if (w.length >= h.length && w.length >= t.length) {
    curve.fill({0, 0, 0}, w, h, t);
  } else if (h.length >= t.length) {
    curve.fill({0, 0, 0}, h, w, t);
  } else {
    curve.fill({0, 0, 0}, t, w, h);
  }
  return curve.take();
}

}  // namespace sprocket::parallel
