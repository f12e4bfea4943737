#!/usr/bin/env python3
"""One layer's sparse attention on a GPU against PyTorch's dense attention at the same shape, in one run.

    bench/device_attention.py             # a GPU, its driver and PyTorch; nothing else
    bench/device_attention.py --smoke     # our side alone at a tiny shape, also on a simulator: figures that mean nothing

Sides: ours (attention_device_bench, resident) with blocks of 64 and of 128 tokens, with the kernels of the device's capability and
the portable ones; PyTorch's scaled_dot_product_attention by cuDNN, with q, k, v as a transformer leaves them ([L, H, D]) and head
by head (`cudnn_by_head`), and by FlashAttention (`flash`). They take turns, a few calls each, in an order that turns; each turn begins
with a call that is not counted. Times are CUDA events', figures are medians. Numbers are independent and normal, so that a
selection is nearly uniformly random; our results are compared with attention in double at a few rows first.

Prints JSON lines on stdout, one for each side, and the summary on stderr; --output appends the lines to a file. For ours:

    forward_tflops    4 D for every query-key pair of the selected blocks, over the time of the forward kernel
    backward_tflops   2.5 times that, over clearing the gradients, delta and the backward kernels
    selection_share   block means of q and k, scores, top-k, table and inverse table, over forward and backward
    over_RIVAL        how many times faster than the rival's forward plus backward: selection, forward and backward together
    vsa_over_RIVAL    the same with VSA's coarse branch and its gradients, without its gates
"""
import argparse
import json
import os
import sys

from machine import ROOT, stamp
from rank_team import RankTeam, in_turns, median, raise_on_signals

PROGRAM = "attention_device_bench"
SIMULATOR = "CUDA simulator"
PORTABLE = "8.0"
CALLS = 3  # in a turn
BACKWARD = 2.5  # times the forward's operations
SELECTION = ("pool_queries_and_keys", "select", "invert")
FORWARD = ("forward",)
GRADIENTS = ("clear_gradients", "delta", "backward")
REDONE = ("select",)  # a part of select_and_attend
# At sparsity .9 and D = 128: TFLOP/s forward and backward by block rows, share of the selection, times cuDNN's speed.
WANTED = {64: (560, 450), 128: (600, 500)}
WANTED_SHARE, WANTED_SPEED = 0.05, 7
SMOKE = {"tokens": [200], "heads": 2, "head_dims": [64], "sparsity": "0.5", "rounds": 1}


def tflops(operations, milliseconds):
    return round(operations / milliseconds * 1e-9, 1) if milliseconds > 0 else 0


def ratio(numerator, denominator):
    return round(numerator / denominator, 3) if denominator > 0 else 0


class Ours:
    """A layer of attention_device_bench."""

    def __init__(self, team, case, block_rows, kernels, workspace_mib):
        self.team, self.id = team, f"{block_rows} {kernels}"
        self.facts = team.ask(op="layer", id=self.id, block_rows=block_rows, capability=kernels, workspace_mib=workspace_mib, **case)[0]
        self.times = {}

    def turn(self, counted):
        times = self.team.ask(op="run", id=self.id, calls=CALLS)[0]
        for stage, values in times.items() if counted else ():
            self.times.setdefault(stage, []).extend(values)

    def milliseconds(self, stages):
        """The median over calls of the stages together."""
        return median([sum(call) for call in zip(*(self.times[stage] for stage in stages))])

    def record(self):
        selection, forward, backward = map(self.milliseconds, (SELECTION, FORWARD, GRADIENTS))
        operations = 4 * self.facts["head_dim"] * self.facts["area"]
        return {
            **self.facts, "side": "sprocket", "way": f"blocks_of_{self.facts['block_rows']}",
            "forward_ms": forward, "backward_ms": backward, "selection_ms": selection,
            "layer_ms": self.milliseconds((*SELECTION, *FORWARD, *GRADIENTS)),
            "vsa_layer_ms": self.milliseconds([stage for stage in self.times if stage not in REDONE]),
            "forward_tflops": tflops(operations, forward), "backward_tflops": tflops(BACKWARD * operations, backward),
            "selection_share": ratio(selection, forward + backward),
            "stages_ms": {stage: [round(median(values), 4), round(min(values), 4), round(max(values), 4)]
                          for stage, values in self.times.items()}}


