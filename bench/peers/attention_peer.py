#!/usr/bin/env python3
"""Attention as PyTorch users run it on a CPU. Stays resident for bench/attention.py: reads one JSON request per line from
standard input and answers each with one JSON line.

    {"op": "prepare", "id": …, "side": …, "length": …, "heads": …, "head_dim": …, "block": …, "dtype": "fp32", "threads": …,
     "keep": 0, "table": "", "inputs": ""}       the files are those of bench/attention_bench.cc
    {"op": "run", "id": …, "backward": true}     milliseconds of one call each
    {"op": "save", "id": …, "path": …}           O, dQ, dK, dV as fp32; O alone after a forward
    {"op": "release"}                            forgets all problems

Sides: sdpa_bhld and sdpa_blhd (dense; contiguous, and with heads interleaved as a DiT leaves them), flex (compiled, forward only),
gather_sdpa, gather_bmm, select_sdpa, select_bmm (the selected blocks copied together, then SDPA or plain products). The block-sparse ones work on whole
blocks: their sequence is rounded up to a multiple of the block.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

GATHERED_QUERY_BLOCKS = 16  # at a time, so that the copies stay small


class Sdpa:
    """Dense; q, k, v [1, H, L, D]."""

    def __init__(self, problem):
        pass

    def __call__(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class Flex:
    def __init__(self, problem):
        from torch.nn.attention.flex_attention import BlockMask, flex_attention
        torch._dynamo.reset()
        blocks, keep = problem.blocks, problem.keep
        chosen = torch.zeros(1, problem.heads, blocks, blocks, dtype=torch.int32)
        chosen[0, :, :, :keep] = problem.table
        counts = torch.full((1, problem.heads, blocks), keep, dtype=torch.int32)
        # No block needs a mask inside: all are full ones.
        self.mask = BlockMask.from_kv_blocks(torch.zeros_like(counts), torch.zeros_like(chosen), counts, chosen,
                                             BLOCK_SIZE=problem.block)
        self.attend = torch.compile(flex_attention, dynamic=False)

    def __call__(self, q, k, v):
        return self.attend(q, k, v, block_mask=self.mask)


class Gather:
    """For some query blocks at a time, the rows of the blocks that each selects are copied together: by indexing, as one writes
    it first, or by index_select, whose gradient is faster."""

    def __init__(self, problem):
        self.block, self.blocks, self.heads = problem.block, problem.blocks, problem.heads
        kind, product = problem.side.split("_")
        self.copy = self.index if kind == "gather" else self.select
        self.attend = F.scaled_dot_product_attention if product == "sdpa" else self.products
        self.table = problem.table.long()
        self.all_heads = torch.arange(self.heads)[:, None, None]

    @staticmethod
    def products(q, k, v):
        return torch.softmax(torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5, dim=-1) @ v

    def index(self, blocks, chosen):
        return blocks[self.all_heads, chosen]

    def select(self, blocks, chosen):
        rows = (chosen + self.blocks * self.all_heads).reshape(-1)
        return torch.index_select(blocks.flatten(0, 1).flatten(1), 0, rows)

    def __call__(self, q, k, v):
        heads, block, dim = self.heads, self.block, q.shape[-1]
        q, k, v = (x[0].reshape(heads, self.blocks, block, dim) for x in (q, k, v))
        parts = []
        for first in range(0, self.blocks, GATHERED_QUERY_BLOCKS):
            chosen = self.table[:, first:first + GATHERED_QUERY_BLOCKS]
            gathered = [self.copy(x, chosen).reshape(heads, chosen.shape[1], -1, dim) for x in (k, v)]
            parts.append(self.attend(q[:, first:first + chosen.shape[1]], *gathered))
        return torch.cat(parts, 1).reshape(1, heads, self.blocks * block, dim)


SIDES = {"sdpa_bhld": Sdpa, "sdpa_blhd": Sdpa, "flex": Flex, "gather_sdpa": Gather, "gather_bmm": Gather,
         "select_sdpa": Gather, "select_bmm": Gather}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Problem:
    def __init__(self, request):
        torch.set_num_threads(request["threads"])
        self.side, self.heads, self.block, self.keep = (request[key] for key in ("side", "heads", "block", "keep"))
        dim, length = request["head_dim"], request["length"]
        self.blocks = -(-length // self.block)
        sparse = not request["side"].startswith("sdpa")
        self.length = self.blocks * self.block if sparse else length
        if self.keep > 0:
            self.table = torch.from_file(request["table"], size=self.heads * self.blocks * self.keep, dtype=torch.int32)
            self.table = self.table.view(self.heads, self.blocks, self.keep)
        if request["inputs"]:
            values = torch.from_file(request["inputs"], size=4 * length * self.heads * dim).view(4, 1, length, self.heads, dim)
        else:
            values = torch.randn(4, 1, self.length, self.heads, dim, generator=torch.Generator().manual_seed(0))
        contiguous = request["side"] != "sdpa_blhd"
        self.tensors = []
        for value in values.to(DTYPES[request["dtype"]]):
            value = value.transpose(1, 2)
            self.tensors.append(value.contiguous() if contiguous else value)
        self.attend = SIDES[request["side"]](self)
        self.out = None

    def run(self, backward):
        *inputs, dout = self.tensors
        if not backward:
            with torch.no_grad():
                start = time.perf_counter()
                self.out = self.attend(*inputs)
                return {"forward_ms": 1e3 * (time.perf_counter() - start)}
        for tensor in inputs:
            tensor.requires_grad_(True).grad = None
        start = time.perf_counter()
        self.out = self.attend(*inputs)
        middle = time.perf_counter()
        self.out.backward(dout)
        end = time.perf_counter()
        return {"forward_ms": 1e3 * (middle - start), "backward_ms": 1e3 * (end - middle)}

    def save(self, path):
        results = [self.out, *(tensor.grad for tensor in self.tensors[:3] if tensor.grad is not None)]
        with open(path, "wb") as file:
            for result in results:
                file.write(result.detach()[0].transpose(0, 1).float().contiguous().numpy().tobytes())


class Server:
    def __init__(self):
        self.problems = {}

    def answer(self, request):
        op = request["op"]
        if op == "prepare":
            problem = Problem(request)
            self.problems[request["id"]] = problem
            return {"length": problem.length, "torch": torch.__version__}
        if op == "release":
            self.problems.clear()
            return {}
        problem = self.problems[request["id"]]
        if op == "run":
            return problem.run(request["backward"])
        if op == "save":
            problem.save(request["path"])
            return {}
        raise ValueError(f"op: expected prepare, run, save or release, found {op}")


def main():
    server = Server()
    for line in sys.stdin:
        try:
            answer = server.answer(json.loads(line))
        except Exception as error:  # whatever PyTorch cannot do is a result
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
