#!/usr/bin/env python3
"""A job of four ranks that something happens to all the time, and what it loses by that.

    soak.py SPROCKET SOURCE_DIR MAKE_CLIP FAULTS_LIBRARY SPROCKET_WITH_FAULTS
            --steps 3000 --every 60 120 --seed 1 [--rest] [--result FILE] [--note TEXT]

Faults of a fixed seed befall a job; another one does the same steps undisturbed, beside it. Both must end with the same
bits: all losses, weights and moments. Each fault must be told apart, with the right rank. With --rest the ranks of
the disturbed job rest for .3 s in each step, as a rank does while its device computes.

ETTR, the effective training time ratio, is productive time / wall time. Wall time is that of the disturbed launcher, from
its start to its end: starts of processes, first and last saves and all that is lost are in it. Productive time is the number
of steps that were kept, those that had to be repeated counted once, times the median of their own durations: of the
disturbed run, so that both are of the same machine under the same load; the median, so that a step in which a rank was
stopped does not count as productive. What training waits for its saves lies between the steps, and counts as lost.

A fault costs: from its beginning to the supervisor's notice, from there to the first new step, and the steps that are
done again. Extrapolated to one fault every 30 minutes, ETTR is 1 - (mean cost) / 30 minutes; for the dearest fault too.
"""
import argparse
import glob
import json
import os
import random
import re
import signal
import socket
import statistics
import sys
import time

from supervised_job import CONSTANT_RATE, DISCONNECT, LEAVE, PATIENCE, RANKS, Job, Site, wait_until

REST = .3  # seconds, of fault_at_moment.cc
LIMIT = 12  # seconds without progress
PAUSE = 6  # seconds that a rank is stopped which goes on in time
LAST_FAULT = 40  # steps before the end
HALF_HOUR = 1800
RESTARTING = {  # kind: signal, what the supervisor says of it; of a connection it says nothing
    "SIGKILL": (signal.SIGKILL, "crash: rank {} ("),
    "SIGKILL in a save": (signal.SIGKILL, "crash: rank {} ("),
    "abort": (signal.SIGABRT, "crash: rank {} ("),
    "segmentation fault": (signal.SIGSEGV, "crash: rank {} ("),
    "early exit 0": (LEAVE, "crash: rank {} ("),
    "stopped for good": (signal.SIGSTOP, "hang: rank {} ("),
}
SURVIVED = {
    "stopped for a while": (signal.SIGSTOP, "launch: rank {} ("),
    "connection dropped": (DISCONNECT, ""),
}


def require(condition, message):
    if not condition:
        raise AssertionError(message)