class Dense:
    """PyTorch's dense attention by one of its backends."""

    WAYS = {"cudnn": ("CUDNN_ATTENTION", False), "cudnn_by_head": ("CUDNN_ATTENTION", True), "flash": ("FLASH_ATTENTION", False)}

    def __init__(self, torch, case, way):
        self.torch, self.case, self.way, self.times = torch, case, way, []
        backend, self.by_head = self.WAYS[way]
        self.backend = getattr(torch.nn.attention.SDPBackend, backend)
        self.q, self.k, self.v, self.dout = (self.tensor() for _ in range(4))
        for x in (self.q, self.k, self.v):
            x.requires_grad_()
        self.call()  # RuntimeError where the backend does not take it

    def tensor(self):
        tokens, heads, dim = (self.case[name] for name in ("tokens", "heads", "head_dim"))
        if self.by_head:
            return self.torch.randn(1, heads, tokens, dim, device="cuda", dtype=self.torch.bfloat16)
        return self.torch.randn(1, tokens, heads, dim, device="cuda", dtype=self.torch.bfloat16).transpose(1, 2)

    def call(self, mark=lambda place: None):
        mark(0)
        with self.torch.nn.attention.sdpa_kernel(self.backend):
            out = self.torch.nn.functional.scaled_dot_product_attention(self.q, self.k, self.v)
        mark(1)
        self.torch.autograd.grad(out, (self.q, self.k, self.v), self.dout)
        mark(2)

    def turn(self, counted):
        events = [[self.torch.cuda.Event(enable_timing=True) for _ in range(3)] for _ in range(CALLS)]
        self.call()
        for places in events:
            self.call(lambda place: places[place].record())
        self.torch.cuda.synchronize()
        if counted:
            self.times += [(begin.elapsed_time(middle), middle.elapsed_time(end)) for begin, middle, end in events]

    def record(self):
        forward, backward = (median([call[i] for call in self.times]) for i in range(2))
        operations = 4 * self.case["head_dim"] * self.case["heads"] * self.case["tokens"] ** 2
        return {**self.case, "sparsity": "0", "side": "torch", "way": self.way, "dtype": "bf16", "forward_ms": forward,
                "backward_ms": backward, "layer_ms": median([sum(call) for call in self.times]),
                "forward_tflops": tflops(operations, forward), "backward_tflops": tflops(BACKWARD * operations, backward),
                "all_ms": [[round(part, 4) for part in call] for call in self.times]}


def add_ratios(record, rivals):
    for rival in rivals:
        record[f"over_{rival['way']}"] = ratio(rival["layer_ms"], record["layer_ms"])
        record[f"vsa_over_{rival['way']}"] = ratio(rival["layer_ms"], record["vsa_layer_ms"])
        for part in ("forward", "backward"):
            record[f"{part}_over_{rival['way']}"] = ratio(rival[f"{part}_ms"], record[f"{part}_ms"])


def verdict(value, wanted, at_least=True):
    return "" if (value >= wanted) == at_least else f", {'at least' if at_least else 'below'} {wanted:g} is wanted"


def text_of(record):
    """The summary's line. What a kernel has to reach is said where it does not."""
    name = record["way"] + (f", kernels of {record['kernels']}" if "kernels" in record else "")
    judged = record.get("head_dim") == 128 and record["sparsity"] == "0.9" and record.get("block_rows") in WANTED
    forward, backward = WANTED[record["block_rows"]] if judged else (0, 0)
    text = (f"{record['tokens']} tokens, D = {record['head_dim']}, {name}: "
            f"forward {record['forward_tflops']:g} TFLOP/s{verdict(record['forward_tflops'], forward)}; "
            f"backward {record['backward_tflops']:g}{verdict(record['backward_tflops'], backward)}; "
            f"{record['layer_ms']:.2f} ms")
    if "selection_share" in record:
        share = record["selection_share"]
        text += f"; selection {100 * share:.1f} %{verdict(100 * share, 100 * WANTED_SHARE, False) if judged else ''}"
    for way in Dense.WAYS:
        if f"over_{way}" in record:
            speed = record[f"over_{way}"]
            wanted = WANTED_SPEED if judged and way == "cudnn" else 0
            text += f"; {speed:g} times {way}{verdict(speed, wanted)} (VSA {record[f'vsa_over_{way}']:g})"
    return text


