#!/usr/bin/env python3
"""`sprocket plan`'s time of an attention layer against the measured one, for every strategy, on shared memory and slow networks.

    scripts/build -DSPROCKET_BENCH=ON
    bench/plan_time.py --captured DIR       # bench/README.md tells how to make DIR's files

For every method (dense, VSA at sparsity 0.9 without a budget and with one of .2, one domain for every rank) and network, in this
order: `sprocket plan --measure` calibrates there, on that method's selection of the captured input; `sprocket plan` predicts with
these figures; exchange_bench measures all strategies, taking turns, forward and backward, one thread a rank. A call's time is that
of the slowest rank; figures are medians.

Appends one JSON line per way to bench/results/plan_time.jsonl: planned and measured milliseconds and their ratio, forward, backward
and together, and both sides' parts: kernels (attention and selection), copies (everything else that a rank does by itself) and
exposed communication.
"""
import argparse
import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile

import exchange
from exchange import CORES, GRIDS, OURS, RATES, SPARSITY, Ours, case_of
from machine import ROOT, stamp
from rank_team import AS_ROOT, MALLOC, ONE_THREAD, Place, RankTeam, Unavailable, in_turns, median, raise_on_signals

SPROCKET = os.path.join(ROOT, "build/bin/sprocket")
OUTPUT = os.path.join(ROOT, "bench/results/plan_time.jsonl")
METHODS = {"dense": ("dense", None), "vsa": ("vsa", None), "budget": ("vsa", 0.2)}
# The strategy and what becomes of K and V, as the plan's table says it, of each way to measure.
WAYS = {
    "ring": ("RING", "pass on"), "all_gather": ("ALL_GATHER", "keep"), "all_gather_again": ("ALL_GATHER", "again"),
    "selected": ("SELECTED", "keep"), "selected_again": ("SELECTED", "again"), "ulysses": ("Ulysses", "-")}
KERNELS = ("kernel", "select", "coarse")
ENVIRONMENT = {**os.environ, **MALLOC, **ONE_THREAD, **AS_ROOT}


def attention_text(method, budget, domains):
    if method == "dense":
        return f"attention {{ method: DENSE domains: {domains} }}"
    schedule = f"max_coverage {{ start: {budget} }} " if budget is not None else ""
    return f"attention {{ method: VSA domains: {domains} {schedule}vsa {{ sparsity {{ start: {SPARSITY} }} coarse: GATED }} }}"


def job_text(case, method, budget, ranks):
    """A training job whose layers have this attention."""
    t, h, w = case["grid"]
    dim = case["heads"] * case["head_dim"]
    return (f"model {{ dim: {dim} heads: {case['heads']} layers: 1 ffn_dim: {dim} }} data {{ latent {{ t: {t} h: {2 * h} w: {2 * w} }} }} "
            f"training {{ steps: 1 global_batch: {ranks} }} compute {{ precision: {case['dtype'].upper()} threads: 1 }} "
            f"parallel {{ gather_above: 1 }} {attention_text(method, budget, ranks)}")


