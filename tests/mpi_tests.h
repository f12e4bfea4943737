// Tests that run under mpirun: MPI is initialised once, every rank runs every test. All ranks'
// failures are shown with their rank. A rank with a fatal failure aborts the job at the end of that
// test, because its peers may wait for what it no longer does.
#pragma once

namespace sprocket::testing {

// From initialising MPI to finalising it. Returns the exit code: 1 when a test failed on any rank,
// or when there was no test.
int run_mpi_tests(int* argc, char*** argv);

}  // namespace sprocket::testing
