#!/usr/bin/env python3
"""One layer's attention on 2 and 4 ranks over shared memory and slow networks: the selected exchange against its rivals, in one run.

    scripts/setup --with-peers && scripts/build -DSPROCKET_BENCH=ON
    bench/exchange.py --captured DIR        # bench/README.md tells how to make DIR's files
    bench/exchange.py --smoke               # under two minutes: do all ways compute the same?

Ways: dense ring, all-gather and Ulysses; the same three under VSA's selection (sparsity 0.9, gated coarse branch); the selected
exchange without a budget and with budgets of .3, .2 and .1, one domain for every rank; without a budget also `auto`, which gathers
everything where little can be left out; with .2 also `blocking`, in which nothing travels while kernels compute; dense ring and
Ulysses in PyTorch over gloo (bench/peers/gloo_attention.py; MKL's AVX-512 code unlocked). One thread a rank, forward and backward. On shared memory
also one rank alone, of both programs, for the scaling.

All programs stay resident and take turns, one call each, in an order that turns; ranks that have no turn sleep. A call's time
is that of the slowest rank; figures are medians. Inputs: `random`, independent normal numbers, which make selections uniformly
random; `captured`, q, k, v and gate of a trained model on a real clip. Dense ways do not depend on the input and run once.
With more ranks than cores the ranks share cores: then compare waits and bytes, too.

Appends one JSON line per way to bench/results/exchange.jsonl; lines of the selected exchange hold for every rival how many times
faster they were (`over_…`), how many times fewer bytes they sent (`bytes_…`), and the first divided by the second (`share_…`).
"""
import argparse
import contextlib
import json
import os
import sys
import tempfile
import time

from machine import ROOT, stamp
from mkl_unlock import build_unlock
from rank_team import CORES, PYTHON, Place, RankTeam, Unavailable, in_turns, median, raise_on_signals

OURS = os.path.join(ROOT, "build/bin/exchange_bench")
THEIRS = os.path.join(ROOT, "bench/peers/gloo_attention.py")
PORT = 29621
RATES = {"shared_memory": None, "1gbit": "1gbit", "200mbit": "200mbit"}
SPARSITY = 0.9
BUDGETS = (0.3, 0.2, 0.1)
GRIDS = {"640": (4, 16, 10), "10920": (7, 30, 52), "32760": (21, 30, 52)}
SHAPES = {"10920": [(4, 64, "fp32"), (4, 128, "bf16"), (12, 64, "bf16"), (12, 128, "bf16")], "32760": [(4, 128, "bf16")]}
EVERY_SHAPE = [(heads, dim, dtype) for heads in (4, 12) for dim in (64, 128) for dtype in ("fp32", "bf16")]
OUTERS = {
    "ring": "strategy: RING", "all_gather": "strategy: ALL_GATHER", "auto": "strategy: SELECTED",
    "selected": "strategy: SELECTED gather_above: 1", "blocking": "strategy: SELECTED gather_above: 1 overlap: false",
    "all_gather_again": "strategy: ALL_GATHER remote_kv: FETCH_AGAIN",
    "selected_again": "strategy: SELECTED gather_above: 1 remote_kv: FETCH_AGAIN"}
RIVALS = ("dense_ring", "dense_all_gather", "dense_ulysses", "vsa_ring", "vsa_all_gather", "vsa_ulysses", "torch_ring",
          "torch_ulysses")


def job_text(case, domains, ranks, way, budget):
    """What exchange_bench takes: the job of a way such as dense_ring or vsa_selected on so many ranks."""
    method, _, strategy = way.partition("_")
    text = f"attention {{ method: {method.upper()} domains: {domains} "
    if method == "vsa":
        schedule = f"max_coverage {{ start: {budget} }} " if budget is not None else ""
        text += f"{schedule}vsa {{ sparsity {{ start: {SPARSITY} }} coarse: GATED }} "
    parallel = f"ulysses: {ranks} outer: 1" if strategy == "ulysses" else f"ulysses: 1 outer: {ranks}"
    if strategy in OUTERS:
        parallel += f" {OUTERS[strategy]}"
    t, h, w = case["grid"]
    return (f"{text}}} parallel {{ {parallel} timeout_seconds: 600 }} "
            f"compute {{ precision: {case['dtype'].upper()} threads: 1 }} problem {{ grid {{ t: {t} h: {h} w: {w} }} }}")


