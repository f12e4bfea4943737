#!/usr/bin/env python3
"""device_attention_test.py PROGRAM SIMULATOR_FOLDER: bench/device_attention.py without a GPU: our side on the simulator, and the
figures that are derived from times."""
import json
import os
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DRIVER = os.path.join(ROOT, "bench", "device_attention.py")
PROGRAM, SIMULATOR = sys.argv[1:3]
del sys.argv[1:3]
sys.path.insert(0, os.path.join(ROOT, "bench"))
import device_attention  # noqa: E402


def call(*arguments):
    environment = dict(os.environ, CUDA_SIMULATOR="capability=9.0")
    return subprocess.run([DRIVER, "--program", PROGRAM, "--libraries", SIMULATOR, *arguments], env=environment,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)


class SmokeTest(unittest.TestCase):
    def test_our_side_on_the_simulator(self):
        done = call("--smoke")
        self.assertEqual(done.returncode, 0, done.stderr)
        records = [json.loads(line) for line in done.stdout.splitlines()]
        # 200 tokens in blocks of 64 and of 128, half of them selected, for 2 heads; kernels of two capabilities.
        self.assertEqual([(r["block_rows"], r["kernels"], r["pairs"]) for r in records],
                         [(64, "8.0", 16), (64, "9.0", 16), (128, "8.0", 4), (128, "9.0", 4)])
        for record in records:
            self.assertTrue(record["smoke"])
            self.assertTrue(record["text"].startswith("smoke run, its figures mean nothing: "), record["text"])
            self.assertEqual(record["device"], device_attention.SIMULATOR)
            self.assertLessEqual(record["area"], record["pairs"] * record["block_rows"] ** 2)
            self.assertTrue(all(0 <= error < 1e-2 for error in record["errors"].values()), record["errors"])
            self.assertTrue(set(device_attention.SELECTION + device_attention.FORWARD + device_attention.GRADIENTS
                                + device_attention.REDONE) < set(record["stages_ms"]))

    def test_a_simulator_is_not_measured(self):
        done = call("--tokens", "200", "--heads", "2")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout, "")
        self.assertIn("times on a simulator mean nothing", done.stderr)


class FiguresTest(unittest.TestCase):
    def ours(self):
        side = object.__new__(device_attention.Ours)
        # 2e9 query-key pairs: 1.024 TFLOP forward.
        side.facts = {"tokens": 32760, "head_dim": 128, "area": 2_000_000_000, "block_rows": 64, "sparsity": "0.9", "kernels": "9.0"}
        side.times = {name: [value, 100, value] for name, value in
                      {"pool_queries_and_keys": .05, "select": .15, "invert": .12, "pool_values": .02, "select_and_attend": .2,
                       "forward": 2, "clear_gradients": .1, "delta": .4, "backward": 5.5, "coarse_backward": .3,
                       "pooling_gradients": .13}.items()}
        return side

    def test_ours(self):
        record = self.ours().record()
        self.assertAlmostEqual(record["forward_tflops"], 512)
        self.assertAlmostEqual(record["backward_ms"], 6)
        self.assertAlmostEqual(record["backward_tflops"], round(2.5 * 1.024e12 / 6e-3 * 1e-12, 1))
        self.assertAlmostEqual(record["selection_ms"], .32)
        self.assertAlmostEqual(record["selection_share"], .04)
        self.assertAlmostEqual(record["layer_ms"], 8.32)
        # Its selection is the one that also attends.
        self.assertAlmostEqual(record["vsa_layer_ms"], 8.32 - .15 + .02 + .2 + .3 + .13)

    def test_ratios_and_what_is_wanted(self):
        record = self.ours().record()
        device_attention.add_ratios(record, [{"way": "cudnn", "layer_ms": 41.6, "forward_ms": 16, "backward_ms": 25.5}])
        self.assertEqual((record["over_cudnn"], record["forward_over_cudnn"], record["backward_over_cudnn"]), (5, 8, 4.25))
        self.assertEqual(record["vsa_over_cudnn"], 4.717)
        text = device_attention.text_of(record)
        for part in ("forward 512 TFLOP/s, at least 560 is wanted", "backward 426.7, at least 450 is wanted", "selection 4.0 %",
                     "5 times cudnn, at least 7 is wanted (VSA 4.717)"):
            self.assertIn(part, text)
        self.assertNotIn("below 5 is wanted", text)
        record["selection_share"] = .05
        self.assertIn("selection 5.0 %, below 5 is wanted", device_attention.text_of(record))
        record["head_dim"] = 64
        self.assertNotIn("wanted", device_attention.text_of(record))


if __name__ == "__main__":
    unittest.main()
