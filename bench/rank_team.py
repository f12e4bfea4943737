"""Resident programs of several ranks, asked in turn, and the places they run in: shared memory or a slow network.

Every rank has a pair of named pipes (bench/rank_requests.h) and reads requests from its own, so ranks that are not asked
sleep: MPI would spin, and a broadcast would use the link.
"""
import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time

from machine import ROOT

sys.path.insert(0, os.path.join(ROOT, "bench/network"))
from namespaces import INTERFACE, SlowNetwork, Unavailable, raise_on_signals  # noqa: E402,F401

PYTHON = os.path.join(ROOT, ".deps/python/bin/python")
CORES = sorted(os.sched_getaffinity(0))
# Freed buffers stay mapped: without this, page faults distort the rivals' times.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
PATIENCE_S = 900  # for one answer
START_UP_S = 120
PAUSE_S = 0.05  # between turns: token buckets fill up again, and everybody finds the same


class Place:
    """Where ranks meet: shared memory (`rate` None) or links of a rate as tc reads it."""

    def __init__(self, name, ranks, rate=None):
        self.name, self.ranks, self.rate = name, ranks, rate
        self.network = None

    @contextlib.contextmanager
    def up(self):
        if self.rate is None:
            yield self
            return
        with SlowNetwork(self.ranks, self.rate) as self.network:
            yield self
        self.network = None

    def mpirun(self, ranks):
        if self.network is not None:
            return self.network.mpirun()
        return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "pml", "ob1", "--mca", "btl",
                "vader,self", "--mca", "mpi_yield_when_idle", "1", "-np", str(ranks)]

    def inside(self, rank):
        return self.network.inside(rank) if self.network is not None else []

    def meeting_point(self):
        """(address, interface) for programs that find each other by TCP."""
        return (self.network.address(0), INTERFACE) if self.network is not None else ("127.0.0.1", "lo")

    def fields(self):
        fields = {"network": self.name}
        if self.rate is not None:
            fields.update(rate=self.rate, burst=self.network.burst)
        return fields


class RankTeam:
    """`ranks` processes that answer requests. `start(folder)` returns the commands that start them."""

    def __init__(self, name, ranks, start, environment=None):
        self.name, self.ranks = name, ranks
        self.folder = tempfile.TemporaryDirectory(prefix="sprocket-bench-")
        self.requests, self.answers, self.rest = [], [], [b""] * ranks
        for rank in range(ranks):
            for kind, ends in (("request", self.requests), ("answer", self.answers)):
                path = os.path.join(self.folder.name, f"{kind}.{rank}")
                os.mkfifo(path)
                ends.append(os.open(path, os.O_RDWR))  # both ways, so that opening does not wait
        everything = {**os.environ, **MALLOC, **ONE_THREAD, **AS_ROOT, **(environment or {})}
        self.processes = []
        try:
            self._start(start, everything)
        except BaseException:
            self.close()
            raise

    def _start(self, start, environment):
        self.processes = [subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr)
                          for command in start(self.folder.name)]
        self.about = self.ask(op="hello")
        self.pin()

    @classmethod
    def under_mpirun(cls, name, place, ranks, *program):
        return cls(name, ranks, lambda folder: [[*place.mpirun(ranks), *program, "--pipes", folder]])

    @classmethod
    def python(cls, name, place, ranks, script, port, environment):
        """A PyTorch process for each rank."""
        address, interface = place.meeting_point()

        def start(folder):
            return [[*place.inside(rank), PYTHON, script, "--pipes", folder, "--rank", str(rank), "--ranks", str(ranks),
                     "--address", address, "--port", str(port)] for rank in range(ranks)]
        return cls(name, ranks, start, {"GLOO_SOCKET_IFNAME": interface, **environment})

    def pin(self):
        """Ranks take turns on the cores."""
        for rank, answer in enumerate(self.about):
            for thread in os.listdir(f"/proc/{answer['pid']}/task"):
                os.sched_setaffinity(int(thread), {CORES[rank % len(CORES)]})

    def ask(self, **request):
        """The answers of all ranks to the same request. Ends the program when one says that it failed or says nothing."""
        line = json.dumps(request).encode() + b"\n"
        for pipe in self.requests:
            os.write(pipe, line)
        deadline = time.monotonic() + (START_UP_S if request["op"] == "hello" else PATIENCE_S)
        answers = [self._answer(rank, deadline, request) for rank in range(self.ranks)]
        for rank, answer in enumerate(answers):
            if "error" in answer:
                raise RuntimeError(f"{self.name}, rank {rank}, asked for {request}: {answer['error']}")
        return answers

    def _answer(self, rank, deadline, request):
        while b"\n" not in self.rest[rank]:
            ready, _, _ = select.select([self.answers[rank]], [], [], 1)
            if ready:
                self.rest[rank] += os.read(self.answers[rank], 1 << 16)
            elif any(process.poll() is not None for process in self.processes):
                raise RuntimeError(f"{self.name} ended while it was asked for {request}")
            elif time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}, rank {rank}: no answer to {request} in time")
        line, _, self.rest[rank] = self.rest[rank].partition(b"\n")
        return json.loads(line)

    def close(self):
        for pipe in self.requests + self.answers:
            os.close(pipe)
        for process in self.processes:
            for end in (lambda: None, process.terminate, process.kill):
                end()
                try:
                    process.wait(20)
                    break
                except subprocess.TimeoutExpired:
                    continue
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def in_turns(sides, rounds, turn):
    """Calls turn(side, counted) for all sides, `rounds` times after a warm-up, in an order that turns from round to round."""
    for number in range(rounds + 1):
        for side in sides if number % 2 == 0 else reversed(sides):
            turn(side, number > 0)
            time.sleep(PAUSE_S)


def median(values):
    return statistics.median(values)
