#!/usr/bin/env python3
"""The rivals of bench/device_attention.py on a host: PyTorch's plain backend in place of a GPU's."""
import os
import sys
import time
import types
import unittest

import torch
import torch.nn.attention

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "bench"))
import device_attention  # noqa: E402


class HostEvent:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.time = time.perf_counter()

    def elapsed_time(self, later):
        return 1e3 * (later.time - self.time)


# PyTorch, with the host for a device.
HOST = types.SimpleNamespace(
    nn=torch.nn, autograd=torch.autograd, bfloat16=torch.bfloat16,
    randn=lambda *shape, device, dtype: torch.randn(*shape, dtype=dtype),
    cuda=types.SimpleNamespace(Event=HostEvent, synchronize=lambda: None))
CASE = {"tokens": 96, "heads": 2, "head_dim": 64}


class RivalsTest(unittest.TestCase):
    def setUp(self):
        self.ways = device_attention.Dense.WAYS
        device_attention.Dense.WAYS = {"cudnn": ("MATH", False), "cudnn_by_head": ("MATH", True)}

    def tearDown(self):
        device_attention.Dense.WAYS = self.ways

    def test_backends_have_their_names(self):
        for backend, _ in self.ways.values():
            self.assertTrue(hasattr(torch.nn.attention.SDPBackend, backend), backend)

    def test_turns_and_record(self):
        for way, by_head in (("cudnn", False), ("cudnn_by_head", True)):
            side = device_attention.Dense(HOST, CASE, way)
            self.assertEqual(side.q.shape, (1, 2, 96, 64))
            self.assertEqual(side.q.stride(), (2 * 96 * 64, 96 * 64, 64, 1) if by_head else (2 * 96 * 64, 64, 2 * 64, 1))
            self.assertTrue(side.q.is_leaf and side.v.requires_grad)
            for counted in (False, True, True):
                side.turn(counted)
            record = side.record()
            self.assertEqual(len(record["all_ms"]), 2 * device_attention.CALLS)
            self.assertGreater(record["forward_ms"], 0)
            self.assertGreater(record["backward_ms"], 0)
            self.assertGreater(record["layer_ms"], max(record["forward_ms"], record["backward_ms"]))
            operations = 4 * 64 * 2 * 96 * 96
            self.assertEqual(record["forward_tflops"], round(operations / record["forward_ms"] * 1e-9, 1))
            self.assertIn("96 tokens, D = 64, " + way, device_attention.text_of(record))

    def test_what_does_not_work_is_left_out(self):
        device_attention.Dense.WAYS = {"cudnn": ("MATH", False), "flash": ("CUDNN_ATTENTION", False)}
        sides = list(device_attention.rivals_of(HOST, CASE, ["cudnn", "flash"]))
        self.assertEqual([side.way for side in sides], ["cudnn"])
        self.assertEqual(list(device_attention.rivals_of(None, CASE, ["cudnn"])), [])


if __name__ == "__main__":
    unittest.main()