class Ours:
    """A way of exchange_bench."""

    def __init__(self, team, case, domains, way, path="", budget=None):
        self.team, self.way, self.budget, self.calls = team, way, budget, []
        self.source = "captured" if path else "random"
        self.id = f"{way} {self.source} {budget}"
        team.ask(op="variant", id=self.id, input=path, job=job_text(case, domains, team.ranks, way, budget))

    def turn(self, counted, digest=False):
        answers = self.team.ask(op="run", id=self.id, backward=True, digest=digest)
        if counted:
            self.calls.append(answers)
        return answers

    def over_ranks(self, value, reduction=max):
        """The median over calls of the largest value of a rank."""
        return median([reduction([value(answer) for answer in answers]) for answers in self.calls])

    def stage(self, phase, name, reduction=max):
        return self.over_ranks(lambda answer: answer[phase].get(name, 0), reduction)

    def total_ms(self):
        return self.over_ranks(lambda answer: answer["total_ms"])

    def forward_ms(self):
        return self.stage("forward", "total")

    def bytes_sent(self):
        return self.over_ranks(lambda answer: answer["forward_bytes"] + answer["backward_bytes"])

    def record(self):
        mean = lambda values: sum(values) / len(values)  # noqa: E731
        names = sorted({name for answers in self.calls for answer in answers for name in (*answer["forward"], *answer["backward"])})
        planning = self.over_ranks(lambda answer: answer["forward"].get("plan", 0) + answer["backward"].get("plan", 0))
        waits = self.over_ranks(lambda a: a["forward"].get("communication", 0) + a["backward"].get("communication", 0))
        return {
            "side": "sprocket", "way": self.way, "input": self.source, "budget": self.budget,
            "total_ms": round(self.total_ms(), 2), "forward_ms": round(self.forward_ms(), 2),
            "backward_ms": round(self.stage("backward", "total"), 2), "bytes_sent": int(self.bytes_sent()),
            "forward_bytes": int(self.over_ranks(lambda answer: answer["forward_bytes"])),
            "messages": int(self.over_ranks(lambda answer: answer["forward_messages"] + answer["backward_messages"])),
            "exposed_wait_ms": round(waits, 2), "exposed_share": round(waits / self.total_ms(), 4),
            "planning_ms": round(planning, 3), "planning_share": round(planning / self.total_ms(), 5),
            "coverage": round(self.over_ranks(lambda answer: answer["coverage"], mean), 4),
            "density": round(self.over_ranks(lambda answer: answer["density"], mean), 4),
            "stages_ms": {name: [round(self.stage("forward", name), 2), round(self.stage("backward", name), 2)] for name in names},
            "all_ms": [round(max(answer["total_ms"] for answer in answers), 2) for answers in self.calls]}


class Theirs:
    """A way of gloo_attention.py."""

    def __init__(self, team, way):
        self.team, self.way, self.calls = team, way, []
        self.kind = {"torch_ring": "ring", "torch_ulysses": "ulysses", "torch_alone": "sdpa"}[way]

    def turn(self, counted):
        answers = self.team.ask(op="run", way=self.kind, backward=True)
        if counted:
            self.calls.append(answers)

    def slowest(self, key):
        return median([max(answer[key] for answer in answers) for answers in self.calls])

    def total_ms(self):
        return self.slowest("total_ms")

    def forward_ms(self):
        return self.slowest("forward_ms")

    def record(self):
        return {"side": "torch", "way": self.way, "total_ms": round(self.total_ms(), 2),
                "forward_ms": round(self.forward_ms(), 2), "backward_ms": round(self.slowest("backward_ms"), 2),
                "all_ms": [round(max(answer["total_ms"] for answer in answers), 2) for answers in self.calls]}


def add_ratios(ours, sides, record):
    """Of a selected exchange over every rival. The rivals' work and bytes do not depend on the input."""
    for rival in (side for side in sides if side.way in RIVALS):
        record[f"over_{rival.way}"] = round(rival.total_ms() / ours.total_ms(), 3)
        record[f"forward_over_{rival.way}"] = round(rival.forward_ms() / ours.forward_ms(), 3)
        if isinstance(rival, Ours):
            ratio = rival.bytes_sent() / ours.bytes_sent()
            record[f"bytes_{rival.way}"] = round(ratio, 3)
            record[f"share_{rival.way}"] = round(rival.total_ms() / ours.total_ms() / ratio, 3)


def add_scaling(side, sides, record):
    """Over one rank of the same program on the same problem."""
    method = side.way.partition("_")[0]
    for alone in (other for other in sides if other.way == f"{method}_alone" and side.way != other.way):
        if isinstance(side, Theirs) or (alone.source, alone.budget) == (side.source, side.budget):
            record["scaling"] = round(alone.total_ms() / side.total_ms(), 3)
            record["forward_scaling"] = round(alone.forward_ms() / side.forward_ms(), 3)


