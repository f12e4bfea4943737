#!/usr/bin/env python3
"""Profiles as docs/profile.md defines them (schema 2), in closed form: the same arguments, the same bytes.

    make_profile.py [--ranks 4] [--layers 12] [--heads 12] [--bare] [--hostile] > profile.json

Half of the ranks of a sample are outer ranks. --bare leaves out every key that may be absent; --hostile puts
markup, quotes, line separators and other scripts into every string that comes from users or machines.
"""
import argparse
import json
import math
import sys

PHASES = ["other", "forward", "backward", "recompute", "optimizer", "sample"]
# name, activity, share of a block's forward
BLOCK = [
    ("norm", 0, 0.04), ("linear", 0, 0.16), ("qk_norm", 0, 0.03), ("ulysses.pack", 1, 0.02),
    ("all_to_all", 2, 0.03), ("attention.pool", 0, 0.02), ("attention.select", 0, 0.05), ("attention.plan", 0, 0.02),
    ("attention.local", 0, 0.30), ("exchange", 2, 0.05), ("attention.sum", 0, 0.02), ("ulysses.unpack", 1, 0.02),
    ("cross_attention", 0, 0.06), ("mlp", 0, 0.15), ("residual", 0, 0.03),
]
HOSTILE = "</script><script>window.injected=1</script><img src=x onerror=window.injected=1> \"'&amp;\\ \u2028 пусть/視頻 {{style}} $& "


def wave(*keys):
    """A number from 0 to 1 that looks like chance and is none."""
    value = sum((i + 1) * 12.9898 * (k + 1.618) for i, k in enumerate(keys))
    return math.modf(abs(math.sin(value) * 43758.5453))[0]


def rounded(value, digits=4):
    return round(value, digits)


def mesh_of(ranks):
    data = 1 if ranks < 16 else ranks // 16
    sample = ranks // data
    ulysses = 1 if sample < 2 else 2 if sample < 8 else 4
    return data, sample // ulysses, ulysses


def rank_rows(ranks, late, text, memory):
    rows = []
    for rank in range(ranks):
        slow = 160.0 if rank == late and ranks > 1 else 0.0
        compute = 1180 + 60 * wave(rank, 1) + slow
        copies = 38 + 6 * wave(rank, 2)
        data = 6 + 4 * wave(rank, 3)
        step = 1920.0
        communicated = 0.0 if ranks == 1 else 560 + 50 * wave(rank, 5)
        other = 92 + 20 * wave(rank, 4) if ranks > 1 else step - compute - copies - data
        exposed = step - compute - copies - data - other
        row = {
            "rank": rank, "host": text(f"node{rank // 8:03d}"), "step_ms": step, "compute_ms": rounded(compute),
            "exposed_ms": rounded(exposed), "copies_ms": rounded(copies), "data_wait_ms": rounded(data),
            "other_ms": rounded(other), "communication_ms": rounded(max(communicated, exposed)) if ranks > 1 else 0,
            "wait_ms": rounded((211 if rank != late else 4) + 20 * wave(rank, 6)) if ranks > 1 else 0,
            "caused_wait_ms": rounded(190.0 * (ranks - 1) if rank == late else 9 * wave(rank, 7)) if ranks > 1 else 0,
            "sent_bytes": round(1.37e9 * (1 + 0.1 * wave(rank, 8))) if ranks > 1 else 0,
            "tokens": 32760 / min(ranks, 16),
        }
        if memory:
            row["memory"] = memory_of(rank)
        rows.append(row)
    return rows


def memory_of(rank):
    parameters = 2_838_000_000
    rest = round(4.1e9 * (1 + 0.2 * wave(rank, 9)))
    return {"peak_bytes": 4 * parameters + rest, "parameters_bytes": parameters, "gradients_bytes": parameters,
            "moments_bytes": 2 * parameters, "rest_bytes": rest}


