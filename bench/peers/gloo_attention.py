#!/usr/bin/env python3
"""PyTorch's side of bench/exchange.py: dense attention of a sharded sequence over gloo, forward and backward.

ulysses: Q, K and V in one all-to-all from token shards to head shards, scaled_dot_product_attention, and back.
ring: K and V travel while the shard that is here is worked on; partial results are merged by their log-sum-exps; in the
backward dK and dV travel along in fp32. One rank: scaled_dot_product_attention.
Tensors are [1, tokens, heads, dim] in memory, as a DiT leaves them.
"""
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F

import rank_requests

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attend(q, k, v):
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def all_to_all(parts):
    """Part r goes to rank r; returns what came from every rank."""
    received = torch.empty_like(parts)
    dist.all_to_all_single(received.view(torch.uint8), parts.view(torch.uint8))
    return received


class TokensToHeads(torch.autograd.Function):
    """[n, tokens of a rank, H, D] -> [n, all tokens, H / ranks, D]."""

    @staticmethod
    def forward(ctx, x):
        count, tokens, heads, dim = x.shape
        ranks = dist.get_world_size()
        received = all_to_all(x.view(count, tokens, ranks, heads // ranks, dim).permute(2, 0, 1, 3, 4).contiguous())
        return received.transpose(0, 1).reshape(count, ranks * tokens, heads // ranks, dim)

    @staticmethod
    def backward(ctx, gradient):
        return HeadsToTokens.forward(ctx, gradient)


class HeadsToTokens(torch.autograd.Function):
    """The way back."""

    @staticmethod
    def forward(ctx, x):
        count, tokens, heads, dim = x.shape
        ranks = dist.get_world_size()
        received = all_to_all(x.reshape(count, ranks, tokens // ranks, heads, dim).transpose(0, 1).contiguous())
        return received.permute(1, 2, 0, 3, 4).reshape(count, tokens // ranks, ranks * heads, dim)

    @staticmethod
    def backward(ctx, gradient):
        return TokensToHeads.forward(ctx, gradient)


def ulysses(q, k, v):
    return HeadsToTokens.apply(attend(*TokensToHeads.apply(torch.cat((q, k, v))).split(1)))


class Moving:
    """A tensor on its way to the next rank, and the one from the rank before."""

    def __init__(self, x):
        rank, ranks = dist.get_rank(), dist.get_world_size()
        self.sent, self.received = x, torch.empty_like(x)
        self.works = dist.batch_isend_irecv([dist.P2POp(dist.irecv, self.received, (rank - 1) % ranks),
                                             dist.P2POp(dist.isend, self.sent, (rank + 1) % ranks)])

    def wait(self):
        for work in self.works:
            work.wait()
        return self.received


class Ring(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v):
        ranks = dist.get_world_size()
        heads_first, kv = q.transpose(1, 2), torch.stack((k, v))
        out = lse = None
        for step in range(ranks):
            moving = Moving(kv) if step + 1 < ranks else None
            part, part_lse = FORWARD(heads_first, kv[0].transpose(1, 2), kv[1].transpose(1, 2))
            if out is None:
                out, lse = part.float(), part_lse
            else:
                total = torch.logaddexp(lse, part_lse)
                out = out * (lse - total).exp().unsqueeze(-1) + part.float() * (part_lse - total).exp().unsqueeze(-1)
                lse = total
            kv = moving.wait() if moving else kv
        result = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, result, lse)
        return result.transpose(1, 2)

    @staticmethod
    def backward(ctx, gradient):
        q, k, v, out, lse = ctx.saved_tensors
        ranks = dist.get_world_size()
        heads_first, gradient = q.transpose(1, 2), gradient.transpose(1, 2)
        kv = torch.stack((k, v))
        dq, dkv = torch.zeros_like(q, dtype=torch.float32), None
        arriving = None
        for step in range(ranks):
            moving = Moving(kv) if step + 1 < ranks else None
            part_q, part_k, part_v = BACKWARD(gradient, heads_first, kv[0].transpose(1, 2), kv[1].transpose(1, 2), out, lse, 0.0, False)
            dq += part_q.transpose(1, 2)
            own = torch.stack((part_k.transpose(1, 2), part_v.transpose(1, 2))).float()
            dkv = own if arriving is None else arriving.wait().add_(own)
            arriving = Moving(dkv)
            kv = moving.wait() if moving else kv
        dk, dv = arriving.wait().to(k.dtype)
        return dq.to(q.dtype), dk, dv


WAYS = {"ulysses": ulysses, "ring": Ring.apply, "sdpa": attend}


class Problem:
    def __init__(self):
        self.tensors = None

    def prepare(self, request):
        ranks, heads, dim = dist.get_world_size(), request["heads"], request["head_dim"]
        numbers = torch.Generator().manual_seed(dist.get_rank())
        self.tensors = [torch.randn(1, request["tokens"] // ranks, heads, dim, generator=numbers).to(DTYPES[request["dtype"]])
                        for _ in range(4)]

    def call(self, way, backward):
        """(milliseconds, results)."""
        q, k, v, gradient = self.tensors
        inputs = [x.detach().requires_grad_(backward) for x in (q, k, v)]
        dist.barrier()
        begin = time.perf_counter()
        with torch.set_grad_enabled(backward):
            out = WAYS[way](*inputs)
        middle = time.perf_counter()
        if backward:
            out.backward(gradient)
        end = time.perf_counter()
        return (middle - begin, end - middle), [out.detach(), *(x.grad for x in inputs)]

    def check(self, way):
        """Relative differences of O, dQ, dK, dV from scaled_dot_product_attention on the whole sequence."""
        def whole(x):
            parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
            dist.all_gather(parts, x.contiguous())
            return torch.cat(parts, 1)
        _, results = self.call(way, True)
        inputs = [whole(x).float().requires_grad_() for x in self.tensors[:3]]
        out = attend(*inputs)
        out.backward(whole(self.tensors[3]).float())
        expected = [out.detach(), *(x.grad for x in inputs)]
        return [float((whole(mine.contiguous()).float() - theirs).norm() / theirs.norm()) for mine, theirs in zip(results, expected)]

    def answer(self, request):
        if request["op"] == "problem":
            self.prepare(request)
            return {}
        if request["op"] == "check":
            return {"differences": self.check(request["way"])}
        if request["op"] == "run":
            (forward, backward), _ = self.call(request["way"], request["backward"])
            return {"total_ms": 1e3 * (forward + backward), "forward_ms": 1e3 * forward, "backward_ms": 1e3 * backward}
        raise ValueError(f"op: expected problem, check or run, found {request['op']}")


if __name__ == "__main__":
    ARGUMENTS = rank_requests.start()
    rank_requests.serve(ARGUMENTS, Problem().answer)
