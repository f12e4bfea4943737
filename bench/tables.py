#!/usr/bin/env python3
"""The tables of docs/sequence_parallel.md and docs/plan.md from bench/results/: prints Markdown.

    bench/tables.py comm | exchange | captured | selected | scaling | plan_time | choice

Of several runs of one case the newest counts.
"""
import json
import os
import statistics
import sys

from machine import ROOT

NETWORKS = {"shared_memory": "shared memory", "1gbit": "1 Gbit/s", "200mbit": "200 Mbit/s"}


def read(name, *key):
    """The newest line of every case, in the order of the first."""
    newest = {}
    with open(os.path.join(ROOT, f"bench/results/{name}.jsonl"), encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            newest[tuple(str(record.get(field)) for field in key)] = record
    return list(newest.values())


def table(header, rows):
    print(f"| {' | '.join(header)} |")
    print("|" + "---|" * len(header))
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
    print()


def comm():
    lines = [r for r in read("comm", "network", "ranks", "what", "bytes", "side") if r["side"] == "sprocket"]
    others = {(r["network"], r["ranks"], r["what"], r["bytes"], r["side"]): r
              for r in read("comm", "network", "ranks", "what", "bytes", "side")}

    def rate(record, side):
        return f"{others[record['network'], record['ranks'], record['what'], record['bytes'], side]['mb_per_s']:,.0f}"
    table(["network", "ranks", "operation", "MiB", "MB/s", "Open MPI", "gloo", "over Open MPI", "over gloo"],
          [[NETWORKS[r["network"]], r["ranks"], r["what"].replace("_", "-"), round(r["bytes"] / 2**20), rate(r, "sprocket"), rate(r, "raw"),
            rate(r, "gloo"), f"{r['rate_over_raw']:.2f}", f"{r['rate_over_gloo']:.1f}"] for r in lines])


def cases_of_exchange():
    """{(network, ranks, tokens, heads, head_dim, dtype): {(way, input, budget): record}}"""
    cases = {}
    for r in read("exchange", "network", "ranks", "tokens", "heads", "head_dim", "dtype", "way", "input", "budget"):
        case = cases.setdefault((r["network"], r["ranks"], r["tokens"], r["heads"], r["head_dim"], r["dtype"]), {})
        case[r["way"], r.get("input"), r.get("budget")] = r
    return cases


def pick(ways, way, budget=None):
    """On the captured input where there is one."""
    for source in ("captured", "random", None):
        if (way, source, budget) in ways:
            return ways[way, source, budget]
    return None


def name_of(case):
    network, ranks, tokens, heads, dim, dtype = case
    return [NETWORKS[network], ranks, f"{tokens:,}", f"{heads} x {dim} {dtype}"]


def seconds(record):
    return "" if record is None else f"{record['total_ms'] / 1e3:.2f}"


HEAD = ["network", "R", "tokens", "heads"]


def exchange():
    """Wall time of every way, in seconds."""
    ways = [("dense_ring", None), ("dense_all_gather", None), ("dense_ulysses", None), ("torch_ring", None), ("torch_ulysses", None),
            ("vsa_ring", None), ("vsa_all_gather", None), ("vsa_ulysses", None), ("vsa_auto", None), ("vsa_selected", 0.3),
            ("vsa_selected", 0.2), ("vsa_selected", 0.1)]
    names = ["ring", "all-gather", "Ulysses", "torch ring", "torch Ulysses", "VSA ring", "VSA all-gather", "VSA Ulysses", "selected",
             "budget .3", ".2", ".1"]
    table(HEAD + names, [name_of(case) + [seconds(pick(found, way, budget)) for way, budget in ways]
                         for case, found in cases_of_exchange().items()])


def captured():
    """Coverage and megabytes by budget."""
    rows = []
    for case, found in cases_of_exchange().items():
        chosen = [found.get(("vsa_selected", "captured", budget)) for budget in (None, 0.3, 0.2, 0.1)]
        if all(chosen):
            rows.append(name_of(case) + [f"{r['coverage']:.2f}, {r['bytes_sent'] / 1e6:.1f} MB" for r in chosen])
    table(HEAD + ["no budget", ".3", ".2", ".1"], rows)


def selected():
    """Budget .2: how many times faster than the rivals, and that over the ratio of bytes."""
    rivals = {"dense_ring": "ring", "dense_all_gather": "all-gather", "dense_ulysses": "Ulysses", "vsa_ring": "VSA ring",
              "vsa_all_gather": "VSA all-gather", "vsa_ulysses": "VSA Ulysses"}
    rows = []
    for case, found in cases_of_exchange().items():
        r = pick(found, "vsa_selected", 0.2)
        rows.append(name_of(case) + [f"{r[f'over_{rival}']:.2f} ({r[f'share_{rival}']:.2f})" if f"over_{rival}" in r else "" for rival in rivals]
                    + [f"{100 * r['exposed_share']:.0f} %", f"{100 * r['planning_share']:.2f} %"])
    table(HEAD + list(rivals.values()) + ["waits", "planning"], rows)


def scaling():
    """Two ranks against one, one thread each."""
    rows = []
    for case, found in cases_of_exchange().items():
        if case[0] == "shared_memory" and case[1] == 2:
            names = [("dense_ring", None), ("dense_all_gather", None), ("dense_ulysses", None), ("vsa_ulysses", None), ("vsa_auto", None),
                     ("vsa_selected", 0.2), ("torch_ulysses", None)]
            chosen = [pick(found, *name) for name in names]
            rows.append(name_of(case)[2:] + [f"{r['scaling']:.2f}" if r else "" for r in chosen])
    table(["tokens", "heads", "ring", "all-gather", "Ulysses", "VSA Ulysses", "selected", "budget .2", "torch Ulysses"], rows)
    table(["model", "type", "way", "ranks", "s a step", "times one rank"],
          [[f"{r['tokens']:,} tokens", r["dtype"], r["way"], r["ranks"], f"{r['median_ms'] / 1e3:.2f}", f"{r['scaling']:.2f}"]
           for r in read("train_scaling", "grid", "dtype", "way")])


def plan_time():
    """Planned over measured time, and the measured milliseconds."""
    ways = {}
    for r in read("plan_time", "network", "ranks", "tokens", "heads", "head_dim", "dtype", "way", "budget"):
        ways.setdefault((r["way"], r["budget"]), {})[r["network"]] = r

    def name(way, budget):
        method, _, strategy = way.partition("_")
        text = strategy.replace("_again", ", fetched again").replace("all_gather", "all-gather").replace("ulysses", "Ulysses")
        return f"{'dense' if method == 'dense' else 'VSA'} {text}" + (f", budget {budget:g}" if budget else "")
    def cells(record):
        if record is None:
            return "", ""
        return f"{statistics.median(record['all_ms']):,.0f}", " / ".join(
            f"{record['ratio'][span]:.2f}" for span in ("forward", "backward", "both"))
    table(["way", *(text for n in NETWORKS for text in (f"{NETWORKS[n]}, ms", "planned / measured"))],
          [[name(*key), *(text for n in NETWORKS for text in cells(found.get(n)))] for key, found in ways.items()])


def choice():
    """What the plan ranks first against the fastest way measured in the same run."""
    runs = {}
    for r in read("plan_time", "network", "ranks", "tokens", "heads", "head_dim", "dtype", "way", "budget"):
        method = r["way"].partition("_")[0] + (f" {r['budget']:g}" if r["budget"] else "")
        runs.setdefault((method, r["ranks"], r["network"], r["tokens"], r["heads"], r["head_dim"], r["dtype"]), []).append(r)

    def planned(record):
        return sum(record["planned"][phase]["total"] for phase in ("forward", "backward"))

    def measured(record):
        return statistics.median(record["all_ms"])

    def strategy(record):
        return record["way"].partition("_")[2].replace("_again", ", fetched again").replace("_", "-")
    rows = []
    for (method, ranks, network, *_), records in runs.items():
        chosen, best = min(records, key=planned), min(records, key=measured)
        rows.append([method, ranks, NETWORKS[network], strategy(chosen), f"{measured(chosen):,.0f}", strategy(best),
                     f"{measured(best):,.0f}", f"{measured(chosen) / measured(best):.3f}"])
    table(["method", "ranks", "network", "chosen by the plan", "ms", "fastest", "ms", "chosen over fastest"], rows)


TABLES = {"comm": comm, "exchange": exchange, "captured": captured, "selected": selected, "scaling": scaling, "plan_time": plan_time,
          "choice": choice}

if __name__ == "__main__":
    if len(sys.argv) < 2 or not set(sys.argv[1:]) <= set(TABLES):
        sys.exit(f"usage: bench/tables.py {' | '.join(TABLES)}")
    for NAME in sys.argv[1:]:
        TABLES[NAME]()
