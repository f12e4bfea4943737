#include "launcher/status/status_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sstream>

#include "launcher/status/exposition.h"
#include "tests/launcher/status/example_status.h"

namespace sprocket::launcher {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(StatusTable, OfAnExample) {
  EXPECT_EQ(status_table(example_status(), 0),
            R"(train --config job.txtpb
running for 1:02:05   supervised on node1 by process 4000
step 120/500 (24 %)   loss 0.1235   1.020 s/step   10234 tokens/s   exposed communication 18.8 %   ETA 6:28
restarts 1   checkpoint at step 100, 0:21 ago   slowest rank 2
last failure: crash: rank 3 (node2, process 4613) was ended by SIGKILL (Killed)
straggler: rank 2 (node2, process 4712): its own part of a step takes 1.31 times the median of the others; the others waited 240.0 ms of each 1.020 s for it

rank  host   process  section  step  own time  exposed   memory      heard  last operation
   0  node1     4710  step      120  780.0 ms   23.5 %  1.23 GB  0.2 s ago  in exchange #41 of sp.outer[0] (layer 3, backward, step 120)
   1  node1     4711  step      120  780.0 ms   23.5 %  1.23 GB  0.2 s ago  in exchange #41 of sp.outer[0] (layer 3, backward, step 120)
   2  node2     4712  step      120   1.020 s    0.0 %  1.23 GB  0.2 s ago  after exchange #41 of sp.outer[0] (layer 3, backward, step 120)
   3  -            -  -           -         -        -        -          -  not heard of yet
)");
}

TEST(StatusTable, LinesFitTheTerminal) {
  std::istringstream lines(status_table(example_status(), 60));
  size_t longest = 0;
  for (std::string line; std::getline(lines, line);) longest = std::max(longest, line.size());
  EXPECT_EQ(longest, 60u);
}

TEST(StatusTable, WhatRanksSayDoesNotMoveTheCursor) {
  JobStatus status = example_status();
  status.ranks[0].host = "no\033[2Jde\x7f";
  status.last_failure = "two\r\nlines";
  const std::string table = status_table(status, 0);
  EXPECT_THAT(table, HasSubstr("no?[2Jde?"));
  EXPECT_THAT(table, HasSubstr("two?"));
  EXPECT_THAT(table, Not(HasSubstr("\033")));
}

TEST(StatusTable, OfAJobThatHasJustBegun) {
  JobStatus status;
  status.command = "train";
  status.host = "node1";
  status.process = 1;
  status.ranks.resize(1);
  EXPECT_EQ(status_table(status, 0), R"(train
starting for 0:00   supervised on node1 by process 1
no step yet
restarts 0   no checkpoint since the launch

rank  host  process  section  step  own time  exposed  memory  heard  last operation
   0  -           -  -           -         -        -       -      -  not heard of yet
)");
}

TEST(StatusLine, OfAnExample) {
  EXPECT_EQ(status_line(example_status()),
            "running   step 120/500 (24 %)   loss 0.1235   1.020 s/step   10234 tokens/s   exposed "
            "communication 18.8 %   ETA 6:28   restarts 1   checkpoint at step 100, 0:21 ago   "
            "slowest rank 2   straggler rank 2");
}

TEST(Exposition, HasTheExamplesNumbers) {
  const std::string text = exposition(example_status());
  for (const char* line :
       {"# TYPE sprocket_job_restarts_total counter\n", "sprocket_job_restarts_total 1\n",
        "sprocket_job_state{state=\"running\"} 1\n", "sprocket_job_state{state=\"stopping\"} 0\n",
        "sprocket_job_steps_done 120\n", "sprocket_job_steps 500\n", "sprocket_job_healthy 1\n",
        "sprocket_job_exposed_communication_ratio 0.1875\n",
        "sprocket_rank_own_seconds{host=\"node2\",rank=\"2\"} 1.02\n",
        "sprocket_rank_straggler{host=\"node2\",rank=\"2\"} 1\n",
        "sprocket_rank_connected{host=\"\",rank=\"3\"} 0\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(Exposition, WhatIsUnknownIsLeftOut) {
  const std::string text = exposition(JobStatus{});
  EXPECT_THAT(text, Not(HasSubstr("sprocket_job_loss")));
  EXPECT_THAT(text, Not(HasSubstr("sprocket_job_checkpoint_step")));
  EXPECT_THAT(text, HasSubstr("sprocket_job_state{state=\"starting\"} 1\n"));
}

}  // namespace
}  // namespace sprocket::launcher
