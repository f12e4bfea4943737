"""What the programs of a build are, by their names; nothing is listed by hand.

    NAME_device_test         one process, one device: GoogleTest
    NAME_ranks_device_test   GoogleTest under mpirun, ranks that share devices or have one each
    NAME_device_bench        prints JSON lines
    comm_mpi_test            ranks without devices: shows that the packed MPI works on a machine
    cuda_simulator_test      what the simulator of the tests claims, asked of a device; not its faults, which hang one
"""
import re

RANKS, DEVICE_TEST, BENCH, HOST_RANKS = "ranks", "device_test", "bench", "host_ranks"

_KINDS = ((r"\w+_ranks_device_test", RANKS), (r"\w+_device_test|cuda_simulator_test", DEVICE_TEST),
          (r"\w+_device_bench", BENCH), (r"comm_mpi_test", HOST_RANKS))

_FILTERS = {"cuda_simulator_test": "-Fault.*"}


def options_of(name):
    """What a GoogleTest program is always called with."""
    return ["--gtest_filter=" + _FILTERS[name]] if name in _FILTERS else []


def kind_of(name):
    """The kind of a program, None for those that are not taken along."""
    return next((kind for pattern, kind in _KINDS if re.fullmatch(pattern, name)), None)
