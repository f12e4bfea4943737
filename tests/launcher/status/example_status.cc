#include "tests/launcher/status/example_status.h"

namespace sprocket::launcher {

JobStatus example_status() {
  JobStatus status;
  status.command = "train --config job.txtpb";
  status.folder = "/data/run";
  status.host = "node1";
  status.process = 4000;
  status.state = JobState::kRunning;
  status.seconds = 3725;
  status.step = 120;
  status.total_steps = 500;
  status.loss = .12345;
  status.step_seconds = 1.02;
  status.tokens_per_second = 10234.4;
  status.exposed_share = .1875;
  status.eta_seconds = 387.6;
  status.slowest_rank = 2;
  status.straggler = 2;
  status.straggler_sentence =
      "rank 2 (node2, process 4712): its own part of a step takes 1.31 times the median of the "
      "others; the others waited 240.0 ms of each 1.020 s for it";
  status.restarts = 1;
  status.last_failure = "crash: rank 3 (node2, process 4613) was ended by SIGKILL (Killed)";
  status.checkpoint_step = 100;
  status.checkpoint_age = 21;
  status.idle_seconds = .4;
  status.idle_limit = 600;
  for (int i = 0; i < 4; ++i) {
    RankStatus& rank = status.ranks.emplace_back();
    rank.rank = i;
    if (i == 3) break;  // it has not reported yet
    rank.host = i < 2 ? "node1" : "node2";
    rank.process = 4710 + i;
    rank.connected = true;
    rank.section = "step";
    rank.operation = "exchange #41 of sp.outer[0] (layer 3, backward, step 120)";
    rank.in_operation = i != 2;
    rank.step = 120;
    rank.memory_bytes = 1'230'000'000 + 1'000'000 * i;
    rank.silent_seconds = .25;
    rank.own_seconds = i == 2 ? 1.02 : .78;
    rank.exposed_share = i == 2 ? 0 : .235;
  }
  return status;
}

}  // namespace sprocket::launcher