class Teams:
    """The programs of one place; on shared memory also one rank of each."""

    def __init__(self, place, stack, unlock, budgets):
        self.place, self.budgets = place, budgets
        enter = stack.enter_context
        enter(place.up())
        self.ours = enter(RankTeam.under_mpirun("exchange_bench", place, place.ranks, OURS))
        self.ours_alone = self.theirs = self.theirs_alone = None
        if place.rate is None:
            self.ours_alone = enter(RankTeam.under_mpirun("exchange_bench, one rank", place, 1, OURS))
        if unlock is None:
            return
        unlocked = {"LD_PRELOAD": unlock}
        self.theirs = enter(RankTeam.python("gloo_attention.py", place, place.ranks, THEIRS, PORT, unlocked))
        if place.rate is None:
            self.theirs_alone = enter(RankTeam.python("gloo_attention.py, one rank", place, 1, THEIRS, PORT + 1, unlocked))

    def prepare(self, case):
        for team in filter(None, (self.ours, self.ours_alone)):
            team.ask(op="problem", heads=case["heads"], head_dim=case["head_dim"])
        for team in filter(None, (self.theirs, self.theirs_alone)):
            team.ask(op="problem", tokens=case["tokens"], heads=case["heads"], head_dim=case["head_dim"], dtype=case["dtype"])

    def sides(self, case, captured):
        """Every way to be measured, ready."""
        self.prepare(case)
        ranks = self.place.ranks
        ulysses = case["heads"] % ranks == 0

        def ours(way, path="", budget=None, team=self.ours):
            return Ours(team, case, ranks, way, path, budget)
        sides = [ours("dense_ring"), ours("dense_all_gather"), ours("vsa_ring", captured), ours("vsa_all_gather", captured),
                 ours("vsa_selected"), ours("vsa_selected", budget=0.2)]
        if ulysses:
            sides += [ours("dense_ulysses"), ours("vsa_ulysses", captured)]
        if self.theirs:
            sides += [Theirs(self.theirs, way) for way in ("torch_ring", *(["torch_ulysses"] if ulysses else []))]
        if captured:
            sides += [ours("vsa_selected", captured, budget) for budget in (None, *self.budgets)]
        sides += [ours("vsa_auto", captured), ours("vsa_blocking", captured, 0.2)]
        if self.ours_alone:
            sides.append(ours("dense_alone", team=self.ours_alone))
            sides += [ours("vsa_alone", path, budget, self.ours_alone) for path in {"", captured} for budget in (None, 0.2)]
        if self.theirs_alone:
            sides.append(Theirs(self.theirs_alone, "torch_alone"))
        return sides


def measure(teams, case, captured, rounds):
    sides = teams.sides(case, captured)
    in_turns(sides, rounds, lambda side, counted: side.turn(counted))
    for side in sides:
        record = side.record()
        if side.way in ("vsa_selected", "vsa_auto"):
            add_ratios(side, sides, record)
        add_scaling(side, sides, record)
        yield record


def show(record):
    budget = f" budget {record['budget']}" if record.get("budget") is not None else ""
    line = f"  {record['way']:17}{record.get('input', ''):9}{budget:11} {record['total_ms']:9.1f} ms (forward {record['forward_ms']:8.1f})"
    if "bytes_sent" in record:
        line += f"  {record['bytes_sent'] / 1e6:8.2f} MB  wait {100 * record['exposed_share']:4.1f} %" \
                f"  planning {100 * record['planning_share']:5.2f} %  coverage {record['coverage']:.3f}"
    if "scaling" in record:
        line += f"  {record['scaling']:.2f} times one rank"
    for rival in RIVALS:
        if f"over_{rival}" in record:
            line += f"\n      over {rival}: {record[f'over_{rival}']:.2f}"
            if f"bytes_{rival}" in record:
                line += f", bytes {record[f'bytes_{rival}']:.2f}, share {record[f'share_{rival}']:.2f}"
    print(line, flush=True)


def relative(values, expected):
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(values, expected))


