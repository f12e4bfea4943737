// Who belongs to whom after a split.
#pragma once

#include <algorithm>
#include <vector>

namespace sprocket::comm {

struct SplitChoice {
  int colour = 0;
  int key = 0;
  bool operator==(const SplitChoice&) const = default;
};

struct Part {
  std::vector<int> members;  // ranks of the group that was split, in their new order
  int rank = 0;              // the own one among them
};

// The part of `rank`: the ranks of its colour by (key, rank).
inline Part part_of(int rank, const std::vector<SplitChoice>& choices) {
  Part part;
  for (int r = 0; r < static_cast<int>(choices.size()); ++r) {
    if (choices[r].colour == choices[rank].colour) part.members.push_back(r);
  }
  std::stable_sort(part.members.begin(), part.members.end(),
                   [&](int a, int b) { return choices[a].key < choices[b].key; });
  part.rank = static_cast<int>(std::find(part.members.begin(), part.members.end(), rank) -
                               part.members.begin());
  return part;
}

}  // namespace sprocket::comm
