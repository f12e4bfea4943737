// The generalised Hilbert curve over a box of any size.
//
// Source: the published gilbert3d(width, height, depth) of J. Cerveny with width = w, height = h,
// depth = t, which PSA and ASA order their tokens by. The curve is reproduced cell by cell: the
// halves of a negative extent are rounded towards minus infinity, as there, because rounding
// towards zero gives another curve on most odd boxes.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace sprocket::parallel {

// All cells (t, h, w) of a box of size (t, h, w), each once, in the order of the curve; the first
// is (0, 0, 0). Neighbours on the curve are neighbours in the box if every extent is even. A flat
// box with an odd extent has at most one diagonal step; other odd boxes have some diagonal and
// longer steps as well. Every extent has to be positive.
std::vector<std::array<int32_t, 3>> gilbert_curve(const std::array<int32_t, 3>& size);

}  // namespace sprocket::parallel