class Soak:
    def __init__(self, site, arguments):
        self.site, self.arguments = site, arguments
        self.random = random.Random(arguments.seed)
        self.faults = []

    def job(self, name, **more):
        return Job(self.site, name, "--limit", f"step={LIMIT}", "--limit", f"checkpoint={LIMIT}",
                   steps=self.arguments.steps, interval=self.arguments.interval,
                   sets=(CONSTANT_RATE, "output.keep_checkpoints: 3"), **more)

    def disturbed(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        began, steps = time.monotonic(), self.arguments.steps
        job = self.job("disturbed", port=port, plans=self.arguments.rest)
        for rank in range(RANKS if self.arguments.rest else 0):
            job.plan(rank, "optimizer", "slow")
        job.await_steps(1)
        kinds = []
        while True:
            due = time.monotonic() + self.random.uniform(*self.arguments.every)
            wait_until(lambda: "the next fault is due", lambda: time.monotonic() > due or job.process.poll() is not None,
                       2 * self.arguments.every[1], poll=.1)
            if job.process.poll() is not None or steps - job.newest_step() < LAST_FAULT:
                break
            if not kinds:
                kinds = self.random.sample([*RESTARTING, *SURVIVED], len(RESTARTING) + len(SURVIVED))
            self.inject(job, kinds.pop(), self.random.randrange(RANKS))
        code = job.process.wait(PATIENCE)
        wall = time.monotonic() - began
        require(code == 0, f"disturbed: ended with {code}: {job.log()}")
        return job, wall

    def inject(self, job, kind, rank):
        number, notice = {**RESTARTING, **SURVIVED}[kind]
        if kind == "SIGKILL in a save":
            unfinished = os.path.join(glob.escape(job.run), "step_*.tmp-*")
            wait_until(lambda: "a save begins", lambda: glob.glob(unfinished), poll=.001)
        start, victim = job.log_end(), job.ranks()[rank]
        began = time.monotonic()
        os.kill(victim, number)
        at = job.newest_step()
        if kind == "stopped for a while":
            until = began + PAUSE
            wait_until(lambda: "the pause is over", lambda: time.monotonic() > until)
            os.kill(victim, signal.SIGCONT)
        job.await_log("is gone" if "crash" in notice else notice.format(rank), start)
        fault = {"kind": kind, "rank": rank, "step": at, "detect": round(time.monotonic() - began, 3), "restart": 0., "lost": 0}
        if kind in RESTARTING:
            fault["restart"] = job.await_first_step(start)
            said = job.log(start)
            require(notice.format(rank) in said, f"{kind} of rank {rank} was not named: {said}")
            # A job that was stopped for good may have saved when it was told to end.
            fault["lost"] = max(at - int(re.search(r"resuming from \S*step_(\d+)", said).group(1)), 0)
        else:
            job.await_steps(at + 2)
        self.faults.append(fault)
        print(f"{kind:<20} rank {rank} step {at:6}: noticed after {fault['detect']:5.2f} s, first new step "
              f"{fault['restart']:5.1f} s later, {fault['lost']:4} steps again", flush=True)

    def summary(self, disturbed, wall):
        steps = self.arguments.steps
        step = statistics.median(values["step_seconds"] for values in disturbed.metrics().values())
        costs = [fault["detect"] + fault["restart"] + fault["lost"] * step for fault in self.faults]
        restarts = [fault for fault in self.faults if fault["kind"] in RESTARTING]
        return {"minutes": round(wall / 60, 1), "seed": self.arguments.seed, "every_seconds": self.arguments.every,
                "ranks": RANKS, "rest_seconds": REST if self.arguments.rest else 0, "steps": steps,
                "checkpoint_interval": self.arguments.interval, "step_seconds": round(step, 4),
                "faults": len(self.faults), "restarts": len(restarts),
                "detect_seconds_median": round(statistics.median(fault["detect"] for fault in self.faults), 2),
                "restart_seconds_median": round(statistics.median(fault["restart"] for fault in restarts), 2),
                "restart_seconds_longest": max(fault["restart"] for fault in restarts),
                "steps_lost": sum(fault["lost"] for fault in self.faults),
                "cost_seconds_mean": round(statistics.mean(costs), 2), "cost_seconds_dearest": round(max(costs), 2),
                "ettr": round(steps * step / wall, 4),
                "ettr_fault_every_30_minutes": round(1 - statistics.mean(costs) / HALF_HOUR, 4),
                "ettr_dearest_fault_every_30_minutes": round(1 - max(costs) / HALF_HOUR, 4)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sprocket", "source", "make_clip", "faults", "with_faults"):
        parser.add_argument(name)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=float, nargs=2, default=(60, 120), metavar="SECONDS", help="between faults")
    parser.add_argument("--interval", type=int, default=100, help="steps between checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rest", action="store_true", help="in each step of the disturbed job")
    parser.add_argument("--result", help="a file of JSON lines to add the result to")
    parser.add_argument("--note", default="", help="goes with the result")
    return parser.parse_args()


def main():
    given = arguments()
    site = Site(given.sprocket, given.source, given.make_clip, given.faults, given.with_faults)
    try:
        soak = Soak(site, given)
        undisturbed = soak.job("undisturbed")
        disturbed, wall = soak.disturbed()
        require(soak.faults, "the job ended before the first fault")
        require(undisturbed.process.wait(wall + PATIENCE) == 0, f"undisturbed: {undisturbed.log()}")
        differences = disturbed.differences(undisturbed, given.steps)
        require(not differences, f"other bits than undisturbed: {differences}")
        result = soak.summary(disturbed, wall)
    finally:
        site.close()
    print("losses, weights and moments: the same bits")
    for key, value in result.items():
        print(f"{key:<38} {value}")
    if given.result:
        sys.path.append(os.path.join(site.source, "bench"))
        from machine import stamp
        with open(given.result, "a", encoding="utf-8") as file:
            line = {**stamp(), **result, **({"note": given.note} if given.note else {}), "each": soak.faults}
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
