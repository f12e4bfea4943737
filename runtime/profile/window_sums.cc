#include "runtime/profile/window_sums.h"

namespace sprocket::profile {

void WindowSums::add(std::span<const RankStep> step, std::span<const MatchedOperation> matched,
                     const std::vector<std::string>& hosts) {
  ranks.resize(step.size());
  const double count = static_cast<double>(step.size());
  if (!step.front().step.recorded) {
    double wall = 0;
    for (const RankStep& rank : step) wall += 1e-9 * static_cast<double>(rank.step.wall_ns) / count;
    unrecorded_seconds.push_back(wall);
    return;
  }
  StepParts sum;
  int64_t waited_before = 0, waited = 0;
  for (const RankSums& rank : ranks) waited_before += rank.wait_ns;
  std::vector<IntervalSet> compute;
  for (size_t r = 0; r < step.size(); ++r) {
    RankSums::Step of_rank = ranks[r].add(step[r], hosts);
    sum.add(of_rank.parts);
    compute.push_back(std::move(of_rank.compute));
  }
  operations.add(step, compute, matched, ranks);
  for (const RankSums& rank : ranks) waited += rank.wait_ns;
  const auto ms = [count](int64_t ns) { return 1e-6 * static_cast<double>(ns) / count; };
  seconds.push_back(1e-3 * ms(sum.wall_ns));
  each.compute.push_back(ms(sum.compute_ns));
  each.exposed_communication.push_back(ms(sum.exposed_ns));
  each.copies.push_back(ms(sum.copies_ns));
  each.data_wait.push_back(ms(sum.data_wait_ns));
  each.other.push_back(ms(sum.other_ns));
  each.waiting.push_back(ms(waited - waited_before));
  dense_equivalent_flops += step.front().step.dense_equivalent_flops;
  executed_flops += step.front().step.executed_flops;
  all_tokens += step.front().step.all_tokens;
}

}  // namespace sprocket::profile
