#!/usr/bin/env python3
"""One training step of Wan2.1-1.3B's shape on a CUDA device: Sprocket against diffusers, in one run.

    scripts/setup --with-peers && scripts/build_cuda
    bench/device_train_step.py [--grid 21x30x52] [--rounds 2] [--steps 5] [--program PATH]

The programs take turns, each in a process of its own, in an order that turns from round to round; medians are over the
steps of all rounds. Sprocket: dense, and VSA at sparsity 0.9. The rival: diffusers' model with PyTorch's dense attention,
bf16 autocast over fp32 weights and fused AdamW, as it is and compiled. Both compute every block again in the backward,
unless --keep. Appends one JSON line per side to bench/results/device_train_step.jsonl; Sprocket's lines hold how many times faster
than each rival they were, the MFU and the HFU (bench/train_step_device_bench.cc says what is counted).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

from machine import ROOT, stamp

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers")
MODEL = {"layers": 30, "dim": 1536, "heads": 12, "ffn-dim": 8960, "text-dim": 4096, "text-tokens": 512}
# Dense bf16 with fp32 sums, of the data sheets (H200 and H100 SXM: 989 TFLOP/s, A100: 312).
PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312}


def sides_of(arguments):
    """{name: command}, ours first."""
    common = ["--grid", arguments.grid, "--steps", str(arguments.steps)]
    for key, value in MODEL.items():
        common += [f"--{key}", str(arguments.layers if key == "layers" else value)]
    ours = [arguments.program, *common, *(["--keep"] if arguments.keep else [])]
    theirs = [sys.executable, os.path.join(PEERS, "diffusers_step.py"), *common, "--device", "cuda", "--dtype", "bf16",
              *([] if arguments.keep else ["--checkpointing"])]
    sides = {"sprocket, dense": [*ours, "--sparsity", "0"], "sprocket, VSA 0.9": [*ours, "--sparsity", "0.9"],
             "diffusers": theirs}
    if not arguments.without_compile:
        sides["diffusers, compiled"] = [*theirs, "--compile"]
    return sides


def run(name, command, libraries):
    """The last line that the program printed, or None where it failed: the others still have something to say."""
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries} if libraries and name.startswith("sprocket") else None
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        print(f"  {name}: exit status {done.returncode} of {' '.join(command)}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(sides, rounds, libraries):
    runs = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else list(reversed(sides)):
            record = run(name, sides[name], libraries)
            if record:
                runs[name].append(record)
                print(f"  round {number + 1}/{rounds}  {name}: {record['median_ms']:.0f} ms", file=sys.stderr)
    merged = {}
    for name, records in runs.items():
        if not records:
            continue
        times = [t for record in records for t in record["steps_ms"]]
        median = statistics.median(times)
        merged[name] = {**records[0], "side": name, "steps_ms": times, "median_ms": round(median, 2),
                        "tokens_per_s": round(1e3 * records[0]["tokens"] / median, 1)}
    return merged


def add_ratios(merged, peak_tflops):
    for name, record in merged.items():
        if record["program"] != "sprocket":
            continue
        for rival in (other for other in merged if other.startswith("diffusers")):
            key = rival.replace(", ", "_")
            record[f"speedup_over_{key}"] = round(merged[rival]["median_ms"] / record["median_ms"], 3)
            record[f"memory_share_of_{key}"] = round(record["peak_reserved_bytes"] / merged[rival]["peak_reserved_bytes"], 3)
        if peak_tflops:
            record["mfu"] = round(record["tflops_dense_equivalent"] / peak_tflops, 4)
            record["hfu"] = round(record["tflops_executed"] / peak_tflops, 4)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", default="21x30x52", help="tokens t x h x w")
    parser.add_argument("--layers", type=int, default=MODEL["layers"])
    parser.add_argument("--keep", action="store_true", help="keep activations instead of computing blocks again")
    parser.add_argument("--without-compile", action="store_true", help="leave torch.compile out, which takes minutes")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="counted steps of a round; rounds x steps is at least 5")
    parser.add_argument("--peak-tflops", type=float, help="of the device; known for " + ", ".join(PEAK_TFLOPS))
    parser.add_argument("--libraries", help="LD_LIBRARY_PATH of the program alone")
    parser.add_argument("--smoke", action="store_true", help="two layers and a short video: figures that mean nothing")
    parser.add_argument("--program", default=os.path.join(ROOT, "build-cuda/bin/train_step_device_bench"))
    parser.add_argument("--output", default=os.path.join(ROOT, "bench/results/device_train_step.jsonl"))
    arguments = parser.parse_args()
    if arguments.smoke:
        vars(arguments).update(grid="3x16x16", layers=2, rounds=1, steps=5, without_compile=True)  # as the program's own --smoke
    if arguments.rounds * arguments.steps < 5:
        parser.error(f"expected rounds x steps of at least 5, found {arguments.rounds * arguments.steps}")
    if not os.path.exists(arguments.program):
        sys.exit(f"expected {arguments.program}, found none: scripts/build_cuda, or --program PATH")
    import torch
    if not torch.cuda.is_available():
        print("no CUDA device", file=sys.stderr)
        sys.exit(77)
    device = torch.cuda.get_device_name()
    peak = arguments.peak_tflops or next((rate for name, rate in PEAK_TFLOPS.items() if name in device), None)
    merged = measure(sides_of(arguments), arguments.rounds, arguments.libraries)
    add_ratios(merged, peak)
    measured_on = {**stamp(), "device": device, "torch": torch.__version__, "driver_cuda": torch.version.cuda}
    os.makedirs(os.path.dirname(os.path.abspath(arguments.output)), exist_ok=True)
    with open(arguments.output, "a", encoding="utf-8") as output:
        for record in merged.values():
            line = json.dumps({"bench": "device_train_step", "smoke": arguments.smoke, **record, **measured_on})
            print(line, flush=True)
            output.write(line + "\n")
    sys.exit(0 if len(merged) == len(sides_of(arguments)) else 1)


if __name__ == "__main__":
    main()
