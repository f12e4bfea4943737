#!/usr/bin/env python3
"""torch.distributed's side of bench/comm.py: the messages of bench/comm_bench.cc through gloo."""
import time

import torch
import torch.distributed as dist

import rank_requests


class Messages:
    def __init__(self):
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.sent = self.received = None

    def exchange(self):
        """All others at once, without the own part."""
        operations = []
        for step in range(1, self.ranks):
            source = (self.rank - step) % self.ranks
            operations.append(dist.P2POp(dist.irecv, self.received[source], source))
        for step in range(1, self.ranks):
            target = (self.rank + step) % self.ranks
            operations.append(dist.P2POp(dist.isend, self.sent[target], target))
        for work in dist.batch_isend_irecv(operations):
            work.wait()

    def all_to_all(self):
        dist.all_to_all_single(self.received, self.sent)

    def answer(self, request):
        if request["op"] == "prepare":
            part = request["bytes"] // (self.ranks - 1) // 4
            self.sent = torch.full((self.ranks, part), float(self.rank))
            self.received = torch.zeros(self.ranks, part)
            for operation in (self.exchange, self.all_to_all):
                self.received.fill_(-1)
                operation()
                for source in range(self.ranks):
                    if source != self.rank and not bool((self.received[source] == source).all()):
                        raise RuntimeError(f"{operation.__name__}: the part of rank {source} is wrong")
            return {}
        if request["op"] == "run":
            operation = self.exchange if request["what"] == "exchange" else self.all_to_all
            dist.barrier()
            begin = time.perf_counter()
            for _ in range(request["count"]):
                operation()
            return {"ms": 1e3 * (time.perf_counter() - begin) / request["count"]}
        raise ValueError(f"op: expected prepare or run, found {request['op']}")


if __name__ == "__main__":
    ARGUMENTS = rank_requests.start()
    rank_requests.serve(ARGUMENTS, Messages().answer)
