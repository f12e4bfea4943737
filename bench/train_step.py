#!/usr/bin/env python3
"""One training step of Sprocket against diffusers on the same machine, in one run.

    scripts/setup --with-peers && scripts/build -DSPROCKET_BENCH=ON
    bench/train_step.py [--grid 8x32x32 …] [--dtype fp32 bf16] [--sparsity 0 0.9] [--rounds 2] [--steps 3]

Every case alternates the two programs: in each round each runs in a process of its own (so that its peak
memory is its own), the order turning from round to round; medians are over the steps of all rounds. The
rival runs twice: as shipped, and with MKL's AVX-512 code unlocked (bench/peers/mkl_vendor_check.c). Writes
one JSON line per case and side, with the ratio of the rival's median to Sprocket's, to bench/results/.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from machine import ROOT, stamp
from mkl_unlock import build_unlock

PYTHON = os.path.join(ROOT, ".deps/python/bin/python")
OURS = os.path.join(ROOT, "build/bin/train_step_bench")
THEIRS = os.path.join(ROOT, "bench/peers/diffusers_step.py")

# Freed buffers stay mapped in both programs: without this, page faults distort the rival's times.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}


def sides_of(sparsities, unlock):
    """{name: (command, environment)} of what is measured, ours first."""
    sides = {}
    for sparsity in sparsities:
        sides[f"sprocket, sparsity {sparsity}"] = ([OURS, "--sparsity", str(sparsity)], {})
    sides["diffusers, unlocked"] = ([PYTHON, THEIRS], {"LD_PRELOAD": unlock})
    sides["diffusers, shipped"] = ([PYTHON, THEIRS], {})
    return sides


def run(command, environment, case):
    full = command + [part for key, value in case.items() for part in (f"--{key}", str(value))]
    done = subprocess.run(full, env={**os.environ, **MALLOC, **environment}, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(full)}: exit status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(sides, case, rounds):
    """{side: merged record} of one case."""
    runs = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            command, environment = sides[name]
            runs[name].append(run(command, environment, case))
            print(f"  round {number + 1}/{rounds}  {name}: {runs[name][-1]['median_ms']:.0f} ms", file=sys.stderr)
    merged = {}
    for name, records in runs.items():
        times = [t for record in records for t in record["steps_ms"]]
        median = statistics.median(times)
        merged[name] = {**records[0], "side": name, "steps_ms": times, "median_ms": round(median, 1),
                        "tokens_per_s": round(1e3 * records[0]["tokens"] / median, 1),
                        "peak_rss_mib": max(record["peak_rss_mib"] for record in records)}
    return merged


def add_ratios(merged):
    """How many times faster than each rival a Sprocket run was, and its memory as a share of theirs."""
    rivals = [name for name in merged if name.startswith("diffusers")]
    for name, record in merged.items():
        if name in rivals:
            continue
        for rival in rivals:
            kind = rival.split(", ")[1]
            record[f"speedup_over_{kind}"] = round(merged[rival]["median_ms"] / record["median_ms"], 3)
            record[f"memory_share_of_{kind}"] = round(record["peak_rss_mib"] / merged[rival]["peak_rss_mib"], 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", nargs="+", default=["8x32x32", "16x32x32"], help="tokens t x h x w")
    parser.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--sparsity", nargs="+", type=float, default=[0.0, 0.9])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="counted steps of a round; rounds x steps is at least 5")
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/train_step.jsonl"))
    arguments = parser.parse_args()
    if arguments.rounds * arguments.steps < 5:
        parser.error(f"expected rounds x steps of at least 5, found {arguments.rounds * arguments.steps}")
    for needed in (OURS, PYTHON):
        if not os.path.exists(needed):
            sys.exit(f"expected {needed}, found none: scripts/setup --with-peers && scripts/build -DSPROCKET_BENCH=ON")
    measured_on = stamp()
    os.makedirs(os.path.dirname(arguments.output), exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, open(arguments.output, "w", encoding="utf-8") as output:
        sides = sides_of(arguments.sparsity, build_unlock(folder))
        for grid in arguments.grid:
            for dtype in arguments.dtype:
                print(f"{grid} tokens, {dtype}", file=sys.stderr)
                case = {"grid": grid, "dtype": dtype, "threads": arguments.threads, "steps": arguments.steps}
                merged = measure(sides, case, arguments.rounds)
                add_ratios(merged)
                for record in merged.values():
                    line = json.dumps({**record, **measured_on})
                    print(line, flush=True)
                    output.write(line + "\n")
                    output.flush()


if __name__ == "__main__":
    main()
