// What the ranks of a job leave when an operation was not completed in time, with or without a
// supervisor.
//
// The rank whose patience ended has told the others. Each of them writes its last words (the last
// operations of its communicators) into a folder that all see; whoever comes first puts them
// together: who has left none, or came late, and what the others waited in.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "runtime/control/control.pb.h"
#include "runtime/control/pulse.h"

namespace sprocket::launcher {

// The folder of this start of the ranks, in the working folder: "sprocket_hang_…" by the number
// that mpirun or srun gave it.
std::string post_mortem_folder();

struct PostMortemOptions {
  std::string folder;
  int rank = 0;
  int ranks = 1;
  // For the words of the others; they come within moments of the abort, or not at all.
  std::chrono::milliseconds patience{2000};
};

// Writes rank_N.txtpb; on the first rank that comes also report.txt, when all have written or
// patience is over, and returns its first sentence. Elsewhere waits for that report, because mpirun
// kills all ranks as soon as one ends. Not collective; throws OutputError.
std::optional<std::string> leave_post_mortem(const PostMortemOptions& options,
                                             const control::LastWords& words);

// By rank, empty where there are none.
using WordsByRank = std::vector<std::optional<control::LastWords>>;

// One sentence: who held the others up, and in what.
std::string post_mortem_sentence(const WordsByRank& words);
// All that is known.
std::string post_mortem_report(const WordsByRank& words);

}  // namespace sprocket::launcher
