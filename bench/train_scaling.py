#!/usr/bin/env python3
"""The training step of a 10,000-token model on one rank and on several of the same machine, one thread each, in one run.

    scripts/setup && scripts/build -DSPROCKET_BENCH=ON
    bench/train_scaling.py            # about 10 minutes
    bench/train_scaling.py --smoke    # under a minute, a small model

Every way is a process of its own under mpirun, started in turn, the order turning from round to round; medians are over the
steps of all rounds. `scaling` is the median of one rank over that of a way with the same attention.

Appends one JSON line per case and way to bench/results/train_scaling.jsonl.
"""
import argparse
import json
import os
import subprocess
import sys

from machine import ROOT, stamp
from rank_team import AS_ROOT, CORES, MALLOC, ONE_THREAD, median

PROGRAM = os.path.join(ROOT, "build/bin/train_step_bench")
SPARSITY = 0.9


def ways_of(ranks):
    """{name: (ranks, arguments)}; names begin with the attention."""
    sparse = ["--sparsity", str(SPARSITY), "--domains", str(ranks)]
    outer = f"ulysses: 1 outer: {ranks} strategy: "
    return {
        "dense alone": (1, []),
        "dense ulysses": (ranks, ["--parallel", f"ulysses: {ranks}"]),
        "dense ring": (ranks, ["--parallel", outer + "RING"]),
        "vsa alone": (1, sparse),
        "vsa ulysses": (ranks, [*sparse, "--parallel", f"ulysses: {ranks}"]),
        "vsa selected": (ranks, [*sparse, "--parallel", outer + "SELECTED"]),
    }


def run(ranks, arguments):
    # One rank stays on one core, as each of several does.
    binding = ["--bind-to", "core"] if ranks <= len(CORES) else ["--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
    command = ["mpirun", *binding, "-np", str(ranks), PROGRAM, "--threads", "1", *arguments]
    done = subprocess.run(command, env={**os.environ, **MALLOC, **ONE_THREAD, **AS_ROOT}, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(ways, case, rounds):
    arguments = [part for key, value in case.items() for part in (f"--{key}", str(value))]
    runs = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways if number % 2 == 0 else reversed(ways):
            ranks, own = ways[name]
            runs[name].append(run(ranks, [*own, *arguments]))
            print(f"  round {number + 1}/{rounds}  {name}: {runs[name][-1]['median_ms']:.0f} ms", file=sys.stderr)
    merged = {}
    for name, records in runs.items():
        times = [t for record in records for t in record["steps_ms"]]
        merged[name] = {**records[0], "way": name, "steps_ms": [round(t, 1) for t in times], "median_ms": round(median(times), 1),
                        "exposed_wait_ms": round(median([record["exposed_wait_ms"] for record in records]), 1)}
    for name, record in merged.items():
        alone = merged[f"{name.split()[0]} alone"]
        record["tokens_per_s"] = round(1e3 * record["tokens"] / record["median_ms"], 1)
        record["scaling"] = round(alone["median_ms"] / record["median_ms"], 3)
    return merged.values()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--grid", nargs="+", default=["7x30x52"], help="tokens t x h x w")
    parser.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="counted steps of a round; rounds x steps is at least 5")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/train_scaling.jsonl"))
    arguments = parser.parse_args()
    small = {}
    if arguments.smoke:
        arguments.grid, arguments.rounds, arguments.steps, arguments.output = ["4x8x10"], 1, 1, os.devnull
        small = {"dim": 64, "heads": 2, "layers": 1, "ffn-dim": 128}
    elif arguments.rounds * arguments.steps < 5:
        parser.error(f"expected rounds x steps of at least 5, found {arguments.rounds * arguments.steps}")
    if not os.path.exists(PROGRAM):
        sys.exit(f"expected {PROGRAM}, found none: scripts/setup && scripts/build -DSPROCKET_BENCH=ON")
    measured_on = stamp()
    os.makedirs(os.path.dirname(arguments.output), exist_ok=True)
    for grid in arguments.grid:
        for dtype in arguments.dtype:
            print(f"{grid} tokens, {dtype}", file=sys.stderr)
            case = {"grid": grid, "dtype": dtype, "steps": arguments.steps, **small}
            for record in measure(ways_of(arguments.ranks), case, arguments.rounds):
                print(f"{grid} {dtype} {record['way']:14} x{record['ranks']}  {record['median_ms']:9.1f} ms"
                      f"  {record['scaling']:.2f} times one rank, waits {record['exposed_wait_ms']:.1f} ms", flush=True)
                with open(arguments.output, "a", encoding="utf-8") as output:
                    output.write(json.dumps({**record, **measured_on}) + "\n")


if __name__ == "__main__":
    main()