def operations(ranks, text, linked):
    if ranks == 1:
        return []
    data, outer, ulysses = mesh_of(ranks)
    kinds = []
    if ulysses > 1:
        kinds += [("sp.ulysses", "all_to_all", "forward", 120, 42.1), ("sp.ulysses", "all_to_all", "backward", 120, 47.9)]
    if outer > 1:
        kinds += [("sp.outer", "exchange", "forward", 30, 61.3), ("sp.outer", "exchange", "backward", 60, 118.2),
                  ("sp.outer", "all_gather", "forward", 30, 8.4)]
    if data > 1:
        kinds.append(("dp", "all_reduce", "optimizer", 6, 93.6))
    kinds += [("world", "all_reduce", "optimizer", 4, 22.7), ("world", "barrier", "other", 1, 0.02)]
    rows = []
    for index, (group, op, phase, calls, transfer) in enumerate(kinds):
        payload = 0 if op == "barrier" else round(transfer * 9.1e6 * (0.8 + 0.4 * wave(index)))
        row = {"group": group, "op": op, "phase": phase, "calls": calls, "messages": calls * 3, "payload_bytes": payload,
               "wire_bytes": round(payload * 1.5), "between_nodes_bytes": payload if group in ("dp", "world") and ranks > 8 else 0,
               "transfer_ms": transfer, "wait_ms": rounded(transfer * (0.3 + wave(index, 2))), "matched": 1.0 if index else 0.987}
        if payload:
            row["busbw_gb_s"] = rounded(payload / transfer / 1e6)
            if linked:
                row["link_gb_s"] = 12.5
                row["link_share"] = rounded(row["busbw_gb_s"] / 12.5)
        rows.append(row)
    return sorted(rows, key=lambda row: -row["transfer_ms"] - row["wait_ms"])


def timeline(ranks, layers, text):
    """At most 64 ranks and 40,000 spans: of more layers than fit only the first are drawn."""
    shown = min(ranks, 64)
    names = [name for name, _, _ in BLOCK] + ["data.load", "optimizer", "loss", "all_reduce", "time_embedding"]
    names = [text(name) if name == "data.load" else name for name in names]
    per_layer = 2 * (len(BLOCK) + 2)
    drawn = min(layers, max(1, (40000 // shown - 8) // per_layer))
    rows = []
    for rank in range(shown):
        spans, at = [], 0.0
        tempo = 1 + 0.04 * wave(rank, 11)

        def span(lane, name, phase, layer, begin, length):
            spans.append([lane, name, phase, layer, rounded(begin, 1), rounded(length, 1)])

        span(0, len(BLOCK), 0, -1, at, 6000.0)
        at += 6200
        for phase, weight in ((1, 1.0), (2, 2.1)):
            block = 560000.0 * weight / drawn
            for layer in range(drawn) if phase == 1 else reversed(range(drawn)):
                for index, (name, activity, share) in enumerate(BLOCK):
                    if activity == 2 and ranks == 1:
                        continue
                    length = block * share * tempo * (0.8 + 0.4 * wave(rank, layer, index, phase))
                    if rank == shown - 1 and layer in (1, 2) and name == "attention.local":
                        length *= 1.6
                    if activity == 2:
                        span(1, index, phase, layer, at - length, length * 1.7)
                    span(0, index, phase, layer, at, length * 0.96)
                    at += length
        if ranks > 1:
            span(1, len(BLOCK) + 3, 4, -1, at, 60000.0)
            span(0, len(BLOCK) + 3, 4, -1, at, 22000.0)
            at += 22500
        span(0, len(BLOCK) + 1, 4, -1, at, 41000.0)
        rows.append({"rank": rank, "offset_us": rounded(3000 * wave(rank, 12), 1) if rank else 0, "spans": spans})
    return {"step": 17, "names": names, "ranks": rows}


def byte_matrix(ranks):
    block = 1
    while ranks / block > 256:
        block *= 2
    side = -(-ranks // block)
    data, outer, ulysses = mesh_of(ranks)
    sample = outer * ulysses
    matrix = [[0] * side for _ in range(side)]
    for sender in range(ranks):
        first = sender - sender % sample
        for receiver in range(first, first + sample):
            if receiver == sender:
                continue
            near = sender // ulysses == receiver // ulysses
            amount = 4.2e8 if near else 1.3e8 * (0.4 + wave(sender, receiver))
            matrix[sender // block][receiver // block] += round(amount)
        if data > 1:
            partner = (sender + sample) % ranks
            matrix[sender // block][partner // block] += 350_000_000
    return matrix, block


def layer_rows(ranks, layers):
    rows = []
    for layer in range(layers):
        density = 0.11 + 0.08 * math.sin(layer / 4.0) ** 2
        slow = 1.6 if layer in (7, 8, 9) else 1.0
        row = {"layer": layer, "compute_ms": rounded(38 * (0.9 + 0.2 * wave(layer)) * (1 + 0.1 * (slow - 1))),
               "communication_ms": rounded(14 + 6 * wave(layer, 1)) if ranks > 1 else 0,
               "exposed_ms": rounded(5 + 5 * wave(layer, 2) * slow) if ranks > 1 else 0,
               "wait_ms": rounded((3 + 9 * (slow - 1)) * (1 + wave(layer, 3))) if ranks > 1 else 0,
               "density": {"mean": rounded(density), "min": rounded(density * 0.7), "max": rounded(density * 1.4)},
               "imbalance": rounded((slow - 1) * 0.6 + 0.05 * wave(layer, 4)) if ranks > 1 else 0,
               "slowest_rank": (ranks - 1) if slow > 1 else layer % ranks}
        if ranks > 2:
            row["coverage"] = {"mean": rounded(2.3 * density), "min": rounded(1.9 * density), "max": rounded(2.9 * density)}
        rows.append(row)
    return rows


def kernel_rows():
    # name, activity, calls, ms, flops, bytes
    table = [("attention.local", "compute", 90, 402.0, 1.9e11, 6.1e8), ("mlp", "compute", 180, 271.0, 1.62e11, 2.4e9),
             ("linear", "compute", 360, 233.0, 1.31e11, 2.9e9), ("cross_attention", "compute", 90, 88.0, 2.2e10, 7.4e8),
             ("attention.select", "compute", 90, 61.0, 2.4e9, 3.0e8), ("optimizer", "compute", 1, 41.0, 1.4e9, 2.3e9),
             ("residual", "compute", 180, 34.0, 4.1e8, 1.9e9), ("norm", "compute", 180, 31.0, 9.6e8, 1.6e9),
             ("qk_norm", "compute", 180, 22.0, 5.1e8, 9.1e8), ("ulysses.pack", "copy", 240, 21.0, None, 1.1e9),
             ("ulysses.unpack", "copy", 240, 19.0, None, 1.1e9), ("attention.pool", "compute", 180, 17.0, 1.3e8, 6.0e8),
             ("attention.sum", "compute", 90, 14.0, 1.1e8, 5.2e8), ("attention.plan", "compute", 90, 9.0, None, None),
             ("time_embedding", "compute", 2, 0.4, None, None), ("loss", "compute", 1, 0.21, 1.0e6, 8.4e6)]
    rows = []
    for name, activity, calls, ms, flops, moved in table:
        row = {"name": name, "activity": activity, "phase": "optimizer" if name == "optimizer" else "forward", "calls": calls,
               "ms": ms}
        row.update({key: value for key, value in (("flops", flops), ("bytes", moved)) if value})
        rows.append(row)
    return rows


def prediction(text):
    rows = [("step", 1745.0, 1920.0), ("attention", 618.0, 604.0), ("linear layers", 489.0, 504.0), ("selection", 58.0, 87.0),
            ("exchange, exposed", 92.0, 181.0), ("all_to_all, exposed", 90.0, 90.0), ("gradient sum", 101.0, 93.6), ("optimizer", 40.0, 41.0)]
    return {"cluster": text("two hosts, 10 Gbit/s"),
            "rows": [{"what": what, "predicted_ms": p, "measured_ms": m, "error": rounded(p / m - 1)} for what, p, m in rows],
            "advice": {"change": text("widen ulysses to 4"), "saves_ms": 210.0,
                       "command": text("sprocket plan --config job.txtpb --cluster cluster.txtpb --from profile.json")}}


def profile(ranks=4, layers=12, heads=12, bare=False, hostile=False):
    def text(plain):
        return HOSTILE + plain if hostile else plain

    late = ranks - 1
    data, outer, ulysses = mesh_of(ranks)
    steps = 20
    rows = rank_rows(ranks, late, text, not bare)

    def share(key):
        return sum(row[key] for row in rows) / sum(row["step_ms"] for row in rows)

    seconds = [rounded(1.92 * (1 + 0.03 * (wave(step, 13) - 0.5)) + (0.2 if step == 11 else 0), 6) for step in range(steps)]
    each = {name: [rounded(share(key) * second * 1e3) for second in seconds]
            for name, key in (("compute", "compute_ms"), ("exposed_communication", "exposed_ms"), ("copies", "copies_ms"),
                              ("data_wait", "data_wait_ms"), ("other", "other_ms"), ("waiting", "wait_ms"))}
    verdict = [f"step 1.92 s: attention 41 %, exposed communication 25 % (of it 11 % waiting for rank {late})",
               f"rank {late} is late in 74 % of what the others wait for: its selections in layers 7-9 are 1.6 times the mean",
               "widening ulysses to 4 is predicted to save 0.21 s: sprocket plan --config job.txtpb --from profile.json"]
    if ranks == 1:
        verdict = ["step 1.92 s: compute 64 %, nothing to communicate on one rank"]
    result = {
        "schema": 2,
        "program": {"name": "sprocket", "version": "0.1.0"},
        "job": {"kind": "train", "title": text(f"Wan 1.4 B, 32,760 tokens, VSA at density .12, data {data} x outer {outer} x ulysses {ulysses}"),
                "description": text('model {\n  layers: %d\n  heads: %d\n}\nattention {\n  method: VSA\n  density: 0.12\n}\n'
                                    'data { path: "/data/clips" }\n' % (layers, heads)), "identity": "8f14e45fceea167a"},
        "machine": {"hosts": [{"name": text(f"node{i:03d}"), "ranks": min(8, ranks - 8 * i)} for i in range(-(-ranks // 8))],
                    "device": "CPU", "threads": 4},
        "mesh": {"data": data, "outer": outer, "ulysses": ulysses},
        "window": {"first_step": 7, "steps": steps, "asked": steps, "complete": True, "missing_ranks": [], "lost_records": 0, "notes": []},
        "verdict": [text(line) for line in verdict],
        "step": {"seconds": rounded(sum(seconds) / steps, 6), "median_seconds": sorted(seconds)[steps // 2], "each_seconds": seconds,
                 "tokens_per_second": 17062.5 * data},
        "shares": {"compute": share("compute_ms"), "exposed_communication": share("exposed_ms"), "copies": share("copies_ms"),
                   "data_wait": share("data_wait_ms"), "other": share("other_ms"), "overlap": 0.418 if ranks > 1 else 0,
                   "waiting": share("wait_ms")},
        "each": each, "ranks": rows, "operations": operations(ranks, text, not bare),
        "slowest": [{"group": "sp.outer" if i % 3 else "world", "index": i % 2, "sequence": 4031 + 17 * i,
                     "op": "exchange" if i % 3 else "all_reduce", "phase": PHASES[1 + i % 2], "layer": i % layers if i % 3 else -1,
                     "step": 7 + i, "ms": rounded(61.0 / (1 + 0.1 * i)), "transfer_ms": rounded(19.0 / (1 + 0.05 * i)),
                     "late_rank": late if i % 4 else 0} for i in range(20 if ranks > 1 else 0)],
        "layers": layer_rows(ranks, layers), "kernels": kernel_rows(), "phases": PHASES,
    }
    result["bytes"], block = byte_matrix(ranks)
    if block > 1:
        result["bytes_block"] = block
    if outer > 1:
        result["mesh"]["strategy"] = "SELECTED"
    if bare:
        result["layers"] = [{k: v for k, v in row.items() if k not in ("density", "coverage")} for row in result["layers"]]
        result["kernels"] = [{k: v for k, v in row.items() if k not in ("flops", "bytes")} for row in result["kernels"]]
        return result
    density = [[rounded(min(1.0, 0.12 * (0.4 + 1.4 * wave(layer, head)) + 0.05 * math.sin(layer / 3.0) ** 2)) for head in range(heads)]
               for layer in range(layers)]
    result["heads"] = {"density": density}
    if outer > 1:
        result["heads"]["coverage"] = [[rounded(min(1.0, 2.4 * value)) for value in row] for row in density]
        result["remote_kv"] = {"value": "FETCH_AGAIN", "rank": late, "kept_bytes": 19_300_000_000, "fetched_bytes": 15_900_000_000,
                               "at_hand_bytes": 17_200_000_000}
    largest = max(rows, key=lambda row: row["memory"]["peak_bytes"])
    result["memory"] = {"rank": largest["rank"], **largest["memory"]}
    result["flops"] = {"dense_equivalent": 1.31e12 * ranks, "executed": 4.9e11 * ranks, "peak_per_second": 9.4e11 * ranks,
                       "mfu": 0.7258, "hfu": 0.2715}
    result["prediction"] = prediction(text)
    result["overhead"] = {"share": 0.0061, "recorded_seconds": 1.9214, "unrecorded_seconds": 1.9098, "steps": 10, "records": 3120.5,
                          "recording_ms": 1.94}
    result["curves"] = {"loss": [[s, rounded(0.08 + 0.9 / (1 + 0.2 * s) + 0.02 * wave(s, 14), 5)] for s in range(27)],
                        "tokens_per_second": [[s, rounded(17000 * data * (0.93 + 0.08 * wave(s, 15)), 1)] for s in range(27)]}
    result["timeline"] = timeline(ranks, layers, text)
    if hostile:
        result["window"].update(complete=False, asked=24, missing_ranks=[5, 9], lost_records=17, notes=[text("rank 5 recorded nothing")])
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--hostile", action="store_true")
    json.dump(profile(**vars(parser.parse_args())), sys.stdout, ensure_ascii=False)


if __name__ == "__main__":
    main()
