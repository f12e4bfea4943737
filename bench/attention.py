#!/usr/bin/env python3
"""Sprocket's segment attention against PyTorch's ways to attend on a CPU, in one run.

    scripts/setup --with-peers && scripts/build -DSPROCKET_BENCH=ON
    bench/attention.py            # about 15 minutes
    bench/attention.py --full     # every combination: hours
    bench/attention.py --smoke    # under a minute: do all sides compute the same?

All programs stay resident and are pinned to the same cores; they take turns, one call each, in an order that turns from
repetition to repetition, and never run at the same time. Figures are medians. PyTorch runs as shipped and with MKL's AVX-512
code unlocked (bench/peers/mkl_vendor_check.c); processes are started per number of threads, because a compiled flex_attention
kernel must not be reused under another one. GFLOP/s count listed pairs only: 4 D per query-key pair forward, 2.5 times that
backward. Sprocket's gradients are in fp32; a PyTorch forward inside forward + backward also saves what its backward needs.

Appends one JSON line per case and side to bench/results/attention.jsonl; Sprocket's lines hold how many times faster than
each rival it was.
"""
import argparse
import array
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

from machine import ROOT, stamp
from mkl_unlock import build_unlock

PYTHON = os.path.join(ROOT, ".deps/python/bin/python")
OURS = os.path.join(ROOT, "build/bin/attention_bench")
THEIRS = os.path.join(ROOT, "bench/peers/attention_peer.py")

# Freed buffers stay mapped in both programs: without this, page faults distort the rivals' times.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}
PAUSE_S = 0.02  # between turns: the threads of the one before stop spinning
MEMORY_MIB = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20

UNLOCKED, SHIPPED = "unlocked", "shipped"
# name: (process, side of bench/peers/attention_peer.py, block or None for the case's, dense, has a backward)
RIVALS = {
    "sdpa_blhd": (UNLOCKED, "sdpa_blhd", None, True, True),
    "sdpa_bhld": (UNLOCKED, "sdpa_bhld", None, True, True),
    "sdpa_blhd_shipped": (SHIPPED, "sdpa_blhd", None, True, True),
    "sdpa_bhld_shipped": (SHIPPED, "sdpa_bhld", None, True, True),
    "flex_64": (UNLOCKED, "flex", 64, False, False),
    "flex_128": (UNLOCKED, "flex", 128, False, False),
    "flex_64_shipped": (SHIPPED, "flex", 64, False, False),
    "flex_128_shipped": (SHIPPED, "flex", 128, False, False),
    "gather_sdpa": (UNLOCKED, "gather_sdpa", None, False, True),
    "gather_bmm": (UNLOCKED, "gather_bmm", None, False, True),
    "select_sdpa": (UNLOCKED, "select_sdpa", None, False, True),
    "select_bmm": (UNLOCKED, "select_bmm", None, False, True),
    "gather_sdpa_shipped": (SHIPPED, "gather_sdpa", None, False, True),
    "gather_bmm_shipped": (SHIPPED, "gather_bmm", None, False, True),
}