def run(command):
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Planner:
    """The plan's side of one method on one place."""

    def __init__(self, place, case, method, budget, captured, folder):
        self.place, self.folder = place, folder
        self.job = self.path("job.txtpb")
        self.write(self.job, job_text(case, method, budget, place.ranks))
        self.selection = []
        if method != "dense":
            self.selection = ["--selection", self.record(case, budget, captured)]

    def path(self, name):
        return os.path.join(self.folder, name)

    @staticmethod
    def write(path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")

    def record(self, case, budget, captured):
        """The selection of the captured input."""
        t, h, w = case["grid"]
        job, output = self.path("attention.txtpb"), self.path("selection.safetensors")
        self.write(job, f"{attention_text('vsa', budget, self.place.ranks)} compute {{ precision: {case['dtype'].upper()} }} "
                        f"problem {{ grid {{ t: {t} h: {h} w: {w} }} }}")
        run([SPROCKET, "attention", "--config", job, "--input", captured, "--output", output, "--dump-selection"])
        return output

    def calibrate(self):
        """The cluster's figures."""
        devices = self.place.ranks if self.place.rate is None else 1
        pin = f'cores=({" ".join(map(str, CORES))}); exec taskset -c ${{cores[OMPI_COMM_WORLD_RANK % {len(CORES)}]}} "$@"'
        run([*self.place.mpirun(self.place.ranks), "bash", "-c", pin, "-", SPROCKET, "plan", "--config", self.job, "--measure",
             "--devices", str(devices), "--output", self.path("cluster.txtpb"), *self.selection])
        with open(self.path("cluster.txtpb"), encoding="utf-8") as file:
            return file.read()

    def predict(self):
        """By (strategy, what becomes of K and V): the rows of the plan's table."""
        table = self.path("plan.csv")
        run([SPROCKET, "plan", "--config", self.job, "--cluster", self.path("cluster.txtpb"), "--csv", table, *self.selection])
        with open(table, encoding="utf-8", newline="") as file:
            return {(row["strategy"], row["remote_kv"]): row for row in csv.DictReader(file)
                    if row["data"] == "1" and row["legal"] == "true"}


def planned_parts(row, phase):
    """Milliseconds."""
    total = float(row[f"attention_{phase}_s"])
    kernels, exposed = (float(row[f"attention_{phase}_{part}_s"]) for part in ("kernels", "exposed"))
    return {"total": 1e3 * total, "kernels": 1e3 * kernels, "exposed": 1e3 * exposed, "copies": 1e3 * (total - kernels - exposed)}


def measured_parts(side, phase):
    """Each the median over calls of the slowest rank's."""
    def copies(answer):
        stages = answer[phase]
        return stages["total"] - stages.get("communication", 0) - sum(stages.get(name, 0) for name in KERNELS)
    return {"total": side.stage(phase, "total"), "exposed": side.stage(phase, "communication"),
            "kernels": side.over_ranks(lambda answer: sum(answer[phase].get(name, 0) for name in KERNELS)),
            "copies": side.over_ranks(copies)}


def compare(side, row):
    record = {"way": side.way, "budget": side.budget, "planned": {}, "measured": {}, "ratio": {}}
    for phase in ("forward", "backward"):
        record["planned"][phase], record["measured"][phase] = planned_parts(row, phase), measured_parts(side, phase)
    totals = {}
    for kind in ("planned", "measured"):
        totals[kind] = {phase: record[kind][phase]["total"] for phase in ("forward", "backward")}
    totals["planned"]["both"] = sum(totals["planned"].values())
    totals["measured"]["both"] = side.total_ms()
    for span in ("forward", "backward", "both"):
        record["ratio"][span] = round(totals["planned"][span] / totals["measured"][span], 3)
    for kind in ("planned", "measured"):
        for phase, parts in record[kind].items():
            record[kind][phase] = {name: round(value, 2) for name, value in parts.items()}
    record["bytes"] = [int(row["forward_bytes"]) + int(row["backward_bytes"]), int(side.bytes_sent())]
    return {**record, **{name: side.record()[name] for name in ("stages_ms", "all_ms")}}


def show(record):
    budget = f" budget {record['budget']}" if record["budget"] else ""
    planned, measured = record["planned"], record["measured"]
    parts = "  ".join(
        f"{name} {planned['forward'][name]:.1f}/{measured['forward'][name]:.1f} {planned['backward'][name]:.1f}/{measured['backward'][name]:.1f}"
        for name in ("kernels", "copies", "exposed"))
    print(f"  {record['way']:22}{budget:11} {sum(planned[p]['total'] for p in planned):8.1f} planned, "
          f"{median(record['all_ms']):8.1f} ms measured: {record['ratio']['both']:.3f} "
          f"(forward {record['ratio']['forward']:.3f}, backward {record['ratio']['backward']:.3f})\n"
          f"      planned/measured, forward and backward: {parts}", flush=True)


def run_method(team, place, case, name, captured, rounds):
    method, budget = METHODS[name]
    # Dense attention selects nothing; a budget that all heads compete for needs them on one rank.
    left_out = "selected" if method == "dense" else "ulysses" if budget is not None else None
    ways = [way for way in WAYS if left_out is None or not way.startswith(left_out)]
    with tempfile.TemporaryDirectory() as folder:
        planner = Planner(place, case, method, budget, captured, folder)
        team.ask(op="problem", heads=case["heads"], head_dim=case["head_dim"])
        sides = [Ours(team, case, place.ranks, f"{method}_{way}", captured, budget) for way in ways]
        cluster = planner.calibrate()
        in_turns(sides, rounds, lambda side, counted: side.turn(counted))
        rows = planner.predict()
        for side, way in zip(sides, ways):
            yield {**compare(side, rows[WAYS[way]]), "cluster": cluster}


def run_place(place, case, arguments, captured):
    with contextlib.ExitStack() as stack:
        stack.enter_context(place.up())
        team = stack.enter_context(RankTeam.under_mpirun("exchange_bench", place, place.ranks, OURS))
        print(f"{place.name}, {place.ranks} ranks, {case['tokens']} tokens, {case['heads']} heads of {case['head_dim']}, {case['dtype']}",
              flush=True)
        for name in arguments.methods:
            for record in run_method(team, place, case, name, captured, arguments.rounds):
                show(record)
                with open(arguments.output, "a", encoding="utf-8") as output:
                    output.write(json.dumps({**place.fields(), "ranks": place.ranks, **case, **record, **stamp()}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tokens", choices=GRIDS, default="10920")
    parser.add_argument("--shape", type=exchange.shape_of, metavar="HxDxTYPE", default=(12, 64, "bf16"))
    parser.add_argument("--captured", metavar="DIR", required=True, help="folder of 10920.safetensors and 32760.safetensors")
    parser.add_argument("--rounds", type=int, default=7, help="counted turns; at least 5")
    parser.add_argument("--output", default=OUTPUT)
    arguments = parser.parse_args()
    if arguments.rounds < 5:
        parser.error(f"--rounds: expected at least 5, found {arguments.rounds}")
    for needed in (OURS, SPROCKET):
        if not os.path.exists(needed):
            sys.exit(f"expected {needed}, found none: scripts/build -DSPROCKET_BENCH=ON")
    case = case_of(arguments.tokens, *arguments.shape)
    captured = exchange.captured_path(arguments.captured, case["tokens"])
    if not captured:
        sys.exit(f"expected {case['tokens']}.safetensors in {arguments.captured}")
    os.makedirs(os.path.dirname(arguments.output), exist_ok=True)
    raise_on_signals()
    for network in arguments.networks:
        for ranks in arguments.ranks:
            try:
                run_place(Place(network, ranks, RATES[network]), case, arguments, captured)
            except Unavailable as reason:
                print(f"skipped {network}: {reason}")


if __name__ == "__main__":
    main()
