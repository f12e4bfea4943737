#!/usr/bin/env python3
"""The Mpi backend against Open MPI itself and gloo (torch.distributed): bytes per second between ranks, in one run.

    scripts/setup --with-peers && scripts/build -DSPROCKET_BENCH=ON
    bench/comm.py            # shared memory, 1 Gbit/s and 200 Mbit/s, 2 and 4 ranks
    bench/comm.py --smoke    # under a minute: small messages, few repetitions

A size is what a rank sends to others in all, in equal parts. `exchange`: one message to and from every other rank, the own
part left out; `all_to_all`: the own part is copied too. Raw means MPI_Irecv, MPI_Isend, MPI_Waitall and MPI_Alltoall, called
by a program of their own that leaves Open MPI as installed. The three sides take turns, in an order that turns; a turn is some operations in a row, and its time
that of the slowest rank; figures are medians. The slow networks need root (bench/network/slow_network) and are left out
without it. With more ranks than cores, ranks share cores, which shows on shared memory.

Appends one JSON line per case and side to bench/results/comm.jsonl; Sprocket's lines hold rate ratios over the others.
"""
import argparse
import json
import os
import sys
import tempfile

from machine import ROOT, stamp
from mkl_unlock import build_unlock
from rank_team import CORES, PYTHON, Place, RankTeam, Unavailable, in_turns, median, raise_on_signals

OURS = os.path.join(ROOT, "build/bin/comm_bench")
THEIRS = os.path.join(ROOT, "bench/peers/gloo_comm.py")
PORT = 29611
MIB = 1 << 20
RATES = {"shared_memory": None, "1gbit": "1gbit", "200mbit": "200mbit"}
BYTES_PER_S = {"shared_memory": 4e9, "1gbit": 110e6, "200mbit": 23e6}  # about, to choose how long a turn is
SIDES = ("sprocket", "raw", "gloo")


def operations_of_a_turn(network, size, seconds):
    return max(1, min(200, round(seconds * BYTES_PER_S[network] / size)))


def measure(teams, what, size, count, rounds):
    """{side: milliseconds of one operation, by turn}."""
    times = {side: [] for side in SIDES}

    def turn(side, counted):
        slowest = max(answer["ms"] for answer in teams[side].ask(op="run", what=what, count=count))
        if counted:
            times[side].append(slowest)
    in_turns(SIDES, rounds, turn)
    return times


def records_of(case, times):
    rates = {side: case["bytes"] / median(times[side]) / 1e3 for side in SIDES}
    for side in SIDES:
        record = {**case, "side": side, "ms": round(median(times[side]), 4), "mb_per_s": round(rates[side], 1),
                  "all_ms": [round(t, 4) for t in times[side]]}
        if side == "sprocket":
            record.update(rate_over_raw=round(rates[side] / rates["raw"], 3), rate_over_gloo=round(rates[side] / rates["gloo"], 3))
        yield record


def show(records):
    ours, raw, gloo = records
    print(f"{ours['network']:13} x{ours['ranks']} {ours['what']:10} {ours['bytes'] / MIB:5.0f} MiB  sprocket {ours['mb_per_s']:8.1f} MB/s"
          f"  raw {raw['mb_per_s']:8.1f}  gloo {gloo['mb_per_s']:8.1f}  over raw {ours['rate_over_raw']:.3f}"
          f"  over gloo {ours['rate_over_gloo']:.2f}", flush=True)


def run_place(place, arguments, unlock):
    with place.up(), RankTeam.under_mpirun("comm_bench", place, place.ranks, OURS) as sprocket, \
            RankTeam.under_mpirun("comm_bench --raw", place, place.ranks, OURS, "--raw") as raw, \
            RankTeam.python("gloo_comm.py", place, place.ranks, THEIRS, PORT, {"LD_PRELOAD": unlock}) as gloo:
        teams = {"sprocket": sprocket, "raw": raw, "gloo": gloo}
        measured_on = {**stamp(), "library": raw.about[0]["library"], "torch": gloo.about[0]["torch"],
                       "ranks_per_core": place.ranks / min(place.ranks, len(CORES))}
        for mib in arguments.mib:
            size = round(mib * MIB)
            for team in teams.values():
                team.ask(op="prepare", bytes=size)
            count = operations_of_a_turn(place.name, size, arguments.turn_seconds)
            for what in ("exchange", "all_to_all"):
                case = {**place.fields(), "ranks": place.ranks, "what": what, "bytes": size, "operations_per_turn": count}
                records = list(records_of(case, measure(teams, what, size, count, arguments.rounds)))
                show(records)
                with open(arguments.output, "a", encoding="utf-8") as output:
                    for record in records:
                        output.write(json.dumps({**record, **measured_on}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--mib", nargs="+", type=float, default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=5, help="counted turns; at least 5")
    parser.add_argument("--turn-seconds", type=float, default=0.15, help="about how long a turn is; at least one operation")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/comm.jsonl"))
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.mib, arguments.rounds, arguments.turn_seconds, arguments.output = [0.25, 1], 2, 0.02, os.devnull
    elif arguments.rounds < 5:
        parser.error(f"--rounds: expected at least 5, found {arguments.rounds}")
    for needed in (OURS, PYTHON):
        if not os.path.exists(needed):
            sys.exit(f"expected {needed}, found none: scripts/setup --with-peers && scripts/build -DSPROCKET_BENCH=ON")
    os.makedirs(os.path.dirname(arguments.output), exist_ok=True)
    raise_on_signals()
    with tempfile.TemporaryDirectory() as folder:
        unlock = build_unlock(folder)
        for network in arguments.network:
            for ranks in arguments.ranks:
                try:
                    run_place(Place(network, ranks, RATES[network]), arguments, unlock)
                except Unavailable as reason:
                    print(f"skipped {network}, {ranks} ranks: {reason}")


if __name__ == "__main__":
    main()
