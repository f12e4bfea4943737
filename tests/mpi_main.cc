#include "tests/mpi_tests.h"

int main(int argc, char** argv) { return sprocket::testing::run_mpi_tests(&argc, &argv); }
