#!/usr/bin/env python3
"""Seconds from the start of mpirun to the end of the first training step of the quickstart's model.

    scripts/quickstart   # once, for the program and the data set
    bench/first_step.py [--ranks 2] [--runs 5]

Each run trains for one step in a folder of its own; the time is taken when its first line of metrics.jsonl
appears. Adds one JSON line to bench/results/first_step.jsonl.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from machine import ROOT, stamp


def one_run(ranks, folder):
    metrics = os.path.join(folder, "run/metrics.jsonl")
    command = ["mpirun", "--bind-to", "none", "--oversubscribe", "-np", str(ranks),
               os.path.join(ROOT, "build/bin/sprocket"), "train", "--config", "configs/quickstart.txtpb",
               "--output", os.path.join(folder, "run"), "--set", "training { steps: 2 optimizer { warmup_steps: 0 } }"]
    if os.geteuid() == 0:
        command.insert(1, "--allow-run-as-root")
    start = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as job:
        seconds = None
        while job.poll() is None:
            if seconds is None and os.path.exists(metrics) and os.path.getsize(metrics) > 0:
                seconds = time.monotonic() - start
            time.sleep(0.01)
        if job.returncode != 0 or seconds is None:
            sys.exit(f"{' '.join(command)}: exit status {job.returncode}")
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/first_step.jsonl"))
    arguments = parser.parse_args()
    seconds = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            seconds.append(round(one_run(arguments.ranks, folder), 2))
            print(f"{seconds[-1]:.2f} s", file=sys.stderr)
    line = json.dumps({"what": "mpirun to end of first step, quickstart model", "ranks": arguments.ranks,
                       "seconds": seconds, "median_s": statistics.median(seconds), **stamp()})
    print(line)
    with open(arguments.output, "a", encoding="utf-8") as output:
        output.write(line + "\n")


if __name__ == "__main__":
    main()