def rivals_of(torch, case, ways):
    """Those that work; the others are named."""
    for way in ways if torch else ():
        try:
            yield Dense(torch, case, way)
        except RuntimeError as error:
            print(f"no {way}: {str(error).splitlines()[0]}", file=sys.stderr)


def measure(team, torch, case, arguments):
    """The records of all sides on one problem."""
    sides = list(rivals_of(torch, case, arguments.rivals))
    rivals = len(sides)
    sides += [Ours(team, case, rows, kernels, arguments.workspace_mib) for rows in arguments.blocks for kernels in arguments.kernels]
    in_turns(sides, arguments.rounds, lambda side, counted: side.turn(counted))
    records = [side.record() for side in sides]
    for record in records[rivals:]:
        add_ratios(record, records[:rivals])
    team.ask(op="forget")
    return records


def torch_with_cuda():
    import torch
    import torch.nn.attention  # noqa: F401
    if not torch.cuda.is_available():
        sys.exit("expected PyTorch to find a CUDA device, it finds none")
    return torch


def program_path():
    places = [os.path.join(ROOT, folder, PROGRAM) for folder in ("bin", "build-cuda/bin")]
    return next((place for place in places if os.path.exists(place)), places[-1])


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=[32760, 75600])
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dims", nargs="+", type=int, default=[128, 64])
    parser.add_argument("--blocks", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--sparsity", default="0.9")
    parser.add_argument("--kernels", nargs="+", metavar="CAPABILITY", help="kernels to measure; by default the device's and the portable ones")
    parser.add_argument("--rivals", nargs="+", choices=Dense.WAYS, default=list(Dense.WAYS))
    parser.add_argument("--workspace-mib", type=int, default=1024, help="what our backward may use")
    parser.add_argument("--rounds", type=int, default=5, help="counted turns; at least 5")
    parser.add_argument("--program", default=program_path())
    parser.add_argument("--libraries", help="LD_LIBRARY_PATH of the program alone")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--output", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.smoke:
        vars(arguments).update(SMOKE)
    elif arguments.rounds < 5:
        parser.error(f"--rounds: expected at least 5, found {arguments.rounds}")
    if not os.path.exists(arguments.program):
        sys.exit(f"expected {arguments.program}, found none: scripts/build_cuda")
    return arguments


def main():
    arguments = parse()
    raise_on_signals()
    environment = {"LD_LIBRARY_PATH": arguments.libraries} if arguments.libraries else {}
    with RankTeam(PROGRAM, 1, lambda folder: [[arguments.program, "--pipes", folder]], environment) as team:
        about = {name: value for name, value in team.about[0].items() if name != "pid"}
        if about["device"] == SIMULATOR and not arguments.smoke:
            sys.exit("times on a simulator mean nothing: --smoke is all that it can do")
        torch = None if arguments.smoke else torch_with_cuda()
        arguments.kernels = arguments.kernels or sorted({PORTABLE, about["capability"]})
        measured_on = {**stamp(), **about, **({"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()} if torch else {})}
        for tokens in arguments.tokens:
            for head_dim in arguments.head_dims:
                case = {"tokens": tokens, "heads": arguments.heads, "head_dim": head_dim, "sparsity": arguments.sparsity}
                for record in measure(team, torch, case, arguments):
                    text = text_of(record)
                    if arguments.smoke:
                        text = "smoke run, its figures mean nothing: " + text
                    record = {"bench": "device_attention", "smoke": arguments.smoke, **record, **measured_on, "text": text}
                    print(text, file=sys.stderr, flush=True)
                    print(json.dumps(record), flush=True)
                    if arguments.output:
                        with open(arguments.output, "a", encoding="utf-8") as output:
                            output.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
