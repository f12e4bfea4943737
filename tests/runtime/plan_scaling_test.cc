// The simulation of many devices against the planner of a real mesh, and as a picture.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/plan/candidates.h"
#include "runtime/plan/scaling.h"
#include "runtime/planner/scaling_job.h"

namespace sprocket::runtime {
namespace {

ClusterModel cluster_of(int nodes, int devices) {
  ClusterModel cluster;
  cluster.name = "test";
  cluster.nodes = nodes;
  cluster.devices = devices;
  cluster.links[0] = {5e9, 3e-6, 1e-6, true, false, 0.5};
  cluster.links[1] = {1e9, 2e-5, 4e-6, true, false, 0.75};
  cluster.device = {1e12, 0.8e12, 1e12, 1e11, 1e10, 2e-6, 1e12};
  return cluster;
}

const config::LatentShape kShape{16, 16, 32, 32};  // 16 x 16 x 16 tokens, 64 whole cubes

config::LoadedJob load(const std::string& attention) {
  return config::parse_job(
      "model { dim: 256 heads: 4 layers: 1 ffn_dim: 512 } compute { precision: BF16 } " + attention,
      "job.txtpb", {}, {});
}

const ScalingPoint& find(const std::vector<ScalingPoint>& points, const std::string& strategy,
                         int ranks, bool weak = false) {
  for (const ScalingPoint& point : points) {
    if (point.strategy == strategy && point.ranks == ranks && point.weak == weak) return point;
  }
  throw std::runtime_error("no such point");
}

// Even shards: the same model, once by every rank's messages and once in closed form.
TEST(Scaling, EqualsThePlanOfAMeshForEvenShards) {
  for (const bool shared : {false, true}) {
    for (const char* attention :
         {"", "attention { method: VSA vsa { sparsity { start: 0.9 } } }"}) {
      const config::LoadedJob loaded = load(attention);
      ClusterModel cluster = cluster_of(4, 2);
      cluster.links[1].shared = shared;
      SelectionSource source;
      source.density = *attention == 0 ? 1 : 0.1;
      source.coverage = *attention == 0 ? 0.5 : 0.25;
      LayerPlanner planner(loaded.job, kShape, 0, source, cluster);
      const auto candidates = make_candidates(loaded, kShape, planner);
      const auto points =
          simulate_scaling(loaded.job, kShape, cluster, {{8}, source.density, source.coverage});
      int compared = 0;
      for (const ScalingPoint& point : points) {
        if (point.weak) continue;
        for (const Candidate& candidate : candidates) {
          const config::Parallel& parallel = candidate.parallel;
          if (!candidate.legal() || parallel.data() != 1 || parallel.outer() != point.outer)
            continue;
          const bool selected = point.strategy == "selected";
          if (point.outer > 1 && parallel.strategy() != (selected ? config::Parallel::SELECTED
                                                                  : config::Parallel::RING))
            continue;
          if (selected && parallel.remote_kv() != config::Parallel::KEEP) continue;
          ++compared;
          const AttentionCost& cost = candidate.attention;
          const double seconds = cost.forward.seconds() + cost.backward.seconds();
          EXPECT_NEAR(point.attention, seconds, 1e-9 * seconds) << point.strategy << attention;
          EXPECT_NEAR(point.exposed, cost.forward.exposed + cost.backward.exposed, 1e-9 * seconds)
              << point.strategy << attention;
          EXPECT_NEAR(point.sent_bytes,
                      static_cast<double>(candidate.forward_bytes + candidate.backward_bytes), 0.5)
              << point.strategy << attention;
        }
      }
      EXPECT_EQ(compared, 3) << attention;  // ring, hybrid and selected; 8 does not divide 4 heads
    }
  }
}

TEST(Scaling, IsNeverBetterThanIdealAndGrowsWithTheBandwidth) {
  const config::LoadedJob loaded =
      load("attention { method: VSA vsa { sparsity { start: 0.9 } } }");
  ClusterModel cluster = cluster_of(1, 4);
  const ScalingSpec spec{{4, 8, 16, 32, 64}, 0.1, 0.2};
  const auto slow = simulate_scaling(loaded.job, kShape, cluster, spec);
  cluster.links[1].bytes_per_second *= 4;
  const auto fast = simulate_scaling(loaded.job, kShape, cluster, spec);
  ASSERT_EQ(slow.size(), fast.size());
  for (size_t i = 0; i < slow.size(); ++i) {
    EXPECT_LE(slow[i].efficiency, 1);
    EXPECT_LE(fast[i].layer, slow[i].layer);
    EXPECT_EQ(slow[i].efficiency<fast[i].efficiency, slow[i].ranks> 4);
  }
  EXPECT_EQ(find(slow, "Ulysses", 4).ulysses, 4);
  EXPECT_THROW(find(slow, "Ulysses", 8), std::runtime_error);  // 4 heads
  EXPECT_EQ(find(slow, "hybrid", 64).outer, 16);
  EXPECT_EQ(find(slow, "ring", 64, true).tokens, 16 * 4096);
  EXPECT_GT(find(slow, "selected", 64, true).efficiency, find(slow, "ring", 64, true).efficiency);
}

TEST(Scaling, RangesOfRanks) {
  EXPECT_EQ(parse_scale("8:64"), (std::vector<int>{8, 16, 32, 64}));
  EXPECT_EQ(parse_scale("3:13"), (std::vector<int>{3, 6, 12}));
  EXPECT_EQ(parse_scale("1:1"), (std::vector<int>{1}));
  for (const char* wrong : {"", "8", "0:8", "16:8", "8:", ":8", "8:4k", "-1:8", "1:9999999999"}) {
    try {
      parse_scale(wrong);
      FAIL() << wrong;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("as in 8:4096, found " + std::string(wrong)));
    }
  }
}

TEST(Scaling, DrawsEveryStrategy) {
  const config::LoadedJob loaded = load("");
  const auto points =
      simulate_scaling(loaded.job, kShape, cluster_of(1, 2), {{2, 4, 8, 16}, 0.1, 0.25});
  const media::Image image = draw_scaling("Title", {"subtitle"}, points);
  EXPECT_EQ(image.rgb.size(), static_cast<size_t>(image.width) * image.height * 3);
  // A dot of each line's colour.
  for (const std::array<uint8_t, 3>& colour :
       {std::array<uint8_t, 3>{214, 96, 40}, std::array<uint8_t, 3>{150, 84, 170},
        std::array<uint8_t, 3>{44, 140, 90}, std::array<uint8_t, 3>{20, 90, 180}}) {
    int found = 0;
    for (size_t i = 0; i < image.rgb.size(); i += 3) {
      found += std::equal(colour.begin(), colour.end(), image.rgb.begin() + i);
    }
    EXPECT_GT(found, 50);
  }
  EXPECT_EQ(image.rgb, draw_scaling("Title", {"subtitle"}, points).rgb);
  EXPECT_EQ(draw_scaling("One", {}, {points.front()}).width, image.width);
}

}  // namespace
}  // namespace sprocket::runtime