class Resident:
    """A program that answers JSON lines, on the given cores."""

    def __init__(self, command, environment, cores):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **MALLOC, **environment},
                                        preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self.name = os.path.basename(command[-1])

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            sys.exit(f"{self.name} ended while it was asked to {request}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Team:
    """Sprocket's program and both PyTorch processes, for one number of threads."""

    def __init__(self, threads, folder):
        cores = set(sorted(os.sched_getaffinity(0))[:threads])
        environment = {"OMP_NUM_THREADS": str(threads)}
        caches = {kind: {**environment, "TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, f"inductor_{kind}_{threads}")}
                  for kind in (UNLOCKED, SHIPPED)}
        self.ours = Resident([OURS], environment, cores)
        unlock = {"LD_PRELOAD": build_unlock(folder)}
        self.theirs = {UNLOCKED: Resident([PYTHON, THEIRS], {**caches[UNLOCKED], **unlock}, cores),
                       SHIPPED: Resident([PYTHON, THEIRS], caches[SHIPPED], cores)}

    def members(self):
        return [self.ours, *self.theirs.values()]

    def close(self):
        for member in self.members():
            member.close()


def kept_blocks(length, sparsity, block):
    """Selected blocks of a row; 0 stands for dense."""
    return 0 if sparsity == 0 else max(1, round((1 - sparsity) * -(-length // block)))


def write_table(folder, case, sparsity, block):
    """A random selection, the same for all sides: int32 [heads][blocks][keep], ascending."""
    blocks, keep = -(-case["length"] // block), kept_blocks(case["length"], sparsity, block)
    if keep == 0:
        return ""
    path = os.path.join(folder, f"table_{case['heads']}_{blocks}_{keep}.bin")
    if not os.path.exists(path):
        choose = random.Random(7)
        ids = array.array("i")
        for _ in range(case["heads"] * blocks):
            ids.extend(sorted(choose.sample(range(blocks), keep)))
        with open(path, "wb") as file:
            ids.tofile(file)
    return path


def write_inputs(folder, case):
    """Q, K, V and dO for all sides, fp32 [4][length][heads][head_dim]."""
    path = os.path.join(folder, "inputs.bin")
    draw = random.Random(11)
    with open(path, "wb") as file:
        array.array("f", (draw.gauss(0, 1) for _ in range(4 * case["length"] * case["heads"] * case["head_dim"]))).tofile(file)
    return path


def forward_gflop(case, sparsity, block):
    """Of the listed pairs, partial blocks counted as whole ones."""
    length = case["length"]
    keys = length if sparsity == 0 else kept_blocks(length, sparsity, block) * block
    return 4e-9 * case["heads"] * case["head_dim"] * length * keys


class Side:
    """One program's way to work a case."""

    def __init__(self, name, resident, case, sparsity, block, backward, folder, **more):
        self.name, self.resident, self.sparsity, self.block, self.backward = name, resident, sparsity, block, backward
        self.id = f"{name} {sparsity}"
        self.gflop = forward_gflop(case, sparsity, block)
        self.forward_ms, self.backward_ms = [], []
        request = {**case, "block": block, "keep": kept_blocks(case["length"], sparsity, block),
                   "table": write_table(folder, case, sparsity, block), **more}
        self.about = resident.ask(op="prepare", id=self.id, **request)
        self.error = self.about.pop("error", None)

    def turn(self, counted):
        if self.error is not None:
            return
        answer = self.resident.ask(op="run", id=self.id, backward=self.backward)
        self.error = answer.get("error")
        if self.error is None and counted:
            self.forward_ms.append(answer["forward_ms"])
            if self.backward:
                self.backward_ms.append(answer["backward_ms"])
        time.sleep(PAUSE_S)

    def forward(self):
        return statistics.median(self.forward_ms)

    def total(self):
        return statistics.median(map(sum, zip(self.forward_ms, self.backward_ms)))

    def record(self):
        if self.error is not None:
            return {"side": self.name, "sparsity": self.sparsity, "block": self.block, "error": self.error}
        record = {"side": self.name, "sparsity": self.sparsity, "block": self.block, **self.about,
                  "forward_ms": round(self.forward(), 2), "forward_gflops": round(1e3 * self.gflop / self.forward(), 1)}
        if self.backward:
            backward = statistics.median(self.backward_ms)
            record.update(backward_ms=round(backward, 2), backward_gflops=round(2.5e3 * self.gflop / backward, 1),
                          total_ms=round(self.total(), 2), total_gflops=round(3.5e3 * self.gflop / self.total(), 1))
        record["forward_all_ms"] = [round(t, 2) for t in self.forward_ms]
        record["backward_all_ms"] = [round(t, 2) for t in self.backward_ms]
        return record


def gathered_mib(case, sparsity):
    """What autograd keeps of a gather's copies and probabilities."""
    keys = kept_blocks(case["length"], sparsity, 64) * 64
    size = 4 if case["dtype"] == "fp32" else 2
    return case["heads"] * case["length"] * keys * (2 * case["head_dim"] / 64 + 3) * size / 2**20


def sides_of(team, case, sparsities, rivals, folder, inputs=""):
    sides = [Side("sprocket", team.ours, case, sparsity, 64, True, folder, inputs=inputs) for sparsity in sparsities]
    for name in rivals:
        process, kind, block, dense, has_backward = RIVALS[name]
        for sparsity in ([0.0] if dense else [s for s in sparsities if s > 0]):
            backward = has_backward and (dense or gathered_mib(case, sparsity) < MEMORY_MIB / 3)
            sides.append(Side(name, team.theirs[process], case, sparsity, block or 64, backward, folder, side=kind,
                              inputs=inputs))
    return sides


def add_ratios(ours, sides, record):
    """How many times faster than each rival: dense ones whatever the sparsity, sparse ones at the same."""
    for rival in sides:
        comparable = rival.name != "sprocket" and (rival.sparsity == 0 or rival.sparsity == ours.sparsity)
        if not comparable or rival.error is not None:
            continue
        record[f"forward_over_{rival.name}"] = round(rival.forward() / ours.forward(), 3)
        if rival.backward:
            record[f"total_over_{rival.name}"] = round(rival.total() / ours.total(), 3)


def measure(team, case, sparsities, rivals, rounds, folder):
    for member in team.members():
        member.ask(op="release")
    sides = sides_of(team, case, sparsities, rivals, folder)
    for number in range(rounds + 1):
        for side in sides if number % 2 == 0 else reversed(sides):
            side.turn(counted=number > 0)
    records = []
    for side in sides:
        record = {**case, **side.record()}
        if side.name == "sprocket" and side.error is None:
            add_ratios(side, sides, record)
        records.append(record)
    return records


def show(record, peaks):
    where = f"L {record['length']} H {record['heads']} D {record['head_dim']} {record['dtype']} x{record['threads']}"
    if "error" in record:
        return f"{where}  {record['side']} {record['sparsity']}: {record['error']}"
    peak = peaks[f"{record['dtype']}_gflops"] or peaks["fp32_gflops"]
    line = f"{where}  {record['side']:20} {record['sparsity']:5}  forward {record['forward_ms']:9.1f} ms " \
           f"{record['forward_gflops']:6.1f} GFLOP/s {100 * record['forward_gflops'] / peak:3.0f} %"
    if "backward_ms" in record:
        line += f"  backward {record['backward_ms']:9.1f} ms {record['backward_gflops']:6.1f} GFLOP/s " \
                f"{100 * record['backward_gflops'] / peak:3.0f} %"
    for key, value in record.items():
        if "_over_" in key:
            line += f"\n      {key.replace('_over_', ' over ')}: {value}"
    return line


COPIES = ["gather_sdpa", "gather_bmm", "select_sdpa", "select_bmm"]
COMMON = ["sdpa_blhd", "sdpa_bhld", "sdpa_blhd_shipped", *COPIES, "gather_sdpa_shipped", "gather_bmm_shipped"]
FLEX = ["flex_64", "flex_128"]


def default_plan(threads):
    """(case, sparsities, rivals) of about 15 minutes for both numbers of threads."""
    for head_dim, dtype in itertools.product((64, 128), ("fp32", "bf16")):
        yield {"length": 8192, "heads": 2, "head_dim": head_dim, "dtype": dtype}, [0.0, 0.9], COMMON + FLEX
    if threads == 1:
        for dtype in ("fp32", "bf16"):
            yield ({"length": 32760, "heads": 1, "head_dim": 128, "dtype": dtype}, [0.0, 0.9],
                   ["sdpa_blhd", *COPIES])
    else:
        for dtype in ("fp32", "bf16"):
            yield ({"length": 23296, "heads": 2, "head_dim": 64, "dtype": dtype}, [0.0, 0.875, 0.9, 0.95],
                   ["sdpa_blhd", *COPIES])
        # One head: all threads share it.
        yield {"length": 8192, "heads": 1, "head_dim": 128, "dtype": "fp32"}, [0.0, 0.9], ["sdpa_blhd"]


def full_plan(threads):
    lengths = {8192: (1, 2, 12), 23296: (1, 2, 12), 32760: (1, 2, 12), 75600: (1,)}
    for length, heads in lengths.items():
        for head_count, head_dim, dtype in itertools.product(heads, (64, 128), ("fp32", "bf16")):
            rivals = COMMON + FLEX + ["flex_64_shipped", "flex_128_shipped", "sdpa_bhld_shipped"]
            if length > 40000:
                rivals = ["sdpa_blhd", *COPIES]
            yield ({"length": length, "heads": head_count, "head_dim": head_dim, "dtype": dtype}, [0.0, 0.875, 0.9, 0.95],
                   rivals)


def relative_error(a, b):
    difference = sum((x - y) ** 2 for x, y in zip(a, b))
    return (difference / sum(y * y for y in b)) ** 0.5


def smoke(folder):
    """All sides on one small problem; their results must be the same up to rounding. Compiling flex_attention takes the time."""
    failures = 0
    for threads, dtype, flex in ((1, "fp32", ["flex_64"]), (2, "bf16", [])):
        team = Team(threads, folder)
        case = {"length": 512, "heads": 2, "head_dim": 64, "dtype": dtype, "threads": threads}
        inputs = write_inputs(folder, case)
        sides = sides_of(team, case, [0.0, 0.75], COMMON + ["sdpa_bhld_shipped"] + flex, folder, inputs)
        results = {}
        for side in sides:
            side.turn(counted=True)
            print(show({**case, **side.record()}, {"fp32_gflops": 1, "bf16_gflops": 1}))
            if side.error is not None:
                failures += 1
                continue
            path = os.path.join(folder, "result.bin")
            side.resident.ask(op="save", id=side.id, path=path)
            values = array.array("f")
            with open(path, "rb") as file:
                values.frombytes(file.read())
            size = case["length"] * case["heads"] * case["head_dim"]
            results[side.id] = side, [values[i:i + size] for i in range(0, len(values), size)]
        tolerance = 1e-5 if dtype == "fp32" else 2e-2
        for side, values in results.values():
            if side.name == "sprocket":
                continue
            ours = results[f"sprocket {side.sparsity}"][1]
            errors = [relative_error(theirs, mine) for theirs, mine in zip(values, ours)]
            wrong = max(errors) > tolerance
            failures += wrong
            print(f"{side.id}: {'DIFFERS, ' if wrong else ''}relative differences of O, dQ, dK, dV",
                  ", ".join(f"{error:.1e}" for error in errors))
        team.close()
    sys.exit(1 if failures else 0)


def run_plan(arguments, folder):
    plan = full_plan if arguments.full else default_plan
    os.makedirs(os.path.dirname(arguments.output), exist_ok=True)
    measured_on = stamp()
    begin = time.time()
    for threads in arguments.threads:
        team = Team(threads, folder)
        peaks = team.ours.ask(op="peaks", threads=threads)
        print(f"{threads} threads: peaks {peaks['fp32_gflops']:.0f} (fp32), {peaks['bf16_gflops']:.0f} (bf16) GFLOP/s")
        for case, sparsities, rivals in plan(threads):
            case = {**case, "threads": threads}
            records = measure(team, case, sparsities, rivals, arguments.rounds, folder)
            with open(arguments.output, "a", encoding="utf-8") as output:
                for record in records:
                    print(show(record, peaks), flush=True)
                    output.write(json.dumps({**record, **{f"peak_{k}": round(v, 1) for k, v in peaks.items()}, **measured_on}) + "\n")
            print(f"  {time.time() - begin:.0f} s", flush=True)
        team.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5, help="counted repetitions; at least 5")
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/attention.jsonl"))
    arguments = parser.parse_args()
    if arguments.rounds < 5:
        parser.error(f"--rounds: expected at least 5, found {arguments.rounds}")
    for needed in (OURS, PYTHON):
        if not os.path.exists(needed):
            sys.exit(f"expected {needed}, found none: scripts/setup --with-peers && scripts/build -DSPROCKET_BENCH=ON")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.smoke:
            smoke(folder)
        run_plan(arguments, folder)


if __name__ == "__main__":
    main()
