#!/usr/bin/env python3
"""What saving a checkpoint costs the training of the quickstart's model, in the background and waited for.

    scripts/quickstart   # once, for the program and the data set
    bench/checkpoint_stall.py [--ranks 2] [--runs 5] [--data outputs/quickstart/data]

Runs of both kinds alternate. Every run saves each INTERVAL steps; of each save counts what metrics.jsonl says that
training waited for it (checkpoint_stall_seconds of the lines up to the next save) as a share of the run's median step.
The last save of a run, which every job waits for, is left out. Adds one JSON line to
bench/results/checkpoint_stall.jsonl.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

from machine import ROOT, stamp

STEPS, INTERVAL = 31, 5


def one_run(arguments, asynchronous):
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        command = ["mpirun", "--bind-to", "none", "--oversubscribe", "-np", str(arguments.ranks),
                   os.path.join(ROOT, "build/bin/sprocket"), "train", "--config", "configs/quickstart.txtpb",
                   "--output", os.path.join(folder, "run"), "--set", f"data.path: '{arguments.data}'", "--set",
                   f"training.steps: {STEPS} output {{ checkpoint_interval: {INTERVAL} tensorboard: false "
                   f"asynchronous_saves: {str(asynchronous).lower()} }}"]
        if os.geteuid() == 0:
            command.insert(1, "--allow-run-as-root")
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
        with open(os.path.join(folder, "run/metrics.jsonl"), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    # A save after step k shows in the lines of k+1 and later.
    saves = range(INTERVAL, STEPS - INTERVAL, INTERVAL)
    stalls = [sum(line["checkpoint_stall_seconds"] for line in lines[save:save + INTERVAL]) for save in saves]
    return stalls, statistics.median(line["step_seconds"] for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="of each kind")
    parser.add_argument("--data", default=os.path.join(ROOT, "outputs/quickstart/data"))
    parser.add_argument("--folder", default=os.path.join(ROOT, "outputs"), help="on the disk that is to be measured")
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/checkpoint_stall.jsonl"))
    arguments = parser.parse_args()
    os.makedirs(arguments.folder, exist_ok=True)
    kinds = {"asynchronous": [], "synchronous": []}
    for _ in range(arguments.runs):
        for kind, runs in kinds.items():
            try:
                runs.append(one_run(arguments, kind == "asynchronous"))
            except subprocess.CalledProcessError as error:
                sys.exit(error.stderr.decode())
            stalls, step = runs[-1]
            print(f"{kind}: {1e3 * statistics.median(stalls):.1f} ms a save, step {1e3 * step:.0f} ms", file=sys.stderr)
    result = {"what": "stall of a checkpoint, quickstart model", "ranks": arguments.ranks, "runs": arguments.runs}
    for kind, runs in kinds.items():
        shares = [stall / step for stalls, step in runs for stall in stalls]
        result[kind] = {"median_stall_ms": round(1e3 * statistics.median(s for stalls, _ in runs for s in stalls), 2),
                        "median_step_ms": round(1e3 * statistics.median(step for _, step in runs), 1),
                        "share_of_step": round(statistics.median(shares), 4), "largest_share": round(max(shares), 4)}
    line = json.dumps({**result, **stamp()})
    print(line)
    with open(arguments.output, "a", encoding="utf-8") as output:
        output.write(line + "\n")


if __name__ == "__main__":
    main()
