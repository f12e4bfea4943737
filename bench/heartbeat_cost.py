#!/usr/bin/env python3
"""What being watched by `sprocket launch` costs the training of the quickstart's model.

    scripts/quickstart   # once, for the program and the data set
    bench/heartbeat_cost.py [--ranks 2] [--runs 5] [--data outputs/quickstart/data]

Runs with and without the supervisor alternate. Beside the steps' times, whose ratio is mostly noise, it counts what
costs: the processor time of the thread that talks to the supervisor, on every rank, and of the supervisor itself, over
the time of the steps. Adds one JSON line to bench/results/heartbeat_cost.jsonl.
"""
import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from machine import ROOT, stamp

STEPS = 20
PROGRAM = os.path.join(ROOT, "build/bin/sprocket")


def cpu_seconds(task):
    """Of one thread, from the scheduler's own account in nanoseconds; None: it has ended."""
    try:
        with open(f"{task}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) * 1e-9
    except OSError:
        return None


def name_of(task):
    try:
        with open(f"{task}/comm", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def control_threads(run):
    """Of the ranks whose command line names `run`."""
    for process in glob.glob("/proc/[0-9]*"):
        try:
            with open(f"{process}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        if run in words and "--supervised" in words and os.path.basename(words[0]) == "sprocket":
            yield from (task for task in glob.glob(f"{process}/task/*") if name_of(task) == "control")


def steps_of(run):
    try:
        with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
            return [json.loads(line)["step_seconds"] for line in file if line.endswith("\n")]
    except OSError:
        return []


def one_run(arguments, supervised):
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        run = os.path.join(folder, "run")
        job = ["train", "--config", os.path.join(ROOT, "configs/quickstart.txtpb"), "--output", run, "--set",
               f"data.path: '{arguments.data}'", "--set",
               f"training.steps: {STEPS} output {{ checkpoint_interval: 0 sample_interval: 0 tensorboard: false }}"]
        start = ["launch", "--np", str(arguments.ranks), "--"]
        if not supervised:
            command = ["mpirun", "--bind-to", "none", "--oversubscribe", "-np", str(arguments.ranks), PROGRAM]
        else:
            command = [PROGRAM, *start]
        with open(os.path.join(folder, "log"), "wb") as log:
            process = subprocess.Popen(command + job, cwd=folder, stdout=log, stderr=log)
            first, last, tasks, supervisor = {}, {}, [], [None, None]
            began = ended = None
            while process.poll() is None:
                done = len(steps_of(run))
                if done >= 1 and supervised:
                    began = began or time.monotonic()
                    ended = time.monotonic()
                    # Looked for once: to search all processes costs more than what is measured.
                    tasks = tasks or list(control_threads(run))
                    for task in tasks:
                        seconds = cpu_seconds(task)
                        if seconds is not None:
                            first.setdefault(task, seconds)
                            last[task] = seconds
                    own = [cpu_seconds(task) for task in glob.glob(f"/proc/{process.pid}/task/*")]
                    if own and None not in own:
                        supervisor = [supervisor[0] if supervisor[0] is not None else sum(own), sum(own)]
                time.sleep(1)
        if process.returncode != 0:
            with open(os.path.join(folder, "log"), encoding="utf-8", errors="replace") as log:
                sys.exit(log.read())
        steps = steps_of(run)[1:]
        result = {"step": statistics.median(steps)}
        if supervised:
            watched = ended - began
            result["rank"] = max(last[task] - first[task] for task in last) / watched
            result["supervisor"] = (supervisor[1] - supervisor[0]) / watched
        return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="of each kind")
    parser.add_argument("--data", default=os.path.join(ROOT, "outputs/quickstart/data"))
    parser.add_argument("--folder", default=os.path.join(ROOT, "outputs"))
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/heartbeat_cost.jsonl"))
    arguments = parser.parse_args()
    arguments.data = os.path.abspath(arguments.data)
    if os.geteuid() == 0:
        os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    os.makedirs(arguments.folder, exist_ok=True)
    with_it, without = [], []
    for _ in range(arguments.runs):
        with_it.append(one_run(arguments, True))
        without.append(one_run(arguments, False))
        print(f"step {1e3 * with_it[-1]['step']:.0f} ms with, {1e3 * without[-1]['step']:.0f} ms without; control thread "
              f"{1e2 * with_it[-1]['rank']:.4f} % of a processor, supervisor {1e2 * with_it[-1]['supervisor']:.3f} %",
              file=sys.stderr)
    median = lambda runs, key: statistics.median(run[key] for run in runs)
    line = json.dumps({
        "what": "cost of heartbeats, quickstart model", "ranks": arguments.ranks, "runs": arguments.runs,
        "step_ms_supervised": round(1e3 * median(with_it, "step"), 1),
        "step_ms_alone": round(1e3 * median(without, "step"), 1),
        "ratio_of_steps": round(median(with_it, "step") / median(without, "step"), 4),
        "control_thread_share": round(median(with_it, "rank"), 6),
        "largest_control_thread_share": round(max(run["rank"] for run in with_it), 6),
        "supervisor_share_of_a_processor": round(median(with_it, "supervisor"), 5), **stamp()})
    print(line)
    with open(arguments.output, "a", encoding="utf-8") as output:
        output.write(line + "\n")


if __name__ == "__main__":
    main()
