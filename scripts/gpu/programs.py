"""What the programs of a build are, by their names; only drivers are listed by hand.

    NAME_device_test         one process, one device: GoogleTest
    NAME_ranks_device_test   GoogleTest under mpirun, ranks that share devices or have one each
    NAME_device_bench        prints JSON lines; most know `--smoke`, a tiny shape
    comm_mpi_test            ranks without devices: shows that the packed MPI works on a machine
    cuda_simulator_test, cuda_simulator_hopper_test
                             what the simulator of the tests claims, asked of a device; not its faults, which end a context
"""
import re

RANKS, DEVICE_TEST, BENCH, HOST_RANKS = "ranks", "device_test", "bench", "host_ranks"

_KINDS = ((r"\w+_ranks_device_test", RANKS), (r"\w+_device_test|cuda_simulator(_hopper)?_test", DEVICE_TEST),
          (r"\w+_device_bench", BENCH), (r"comm_mpi_test", HOST_RANKS))


# Scripts that let a benchmark and PyTorch take turns: SCRIPT --program PATH --libraries LD_LIBRARY_PATH [--smoke].
_DRIVERS = {"attention_device_bench": "bench/device_attention.py",
            "train_step_device_bench": "bench/device_train_step.py"}


def driver_of(name):
    """Where the comparison of a benchmark with PyTorch is, below the project's root; None where there is none."""
    return _DRIVERS.get(name)


def kind_of(name):
    """The kind of a program, None for those that are not taken along."""
    return next((kind for pattern, kind in _KINDS if re.fullmatch(pattern, name)), None)
