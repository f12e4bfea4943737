// Dense attention and sliding tiles, fp64, against the reference.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parallel/method_expectations.h"

namespace sprocket::parallel::testing {
namespace {

TEST(DenseMethod, Shapes) {
  for (AttentionCase c : cases_of(MethodKind::kDense)) {
    expect_exact_shapes(c);
    c.layout.prefix = {5, 0, 70};
    expect_exact_shapes(c);
  }
}

TEST(SlidingTileMethod, Shapes) {
  for (const auto& c : cases_of(MethodKind::kSlidingTile)) expect_exact_shapes(c);
}

TEST(SlidingTileMethod, Windows) {
  using Window = std::array<int, 3>;
  for (const Window& window :
       {Window{1, 1, 1}, {2, 2, 2}, {3, 3, 3}, {4, 1, 2}, {1, 5, 1}, {100, 100, 100}}) {
    for (const auto order : {BlockOrder::kRaster, BlockOrder::kKd, BlockOrder::kCubeHilbert}) {
      AttentionCase c;
      c.heads = 1;
      c.batch = 1;
      c.layout.grid = {9, 11, 8};
      c.layout.cube = {3, 2, 3};
      c.layout.order = order;
      c.spec.method = MethodKind::kSlidingTile;
      c.spec.sliding_tile.window = window;
      const Reference reference = expect_exact(c);
      EXPECT_EQ(reference.choice.selected.all().item<bool>(), window[0] == 100);
      c.layout.prefix = {4, 0, 70};
      expect_exact(c);
    }
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing
