"""Where the time and the memory of the methods go, from 8 to 75 thousand tokens: `sprocket attention` on one thread.

    scripts/setup --with-peers && scripts/build
    .deps/python/bin/python bench/attention_methods.py            # about half an hour
    .deps/python/bin/python bench/attention_methods.py --smoke    # under a minute: do all methods run?

Inputs are smooth in space and time with noise on top, so that selections have the locality of a video's. Appends one JSON
line per case and method to bench/results/attention_methods.jsonl: density, milliseconds per stage, the share of what
is before and around the kernel, the rate of the kernel, and the memory of a call at its peak beyond inputs, output and gradients.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy
from safetensors.numpy import save_file

from machine import ROOT, stamp

SPROCKET = os.path.join(ROOT, "build/bin/sprocket")
GRIDS = {8192: (8, 32, 32), 23296: (14, 32, 52), 32760: (21, 30, 52), 75600: (21, 45, 80)}
METHODS = {
    "VSA": "method: VSA vsa { sparsity { start: 0.9 } }",
    "BSA": "method: BSA bsa { rule: VALUE sparsity { start: 0.9 } }",
    "PSA, 32 samples": "method: PSA psa { samples: 32 rule: QUOTA quota: [0.06, 0.04, 0.04, 0.08] similarity_cap: false }",
    "ASA, 16 samples": "method: ASA asa { samples: 16 max_keep: 0.1 min_keep: 0.1 }",
}
# The same under a budget: what the choice of imports costs.
BUDGETED = {f"{name}, budget": f"{options} domains: 8 max_coverage {{ start: 0.2 }}" for name, options in METHODS.items()}
METHODS.update(BUDGETED)
KERNEL = {"local", "global"}
BEFORE = {"order", "pool", "prune", "sample", "select"}


def smooth_field(random, grid, channels):
    """[tokens, channels]: a few low frequencies each, of unit variance together with as much noise."""
    axes = [numpy.arange(extent, dtype=numpy.float32) for extent in grid]
    waves = 8
    field = numpy.zeros((*grid, channels), dtype=numpy.float32)
    for _ in range(waves):
        frequency = random.uniform(-0.25, 0.25, size=3).astype(numpy.float32)
        phase = (frequency[0] * axes[0][:, None, None] + frequency[1] * axes[1][None, :, None]
                 + frequency[2] * axes[2][None, None, :])
        weights = random.standard_normal((2, channels), dtype=numpy.float32) * waves ** -0.5
        field += numpy.cos(phase)[..., None] * weights[0] + numpy.sin(phase)[..., None] * weights[1]
    noise = random.standard_normal(field.shape, dtype=numpy.float32)
    return ((field + noise) * 2 ** -0.5).reshape(-1, channels)


def write_input(path, grid, heads, head_dim):
    random = numpy.random.default_rng(0)
    tokens = grid[0] * grid[1] * grid[2]
    tensors = {}
    for name in ("q", "k", "v", "grad_out", "gate"):
        tensors[name] = numpy.empty((1, tokens, heads, head_dim), dtype=numpy.float32)
    for head in range(heads):
        shared = smooth_field(random, grid, head_dim)
        for name in ("q", "k"):
            noise = random.standard_normal((tokens, head_dim), dtype=numpy.float32)
            tensors[name][0, :, head] = (shared + 0.5 * noise) * 1.2
    for name in ("v", "grad_out", "gate"):
        random.standard_normal(out=tensors[name].reshape(-1), dtype=numpy.float32)
    save_file(tensors, path)


def parse(text):
    """The report of `sprocket attention` as a record."""
    record = {"forward_ms": {}, "backward_ms": {}}
    found = re.search(r"density +([\d.]+) of the pairs of blocks, ([\d.]+) of the pairs of tokens", text)
    record["density"], record["token_density"] = float(found[1]), float(found[2])
    found = re.search(r"memory +([\d.]+) MiB forward, ([\d.]+) MiB with backward", text)
    record["forward_memory_mib"], record["memory_mib"] = float(found[1]), float(found[2])
    rows = text[text.index("stage"):].splitlines()[1:]
    for row in rows:
        found = re.match(r"  (\S+) +(-|[\d.]+)(?: +[\d.]+ %)? +(-|[\d.]+)(?: +[\d.]+ %)?", row)
        if not found or row.startswith("  GFLOP"):
            continue
        for phase, value in (("forward_ms", found[2]), ("backward_ms", found[3])):
            if value != "-":
                record[phase][found[1]] = float(value)
    found = re.search(r"GFLOP/s kernel +([\d.]+) +([\d.]+)", text)
    record["forward_gflops"], record["backward_gflops"] = float(found[1]), float(found[2])
    for phase in ("forward", "backward"):
        times = record[f"{phase}_ms"]
        total = times["total"]
        kernel = sum(times.get(name, 0) for name in KERNEL)
        record[f"{phase}_share_outside_kernel"] = round(1 - kernel / total, 4)
        record[f"{phase}_share_before_kernel"] = round(sum(times.get(name, 0) for name in BEFORE) / total, 4)
    both = {name: record["forward_ms"].get(name, 0) + record["backward_ms"].get(name, 0)
            for name in {*record["forward_ms"], *record["backward_ms"]}}
    record["share_outside_kernel"] = round(1 - sum(both.get(name, 0) for name in KERNEL) / both["total"], 4)
    record["share_before_kernel"] = round(sum(both.get(name, 0) for name in BEFORE) / both["total"], 4)
    return record


def run(method, folder, grid, heads, head_dim, dtype, repeat):
    job = os.path.join(folder, "job.txtpb")
    with open(job, "w", encoding="utf-8") as file:
        file.write(f"attention {{ {METHODS[method]} }} problem {{ grid {{ t: {grid[0]} h: {grid[1]} w: {grid[2]} }} }} "
                   f"compute {{ precision: {dtype} threads: 1 }}")
    done = subprocess.run([SPROCKET, "attention", "--config", job, "--input", os.path.join(folder, "in.safetensors"),
                           "--output", os.path.join(folder, "out.safetensors"), "--backward", "--repeat", str(repeat)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{method}: {done.stderr}")
    return parse(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=["8192x2", "23296x2", "32760x2", "75600x2", "32760x12"],
                        help="tokens x heads; tokens: " + ", ".join(map(str, GRIDS)))
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--dtype", choices=["FP32", "BF16"], default="FP32")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/attention_methods.jsonl"))
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.case, arguments.repeat, arguments.output = ["8192x1"], 1, os.devnull
    if not os.path.exists(SPROCKET):
        sys.exit(f"expected {SPROCKET}, found none: scripts/build")
    measured_on = stamp()
    with tempfile.TemporaryDirectory() as folder, open(arguments.output, "a", encoding="utf-8") as output:
        for case in arguments.case:
            tokens, heads = map(int, case.split("x"))
            write_input(os.path.join(folder, "in.safetensors"), GRIDS[tokens], heads, arguments.head_dim)
            for method in arguments.method:
                record = run(method, folder, GRIDS[tokens], heads, arguments.head_dim, arguments.dtype, arguments.repeat)
                line = json.dumps({"tokens": tokens, "heads": heads, "head_dim": arguments.head_dim,
                                   "dtype": arguments.dtype, "threads": 1, "method": method, "options": METHODS[method],
                                   **record, **measured_on})
                print(line, flush=True)
                output.write(line + "\n")
                output.flush()


if __name__ == "__main__":
    main()