def smoke(teams, case, captured):
    """Whether all ways compute the same; returns the number of those that do not."""
    failures = 0
    expected = {}
    # A rounding of every one of the products' terms, which are normal numbers.
    tolerance = 1e-3 if case["dtype"] == "fp32" else 3e-1
    for side in teams.sides(case, captured):
        if isinstance(side, Theirs):
            difference = max(side.team.ask(op="check", way=side.kind)[0]["differences"])
        else:
            answers = side.turn(False, digest=True)
            digest = [sum(answer["digest"][name] for answer in answers) for name in ("out", "q", "k", "v")]
            function = (side.way.partition("_")[0], side.source, side.budget)
            difference = relative(digest, expected.setdefault(function, digest))
        limit = tolerance if isinstance(side, Ours) else {"fp32": 1e-5, "bf16": 2e-2}[case["dtype"]]
        wrong = difference > limit
        failures += wrong
        print(f"  {side.way:17} {getattr(side, 'source', ''):9} {getattr(side, 'budget', None)}: "
              f"{'DIFFERS, ' if wrong else ''}difference {difference:.1e}", flush=True)
    return failures


def case_of(tokens, heads, head_dim, dtype):
    return {"tokens": GRIDS[tokens][0] * GRIDS[tokens][1] * GRIDS[tokens][2], "grid": GRIDS[tokens], "heads": heads,
            "head_dim": head_dim, "dtype": dtype}


def cases_of(arguments):
    for tokens in arguments.tokens:
        for shape in arguments.shape or (EVERY_SHAPE if arguments.full else SHAPES[tokens]):
            yield case_of(tokens, *shape)


def captured_path(folder, tokens):
    path = os.path.join(folder, f"{tokens}.safetensors") if folder else ""
    return path if os.path.exists(path) else ""


def run_place(place, arguments, unlock):
    """Returns the number of failures of a smoke run."""
    failures = 0
    with contextlib.ExitStack() as stack:
        teams = Teams(place, stack, unlock, arguments.budgets)
        measured_on = {**stamp(), "library": teams.ours.about[0]["library"],
                       **({"torch": teams.theirs.about[0]["torch"]} if teams.theirs else {}), "ranks_per_core": place.ranks / min(place.ranks, len(CORES)), "threads_per_rank": 1}
        for case in cases_of(arguments):
            captured = captured_path(arguments.captured, case["tokens"])
            print(f"{place.name}, {place.ranks} ranks, {case['tokens']} tokens, {case['heads']} heads of {case['head_dim']}, "
                  f"{case['dtype']}", flush=True)
            if arguments.smoke:
                failures += smoke(teams, case, captured)
                continue
            begin = time.time()
            records = list(measure(teams, case, captured, arguments.rounds))
            with open(arguments.output, "a", encoding="utf-8") as output:
                for record in records:
                    show(record)
                    output.write(json.dumps({**place.fields(), "ranks": place.ranks, **case, **record, **measured_on}) + "\n")
            print(f"  {time.time() - begin:.0f} s", flush=True)
    return failures


def shape_of(text):
    heads, dim, dtype = text.split("x")
    if dtype not in ("fp32", "bf16"):
        raise ValueError
    return int(heads), int(dim), dtype


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--tokens", nargs="+", choices=GRIDS, default=["10920", "32760"])
    parser.add_argument("--shape", nargs="+", type=shape_of, metavar="HxDxTYPE", help="heads, head dimension, fp32 or bf16; "
                        "by default four shapes of 10920 tokens and one of 32760")
    parser.add_argument("--full", action="store_true", help="every shape: 4 and 12 heads of 64 and 128, fp32 and bf16; many hours")
    parser.add_argument("--without-torch", action="store_true", help="leave PyTorch's ways out, which take half of the time")
    parser.add_argument("--captured", metavar="DIR", help="folder of 10920.safetensors and 32760.safetensors; without it random only")
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS, help="of the selected exchange on the captured input")
    parser.add_argument("--rounds", type=int, default=5, help="counted turns; at least 5")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/exchange.jsonl"))
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.tokens, arguments.shape = ["640"], [(4, 64, "fp32"), (4, 128, "bf16")]
    elif arguments.rounds < 5:
        parser.error(f"--rounds: expected at least 5, found {arguments.rounds}")
    for needed in (OURS, PYTHON):
        if not os.path.exists(needed):
            sys.exit(f"expected {needed}, found none: scripts/setup --with-peers && scripts/build -DSPROCKET_BENCH=ON")
    os.makedirs(os.path.dirname(arguments.output), exist_ok=True)
    raise_on_signals()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        unlock = None if arguments.without_torch else build_unlock(folder)
        for network in arguments.network:
            for ranks in arguments.ranks:
                try:
                    failures += run_place(Place(network, ranks, RATES[network]), arguments, unlock)
                except Unavailable as reason:
                    print(f"skipped {network}, {ranks} ranks: {reason}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
