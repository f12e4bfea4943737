#include "tests/mpi_tests.h"

#include <mpi.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <sstream>
#include <string>

namespace sprocket::testing {
namespace {

void prefixed_print(int rank, const std::string& text) {
  std::istringstream lines(text);
  std::string prefixed;
  for (std::string line; std::getline(lines, line);) {
    prefixed += "[rank " + std::to_string(rank) + "] " + line + "\n";
  }
  std::fputs(prefixed.c_str(), stderr);  // in one piece: other ranks print too
  std::fflush(stderr);
}

class RankListener : public ::testing::EmptyTestEventListener {
 public:
  explicit RankListener(int rank) : rank_(rank) {}

  // GoogleTest holds its lock while it reports a failure, so the name cannot be asked for then.
  void OnTestStart(const ::testing::TestInfo& test) override {
    running_ = std::string(test.test_suite_name()) + "." + test.name();
  }

  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::ostringstream text;
    text << running_ << " " << (result.file_name() ? result.file_name() : "?") << ":"
         << result.line_number() << ": failure\n"
         << result.message();
    prefixed_print(rank_, text.str());
  }

  void OnTestEnd(const ::testing::TestInfo& test) override {
    if (!test.result()->HasFatalFailure()) return;
    prefixed_print(rank_, std::string("aborts the job after ") + running_);
    std::fflush(stdout);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }

 private:
  const int rank_;
  std::string running_;
};

}  // namespace

int run_mpi_tests(int* argc, char*** argv) {
  int provided = 0;
  MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided);
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  ::testing::InitGoogleTest(argc, *argv);
  auto& unit_test = *::testing::UnitTest::GetInstance();
  auto& listeners = unit_test.listeners();
  if (rank != 0) delete listeners.Release(listeners.default_result_printer());
  listeners.Append(new RankListener(rank));

  const int failed = RUN_ALL_TESTS();
  int own[] = {unit_test.test_to_run_count(), unit_test.skipped_test_count(),
               std::max(failed, unit_test.failed_test_count())};
  int most[3] = {};
  MPI_Allreduce(own, most, 3, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (rank == 0) {
    std::printf("%d ranks: %d tests each, at most %d skipped and %d failed on a rank\n", size,
                most[0], most[1], most[2]);
  }
  MPI_Finalize();
  return most[2] > 0 || most[0] == 0 ? 1 : 0;
}

}  // namespace sprocket::testing
